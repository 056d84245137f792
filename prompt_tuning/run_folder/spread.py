"""Arrays that lie across processes, in a folder that all of them write (Orbax).

    {path: array} -> checkpoints/step_*/arrays   every process its own parts
    JSON values   -> checkpoints/step_*/about    process 0

Orbax puts the folder in its place when all have written, so that there is a
whole checkpoint or none. It is imported where a run needs it, for a prompt's
checkpoint is one small file.
"""

from collections.abc import Mapping
import importlib
import logging
import pathlib
import secrets
from typing import Any

import jax
import numpy as np

from prompt_tuning import processes

UNFINISHED = ".orbax-checkpoint-tmp"
"""How the name of a folder ends that is not whole yet."""

_ARRAYS, _ABOUT = "arrays", "about"


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
  """Writes the folder of a checkpoint; called by all processes."""
  orbax = _orbax()
  with _checkpointer(orbax) as checkpointer:
    checkpointer.save(
      path.resolve(),
      args=orbax.args.Composite(
        **{
          _ARRAYS: orbax.args.StandardSave(dict(arrays)),
          _ABOUT: orbax.args.JsonSave(dict(about)),
        }
      ),
      force=True,
    )


def about(path: pathlib.Path) -> dict:
  """The JSON values that travel with the arrays; called by all processes.

  Raises:
    ValueError: the folder is damaged.
  """
  orbax = _orbax()
  return _restored(path, orbax, _ABOUT, orbax.args.JsonRestore())


def load(path: pathlib.Path, like: Mapping[str, Any]) -> dict[str, Any]:
  """Arrays, each where that of `like` lies; called by all processes.

  Those that read may be fewer or more than those that wrote.

  Raises:
    ValueError: the folder is damaged, or has other arrays.
  """
  orbax = _orbax()
  whole = {
    name: np.asarray(leaf)
    if not isinstance(leaf, jax.Array)
    else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    for name, leaf in like.items()
  }
  asked = orbax.args.StandardRestore(whole)
  return dict(_restored(path, orbax, _ARRAYS, asked))


def _restored(path: pathlib.Path, orbax: Any, name: str, asked: Any) -> Any:
  try:
    with _checkpointer(orbax) as checkpointer:
      args = orbax.args.Composite(**{name: asked})
      return checkpointer.restore(path.resolve(), args=args)[name]
  except Exception as error:
    # Of the other arrays asyncio would say the same, each by itself.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    line = str(error).strip().splitlines() or [type(error).__name__]
    raise ValueError(
      f"{path} cannot be read ({line[0][:200]}): it is damaged, or of another "
      "run."
    ) from error
