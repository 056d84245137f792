"""T5 in Flax: one network for T5 1.0, 1.1, mT5 and ByT5.

    tokens [B, T] -> encode -> [B, T, E] -> decode -> logits [B, L, V]

Parameter paths, logical axes and method names are those of t5x's
`examples.t5.network`, so that checkpoints and partitioning rules fit both.
Parameters may have any float dtype: each is cast to `T5Config.dtype` where it
is used, so frozen weights can stay in bfloat16 beside float32 activations.

The network knows nothing of prompts: `T5(config, prompt=module)` hands the
encoder an embedding that swaps the prompt in (see `inject`).
"""

import dataclasses
import functools
from typing import Any

from flax import linen as nn
from flax.linen import partitioning
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import inject
from prompt_tuning.shapes import Array, Bool, Float, Int

PAD = 0
MASKED = -1e10  # added to the attention logits of masked positions


@dataclasses.dataclass(frozen=True)
class T5Config:
  """The shape of a T5 and the numbers that its weights were trained with.

  `dtype` is the dtype of activations only. `scale_logits` divides the decoder's
  output by sqrt(E) before the logits (T5 1.0); by default it follows
  `logits_via_embedding`.
  """

  vocab_size: int
  emb_dim: int
  num_heads: int
  head_dim: int
  mlp_dim: int
  num_encoder_layers: int
  num_decoder_layers: int
  mlp_activations: tuple[str, ...] = ("gelu", "linear")
  logits_via_embedding: bool = False
  scale_logits: bool | None = None
  relpos_buckets: int = 32
  relpos_max_distance: int = 128
  layer_norm_epsilon: float = 1e-6
  dropout_rate: float = 0.0
  dtype: str = "float32"

  def __post_init__(self):
    object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
    if self.scale_logits is None:
      object.__setattr__(self, "scale_logits", self.logits_via_embedding)


def _parameter(module, name, initializer, shape, axes):
  """A float32 parameter with its logical axes recorded as t5x expects."""
  del module  # param_with_axes finds the calling module itself
  return partitioning.param_with_axes(
    name, initializer, shape, jnp.float32, axes=axes
  )


class Dense(nn.Module):
  """A matrix without bias: [..., in] -> [..., features]."""

  features: int
  axes: tuple[str, str]
  dtype: Any
  scale: float = 1.0  # of the initial variance

  @nn.compact
  def __call__(self, x):
    kernel = _parameter(
      self,
      "kernel",
      nn.initializers.variance_scaling(
        self.scale, "fan_in", "truncated_normal"
      ),
      (x.shape[-1], self.features),
      self.axes,
    )
    return jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))


class RMSNorm(nn.Module):
  """T5's layer norm: no mean, no bias, computed in float32."""

  epsilon: float
  dtype: Any

  @nn.compact
  def __call__(self, x):
    scale = _parameter(
      self, "scale", nn.initializers.ones, (x.shape[-1],), ("embed",)
    )
    x = x.astype(jnp.float32)
    x = x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    return (x * scale.astype(jnp.float32)).astype(self.dtype)


class Embed(nn.Module):
  """The embedding table [V, E], read by gather."""

  vocab_size: int
  emb_dim: int
  dtype: Any

  def setup(self):
    self.embedding = _parameter(
      self,
      "embedding",
      nn.initializers.normal(1.0),
      (self.vocab_size, self.emb_dim),
      ("vocab", "embed"),
    )

  def __call__(self, tokens: Int[Array, "*B T"]) -> Float[Array, "*B T E"]:
    return jnp.take(self.embedding, tokens, axis=0, mode="clip").astype(
      self.dtype
    )

  def attend(self, x: Float[Array, "*B L E"]) -> Float[Array, "*B L V"]:
    """Logits of the tied table."""
    return jnp.dot(x, self.embedding.astype(x.dtype).T)


def relative_buckets(
  relative: Int[np.ndarray, "Q S"], *, bidirectional, buckets, max_distance
) -> Int[np.ndarray, "Q S"]:
  """Bucket of each offset (key position - query position).

  Half of the buckets hold exact offsets, the other half grow with the
  logarithm up to `max_distance`; a bidirectional stack spends half of each on
  the positions to the right.
  """
  bucket = np.zeros_like(relative)
  if bidirectional:
    buckets //= 2
    bucket += (relative > 0) * buckets
    distance = np.abs(relative)
  else:
    distance = np.maximum(-relative, 0)
  exact = buckets // 2
  # float32 throughout: the bucket's edge must fall where T5's falls.
  ratio = np.log(
    np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
  ) / np.float32(np.log(max_distance / exact))
  far = exact + (ratio * np.float32(buckets - exact)).astype(np.int32)
  return bucket + np.where(
    distance < exact, distance, np.minimum(far, buckets - 1)
  )


class RelativeBias(nn.Module):
  """The relative position bias that the layers of a stack share."""

  config: T5Config
  bidirectional: bool

  @nn.compact
  def __call__(self, queries: int, keys: int) -> Float[Array, "1 H Q S"]:
    config = self.config
    table = _parameter(
      self,
      "rel_embedding",
      nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
      (config.num_heads, config.relpos_buckets),
      ("heads", "relpos_buckets"),
    )
    relative = np.arange(keys)[None, :] - np.arange(queries)[:, None]
    buckets = relative_buckets(
      relative.astype(np.int32),
      bidirectional=self.bidirectional,
      buckets=config.relpos_buckets,
      max_distance=config.relpos_max_distance,
    )
    return jnp.take(table, buckets, axis=1)[None].astype(config.dtype)


class Attention(nn.Module):
  """Multi-head attention without 1/sqrt(D) (it is in the query's scale).

  `keys_values` are taken instead of computing them from `source`. With
  `decode` one target position is handled at a time and the earlier ones are
  kept in the `cache` collection.
  """

  config: T5Config

  def setup(self):
    config = self.config
    width = config.num_heads * config.head_dim
    make = functools.partial(Dense, width, ("embed", "joined_kv"), config.dtype)
    self.query = make(scale=1.0 / config.head_dim)
    self.key = make()
    self.value = make()
    self.out = Dense(config.emb_dim, ("joined_kv", "embed"), config.dtype)

  def _heads(self, x):
    return x.reshape(*x.shape[:-1], self.config.num_heads, self.config.head_dim)

  def keys_values(self, source):
    """Keys and values of `source`, each [B, S, H, D]."""
    return self._heads(self.key(source)), self._heads(self.value(source))

  def __call__(
    self,
    x,
    source=None,
    *,
    bias=None,
    keys_values=None,
    decode=False,
    enable_dropout=False,
  ):
    config = self.config
    query = self._heads(self.query(x))
    key, value = (
      self.keys_values(x if source is None else source)
      if keys_values is None
      else keys_values
    )
    if decode:
      key, value, bias = self._remember(key, value, bias)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32)
    if bias is not None:
      logits = logits + bias.astype(jnp.float32)
    weights = jax.nn.softmax(logits).astype(config.dtype)
    weights = _dropout(self, weights, enable_dropout)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return self.out(mixed.reshape(*x.shape[:-1], -1))

  @nn.compact
  def _remember(self, key, value, bias):
    """Writes one position into the cache; keys, values and bias of all."""
    filled = self.has_variable("cache", "cached_key")
    keys = self.variable("cache", "cached_key", jnp.zeros_like, key)
    values = self.variable("cache", "cached_value", jnp.zeros_like, value)
    index = self.variable("cache", "cache_index", jnp.zeros, (), jnp.int32)
    if not filled:  # the pass that only lays out the cache
      return key, value, bias
    here = index.value
    keys.value = lax.dynamic_update_slice_in_dim(keys.value, key, here, 1)
    values.value = lax.dynamic_update_slice_in_dim(values.value, value, here, 1)
    index.value = here + 1
    bias = lax.dynamic_slice_in_dim(bias, here, 1, axis=2)
    return keys.value, values.value, bias


class Mlp(nn.Module):
  """The feed-forward part: a product of activated branches, then `wo`."""

  config: T5Config

  @nn.compact
  def __call__(self, x, enable_dropout=False):
    config = self.config
    names = config.mlp_activations
    branches = []
    for i, activation in enumerate(names):
      name = "wi" if len(names) == 1 else f"wi_{i}"
      branch = Dense(config.mlp_dim, ("embed", "mlp"), config.dtype, name=name)(
        x
      )
      if activation != "linear":
        branch = getattr(nn, activation)(branch)
      branches.append(branch)
    hidden = functools.reduce(jnp.multiply, branches)
    hidden = _dropout(self, hidden, enable_dropout)
    return Dense(config.emb_dim, ("mlp", "embed"), config.dtype, name="wo")(
      hidden
    )


def _dropout(module, x, enable, length_axis=-2):
  """Dropout with one pattern along the length axis, as T5 was trained."""
  rate = module.config.dropout_rate
  if not enable or not rate:
    return x
  shape = list(x.shape)
  shape[length_axis] = 1
  keep = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, shape)
  return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def _norm(config, name=None):
  return RMSNorm(config.layer_norm_epsilon, config.dtype, name=name)


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each normed before and added after."""

  config: T5Config

  def setup(self):
    self.pre_attention_layer_norm = _norm(self.config)
    self.attention = Attention(self.config)
    self.pre_mlp_layer_norm = _norm(self.config)
    self.mlp = Mlp(self.config)

  def __call__(self, x, bias, enable_dropout):
    y = self.attention(
      self.pre_attention_layer_norm(x),
      bias=bias,
      enable_dropout=enable_dropout,
    )
    x = x + _dropout(self, y, enable_dropout)
    y = self.mlp(self.pre_mlp_layer_norm(x), enable_dropout)
    return x + _dropout(self, y, enable_dropout)


class DecoderLayer(nn.Module):
  """Causal self-attention, cross-attention and feed-forward."""

  config: T5Config

  def setup(self):
    self.pre_self_attention_layer_norm = _norm(self.config)
    self.self_attention = Attention(self.config)
    self.pre_cross_attention_layer_norm = _norm(self.config)
    self.encoder_decoder_attention = Attention(self.config)
    self.pre_mlp_layer_norm = _norm(self.config)
    self.mlp = Mlp(self.config)

  def __call__(self, x, source, biases, *, keys_values, decode, enable_dropout):
    y = self.self_attention(
      self.pre_self_attention_layer_norm(x),
      bias=biases[0],
      decode=decode,
      enable_dropout=enable_dropout,
    )
    x = x + _dropout(self, y, enable_dropout)
    y = self.encoder_decoder_attention(
      self.pre_cross_attention_layer_norm(x),
      source,
      bias=biases[1],
      keys_values=keys_values,
      enable_dropout=enable_dropout,
    )
    x = x + _dropout(self, y, enable_dropout)
    y = self.mlp(self.pre_mlp_layer_norm(x), enable_dropout)
    return x + _dropout(self, y, enable_dropout)


class Encoder(nn.Module):
  """Embedded inputs [B, T, E] -> encoded [B, T, E]."""

  config: T5Config

  def setup(self):
    config = self.config
    self.relpos_bias = RelativeBias(config, bidirectional=True)
    self.layers = [
      EncoderLayer(config) for _ in range(config.num_encoder_layers)
    ]
    self.encoder_norm = _norm(config)

  def __call__(self, x, mask, enable_dropout):
    length = x.shape[1]
    bias = self.relpos_bias(length, length) + _mask_bias(mask, x.dtype)
    x = _dropout(self, x, enable_dropout)
    for layer in self.layers:
      x = layer(x, bias, enable_dropout)
    return _dropout(self, self.encoder_norm(x), enable_dropout)


class Decoder(nn.Module):
  """Embedded target history [B, L, E] -> decoded [B, L, E]."""

  config: T5Config

  def setup(self):
    config = self.config
    self.relpos_bias = RelativeBias(config, bidirectional=False)
    self.layers = [
      DecoderLayer(config) for _ in range(config.num_decoder_layers)
    ]
    self.decoder_norm = _norm(config)
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
    x = _dropout(self, x, enable_dropout)
    for i, layer in enumerate(self.layers):
      x = layer(
        x,
        encoded,
        biases,
        keys_values=None if keys_values is None else keys_values[i],
        decode=decode,
        enable_dropout=enable_dropout,
      )
    return _dropout(self, self.decoder_norm(x), enable_dropout)


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
    **options,
  ) -> Float[Array, "B L V"]:
    """Teacher-forced logits: `decode(encode(inputs), targets so far)`."""
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
