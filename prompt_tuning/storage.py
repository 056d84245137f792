"""Files that are whole or absent: atomic writes, tensors with a hash.

A tree of arrays is one safetensors file whose keys are the parameter paths
(`encoder/layers_0/mlp/wo/kernel`). Its metadata holds a hash of every tensor,
so that a truncated or altered file is noticed when it is read. Nothing is ever
unpickled.
"""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

from flax import traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from prompt_tuning import json_files
from prompt_tuning.shapes import PyTree

_HASHES = "tensor_sha256"
_HEADER_HASH = "metadata_sha256"


def flatten(tree: PyTree) -> dict[str, Any]:
  """The leaves of nested dictionaries by path, in the order of the paths."""
  return dict(sorted(traverse_util.flatten_dict(tree, sep="/").items()))


def unflatten(flat: Mapping[str, Any]) -> dict:
  """Nested dictionaries from paths."""
  return traverse_util.unflatten_dict(dict(flat), sep="/")


def tensor_hash(array) -> str:
  """SHA-256 of a tensor's dtype, shape and bytes, in hexadecimal."""
  array = np.asarray(array)
  digest = hashlib.sha256(f"{array.dtype.name} {array.shape}".encode())
  digest.update(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
  return digest.hexdigest()


def file_hash(path) -> str:
  """SHA-256 of a file's bytes."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def tree_hash(tree: PyTree) -> str:
  """SHA-256 over the paths and hashes of all leaves."""
  lines = (f"{k} {tensor_hash(v)}\n" for k, v in flatten(tree).items())
  return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_atomically(path, write: Callable[[str], object]) -> pathlib.Path:
  """Calls `write(temporary name)`, then renames that file to `path`.

  Raises:
    OSError: the disk is full or read-only. What stood at `path` stays.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(
    prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
  )
  os.close(handle)
  try:
    write(temporary)
    with open(temporary, "rb") as file:
      os.fsync(file.fileno())
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.unlink(temporary)
    raise
  _sync(path.parent)
  return path


def _sync(folder: pathlib.Path) -> None:
  """Makes the names in a folder last."""
  handle = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


_PENDING = ".pending"


def write_together(folder, files: Mapping[str, bytes]) -> pathlib.Path:
  """Writes several files of a folder, all of them or none.

  They are written into a folder beside their places first, whose renaming is
  the moment when all of them count (`current`); then they are moved.

  Raises:
    OSError: the disk is full or read-only. What was there before still counts.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  _settle(folder)
  written = pathlib.Path(
    tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder)
  )
  try:
    for name, content in files.items():
      write_atomically(
        written / name, lambda to, c=content: pathlib.Path(to).write_bytes(c)
      )
    written.chmod(0o777 & ~_umask())
    written.rename(folder / _PENDING)
  except BaseException:
    shutil.rmtree(written, ignore_errors=True)
    raise
  _sync(folder)
  _settle(folder)
  return folder


def current(path) -> pathlib.Path:
  """Where a file is that `write_together` may have been killed in moving."""
  path = pathlib.Path(path)
  pending = path.parent / _PENDING / path.name
  return pending if pending.is_file() else path


def _settle(folder: pathlib.Path) -> None:
  """Moves to their places what was written together."""
  pending = folder / _PENDING
  if not pending.is_dir():
    return
  for path in sorted(pending.iterdir()):
    os.replace(path, folder / path.name)
  _sync(folder)
  pending.rmdir()


def remove_unfinished(folder) -> None:
  """Removes what processes that were killed in a write left in a folder."""
  for path in pathlib.Path(folder).glob(".*.tmp"):
    if path.is_dir():
      shutil.rmtree(path, ignore_errors=True)
    else:
      path.unlink(missing_ok=True)


def _umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask


def write_text(path, text: str) -> pathlib.Path:
  """Writes a text file atomically."""
  return write_atomically(
    path, lambda name: pathlib.Path(name).write_text(text, encoding="utf-8")
  )


def jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
  """One JSON object per line."""
  return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_jsonl(path, rows: Iterable[Mapping[str, Any]]) -> pathlib.Path:
  """Writes one JSON object per line, atomically."""
  return write_text(path, jsonl(rows))


def write_json(path, value) -> pathlib.Path:
  """Writes indented JSON atomically."""
  return write_text(path, json.dumps(value, indent=2) + "\n")


def save_tree(path, tree: PyTree, metadata: Mapping[str, Any] | None = None):
  """Writes a tree of arrays as safetensors, atomically, with hashes."""
  header = {k: json.dumps(v) for k, v in (metadata or {}).items()}
  return save_tensors(path, flatten(tree), header)


def save_tensors(path, tensors: Mapping[str, Any], header: Mapping[str, str]):
  """Writes tensors by name as safetensors, atomically, with hashes.

  Args:
    path: the file.
    tensors: arrays by name.
    header: metadata as safetensors has them, texts by name.
  """
  flat, header = _hashed(tensors, header)

  def write(name):
    try:
      safetensors.numpy.save_file(flat, name, header)
    except safetensors.SafetensorError as error:
      raise OSError(str(error)) from error  # the disk's error is inside

  return write_atomically(path, write)


def tensor_bytes(tensors: Mapping[str, Any]) -> bytes:
  """The file that `save_tensors` writes, for tensors that are small."""
  return safetensors.numpy.save(*_hashed(tensors, {}))


def _hashed(tensors: Mapping[str, Any], header: Mapping[str, str]):
  """The tensors, and the header with a hash of each."""
  # safetensors scrambles what is not C-contiguous.
  flat = {k: np.asarray(v, order="C") for k, v in tensors.items()}
  header = dict(header)
  header[_HASHES] = json.dumps({k: tensor_hash(v) for k, v in flat.items()})
  header[_HEADER_HASH] = _header_hash(header)
  return flat, header


def _header_hash(header: Mapping[str, str]) -> str:
  return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class StoredTensor:
  """A tensor in a file that is not read yet.

  Attributes:
    shape: as it is read.
    dtype: name of the stored type, "float32" for example.
    read: reads it.
    where: the file and the tensor's name in it, for messages.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[[], np.ndarray]
  where: str


_DTYPES = {f"F{bits}": f"float{bits}" for bits in (16, 32, 64)}
_DTYPES["BF16"] = "bfloat16"


def open_tensors(path) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
  """The tensors of a safetensors file by name, and its metadata.

  Each tensor is read, and its hash checked if the file has one, when it is
  asked for.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is truncated or damaged.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"There is no file {path}.")

  # The header alone is read here, and checked by its own hash.
  try:
    file = safetensors.safe_open(path, framework="numpy").__enter__()
    header = dict(file.metadata() or {})
    slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(
      f"{path} cannot be read as safetensors ({error}). It is truncated or "
      "damaged: restore it from a copy, or remove it."
    ) from error
  if header.pop(_HEADER_HASH, _header_hash(header)) != _header_hash(header):
    raise ValueError(
      f"{path}: its metadata are not what was written (their hash differs). "
      "Restore the file from a copy, or remove it."
    )
  hashes = json_files.parse_object(
    header.pop(_HASHES, "{}"), f"{path}, its metadata {_HASHES}"
  )
  for key in hashes:
    if key not in slices:
      raise ValueError(f"{path} has lost its tensor {key}.")

  # Each tensor is read later, one by one, and checked then.
  def read(key):
    array = file.get_tensor(key)
    if hashes.get(key, "") not in ("", tensor_hash(array)):
      raise ValueError(
        f"{path}: the tensor {key} is not what was written (its hash "
        "differs). Restore the file from a copy, or remove it."
      )
    return array

  return {
    key: StoredTensor(
      tuple(part.get_shape()),
      _DTYPES.get(str(part.get_dtype()), str(part.get_dtype())),
      functools.partial(read, key),
      f"{path}: {key}",
    )
    for key, part in slices.items()
  }, header


def load_tree(path) -> tuple[dict, dict[str, Any]]:
  """Reads what `save_tree` wrote: the tree and the metadata.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is truncated or a tensor is not what was written.
  """
  tensors, header = open_tensors(path)
  metadata = {
    key: json_files.parse(value, f"{path}, its metadata {key},")
    for key, value in header.items()
  }
  tree = unflatten({key: tensor.read() for key, tensor in tensors.items()})
  return tree, metadata
