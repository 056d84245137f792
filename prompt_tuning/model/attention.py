"""Attention of a T5: relative positions, masks, keys and values.

queries [B, Q, E], source [B, S, E], bias [B, H, Q, S] -> mixed [B, Q, E]
"""

import functools
from typing import Any, Literal, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model import forms, kept
from prompt_tuning.model.kept import Kept, KeysValues
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


def keys_values_of(
  layers: Any, encoded: Float[Array, "B T _"], count: int
) -> kept.OfLayers:
  """Cross-attention keys and values of all `count` layers of a decoder."""
  return forms.of_each(
    layers,
    lambda layer: kept.of(layer.encoder_decoder_attention.keys_values(encoded)),
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
  keys_values: kept.OfLayers | None = None
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
      (key, value), order = found, kept.axes(found)
      mixed = None
      if not isinstance(found, Kept) and self._fuses(x.shape):
        mixed = fused(query, key, value, bias)
      if mixed is None:
        logits = kept.product(f"bqhd,{order}->bhqs", query, key)
        weights = self._weights(logits, bias)
        mixed = kept.product(f"bhqs,{order}->bqhd", weights, value)
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
    """`kept.remember` for this attention."""
    return kept.remember(self, keys_values, bias)
