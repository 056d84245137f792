"""The two stacks of a T5Gemma, encoder and decoder, and their layers.

    rows [B, T, E] -> times sqrt(E) -> layer 0 -> layer 1 … -> norm -> [B, T, E]

Each part of a layer is normed before and after, then added.
"""

import math
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model import attention, forms, inside, kept, layers
from prompt_tuning.model.attention import Source
from prompt_tuning.model.kept import Kept
from prompt_tuning.model.layers import Embed, Vectors
from prompt_tuning.model.t5gemma.config import Part, Stack, T5GemmaConfig
from prompt_tuning.model.t5gemma.grouped import GroupedAttention, capped
from prompt_tuning.shapes import PAD, Array, Bool, Float, PyTree


def _norm(config: Part) -> layers.RMSNorm:
  return layers.RMSNorm(config.layer_norm_epsilon, config.dtype, offset=1.0)


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each normed before and after."""

  config: Part

  def setup(self):
    self.pre_attention_layer_norm = _norm(self.config)
    self.attention = GroupedAttention(self.config)
    self.post_attention_layer_norm = _norm(self.config)
    self.pre_mlp_layer_norm = _norm(self.config)
    self.mlp = layers.Mlp(self.config)
    self.post_mlp_layer_norm = _norm(self.config)

  def __call__(
    self,
    x: Float[Array, "B T E"],
    bias: Float[Array, "B 1 T T"],
    vectors: Vectors,
  ) -> Float[Array, "B T E"]:
    y = self.pre_attention_layer_norm(x)
    y = _looked(self.attention, y, bias, vectors, is_cached=False)
    x = x + layers.dropout(self, self.post_attention_layer_norm(y))
    y = self.mlp(self.pre_mlp_layer_norm(x), vectors)
    return x + layers.dropout(self, self.post_mlp_layer_norm(y))


class DecoderLayer(nn.Module):
  """Self-attention, cross-attention and feed-forward, normed likewise."""

  config: Part

  def setup(self):
    self.pre_self_attention_layer_norm = _norm(self.config)
    self.self_attention = GroupedAttention(self.config)
    self.post_self_attention_layer_norm = _norm(self.config)
    self.pre_cross_attention_layer_norm = _norm(self.config)
    self.encoder_decoder_attention = GroupedAttention(self.config)
    self.post_cross_attention_layer_norm = _norm(self.config)
    self.pre_mlp_layer_norm = _norm(self.config)
    self.mlp = layers.Mlp(self.config)
    self.post_mlp_layer_norm = _norm(self.config)

  def __call__(
    self,
    x: Float[Array, "B L E"],
    source: Float[Array, "B S _"] | Kept,
    biases: tuple[Float[Array, "#B 1 span span"], Float[Array, "B 1 L S"]],
    vectors: Vectors,
    *,
    is_cached: bool,
  ) -> Float[Array, "B L E"]:
    y = self.pre_self_attention_layer_norm(x)
    y = _looked(self.self_attention, y, biases[0], vectors, is_cached=is_cached)
    x = x + layers.dropout(self, self.post_self_attention_layer_norm(y))
    cross = self.encoder_decoder_attention
    query = cross.queries(self.pre_cross_attention_layer_norm(x))
    found = source if isinstance(source, Kept) else cross.keys_values(source)
    y = cross(query, found, biases[1], layers.across(vectors))
    x = x + layers.dropout(self, self.post_cross_attention_layer_norm(y))
    y = self.mlp(self.pre_mlp_layer_norm(x), vectors)
    return x + layers.dropout(self, self.post_mlp_layer_norm(y))


def _looked(
  own: GroupedAttention,
  y: Float[Array, "B L E"],
  bias: Float[Array, "#B 1 span span"],
  vectors: Vectors,
  *,
  is_cached: bool,
) -> Float[Array, "B L E"]:
  """Self-attention: what the places of y read of each other."""
  query, keys_values = own.queries(y, turned=True), own.placed(y, vectors)
  if is_cached:
    keys_values, bias = own.remember(keys_values, bias)
  values = {k: v for k, v in vectors.items() if k == "values"}
  return own(query, keys_values, bias, values)


def _scaled(x: Float[Array, "B L E"]) -> Float[Array, "B L E"]:
  """Rows of a table as a stack takes them, times sqrt(E)."""
  return x * np.float32(math.sqrt(x.shape[-1])).astype(x.dtype)


class Encoder(nn.Module):
  """Embedded inputs -> encoded inputs."""

  config: T5GemmaConfig
  remat: bool = False

  def setup(self):
    part = self.config.part("encoder")
    self.layers = forms.layers_of(
      self, lambda _: EncoderLayer(part), part.num_layers
    )
    self.encoder_norm = _norm(part)

  def __call__(
    self,
    x: Float[Array, "B T E"],
    mask: Bool[Array, "B 1 T T"],
    prompts: inside.OfStack = inside.NOTHING,
  ) -> Float[Array, "B T E"]:
    shape = self.config.encoder
    place = np.arange(x.shape[1])
    apart = np.abs(place[:, None] - place)
    x = layers.dropout(self, _scaled(x))

    def call(layer, x, each):
      near, own = each
      seen = mask & (apart <= near["window"])
      bias = attention.mask_bias(seen, x.dtype)
      return layer(prompts.enter(x, own), bias, prompts.vectors(own))

    x = forms.through(
      self.layers,
      x,
      _of_layers(self.layers, shape, prompts.tensors),
      call,
      count=shape.num_layers,
      remat=self.remat,
    )
    return layers.dropout(self, self.encoder_norm(x))


def _of_layers(stack: Any, shape: Stack, tensors: PyTree, *more: Any) -> Any:
  """The window of every layer, its part of `tensors`, and what has parts."""
  near, own = (
    forms.each_of(stack, tree, shape.num_layers)
    for tree in ({"window": shape.windows}, tensors)
  )
  return forms.together(stack, near, own, *more, count=shape.num_layers)


class Decoder(nn.Module):
  """Embedded target history -> decoded targets."""

  config: T5GemmaConfig
  remat: bool = False

  def setup(self):
    part = self.config.part("decoder")
    self.layers = forms.layers_of(
      self, lambda _: DecoderLayer(part), part.num_layers
    )
    self.decoder_norm = _norm(part)
    if not self.config.logits_via_embedding:
      self.logits_dense = layers.head(self.config.vocab_size)

  def keys_values(self, encoded: Float[Array, "B T _"]) -> kept.OfLayers:
    """Cross-attention keys and values of every layer."""
    count = self.config.num_decoder_layers
    return attention.keys_values_of(self.layers, encoded, count)

  def __call__(
    self,
    x: Float[Array, "B L E"],
    source: Source,
    masks: tuple[Bool[Array, "#B 1 span span"], Bool[Array, "B 1 L T"]],
    prompts: inside.OfStack = inside.NOTHING,
    *,
    is_cached: bool,
  ) -> Float[Array, "B L E"]:
    shape, (causal, cross) = self.config.decoder, masks
    place = np.arange(causal.shape[-1])
    behind = place[:, None] - place
    cross_bias = attention.mask_bias(cross, x.dtype)
    x = layers.dropout(self, _scaled(x))

    def call(layer, x, each):
      near, own, keys_values = each
      seen = causal & (behind < near["window"])
      bias = attention.mask_bias(seen, x.dtype)
      attended = source.encoded if keys_values is None else keys_values
      vectors = prompts.vectors(own)
      return layer(
        x, attended, (bias, cross_bias), vectors, is_cached=is_cached
      )

    x = forms.through(
      self.layers,
      x,
      _of_layers(self.layers, shape, prompts.tensors, source.keys_values),
      call,
      count=shape.num_layers,
      remat=self.remat and not is_cached,
    )
    return layers.dropout(self, self.decoder_norm(x))

  def logits(
    self, x: Float[Array, "B L E"], table: Embed
  ) -> Float[Array, "B L V"]:
    """Float32 logits, of the table of words where there is no other head."""
    if self.config.logits_via_embedding:
      found = table.attend(x).astype(jnp.float32)
    else:
      found = self.logits_dense(x)
    return capped(found, self.config.logits_cap)


def embedder(config: T5GemmaConfig) -> Embed:
  """The encoder's table of words."""
  return _table(config, config.encoder.emb_dim, PAD)


def target_embedder(config: T5GemmaConfig) -> Embed:
  """The decoder's table of words, in which it starts from `start_id`."""
  return _table(config, config.decoder.emb_dim, config.start_id)


def _table(config: T5GemmaConfig, width: int, start: int) -> Embed:
  """A table whose rows have numbers of size 1 when they are scaled."""
  return Embed(config.vocab_size, width, config.dtype, start, width**-0.5)
