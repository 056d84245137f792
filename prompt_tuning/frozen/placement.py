"""The devices of a run as a mesh, and what lies where on it.

    MESH -> Devices -> a parameter: split by its logical axes (`RULES`)
                    -> a batch: its rows over `data`
                    -> what trains in front of the model: whole on each device

JAX's partitioner computes where arrays lie, so nothing else knows of the mesh:
whoever makes an array puts it here. On one device there is no mesh. Several
processes (`processes`) make one mesh of the devices of all; every one of them
has the whole of what it puts, or its own rows, and puts its part.
"""

from collections.abc import Mapping
import dataclasses
import functools
import re
from typing import Any

from flax.linen import partitioning
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
import numpy as np

from prompt_tuning import processes, storage
from prompt_tuning.model import forms, t5
from prompt_tuning.shapes import Array, PyTree

DATA, MODEL = "data", "model"
RULES = {"vocab": MODEL, "heads": MODEL, "joined_kv": MODEL, "mlp": MODEL}
"""The axis of the mesh that splits a logical axis, as in t5x's standard rules;
the others are whole on every device."""
OVER_BOTH = {**RULES, "embed": DATA}
"""The same with what is left of a weight divided over `data` (2-D sharding)."""

_OF_STACK = re.compile(rf"(^|/){forms.LAYERS}/")


@dataclasses.dataclass(frozen=True)
class Devices:
  """Several devices, and the T5 that lies on them.

  Attributes:
    mesh: with the axes `data` and `model`.
    config: of the T5.
    over_both: whether weights are divided over `data` too, and gathered where
      they are used: less memory, more that is sent.
  """

  mesh: Mesh
  config: t5.Config
  over_both: bool = False

  @property
  def data(self) -> int:
    """Into how many parts the rows of a batch are divided."""
    return self.mesh.shape[DATA]

  def rows(self, count: int) -> int:
    """`count` rows and those that fill them up, so that `data` divides them."""
    return -(-count // self.data) * self.data

  def announced(self) -> str:
    """What runs where, in a line."""
    kind = self.mesh.devices.flat[0].device_kind
    count = processes.count()
    return (
      f"{f'{count} processes, ' if count > 1 else ''}{self.mesh.size} devices "
      f"({kind}): batches over {self.data}, the frozen weights over "
      f"{self.mesh.shape[MODEL]}"
    )

  @functools.cached_property
  def _axes(self) -> Mapping[str, tuple[str, ...]]:
    """The logical axes of every parameter."""
    tokens = jax.ShapeDtypeStruct((1, 1), np.int32)
    made = jax.eval_shape(
      t5.T5(self.config).init, jax.random.key(0), tokens, tokens
    )
    names = partitioning.get_axis_names(made["params_axes"])
    return {path: tuple(spec) for path, spec in storage.flatten(names).items()}

  def sharding(self, path: str, shape: tuple[int, ...]) -> NamedSharding:
    """Where a parameter lies; an axis that does not divide is whole."""
    first, count = _OF_STACK.subn(rf"\1{forms.LAYERS}_0/", path)
    own = forms.quantized.axes(first, len(shape) - count, self._axes)
    axes = (None,) * count + own
    rules = OVER_BOTH if self.over_both else RULES
    split = [rules.get(axis or "") for axis in axes]
    for i, (by, size) in enumerate(zip(split, shape, strict=True)):
      if by and size % self.mesh.shape[by]:
        split[i] = None
    return NamedSharding(self.mesh, PartitionSpec(*split))

  def put(self, path: str, value: Array) -> jax.Array:
    """A parameter, of which each device gets its own part."""
    return lay(value, self.sharding(path, value.shape))

  def put_rows(self, value: Array, axis: int = 0) -> jax.Array:
    """An array whose rows stand along an axis that `data` divides."""
    spec = PartitionSpec(*[None] * axis, DATA)
    return lay(value, NamedSharding(self.mesh, spec))

  @property
  def whole(self) -> NamedSharding:
    """That of what every device has."""
    return NamedSharding(self.mesh, PartitionSpec())

  def key(self, seed: int) -> jax.Array:
    """A key on every device."""
    return jax.jit(jax.random.key, out_shardings=self.whole)(seed)

  def put_whole(self, tree: PyTree) -> PyTree:
    """The tree on every device; what lies on the mesh already stays."""
    whole = self.whole

    def put(leaf: Any) -> jax.Array:
      there = getattr(leaf, "sharding", None)
      is_placed = isinstance(there, NamedSharding) and there.mesh == self.mesh
      return leaf if is_placed else lay(leaf, whole)

    return jax.tree.map(put, tree)


def lay(value: Any, sharding: Sharding) -> jax.Array:
  """An array where it shall lie; of several processes each lays its part."""
  is_spread = isinstance(value, jax.Array) and not value.is_fully_addressable
  if is_spread or sharding.is_fully_addressable:
    return jax.device_put(value, sharding)
  value = np.asarray(value)
  return jax.make_array_from_callback(value.shape, sharding, value.__getitem__)


def lay_as(value: Any, other: jax.Array) -> jax.Array:
  """An array where another lies.

  One that was never told a device is not told one now: a program compiled for
  arrays on a device is another than the same one for arrays anywhere.
  """
  if not other.committed:
    return jax.device_put(value)
  return lay(value, other.sharding)


def devices_of(
  mesh: Mapping[str, int] | None, config: t5.Config
) -> Devices | None:
  """The devices that MESH names.

  Args:
    mesh: how many devices each axis has, `{"data": 4, "model": 2}`; an axis
      that is not named has 1. None for all of this machine, or of all
      processes, on `data`.
    config: of the T5 that shall lie on them.

  Returns:
    None for a single device.

  Raises:
    ValueError: an axis that there is not, or more devices than there are.
  """
  several = processes.count()
  there = jax.devices() if several > 1 else jax.local_devices()
  sizes = {DATA: len(there)} if mesh is None else dict(mesh)
  wrong = [
    axis
    for axis, size in sizes.items()
    if axis not in (DATA, MODEL)
    or isinstance(size, bool)
    or not isinstance(size, int)
    or size < 1
  ]
  if wrong:
    raise ValueError(
      f"MESH={mesh!r}: {wrong[0]!r} must be one of the axes {DATA!r} and "
      f"{MODEL!r} with a whole number of devices, for example "
      '{"data": 4, "model": 2}.'
    )
  shape = (sizes.get(DATA, 1), sizes.get(MODEL, 1))
  count = shape[0] * shape[1]
  if count > len(there):
    raise ValueError(
      f"MESH={mesh!r} asks for {count} devices, and "
      f"{'this machine has' if several == 1 else f'{several} processes have'} "
      f"{len(there)}. Choose sizes whose product is {len(there)} or less."
    )
  if several > 1 and count < len(there):
    raise ValueError(
      f"MESH={mesh!r} has {count} devices, and the {several} processes have "
      f"{len(there)}, all of which take part. Choose sizes whose product is "
      f"{len(there)}."
    )
  if count == 1:
    return None
  chosen = np.array(there[:count]).reshape(shape)
  return Devices(Mesh(chosen, (DATA, MODEL)), config)
