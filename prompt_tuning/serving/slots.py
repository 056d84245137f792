"""Slots: what each decoding row keeps on the device, and how it goes on.

    tokens [B, T] -> `encode` -> slots [R] -> `step` -> logits [B, V] of a place

A slot has the keys and values of its input in every layer, and those of what
is written so far. A row's place is its own: rows that began at different times
take their next place in one step. That is the network's cached decoding of one
row, mapped over the slots.

What the row's prompt has for the decoder is kept with it (see `inside`): rows
in front of the answer are the first of the cache, vectors are one more leaf. So
a row decodes as with a bank of its own prompt alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning import storage
from prompt_tuning.model import t5
from prompt_tuning.prompts import prompt
from prompt_tuning.prompts.inner import tensors
from prompt_tuning.serving import picking
from prompt_tuning.serving.sizes import Sizes
from prompt_tuning.shapes import Array, Float, Int, PyTree

_INDEX = "cache_index"


class Slots(NamedTuple):
  """What R rows keep.

  Attributes:
    real: [R, S], which of the S places of an input are no padding.
    keys_values: of every layer's cross-attention, leaves [R, …, H, D, S]: the
      order in which a step reads them, which would turn all of them otherwise.
    cache: keys and values of what is written, by path, leaves likewise.
    vectors: of the row's prompt for the decoder, by name, [R, 1, layers, _].
  """

  real: PyTree
  keys_values: PyTree
  cache: dict[str, Any]
  vectors: dict[str, Any]


class Rows:
  """The functions of a network over its slots; see `programs` for calling them.

  Args:
    config: the network's shape.
    params: its parameters.
    sizes: of the slots.

  Attributes:
    slots: their shapes.
  """

  def __init__(self, config: t5.Config, params: PyTree, sizes: Sizes):
    self._before, self._span = sizes.before, sizes.before + sizes.targets
    shapes = {
      name: shape
      for name, shape in tensors.vector_shapes(config).items()
      if name.startswith("decoder") and sizes.vectors
    }
    alone = tensors.Bank(0, config.emb_dim, 1, tuple(shapes.items()))
    self._network = t5.T5(config, prompt=alone if shapes else None)
    vectors = {
      name: jax.ShapeDtypeStruct((1, *shape), jnp.float32)
      for name, shape in shapes.items()
    }
    tokens = jax.ShapeDtypeStruct((1, sizes.widths[-1]), jnp.int32)
    ids = jax.ShapeDtypeStruct((1, self._span), jnp.int32)

    def one(params, vectors, tokens, ids):
      params = {**params, prompt.NAME: vectors}
      source = _read(self._network, params, tokens)
      return source, self._write(self._network, params, source, ids)[1]

    source, cache = jax.eval_shape(one, params, vectors, tokens, ids)
    flat = storage.flatten(cache)
    self._indices = {k: x.shape for k, x in flat.items() if k.endswith(_INDEX)}

    def of_all(leaf, shape):
      return jax.ShapeDtypeStruct((sizes.rows, *shape), leaf.dtype)

    self.slots = Slots(
      of_all(source.real, source.real.shape[1:]),
      jax.tree.map(
        lambda x: of_all(x, (*x.shape[1:-3], *x.shape[-2:], x.shape[-3])),
        source.keys_values,
      ),
      {
        k: of_all(x, (*x.shape[:-3], *x.shape[-2:], x.shape[-3]))
        for k, x in flat.items()
        if k not in self._indices
      },
      {k: of_all(x, x.shape) for k, x in vectors.items()},
    )

  def _write(self, network, params, source, ids, cache=None):
    """Logits of the places of `ids`, and the cache with them."""
    return network.apply(
      {"params": params, **(cache or {})},
      source,
      ids,
      cache_length=self._span,
      mutable=["cache"],
      method="write",
    )

  def _cache(self, kept: dict[str, Any], place) -> PyTree:
    """The cache of one row of which `place` places are written."""
    here = {k: jnp.full(shape, place) for k, shape in self._indices.items()}
    turned = {k: jnp.moveaxis(x, -1, -3) for k, x in kept.items()}
    return storage.unflatten({**turned, **here})

  def _kept(self, cache: PyTree) -> dict[str, Any]:
    """What a slot keeps of a row's cache."""
    flat = storage.flatten(cache)
    return {k: jnp.moveaxis(flat[k], -3, -1) for k in self.slots.cache}

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
    inside = (places, ..., slice(0, tokens.shape[1]))
    if self._before:
      cache = self._begun(prompted, params, source)
      put = {k: x.at[places].set(cache[k]) for k, x in slots.cache.items()}
      slots = slots._replace(cache=put)
    vectors = {}
    if slots.vectors:
      assert source.prompt_id is not None
      which, own = source.prompt_id[:, 0], params[prompt.NAME]
      vectors = {
        name: all_of.at[places, 0].set(own[name][which])
        for name, all_of in slots.vectors.items()
      }
    return slots._replace(
      vectors=vectors,
      real=slots.real.at[places].set(real),
      keys_values=jax.tree.map(
        lambda all_of, new: all_of.at[inside].set(jnp.moveaxis(new, -3, -1)),
        *(slots.keys_values, source.keys_values),
      ),
    )

  def _begun(self, network, params, source: t5.Source) -> dict[str, Any]:
    """The caches of rows whose prompts' rows in front of the answer are read.

    The source's places are filled: every prompt of the bank has as many rows.
    """

    def of_row(real, keys_values, prompt_id, before):
      parts = jax.tree.map(
        lambda x: x[None], (real, None, keys_values, prompt_id, before)
      )
      nothing = {
        k: jnp.zeros(x.shape[1:], x.dtype) for k, x in self.slots.cache.items()
      }
      after = self._write(
        *(network, params, t5.Source(jnp.zeros((1, len(real), 1)), *parts)),
        *(before[None], self._cache(nothing, 0)),
      )[1]
      return self._kept(after)

    return jax.vmap(of_row)(
      source.real, source.keys_values, source.prompt_id, source.before
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
    given: Int[Array, "B"],
  ) -> tuple[Slots, Float[Array, "B V"], picking.Picked]:
    """The first B slots one place further.

    Args:
      width: places of the inputs that are looked at.
      slots: all of them.
      params: of the network.
      last: the token that each row wrote last; PAD at its first place.
      place: how many places of its cache each row has written.
      given: see `picking.likeliest`.

    Returns:
      The slots, the logits of that place, and its likeliest tokens.
    """
    count = len(last)

    def of_row(real, keys_values, cache, vectors, last, place):
      real, keys_values = jax.tree.map(lambda x: x[None], (real, keys_values))
      # Where there are keys and values, `encoded` is not looked at.
      source = t5.Source(jnp.zeros((1, width, 1)), real, None, keys_values)
      logits, after = self._write(
        *(self._network, {**params, prompt.NAME: vectors}, source),
        *(last[None, None], self._cache(cache, place)),
      )
      return logits[0, 0], self._kept(after)

    def looked_at(leaf):
      return jnp.moveaxis(leaf[:count, ..., :width], -1, -3)

    logits, after = jax.vmap(of_row)(
      slots.real[:count, :width],
      jax.tree.map(looked_at, slots.keys_values),
      {k: leaf[:count] for k, leaf in slots.cache.items()},
      {k: leaf[:count] for k, leaf in slots.vectors.items()},
      last,
      place,
    )
    cache = {
      k: leaf.at[:count].set(after[k]) for k, leaf in slots.cache.items()
    }
    picked = picking.likeliest(logits, given)
    return slots._replace(cache=cache), logits, picked


def _read(
  network: t5.T5, params: PyTree, tokens: Int[Array, "B T"]
) -> t5.Source:
  variables: Any = {"params": params}
  source = network.apply(variables, tokens, method="read")
  return network.apply(variables, source, method="remembered")  # pyright: ignore
