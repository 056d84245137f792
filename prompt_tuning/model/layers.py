"""The parts of a T5: its configuration, projections, attention, feed-forward.

Parameter names, logical axes and numerics are those of t5x's `examples.t5`. A
parameter is float32 when it is made; whatever dtype it has later, it is cast to
`T5Config.dtype` where it is used.
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

from prompt_tuning.shapes import Array, Bool, Float, Int

ACTIVATIONS = {
  "relu": nn.relu,
  "gelu": nn.gelu,  # with tanh, as T5 has it
  "gelu_exact": functools.partial(nn.gelu, approximate=False),
  "silu": nn.silu,
  "linear": lambda x: x,
}
"""Of the branches of the feed-forward part, by name."""


@dataclasses.dataclass(frozen=True)
class T5Config:
  """The shape of a T5 and the numbers that its weights were trained with.

  `dtype` is the dtype of activations only. `scale_logits` divides the decoder's
  output by sqrt(E) before the logits (T5 1.0); by default it follows
  `logits_via_embedding`. With `relpos_per_layer` each layer has a table of
  relative positions of its own (UMT5), else a stack's layers share one.
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
  relpos_per_layer: bool = False
  layer_norm_epsilon: float = 1e-6
  dropout_rate: float = 0.0
  dtype: str = "float32"

  def __post_init__(self):
    object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
    if self.dtype not in ("float32", "bfloat16"):
      raise ValueError(
        f"Activations cannot be {self.dtype!r} (ACTIVATION_DTYPE); they can be "
        "float32 or bfloat16. Those of a T5 are too large for float16."
      )
    unknown = [a for a in self.mlp_activations if a not in ACTIVATIONS]
    if unknown:
      raise ValueError(
        f"mlp_activations={self.mlp_activations} has {unknown[0]!r}; known are "
        f"{', '.join(ACTIVATIONS)}."
      )
    if self.relpos_max_distance <= self.relpos_buckets // 2:
      raise ValueError(
        f"relpos_max_distance={self.relpos_max_distance} must be more than "
        f"half of relpos_buckets={self.relpos_buckets}."
      )
    if self.scale_logits is None:
      object.__setattr__(self, "scale_logits", self.logits_via_embedding)


MASKED = -1e10  # added to the attention logits of masked positions


def _parameter(name, initializer, shape, axes):
  """A float32 parameter with its logical axes recorded as t5x expects."""
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
  def __call__(
    self, x: Float[Array, "*B inputs"]
  ) -> Float[Array, "*B features"]:
    kernel = _parameter(
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
  def __call__(self, x: Float[Array, "*B E"]) -> Float[Array, "*B E"]:
    scale = _parameter(
      "scale", nn.initializers.ones, (x.shape[-1],), ("embed",)
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


def pair_mask(
  queries: Bool[Array, "B Q"],
  keys: Bool[Array, "B S"],
  segments: tuple[Int[Array, "B Q"], Int[Array, "B S"]] | None = None,
) -> Bool[Array, "B 1 Q S"]:
  """What may look where: at keys that are no padding, in the same segment."""
  mask = jnp.logical_and(queries[:, :, None], keys[:, None, :])
  if segments is not None:
    mask &= segments[0][:, :, None] == segments[1][:, None, :]
  return mask[:, None]


def mask_bias(mask: Bool[Array, "#B 1 Q S"], dtype) -> Float[Array, "#B 1 Q S"]:
  """What is added to attention logits for a mask."""
  return jnp.where(mask, 0, MASKED).astype(dtype)


KeysValues = tuple[Float[Array, "B S H D"], Float[Array, "B S H D"]]
"""The keys and values of one attention."""


class Attention(nn.Module):
  """Multi-head attention without 1/sqrt(D) (it is in the query's scale)."""

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

  def keys_values(self, source: Float[Array, "B S E"]) -> KeysValues:
    """Keys and values of `source`."""
    return self._heads(self.key(source)), self._heads(self.value(source))

  def __call__(
    self,
    x: Float[Array, "B Q E"],
    source: Float[Array, "B S E"] | KeysValues,
    bias: Float[Array, "#B #H Q S"],
  ) -> Float[Array, "B Q E"]:
    """Attends from `x` to a source, or to keys and values of one."""
    query = self._heads(self.query(x))
    key, value = (
      source if isinstance(source, tuple) else self.keys_values(source)
    )
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32)
    logits = logits + bias.astype(jnp.float32)
    weights = jax.nn.softmax(logits).astype(self.config.dtype)
    weights = dropout(self, weights)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return self.out(mixed.reshape(*x.shape[:-1], -1))

  @nn.compact
  def remember(
    self, keys_values: KeysValues, bias: Float[Array, "1 H L L"]
  ) -> tuple[
    tuple[Float[Array, "B L H D"], Float[Array, "B L H D"]],
    Float[Array, "1 H Q L"],
  ]:
    """Writes one position into the `cache`; keys, values and bias of all.

    A first pass, while there is no cache, lays it out from the keys and values
    of all L positions.
    """
    key, value = keys_values
    filled = self.has_variable("cache", "cached_key")
    keys = self.variable("cache", "cached_key", jnp.zeros_like, key)
    values = self.variable("cache", "cached_value", jnp.zeros_like, value)
    index = self.variable("cache", "cache_index", jnp.zeros, (), jnp.int32)
    if not filled:
      return keys_values, bias
    here = index.value
    keys.value = lax.dynamic_update_slice_in_dim(keys.value, key, here, 1)
    values.value = lax.dynamic_update_slice_in_dim(values.value, value, here, 1)
    index.value = here + 1
    bias = lax.dynamic_slice_in_dim(bias, here, 1, axis=2)
    return (keys.value, values.value), bias


class Mlp(nn.Module):
  """The feed-forward part: a product of activated branches, then `wo`."""

  config: T5Config

  @nn.compact
  def __call__(self, x: Float[Array, "B L E"]) -> Float[Array, "B L E"]:
    config = self.config
    names = config.mlp_activations
    branches = []
    for i, activation in enumerate(names):
      name = "wi" if len(names) == 1 else f"wi_{i}"
      branch = Dense(config.mlp_dim, ("embed", "mlp"), config.dtype, name=name)(
        x
      )
      branches.append(ACTIVATIONS[activation](branch))
    hidden = functools.reduce(jnp.multiply, branches)
    hidden = dropout(self, hidden)
    return Dense(config.emb_dim, ("mlp", "embed"), config.dtype, name="wo")(
      hidden
    )


def dropout(
  module: nn.Module, x: Float[Array, "*B L E"]
) -> Float[Array, "*B L E"]:
  """Dropout with one pattern along the length (L), as T5 was trained.

  It is on where the caller of `apply` gives a key for it.
  """
  rate = module.config.dropout_rate  # pyright: ignore[reportAttributeAccessIssue]
  if not rate or not module.has_rng("dropout"):
    return x
  shape = (*x.shape[:-2], 1, x.shape[-1])
  keep = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, shape)
  return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def norm(config: T5Config, name: str | None = None) -> RMSNorm:
  """The norm of this network."""
  return RMSNorm(config.layer_norm_epsilon, config.dtype, name=name)
