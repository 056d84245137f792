"""Ensembles: N prompts of one task on one frozen model, and their vote.

    each example N times, with prompts 0 … N-1 -> one batch of N copies
        -> N answers -> the answer of the most prompts

A prompt is kilobytes, so an ensemble costs one model and N prompts (Lester et
al. 2021, section 6 and table 3). Beside the vote stands the average of the
label probabilities.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from prompt_tuning import tables
from prompt_tuning.data import scoring, splits
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.model import decode
from prompt_tuning.prompts.prompted import Prompted
from prompt_tuning.shapes import EOS, Float, Int


def vote(scores: Float[np.ndarray, "N B C"]) -> Int[np.ndarray, "B"]:
  """The label that most prompts hold for the most likely one.

  Args:
    scores: log-probability of each label under each prompt, in nats. Among
      labels of equally many votes the larger sum over all prompts wins.
  """
  labels = np.arange(scores.shape[2])
  votes = (scores.argmax(axis=2)[..., None] == labels).sum(axis=0)
  tied = votes == votes.max(axis=1, keepdims=True)
  return np.where(tied, scores.sum(axis=0), -np.inf).argmax(axis=1)


def average(scores: Float[np.ndarray, "N B C"]) -> Int[np.ndarray, "B"]:
  """The label of the highest mean probability among the given labels."""
  shifted = np.exp(scores - scores.max(axis=2, keepdims=True))
  return (shifted / shifted.sum(axis=2, keepdims=True)).mean(0).argmax(axis=1)


def vote_texts(
  texts: Sequence[Sequence[str]], scores: Float[np.ndarray, "N B"] | None = None
) -> list[str]:
  """The text that most prompts wrote for each example.

  Args:
    texts: for each prompt a text per example.
    scores: the log-probability of each text under the prompt that wrote it.
      Among texts of equally many votes the larger sum wins; without scores,
      the text of the earlier prompt.
  """
  if scores is None:
    scores = np.zeros((len(texts), len(texts[0])))
  winners = []
  for b, written in enumerate(zip(*texts, strict=True)):
    votes: dict[str, tuple[int, float]] = {}
    for n, text in enumerate(written):
      count, total = votes.get(text, (0, 0.0))
      votes[text] = (count + 1, total + float(scores[n, b]))
    winners.append(max(votes, key=votes.__getitem__))
  return winners


@dataclasses.dataclass(frozen=True)
class Votes:
  """The scores of N prompts alone and together, as in the paper's table 3.

  Attributes:
    examples: what they answered.
    singles: the metrics of each prompt alone.
    vote: the metrics of the majority vote.
    average: those of the mean probability; None for texts that are written
      freely.
    answers: the vote's answer for each example.
    decoding: how each prompt answers.
  """

  examples: splits.Examples
  singles: list[dict[str, float]]
  vote: dict[str, float]
  average: dict[str, float] | None
  answers: list[str]
  decoding: str = ""

  def summary(self) -> dict[str, dict[str, float]]:
    """The metrics of the average prompt, the best one and the ensembles.

    The best one is best on the scored split itself, by the mean of its metrics.
    Without public answers there are no metrics, and nothing to compare.
    """
    if not self.vote:
      return {}
    means = {
      name: float(np.mean([single[name] for single in self.singles]))
      for name in self.singles[0]
    }
    best = max(self.singles, key=lambda metrics: scoring.score(metrics, None))
    summary = {"average": means, "best": best, "ensemble": self.vote}
    if self.average is not None:
      summary["probability average"] = self.average
    return summary


def votes_on_labels(
  examples: splits.Examples,
  labels: Sequence[str],
  scores: Float[np.ndarray, "N B C"],
) -> Votes:
  """The votes of prompts by the log-probabilities of a task's labels."""

  def texts(chosen: np.ndarray) -> list[str]:
    return [labels[int(i)] for i in chosen]

  def scored(chosen: np.ndarray) -> dict[str, float]:
    return scoring.metrics(examples, texts(chosen))

  winners = vote(scores)
  return Votes(
    examples,
    [scored(of_prompt.argmax(axis=1)) for of_prompt in scores],
    scored(winners),
    scored(average(scores)),
    texts(winners),
    "rank",
  )


def votes_on_texts(
  examples: splits.Examples,
  texts: Sequence[Sequence[str]],
  scores: Float[np.ndarray, "N B"] | None = None,
) -> Votes:
  """The votes of prompts by what each of them wrote."""
  winners = vote_texts(texts, scores)
  return Votes(
    examples,
    [scoring.metrics(examples, written) for written in texts],
    scoring.metrics(examples, winners),
    None,
    winners,
  )


def evaluate_together(
  prompted: Prompted, examples: splits.Examples, decoding: infer.Decoding
) -> Votes:
  """Scores the prompts of a network as an ensemble on one split.

  Args:
    prompted: a network with N prompts.
    examples: the split.
    decoding: `Rank` lets the prompts vote on labels (those of the task if
      it has none), everything else on what they write.
  """
  count = len(prompted.lengths)
  chosen = evaluate.with_labels(decoding, examples.task, prompted.vocabulary)
  predictor = infer.Predictor(prompted, chosen)
  rows = examples.input_rows()
  copies = [row for row in rows for _ in range(count)]
  prompt_id = np.tile(np.arange(count), len(rows))
  if isinstance(chosen.strategy, decode.Rank):
    scores = predictor.label_scores(copies, prompt_id)
    by_prompt = scores.reshape(len(rows), count, -1).swapaxes(0, 1)
    return votes_on_labels(examples, chosen.strategy.labels, by_prompt)
  texts = predictor(copies, prompt_id, show_progress=True)
  encode = predictor.prompted.vocabulary.encode
  written = [[*encode(text), EOS] for text in texts]
  scores = predictor.log_probabilities(copies, prompt_id, written)
  votes = votes_on_texts(
    examples,
    [texts[n::count] for n in range(count)],
    scores.reshape(len(rows), count).T,
  )
  name = type(chosen.strategy).__name__.lower()
  return dataclasses.replace(votes, decoding=name)


def table(votes: Votes) -> str:
  """The votes as a Markdown table: one line per way, one column per metric."""
  names = list(votes.vote)
  of = votes.examples
  count = len(votes.singles)
  head = f"{of.task} ({of.split}), {count} prompts, {votes.decoding}"
  if not names:
    return f"{head}: no public answers"
  return tables.markdown(
    [head, *names],
    *(
      [way, *(f"{metrics[name]:.1f}" for name in names)]
      for way, metrics in votes.summary().items()
    ),
  )
