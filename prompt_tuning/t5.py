"""T5 in Flax: one network for T5 1.0, 1.1, mT5 and ByT5.

    tokens [B, T] -> encode -> [B, T, E] -> decode -> logits [B, L, V]

Parameter paths, logical axes and method names are those of t5x's
`examples.t5.network`, so that checkpoints and partitioning rules fit both.
Parameters may have any float dtype: each is cast to `T5Config.dtype` where it
is used, so frozen weights can stay in bfloat16 beside float32 activations.

The network knows nothing of prompts: `T5(config, prompt=module)` hands the
encoder an embedding that swaps the prompt in (see `inject`).
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import inject
from prompt_tuning.layers import (
  Attention,
  Dense,
  Embed,
  Mlp,
  RelativeBias,
  T5Config,
  dropout,
  norm,
)
from prompt_tuning.shapes import PAD, Array, Bool, Float, Int

MASKED = -1e10  # added to the attention logits of masked positions


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each normed before and added after."""

  config: T5Config

  def setup(self):
    self.pre_attention_layer_norm = norm(self.config)
    self.attention = Attention(self.config)
    self.pre_mlp_layer_norm = norm(self.config)
    self.mlp = Mlp(self.config)

  def __call__(self, x, bias, enable_dropout):
    y = self.attention(
      self.pre_attention_layer_norm(x),
      bias=bias,
      enable_dropout=enable_dropout,
    )
    x = x + dropout(self, y, enable_dropout)
    y = self.mlp(self.pre_mlp_layer_norm(x), enable_dropout)
    return x + dropout(self, y, enable_dropout)


class DecoderLayer(nn.Module):
  """Causal self-attention, cross-attention and feed-forward."""

  config: T5Config

  def setup(self):
    self.pre_self_attention_layer_norm = norm(self.config)
    self.self_attention = Attention(self.config)
    self.pre_cross_attention_layer_norm = norm(self.config)
    self.encoder_decoder_attention = Attention(self.config)
    self.pre_mlp_layer_norm = norm(self.config)
    self.mlp = Mlp(self.config)

  def __call__(self, x, source, biases, *, keys_values, decode, enable_dropout):
    y = self.self_attention(
      self.pre_self_attention_layer_norm(x),
      bias=biases[0],
      decode=decode,
      enable_dropout=enable_dropout,
    )
    x = x + dropout(self, y, enable_dropout)
    y = self.encoder_decoder_attention(
      self.pre_cross_attention_layer_norm(x),
      source,
      bias=biases[1],
      keys_values=keys_values,
      enable_dropout=enable_dropout,
    )
    x = x + dropout(self, y, enable_dropout)
    y = self.mlp(self.pre_mlp_layer_norm(x), enable_dropout)
    return x + dropout(self, y, enable_dropout)


class Encoder(nn.Module):
  """Embedded inputs [B, T, E] -> encoded [B, T, E]."""

  config: T5Config

  def setup(self):
    config = self.config
    self.relpos_bias = RelativeBias(config, bidirectional=True)
    self.layers = [
      EncoderLayer(config) for _ in range(config.num_encoder_layers)
    ]
    self.encoder_norm = norm(config)

  def __call__(self, x, mask, enable_dropout):
    length = x.shape[1]
    bias = self.relpos_bias(length, length) + _mask_bias(mask, x.dtype)
    x = dropout(self, x, enable_dropout)
    for layer in self.layers:
      x = layer(x, bias, enable_dropout)
    return dropout(self, self.encoder_norm(x), enable_dropout)


class Decoder(nn.Module):
  """Embedded target history [B, L, E] -> decoded [B, L, E]."""

  config: T5Config

  def setup(self):
    config = self.config
    self.relpos_bias = RelativeBias(config, bidirectional=False)
    self.layers = [
      DecoderLayer(config) for _ in range(config.num_decoder_layers)
    ]
    self.decoder_norm = norm(config)
    if not config.logits_via_embedding:
      self.logits_dense = Dense(
        config.vocab_size, ("embed", "vocab"), jnp.float32
      )

  def keys_values(self, encoded):
    """Cross-attention keys and values of every layer, computed once."""
    return [
      layer.encoder_decoder_attention.keys_values(encoded)
      for layer in self.layers
    ]

  def __call__(
    self,
    x,
    encoded,
    masks,
    *,
    keys_values,
    decode,
    enable_dropout,
    max_decode_length,
  ):
    length = max_decode_length if decode and max_decode_length else x.shape[1]
    self_mask, cross_mask = masks
    self_bias = self.relpos_bias(length, length) + _mask_bias(
      self_mask, x.dtype
    )
    biases = (self_bias, _mask_bias(cross_mask, x.dtype))
    x = dropout(self, x, enable_dropout)
    for i, layer in enumerate(self.layers):
      x = layer(
        x,
        encoded,
        biases,
        keys_values=None if keys_values is None else keys_values[i],
        decode=decode,
        enable_dropout=enable_dropout,
      )
    return dropout(self, self.decoder_norm(x), enable_dropout)


def _mask_bias(mask, dtype):
  return jnp.where(mask, 0, MASKED).astype(dtype)


def _pair_mask(
  queries: Bool[Array, "B Q"], keys: Bool[Array, "B S"], segments=None
) -> Bool[Array, "B 1 Q S"]:
  """What may look where: keys that are no padding, in the same segment."""
  mask = jnp.logical_and(queries[:, :, None], keys[:, None, :])
  if segments is not None:
    mask &= segments[0][:, :, None] == segments[1][:, None, :]
  return mask[:, None]


class T5(nn.Module):
  """T5 with separate `encode` and `decode`; `prompt` joins the encoder's input.

  Attributes:
    config: the network's shape.
    prompt: None, or a module that returns prompt rows [..., E]; placeholder
      ids among the encoder's tokens are replaced by its rows (see `inject`).
  """

  config: T5Config
  prompt: nn.Module | None = None

  def setup(self):
    config = self.config
    self.token_embedder = Embed(config.vocab_size, config.emb_dim, config.dtype)
    self.encoder_embedder = (
      self.token_embedder
      if self.prompt is None
      else inject.PromptedEmbedding(self.token_embedder, self.prompt)
    )
    self.encoder = Encoder(config)
    self.decoder = Decoder(config)

  def encode(
    self,
    encoder_input_tokens: Int[Array, "B T"],
    encoder_segment_ids: Int[Array, "B T"] | None = None,
    enable_dropout: bool = False,
  ) -> Float[Array, "B T E"]:
    """Encoder output; padding (id 0) is attended by nothing."""
    real = encoder_input_tokens > PAD
    segments = encoder_segment_ids
    mask = _pair_mask(
      real, real, None if segments is None else (segments, segments)
    )
    x = self.encoder_embedder(encoder_input_tokens)
    return self.encoder(x, mask, enable_dropout)

  def keys_values(self, encoded: Float[Array, "B T E"]):
    """The decoder's cross-attention keys and values, for cached decoding."""
    return self.decoder.keys_values(encoded)

  def decode(
    self,
    encoded: Float[Array, "B T E"],
    encoder_input_tokens: Int[Array, "B T"],
    decoder_input_tokens: Int[Array, "B L"],
    decoder_target_tokens: Int[Array, "B L"] | None = None,
    encoder_segment_ids: Int[Array, "B T"] | None = None,
    decoder_segment_ids: Int[Array, "B L"] | None = None,
    *,
    keys_values=None,
    enable_dropout: bool = False,
    decode: bool = False,
    max_decode_length: int | None = None,
  ) -> Float[Array, "B L V"]:
    """Float32 logits of the next target token at each position.

    With `decode` and a filled `cache` collection the tokens are one position
    [B, 1]; a first call with [B, `max_decode_length`] lays the cache out.
    """
    config = self.config
    length = decoder_input_tokens.shape[1]
    everywhere = jnp.ones_like(decoder_input_tokens, bool)
    if decode:
      span = max_decode_length or length
      masks = np.tril(np.ones((1, 1, span, span), bool))
    else:
      masks = np.tril(np.ones((1, 1, length, length), bool))
      if decoder_segment_ids is not None:
        same = decoder_segment_ids
        masks = masks & _pair_mask(everywhere, everywhere, (same, same))
    segments = (
      None
      if encoder_segment_ids is None or decoder_segment_ids is None
      else (decoder_segment_ids, encoder_segment_ids)
    )
    cross = _pair_mask(everywhere, encoder_input_tokens > PAD, segments)
    x = self.decoder(
      self.token_embedder(decoder_input_tokens),
      encoded,
      (masks, cross),
      keys_values=keys_values,
      decode=decode,
      enable_dropout=enable_dropout,
      max_decode_length=max_decode_length,
    )
    if config.scale_logits:
      x = x / np.sqrt(config.emb_dim).astype(x.dtype)
    if config.logits_via_embedding:
      return self.token_embedder.attend(x).astype(jnp.float32)
    return self.decoder.logits_dense(x)

  def __call__(
    self,
    encoder_input_tokens: Int[Array, "B T"],
    decoder_input_tokens: Int[Array, "B L"],
    decoder_target_tokens: Int[Array, "B L"] | None = None,
    encoder_segment_ids: Int[Array, "B T"] | None = None,
    decoder_segment_ids: Int[Array, "B L"] | None = None,
    *,
    encoder_positions: Int[Array, "B T"] | None = None,
    decoder_positions: Int[Array, "B L"] | None = None,
    **options,
  ) -> Float[Array, "B L V"]:
    """Teacher-forced logits: `decode(encode(inputs), targets so far)`.

    Positions of packed rows may be given and are not needed: the bias is
    relative, so a segment does not notice where in a row it stands.
    """
    del encoder_positions, decoder_positions
    enable_dropout = options.get("enable_dropout", False)
    encoded = self.encode(
      encoder_input_tokens, encoder_segment_ids, enable_dropout
    )
    return self.decode(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      encoder_segment_ids,
      decoder_segment_ids,
      **options,
    )


def abstract_parameters(config: T5Config):
  """The parameter tree of `T5(config)` as shapes, without computing it."""
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  variables = jax.eval_shape(T5(config).init, jax.random.key(0), tokens, tokens)
  return variables["params"]


def shift_right(targets: Int[Array, "B L"]) -> Int[Array, "B L"]:
  """The decoder's input: the targets one place later, behind id 0."""
  return jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
