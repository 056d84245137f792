"""The two stacks of a T5, encoder and decoder, and their layers.

    embedded x [B, T, E] -> layer 0 -> layer 1 … -> norm -> [B, T, E]

`forms` says whether the layers are computed one by one or by a scan.
"""

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model import attention, forms, inside, kept
from prompt_tuning.model.attention import Source
from prompt_tuning.model.layers import (
  Embed,
  Mlp,
  T5Config,
  Vectors,
  across,
  dropout,
  head,
  norm,
)
from prompt_tuning.shapes import Array, Bool, Float


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each normed before and added after."""

  config: T5Config

  def setup(self):
    self.pre_attention_layer_norm = norm(self.config)
    self.attention = attention.Attention(self.config)
    self.pre_mlp_layer_norm = norm(self.config)
    self.mlp = Mlp(self.config)
    if self.config.relpos_per_layer:
      self.relpos_bias = attention.RelativeBias(self.config, bidirectional=True)

  def __call__(
    self,
    x: Float[Array, "B T E"],
    bias: Float[Array, "B #H T T"],
    vectors: Vectors,
  ) -> Float[Array, "B T E"]:
    if self.config.relpos_per_layer:
      bias = self.relpos_bias(x.shape[1], x.shape[1]) + bias
    y = self.pre_attention_layer_norm(x)
    y = self.attention(y, y, bias, vectors)
    x = x + dropout(self, y)
    y = self.mlp(self.pre_mlp_layer_norm(x), vectors)
    return x + dropout(self, y)


class DecoderLayer(nn.Module):
  """Causal self-attention, cross-attention and feed-forward."""

  config: T5Config

  def setup(self):
    self.pre_self_attention_layer_norm = norm(self.config)
    self.self_attention = attention.Attention(self.config)
    self.pre_cross_attention_layer_norm = norm(self.config)
    self.encoder_decoder_attention = attention.Attention(self.config)
    self.pre_mlp_layer_norm = norm(self.config)
    self.mlp = Mlp(self.config)
    if self.config.relpos_per_layer:
      self.relpos_bias = attention.RelativeBias(
        self.config, bidirectional=False
      )

  def __call__(
    self,
    x: Float[Array, "B L E"],
    source: Float[Array, "B S E"] | kept.Kept,
    biases: tuple[Float[Array, "#B #H span span"], Float[Array, "B 1 L S"]],
    vectors: Vectors,
    *,
    is_cached: bool,
  ) -> Float[Array, "B L E"]:
    self_bias, cross_bias = biases
    if self.config.relpos_per_layer:
      span = self_bias.shape[-1]
      self_bias = self.relpos_bias(span, span) + self_bias
    own = y = self.pre_self_attention_layer_norm(x)
    if is_cached:
      own, self_bias = self.self_attention.remember(
        self.self_attention.keys_values(y), self_bias
      )
    y = self.self_attention(y, own, self_bias, vectors)
    x = x + dropout(self, y)
    y = self.pre_cross_attention_layer_norm(x)
    y = self.encoder_decoder_attention(y, source, cross_bias, across(vectors))
    x = x + dropout(self, y)
    y = self.mlp(self.pre_mlp_layer_norm(x), vectors)
    return x + dropout(self, y)


class Encoder(nn.Module):
  """Embedded inputs -> encoded inputs."""

  config: T5Config
  remat: bool = False

  def setup(self):
    config = self.config
    if not config.relpos_per_layer:
      self.relpos_bias = attention.RelativeBias(config, bidirectional=True)
    self.layers = forms.layers_of(self, EncoderLayer, config.num_encoder_layers)
    self.encoder_norm = norm(config)

  def __call__(
    self,
    x: Float[Array, "B T E"],
    mask: Bool[Array, "B 1 T T"],
    prompts: inside.OfStack = inside.NOTHING,
  ) -> Float[Array, "B T E"]:
    bias = attention.mask_bias(mask, x.dtype)
    if not self.config.relpos_per_layer:
      bias = self.relpos_bias(x.shape[1], x.shape[1]) + bias
    x = dropout(self, x)
    count = self.config.num_encoder_layers
    x = forms.through(
      self.layers,
      x,
      forms.each_of(self.layers, prompts.tensors, count),
      lambda layer, x, own: layer(
        prompts.enter(x, own), bias, prompts.vectors(own)
      ),
      count=count,
      remat=self.remat,
    )
    return dropout(self, self.encoder_norm(x))


class Decoder(nn.Module):
  """Embedded target history -> decoded targets."""

  config: T5Config
  remat: bool = False

  def setup(self):
    config = self.config
    if not config.relpos_per_layer:
      self.relpos_bias = attention.RelativeBias(config, bidirectional=False)
    self.layers = forms.layers_of(self, DecoderLayer, config.num_decoder_layers)
    self.decoder_norm = norm(config)
    if not config.logits_via_embedding:
      self.logits_dense = head(config.vocab_size)

  def keys_values(self, encoded: Float[Array, "B T E"]) -> kept.OfLayers:
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
    self_bias, cross_bias = (
      attention.mask_bias(mask, x.dtype) for mask in masks
    )
    if not self.config.relpos_per_layer:
      span = self_bias.shape[-1]
      self_bias = self.relpos_bias(span, span) + self_bias
    biases = (self_bias, cross_bias)
    x = dropout(self, x)

    def call(layer, x, each):
      keys_values, own = each
      attended = source.encoded if keys_values is None else keys_values
      vectors = prompts.vectors(own)
      return layer(x, attended, biases, vectors, is_cached=is_cached)

    count = self.config.num_decoder_layers
    own = forms.each_of(self.layers, prompts.tensors, count)
    x = forms.through(
      self.layers,
      x,
      forms.together(self.layers, source.keys_values, own, count=count),
      call,
      count=count,
      remat=self.remat and not is_cached,
    )
    return dropout(self, self.decoder_norm(x))

  def logits(
    self, x: Float[Array, "B L E"], table: Embed
  ) -> Float[Array, "B L V"]:
    """Float32 logits, of the table of words where there is no other head."""
    config = self.config
    if config.scale_logits:
      x = x / np.sqrt(config.emb_dim).astype(x.dtype)
    if config.logits_via_embedding:
      return table.attend(x).astype(jnp.float32)
    return self.logits_dense(x)


def embedder(config: T5Config) -> Embed:
  """The table of words."""
  return Embed(config.vocab_size, config.emb_dim, config.dtype)


def target_embedder(config: T5Config) -> None:
  """The decoder's own table, which a T5 does not have."""
  del config
