"""Slots: what each decoding row keeps on the device, and how it goes on.

    tokens [B, T] -> `encode` -> slots [R] -> `step` -> logits [B, V] of a place

A slot has the keys and values of its input in every layer, and those of what
is written so far. A row's place is its own: rows that began at different times
take their next place in one step. That is the network's cached decoding of one
row, mapped over the slots.
"""

from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from prompt_tuning import storage
from prompt_tuning.model import forms, t5
from prompt_tuning.serving.sizes import Sizes
from prompt_tuning.shapes import Array, Float, Int, PyTree

_INDEX = "cache_index"


class Slots(NamedTuple):
  """What R rows keep.

  Attributes:
    real: [R, S], which of the S places of an input are no padding.
    keys_values: of every layer's cross-attention, leaves [R, …].
    cache: keys and values of what is written, by path, leaves [R, …].
  """

  real: PyTree
  keys_values: PyTree
  cache: dict[str, Any]


class Rows:
  """The functions of a network over its slots; see `programs` for calling them.

  Args:
    network: a T5 without prompt, which writes.
    params: its parameters.
    sizes: of the slots.

  Attributes:
    slots: their shapes.
  """

  def __init__(self, network: t5.T5, params: PyTree, sizes: Sizes):
    self._network, self._targets = network, sizes.targets
    # Where the places of an input are in a leaf of `keys_values`.
    self._axis = forms.AXIS + 1 if forms.is_stacked(params) else 1
    tokens = jax.ShapeDtypeStruct((1, sizes.widths[-1]), jnp.int32)
    ids = jax.ShapeDtypeStruct((1, sizes.targets), jnp.int32)

    def one(params, tokens, ids):
      source = _read(network, params, tokens)
      return source, self._write({"params": params}, source, ids)[1]

    source, cache = jax.eval_shape(one, params, tokens, ids)
    flat = storage.flatten(cache)
    self._indices = {k: x.shape for k, x in flat.items() if k.endswith(_INDEX)}

    def of_all(leaf, shape):
      return jax.ShapeDtypeStruct((sizes.rows, *shape), leaf.dtype)

    self.slots = Slots(
      of_all(source.real, source.real.shape[1:]),
      jax.tree.map(lambda x: of_all(x, x.shape[1:]), source.keys_values),
      {
        k: of_all(x, x.shape) for k, x in flat.items() if k not in self._indices
      },
    )

  def _write(self, variables, source, ids):
    return self._network.apply(
      variables,
      source,
      ids,
      cache_length=self._targets,
      mutable=["cache"],
      method="write",
    )

  def empty(self) -> Slots:
    """Slots that hold nothing."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.slots)

  def encode(
    self,
    prompted: t5.T5,
    slots: Slots,
    params: PyTree,
    tokens: Int[Array, "B T"],
    places: Int[Array, "B"],
  ) -> Slots:
    """Slots with inputs in them.

    Args:
      prompted: the network with prompts.
      slots: all of them.
      params: of `prompted`.
      tokens: the inputs, their prompts' places among them.
      places: which slot each is put into; equal tokens may share one.
    """
    source = _read(prompted, params, tokens)
    behind = slots.real.shape[1] - tokens.shape[1]
    real = jnp.pad(source.real, ((0, 0), (0, behind)))
    before = (slice(None),) * (self._axis - 1)
    inside = (places, *before, slice(0, tokens.shape[1]))
    return slots._replace(
      real=slots.real.at[places].set(real),
      keys_values=jax.tree.map(
        lambda all_of, new: all_of.at[inside].set(new),
        *(slots.keys_values, source.keys_values),
      ),
    )

  @staticmethod
  def copy(slots: Slots, origin: Int[Array, "B"], to: Int[Array, "B"]) -> Slots:
    """Slots with some of them at other places as well."""
    return jax.tree.map(lambda x: x.at[to].set(x[origin]), slots)

  def step(
    self,
    width: int,
    slots: Slots,
    params: PyTree,
    last: Int[Array, "B"],
    place: Int[Array, "B"],
  ) -> tuple[Slots, Float[Array, "B V"]]:
    """The first B slots one place further, and the logits of that place.

    Args:
      width: places of the inputs that are looked at.
      slots: all of them.
      params: of the network.
      last: the token that each row wrote last; PAD at its first place.
      place: how many tokens each row has written.
    """
    count = len(last)

    def of_row(real, keys_values, cache, last, place):
      real, keys_values = jax.tree.map(lambda x: x[None], (real, keys_values))
      here = {k: jnp.full(shape, place) for k, shape in self._indices.items()}
      cache = storage.unflatten({**cache, **here})
      # Where there are keys and values, `encoded` is not looked at.
      source = t5.Source(jnp.zeros((1, width, 1)), real, None, keys_values)
      variables = {"params": params, **cache}
      logits, after = self._write(variables, source, last[None, None])
      after = storage.flatten(after)
      return logits[0, 0], {k: after[k] for k in slots.cache}

    def looked_at(leaf):
      return lax.slice_in_dim(leaf[:count], 0, width, axis=self._axis)

    logits, after = jax.vmap(of_row)(
      slots.real[:count, :width],
      jax.tree.map(looked_at, slots.keys_values),
      {k: leaf[:count] for k, leaf in slots.cache.items()},
      last,
      place,
    )
    cache = {
      k: leaf.at[:count].set(after[k]) for k, leaf in slots.cache.items()
    }
    return slots._replace(cache=cache), logits


def _read(
  network: t5.T5, params: PyTree, tokens: Int[Array, "B T"]
) -> t5.Source:
  variables: Any = {"params": params}
  source = network.apply(variables, tokens, method="read")
  return network.apply(variables, source, method="remembered")  # pyright: ignore
