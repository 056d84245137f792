"""The scores of GLUE, SuperGLUE and SQuAD, in percent, by their own names.

Functions of (targets, predictions) after postprocessing (see `answers`). A
prediction that is no valid answer is wrong, and `invalid` counts it: every
task reports that number beside its scores, and nothing is chosen by it.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import re
import string
from typing import Any

import numpy as np
import scipy.stats
from sklearn import metrics as sklearn_metrics

from prompt_tuning.tasks import answers

Scores = dict[str, float]
Metric = Callable[[Sequence[Any], Sequence[Any]], Scores]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


SHORT_NAMES = {
  "macro_f1": r"mean_\d+class_f1",
  "matthews": "matthews_corrcoef",
  "pearson": "pearson_corrcoef",
  "spearman": "spearman_corrcoef",
  "squad": "f1",
}
"""What a user calls a metric, and the pattern of the name in its scores."""


def accuracy(targets, predictions) -> Scores:
  """Share of right predictions; of a list of answers any is right."""
  right = sum(
    p in t if isinstance(t, list) else p == t
    for t, p in zip(targets, predictions, strict=True)
  )
  return {"accuracy": 100 * right / len(targets)}


def f1(targets, predictions) -> Scores:
  """F1 of class 1; a prediction that is neither 0 nor 1 counts as wrong."""
  targets, classes = np.asarray(targets), np.asarray(predictions)
  classes = np.where((classes == 0) | (classes == 1), classes, 1 - targets)
  value = sklearn_metrics.f1_score(targets, classes, zero_division=0)
  return {"f1": 100 * float(value)}


def mean_f1(num_classes: int) -> Metric:
  """The mean of the F1 of every class."""

  def metric(targets, predictions) -> Scores:
    options = {"labels": range(num_classes), "average": "macro"}
    value = sklearn_metrics.f1_score(
      targets, predictions, zero_division=0, **options
    )
    return {f"mean_{num_classes}class_f1": 100 * float(value)}

  return metric


def matthews(targets, predictions) -> Scores:
  """Matthews' correlation; an invalid prediction is a class of its own."""
  value = sklearn_metrics.matthews_corrcoef(targets, predictions)
  return {"matthews_corrcoef": 100 * float(value)}


def pearson(targets, predictions) -> Scores:
  """Pearson's correlation; 0 where it is undefined, of constant predictions."""
  value = _correlation(scipy.stats.pearsonr, targets, predictions)
  return {"pearson_corrcoef": value}


def spearman(targets, predictions) -> Scores:
  """Spearman's rank correlation; 0 where it is undefined."""
  value = _correlation(scipy.stats.spearmanr, targets, predictions)
  return {"spearman_corrcoef": value}


def _correlation(function, targets, predictions) -> float:
  if len(set(targets)) < 2 or len(set(predictions)) < 2:
    return 0.0
  return 100 * float(function(targets, predictions)[0])


def multirc_f1(targets, predictions) -> Scores:
  """F1 over all answers of all questions (F1a)."""
  return f1([t["value"] for t in targets], [p["value"] for p in predictions])


def multirc_exact_match(targets, predictions) -> Scores:
  """Share of questions with every answer right."""
  right = collections.defaultdict(list)
  for target, prediction in zip(targets, predictions, strict=True):
    right[target["group"]].append(target["value"] == prediction["value"])
  share = np.mean([all(marks) for marks in right.values()])
  return {"exact_match": 100 * float(share)}


def squad(targets, predictions) -> Scores:
  """Exact match and F1 of words, each the best over all answers."""
  exact, overlap = [], []
  for prediction, texts in zip(predictions, targets, strict=True):
    words = normalized(prediction)
    wanted = [normalized(text) for text in texts]
    exact.append(max((words == text for text in wanted), default=False))
    overlap.append(max((_overlap(words, t) for t in wanted), default=0.0))
  return {
    "em": 100 * float(np.mean(exact)),
    "f1": 100 * float(np.mean(overlap)),
  }


def normalized(text: str) -> str:
  """Lower case, no punctuation, no articles, single spaces."""
  text = text.lower().translate(_NO_PUNCTUATION)
  return " ".join(_ARTICLES.sub(" ", text).split())


def _overlap(prediction: str, target: str) -> float:
  have, want = prediction.split(), target.split()
  shared = (collections.Counter(have) & collections.Counter(want)).total()
  if not shared:
    return 0.0
  precision, recall = shared / len(have), shared / len(want)
  return 2 * precision * recall / (precision + recall)


def record(targets, predictions) -> Scores:
  """SQuAD's scores, each query counted once."""
  first = {}
  for target, prediction in zip(targets, predictions, strict=True):
    first.setdefault(target["group"], (target["value"], prediction["value"]))
  return squad(*zip(*first.values(), strict=True))


def invalid(targets, predictions) -> Scores:
  """How many predictions are no valid answer: no label, or no text at all."""
  del targets
  return {"invalid": float(sum(not _is_valid(p) for p in predictions))}


def _is_valid(prediction) -> bool:
  if isinstance(prediction, Mapping):
    if "valid" in prediction:
      return prediction["valid"]
    prediction = prediction["value"]
  if isinstance(prediction, str):
    return bool(prediction.strip())
  return not answers.is_invalid(prediction)
