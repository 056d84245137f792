"""Frozen kernels and tables as integers with scales, and products with them.

    int8   kernel    [in, out]  kernel_int8    [in, out]    kernel_scale [out]
           embedding [V, E]     embedding_int8 [V, E]       embedding_scale [V]
    int4   kernel    [in, out]  kernel_int4    [in/2, out]  kernel_scale
                                                            [in/group, out]

A weight is its integer times its scale. Of int8 each output has a scale of its
own, a word among them, which multiplies the product behind the matrix. Of int4
so has each group of `GROUP` inputs of an output; a byte holds two neighbours.
The head and the embedding table are int8 then too, and so is a kernel that does
not divide into groups. Norms and position biases stay floats. Nothing here
trains: the gradient passes through to what was multiplied, and ends there.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import math
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import storage
from prompt_tuning.shapes import Array, Float, Int, PyTree, Shaped

DTYPES = ("int8", "int4")
"""What WEIGHTS_DTYPE may be besides floats."""

GROUP = 64
"""How many inputs of a kernel share a scale in int4, if that divides them."""

_FEWEST = (
  8  # inputs of a group: more scales than this would cost more than int8
)
_KERNEL, _TABLE, _HEAD = "kernel", "embedding", "logits_dense"
_SCALE = "scale"
_LARGEST = 127


def form_of(path: str, shape: tuple[int, ...], dtype: str) -> str | None:
  """The form of a weight in a model of int8 or int4; None stays a float."""
  *_, module, name = ("", *path.split("/"))
  if name not in (_KERNEL, _TABLE) or len(shape) != 2:
    return None
  group = math.gcd(shape[0], GROUP)
  is_whole = name == _TABLE or module == _HEAD or group < _FEWEST
  return "int8" if is_whole else dtype


def paths(path: str, shape: tuple[int, ...], dtype: str | None) -> list[str]:
  """The paths of what `parts` makes of a weight."""
  form = form_of(path, shape, dtype) if dtype in DTYPES else None
  return [path] if form is None else [f"{path}_{form}", f"{path}_{_SCALE}"]


def parts(
  path: str, weight: Shaped[np.ndarray, "..."], dtype: str | None
) -> dict[str, np.ndarray]:
  """What holds a weight, by path: itself, or integers and their scale."""
  form = form_of(path, weight.shape, dtype) if dtype in DTYPES else None
  if form is None:
    return {path: weight}
  if form == "int4":
    integers, scale = _int4(np.asarray(weight, np.float32))
  elif path.endswith(_TABLE):
    integers, scale = _int8(weight, axis=1)
  else:
    integers, scale = _int8(weight, axis=0)
  return {f"{path}_{form}": integers, f"{path}_{_SCALE}": scale}


def _int8(
  weight: Shaped[np.ndarray, "rows columns"], axis: int
) -> tuple[Int[np.ndarray, "rows columns"], Float[np.ndarray, "_"]]:
  """The largest along an axis is 127."""
  weight = np.asarray(weight, np.float32)
  largest = np.maximum(weight.max(axis), -weight.min(axis))
  scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
  integers = weight / np.expand_dims(scale, axis)
  return np.rint(integers, out=integers).astype(np.int8), scale


def _int4(
  weight: Float[np.ndarray, "inputs outputs"],
) -> tuple[Shaped[np.ndarray, "_ outputs"], Float[np.ndarray, "_ outputs"]]:
  """What is farthest from 0 in a group is -8, whatever its sign."""
  inputs, outputs = weight.shape
  grouped = weight.reshape(-1, math.gcd(inputs, GROUP), outputs)
  high, low = grouped.max(1), grouped.min(1)
  farthest = np.where(high > -low, high, low)
  scale = np.where(farthest != 0, farthest / -8, 1).astype(np.float32)
  integers = np.clip(np.rint(grouped / scale[:, None]), -8, 7)
  nibbles = (integers + 8).astype(np.uint8).reshape(inputs, outputs)
  return nibbles[::2] | nibbles[1::2] << 4, scale


@dataclasses.dataclass(frozen=True)
class Quantized:
  """A weight as it is held.

  Attributes:
    integers: int8 of its own shape, or bytes of two neighbours in a column.
    scale: of each output, or of each group and output.
    is_table: whether the outputs are the rows, as words are, not the columns.
  """

  integers: Shaped[Array, "_ _"]
  scale: Float[Array, "..."]
  is_table: bool = False

  def weight(self, dtype: Any) -> Float[Array, "_ _"]:
    """The whole weight."""
    scale = self.scale
    if self.integers.dtype == jnp.uint8:
      apart = jnp.stack([self.integers & 15, self.integers >> 4], axis=1)
      outputs = apart.shape[-1]
      grouped = apart.reshape(scale.shape[0], -1, outputs).astype(jnp.int8) - 8
      return (grouped * scale[:, None]).astype(dtype).reshape(-1, outputs)
    scale = scale[:, None] if self.is_table else scale
    return (self.integers * scale).astype(dtype)

  def dot(self, x: Float[Array, "*B inputs"]) -> Float[Array, "*B outputs"]:
    """x times the weight; times its transpose if it is a table."""
    return _product(self.is_table, x, self.integers, self.scale)

  def rows(self, ids: Int[Array, "*B"], dtype: Any) -> Float[Array, "*B _"]:
    """Rows of a table; an id beyond it reads the last."""
    integers, scale = (
      jnp.take(leaf, ids, axis=0, mode="clip")
      for leaf in (self.integers, self.scale)
    )
    return (integers * scale[..., None]).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(is_table, x, integers, scale):
  """See `Quantized.dot`."""
  if integers.dtype == jnp.uint8:
    return jnp.dot(x, Quantized(integers, scale).weight(x.dtype))
  return (_dot(x, integers, int(is_table)) * scale).astype(x.dtype)


def _dot(x, integers, contracted: int):
  """x times int8 along one of its axes, in float32."""
  return lax.dot_general(
    x,
    integers.astype(x.dtype),
    (((x.ndim - 1,), (contracted,)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _forward(is_table, x, integers, scale):
  return _product(is_table, x, integers, scale), (integers, scale)


def _backward(is_table, kept, gradient):
  # The barrier keeps the floats of the forward pass from being shared with
  # this one, as they would be held in between.
  integers, scale = lax.optimization_barrier(kept)
  if integers.dtype == jnp.uint8:
    weight = Quantized(integers, scale).weight(gradient.dtype)
    of_x = jnp.dot(gradient, weight.T)
  else:
    scaled = (gradient * scale).astype(gradient.dtype)
    of_x = _dot(scaled, integers, int(not is_table)).astype(gradient.dtype)
  return (
    of_x,
    np.zeros(integers.shape, jax.dtypes.float0),
    jnp.zeros_like(scale),
  )


_product.defvjp(_forward, _backward)


def of(module: nn.Module, name: str) -> Quantized | None:
  """The parameter of a module, if it is held so; None where it is a float."""
  for form in DTYPES:
    if module.has_variable("params", f"{name}_{form}"):
      integers, scale = (
        module.get_variable("params", f"{name}_{kind}")
        for kind in (form, _SCALE)
      )
      return Quantized(integers, scale, name == _TABLE)
  return None


def table(embedder: Mapping[str, Array]) -> Float[np.ndarray, "V E"]:
  """The embedding table of its module's parameters, as float32."""
  if _TABLE in embedder:
    return np.asarray(jnp.asarray(embedder[_TABLE]).astype(jnp.float32))
  integers = np.asarray(embedder[f"{_TABLE}_int8"])
  return integers * np.asarray(embedder[f"{_TABLE}_{_SCALE}"])[:, None]


def _split(path: str) -> tuple[str, str]:
  """The path of the weight that a leaf holds or scales, and which it is."""
  for name in (_KERNEL, _TABLE):
    for kind in (*DTYPES, _SCALE):
      if path.endswith(f"/{name}_{kind}"):
        return path.removesuffix(f"_{kind}"), kind
  return path, ""


def dtype_of(params: PyTree) -> str | None:
  """`int8` or `int4` if parameters are of it; None if all are floats."""
  kinds = {_split(path)[1] for path in storage.flatten(params)}
  return next((form for form in reversed(DTYPES) if form in kinds), None)


def count(params: PyTree) -> int:
  """How many weights parameters hold, in whatever form."""
  sizes = {"int4": 2, _SCALE: 0}
  return sum(
    leaf.size * sizes.get(_split(path)[1], 1)
    for path, leaf in storage.flatten(params).items()
  )


def axes(
  path: str, rank: int, of_weights: Mapping[str, tuple]
) -> tuple[str | None, ...]:
  """The logical axes of a leaf, from those of the weights by their paths."""
  weight, kind = _split(path)
  own = of_weights[weight]
  if kind == _SCALE and rank == 1:
    return own[:1] if weight.endswith(_TABLE) else own[-1:]
  return own


def refuse(params: PyTree, what: str) -> None:
  """Raises if parameters are quantised.

  Raises:
    ValueError: saying that `what` needs floats.
  """
  if form := dtype_of(params):
    raise ValueError(
      f"WEIGHTS_DTYPE={form!r} is for frozen weights, and {what}. Leave "
      "WEIGHTS_DTYPE out, or set it to float32 or bfloat16."
    )


def all_paths(
  shapes: Mapping[str, tuple[int, ...]], dtype: str | None
) -> Iterable[str]:
  """The paths of what `parts` makes of all weights."""
  for path, shape in shapes.items():
    yield from paths(path, shape, dtype)
