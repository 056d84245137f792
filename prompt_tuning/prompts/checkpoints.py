"""The artefact: `prompt.npy` [P, E] with `prompt.json` beside it.

prompt.json says what the numbers are for: the task, the frozen model and its
hash, how the prompt was made, its scores, and a hash of the tensor. A prompt
that has more than rows (see `tensors`) is `prompt.safetensors` instead. Files
of arrays (`prompt_files`), PEFT's adapters and checkpoints of t5x that were
tuned with a prompt are prompts as well.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import pretrained, t5x_checkpoints
from prompt_tuning.model import inject
from prompt_tuning.prompts import (
  adapters,
  initializers,
  prompt_files,
)
from prompt_tuning.prompts.inner import tensors

_log = logging.getLogger(__name__)

ARRAY, TENSORS, RECORD = "prompt.npy", "prompt.safetensors", "prompt.json"
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
    values: float32 [P, E], its rows in front.
    record: what prompt.json says; empty for a bare .npy file.
    path: where it came from.
    tensors: all that it is, by name, if it has more than rows.
  """

  values: np.ndarray
  record: dict[str, Any]
  path: str
  format: str = "prompt-tuning"
  tensors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

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

  @property
  def whole(self) -> np.ndarray | Mapping[str, np.ndarray]:
    """Its rows, or its tensors if it has more: what `with_prompts` takes."""
    return self.tensors or self.values

  def plain(self, purpose: str) -> np.ndarray:
    """Its rows, where nothing but rows is of use.

    Args:
      purpose: what that is, for the message.

    Raises:
      ValueError: it has more.
    """
    tensors.check_plain(self.tensors, self.path, purpose)
    return self.values

  def check_fits(self, model: pretrained.FrozenModel) -> None:
    """Compares its shapes with a model's.

    Raises:
      ValueError: it was trained for a model of another size.
    """
    if self.tensors:
      tensors.check_fits(self.tensors, model.config, self.path)
      return
    width = model.config.emb_dim
    initializers.check_prompt(self.values, self.path, width=width)


def save_prompt(
  folder: str | os.PathLike, values, record: Mapping[str, Any]
) -> pathlib.Path:
  """Writes prompt.npy and prompt.json into a folder, both or neither.

  Args:
    folder: is made where it is not there.
    values: [P, E]; or tensors by name, which become prompt.safetensors.
    record: what else prompt.json says; it may be that of another prompt, whose
      length, width and hash are replaced.

  Raises:
    ValueError: the prompt is not a finite [P, E], or has other tensors.
  """
  folder = pathlib.Path(folder)
  if isinstance(values, Mapping):
    name, other = TENSORS, ARRAY
    own, content = tensors.contents(values, folder / TENSORS)
  else:
    name, other = ARRAY, TENSORS
    values = np.asarray(values, np.float32)
    initializers.check_prompt(values, folder / ARRAY)
    own, content = prompt_files.contents(values)
  own = {"format": _FORMAT, **own}
  rest = {k: v for k, v in record.items() if k != tensors.SHAPES}
  whole = {**own, **rest, **own}
  whole[_RECORD_HASH] = _hash_of(whole)
  text = json.dumps(whole, indent=2) + "\n"
  storage.write_together(folder, {name: content, RECORD: text.encode()})
  (folder / other).unlink(missing_ok=True)  # the record tells which counts
  return folder


def _hash_of(record: Mapping[str, Any]) -> str:
  """Of what a record says, but for the hash itself."""
  rest = {k: v for k, v in record.items() if k != _RECORD_HASH}
  text = json.dumps(rest, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def is_prompt(path: str | os.PathLike) -> bool:
  """Whether there is a prompt at a path, of whatever format."""
  path = pathlib.Path(path)
  if path.is_dir():
    names = (ARRAY, TENSORS, UPSTREAM, adapters.CONFIG)
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
  found = {}
  if isinstance(values, dict):
    found = {k: v.astype(np.float32) for k, v in values.items()}
    width = next(iter(found.values())).shape[-1]
    values = found.get(tensors.ROWS, np.zeros((0, width)))
  saved = SavedPrompt(
    *(values.astype(np.float32), record, str(path), kind), found
  )
  if model is not None:
    saved.check_fits(model)
    if not allow_other_model:
      _check_model(record, model, file)
  _ = saved.placing  # refused here, where it is read
  return saved


def load_prompts(path: str | os.PathLike) -> list[SavedPrompt]:
  """The prompt at a path; of PEFT's adapters of tasks one for each task."""
  if not adapters.is_of_tasks(folder := pathlib.Path(path)):
    return [load_prompt(path)]
  prompts, record = adapters.read_all(folder)
  return [
    SavedPrompt(
      np.asarray(rows),
      {**record, "peft_task_id": k},
      f"{path}, task {k}",
      "PEFT",
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
    names = [ARRAY, UPSTREAM, TENSORS]
    if _has_tensors(path):
      names.reverse()
    files = [storage.current(path / name) for name in names]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
      return _read_t5x(path)
  values: Any = tensors.read(file) if file.name == TENSORS else None
  if values is None:
    values = prompt_files.read_array(file)
    initializers.check_prompt(values, file)

  # A record is that of our own file only.
  if file.name != ARRAY and not isinstance(values, dict):
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


def _has_tensors(folder: pathlib.Path) -> bool:
  """Whether the record in a folder is of tensors."""
  beside = storage.current(folder / RECORD)
  return beside.is_file() and tensors.SHAPES in json_files.read_object(beside)


def _read_t5x(path: pathlib.Path):
  """The prompt in a checkpoint of t5x, ours or the original code's.

  A run of ours has its file beside the checkpoint (`beside`), with its record.

  Raises:
    FileNotFoundError: there is none.
  """
  folder = t5x_checkpoints.find(path)
  kept = pathlib.Path(beside(folder)) if folder else path
  if folder and any((kept / name).is_file() for name in (ARRAY, TENSORS)):
    values, record, *_ = _read(kept)
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


def _check_record(record: json_files.Fields, values, file) -> None:
  """Compares a record with its prompt and with itself.

  Raises:
    ValueError: it is of another prompt, or no record.
  """
  expected = record.text("tensor_sha256", "")
  of_file = (
    storage.tree_hash if isinstance(values, dict) else storage.tensor_hash
  )
  if expected and of_file(values) != expected:
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
