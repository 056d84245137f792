"""The microworld's tasks in seqio: `microworld_boolq`, `microworld_rte` ...

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

from prompt_tuning.tasks import benchmark, declarations, features, metrics
from prompt_tuning.tasks.features import seqio
from prompt_tuning.tasks.microworld import examples, vocabulary
from prompt_tuning.tasks.microworld.examples import LABELS, SPLITS, TRANSFERS

EXTRA_IDS = 16
_SENTINEL = re.compile(r"<extra_id_\d+>")
F1_TASKS = ("microworld_mrpc", "microworld_qqp", *TRANSFERS)
MIXTURE = "microworld_multitask"
MULTITASK = ("microworld_boolq", "microworld_qqp", "microworld_twofact")
SENTINEL = "_sentinel"


@functools.cache
def seqio_vocabulary() -> "seqio.SentencePieceVocabulary":
  """The shipped vocabulary with its sentinels behind the pieces."""
  return seqio.SentencePieceVocabulary(
    str(vocabulary.PATH), extra_ids=EXTRA_IDS
  )


def class_id(text, *, labels, **_) -> int:
  """The class of a predicted label, -1 for any other text."""
  text = _SENTINEL.sub("", text).strip()
  return labels.index(text) if text in labels else -1


def with_sentinel(dataset):
  """A tf.data.Dataset with T5's first sentinel in front of the targets."""
  import tensorflow as tf  # seconds, for this one form of the tasks

  def prepend(example):
    ids = example["targets"]
    first = tf.constant([seqio_vocabulary().vocab_size - 1], ids.dtype)
    return {**example, "targets": tf.concat([first, ids], 0)}

  return dataset.map(prepend)


def _add(name: str, source: str, labels, *preprocessors) -> None:
  """Registers one task on the examples of `source`."""
  make = examples.examples
  if source in TRANSFERS:
    make = examples.transferred
  scores = (metrics.accuracy, *[metrics.f1] * (source in F1_TASKS))
  benchmark.add(
    name,
    functools.partial(make, source),
    tuple(SPLITS),
    benchmark.TextToText(
      fields=("idx",),
      postprocess=functools.partial(class_id, labels=labels),
      scores=scores,
      features=features.of_text(seqio_vocabulary()),
      preprocessors=preprocessors,
    ),
  )
  declarations.declare(name, labels=labels)


def register() -> None:
  """Adds every task to seqio's registry, unless it is there."""
  if MIXTURE in seqio.MixtureRegistry.names():
    return
  for name, labels in LABELS.items():
    _add(name, name, labels)
    _add(name + SENTINEL, name, labels, with_sentinel)
  for name, (first, _) in TRANSFERS.items():
    _add(name, name, LABELS[first])
  seqio.MixtureRegistry.add(MIXTURE, list(MULTITASK), default_rate=1.0)


register()
