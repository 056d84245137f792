"""Attention of a T5Gemma: heads in groups, turned by their places.

    queries [B, Q, H, G, D], keys [B, S, H, D] -> scores [B, H, G, Q, S], capped
                                               -> mixed [B, Q, E]

H keys and values serve G heads each.
"""

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model import kept, layers
from prompt_tuning.model.kept import Kept, KeysValues
from prompt_tuning.model.layers import NO_VECTORS, Dense, Vectors
from prompt_tuning.model.t5gemma.config import Part
from prompt_tuning.shapes import Array, Float, Int


def rotated(
  x: Float[Array, "B L H D"], first: Int[Array, "#B"], base: float
) -> Float[Array, "B L H D"]:
  """Heads turned by the places that they stand at, `first` and those behind.

  Number i of the first half of a head and number i of the second are a point,
  which turns by base^(-2i / D) from place to place (Su et al. 2021).
  """
  half = x.shape[-1] // 2
  speed = base ** (-np.arange(half, dtype=np.float32) / half)
  place = (first[:, None] + jnp.arange(x.shape[1])).astype(jnp.float32)
  angle = (place[..., None] * speed)[:, :, None, :]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  one, two = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = [one * cos - two * sin, two * cos + one * sin]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def capped(x: Float[Array, "*B S"], cap: float | None) -> Float[Array, "*B S"]:
  """Numbers that approach ±cap where they are large."""
  return x if cap is None else cap * jnp.tanh(x / cap)


class GroupedAttention(nn.Module):
  """Attention of groups of heads to the keys and values of each group."""

  config: Part

  def setup(self):
    config = self.config

    def towards(heads):
      width = heads * config.head_dim
      return Dense(width, ("embed", "joined_kv"), config.dtype)

    self.query = towards(config.num_heads)
    self.key = towards(config.num_kv_heads)
    self.value = towards(config.num_kv_heads)
    self.out = Dense(config.emb_dim, ("joined_kv", "embed"), config.dtype)

  def keys_values(
    self, source: Float[Array, "B S _"], vectors: Vectors = NO_VECTORS
  ) -> KeysValues:
    """Keys and values of `source`."""
    shape = (*source.shape[:-1], self.config.num_kv_heads, self.config.head_dim)
    key = layers.scaled(self.key(source), vectors, "keys")
    return key.reshape(shape), self.value(source).reshape(shape)

  def placed(
    self, source: Float[Array, "B S _"], vectors: Vectors
  ) -> KeysValues:
    """The same of places that the queries stand at too, turned by them.

    The vector of keys multiplies them before they turn.
    """
    key, value = self.keys_values(source, vectors)
    return self._turned(key), value

  def _turned(self, x: Float[Array, "B L _ D"]) -> Float[Array, "B L _ D"]:
    return rotated(x, kept.written(self), self.config.rope_base)

  @nn.compact
  def remember(
    self, keys_values: KeysValues, bias: Float[Array, "#B 1 L L"]
  ) -> tuple[Kept, Float[Array, "#B 1 Q L"]]:
    """`kept.remember` for this attention."""
    return kept.remember(self, keys_values, bias)

  def queries(
    self, x: Float[Array, "B Q E"], *, turned: bool = False
  ) -> Float[Array, "B Q H G D"]:
    """Queries of x, turned by the places that it stands at, or not."""
    config = self.config
    query = self.query(x)
    query = query.reshape(*x.shape[:-1], config.num_heads, config.head_dim)
    query = self._turned(query) if turned else query
    query = query * np.float32(config.query_scale**-0.5).astype(query.dtype)
    groups = (config.num_kv_heads, -1, config.head_dim)
    return query.reshape(*x.shape[:-1], *groups)

  def __call__(
    self,
    query: Float[Array, "B Q H G D"],
    keys_values: KeysValues | Kept,
    bias: Float[Array, "#B 1 Q S"],
    vectors: Vectors = NO_VECTORS,
  ) -> Float[Array, "B Q E"]:
    """What the queries read.

    As whatever a position attends to is of its own example, the vector that
    multiplies values may multiply their mean, and that of keys the query.
    """
    config, (key, value) = self.config, keys_values
    order = kept.axes(keys_values)
    scores = kept.product(
      f"bqhgd,{order}->bhgqs", self._times(query, vectors, "keys"), key
    )
    scores = capped(scores, config.attention_cap).astype(jnp.float32)
    scores = scores + bias[:, :, None].astype(jnp.float32)
    weights = nn.softmax(scores).astype(config.dtype)
    mixed = kept.product(f"bhgqs,{order}->bqhgd", weights, value)
    mixed = self._times(mixed, vectors, "values")
    return self.out(mixed.reshape(*mixed.shape[:2], -1))

  def _times(
    self, x: Float[Array, "B Q H G D"], vectors: Vectors, name: str
  ) -> Float[Array, "B Q H G D"]:
    """Each group times its part of the vector of a name, if there is one."""
    if name not in vectors:
      return x
    vector = vectors[name].astype(x.dtype)
    return x * vector.reshape(*vector.shape[:2], x.shape[2], 1, x.shape[-1])
