"""Arrays that lie across processes, in a folder that all of them write (Orbax).

    {path: array} -> checkpoints/step_*/arrays   every process its own parts
    JSON values   -> checkpoints/step_*/about    process 0

Orbax puts the folder in its place when all have written, so that there is a
whole checkpoint or none. It is imported where a run needs it, for a prompt's
checkpoint is one small file.
"""

from collections.abc import Mapping
import errno
import importlib
import logging
import os
import pathlib
import secrets
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import processes

UNFINISHED = ".orbax-checkpoint-tmp"
"""How the name of a folder ends that is not whole yet."""

_ARRAYS, _ABOUT, _SUMS = "arrays", "about", "sums"


def _orbax() -> Any:
  try:
    return importlib.import_module("orbax.checkpoint")
  except ImportError as error:
    raise ValueError(
      "What trains lies across several processes, or did, so its checkpoints "
      "are written and read with orbax-checkpoint, which is not installed. "
      "Install it in every process: pip install orbax-checkpoint."
    ) from error


def _checkpointer(orbax: Any) -> Any:
  return orbax.Checkpointer(orbax.CompositeCheckpointHandler())


def check(folder: pathlib.Path) -> None:
  """Asks of all processes that they can write one folder together.

  Raises:
    ValueError: Orbax is missing, or a process has another folder there.
  """
  _orbax()
  name = processes.told(lambda: _mark(folder).encode()).decode()
  is_missing = not (folder / name).is_file()
  anywhere = processes.agreed(int(is_missing))
  if processes.is_first():
    (folder / name).unlink(missing_ok=True)
  if anywhere:
    own = ", this process among them" if is_missing else ""
    raise ValueError(
      f"MODEL_DIR={folder} is not the same folder in all processes{own}. What "
      "trains lies across them, so all write its checkpoints: give a folder on "
      "a disk that every process has at this path."
    )


def _mark(folder: pathlib.Path) -> str:
  name = f".seen-{secrets.token_hex(8)}"
  (folder / name).touch()
  return name


def save(
  path: pathlib.Path, arrays: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
  """Writes the folder of a checkpoint; called by all processes.

  Raises:
    OSError: the disk is full, or refuses.
  """
  orbax = _orbax()
  written = {**about, _SUMS: _sums(arrays)}
  try:
    with _checkpointer(orbax) as checkpointer:
      checkpointer.save(
        path.resolve(),
        args=orbax.args.Composite(
          **{
            _ARRAYS: orbax.args.StandardSave(dict(arrays)),
            _ABOUT: orbax.args.JsonSave(written),
          }
        ),
        force=True,
      )
  except ValueError as error:  # what tensorstore says of a disk
    if processes.is_first():
      for half in path.parent.glob(f"{path.name}*{UNFINISHED}*"):
        shutil.rmtree(half, ignore_errors=True)
    raise _of_disk(error) or error from error


def about(path: pathlib.Path) -> dict:
  """The JSON values that travel with the arrays; called by all processes.

  Raises:
    ValueError: the folder is damaged.
    OSError: the disk refuses.
  """
  orbax = _orbax()
  return _restored(path, orbax, _ABOUT, orbax.args.JsonRestore())


def load(
  path: pathlib.Path, like: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
  """Arrays, each where that of `like` lies; called by all processes.

  Those that read may be fewer or more than those that wrote.

  Args:
    path: the folder.
    like: arrays of the shapes that were saved, see `shapes`.
    about: of the folder.

  Raises:
    ValueError: the folder is damaged.
    OSError: the disk refuses.
  """
  orbax = _orbax()
  whole = {
    name: np.asarray(leaf)
    if not isinstance(leaf, jax.Array)
    else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    for name, leaf in like.items()
  }
  asked = orbax.args.StandardRestore(whole)
  found = dict(_restored(path, orbax, _ARRAYS, asked))
  sums = about.get(_SUMS, {})
  if bad := [name for name, sum_ in _sums(found).items() if sum_ != sums[name]]:
    raise ValueError(
      f"{path} is damaged: the tensor {bad[0]} holds other numbers than were "
      "written."
    )
  return found


def shapes(about: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """What was saved, by name."""
  return {name: tuple(made[1]) for name, made in about.get(_SUMS, {}).items()}


def _restored(path: pathlib.Path, orbax: Any, name: str, asked: Any) -> Any:
  try:
    with _checkpointer(orbax) as checkpointer:
      args = orbax.args.Composite(**{name: asked})
      return checkpointer.restore(path.resolve(), args=args)[name]
  except (MemoryError, OSError, jax.errors.JaxRuntimeError) as error:
    if isinstance(error, FileNotFoundError):
      raise _damaged(path, error) from error
    raise
  except Exception as error:
    # Of the other arrays asyncio would say the same, each by itself.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    raise _of_disk(error) or _damaged(path, error) from error


def _damaged(path: pathlib.Path, error: Exception) -> ValueError:
  line = str(error).strip().splitlines() or [type(error).__name__]
  return ValueError(f"{path} cannot be read ({line[0][:200]}): it is damaged.")


_OF_DISK = {
  "RESOURCE_EXHAUSTED": errno.ENOSPC,
  "PERMISSION_DENIED": errno.EACCES,
}
"""What tensorstore calls them."""


def _of_disk(error: Exception) -> Exception | None:
  """The error as one of the disk or the memory, if it is one."""
  if "Out of memory" in str(error):
    return MemoryError(str(error))
  for name, number in _OF_DISK.items():
    if name in str(error):
      return OSError(number, os.strerror(number))
  return None


def _sums(arrays: Mapping[str, Any]) -> dict[str, list]:
  """Of each array: a sum of its bits, each weighted by its place; its shape.

  It does not depend on how an array lies, nor on how many processes hold it.
  """
  return {
    name: [int(_sum_of(leaf)), list(np.shape(leaf))]
    for name, leaf in arrays.items()
  }


@jax.jit
def _sum_of(leaf: Any) -> Any:
  if leaf.dtype == bool:
    leaf = leaf.astype(jnp.uint8)
  own = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(leaf, own).astype(jnp.uint32)
  place = jnp.uint32(0)
  for axis, length in enumerate(bits.shape):
    at = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    place = place * jnp.uint32(length) + at
  weight = (place * jnp.uint32(2654435761)) | jnp.uint32(1)
  return jnp.sum(bits * weight, dtype=jnp.uint32)
