"""An array from a file of whatever program wrote it; nothing is unpickled.

.npy, or the original code's file    the array
.npz, .safetensors                   the one matrix in it
what torch.save wrote                refused, with how to convert it
"""

import io
import os
import pathlib
from typing import Any
import zipfile

import numpy as np

from prompt_tuning import storage

_TORCH = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".npy", ".npz", ".safetensors", *_TORCH)
"""Of files that can only be prompts, where a model is a folder."""


def read_array(path: str | os.PathLike) -> np.ndarray:
  """Reads the array in a file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is damaged, of another kind, or holds no matrix or
      several.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    hint = " It is a folder; name the file in it." if file.is_dir() else ""
    raise FileNotFoundError(f"There is no prompt file {path}.{hint}")
  if file.suffix == ".safetensors":
    tensors, _ = storage.open_tensors(file)
    return _only({name: t.read() for name, t in tensors.items()}, file)
  if file.suffix in _TORCH or _is_torch_zip(file):
    raise ValueError(
      f"{path} is a file of torch, which is a pickle and is never loaded. "
      "Convert it where torch is: numpy.save('prompt.npy', "
      f"torch.load({file.name!r}, weights_only=True)[KEY].float().numpy()), "
      "where KEY is the prompt's name in it."
    )
  try:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
      return loaded
    with loaded:
      # What a name without .npy holds comes as bytes.
      return _only({name: np.asarray(a) for name, a in loaded.items()}, file)
  except Exception as error:  # numpy and zipfile raise a dozen kinds
    reason = str(error) or type(error).__name__
    if "allow_pickle" in reason or "pickle" in reason:
      reason = "it holds Python objects, or is no file of numpy"
    if str(file) in reason:
      raise
    raise ValueError(
      f"{path} cannot be read as a numpy array ({reason}). It is truncated, "
      "damaged, or of another format."
    ) from error


def contents(values: np.ndarray) -> tuple[dict[str, Any], bytes]:
  """What a prompt's record says of its rows [P, E], and their file."""
  array = io.BytesIO()
  np.save(array, values, allow_pickle=False)
  return {
    "length": values.shape[0],
    "width": values.shape[1],
    "tensor_sha256": storage.tensor_hash(values),
  }, array.getvalue()


def _is_torch_zip(file: pathlib.Path) -> bool:
  """Whether a file is the archive that torch.save writes."""
  try:
    with zipfile.ZipFile(file) as archive:
      return any(name.endswith("data.pkl") for name in archive.namelist())
  except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
    return False


def _only(arrays: dict[str, np.ndarray], file: pathlib.Path) -> np.ndarray:
  """The one matrix among arrays."""
  matrices = {name: a for name, a in arrays.items() if a.ndim == 2}
  if len(matrices) == 1 and len(arrays) == 1:
    return next(iter(matrices.values()))
  have = (
    ", ".join(f"{name} {a.shape}" for name, a in arrays.items()) or "nothing"
  )
  raise ValueError(
    f"{file} must hold one matrix [P, E] and nothing else; it holds {have}. "
    "Save the prompt alone, for example with numpy.save."
  )
