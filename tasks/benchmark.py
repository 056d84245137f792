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

from prompt_tuning.tasks import answers, casts, declarations, features, metrics
from prompt_tuning.tasks.features import seqio
from prompt_tuning.tasks.rows.sources import TRAIN_PART, Source

T5_FORM = "_t5"

registered: dict[str, "Task"] = {}
"""Every task that was registered here, by the names of both forms."""


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
    benchmark: whose mean score it is a part of.
    counts_as: the task that it shares its part with.
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
  benchmark: str = ""
  counts_as: str = ""
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
      ending = T5_FORM if t5_form else ""
      name = task.name + ending
      names.append(name)
      registered[name] = task
      declarations.declare(
        name,
        labels=task.labels,
        is_hidden=answers.is_hidden,
        benchmark=task.benchmark,
        counts_as=task.counts_as and task.counts_as + ending,
      )
      if name not in seqio.TaskRegistry.names():
        add(
          name,
          functools.partial(task.examples, t5_form=t5_form),
          task.splits,
          TextToText(
            fields=task.fields,
            postprocess=task.postprocess,
            scores=[*task.scores, metrics.invalid] if task.scores else (),
          ),
        )
  return names


@dataclasses.dataclass(frozen=True)
class TextToText:
  """What seqio is to know of a task from text to text.

  Attributes:
    fields: of the examples, besides inputs and targets.
    postprocess: see `answers`.
    scores: metrics.
    features: of inputs and targets; by default in the vocabulary of the model
      that reads them.
    preprocessors: of the ids, before EOS is appended.
  """

  fields: Sequence[str] = ()
  postprocess: Callable | None = None
  scores: Sequence[metrics.Metric] = ()
  features: "Mapping[str, seqio.Feature] | None" = None
  preprocessors: Sequence[Callable] = ()


def add(
  name: str,
  examples: Callable[[str], Iterable[casts.Example]],
  splits: Sequence[str],
  form: TextToText,
) -> None:
  """Adds one task whose examples a function of the split makes."""
  import tensorflow as tf  # seconds, which `infer` of a text can do without

  signature = {
    field: _spec(field) for field in ("inputs", "targets", *form.fields)
  }

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
      *form.preprocessors,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features=dict(form.features or features.of_text()),
    postprocess_fn=form.postprocess,
    metric_fns=list(form.scores),
  )


def _spec(field: str):
  import tensorflow as tf

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
    whole = declarations.declared(task).counts_as or task
    scores.setdefault(whole, []).append(float(np.mean(own)))
  return float(np.mean([np.mean(parts) for parts in scores.values()]))
