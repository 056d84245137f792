"""Pre-training and LM adaptation of a T5 on text, by the same training loop.

    documents -> ids -> objective -> [B, T], [B, L] -> fit -> a model folder

The shipped microworld model was made by it; the same code adapts a model to a
user's own text.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import hashlib
import itertools
import logging
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import (
  freeze,
  loop,
  model_folder,
  objectives,
  optimizers,
  plots,
  pretrained,
  run_folder,
  step,
  storage,
  stored_model,
  t5,
)
from prompt_tuning.vocabulary import EOS, PAD, Vocabulary


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
  that targets go on where their inputs end.

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
    spare = len(ids) - self._lengths[0]
    begin = int(rng.integers(spare + 1)) if spare > 0 else 0
    return ids[begin : begin + self._lengths[0]]

  def _read(self, seed: int, count: int) -> list[list[int]]:
    texts = list(itertools.islice(iter(self._stage.documents(seed)), count))
    if not texts:
      raise ValueError("The documents to pre-train on are empty.")
    return self._vocabulary.encode_all(texts)

  def _pad(self, rows: Sequence[Sequence[int]], limit: int) -> np.ndarray:
    longest = max(len(row) for row in rows)
    length = min(-(-longest // 8) * 8, limit)
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


def pretrain(
  *,
  model_dir: str | os.PathLike,
  start: pretrained.FrozenModel,
  stages: Sequence[Stage],
  settings: Settings,
  probes: Mapping[str, Callable[[int], Iterable[str]]] | None = None,
) -> loop.Outcome:
  """Pre-trains a T5 through all stages, resumably.

  The learning rate warms up and falls over all stages together. The result is
  a model folder `model/` inside the run's folder.

  Args:
    model_dir: the run's folder.
    start: the weights to begin with, and the vocabulary.
    stages: texts and objectives, one after the other.
    settings: numbers.
    probes: texts by name; at every evaluation it is measured how often the last
      sentence is predicted word for word.
  """
  vocabulary = start.require_vocabulary()
  total = sum(stage.steps for stage in stages)
  folder = run_folder.RunFolder(
    model_dir,
    {
      "start": start.stored_hash,
      "TRAIN_STEPS": [stage.steps for stage in stages],
      "texts and objectives of hash": _hash(stages, settings),
      **dataclasses.asdict(settings),
    },
  )
  optimizer = optimizers.adamw(
    optimizers.warmup_cosine(
      settings.learning_rate, total, warmup=settings.warmup
    ),
    b2=0.98,
    clip_norm=1.0,
  )
  problem = step.Problem(t5.T5(start.config), optimizer)
  # The steps of an optimizer are lost in the rounding of a narrower type.
  params = jax.tree.map(lambda leaf: leaf.astype(np.float32), start.params)
  outcome = loop.fit(
    problem,
    freeze.split(params, freeze.mask(params, (".*",))),
    _staged(stages, vocabulary, settings),
    plan=settings.plan(total),
    folder=folder,
    evaluate=_prober(start, probes, settings) if probes else None,
  )
  model_folder.save(
    folder.path / "model",
    start.config,
    jax.tree.map(np.asarray, outcome.last),
    vocabulary=vocabulary,
    dtype=settings.save_dtype,
  )
  plots.curves(_by_probe(folder.metrics()), folder.path / "curves.png")
  return outcome


def _hash(stages: Sequence[Stage], settings: Settings) -> str:
  """Of the objectives, and of the first texts that each stage would read."""
  digest = hashlib.sha256()
  for index, stage in enumerate(stages):
    is_plain = dataclasses.is_dataclass(stage.objective)
    digest.update(repr(stage.objective).encode() if is_plain else b"")
    texts = stage.documents(settings.seed + index)
    for text in itertools.islice(iter(texts), 1000):
      digest.update(f"{text}\n".encode())
  return digest.hexdigest()[:16]


def mimetic(model: pretrained.FrozenModel) -> pretrained.FrozenModel:
  """The same weights, but words attend to equal words from the start.

  In the encoder and in cross-attention the first half of the heads has keys
  that equal the queries, and every head writes out what it reads. By the
  position bias the first half of the encoder's heads looks at any place but its
  own, the others at near places in front or behind. The output head is the
  embedding table. Trained transformers look like this, and a small one that
  begins so learns to compare two sentences in a fraction of the steps (after
  Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers").
  """
  config = model.config
  matching = config.num_heads // 2
  half = matching * config.head_dim
  flat = dict(storage.flatten(model.params))
  for path in list(flat):
    module = path.removesuffix("/key/kernel")
    if module == path or module.endswith("self_attention"):
      continue
    query = flat[f"{module}/query/kernel"] * np.sqrt(config.head_dim)
    flat[path] = flat[path].at[:, :half].set(query[:, :half])
    flat[f"{module}/out/kernel"] = flat[f"{module}/value/kernel"].T
  bias = np.zeros((config.num_heads, config.relpos_buckets), np.float32)
  behind, ahead = np.split(np.arange(config.relpos_buckets), 2)
  bias[:matching, 0] = -6.0  # bucket 0 is the place itself
  for head in range(matching, config.num_heads):
    near, other = (behind, ahead) if head % 2 == 0 else (ahead, behind)
    bias[head, near] = -0.4 * np.arange(len(near))
    bias[head, other] = -4.0
  flat["encoder/relpos_bias/rel_embedding"] = jnp.asarray(bias)
  if not config.logits_via_embedding:
    table = flat["token_embedder/embedding"]
    flat["decoder/logits_dense/kernel"] = table.T / np.sqrt(config.emb_dim)
  params = storage.unflatten(flat)
  return dataclasses.replace(
    model, params=params, stored_hash=stored_model.weights_hash(params)
  )


def _prober(start: pretrained.FrozenModel, probes, settings: Settings):
  """Word-for-word accuracy of the last sentence, in percent, by probe."""
  vocabulary = start.require_vocabulary()
  objective = objectives.PrefixLM(1.0, sentence_ends(vocabulary))
  network = t5.T5(start.config)
  sets = {
    name: TextBatches(
      Stage(documents, objective, 1),
      vocabulary,
      batch_size=256,
      lengths=settings.lengths,
      num_documents=256,
      seed=settings.seed + 1_000_003,
    )(0)
    for name, documents in probes.items()
  }

  @jax.jit
  def exact(params, batch):
    targets = batch["targets"]
    logits: Any = network.apply(
      {"params": params}, batch["inputs"], t5.shift_right(targets)
    )
    right = (logits.argmax(-1) == targets) | (targets == PAD)
    return 100 * right.all(axis=1).mean()

  def evaluate(params):
    found = {name: float(exact(params, batch)) for name, batch in sets.items()}
    return [float(np.mean(list(found.values())))], [found]

  return evaluate


def sentence_ends(vocabulary: Vocabulary) -> tuple[int, ...]:
  """The ids of the pieces that end a sentence."""
  found = {vocabulary.encode(f"a{mark}")[-1] for mark in ".?!"}
  return tuple(sorted(found))


def _by_probe(rows: Sequence[dict]) -> list[dict]:
  """Lines of metrics.jsonl with one row per probe, for plotting."""
  return [
    {"step": row["step"], "prompt": name, "last sentence (%)": value}
    for row in rows
    if "loss" not in row
    for name, value in row.items()
    if name not in ("step", "prompt")
  ] + [row for row in rows if "loss" in row]


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
