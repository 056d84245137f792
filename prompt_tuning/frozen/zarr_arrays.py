"""Arrays in zarr, as t5x stores them: read and written by TensorStore."""

import functools
import pathlib

import numpy as np
import tensorstore

from prompt_tuning.storage import StoredTensor

_CHUNK = 1 << 24  # numbers in a chunk


def opened(driver: str, kvstore: dict | str, where: str) -> StoredTensor:
  """An array that is not read yet.

  Args:
    driver: 'zarr' or 'zarr3'.
    kvstore: where it is, as TensorStore says it.
    where: the same for messages.

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
  return StoredTensor(
    tuple(array.shape),
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
