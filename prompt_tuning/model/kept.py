"""Keys and values that are kept for cached decoding, and how it reads them.

    keys, values [B, S, H, D] -> Kept [B, H, D, S] -> `product` with B queries

More examples may be kept than are asked for: a server keeps those of all its
rows (see `serving.slots`).
"""

from typing import NamedTuple

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.shapes import Array, Float, Int

_COPY = 4  # what it costs to copy a place, in places that are read
_INDEX = "cache_index"  # the next position of a cache

KeysValues = tuple[Float[Array, "B S H D"], Float[Array, "B S H D"]]
"""The keys and values of one attention."""


class Kept(NamedTuple):
  """Keys and values for cached decoding, in the order in which it reads them.

  A place that is written alone reads all S of each head and each of its
  dimensions, which otherwise would be turned for it again and again.
  """

  key: Float[Array, "B H D S"]
  value: Float[Array, "B H D S"]


def of(keys_values: KeysValues) -> Kept:
  """The same keys and values, to be kept."""
  return Kept(*(jnp.moveaxis(x, -3, -1) for x in keys_values))


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


def remember(
  module: nn.Module, keys_values: KeysValues, bias: Float[Array, "#B #H L L"]
) -> tuple[Kept, Float[Array, "#B #H Q L"]]:
  """Writes positions into a module's `cache`; keys, values and bias of all.

  A first pass, while there is no cache, lays it out from the keys and values
  of all L positions. Where the index of the next position is one for each
  example, they are at different ones, and the cache may be that of more than
  these B.
  """
  new = of(keys_values)
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
