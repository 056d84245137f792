"""Texts to pre-train on: documents -> ids -> objective -> batches.

Stage: documents, objective -> TextBatches -> [B, T], [B, L] by step
a text file -> `lines`: one document a line
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import itertools
import logging
import os
import pathlib

import numpy as np

from prompt_tuning.data import objectives
from prompt_tuning.shapes import EOS, PAD, rounded
from prompt_tuning.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stretch of pre-training.

  Attributes:
    documents: a seeded source of texts.
    objective: from ids to (inputs, targets), see `objectives`.
    steps: updates.
  """

  documents: Callable[[int], Iterable[str]]
  objective: Callable
  steps: int


GROUP = 4
"""Batches whose examples are sorted by length together, to pad less."""


class TextBatches:
  """Batches of one stage; the batch of a step depends on seed and step only.

  Examples of about the same length share a batch, padded to a multiple of 8.
  Of a document of more than T tokens a window of T is drawn, anew each time, so
  that targets go on where their inputs end (see `objectives.longest_text`).

  Args:
    stage: documents and objective.
    vocabulary: text to ids.
    batch_size: B.
    lengths: (T, L); targets that are longer are cut, and counted in
      `truncated`.
    num_documents: how many documents are drawn from the source; 0 draws fresh
      ones for every group of batches from an endless source.
    seed: of documents, order and objective.
  """

  def __init__(
    self,
    stage: Stage,
    vocabulary: Vocabulary,
    *,
    batch_size: int,
    lengths: tuple[int, int],
    num_documents: int,
    seed: int,
  ):
    self._stage = stage
    self._vocabulary = vocabulary
    self._pool = self._read(seed, num_documents) if num_documents else []
    self._batch_size = batch_size
    self._lengths = lengths
    self._seed = seed
    self._group = -1
    self._pairs: list[objectives.Pair] = []
    self.truncated = 0

  def __call__(self, at: int) -> dict[str, np.ndarray]:
    """The batch of step `at`."""
    group, inside = divmod(at, GROUP)
    if group != self._group:
      self._group, self._pairs = group, self._sorted_pairs(group)
    rng = np.random.default_rng([self._seed, group, 1])
    begin = rng.permutation(GROUP)[inside] * self._batch_size
    pairs = self._pairs[begin : begin + self._batch_size]
    inputs, targets = zip(*pairs, strict=True)
    return {
      "inputs": self._pad(inputs, self._lengths[0]),
      "targets": self._pad(targets, self._lengths[1]),
      "prompt_id": np.zeros(self._batch_size, np.int32),
    }

  def _sorted_pairs(self, group: int) -> list[objectives.Pair]:
    """The examples of GROUP batches, from short to long inputs."""
    rng = np.random.default_rng([self._seed, group, 0])
    size = GROUP * self._batch_size
    if self._pool:
      chosen = rng.integers(len(self._pool), size=size)
      documents = [self._pool[i] for i in chosen]
    else:
      documents = self._read(int(rng.integers(2**31)), size)
      if len(documents) < size:
        raise ValueError(
          f"The source gave {len(documents)} of {size} documents; fresh ones "
          "for every group of batches take an endless source. Set "
          "num_documents above 0 to draw from those that there are."
        )
    pairs = [
      self._stage.objective(
        self._window(ids, rng), rng, self._vocabulary.sentinel
      )
      for ids in documents
    ]
    return sorted(pairs, key=lambda pair: len(pair[0]))

  def _window(self, ids: list[int], rng: np.random.Generator) -> list[int]:
    size = objectives.longest_text(self._stage.objective, self._lengths)
    spare = len(ids) - size
    begin = int(rng.integers(spare + 1)) if spare > 0 else 0
    return ids[begin : begin + size]

  def _read(self, seed: int, count: int) -> list[list[int]]:
    texts = list(itertools.islice(iter(self._stage.documents(seed)), count))
    if not texts:
      raise ValueError("The documents to pre-train on are empty.")
    return self._vocabulary.encode_all(texts)

  def _pad(self, rows: Sequence[Sequence[int]], limit: int) -> np.ndarray:
    longest = max(len(row) for row in rows)
    length = min(rounded(longest), limit)
    array = np.full((len(rows), length), PAD, np.int32)
    for i, row in enumerate(rows):
      if len(row) > length:
        self._warn_once(len(row), limit)
        row = [*row[: length - 1], EOS]
      array[i, : len(row)] = row
    return array

  def _warn_once(self, tokens: int, limit: int) -> None:
    self.truncated += 1
    if self.truncated == 1:
      logging.getLogger(__name__).warning(
        "A target has %d tokens, more than the limit %d of LENGTHS=%s, and was "
        "cut; so will others be.",
        *(tokens, limit, self._lengths),
      )


def staged(
  stages: Sequence[Stage], vocabulary: Vocabulary, **options
) -> Callable[[int], dict[str, np.ndarray]]:
  """The batch of a step over all stages; texts are made when a stage begins.

  Args:
    stages: one after the other.
    vocabulary: text to ids.
    **options: of `TextBatches`; each stage adds its place to the seed.
  """
  seed = options.pop("seed")
  ends = list(itertools.accumulate(stage.steps for stage in stages))
  made: dict[int, TextBatches] = {}

  def batch(at: int) -> dict[str, np.ndarray]:
    index = next(i for i, end in enumerate(ends) if at < end)
    if index not in made:
      made.clear()
      made[index] = TextBatches(
        stages[index], vocabulary, **options, seed=seed + index
      )
    return made[index](at)

  return batch


def sentence_ends(vocabulary: Vocabulary) -> tuple[int, ...]:
  """The ids of the pieces that end a sentence."""
  return tuple(sorted({vocabulary.encode(f"a{mark}")[-1] for mark in ".?!"}))


def lines(path) -> Callable[[int], Iterator[str]]:
  """A source of documents from a text file: one document a line.

  Each seed begins at a place of its own, and comes round to it.

  Raises:
    FileNotFoundError: there is no such file.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f"TEXT_FILE={path} is no file.")

  def read(seed: int) -> Iterator[str]:
    with open(path, "rb") as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(int(np.random.default_rng(seed).integers(size + 1)))
      file.readline()  # the rest of a line
      begin = file.tell()
      for line in file:
        yield from _text(line, path)
      file.seek(0)
      while file.tell() < begin:
        yield from _text(file.readline(), path)

  return read


def _text(line: bytes, path) -> list[str]:
  """The text of a line, or nothing."""
  try:
    text = line.decode("utf-8").removeprefix("\ufeff").strip()
  except UnicodeDecodeError as error:
    raise ValueError(
      f"{path} is not UTF-8 ({error}). Convert it first."
    ) from error
  return [text] if text else []
