"""The artefact: `prompt.npy` [P, E] with `prompt.json` beside it.

prompt.json says what the numbers are for: the task, the frozen model and its
hash, how the prompt was made, its scores, and a hash of the tensor. Bare numpy
files (of the original code too) and PEFT's adapters are prompts as well.
"""

from collections.abc import Mapping
import dataclasses
import importlib.metadata
import os
import pathlib
from typing import Any

import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts import adapters, initializers

ARRAY, RECORD = "prompt.npy", "prompt.json"
UPSTREAM = "encoder.prompt.prompt.prompt"
"""The numpy file that the original code writes, in a folder per step."""


@dataclasses.dataclass(frozen=True)
class SavedPrompt:
  """A prompt that was read.

  Attributes:
    format: 'prompt-tuning', 'numpy' or 'PEFT'.
    values: float32 [P, E].
    record: what prompt.json says; empty for a bare .npy file.
    path: where it came from.
  """

  values: np.ndarray
  record: dict[str, Any]
  path: str
  format: str = "prompt-tuning"

  @property
  def name(self) -> str:
    """The task, or the file's name."""
    return str(self.record.get("task") or pathlib.Path(self.path).stem)


def save_prompt(
  folder: str | os.PathLike, values, record: Mapping[str, Any]
) -> pathlib.Path:
  """Writes prompt.npy and prompt.json into a folder, each atomically.

  Args:
    folder: is made where it is not there.
    values: [P, E].
    record: what else prompt.json says; it may be that of another prompt, whose
      length, width and hash are replaced.

  Raises:
    ValueError: the prompt is not a finite [P, E].
  """
  folder = pathlib.Path(folder)
  values = np.asarray(values, np.float32)
  initializers.check_prompt(values, folder / ARRAY)
  _save_numpy(folder / ARRAY, values)
  length, width = values.shape
  own = {
    "format": "prompt-tuning prompt, version 1",
    "length": length,
    "width": width,
    "tensor_sha256": storage.tensor_hash(values),
  }
  storage.write_json(folder / RECORD, {**own, **record, **own})
  return folder


def is_prompt(path: str | os.PathLike) -> bool:
  """Whether there is a prompt at a path, of whatever format."""
  path = pathlib.Path(path)
  if path.is_dir():
    names = (ARRAY, UPSTREAM, adapters.CONFIG)
    return any((path / name).is_file() for name in names)
  return path.suffix == ".npy" or path.name == UPSTREAM


def load_prompt(
  path: str | os.PathLike,
  model: pretrained.FrozenModel | None = None,
  *,
  allow_other_model: bool = False,
) -> SavedPrompt:
  """Reads a prompt: a folder (a run's too), a numpy file or an adapter.

  Args:
    path: the folder or file.
    model: the frozen model that it shall be used with.
    allow_other_model: accept a prompt that was trained for other weights.

  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: the file is damaged, the shape does not fit, a number is not
      finite, or the prompt belongs to another frozen model.
  """
  where = pathlib.Path(path)
  if not where.exists():
    raise FileNotFoundError(
      f"There is no prompt at {where}. Give the folder of a run or of an "
      "adapter of PEFT, or a numpy file [P, E]."
    )
  values, record, file, kind = _read(where)
  if model is not None:
    initializers.check_prompt(values, file, width=model.config.emb_dim)
    if not allow_other_model:
      _check_model(record, model, file)
  return SavedPrompt(values.astype(np.float32), record, str(path), kind)


def _read(path: pathlib.Path):
  """Values, record, file and format of the prompt at a path."""
  if adapters.is_adapter(path):
    values, record = adapters.read(path)
    return values, record, path / adapters.WEIGHTS, "PEFT"

  # A folder of ours, or one that the original code wrote.
  file = path
  if path.is_dir():
    files = [path / name for name in (ARRAY, UPSTREAM)]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
      several = path / "prompts"
      hint = f" Its prompts are {several}/*." if several.is_dir() else ""
      raise FileNotFoundError(
        f"The folder {path} has no {ARRAY}, and is no adapter of PEFT.{hint}"
      )
  values = initializers.read_array(file)
  initializers.check_prompt(values, file)

  # A record is that of our own file only.
  beside = file.parent / RECORD
  if file.name != ARRAY or not beside.is_file():
    return values, {}, file, "numpy"
  record = storage.read_json(beside)
  _check_record(record, values, file)
  return values, record, file, "prompt-tuning"


def _save_numpy(path, values) -> pathlib.Path:
  def write(name):
    with open(name, "wb") as file:
      np.save(file, values, allow_pickle=False)

  return storage.write_atomically(path, write)


FORMATS = ("prompt-tuning", "peft", "numpy")
"""What `convert` writes a prompt as."""


def convert(
  saved: SavedPrompt, target: str | os.PathLike, to: str, base_model: str = ""
) -> pathlib.Path:
  """Writes a prompt that was read in one of `FORMATS`.

  Args:
    saved: the prompt.
    target: a folder, or the file if `to` is numpy.
    to: the format.
    base_model: for PEFT, the folder or name of the frozen model in Hugging
      Face's format; by default what the prompt was trained for.

  Raises:
    ValueError: an unknown format, a folder in the place of a file, or PEFT
      without a base model.
  """
  if to not in FORMATS:
    raise ValueError(
      f"A prompt cannot be written as {to!r}; it can be as "
      f"{', '.join(FORMATS)}."
    )
  if to == "numpy":
    if pathlib.Path(target).is_dir():
      raise ValueError(
        f"{target} is a folder, and numpy is one file. Name it, for example "
        f"{pathlib.Path(target) / ARRAY}."
      )
    return _save_numpy(target, saved.values)
  if to == "prompt-tuning":
    return save_prompt(target, saved.values, saved.record)
  base = base_model or saved.record.get("model", {}).get("source")
  if not base:
    raise ValueError(
      "An adapter of PEFT names its base model, and this prompt does not know "
      "one. Give --base_model, a folder or a name on the Hugging Face hub."
    )
  return adapters.save(target, saved.values, base, saved.record)


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
      "was trained for, or set ALLOW_OTHER_MODEL=True (for an ensemble, "
      "--allow_other_model) to try it all the same."
    )


def versions(*libraries: str) -> dict[str, str]:
  """Those of libraries; by default those that a prompt's record names."""
  names = libraries or ("jax", "flax", "optax")
  return {name: importlib.metadata.version(name) for name in names}
