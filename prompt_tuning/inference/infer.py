"""Predictions: inputs and the prompt each of them uses -> texts.

    rows of ids, prompt_id -> padded batches with places for the prompt
                           -> decoder or ranker -> answers

A batch mixes prompts freely: each example names its own. Log-probabilities and
several answers are there where they are asked for; otherwise nothing of them is
computed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import itertools
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import special
import tqdm

from prompt_tuning import processes
from prompt_tuning.data import layout
from prompt_tuning.model import decode
from prompt_tuning.prompts.prompted import Prompted
from prompt_tuning.shapes import (
  EOS,
  Array,
  Float,
  Int,
  PyTree,
  padded,
  power_of_two,
  rounded,
)

Ids = Sequence[int] | np.ndarray
"""The ids of one text."""


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How predictions are made.

  Attributes:
    strategy: see `decode`.
    max_length: target tokens at most, EOS included.
    batch_size: examples of one call.
    seed: of sampling; example i of a call draws the same whatever the batch.
    num_decodes: answers to each input, beams or samples (NUM_DECODES).
    scores: whether an answer has its log-probability (SCORES); several have.
  """

  strategy: decode.Strategy = decode.Greedy()
  max_length: int = 16
  batch_size: int = 128
  seed: int = 0
  num_decodes: int = 1
  scores: bool = False

  def __post_init__(self):
    decode.check_count(self.strategy, self.num_decodes)
    macros = {"max_length": "TARGET_LENGTH", "batch_size": "EVAL_BATCH_SIZE"}
    for name, macro in macros.items():
      value = getattr(self, name)
      if value < 1:
        raise ValueError(f"{name} ({macro}) must be at least 1, got {value}.")

  def ranking(self, labels: Callable[[], Iterable[str]]) -> "Decoding":
    """The same; `Rank` without labels gets those that a function returns."""
    strategy = self.strategy
    if not isinstance(strategy, decode.Rank) or strategy.labels:
      return self
    strategy = dataclasses.replace(strategy, labels=tuple(labels()))
    return dataclasses.replace(self, strategy=strategy)


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


FIELDS = ("prediction", "log_probability", "probabilities", "predictions")
"""The names of what `Answer.row` has."""


class Answer(NamedTuple):
  """What a model answers.

  Attributes:
    text: the answer.
    probabilities: of each label among all, where labels were ranked.
    log_probability: the answer's, EOS included, in nats, where it was asked
      for; the model's own, so a sample's knows no temperature.
    several: all answers, where there are several; this one is the first.
  """

  text: str
  probabilities: dict[str, float] | None = None
  log_probability: float | None = None
  several: tuple["Answer", ...] = ()

  def row(self) -> dict[str, Any]:
    """What a predictions file has of it."""
    row: dict[str, Any] = {"prediction": self.text}
    if self.log_probability is not None:
      row["log_probability"] = self.log_probability
    if self.probabilities is not None:
      row["probabilities"] = self.probabilities
    if self.several:
      row["predictions"] = [answer.row() for answer in self.several]
    return row


_WIDTHS = 8  # that the batches of one call have at most


class _Batch(NamedTuple):
  rows: Int[np.ndarray, "_"]  # which rows it answers
  index: Int[np.ndarray, "B"]  # those; the last stands again to fill it
  tokens: Int[Array, "B P+T"]


class Predictor:
  """Turns rows of ids into answers.

  Args:
    prompted: a network with its prompts.
    decoding: strategy and sizes.
    few_shapes: round the number of rows and their lengths to powers of two, so
      that few programs serve whatever comes (see `warm_up`).
  """

  def __init__(
    self, prompted: Prompted, decoding: Decoding, *, few_shapes: bool = False
  ):
    self.prompted = prompted
    self.decoding = decoding
    self._few_shapes = few_shapes
    strategy = decoding.strategy
    if isinstance(strategy, decode.Rank):
      if not strategy.labels:
        raise ValueError(
          "Rank classification needs labels. Name them in decode.Rank.labels, "
          "or with --labels for your own rows."
        )
      self._ranker = decode.make_ranker(prompted.network)
      self._label_ids = padded(
        [
          [*strategy.prefix, *prompted.vocabulary.encode(label), EOS]
          for label in strategy.labels
        ]
      )
    elif decoding.scores or decoding.num_decodes > 1:
      self._decoder = decode.make_scored_decoder(
        *(prompted.network, strategy),
        *(decoding.max_length, decoding.num_decodes),
      )
    else:
      self._decoder = decode.make_decoder(
        prompted.network, strategy, decoding.max_length
      )

  def _batches(self, rows: Sequence[Ids], prompt_id: Ids) -> Iterator[_Batch]:
    """Rows of like length, with their prompts' places in front.

    The batches have one number of rows and few widths, which depend on nothing
    but the lengths. With few shapes the last one may have fewer rows.
    """
    count, few = len(rows), self._few_shapes
    if not count:
      return
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(lengths, kind="stable")
    size = self._size(count)
    parts = [order[at : at + size] for at in range(0, count, size)]
    longest = [int(lengths[part[-1]]) for part in parts]
    widths = layout.few(longest, _WIDTHS)
    ids = np.asarray(prompt_id, np.int32)
    for part, length in zip(parts, longest, strict=True):
      filled = self._size(len(part)) if few else size
      index = part[np.minimum(np.arange(filled), len(part) - 1)]
      width = min(width for width in widths if width >= length)
      tokens = padded([rows[i] for i in index], rounded(width, few=few))
      tokens = self.prompted.reserve(tokens, ids[index])
      if devices := self.prompted.devices:
        tokens = devices.put_rows(tokens)
      yield _Batch(part, index, tokens)

  def _size(self, count: int) -> int:
    """The rows of the batch that `count` rows are put into."""
    size = power_of_two(count) if self._few_shapes else count
    size = min(self.decoding.batch_size, size)
    devices = self.prompted.devices
    return devices.rows(size) if devices else size

  def shapes(self, longest: int, count: int) -> list[tuple[int, int]]:
    """Rows and lengths of what up to `count` rows of up to `longest` ids need.

    Each is a program that is compiled when it first comes.
    """
    sizes = {self._size(n) for n in range(1, count + 1)}
    return [*itertools.product(sorted(sizes), self.lengths(longest))]

  def lengths(self, longest: int) -> list[int]:
    """The padded lengths of up to `longest` ids."""
    few = self._few_shapes
    return sorted({rounded(n, few=few) for n in range(1, longest + 1)})

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
    params = self.prompted.params if params is None else params
    bar = tqdm.tqdm(
      total=len(rows),
      unit="example",
      disable=not (
        show_progress and sys.stderr.isatty() and processes.is_first()
      ),
    )
    is_ranking = isinstance(self.decoding.strategy, decode.Rank)
    answer = self._chosen if is_ranking else self._written
    answers: dict[int, Answer] = {}
    with bar:
      for batch in self._batches(rows, prompt_id):
        answers.update(
          zip(batch.rows.tolist(), answer(params, batch), strict=False)
        )
        bar.update(len(batch.rows))
        processes.is_asked()
    return [answers[i] for i in range(len(rows))]

  def _written(self, params: PyTree, batch: _Batch) -> list[Answer]:
    """What the strategy writes to a batch."""
    devices, seed = self.prompted.devices, self.decoding.seed
    key = devices.key(seed) if devices else jax.random.key(seed)
    numbers = batch.index.astype(np.int32)
    written = self._decoder(params, batch.tokens, key, numbers)
    written = processes.on_host(written)
    decoded = self.prompted.vocabulary.decode
    if not isinstance(written, tuple):
      return [Answer(decoded(ids)) for ids in written]
    answers = []
    for ids, log_p in zip(*written, strict=True):
      exists = decode.is_target(log_p)
      exists[0] = True  # even of a network that is not finite
      several = tuple(
        Answer(decoded(ids[k]), log_probability=float(log_p[k]))
        for k in np.flatnonzero(exists)
      )
      is_one = self.decoding.num_decodes == 1
      answers.append(several[0]._replace(several=() if is_one else several))
    return answers

  def _chosen(self, params: PyTree, batch: _Batch) -> list[Answer]:
    """The likeliest labels for a batch."""
    strategy = self.decoding.strategy
    assert isinstance(strategy, decode.Rank)
    labels = strategy.labels
    answers = []
    found = self._ranker(params, batch.tokens, self._label_ids)
    for row in processes.on_host(found):
      shares = special.softmax(row.astype(np.float64)).tolist()
      best = int(row.argmax())
      nats = float(row[best]) if self.decoding.scores else None
      chances = dict(zip(labels, shares, strict=True))
      answers.append(Answer(labels[best], chances, nats))
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
    scores = np.empty((len(rows), len(self._label_ids)), np.float32)
    for batch in self._batches(rows, prompt_id):
      found = self._ranker(params, batch.tokens, self._label_ids)
      scores[batch.rows] = processes.on_host(found)[: len(batch.rows)]
    return scores

  def log_probabilities(
    self, rows: Sequence[Ids], prompt_id: Ids, answers: Sequence[Ids]
  ) -> Float[np.ndarray, "B"]:
    """Nats of given ids (EOS included) as answers to the rows."""
    length = rounded(max(map(len, answers)), few=self._few_shapes)
    targets = padded(answers, length)
    nats = np.empty(len(rows), np.float32)
    for batch in self._batches(rows, prompt_id):
      found = self._scorer(
        self.prompted.params, batch.tokens, targets[batch.index]
      )
      nats[batch.rows] = processes.on_host(found)[: len(batch.rows)]
    return nats

  @functools.cached_property
  def _scorer(self):
    return decode.make_scorer(self.prompted.network)
