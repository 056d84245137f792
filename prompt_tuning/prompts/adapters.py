"""PEFT's adapters of prompt tuning and IA3: read without PEFT, and written.

    adapter_config.json          kind, length, base model
    adapter_model.safetensors    prompt_embeddings [P x submodules, E], float32

PEFT keeps one half for the encoder and one for the decoder of a T5 unless told
otherwise, and never uses the second. Its multi-task prompt tuning holds factors
of each task as well: task k has prompt_embeddings * (cols_k rows_k). There the
second half trains in front of the decoder, and `generate` leaves it out.
"""

from collections.abc import Mapping, Sequence
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np

from prompt_tuning import json_files, storage
from prompt_tuning.prompts import initializers
from prompt_tuning.prompts.inner import ia3_adapters

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
KEY = "prompt_embeddings"
COLUMNS, ROWS = "prefix_task_cols", "prefix_task_rows"
"""The factors [K, P x submodules, r] and [K, r, E] of K tasks."""

_RECORD = "prompt_tuning_record"
_TASK = "SEQ_2_SEQ_LM"
_MULTI_TASK = "MULTITASK_PROMPT_TUNING"
_IA3 = "IA3"
_ACCEPTED = ("PROMPT_TUNING", "P_TUNING", _MULTI_TASK, _IA3)
_REASONS = {
  "PREFIX_TUNING": "it holds keys and values for every layer of the decoder, "
  "and a prompt's rows give only those that a layer makes of them",
  "CARTRIDGE": "it holds a cache of keys and values, not a prompt",
  "CPT": "its prompt is bound to the tokens of its examples",
  "LORA": "it changes the frozen weights and has no prompt",
}


def is_adapter(folder: pathlib.Path) -> bool:
  """Whether a folder holds an adapter of PEFT."""
  return (folder / CONFIG).is_file()


def is_of_tasks(folder: pathlib.Path) -> bool:
  """Whether a folder holds an adapter with prompts of tasks."""
  if not is_adapter(folder):
    return False
  return json_files.read_object(folder / CONFIG).get("peft_type") == _MULTI_TASK


Found = np.ndarray | dict[str, np.ndarray]
"""A prompt [P, E], or IA3's tensors by name."""


def read(folder: pathlib.Path) -> tuple[Found, dict[str, Any]]:
  """The prompt of an adapter, and what is known of it.

  Raises:
    FileNotFoundError: the weights are missing.
    ValueError: it is another kind of adapter, damaged, or of several tasks.
  """
  prompts, record = read_all(folder)
  if len(prompts) > 1:
    raise ValueError(
      f"The adapter {folder} holds prompts of {len(prompts)} tasks, and one is "
      f"needed. `prompt-tuning convert {folder} FOLDER --to prompt-tuning` "
      "writes each into a folder of its own."
    )
  return prompts[0], record


def read_all(
  folder: pathlib.Path,
) -> tuple[Sequence[Found], dict[str, Any]]:
  """The prompts of an adapter, one for each of its tasks, as `read` does.

  Raises:
    FileNotFoundError: the weights are missing.
    ValueError: it is another kind of adapter, or damaged.
  """
  # What kind of adapter it is: most of PEFT's are no prompts.
  settings = json_files.read_object(folder / CONFIG)
  kind = settings.get("peft_type")
  if kind not in _ACCEPTED:
    reason = _REASONS.get(str(kind), "it is no prompt tuning")
    raise ValueError(
      f"{folder / CONFIG} describes an adapter of type {kind!r}: {reason}. "
      f"Only {', '.join(_ACCEPTED[:-1])} and {_ACCEPTED[-1]} adapters are "
      "read."
    )
  if not (folder / WEIGHTS).is_file():
    hint = ""
    if (folder / PICKLED).is_file():
      hint = f" {PICKLED} is a pickle, which is never loaded: save it with "
      hint += "PEFT as safetensors (safe_serialization=True)."
    raise FileNotFoundError(f"The adapter {folder} has no {WEIGHTS}.{hint}")
  task = settings.text("task_type", _TASK)
  if task != _TASK:
    raise ValueError(
      f"{folder / CONFIG} has task_type={task!r}: the adapter is for another "
      f"kind of model ({settings.get('base_model_name_or_path')!r}), and a T5 "
      f"takes those of {_TASK}."
    )

  # Whether the prompt is all that it holds.
  tensors, metadata = storage.open_tensors(folder / WEIGHTS)
  needed = (KEY, COLUMNS, ROWS) if kind == _MULTI_TASK else (KEY,)
  if kind == _IA3:
    needed = tuple(filter(ia3_adapters.is_vector, sorted(tensors)))
  for name in needed:
    if name not in tensors:
      raise ValueError(
        f"{folder / WEIGHTS} has no tensor {name}; it has "
        f"{', '.join(sorted(tensors)) or 'none'}."
      )
  more = sorted({*tensors} - {*needed})
  if more or settings.get("modules_to_save"):
    raise ValueError(
      f"{folder / WEIGHTS} has trained weights beside the prompt "
      f"({', '.join(more) or settings['modules_to_save']}): the adapter is a "
      "prompt and a changed model (modules_to_save), and a prompt alone would "
      "answer otherwise. Train it without modules_to_save."
    )
  base = settings.text("base_model_name_or_path", None)
  if kind == _IA3:
    vectors = {name: tensors[name].read() for name in needed}
    about = {"model": {"source": base}, "method": {"name": kind}}
    return [ia3_adapters.read(vectors, folder / WEIGHTS)], about

  # The rows in front of the encoder's input, and what was said of them here.
  arrays = [np.asarray(tensors[name].read(), np.float32) for name in needed]
  values = _first_part(arrays[0], settings, folder / WEIGHTS)
  prompts = [values]
  if kind == _MULTI_TASK:
    _check_factors(*arrays, where=folder / WEIGHTS)
    prompts = [values * each[: len(values)] for each in arrays[1] @ arrays[2]]
  for each in prompts:
    initializers.check_prompt(each, folder / WEIGHTS)
  record = json_files.parse_object(
    metadata.get(_RECORD, "{}"), f"{folder / WEIGHTS}, its metadata {_RECORD}"
  )
  return prompts, {"model": {"source": base}, **record}


def _check_factors(shared, columns, rows, *, where: pathlib.Path) -> None:
  """Refuses factors that are not of the shared prompt.

  Raises:
    ValueError: their shapes do not go together.
  """
  fits = columns.ndim == rows.ndim == 3 and (
    (columns.shape[:2], rows.shape[2])
    == ((len(rows), *shared.shape[:1]), shared.shape[1])
    and columns.shape[2] == rows.shape[1]
  )
  if not fits or not len(rows):
    raise ValueError(
      f"{where}: {COLUMNS} {columns.shape} and {ROWS} {rows.shape} are no "
      f"factors of {KEY} {shared.shape} for the same tasks. The files are not "
      "of one adapter."
    )


def _first_part(
  values: np.ndarray, settings: json_files.Fields, where
) -> np.ndarray:
  """The rows that PEFT puts in front of the encoder's input."""
  length = settings.whole("num_virtual_tokens")
  parts = settings.whole("num_transformer_submodules", None)
  rows = values.shape[0] if values.ndim == 2 else -1
  if rows == length:
    return values
  if rows == 2 * length and parts in (2, None):
    of_tasks = settings.get("peft_type") == _MULTI_TASK
    logging.getLogger(__name__).warning(
      "%s holds %d rows for num_virtual_tokens=%d: the second half is PEFT's "
      "decoder part, which %s, and is left out.",
      *(where, rows, length),
      "PEFT trains in front of the decoder but leaves out when it generates"
      if of_tasks
      else "T5 never uses",
    )
    return values[:length]
  raise ValueError(
    f"{where}: {KEY} has shape {values.shape}, but {CONFIG} says "
    f"num_virtual_tokens={length} and num_transformer_submodules={parts}. The "
    "files are not of one adapter."
  )


def save(
  folder: str | os.PathLike, values, base_model: str, record: Mapping[str, Any]
) -> pathlib.Path:
  """Writes a prompt [P, E] as an adapter that PEFT loads.

  Args:
    folder: where to.
    values: the prompt.
    base_model: a folder or a name on the hub, what PEFT calls
      base_model_name_or_path.
    record: what prompt.json says; it comes back when the adapter is read here.

  Raises:
    ValueError: the prompt is not a finite [P, E].
  """
  folder = pathlib.Path(folder)
  values = np.asarray(values, np.float32)
  initializers.check_prompt(values, folder / WEIGHTS)
  storage.save_tensors(
    folder / WEIGHTS,
    {KEY: values},
    {"format": "pt", _RECORD: json.dumps(dict(record))},
  )
  storage.write_json(
    folder / CONFIG,
    {
      "peft_type": "PROMPT_TUNING",
      "task_type": "SEQ_2_SEQ_LM",
      "num_virtual_tokens": values.shape[0],
      "token_dim": values.shape[1],
      "num_transformer_submodules": 1,
      "base_model_name_or_path": base_model,
      "prompt_tuning_init": "RANDOM",
      "inference_mode": True,
    },
  )
  return folder
