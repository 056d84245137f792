"""Weights to pre-train from: words attend to equal words from the start."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained, stored_model
from prompt_tuning.model import forms


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
  forms.quantized.refuse(model.params, "pre-training trains them")
  config = model.config
  matching = config.num_heads // 2
  half = matching * config.head_dim
  flat = dict(storage.flatten(forms.apart(model.params)))
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
