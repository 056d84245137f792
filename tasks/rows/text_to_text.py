"""Tasks from text to text, which this project reads without TensorFlow.

    TextToText -> `known` -> ids and fields of its rows (`data.splits`)
                          -> seqio's registry, once somebody imports seqio

TensorFlow behind seqio takes seconds to import. A run on such a task does
without it; t5x, and whoever asks seqio for a task, finds it there all the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import re
import sys
from typing import Any

import wrapt

from prompt_tuning.tasks import features, metrics
from prompt_tuning.tasks.features import seqio
from prompt_tuning.vocabulary import EOS, Vocabulary

Example = Mapping[str, Any]
FEATURES = ("inputs", "targets")


@dataclasses.dataclass(frozen=True, eq=False)
class TextToText:
  """A task whose examples a function of the split makes.

  What is asked of it has seqio.Task's names, so that whoever scores one does
  not mind which it is.

  Attributes:
    name: in the registries.
    make: the examples of a split: `inputs`, `targets` and the `fields`.
    splits: those that can be read.
    fields: of the examples, besides inputs and targets.
    postprocess: see `answers`; None leaves texts as they are.
    scores: metrics.
    vocabulary: None for that of the model that reads.
    target_prefix: ids in front of every target.
  """

  name: str
  make: Callable[[str], Iterable[Example]]
  splits: tuple[str, ...]
  fields: Sequence[str] = ()
  postprocess: Callable | None = None
  scores: Sequence[metrics.Metric] = ()
  vocabulary: Vocabulary | None = None
  target_prefix: tuple[int, ...] = ()

  @property
  def predict_metric_fns(self) -> list[metrics.Metric]:
    """The metrics."""
    return list(self.scores)

  def postprocess_fn(self, text: str, **about) -> Any:
    """What the metrics compare, of a text."""
    return self.postprocess(text, **about) if self.postprocess else text

  def rows(self, split: str, vocabulary: Vocabulary) -> Iterator[Example]:
    """The ids of every example, EOS included, its texts and its fields."""
    made = list(self.make(split))
    ids = {
      feature: vocabulary.encode_all([row[feature] for row in made])
      for feature in FEATURES
    }
    for i, row in enumerate(made):
      yield {
        "inputs": [*ids["inputs"][i], EOS],
        "targets": [*self.target_prefix, *ids["targets"][i], EOS],
        **{f"{feature}_pretokenized": row[feature] for feature in FEATURES},
        **{field: row[field] for field in self.fields},
      }


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Tasks that are drawn in proportion to rates."""

  name: str
  rates: Mapping[str, int | float]


_NAME = re.compile(r"[\w.:#]+")

_known: dict[str, TextToText | Mixture] = {}
_in_seqio: dict[str, Any] = {}  # what was made of them there


def add(task: TextToText | Mixture) -> None:
  """Makes a task or mixture known here and in seqio.

  Another of the same name takes its place, except in seqio: what a user has
  registered there under the name stays.

  Raises:
    ValueError: seqio takes no such name.
  """
  if not _NAME.fullmatch(task.name):
    raise ValueError(
      f"A task cannot be called {task.name!r} (--name for your own files): "
      "seqio takes letters, digits and the signs _ . : # only."
    )
  before = _in_seqio.pop(task.name, None)
  if before is not None and before is _found_in_seqio(task.name):
    _registry_of(task).remove(task.name)
  _known[task.name] = task
  # At once if seqio is imported, else when it is.
  wrapt.register_post_import_hook(
    lambda _: _register(_known[task.name]), "seqio"
  )


def find(name: str) -> TextToText | Mixture | None:
  """What was added under a name; None if a user has another in seqio."""
  own = _known.get(name)
  there = _found_in_seqio(name)
  return None if there is not None and there is not _in_seqio.get(name) else own


def is_taken(name: str) -> bool:
  """Whether there is a task or mixture of the name, here or in seqio."""
  return name in _known or _found_in_seqio(name) is not None


def names(kind: type = object) -> list[str]:
  """The names of what was added; of tasks or mixtures alone by their type."""
  return [name for name, task in _known.items() if isinstance(task, kind)]


def _registry_of(task: TextToText | Mixture):
  is_mixture = isinstance(task, Mixture)
  return seqio.MixtureRegistry if is_mixture else seqio.TaskRegistry


def _found_in_seqio(name: str):
  """The task or mixture in seqio's registries, if seqio is imported at all."""
  if "seqio" not in sys.modules:
    return None
  for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
    if name in registry.names():
      return registry.get(name)
  return None


def _register(task: TextToText | Mixture) -> None:
  if _found_in_seqio(task.name) is not None:
    return
  if isinstance(task, Mixture):
    seqio.MixtureRegistry.add(task.name, [*task.rates.items()])
  else:
    _register_task(task)
  _in_seqio[task.name] = _registry_of(task).get(task.name)


def _register_task(task: TextToText) -> None:
  import tensorflow as tf

  signature = {field: _spec(field) for field in (*FEATURES, *task.fields)}

  def dataset(split: str, shuffle_files: bool, seed: int | None = None):
    del shuffle_files, seed  # the order is drawn by whoever trains
    made = list(task.make(split))  # here, so that its errors are our own
    return tf.data.Dataset.from_generator(
      lambda: ({name: row[name] for name in signature} for row in made),
      output_signature=signature,
    )

  own = task.vocabulary and features.of(task.vocabulary)
  seqio.TaskRegistry.add(
    task.name,
    source=seqio.FunctionDataSource(dataset, splits=task.splits),
    preprocessors=[
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      *[functools.partial(_prepend, task.target_prefix)]
      * bool(task.target_prefix),
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features=features.of_text(own),
    postprocess_fn=task.postprocess,
    metric_fns=list(task.scores),
  )


def _prepend(ids: Sequence[int], dataset):
  """A tf.data.Dataset with the ids in front of its targets."""
  import tensorflow as tf

  def prepend(example):
    targets = example["targets"]
    first = tf.constant(ids, targets.dtype)
    return {**example, "targets": tf.concat([first, targets], 0)}

  return dataset.map(prepend)


def _spec(field: str):
  import tensorflow as tf

  if field in ("answers", "entities"):
    return tf.TensorSpec([None], tf.string)
  if field.startswith(("idx", "label")):
    return tf.TensorSpec([], tf.int32)
  return tf.TensorSpec([], tf.string)
