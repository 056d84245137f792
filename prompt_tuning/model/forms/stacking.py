"""The layers of a stack in one tensor, which a scan runs through.

    encoder/layers_0/mlp/wo/kernel [F, E] …  <->  encoder/layers/mlp/wo/kernel
                                                  [n, F, E]

A network follows the form of the parameters that it is given. Of stacked layers
one is compiled and a scan runs it, so that a program of 24 layers is as large
as one of 1, and no converted copy of all kernels is held at once. A scan reads
each layer's kernels out of the stack, which small layers are not worth.

XLA on a CPU would convert a stack of bfloat16 as a whole before a scan takes
one layer of it, so there the stack holds the bits as integers of 16 bits.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
import re
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import storage
from prompt_tuning.shapes import Array, PyTree

LAYERS = "layers"
"""What the layers of a stack are called: `layers_0` …, or `layers` as one."""

LARGE = 10**9
"""Models of so many parameters are stacked unless something else is said."""

_ONE = re.compile(rf"(.*/)?{LAYERS}_(\d+)/(.*)")
_ALL = re.compile(rf"(.*/)?{LAYERS}/(.*)")

AXIS = 1
"""Where the layers stand in what a scan carries of each: caches, keys, values;
examples stay in front."""


Put = Callable[[str, Array], Array]
"""Puts a parameter, by its path, onto the device or devices."""


def on_device(path: str, value: Array) -> Array:
  """The parameter on the device."""
  del path
  return jnp.asarray(value)


def stacked(params: PyTree, put: Put = on_device) -> PyTree:
  """The parameters with the layers of each stack in one tensor.

  What it has taken of `params` is let go, so that no second copy is held:
  `params` is emptied.
  """
  flat = storage.flatten(params)
  params.clear()
  paths = list(flat)
  return stacked_from(paths, ((path, flat.pop(path)) for path in paths), put)


def stacked_from(
  paths: Iterable[str],
  leaves: Iterable[tuple[str, Array]],
  put: Put = on_device,
) -> PyTree:
  """The same of leaves that come one by one.

  Args:
    paths: of all of them.
    leaves: each with its path; none is kept longer than it takes to copy it.
    put: puts what was made onto the device.
  """
  counts = collections.Counter(
    place[0] for path in paths if (place := _place(path)) is not None
  )
  flat: dict[str, Any] = {}
  for path, leaf in leaves:
    place = _place(path)
    if place is None:
      flat[path] = put(path, leaf)
      continue
    whole, number = place
    stack: Any = flat.get(whole)
    if stack is None:
      stack = np.empty((counts[whole], *leaf.shape), leaf.dtype)
    elif stack.dtype != leaf.dtype:  # a file may mix them
      stack = stack.astype(jnp.promote_types(stack.dtype, leaf.dtype))
    stack[number] = leaf
    flat[whole] = stack
  as_bits = jax.default_backend() == "cpu"
  for path in counts:
    whole = flat[path]
    if as_bits and whole.dtype == jnp.bfloat16:
      whole = whole.view(np.uint16)
    flat[path] = put(path, whole)
  return storage.unflatten(flat)


def _place(path: str) -> tuple[str, int] | None:
  """The path of the stack that a layer's tensor belongs to, and its number."""
  found = _ONE.fullmatch(path)
  if found is None:
    return None
  before, number, behind = found.groups("")
  return f"{before}{LAYERS}/{behind}", int(number)


def apart(params: PyTree) -> PyTree:
  """The parameters with a tensor of its own for every layer."""
  flat = {}
  for path, leaf in storage.flatten(params).items():
    if found := _ALL.fullmatch(path):
      before, behind = found.groups("")
      if leaf.dtype == jnp.uint16:
        leaf = lax.bitcast_convert_type(leaf, jnp.bfloat16)
      for i, own in enumerate(leaf):
        flat[f"{before}{LAYERS}_{i}/{behind}"] = own
    else:
      flat[path] = leaf
  return storage.unflatten(flat)


def is_stacked(params: PyTree) -> bool:
  """Whether `stacked` made them."""
  return any(map(_ALL.fullmatch, storage.flatten(params)))


def layers_of(stack: nn.Module, layer: Callable[..., nn.Module], count: int):
  """The layers of a stack, to be set up under the name `LAYERS`.

  Returns:
    A list of modules, or one if the parameters are those of stacked layers.
  """
  if stack.has_variable("params", LAYERS):
    return layer(stack.config)  # pyright: ignore[reportAttributeAccessIssue]
  return [layer(stack.config) for _ in range(count)]  # pyright: ignore


def through(
  layers: nn.Module | Sequence[nn.Module],
  x: Array,
  each: Any,
  call: Callable[[nn.Module, Array, Any], Array],
  *,
  count: int,
  remat: bool = False,
) -> Array:
  """x, through all layers of a stack.

  Args:
    layers: of `layers_of`.
    x: what the first layer gets.
    each: what every layer gets of its own: a list of them, or for stacked
      layers arrays with the layers at `AXIS`; None for nothing.
    call: computes one layer.
    count: how many layers there are.
    remat: compute a layer again for the gradient, instead of keeping what it
      computed: a third more work, and memory for the layers' inputs alone.
  """
  if isinstance(layers, nn.Module):
    # A gradient would keep the cast kernels of all layers beside the stack, so
    # of what a layer computes only its products are kept.
    keep = None if remat else jax.checkpoint_policies.dots_saveable
    again = nn.remat(call, prevent_cse=False, policy=keep)
    scan = nn.scan(
      lambda layer, x, own: (again(layer, x, own), None),
      variable_axes={"params": 0, "cache": 0},
      split_rngs={"params": True, "dropout": True},
      in_axes=AXIS,
      length=count,
    )
    return scan(layers, x, each)[0]
  call = nn.remat(call) if remat else call
  for layer, own in zip(layers, each or [None] * count, strict=True):
    x = call(layer, x, own)
  return x


def each_of(
  layers: nn.Module | Sequence[nn.Module], tree: PyTree, count: int
) -> Any:
  """Leaves with the layers at `AXIS`, as `through` takes them for `each`."""
  if not tree:
    return None
  if isinstance(layers, nn.Module):
    return tree
  return [
    jax.tree.map(lambda leaf, i=i: leaf[:, i], tree) for i in range(count)
  ]


def together(
  layers: nn.Module | Sequence[nn.Module], *every: Any, count: int
) -> Any:
  """Several values of `each` as one, which holds a tuple for every layer."""
  if isinstance(layers, nn.Module):
    return every
  filled = (one or [None] * count for one in every)
  return list(zip(*filled, strict=True))


def of_each(
  layers: nn.Module | Sequence[nn.Module],
  call: Callable[[nn.Module], Any],
  *,
  count: int,
) -> Any:
  """What a function says of every layer, as `through` takes it for `each`."""
  if isinstance(layers, nn.Module):
    scan = nn.scan(
      lambda layer, carry, _: (carry, call(layer)),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      out_axes=AXIS,
      length=count,
    )
    return scan(layers, None, None)[1]
  return [call(layer) for layer in layers]
