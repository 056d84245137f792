"""Arrays in zarr, and trees of them in Orbax: read and written by TensorStore.

_METADATA           a tree's leaves, each by the keys on the way to it
manifest.ocdbt, d/  their arrays, zarr in OCDBT
"""

import ast
from collections.abc import Mapping
import functools
import pathlib
from typing import Any

import numpy as np
import tensorstore

from prompt_tuning import json_files
from prompt_tuning.storage import StoredTensor

METADATA = "_METADATA"
"""The file by which a folder is a tree of Orbax."""

Keys = tuple[str, ...]
"""The way to a leaf of a tree."""

_CHUNK = 1 << 24  # numbers in a chunk


def leaves(metadata: Mapping[str, Any], where: str) -> dict[Keys, str]:
  """The leaves of a tree of Orbax, and what their arrays are called.

  None and an empty dictionary, list or tuple are left out: Orbax lists them
  among the leaves, and writes no array for them.

  Args:
    metadata: what its file _METADATA says.
    where: the tree, for messages.

  Raises:
    ValueError: the file is damaged.
  """
  tree = json_files.Fields(metadata, f"{where}/{METADATA}").table(
    "tree_metadata"
  )
  try:
    keys = [
      tuple(map(str, ast.literal_eval(key)))
      for key, entry in tree.items()
      if not _is_empty(entry)
    ]
  except (SyntaxError, TypeError, ValueError) as error:
    raise ValueError(
      f"{where}/{METADATA} names a leaf that cannot be read ({error}). It is "
      "damaged: restore the checkpoint from a copy."
    ) from error
  return {key: ".".join(key) for key in keys if key}


def _is_empty(entry: Any) -> bool:
  """Whether Orbax says of a leaf that there is nothing to read."""
  about = entry.get("value_metadata") if isinstance(entry, Mapping) else None
  return isinstance(about, Mapping) and about.get("skip_deserialize") is True


def leaf(
  tree: str, metadata: Mapping[str, Any], name: str, index: Any = None
) -> StoredTensor:
  """An array of a tree of Orbax, not read yet.

  Args:
    tree: its URL (file:// or gs://).
    metadata: what its file _METADATA says.
    name: what the array is called, see `leaves`.
    index: a part of it, see `opened`.

  Raises:
    ValueError: there is none, or it is damaged.
  """
  driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
  kvstore: Any = f"{tree}/{name}/"
  if metadata.get("use_ocdbt", True):
    kvstore = {"driver": "ocdbt", "base": f"{tree}/", "path": f"{name}/"}
  where = f"{tree.removeprefix('file://')}: {name}"
  return opened(driver, kvstore, where, index)


def opened(
  driver: str, kvstore: dict | str, where: str, index: Any = None
) -> StoredTensor:
  """An array that is not read yet.

  Args:
    driver: 'zarr' or 'zarr3'.
    kvstore: where it is, as TensorStore says it.
    where: the same for messages.
    index: the part of it to read, a number or a slice of the first axis; None
      for all.

  Raises:
    ValueError: there is none, or it is damaged.
  """

  def checked(action):
    try:
      return action()
    except ValueError as error:
      reason = str(error).splitlines()[0][:300]
      raise ValueError(
        f"{where} cannot be read ({reason}). The checkpoint is incomplete or "
        "damaged: restore it from a copy."
      ) from error

  spec = {"driver": driver, "kvstore": kvstore}
  array = checked(lambda: tensorstore.open(spec, open=True, read=True).result())
  # A lost chunk would be read as zeros.
  options = {"fill_missing_data_reads": False}
  strict = checked(
    lambda: tensorstore.open({**spec, **options}, open=True, read=True).result()
  )
  if 0 in array.shape:
    raise ValueError(
      f"{where} has the shape {tuple(array.shape)}, so it holds no number. The "
      "checkpoint is damaged: restore it from a copy."
    )
  strict = strict if index is None else strict[index]
  return StoredTensor(
    tuple(strict.shape),
    array.dtype.name,
    functools.partial(checked, lambda: strict.read().result()),
    where,
  )


def write(folder: pathlib.Path, path: str, array: np.ndarray) -> dict:
  """Writes one array and returns the specification for the index."""
  name = ".".join(("target", *path.split("/")))
  rows = max(1, min(len(array), _CHUNK // array[0].size))
  metadata = {
    "chunks": [rows, *array.shape[1:]],
    "compressor": {"id": "gzip", "level": 1},
    "shape": list(array.shape),
  }
  spec = {"driver": "zarr", "dtype": array.dtype.name, "metadata": metadata}
  kvstore = {"driver": "file", "path": f"{folder / name}/"}
  opening = tensorstore.open(
    {**spec, "kvstore": kvstore}, create=True, open=True
  )
  opening.result().write(array).result()
  return {**spec, "kvstore": {"driver": "file", "path": f"{name}/"}}
