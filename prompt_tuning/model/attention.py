"""Attention of a T5: relative positions, masks, keys and values.

queries [B, Q, E], source [B, S, E], bias [B, H, Q, S] -> mixed [B, Q, E]
"""

import functools
from typing import Any, Literal, NamedTuple

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model import forms
from prompt_tuning.model.layers import (
  NO_VECTORS,
  Dense,
  T5Config,
  Vectors,
  dropout,
  parameter,
  scaled,
)
from prompt_tuning.shapes import Array, Bool, Float, Int

MASKED = -1e10  # added to the attention logits of masked positions
_INDEX = "cache_index"  # the next position of a cache


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
    table = parameter(
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


class Kept(NamedTuple):
  """Keys and values for cached decoding, in the order in which it reads them.

  A place that is written alone reads all S of each head and each of its
  dimensions, which otherwise would be turned for it again and again.
  """

  key: Float[Array, "B H D S"]
  value: Float[Array, "B H D S"]


def kept(keys_values: KeysValues) -> Kept:
  """The same keys and values, to be kept."""
  return Kept(*(jnp.moveaxis(x, -3, -1) for x in keys_values))


_COPY = 4  # what it costs to copy a place, in places that are read


def first_of(found: Kept, rows: int, places: int) -> Kept:
  """The first examples and places of what is kept; more where that costs less.

  A product of few reads a copy of them, a product of many (`product`) reads
  all and drops what it was not asked for.
  """
  every = found.key.shape[0] * found.key.shape[-1]
  if not copies_some(rows * places, every):
    return found
  return Kept(*(x[:rows, ..., :places] for x in found))


def copies_some(some: int, every: int) -> bool:
  """Whether some places are so few of all that they are copied to be read."""
  return _COPY * some < every


def product(
  equation: str, x: Float[Array, "B *shape"], found: Float[Array, "R *more"]
) -> Float[Array, "B *product"]:
  """`einsum` of examples and those that come first in what was kept."""
  rows = len(x)
  behind = ((0, len(found) - rows), *((0, 0),) * (x.ndim - 1))
  return jnp.einsum(equation, jnp.pad(x, behind), found)[:rows]


def axes(keys_values: KeysValues | Kept) -> str:
  """The axes of either as `einsum` names them."""
  return "bhds" if isinstance(keys_values, Kept) else "bshd"


OfLayers = list[Kept] | Kept
"""Those of every layer; of stacked layers (see `forms`) in one array, with an
axis for the layers behind that of the examples."""


def keys_values_of(
  layers: Any, encoded: Float[Array, "B T _"], count: int
) -> OfLayers:
  """Cross-attention keys and values of all `count` layers of a decoder."""
  return forms.of_each(
    layers,
    lambda layer: kept(layer.encoder_decoder_attention.keys_values(encoded)),
    count=count,
  )


def fused(
  query: Float[Array, "B Q H D"],
  key: Float[Array, "B S H D"],
  value: Float[Array, "B S H D"],
  bias: Float[Array, "#B #H Q S"],
  implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B Q H D"] | None:
  """Attention by `jax.nn.dot_product_attention`; None where it cannot."""
  try:
    return jax.nn.dot_product_attention(
      query,
      key,
      value,
      bias.astype(query.dtype),
      scale=1.0,  # it is in the query's kernel
      implementation=implementation,
    )
  except (NotImplementedError, RuntimeError, ValueError):
    return None  # an older cuDNN, heads that are too wide


class Source(NamedTuple):
  """What the decoder attends to.

  Attributes:
    encoded: the encoder's output.
    real: which places are no padding.
    segments: which example each place belongs to, in packed rows.
    keys_values: of every layer's cross-attention, for cached decoding.
    prompt_id: the prompt of each example or place, where the mark says it.
    before: what stands in front of every decoder input (see `inside`).
  """

  encoded: Float[Array, "B T E"]
  real: Bool[Array, "B T"]
  segments: Int[Array, "B T"] | None = None
  keys_values: OfLayers | None = None
  prompt_id: Int[Array, "B _"] | None = None
  before: Int[Array, "B Q"] | None = None


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
    source: Float[Array, "B S E"] | KeysValues | Kept,
    bias: Float[Array, "#B #H Q S"],
    vectors: Vectors = NO_VECTORS,
  ) -> Float[Array, "B Q E"]:
    """Attends from `x` to a source, or to keys and values of one.

    Whatever a position attends to is of its own example, so the vector that
    multiplies its keys may multiply the query, and that of values their mean.
    """
    query = self._heads(scaled(self.query(x), vectors, "keys"))
    if not isinstance(source, tuple) and self._absorbs(x.shape, source.shape):
      mixed = self._absorbed(query, source, bias)
    else:
      found = source if isinstance(source, tuple) else self.keys_values(source)
      (key, value), order = found, axes(found)
      mixed = None
      if not isinstance(found, Kept) and self._fuses(x.shape):
        mixed = fused(query, key, value, bias)
      if mixed is None:
        logits = product(f"bqhd,{order}->bhqs", query, key)
        weights = self._weights(logits, bias)
        mixed = product(f"bhqs,{order}->bqhd", weights, value)
    mixed = mixed.reshape(*x.shape[:-1], -1)
    return self.out(scaled(mixed, vectors, "values"))

  def _weights(
    self, logits: Float[Array, "B H Q S"], bias: Float[Array, "#B #H Q S"]
  ) -> Float[Array, "B H Q S"]:
    """How much each position attends to each."""
    logits = logits.astype(jnp.float32) + bias.astype(jnp.float32)
    weights = jax.nn.softmax(logits).astype(self.config.dtype)
    return dropout(self, weights)

  def _fuses(self, x: tuple[int, ...]) -> bool:
    """Whether a GPU has one kernel for all of it, which stores no weights."""
    config = self.config
    return (
      jax.default_backend() == "gpu"
      and config.dtype == "bfloat16"
      and x[-2] > 1  # a single place has no weights to speak of
      and not (config.dropout_rate and self.has_rng("dropout"))
    )

  def _absorbs(self, x: tuple[int, ...], source: tuple[int, ...]) -> bool:
    """Whether few positions attend to many, so that `_absorbed` costs less."""
    (*_, queries, _), (*_, keys, width) = x, source
    heads, joined = self.config.num_heads, self.query.features
    absorbed = queries * width * (keys * heads + joined)
    return absorbed < keys * joined * (queries + width)

  def _absorbed(
    self,
    query: Float[Array, "B Q H D"],
    source: Float[Array, "B S E"],
    bias: Float[Array, "#B #H Q S"],
  ) -> Float[Array, "B Q H D"]:
    """The same by the laws of matrices, without keys and values of a source.

    Query times key is (query times the key's matrix) times source; the weighted
    mean of values is that of the source, times the value's matrix.
    """
    source = source.astype(self.config.dtype)
    width = source.shape[-1]
    key, value = (
      self._heads(dense.matrix(width)) for dense in (self.key, self.value)
    )
    towards = jnp.einsum("bqhd,ehd->bqhe", query, key)
    logits = jnp.einsum("bqhe,bse->bhqs", towards, source)
    mixed = jnp.einsum("bhqs,bse->bqhe", self._weights(logits, bias), source)
    return jnp.einsum("bqhe,ehd->bqhd", mixed, value)

  @nn.compact
  def remember(
    self, keys_values: KeysValues, bias: Float[Array, "#B #H L L"]
  ) -> tuple[Kept, Float[Array, "#B #H Q L"]]:
    """`remember` for this attention."""
    return remember(self, keys_values, bias)


def remember(
  module: nn.Module, keys_values: KeysValues, bias: Float[Array, "#B #H L L"]
) -> tuple[Kept, Float[Array, "#B #H Q L"]]:
  """Writes positions into a module's `cache`; keys, values and bias of all.

  A first pass, while there is no cache, lays it out from the keys and values
  of all L positions. Where the index of the next position is one for each
  example, they are at different ones, and the cache may be that of more than
  these B.
  """
  new = kept(keys_values)
  filled = module.has_variable("cache", "cached_key")
  keys = module.variable("cache", "cached_key", jnp.zeros_like, new.key)
  values = module.variable("cache", "cached_value", jnp.zeros_like, new.value)
  index = module.variable("cache", _INDEX, jnp.zeros, (), jnp.int32)
  if not filled:
    return new, bias
  here, (batch, *_, count) = index.value, new.key.shape
  keys.value = _put(keys.value, new.key, here)
  values.value = _put(values.value, new.value, here)
  index.value = here + count
  bias = _seen_from(bias, here, count)
  every = Kept(keys.value, values.value)
  return first_of(every, batch, every.key.shape[-1]), bias


def _put(
  kept: jax.Array, new: Float[Array, "B H D Q"], here: Int[Array, "*B"]
) -> jax.Array:
  """What is kept, [R, H, D, L], with new positions of its first B examples.

  They are put at one place, or each at its own.
  """
  if not here.ndim:
    return lax.dynamic_update_slice_in_dim(kept, new, here, -1)
  return kept.at[np.arange(len(here)), ..., here].set(new[..., 0])


def _seen_from(
  bias: Float[Array, "#B #H L L"], here: Int[Array, "*B"], count: int
) -> Float[Array, "#B #H Q L"]:
  """The bias of the positions that `_put` puts."""
  if not here.ndim:
    return lax.dynamic_slice_in_dim(bias, here, count, axis=2)
  rows = np.minimum(np.arange(len(here)), len(bias) - 1)
  return bias[rows, :, here][:, :, None]


def written(module: nn.Module) -> Int[Array, "#B"]:
  """How many positions a module's `cache` holds, of all or of each example."""
  return module.get_variable("cache", _INDEX, jnp.int32(0)).reshape(-1)
