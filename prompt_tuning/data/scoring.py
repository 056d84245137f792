"""Scores: predictions -> postprocessing -> the task's metrics -> one number."""

import collections
from collections.abc import Sequence
import itertools
import logging
import math
import re
from typing import Any, NamedTuple
import warnings

import numpy as np

from prompt_tuning.data import registry, splits
from prompt_tuning.tasks import declarations
from prompt_tuning.tasks.metrics import SHORT_NAMES

INVALID = "invalid"
"""The metric that counts predictions which are no valid answer; no score."""


def postprocess(
  examples: splits.Examples, texts: Sequence[str], *, is_target: bool
) -> list[Any]:
  """What the task's metrics are computed on, from predictions or targets."""
  task: Any = registry.find(examples.task)
  return [
    task.postprocess_fn(text, example=row, is_target=is_target)
    for text, row in zip(texts, examples.fields, strict=True)
  ]


def metrics(
  examples: splits.Examples, predictions: Sequence[str]
) -> dict[str, float]:
  """The task's metrics of predicted texts.

  Rows whose answers the task declares hidden do not count; without any other
  row there are no metrics.

  Raises:
    ValueError: the task has no metric on predictions.
  """
  functions = registry.metric_functions(examples.task)
  if not functions:
    raise ValueError(
      f"{examples.task} has no metric on predictions. Give the task a "
      "metric function of (targets, predictions)."
    )
  # What the vocabulary makes of a target is the target.
  texts = examples.target_texts()
  predictions = [
    texts[i] if text == examples.said.get(i) else text
    for i, text in enumerate(predictions)
  ]
  targets = postprocess(examples, texts, is_target=True)
  answers = postprocess(examples, predictions, is_target=False)
  is_hidden = declarations.declared(examples.task).is_hidden
  if is_hidden is not None:
    known = [not is_hidden(target) for target in targets]
    targets = list(itertools.compress(targets, known))
    answers = list(itertools.compress(answers, known))
  values = {}
  if not targets:
    logging.getLogger(__name__).warning(
      "%s, split %s: the answers are not public, so there is no score.",
      *(examples.task, examples.split),
    )
    return values
  for function in functions:
    for name, value in function(targets, answers).items():
      number: Any = getattr(value, "value", value)
      values[name] = float(number)
  return values


def score(metrics: dict[str, float], select_by: str | None) -> float:
  """The number that the best prompt is chosen by.

  Args:
    metrics: of one evaluation.
    select_by: a metric's name, or its short one of `--metric`; None means the
      mean of all, as benchmarks average tasks with two metrics. The count of
      invalid predictions is none.

  Raises:
    ValueError: there is no such metric, or none at all.
  """
  scores = {k: v for k, v in metrics.items() if k != INVALID}
  if not scores:
    raise ValueError(
      "The validation split has no public answers, so no prompt is better than "
      "another there. Set VALIDATION_SPLIT to a split with answers."
    )
  if select_by is None:
    return float(np.mean(list(scores.values())))
  pattern = SHORT_NAMES.get(select_by, re.escape(select_by))
  short = [name for name in scores if re.fullmatch(pattern, name)]
  select_by = short[0] if len(short) == 1 else select_by
  if select_by not in scores:
    raise ValueError(
      f"SELECT_BY={select_by!r} is no metric of this task; it has "
      f"{', '.join(scores)}."
    )
  return scores[select_by]


class Chance(NamedTuple):
  """What a prompt scores that has learned nothing of its task.

  Attributes:
    score: of the most frequent answer, given to every example.
    margin: two standard errors of a guess among so many examples.
  """

  score: float
  margin: float


MOST_CLASSES = 20
"""A task with more answers than these has no classes to guess among."""


def chance(examples: splits.Examples, select_by: str | None) -> Chance | None:
  """What is chance on a task of few classes; None for any other task.

  Args:
    examples: of the split that prompts are chosen on.
    select_by: as `score` takes it.
  """
  texts = examples.target_texts()
  counts = collections.Counter(texts)
  if not 1 < len(counts) <= min(MOST_CLASSES, len(texts) // 4):
    return None
  ((answer, _),) = counts.most_common(1)
  with warnings.catch_warnings():  # no correlation with a constant
    warnings.simplefilter("ignore")
    guessed, perfect = (
      score(metrics(examples, said), select_by)
      for said in ([answer] * len(texts), texts)
    )
  return Chance(guessed, perfect / math.sqrt(len(texts)))
