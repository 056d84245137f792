"""Weights to pre-train from: words attend to equal words from the start."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained, stored_model
from prompt_tuning.model import forms, t5
from prompt_tuning.model.t5gemma import Stack, T5GemmaConfig
from prompt_tuning.shapes import Array, Float

_SHARE = 0.5  # of the common direction, beside a word's own of length 1
_FAST = 0.05  # radians from a place to the next
_BIAS = 5.0  # of a score at the place that is looked at, or away from
_NEAR = 1.5  # places behind or ahead


def mimetic(model: pretrained.FrozenModel) -> pretrained.FrozenModel:
  """The same weights, but words attend to equal words from the start.

  In the encoder and in cross-attention the first half of the heads has keys
  that equal the queries, and every head writes out what it reads. By the
  position bias the first half of the encoder's heads looks at any place but its
  own, the others at near places in front or behind. The output head is the
  embedding table. Trained transformers look like this, and a small one that
  begins so learns to compare two sentences in a fraction of the steps (after
  Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers").

  A T5Gemma has no position bias, so the places are in its encoder's queries and
  keys: all words have a direction in common there, which what turns fast reads.
  The first head of each group has the keys, the others look at near places, and
  both stacks begin with one table.
  """
  forms.quantized.refuse(model.params, "pre-training trains them")
  flat = dict(storage.flatten(forms.apart(model.params)))
  if isinstance(model.config, T5GemmaConfig):
    _fill_t5gemma(model.config, flat)
  else:
    _fill_t5(model.config, flat)
  params = storage.unflatten(flat)
  return dataclasses.replace(
    model, params=params, stored_hash=stored_model.weights_hash(params)
  )


def _fill_t5(config: t5.T5Config, flat: dict[str, Any]) -> None:
  """Changes the parameters of a T5."""
  matching = config.num_heads // 2
  half = matching * config.head_dim
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


def _fill_t5gemma(config: T5GemmaConfig, flat: dict[str, Any]) -> None:
  """Changes the parameters of a T5Gemma; stacks of two widths do not match."""
  is_even = config.encoder.emb_dim == config.decoder.emb_dim
  if is_even:
    flat["target_embedder/embedding"] = flat["token_embedder/embedding"]
  for path in list(flat):
    module = path.removesuffix("/key/kernel")
    is_cross = module.endswith("encoder_decoder_attention")
    if module == path or module.endswith("/self_attention"):
      continue
    if is_cross and not is_even:
      continue
    stack = config.decoder if is_cross else config.encoder
    shape = (stack.emb_dim, stack.num_kv_heads, -1, stack.head_dim)
    query = flat[f"{module}/query/kernel"].reshape(shape)
    key = query[:, :, 0]
    if not is_cross:
      query, key = _placed(stack, query, key)
      flat[f"{module}/query/kernel"] = query.reshape(len(query), -1)
    flat[path] = key.reshape(flat[path].shape)
    value = flat[f"{module}/value/kernel"].reshape(shape)[:, :, 0]
    out = jnp.asarray(flat[f"{module}/out/kernel"].T.reshape(shape))
    out = out.at[:, :, 0].set(value)
    flat[f"{module}/out/kernel"] = out.reshape(len(out), -1).T
  table = flat["token_embedder/embedding"]
  flat["token_embedder/embedding"] = table + _SHARE * _shared(table.shape[1])
  if not config.logits_via_embedding:
    flat["decoder/logits_dense/kernel"] = flat["target_embedder/embedding"].T


def _shared(emb_dim: int) -> Float[np.ndarray, "E"]:
  """The direction that all words of a T5Gemma's encoder have."""
  return np.full(emb_dim, emb_dim**-0.5, np.float32)


def _placed(
  stack: Stack, query: Float[Array, "E H G D"], key: Float[Array, "E H D"]
) -> tuple[Float[Array, "E H G D"], Float[Array, "E H D"]]:
  """Kernels of the encoder's attention that look at places as well as words.

  What turns fast from place to place is the same for all words, so that a score
  knows how far apart two places are; what turns slowly compares the words. The
  first head of a group looks away from its own place, the others at near
  places: those behind in the first group, ahead in the next, and so on. Where
  each head has its own keys, every second one looks at near places.
  """
  half = stack.head_dim // 2
  speed = stack.rope_base ** (-np.arange(half) / half)
  of_places = np.tile(speed > _FAST, 2)
  of_words = max(stack.head_dim - of_places.sum(), 1)

  # A normed input has so much of the shared direction, the words the rest.
  share = _SHARE**2 / (1 + _SHARE**2)
  shared = _shared(stack.emb_dim)
  towards = shared / np.sqrt(stack.emb_dim * share)

  def comparing(kernel):
    own = kernel - np.multiply.outer(shared, jnp.tensordot(shared, kernel, 1))
    return jnp.where(of_places, 0.0, own)

  pairs = of_places.sum() / 2
  size = np.sqrt(_BIAS * np.sqrt(stack.head_dim) / pairs)
  size = np.where(of_places, size, 0.0).astype(np.float32)
  here = size * np.repeat([1.0, 0.0], half)
  looks = np.zeros(query.shape[1:], np.float32)
  is_alone = query.shape[2] == 1
  for group in range(len(looks)):
    angle = _NEAR * (-1) ** (group // 2 if is_alone else group) * speed
    looks[group] = size * np.concatenate([np.cos(angle), -np.sin(angle)])
    if not is_alone or group % 2 == 0:
      looks[group, 0] = -here
  key = comparing(key) * (stack.head_dim / of_words / (1 - share))
  key = key + np.multiply.outer(towards, here)[:, None]
  return comparing(query) + np.multiply.outer(towards, looks), key
