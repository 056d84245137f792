"""Cached decoding: the source is read once, then one place at a time.

    encode once -> keys and values of every layer once -> logits of one place

The searches (`decode`, `beams`) say which token stands at each place.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from prompt_tuning.model import forms
from prompt_tuning.shapes import Array, Int, PyTree


class Steps:
  """Cached decoding of a batch: `logits` of the next place, `cache` updated."""

  def __init__(self, network, params, tokens, max_length):
    self.network, self.max_length = network, max_length
    self.variables = {"params": params}
    source = network.apply(self.variables, tokens, method="read")
    self.source = network.apply(self.variables, source, method="remembered")
    self.batch = tokens.shape[0]
    before = self.source.before
    self._span = max_length + (0 if before is None else before.shape[1])
    self._is_stacked = forms.is_stacked(params)

  def repeated(self, copies: int) -> "Steps":
    """The same with each example `copies` times, one behind the other."""
    other = object.__new__(Steps)
    other.__dict__.update(self.__dict__)
    other.batch = self.batch * copies
    other.source = jax.tree.map(
      lambda x: jnp.repeat(x, copies, axis=0), self.source
    )
    return other

  def _decode(self, cache, ids):
    return self.network.apply(
      {**self.variables, **cache},
      self.source,
      ids,
      cache_length=self._span,
      mutable=["cache"],
      method="write",
    )

  def empty_cache(self) -> PyTree:
    """A cache for all places, filled with zeros."""
    ids = jnp.zeros((self.batch, self._span), jnp.int32)
    _, shapes = jax.eval_shape(self._decode, {}, ids)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def first_cache(self) -> PyTree:
    """A cache with what stands in front of every target."""
    cache, before = self.empty_cache(), self.source.before
    return cache if before is None else self._decode(cache, before)[1]

  def map(self, function: Callable[[Array], Array], cache: PyTree) -> PyTree:
    """The cache with a function of leaves [B, …] done to each of every layer.

    The index of the next place is none of them, and stays.
    """

    def of_leaf(leaf):
      return function(leaf) if leaf.ndim else leaf

    of_layers = jax.vmap(of_leaf) if self._is_stacked else of_leaf
    return jax.tree.map(of_layers, cache)

  def __call__(self, cache, last: Int[Array, "B"]):
    """Logits [B, V] of the place after `last`, and the cache with it."""
    logits, cache = self._decode(cache, last[:, None])
    return logits[:, 0], cache
