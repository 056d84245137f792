"""Small things that many tests share: a network, weights, a vocabulary."""

import functools
import pathlib
import tempfile

import jax
import numpy as np
import sentencepiece

from prompt_tuning import storage
from prompt_tuning.model import inject, t5
from prompt_tuning.model.t5gemma import Stack, T5GemmaConfig
from prompt_tuning.prompts.prompt import Prompt
from prompt_tuning.vocabulary import Vocabulary

TEXTS = (
  "the cat sat on the mat",
  "a dog ran to the red house and sat down",
  "is the house red ? yes , the house is red .",
  "no , the cat did not see the dog on the mat",
  "we saw a bird in the tree , and the bird sang",
)


def config(**changes) -> t5.T5Config:
  """One layer a side, E = 16, two heads, 60 rows of the embedding."""
  return t5.T5Config(
    **{
      "vocab_size": 60,
      "emb_dim": 16,
      "num_heads": 2,
      "head_dim": 8,
      "mlp_dim": 32,
      "num_encoder_layers": 1,
      "num_decoder_layers": 1,
      **changes,
    }
  )


def gemma(**changes) -> T5GemmaConfig:
  """A T5Gemma whose stacks differ in size, with the vocabulary's ids."""
  return T5GemmaConfig(
    60,
    Stack(16, 4, 2, 6, 24, 2, attention_cap=5.0, window=3),
    Stack(12, 4, 2, 4, 20, 2, attention_cap=5.0, window=3),
    **{"start_id": 0, **changes},
  )


@functools.cache
def _weights(shape: t5.Config, seed: int) -> dict:
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    if path.endswith("kernel"):
      fan_in = leaf.shape[0]
      return rng.normal(0, fan_in**-0.5, leaf.shape)
    if path.endswith("scale"):
      return 1 + rng.normal(0, 0.1, leaf.shape)
    return rng.normal(0, 1, leaf.shape)

  flat = storage.flatten(t5.abstract_parameters(shape))
  return {k: draw(k, v).astype(np.float32) for k, v in flat.items()}


def weights(shape: t5.Config, seed: int = 0, prompt=None) -> dict:
  """Random weights of a T5, and the `prompt` [P, E] or [N, P, E] beside them.

  Every leaf is drawn, norm scales and biases too, so that none is idle.
  """
  flat = dict(_weights(shape, seed))
  if prompt is not None:
    flat["prompt/embedding"] = np.asarray(prompt)
  return storage.unflatten(flat)


def prompted(
  shape: t5.Config, length: int, num_prompts: int | None = None
) -> t5.T5:
  """The network with a place for a prompt, or a bank of them."""
  return t5.T5(shape, Prompt(length, shape.emb_dim, num_prompts))


@functools.cache
def jitted(network: t5.T5, method: str | None = None):
  """`network.apply` as one program a shape.

  Without jit every operation is a program of its own, and compiling a hundred
  of them takes seconds.
  """
  return jax.jit(
    functools.partial(network.apply, method=method),
    static_argnames="enable_dropout",
  )


def rows(*shape: int, seed: int = 0) -> np.ndarray:
  """Prompt rows from a normal distribution."""
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens(batch: int, length: int, *, rows: int = 60, seed: int = 0):
  """Ids [batch, length] from 2 up, without padding."""
  rng = np.random.default_rng(seed)
  return rng.integers(2, rows, (batch, length)).astype(np.int32)


def ids(*values) -> np.ndarray:
  """Integers as int32."""
  return np.array(values, np.int32)


def reserved(inputs, prompt_id, length) -> np.ndarray:
  """`inject.reserve` with plain lists."""
  return inject.reserve(np.asarray(inputs, np.int32), ids(*prompt_id), length)


def batch_of_two(at: int, length: int) -> dict[str, np.ndarray]:
  """Six examples of several lengths, three for each of two prompts."""
  which = ids(0, 0, 0, 1, 1, 1)
  text = tokens(6, 7, seed=at)
  text[np.arange(6), 4 + np.arange(6) % 3] = 0
  text[:, 6] = 0
  return {
    "inputs": reserved(text, which, length),
    "targets": tokens(6, 3, seed=at + 1000),
    "prompt_id": which,
  }


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
  return tempfile.TemporaryDirectory()  # goes when the interpreter ends


@functools.cache
def sentencepiece_defaults(folder) -> str:
  """A model with SentencePiece's own special ids: no pad, unk 0, eos 2."""
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXTS),
    model_prefix=str(folder / "plain"),
    vocab_size=50,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  return str(folder / "plain.model")


def vocabulary(extra_ids: int = 10) -> Vocabulary:
  """A SentencePiece vocabulary of 50 pieces, trained on `TEXTS`."""
  prefix = pathlib.Path(_folder().name) / "tiny"
  if not prefix.with_suffix(".model").exists():
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(TEXTS),
      model_prefix=str(prefix),
      vocab_size=50,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      hard_vocab_limit=False,
      minloglevel=2,
    )
  return Vocabulary(str(prefix.with_suffix(".model")), extra_ids)


def gemma_pieces(folder) -> str:
  """A SentencePiece model with the special ids of a Gemma."""
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXTS),
    model_prefix=str(folder / "tokenizer"),
    model_type="bpe",
    vocab_size=60,
    pad_id=0,
    eos_id=1,
    bos_id=2,
    unk_id=3,
    eos_piece="<eos>",
    bos_piece="<bos>",
    user_defined_symbols=["<mask>", "\n"],
    hard_vocab_limit=False,
    minloglevel=2,
  )
  return str(folder / "tokenizer.model")
