"""The artefact: `prompt.npy` [P, E] with `prompt.json` beside it.

prompt.json says what the numbers are for: the task, the frozen model and its
hash, how the prompt was made, its scores, and a hash of the tensor.
"""

from collections.abc import Mapping
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from prompt_tuning import initializers, pretrained, storage

ARRAY, RECORD = "prompt.npy", "prompt.json"


@dataclasses.dataclass(frozen=True)
class SavedPrompt:
  """A prompt that was read.

  Attributes:
    values: float32 [P, E].
    record: what prompt.json says; empty for a bare .npy file.
    path: where it came from.
  """

  values: np.ndarray
  record: dict[str, Any]
  path: str

  @property
  def name(self) -> str:
    """The task, or the file's name."""
    return str(self.record.get("task") or pathlib.Path(self.path).stem)


def save_prompt(
  folder: str | os.PathLike, values, record: Mapping[str, Any]
) -> pathlib.Path:
  """Writes prompt.npy and prompt.json into a folder, each atomically.

  Raises:
    ValueError: the prompt is not a finite [P, E].
  """
  folder = pathlib.Path(folder)
  values = np.asarray(values, np.float32)
  initializers.check_prompt(values, folder / ARRAY)

  def write(name):
    with open(name, "wb") as file:
      np.save(file, values, allow_pickle=False)

  storage.write_atomically(folder / ARRAY, write)
  length, width = values.shape
  storage.write_json(
    folder / RECORD,
    {
      "format": "prompt-tuning prompt, version 1",
      "length": length,
      "width": width,
      "tensor_sha256": storage.tensor_hash(values),
      **record,
    },
  )
  return folder


def load_prompt(
  path: str | os.PathLike,
  model: pretrained.FrozenModel | None = None,
  *,
  allow_other_model: bool = False,
) -> SavedPrompt:
  """Reads a prompt from a folder (a run's folder too) or from a .npy file.

  Args:
    path: the folder or file.
    model: the frozen model that it shall be used with.
    allow_other_model: accept a prompt that was trained for other weights.

  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: the file is damaged, the shape does not fit, a number is not
      finite, or the prompt belongs to another frozen model.
  """
  place = pathlib.Path(path)
  if not place.exists():
    raise FileNotFoundError(f"There is no prompt at {place}.")
  file = place / ARRAY if place.is_dir() else place
  if not file.is_file():
    raise FileNotFoundError(f"The folder {place} has no {ARRAY}.")
  values = initializers.read_array(file)
  width = None if model is None else model.config.emb_dim
  initializers.check_prompt(values, file, width=width)
  beside = file.parent / RECORD
  record: dict[str, Any] = {}
  if file.name == ARRAY and beside.is_file():
    record = storage.read_json(beside)
    _check_record(record, values, file)
    if model is not None and not allow_other_model:
      _check_model(record, model, file)
  return SavedPrompt(values.astype(np.float32), record, str(path))


def _check_record(record, values, file) -> None:
  expected = record.get("tensor_sha256")
  if expected and storage.tensor_hash(values) != expected:
    raise ValueError(
      f"{file} is not the prompt that {file.parent / RECORD} describes (the "
      "hash of the tensor differs). Restore both files from one copy."
    )


def _check_model(record, model: pretrained.FrozenModel, file) -> None:
  trained_for = record.get("model", {})
  expected = trained_for.get("hash")
  if expected and expected != model.stored_hash:
    raise ValueError(
      f"{file} was trained for the frozen weights of "
      f"{trained_for.get('source')!r} (hash {expected[:12]}), not for "
      f"{model.source!r} (hash {model.stored_hash[:12]}). Use the weights it "
      "was trained for, or set ALLOW_OTHER_MODEL=True to try it all the same."
    )
