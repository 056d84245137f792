"""Slots: what each decoding row keeps on the device, and how it goes on.

    tokens [B, T] -> `encode` -> slots [R] -> `step` -> logits [B, V] of a place

A slot has the keys and values of its input in every layer, and those of what
is written so far. A row's place is its own: rows that began at different times
take their next place in one step. What is kept is the network's own cache, of
all slots at once: a step writes one place of each row into it, and copies none.

What the row's prompt has for the decoder is kept with it (see `inside`): rows
in front of the answer are the first of the cache, vectors are one more leaf, a
bank of as many prompts as there are slots.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning import storage
from prompt_tuning.model import forms, kept, t5
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
    keys_values: of every layer's cross-attention, leaves [R, …, H, D, S].
    cache: keys and values of what is written, by path, leaves likewise; those
      of stacked layers have the axis of the layers in front.
    vectors: of the row's prompt for the decoder, by name, [R, layers, _].
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
    self._is_stacked = forms.is_stacked(params)
    shapes = {
      name: shape
      for name, shape in tensors.vector_shapes(config).items()
      if name.startswith("decoder") and sizes.vectors
    }
    count = sizes.rows
    of_slots = tensors.Bank(0, config.emb_dim, count, tuple(shapes.items()))
    self._network = t5.T5(config, prompt=of_slots if shapes else None)
    vectors = {
      name: jax.ShapeDtypeStruct((count, *shape), jnp.float32)
      for name, shape in shapes.items()
    }
    tokens = jax.ShapeDtypeStruct((count, sizes.widths[-1]), jnp.int32)
    ids = jax.ShapeDtypeStruct((count, self._span), jnp.int32)

    def all_of(params, vectors, tokens, ids):
      params = {**params, prompt.NAME: vectors}
      source = _read(self._network, params, tokens)
      return source, self._write(self._network, params, source, ids)[1]

    source, cache = jax.eval_shape(all_of, params, vectors, tokens, ids)
    flat = storage.flatten(cache)
    self._indices = {k: x.shape for k, x in flat.items() if k.endswith(_INDEX)}
    keys_values = {k: x for k, x in flat.items() if k not in self._indices}
    self.slots = Slots(source.real, source.keys_values, keys_values, vectors)

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

  def _cache(self, found: dict[str, Any], place: Int[Array, "*B"]) -> PyTree:
    """The cache of rows of which `place` places are written."""
    indices = {
      k: jnp.broadcast_to(place, (*shape, *place.shape))
      for k, shape in self._indices.items()
    }
    return storage.unflatten({**found, **indices})

  def _kept(self, cache: PyTree) -> dict[str, Any]:
    """What slots keep of a cache."""
    flat = storage.flatten(cache)
    return {k: flat[k] for k in self.slots.cache}

  def _at(self, rows: Any) -> tuple:
    """Where some rows are in the leaves of a cache."""
    return (slice(None), rows) if self._is_stacked else (rows,)

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

    def put(all_of, new):
      filled = (*((0, 0),) * (new.ndim - 1), (0, behind))
      return all_of.at[places].set(jnp.pad(new, filled))

    # Nothing is left of whoever was there: what is masked and not finite would
    # be no number with the mask either.
    at = self._at(places)
    begun = self._begun(prompted, params, source) if self._before else {}
    cache = {k: x.at[at].set(begun.get(k, 0)) for k, x in slots.cache.items()}
    vectors = {}
    if slots.vectors:
      assert source.prompt_id is not None
      which, own = source.prompt_id[:, 0], params[prompt.NAME]
      vectors = {
        name: all_of.at[places].set(own[name][which])
        for name, all_of in slots.vectors.items()
      }
    return Slots(
      put(slots.real, source.real),
      jax.tree.map(put, slots.keys_values, source.keys_values),
      cache,
      vectors,
    )

  def _begun(self, network, params, source: t5.Source) -> dict[str, Any]:
    """The caches of rows whose prompts' rows in front of the answer are read.

    The source's places are filled: every prompt of the bank has as many rows.
    """
    first = self._at(slice(0, len(source.real)))
    nothing = jax.tree.map(
      lambda x: jnp.zeros_like(x[first]), self.empty().cache
    )
    _, cache = self._write(
      *(network, params, source, source.before),
      self._cache(nothing, jnp.int32(0)),
    )
    return self._kept(cache)

  def copy(
    self, slots: Slots, origin: Int[Array, "B"], to: Int[Array, "B"]
  ) -> Slots:
    """Slots with some of them at other places as well."""
    from_, at = self._at(origin), self._at(to)
    cache = {k: x.at[at].set(x[from_]) for k, x in slots.cache.items()}
    others = slots._replace(cache={})
    others = jax.tree.map(lambda x: x.at[to].set(x[origin]), others)
    return others._replace(cache=cache)

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
    source = t5.Source(
      # Where there are keys and values, `encoded` is not looked at.
      encoded=jnp.zeros((count, width, 1)),
      real=slots.real[:count, :width],
      keys_values=jax.tree.map(
        lambda one: kept.first_of(one, count, width),
        slots.keys_values,
        is_leaf=lambda x: isinstance(x, kept.Kept),
      ),
      prompt_id=jnp.arange(count)[:, None] if slots.vectors else None,
    )
    logits, cache = self._write(
      *(self._network, {**params, prompt.NAME: slots.vectors}, source),
      *(last[:, None], self._cache(slots.cache, place)),
    )
    logits = logits[:, 0]
    picked = picking.likeliest(logits, given)
    return slots._replace(cache=self._kept(cache)), logits, picked


def _read(
  network: t5.T5, params: PyTree, tokens: Int[Array, "B T"]
) -> t5.Source:
  variables: Any = {"params": params}
  source = network.apply(variables, tokens, method="read")
  return network.apply(variables, source, method="remembered")  # pyright: ignore
