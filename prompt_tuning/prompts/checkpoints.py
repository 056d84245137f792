"""The artefact: `prompt.npy` [P, E] with `prompt.json` beside it.

prompt.json says what the numbers are for: the task, the frozen model and its
hash, how the prompt was made, its scores, and a hash of the tensor. Files of
arrays (`prompt_files`), PEFT's adapters and checkpoints of t5x that were tuned
with a prompt are prompts as well.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import pretrained, t5x_checkpoints
from prompt_tuning.model import inject
from prompt_tuning.prompts import adapters, initializers, prompt_files

_log = logging.getLogger(__name__)

ARRAY, RECORD = "prompt.npy", "prompt.json"
_OLD_FORMAT, _FORMAT = (
  f"prompt-tuning prompt, version {number}" for number in (1, 2)
)
_RECORD_HASH = "record_sha256"
UPSTREAM = "encoder.prompt.prompt.prompt"
"""The numpy file that the original code writes, in a folder per step."""


@dataclasses.dataclass(frozen=True)
class SavedPrompt:
  """A prompt that was read.

  Attributes:
    format: 'prompt-tuning', 'numpy', 't5x' or 'PEFT'.
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

  @property
  def placing(self) -> inject.Placing:
    """Where it stands and what it attends to; in front if nothing is said.

    Raises:
      ValueError: the record says what is not known.
    """
    try:
      return inject.Placing(
        self.record.get("place") or inject.FRONT, self.record.get("attention")
      )
    except (TypeError, ValueError) as error:
      raise ValueError(
        f"The record of {self.path} says place={self.record.get('place')!r}, "
        f"attention={self.record.get('attention')!r}: {error} It may be of a "
        "later version."
      ) from error


def save_prompt(
  folder: str | os.PathLike, values, record: Mapping[str, Any]
) -> pathlib.Path:
  """Writes prompt.npy and prompt.json into a folder, both or neither.

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
  length, width = values.shape
  own = {
    "format": _FORMAT,
    "length": length,
    "width": width,
    "tensor_sha256": storage.tensor_hash(values),
  }
  whole = {**own, **record, **own}
  whole[_RECORD_HASH] = _hash_of(whole)
  array = io.BytesIO()
  np.save(array, values, allow_pickle=False)
  text = json.dumps(whole, indent=2) + "\n"
  return storage.write_together(
    folder, {ARRAY: array.getvalue(), RECORD: text.encode()}
  )


def _hash_of(record: Mapping[str, Any]) -> str:
  """Of what a record says, but for the hash itself."""
  rest = {k: v for k, v in record.items() if k != _RECORD_HASH}
  text = json.dumps(rest, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def is_prompt(path: str | os.PathLike) -> bool:
  """Whether there is a prompt at a path, of whatever format."""
  path = pathlib.Path(path)
  if path.is_dir():
    names = (ARRAY, UPSTREAM, adapters.CONFIG)
    return any(storage.current(path / name).is_file() for name in names)
  return path.suffix in prompt_files.SUFFIXES or path.name == UPSTREAM


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
  saved = SavedPrompt(values.astype(np.float32), record, str(path), kind)
  _ = saved.placing  # refused here, where it is read
  return saved


def load_prompts(path: str | os.PathLike) -> list[SavedPrompt]:
  """The prompt at a path; of PEFT's adapters of tasks one for each task."""
  if not adapters.is_of_tasks(folder := pathlib.Path(path)):
    return [load_prompt(path)]
  prompts, record = adapters.read_all(folder)
  return [
    SavedPrompt(
      rows, {**record, "peft_task_id": k}, f"{path}, task {k}", "PEFT"
    )
    for k, rows in enumerate(prompts)
  ]


def _read(path: pathlib.Path):
  """Values, record, file and format of the prompt at a path."""
  if adapters.is_adapter(path):
    values, record = adapters.read(path)
    return values, record, path / adapters.WEIGHTS, "PEFT"

  # A folder of ours, one that the original code wrote, or a run of t5x.
  home, file = path.parent, storage.current(path)
  if path.is_dir():
    home = path
    files = [storage.current(path / name) for name in (ARRAY, UPSTREAM)]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
      return _read_t5x(path)
  values = prompt_files.read_array(file)
  initializers.check_prompt(values, file)

  # A record is that of our own file only.
  if file.name != ARRAY:
    return values, {}, file, "numpy"
  beside = storage.current(home / RECORD)
  if not beside.is_file():
    _log.warning(
      "%s has no %s beside it, so nobody can tell what model and task it is "
      "for.",
      *(file, RECORD),
    )
    return values, {}, file, "numpy"
  record = json_files.read_object(beside)
  _check_record(record, values, file)
  return values, dict(record), file, "prompt-tuning"


def _read_t5x(path: pathlib.Path):
  """The prompt in a checkpoint of t5x, ours or the original code's.

  A run of ours has its file beside the checkpoint (`beside`), with its record.

  Raises:
    FileNotFoundError: there is none.
  """
  folder = t5x_checkpoints.find(path)
  if folder and (file := pathlib.Path(beside(folder)) / ARRAY).is_file():
    values, record, *_ = _read(file)
    return values, record, folder, "t5x"
  tensors = t5x_checkpoints.prompts(folder) if folder else {}
  if len(tensors) == 1:
    ((_, tensor),) = tensors.items()
    values = tensor.read()
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    initializers.check_prompt(values, tensor.where)
    return values, {}, folder, "t5x"
  inside = [
    str(place)
    for place in sorted(path.glob("*")) + sorted(path.glob("prompts/*"))
    if is_prompt(place)
  ]
  hint = f" Its prompts are {', '.join(inside[:3])}." if inside else ""
  raise FileNotFoundError(
    f"The folder {path} has no {ARRAY}, and is neither an adapter of PEFT nor "
    f"a checkpoint of t5x with a prompt. A run has its prompt when it has "
    f"ended.{hint}"
  )


def beside(checkpoint: str | os.PathLike) -> str:
  """Where a run under t5x writes the prompt of its checkpoint_<step>."""
  folder, _, name = str(checkpoint).rstrip("/").rpartition("/")
  return f"{folder or '.'}/prompts/{name.removeprefix('checkpoint_')}"


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
    ValueError: an unknown format, a folder in the place of a file, PEFT
      without a base model, or a prompt that stands where PEFT has none.
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
    if said := saved.placing.record():
      _log.warning(
        "A numpy file holds rows alone, so %s does not say that it has %s.",
        *(target, said),
      )
    return _save_numpy(target, saved.values)
  if to == "prompt-tuning":
    return save_prompt(target, saved.values, saved.record)
  if said := saved.placing.record():
    raise ValueError(
      f"{saved.path} has {said}, and PEFT's prompts stand in front and attend "
      "to everything, so there it would answer otherwise. Train it with "
      "PROMPT_PLACE='front' and PROMPT_ATTENTION=None for PEFT."
    )
  base = base_model or (saved.record.get("model") or {}).get("source")
  if not base:
    raise ValueError(
      "An adapter of PEFT names its base model, and this prompt does not know "
      "one. Give --base_model, a folder or a name on the Hugging Face hub."
    )
  return adapters.save(target, saved.values, base, saved.record)


def _check_record(record: json_files.Fields, values, file) -> None:
  """Compares a record with its prompt and with itself.

  Raises:
    ValueError: it is of another prompt, or no record.
  """
  expected = record.text("tensor_sha256", "")
  if expected and storage.tensor_hash(values) != expected:
    raise ValueError(
      f"{file} is not the prompt that {record.where} describes (the hash of "
      "the tensor differs). Restore both files from one copy."
    )
  model = record.table("model")
  for name in ("source", "hash"):
    model.text(name, "")
  # Version 1 had no hash of the record.
  own_hash = record.text(_RECORD_HASH, "")
  lost = not own_hash and record.text("format", "") != _OLD_FORMAT
  if not expected or lost or own_hash not in ("", _hash_of(record)):
    _log.warning(
      "%s was changed after it was written; what it says of the prompt may be "
      "wrong.",
      record.where,
    )


def _check_model(record, model: pretrained.FrozenModel, file) -> None:
  trained_for = record.get("model") or {}
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
