"""Checkpoints of a run: a file each, or a folder if all processes write it."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import pathlib
import re
import shutil
from typing import Any

import jax
import numpy as np

from prompt_tuning import processes, storage
from prompt_tuning.run_folder import spread
from prompt_tuning.shapes import PyTree

_STEP = re.compile(r"step_(\d{8,})(\.safetensors)?")


def of_steps(folder: pathlib.Path) -> dict[int, pathlib.Path]:
  """The checkpoints in a folder by their steps, oldest first."""
  entries = folder.iterdir() if folder.is_dir() else ()
  # A file behind a folder of its step: it was written later (`save`).
  entries = sorted(entries, key=lambda entry: (entry.suffix, entry.name))
  found = {int(m[1]): e for e in entries if (m := _STEP.fullmatch(e.name))}
  return dict(sorted(found.items()))


def save(
  folder: pathlib.Path, step: int, arrays: PyTree, about: Mapping[str, Any]
) -> None:
  """Writes a checkpoint atomically; called by all processes.

  Args:
    folder: of the checkpoints.
    step: updates done.
    arrays: a pytree of arrays.
    about: JSON values that travel with it.
  """
  name = f"step_{step:08d}"
  if processes.is_spread(arrays):
    file = folder / f"{name}.safetensors"
    if processes.is_first():  # or it would be taken for the newer one
      file.unlink(missing_ok=True)
    spread.save(folder / name, dict(_leaves(arrays)), about)
    return
  on_host = processes.on_host(arrays)
  if processes.is_first():
    file = folder / f"{name}.safetensors"
    storage.save_tree(file, dict(_leaves(on_host)), about)
    remove(folder / name)


def load(
  path: pathlib.Path,
  like: PyTree,
  check: Callable[[Mapping[str, Any], pathlib.Path], None],
  older: str,
) -> tuple[PyTree, dict]:
  """The arrays, and what travels with them; of a folder, by all processes.

  Args:
    path: of a checkpoint.
    like: a pytree of the structure that was saved.
    check: raises if the settings are those of another run, before any tensor
      of a folder is read.
    older: what removing the checkpoint leads to.

  Raises:
    ValueError: it is damaged, or another run's.
  """
  is_folder, tensors = path.is_dir(), {}
  with _advised(older):
    if is_folder:
      about = spread.about(path)
    else:
      tree, about = storage.load_tree(path)
      tensors = storage.flatten(tree)
  if not {"settings", "record"} <= about.keys():
    raise ValueError(f"{path} is no checkpoint of a run. Remove it.")
  check(about["settings"], path)
  shapes = {name: tensor.shape for name, tensor in tensors.items()}
  _check_shapes(like, spread.shapes(about) if is_folder else shapes, path)
  if is_folder:
    with _advised(older):
      tensors = spread.load(path, dict(_leaves(like)), about)
  leaves = [tensors[name] for name, _ in _leaves(like)]
  return jax.tree.unflatten(jax.tree.structure(like), leaves), about


@contextlib.contextmanager
def _advised(older: str) -> Iterator[None]:
  """Inside, an error of a damaged checkpoint says what removing it does."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f"{error} Remove it {older}.") from error


def remove_unfinished(folder: pathlib.Path) -> None:
  """Removes folders that killed processes left half-written."""
  for path in folder.glob(f"step_*{spread.UNFINISHED}"):
    remove(path)


def remove(path: pathlib.Path) -> None:
  """Removes a checkpoint, if it is there."""
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
  """Leaves of any pytree, with their paths as text."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [
    (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
    for path, leaf in leaves
  ]


def _check_shapes(
  like: PyTree, shapes: Mapping[str, tuple[int, ...]], where
) -> None:
  """Compares what was saved with what a run has.

  Raises:
    ValueError: the message names the first tensor that differs.
  """
  paths = [path for path, _ in _leaves(like)]
  lost = [path for path in paths if path not in shapes]
  if lost or len(paths) != len(shapes):
    name = (lost or [path for path in shapes if path not in paths])[0]
    raise ValueError(
      f"{where} does not fit this run: the tensor {name} is in only one of "
      "the two. Choose another MODEL_DIR, or remove the folder to start anew."
    )
  for path, leaf in _leaves(like):
    if shapes[path] != np.shape(leaf):
      raise ValueError(
        f"{where} does not fit this run: the tensor {path} has shape "
        f"{shapes[path]} there and {np.shape(leaf)} here. Choose "
        "another MODEL_DIR, or remove the folder to start anew."
      )
