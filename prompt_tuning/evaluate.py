"""Scores of prompts on their tasks: predict, postprocess, task's metrics.

Examples per prompt -> one stream of examples that names its prompts
                    -> predictions -> metrics per prompt
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from prompt_tuning import data, decode, infer, t5
from prompt_tuning.shapes import PyTree
from prompt_tuning.tasks import benchmark
from prompt_tuning.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Result:
  """The evaluation of one prompt on one split.

  Attributes:
    task: the task's name.
    split: the split's name.
    metrics: the task's metrics.
    predictions: a text per example.
  """

  task: str
  split: str
  metrics: dict[str, float]
  predictions: list[str]


class Evaluator:
  """Evaluates a bank: prompt n on its own examples.

  Args:
    network: a T5 with the bank, or without one.
    vocabulary: ids to text.
    sets: for each prompt the examples it is scored on.
    decoding: how predictions are made. `Rank` without labels takes those
      of each task, see `data.labels`.
    prompt_length: P, or the length of every prompt of the bank.
    first_prompt: the place in the bank of the first set's prompt.
  """

  def __init__(
    self,
    network: t5.T5,
    vocabulary: Vocabulary,
    sets: Sequence[data.Examples],
    *,
    decoding: infer.Decoding,
    prompt_length: int | Sequence[int],
    first_prompt: int = 0,
  ):
    self._sets = sets
    self._first_prompt = first_prompt
    self._groups: dict[Any, tuple[infer.Predictor, list[int]]] = {}
    for n, examples in enumerate(sets):
      chosen = with_labels(decoding, examples.task, vocabulary)
      if chosen not in self._groups:
        predictor = infer.Predictor(
          network, vocabulary, chosen, prompt_length=prompt_length
        )
        self._groups[chosen] = (predictor, [])
      self._groups[chosen][1].append(n)

  def __call__(
    self, params: PyTree, show_progress: bool = False
  ) -> list[Result]:
    """The results of all prompts; prompts of like decoding share batches."""
    results: dict[int, Result] = {}
    for predictor, members in self._groups.values():
      rows, prompt_id = [], []
      for n in members:
        own_rows = input_rows(self._sets[n])
        rows += own_rows
        prompt_id += [self._first_prompt + n] * len(own_rows)
      texts = predictor(params, rows, prompt_id, show_progress)
      begin = 0
      for n in members:
        examples = self._sets[n]
        own = texts[begin : begin + len(examples)]
        begin += len(examples)
        results[n] = Result(
          examples.task, examples.split, data.metrics(examples, own), own
        )
    return [results[n] for n in range(len(self._sets))]


def input_rows(examples: data.Examples) -> list[np.ndarray]:
  """The ids of each input, EOS included."""
  inputs = examples.inputs
  return np.split(inputs.ids, inputs.starts[1:-1])


def with_labels(
  decoding: infer.Decoding, task: str, vocabulary: Vocabulary
) -> infer.Decoding:
  """The decoding; `Rank` without labels gets the task's, see `data.labels`."""
  strategy = decoding.strategy
  if not isinstance(strategy, decode.Rank) or strategy.labels:
    return decoding
  found = tuple(data.labels(task, vocabulary))
  return dataclasses.replace(
    decoding, strategy=dataclasses.replace(strategy, labels=found)
  )


def score(metrics: dict[str, float], select_by: str | None) -> float:
  """The number that the best prompt is chosen by.

  Args:
    metrics: of one evaluation.
    select_by: a metric's name; None means the mean of all, as benchmarks
      average tasks with two metrics. The count of invalid predictions is none.

  Raises:
    ValueError: there is no such metric, or none at all.
  """
  scores = {k: v for k, v in metrics.items() if k != data.INVALID}
  if not scores:
    raise ValueError(
      "The validation split has no public answers, so no prompt is better than "
      "another there. Set VALIDATION_SPLIT to a split with answers."
    )
  if select_by is None:
    return float(np.mean(list(scores.values())))
  if select_by not in scores:
    raise ValueError(
      f"SELECT_BY={select_by!r} is no metric of this task; it has "
      f"{', '.join(scores)}."
    )
  return scores[select_by]


def averages(results: Sequence[Result]) -> dict[str, float]:
  """The score of each benchmark that several results are tasks of."""
  found: dict[str, dict[str, dict[str, float]]] = {}
  for result in results:
    for name in ("super_glue", "glue"):
      if result.task.startswith(f"{name}_") and result.metrics:
        found.setdefault(name, {})[result.task] = result.metrics
  return {
    f"{name}, mean of {len(tasks)} tasks": benchmark.average(tasks)
    for name, tasks in found.items()
    if len(tasks) > 1
  }


def prediction_rows(examples: data.Examples, result: Result) -> list[dict]:
  """The lines of a predictions file: input, target and prediction."""
  return [
    {"input": source, "target": target, "prediction": prediction}
    for source, target, prediction in zip(
      data.input_texts(examples),
      examples.target_texts(),
      result.predictions,
      strict=True,
    )
  ]
