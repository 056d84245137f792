"""The microworld's tasks in seqio: `microworld_boolq`, `microworld_rte` ...

Importing registers the tasks once and makes no data; a split's examples are
made when it is first read. The casts are those of SuperGLUE and GLUE without
the task word (see `microworld_examples`). Beside each task stand

    microworld_boolq_sentinel   T5's first sentinel in front of the targets, for
                                models of span corruption only
    microworld_qqp_to_mrpc      trained on one task, tested on another
    microworld_multitask        the mixture of `MULTITASK`
"""

import functools

import seqio

from prompt_tuning.tasks import microworld_examples, microworld_vocabulary
from prompt_tuning.tasks.microworld_examples import LABELS, SPLITS, TRANSFERS

EXTRA_IDS = 16
FEATURES = ("inputs", "targets")
F1_TASKS = ("microworld_mrpc", "microworld_qqp", *TRANSFERS)
MIXTURE = "microworld_multitask"
MULTITASK = ("microworld_boolq", "microworld_qqp", "microworld_twofact")
SENTINEL = "_sentinel"
UNKNOWN = "\u2047"  # what SentencePiece writes for an id that is no piece


@functools.cache
def vocabulary() -> seqio.SentencePieceVocabulary:
  """The shipped vocabulary with its sentinels behind the pieces."""
  return seqio.SentencePieceVocabulary(
    str(microworld_vocabulary.PATH), extra_ids=EXTRA_IDS
  )


def dataset(split, shuffle_files, seed=None, *, name):
  """A split as a `tf.data.Dataset`; the examples are shuffled when made."""
  del shuffle_files, seed
  import tensorflow as tf

  make = microworld_examples.examples
  if name in TRANSFERS:
    make = microworld_examples.transferred
  records = make(name, split)
  return tf.data.Dataset.from_tensor_slices(
    {
      "inputs": [record["inputs"] for record in records],
      "targets": [record["targets"] for record in records],
      "idx": [record["idx"] for record in records],
    }
  )


def class_id(text, *, labels, **_) -> int:
  """The class of a predicted label, -1 for any other text."""
  text = text.replace(UNKNOWN, "").strip()  # a sentinel, decoded
  return labels.index(text) if text in labels else -1


def with_sentinel(dataset):
  """T5's first sentinel in front of the targets."""
  import tensorflow as tf

  def prepend(example):
    ids = example["targets"]
    first = tf.constant([vocabulary().vocab_size - 1], ids.dtype)
    return {**example, "targets": tf.concat([first, ids], 0)}

  return dataset.map(prepend)


def accuracy(targets, predictions) -> dict[str, float]:
  """Percent of right predictions."""
  right = sum(t == p for t, p in zip(targets, predictions, strict=True))
  return {"accuracy": 100 * right / len(targets)}


def f1(targets, predictions) -> dict[str, float]:
  """F1 of class 1 in percent; an invalid prediction counts as wrong."""
  pairs = list(zip(targets, predictions, strict=True))
  hits = sum(t == p == 1 for t, p in pairs)
  claimed = sum(p == 1 or (p < 0 and t == 0) for t, p in pairs)
  real = sum(t == 1 for t, _ in pairs)
  return {"f1": 200 * hits / (claimed + real) if hits else 0.0}


def _add(name: str, source: str, labels, *before_eos) -> None:
  """Registers one task on the examples of `source`."""
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(
      dataset_fn=functools.partial(dataset, name=source),
      splits=tuple(SPLITS),
      num_input_examples=SPLITS,
    ),
    preprocessors=[
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      *before_eos,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
      feature: seqio.Feature(vocabulary(), add_eos=True) for feature in FEATURES
    },
    postprocess_fn=functools.partial(class_id, labels=labels),
    metric_fns=[accuracy, f1] if source in F1_TASKS else [accuracy],
  )


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
