"""Tasks of a benchmark in seqio's registry, each in two forms.

    Source -> rows -> cast -> seqio task -> postprocess -> metrics

`glue_mrpc` is the form for prompt tuning, without the task word; `glue_mrpc_t5`
is T5's own, for model tuning and prompt design. Registering reads nothing and
is done once, however often it is called.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.tasks import casts, metrics, vocabulary
from prompt_tuning.tasks.sources import TRAIN_PART, Source

T5_FORM = "_t5"

registered: dict[str, "Task"] = {}
"""Every task that was registered here, by the names of both forms."""

classes: dict[str, tuple[str, ...]] = {}
"""The words of the classes of each task that `add` registered."""


@dataclasses.dataclass(frozen=True)
class Task:
  """A task before it is registered.

  Attributes:
    name: of the form for prompt tuning.
    source: where its rows come from.
    cast: from a row to examples in T5's form.
    postprocess: see `answers`.
    scores: metrics; none for a task whose answers are hidden.
    fields: of the examples, besides inputs and targets.
    split_casts: other casts for certain splits.
    split_sources: other sources for certain splits, and their name there.
    labels: the words of the classes, of a task that has classes.
    has_task_word: whether T5's form opens with the task's name.
  """

  name: str
  source: Source
  cast: casts.Cast
  postprocess: Callable | None
  scores: Sequence[metrics.Metric] = (metrics.accuracy,)
  fields: Sequence[str] = ("idx",)
  split_casts: Mapping[str, casts.Cast] = dataclasses.field(
    default_factory=dict
  )
  split_sources: Mapping[str, tuple[Source, str]] = dataclasses.field(
    default_factory=dict
  )
  labels: tuple[str, ...] = ()
  has_task_word: bool = True

  @property
  def splits(self) -> tuple[str, ...]:
    """Every split that can be read."""
    return tuple(dict.fromkeys((*self.source.all_splits, *self.split_sources)))

  def examples(self, split: str, t5_form: bool) -> Iterator[casts.Example]:
    """The examples of a split."""
    source, at = self.split_sources.get(split, (self.source, split))
    cast = self.split_casts.get(
      "train" if split == TRAIN_PART else split, self.cast
    )
    if self.has_task_word and not t5_form:
      cast = casts.without_task_word(cast)
    for row in source.rows(at):
      yield from cast(row)


def register(tasks: Iterable[Task]) -> list[str]:
  """Adds both forms of tasks to seqio's registry, unless they are there."""
  names = []
  for task in tasks:
    for t5_form in (False, True) if task.has_task_word else (False,):
      name = task.name + (T5_FORM if t5_form else "")
      names.append(name)
      registered[name] = task
      if name not in seqio.TaskRegistry.names():
        add(
          name,
          functools.partial(task.examples, t5_form=t5_form),
          task.splits,
          fields=task.fields,
          postprocess=task.postprocess,
          scores=task.scores,
          labels=task.labels,
        )
  return names


def add(
  name: str,
  examples: Callable[[str], Iterable[casts.Example]],
  splits: Sequence[str],
  *,
  fields: Sequence[str] = (),
  postprocess: Callable | None = None,
  scores: Sequence[metrics.Metric] = (),
  labels: Sequence[str] = (),
) -> None:
  """Adds one task whose examples a function of the split makes."""
  classes[name] = tuple(labels)
  signature = {field: _spec(field) for field in ("inputs", "targets", *fields)}

  def dataset(split: str, shuffle_files: bool, seed: int | None = None):
    del shuffle_files, seed  # the order is drawn by whoever trains
    made = list(examples(split))  # here, so that its errors are our own
    return tf.data.Dataset.from_generator(
      lambda: ({name: row[name] for name in signature} for row in made),
      output_signature=signature,
    )

  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(dataset, splits=tuple(splits)),
    preprocessors=[
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features=vocabulary.features(),
    postprocess_fn=postprocess,
    metric_fns=[*scores, metrics.invalid] if scores else [],
  )


def _spec(field: str) -> tf.TensorSpec:
  if field in ("answers", "entities"):
    return tf.TensorSpec([None], tf.string)
  if field.startswith(("idx", "label")):
    return tf.TensorSpec([], tf.int32)
  return tf.TensorSpec([], tf.string)


def register_mixture(name: str, rates: Mapping[str, int]) -> None:
  """Adds a mixture in both forms, unless it is there."""
  for ending in ("", T5_FORM):
    if name + ending not in seqio.MixtureRegistry.names():
      seqio.MixtureRegistry.add(
        name + ending,
        [(task + ending, rate) for task, rate in rates.items()],
      )


def average(results: Mapping[str, Mapping[str, float]]) -> float:
  """The score of a benchmark, as its leaderboard takes the mean.

  A task with two metrics counts their mean, and MNLI's two test sets count as
  one task.

  Args:
    results: for each task its metrics; the count of invalid predictions among
      them is no score.
  """
  scores: dict[str, list[float]] = {}
  for task, values in results.items():
    own = [value for name, value in values.items() if name != "invalid"]
    whole = task.replace("mnli_mismatched", "mnli")
    whole = whole.replace("mnli_matched", "mnli")
    scores.setdefault(whole, []).append(float(np.mean(own)))
  return float(np.mean([np.mean(parts) for parts in scores.values()]))
