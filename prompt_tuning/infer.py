"""Predictions: inputs and the prompt each of them uses -> texts.

    rows of ids, prompt_id -> padded batches with places for the prompt
                           -> decoder or ranker -> text

A batch mixes prompts freely: each example names its own.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import sys

import jax
import numpy as np
import tqdm

from prompt_tuning import (
  checkpoints,
  decode,
  initializers,
  inject,
  pretrained,
  prompt,
  storage,
  t5,
)
from prompt_tuning.shapes import Float, Int, PyTree
from prompt_tuning.vocabulary import EOS, PAD, Vocabulary

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
    return max(16, task_feature_lengths.get("targets", 0))
  if isinstance(target_length, bool) or not isinstance(target_length, int):
    raise ValueError(f"TARGET_LENGTH={target_length!r} must be a whole number.")
  return target_length


class Predictor:
  """Turns rows of ids into texts with a network and its parameters.

  Args:
    network: a T5, with the bank of prompts if `prompt_length` is not 0.
    vocabulary: ids to text.
    decoding: strategy and sizes.
    prompt_length: P, or the length of every prompt of the bank.
  """

  def __init__(
    self,
    network: t5.T5,
    vocabulary: Vocabulary,
    decoding: Decoding,
    *,
    prompt_length: int | Sequence[int],
  ):
    self._vocabulary = vocabulary
    self._decoding = decoding
    self._lengths = prompt_length
    strategy = decoding.strategy
    if isinstance(strategy, decode.Rank):
      if not strategy.labels:
        raise ValueError(
          "Rank classification needs labels. Name them in decode.Rank.labels."
        )
      self._ranker = decode.make_ranker(network)
      self._label_ids = padded(
        [
          [*strategy.prefix, *vocabulary.encode(label), EOS]
          for label in strategy.labels
        ]
      )
    else:
      self._decoder = decode.make_decoder(
        network, strategy, decoding.max_length
      )

  def reserve(
    self, tokens: Int[np.ndarray, "B T"], prompt_id: Int[np.ndarray, "B"]
  ) -> Int[np.ndarray, "B S"]:
    """Tokens [B, T] with P places for each example's prompt: [B, P + T]."""
    if isinstance(self._lengths, int):
      return inject.reserve(tokens, prompt_id, self._lengths)
    own = np.asarray(self._lengths, np.int32)[prompt_id]
    return inject.reserve(tokens, prompt_id, max(self._lengths), own)

  def _batches(self, rows, prompt_id) -> Iterator[tuple[slice, np.ndarray]]:
    """Padded inputs of equal shape; the last batch repeats its last row."""
    size = min(self._decoding.batch_size, len(rows))
    longest = max(len(row) for row in rows)
    tokens = padded(rows, -(-longest // 8) * 8)
    ids = np.asarray(prompt_id, np.int32)
    for begin in range(0, len(rows), size):
      here = slice(begin, min(begin + size, len(rows)))
      index = np.minimum(np.arange(begin, begin + size), len(rows) - 1)
      yield here, self.reserve(tokens[index], ids[index])

  def __call__(
    self,
    params: PyTree,
    rows: Sequence[Ids],
    prompt_id: Ids,
    show_progress: bool = False,
  ) -> list[str]:
    """Texts of rows of ids (EOS included), each with its own prompt."""
    if isinstance(self._decoding.strategy, decode.Rank):
      best = self.label_scores(params, rows, prompt_id).argmax(axis=1)
      return [self._decoding.strategy.labels[i] for i in best]
    texts: list[str] = []
    key = jax.random.key(self._decoding.seed)
    bar = tqdm.tqdm(
      total=len(rows),
      unit="example",
      disable=not (show_progress and sys.stderr.isatty()),
    )
    with bar:
      for i, (here, tokens) in enumerate(self._batches(rows, prompt_id)):
        ids = self._decoder(params, tokens, jax.random.fold_in(key, i))
        count = here.stop - here.start
        texts += [
          self._vocabulary.decode(row) for row in np.asarray(ids)[:count]
        ]
        bar.update(count)
    return texts

  def label_scores(
    self,
    params: PyTree,
    rows: Sequence[Ids],
    prompt_id: Ids,
  ) -> Float[np.ndarray, "B C"]:
    """Log-probability of each label in nats (only with `decode.Rank`)."""
    scores = []
    for here, tokens in self._batches(rows, prompt_id):
      part = self._ranker(params, tokens, self._label_ids)
      scores.append(np.asarray(part)[: here.stop - here.start])
    return np.concatenate(scores)


def padded(rows: Sequence[Ids], length: int = 0) -> np.ndarray:
  """Rows of ids as one array, PAD behind them."""
  length = max(length, max(len(row) for row in rows))
  array = np.full((len(rows), length), PAD, np.int32)
  for i, row in enumerate(rows):
    array[i, : len(row)] = row
  return array


def bank_of(
  prompts: Sequence[checkpoints.SavedPrompt],
) -> tuple[Float[np.ndarray, "N P E"] | None, int | list[int]]:
  """Prompts as one bank, and the length of each; (None, 0) for no prompts.

  P is the greatest length. Zeros that no example sees stand in front of the
  others.
  """
  if not prompts:
    return None, 0
  lengths = [len(one.values) for one in prompts]
  filled = [
    np.pad(one.values, [(max(lengths) - length, 0), (0, 0)])
    for one, length in zip(prompts, lengths, strict=True)
  ]
  return np.stack(filled), lengths


def with_prompts(
  model: pretrained.FrozenModel, bank: Float[np.ndarray, "N P E"] | None
) -> tuple[t5.T5, PyTree]:
  """A network that injects a bank of prompts, and its parameters."""
  if bank is None or not bank.shape[1]:
    return t5.T5(model.config), model.params
  count, length, emb_dim = bank.shape
  module = prompt.Prompt(length, emb_dim, count)
  network = t5.T5(model.config, prompt=module)
  return network, {**model.params, "prompt": {"embedding": bank}}


class PromptedModel:
  """One frozen model with one or several prompts, for predicting texts.

  Args:
    model: the frozen model.
    prompts: a saved prompt or the path to one, or several, of any length. One
      that is read here must have been trained for these weights.
    decoding: strategy and sizes.

  Raises:
    ValueError: a prompt does not fit the model, or was trained for another.

  Example:
    model = pretrained.load('microworld')
    prompted = PromptedModel(model, ['runs/boolq', 'runs/rte'])
    prompted.predict(['passage: … question: …', 'hypothesis: …'], [0, 1])
  """

  def __init__(
    self,
    model: pretrained.FrozenModel,
    prompts: Sequence[checkpoints.SavedPrompt | str | os.PathLike]
    | checkpoints.SavedPrompt
    | os.PathLike = (),
    decoding: Decoding = Decoding(),
  ):
    self._vocabulary = model.require_vocabulary()
    if isinstance(prompts, str | os.PathLike | checkpoints.SavedPrompt):
      prompts = [prompts]
    self.prompts = [
      p
      if isinstance(p, checkpoints.SavedPrompt)
      else checkpoints.load_prompt(p, model)
      for p in prompts
    ]
    for saved in self.prompts:
      width = model.config.emb_dim
      initializers.check_prompt(saved.values, saved.path, width=width)
    bank, lengths = bank_of(self.prompts)
    network, self._params = with_prompts(model, bank)
    self._predictor = Predictor(
      network, self._vocabulary, decoding, prompt_length=lengths
    )

  def predict(
    self, texts: Sequence[str], prompt_id: Ids | int = 0
  ) -> list[str]:
    """One prediction per text.

    Args:
      texts: inputs in the form that the prompts were trained on.
      prompt_id: which of the prompts each text uses, or one for all.

    Raises:
      ValueError: a text is empty or none, or a prompt_id is not one of a
        prompt.
    """
    if isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
      raise ValueError(f"texts must be a list of texts, got {texts!r:.80}.")
    ids = np.asarray(prompt_id)
    is_whole = ids.dtype.kind in "iu" or not ids.size
    if not is_whole or ids.shape not in {(), (len(texts),)}:
      raise ValueError(
        f"prompt_id must be a whole number, or one for each of the "
        f"{len(texts)} texts; got {prompt_id!r:.80}."
      )
    ids = np.broadcast_to(ids.astype(np.int32), (len(texts),))
    count = max(len(self.prompts), 1)
    if len(texts) and not (0 <= ids.min() and ids.max() < count):
      raise ValueError(
        f"prompt_id must be from 0 to {count - 1}, got {ids.tolist()}."
      )
    rows = []
    for i, text in enumerate(texts):
      pieces = self._vocabulary.encode(text)
      if not pieces:
        raise ValueError(f"Text {i} is empty ({text!r}).")
      rows.append([*pieces, EOS])
    if not rows:
      return []
    return self._predictor(self._params, rows, ids.tolist())


def write_predictions(
  path: str | os.PathLike, rows: Sequence[dict]
) -> pathlib.Path:
  """Writes one JSON object per line, atomically."""
  lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
  return storage.write_text(path, "".join(lines))
