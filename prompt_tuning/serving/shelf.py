"""A folder of prompts: which there are, by name, and which have changed.

    runs/boolq/prompt.npy          boolq
    runs/both/prompts/rte/…        both/rte
    runs/adapter_config.json …     runs, where the folder itself is a prompt

A name is looked up among those that are found, so that no name leads out of the
folder. Folders whose names no client could send are left out.
"""

import logging
import os
import pathlib
import unicodedata

from prompt_tuning import spelling
from prompt_tuning.prompts import checkpoints

_log = logging.getLogger(__name__)


def check_name(name: str) -> None:
  """Refuses a name that no client could send.

  Raises:
    ValueError: it has bytes that are no letters, or line breaks and the like.
  """
  if not _is_name(name):
    raise ValueError(
      f"A prompt cannot be called {name!a}: no client could ask for it. Use "
      "letters and digits."
    )


def _is_name(name: str) -> bool:
  return all(x.isprintable() or unicodedata.category(x) == "Zs" for x in name)


class Shelf:
  """The prompts in a folder.

  Raises:
    FileNotFoundError: there is no such folder.
  """

  def __init__(self, folder: str | os.PathLike):
    self._folder = pathlib.Path(folder)
    if not self._folder.is_dir():
      raise FileNotFoundError(
        f"There is no folder {folder} (--prompts). Name one with runs or "
        "prompts in it, or a prompt with --prompt NAME=PATH."
      )
    for name in self._found():
      if not _is_name(name):
        _log.warning("%a is not served: no client could send its name.", name)

  def paths(self) -> dict[str, pathlib.Path]:
    """The folders of all prompts by their names, in the order of these."""
    return {k: path for k, path in self._found().items() if _is_name(k)}

  def _found(self) -> dict[str, pathlib.Path]:
    """The same, whatever their names."""
    root = self._folder.resolve()
    found = {}
    if checkpoints.is_prompt(root):
      found[root.name] = root
    for one in self._folders(root):
      if checkpoints.is_prompt(one):
        found[one.name] = one
      for inner in self._folders(one / "prompts"):
        if checkpoints.is_prompt(inner):
          found[f"{one.name}/{inner.name}"] = inner
    return found

  @staticmethod
  def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Folders in a folder; a link out of it is none."""
    if not folder.is_dir():
      return []
    inside = folder.resolve()
    return [
      path
      for path in sorted(folder.iterdir())
      if path.is_dir() and path.resolve().is_relative_to(inside)
    ]

  def path(self, name: str) -> pathlib.Path:
    """Where a prompt is.

    Raises:
      ValueError: there is none of this name.
    """
    paths = self.paths()
    if name not in paths:
      hint = spelling.hint(name, paths, "They are listed by GET /v1/prompts.")
      raise ValueError(
        f"There is no prompt {name!r:.80} in the server's folder. {hint}"
      )
    return paths[name]


def stamp(path: str | os.PathLike) -> tuple[tuple[str, int, int], ...]:
  """Changes when a prompt's files do: their names, sizes and times."""
  folder = pathlib.Path(path)
  files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
  return tuple(
    (file.name, about.st_size, about.st_mtime_ns)
    for file in files
    if file.suffix in (".npy", ".json", ".safetensors")
    for about in [file.stat()]
  )
