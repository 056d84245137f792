"""Pre-training and LM adaptation of a T5 on text, by the same training loop.

    documents -> ids -> objective -> [B, T], [B, L] -> fit -> a model folder

The shipped microworld model was made by it; the same code adapts a model to a
user's own text.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import itertools

import jax
import numpy as np

from prompt_tuning import (
  freeze,
  loop,
  objectives,
  optimizers,
  pretrained,
  run_folder,
  step,
  t5,
)
from prompt_tuning.vocabulary import PAD, Vocabulary


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


GROUP = 16
"""Batches whose examples are sorted by length together, to pad less."""


class TextBatches:
  """Batches of one stage; the batch of a step depends on seed and step only.

  Examples of about the same length share a batch, padded to a multiple of 8.

  Args:
    stage: documents and objective.
    vocabulary: text to ids.
    batch_size: B.
    lengths: (T, L); what is longer is cut, and counted in `truncated`.
    num_documents: how many documents are drawn from the source.
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
    texts = itertools.islice(iter(stage.documents(seed)), num_documents)
    self._documents = vocabulary.encode_all(list(texts))
    if not self._documents:
      raise ValueError("The documents to pre-train on are empty.")
    self._objective = stage.objective
    self._sentinel = vocabulary.sentinel
    self._batch_size = batch_size
    self._lengths = lengths
    self._seed = seed
    self._group = -1
    self._pairs: list[objectives.Pair] = []
    self.truncated = 0

  def __call__(self, at: int) -> dict[str, np.ndarray]:
    """The batch of step `at`."""
    group, place = divmod(at, GROUP)
    if group != self._group:
      self._group, self._pairs = group, self._sorted_pairs(group)
    rng = np.random.default_rng([self._seed, group, 1])
    place = rng.permutation(GROUP)[place]
    begin = place * self._batch_size
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
    chosen = rng.integers(len(self._documents), size=size)
    pairs = [
      self._objective(self._documents[i], rng, self._sentinel) for i in chosen
    ]
    return sorted(pairs, key=lambda pair: len(pair[0]))

  def _pad(self, rows: Sequence[Sequence[int]], limit: int) -> np.ndarray:
    longest = max(len(row) for row in rows)
    length = min(-(-longest // 8) * 8, limit)
    array = np.full((len(rows), length), PAD, np.int32)
    for i, row in enumerate(rows):
      self.truncated += len(row) > length
      row = row[:length]
      array[i, : len(row)] = row
    return array


def pretrain(
  folder: run_folder.RunFolder,
  config: t5.T5Config,
  vocabulary: Vocabulary,
  *,
  stages: Sequence[Stage],
  settings: "Settings",
  evaluate: Callable | None = None,
) -> loop.Outcome:
  """Pre-trains a T5 from random weights through all stages, resumably.

  The learning rate warms up and falls over all stages together. The result is
  a model folder `model/` inside the run's folder.
  """
  total = sum(stage.steps for stage in stages)
  optimizer = optimizers.adamw(
    optimizers.warmup_cosine(
      settings.learning_rate, total, warmup=settings.warmup
    ),
    b2=0.98,
    clip_norm=1.0,
  )
  problem = step.Problem(t5.T5(config), optimizer)
  params = pretrained.random(config, seed=settings.seed).params
  parts = freeze.split(params, freeze.mask(params, freeze.EVERYTHING_ELSE))
  outcome = loop.fit(
    problem,
    parts,
    _staged(stages, vocabulary, settings),
    plan=settings.plan(total),
    folder=folder,
    evaluate=evaluate,
  )
  pretrained.save(
    folder.path / "model",
    config,
    jax.tree.map(np.asarray, outcome.last),
    vocabulary=vocabulary,
    dtype=settings.save_dtype,
  )
  return outcome


@dataclasses.dataclass(frozen=True)
class Settings:
  """Numbers of a pre-training run.

  Attributes:
    batch_size: B.
    lengths: (T, L), input and target tokens with EOS.
    learning_rate: the peak.
    warmup: steps to the peak.
    num_documents: texts drawn for each stage.
    seed: of weights, texts and order.
    eval_every: steps between evaluations and checkpoints.
    save_dtype: of the weights in the model folder.
  """

  batch_size: int = 64
  lengths: tuple[int, int] = (48, 16)
  learning_rate: float = 1e-3
  warmup: int = 100
  num_documents: int = 200_000
  seed: int = 0
  eval_every: int = 500
  save_dtype: str = "float16"

  def plan(self, steps: int) -> loop.Plan:
    """When the loop evaluates and saves."""
    return loop.Plan(
      steps=steps, eval_every=self.eval_every, steps_per_dispatch=1
    )


def _staged(stages, vocabulary, settings) -> Callable[[int], dict]:
  """The batch of a step over all stages; texts are made when a stage begins."""
  ends = list(itertools.accumulate(stage.steps for stage in stages))
  made: dict[int, TextBatches] = {}

  def batch(at: int) -> dict[str, np.ndarray]:
    index = next(i for i, end in enumerate(ends) if at < end)
    if index not in made:
      made.clear()
      made[index] = TextBatches(
        stages[index],
        vocabulary,
        batch_size=settings.batch_size,
        lengths=settings.lengths,
        num_documents=settings.num_documents,
        seed=settings.seed + index,
      )
    return made[index](at)

  return batch


def lines(path) -> Callable[[int], Iterator[str]]:
  """A source of documents from a text file: one document a line."""

  def read(seed: int) -> Iterator[str]:
    del seed  # the order is drawn per step
    with open(path, encoding="utf-8") as file:
      yield from (line.strip() for line in file if line.strip())

  return read
