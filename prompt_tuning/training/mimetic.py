"""Weights to pre-train from: words attend to equal words from the start."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained, stored_model
from prompt_tuning.model import forms, t5
from prompt_tuning.model.t5gemma import T5GemmaConfig


def mimetic(model: pretrained.FrozenModel) -> pretrained.FrozenModel:
  """The same weights, but words attend to equal words from the start.

  In the encoder and in cross-attention the first half of the heads has keys
  that equal the queries, and every head writes out what it reads. By the
  position bias the first half of the encoder's heads looks at any place but its
  own, the others at near places in front or behind. The output head is the
  embedding table. Trained transformers look like this, and a small one that
  begins so learns to compare two sentences in a fraction of the steps (after
  Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers").

  A T5Gemma has no position bias; the first head of each group has the keys, and
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
    flat[path] = query[:, :, 0].reshape(flat[path].shape)
    value = flat[f"{module}/value/kernel"].reshape(shape)
    value = jnp.broadcast_to(value, query.shape).reshape(len(query), -1)
    flat[f"{module}/out/kernel"] = value.T
  if is_even:
    flat["target_embedder/embedding"] = flat["token_embedder/embedding"]
  if not config.logits_via_embedding:
    flat["decoder/logits_dense/kernel"] = flat["target_embedder/embedding"].T
