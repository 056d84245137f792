"""Tasks of a benchmark, each in two forms.

    Source -> rows -> cast -> `text_to_text` -> postprocess -> metrics

`glue_mrpc` is the form for prompt tuning, without the task word; `glue_mrpc_t5`
is T5's own, for model tuning and prompt design. Registering reads nothing and
is done once, however often it is called.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools

import numpy as np

from prompt_tuning.tasks import (
  answers,
  casts,
  declarations,
  metrics,
)
from prompt_tuning.tasks.rows import text_to_text
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
  """Adds both forms of tasks, unless they are there; their names."""
  names = []
  for task in tasks:
    for t5_form in (False, True) if task.has_task_word else (False,):
      ending = T5_FORM if t5_form else ""
      name = task.name + ending
      names.append(name)
      if name in registered:
        continue
      registered[name] = task
      text_to_text.add(
        text_to_text.TextToText(
          name,
          functools.partial(task.examples, t5_form=t5_form),
          task.splits,
          fields=task.fields,
          postprocess=task.postprocess,
          scores=[*task.scores, metrics.invalid] if task.scores else (),
        )
      )
      if text_to_text.find(name) is None:
        continue  # a user has another of the name, and may declare it
      declarations.declare(
        name,
        labels=task.labels,
        is_hidden=answers.is_hidden,
        benchmark=task.benchmark,
        counts_as=task.counts_as and task.counts_as + ending,
      )
  return names


def register_mixture(name: str, rates: Mapping[str, int]) -> None:
  """Adds a mixture in both forms."""
  for ending in ("", T5_FORM):
    of_form = {task + ending: rate for task, rate in rates.items()}
    text_to_text.add(text_to_text.Mixture(name + ending, of_form))


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
