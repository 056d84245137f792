"""The microworld's tasks: `microworld_boolq`, `microworld_rte` ...

    words, senses -> events -> passages, sentences (the `skills`)
      -> examples (tasks), text and notes (pre-training)

Importing registers the tasks once and makes no data; a split's examples are
made when it is first read. The casts are those of SuperGLUE and GLUE without
the task word (see `examples`). Beside each task stand

    microworld_boolq_sentinel   T5's first sentinel in front of the targets, for
                                models of span corruption only
    microworld_qqp_to_mrpc      trained on one task, tested on another
    microworld_multitask        the mixture of `MULTITASK`
"""

import functools
import re

from prompt_tuning.tasks import declarations, metrics
from prompt_tuning.tasks.microworld import examples, vocabulary
from prompt_tuning.tasks.microworld.examples import LABELS, SPLITS, TRANSFERS
from prompt_tuning.tasks.rows import text_to_text
from prompt_tuning.vocabulary import Vocabulary

EXTRA_IDS = 16
_SENTINEL = re.compile(r"<extra_id_\d+>")
F1_TASKS = ("microworld_mrpc", "microworld_qqp", *TRANSFERS)
MIXTURE = "microworld_multitask"
MULTITASK = ("microworld_boolq", "microworld_qqp", "microworld_twofact")
SENTINEL = "_sentinel"


@functools.cache
def shipped_vocabulary() -> Vocabulary:
  """The shipped vocabulary with its sentinels behind the pieces."""
  return Vocabulary(str(vocabulary.PATH), EXTRA_IDS)


def class_id(text, *, labels, **_) -> int:
  """The class of a predicted label, -1 for any other text."""
  text = _SENTINEL.sub("", text).strip()
  return labels.index(text) if text in labels else -1


def _add(name: str, source: str, labels, prefix: tuple[int, ...] = ()) -> None:
  """Registers one task on the examples of `source`."""
  make = examples.examples
  if source in TRANSFERS:
    make = examples.transferred
  text_to_text.add(
    text_to_text.TextToText(
      name,
      functools.partial(make, source),
      tuple(SPLITS),
      fields=("idx",),
      postprocess=functools.partial(class_id, labels=labels),
      scores=(metrics.accuracy, *[metrics.f1] * (source in F1_TASKS)),
      vocabulary=shipped_vocabulary(),
      target_prefix=prefix,
    )
  )
  declarations.declare(name, labels=labels)


def register() -> None:
  """Adds every task."""
  sentinel = (shipped_vocabulary().sentinel(0),)
  for name, labels in LABELS.items():
    _add(name, name, labels)
    _add(name + SENTINEL, name, labels, sentinel)
  for name, (first, _) in TRANSFERS.items():
    _add(name, name, LABELS[first])
  text_to_text.add(text_to_text.Mixture(MIXTURE, dict.fromkeys(MULTITASK, 1.0)))


register()
