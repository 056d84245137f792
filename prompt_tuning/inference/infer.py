"""Predictions: inputs and the prompt each of them uses -> texts.

    rows of ids, prompt_id -> padded batches with places for the prompt
                           -> decoder or ranker -> text

A batch mixes prompts freely: each example names its own.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import sys
from typing import NamedTuple

import jax
import numpy as np
from scipy import special
import tqdm

from prompt_tuning.model import decode
from prompt_tuning.prompts.prompted import Prompted
from prompt_tuning.shapes import EOS, PAD, Float, Int, PyTree, rounded

Ids = Sequence[int] | np.ndarray
"""The ids of one text."""


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How predictions are made.

  Attributes:
    strategy: see `decode`.
    max_length: target tokens at most, EOS included.
    batch_size: examples of one call.
    seed: of sampling.
  """

  strategy: decode.Strategy = decode.Greedy()
  max_length: int = 16
  batch_size: int = 128
  seed: int = 0

  def __post_init__(self):
    macros = {"max_length": "TARGET_LENGTH", "batch_size": "EVAL_BATCH_SIZE"}
    for name, macro in macros.items():
      value = getattr(self, name)
      if value < 1:
        raise ValueError(f"{name} ({macro}) must be at least 1, got {value}.")


def decoding_for(task_feature_lengths: Mapping[str, int]) -> Decoding:
  """The decoding where nothing is said: greedy, of `target_length`."""
  return Decoding(max_length=target_length(task_feature_lengths))


def target_length(
  task_feature_lengths: Mapping[str, int], target_length: int | None = None
) -> int:
  """How many tokens a prediction has at most.

  Args:
    task_feature_lengths: TASK_FEATURE_LENGTHS.
    target_length: TARGET_LENGTH; None for 16, or more if the task's targets
      have more.
  """
  if target_length is None:
    least = Decoding.max_length
    return max(least, task_feature_lengths.get("targets", 0))
  if isinstance(target_length, bool) or not isinstance(target_length, int):
    raise ValueError(f"TARGET_LENGTH={target_length!r} must be a whole number.")
  return target_length


class Answer(NamedTuple):
  """What a model answers.

  Attributes:
    text: the answer.
    probabilities: of each label among all, where labels were ranked.
  """

  text: str
  probabilities: dict[str, float] | None = None


class Predictor:
  """Turns rows of ids into texts.

  Args:
    prompted: a network with its prompts.
    decoding: strategy and sizes.
  """

  def __init__(self, prompted: Prompted, decoding: Decoding):
    self.prompted = prompted
    self.decoding = decoding
    strategy = decoding.strategy
    if isinstance(strategy, decode.Rank):
      if not strategy.labels:
        raise ValueError(
          "Rank classification needs labels. Name them in decode.Rank.labels."
        )
      self._ranker = decode.make_ranker(prompted.network)
      self._label_ids = padded(
        [
          [*strategy.prefix, *prompted.vocabulary.encode(label), EOS]
          for label in strategy.labels
        ]
      )
    else:
      self._decoder = decode.make_decoder(
        prompted.network, strategy, decoding.max_length
      )

  def batches(
    self, rows: Sequence[Ids], prompt_id: Ids
  ) -> Iterator[tuple[slice, Int[np.ndarray, "B P+T"]]]:
    """Which rows a batch holds, and their tokens behind the prompt's places.

    All batches have one shape; the last repeats its last row.
    """
    size = min(self.decoding.batch_size, len(rows))
    tokens = padded(rows, rounded(max(len(row) for row in rows)))
    ids = np.asarray(prompt_id, np.int32)
    for begin in range(0, len(rows), size):
      here = slice(begin, min(begin + size, len(rows)))
      index = np.minimum(np.arange(begin, begin + size), len(rows) - 1)
      yield here, self.prompted.reserve(tokens[index], ids[index])

  def __call__(
    self,
    rows: Sequence[Ids],
    prompt_id: Ids,
    *,
    params: PyTree | None = None,
    show_progress: bool = False,
  ) -> list[str]:
    """The texts of `answers`."""
    answers = self.answers(
      rows, prompt_id, params=params, show_progress=show_progress
    )
    return [answer.text for answer in answers]

  def answers(
    self,
    rows: Sequence[Ids],
    prompt_id: Ids,
    *,
    params: PyTree | None = None,
    show_progress: bool = False,
  ) -> list[Answer]:
    """Answers to rows of ids (EOS included), each with its own prompt.

    Args:
      rows: the inputs.
      prompt_id: the place in the bank of each row's prompt.
      params: in place of the prompted network's, as they are while it trains.
      show_progress: draw a bar.
    """
    if isinstance(self.decoding.strategy, decode.Rank):
      scores = self.label_scores(rows, prompt_id, params=params)
      labels = self.decoding.strategy.labels
      shares = special.softmax(scores.astype(np.float64), axis=1)
      return [
        Answer(labels[i], dict(zip(labels, row.tolist(), strict=True)))
        for i, row in zip(scores.argmax(axis=1), shares, strict=True)
      ]
    params = self.prompted.params if params is None else params
    answers: list[Answer] = []
    key = jax.random.key(self.decoding.seed)
    bar = tqdm.tqdm(
      total=len(rows),
      unit="example",
      disable=not (show_progress and sys.stderr.isatty()),
    )
    with bar:
      for i, (here, tokens) in enumerate(self.batches(rows, prompt_id)):
        ids = self._decoder(params, tokens, jax.random.fold_in(key, i))
        count = here.stop - here.start
        texts = map(self.prompted.vocabulary.decode, np.asarray(ids)[:count])
        answers += map(Answer, texts)
        bar.update(count)
    return answers

  def label_scores(
    self,
    rows: Sequence[Ids],
    prompt_id: Ids,
    *,
    params: PyTree | None = None,
  ) -> Float[np.ndarray, "B C"]:
    """Log-probability of each label in nats (only with `decode.Rank`)."""
    params = self.prompted.params if params is None else params
    scores = []
    for here, tokens in self.batches(rows, prompt_id):
      part = self._ranker(params, tokens, self._label_ids)
      scores.append(np.asarray(part)[: here.stop - here.start])
    return np.concatenate(scores)


def padded(rows: Sequence[Ids], length: int = 0) -> Int[np.ndarray, "B T"]:
  """Rows of ids as one array, PAD behind them."""
  length = max(length, max(len(row) for row in rows))
  array = np.full((len(rows), length), PAD, np.int32)
  for i, row in enumerate(rows):
    array[i, : len(row)] = row
  return array
