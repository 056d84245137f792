"""A prompt's first parameters under t5x, and its file at every checkpoint.

base checkpoint's table -> initialiser -> rows [P, E] -> first parameters
t5x saves a checkpoint  -> rows -> MODEL_DIR/prompt.npy, prompt.json
                                   MODEL_DIR/prompts/<step>/ the same, kept
                           (prompt.safetensors of a deep prompt)
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import os
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
import tensorflow as tf

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import pretrained, t5x_checkpoints
from prompt_tuning.model import inject
from prompt_tuning.prompts import (
  checkpoints,
  initializers,
  multitask,
  prompt,
  reparameterised,
)
from prompt_tuning.prompts.inner import tensors
from prompt_tuning.shapes import PyTree
from prompt_tuning.t5x import t5x_data

_TABLE = "token_embedder/embedding"
_PROMPTS = (checkpoints.ARRAY, checkpoints.TENSORS)
_FILES = (*_PROMPTS, checkpoints.RECORD, multitask.FILE)
_UNDER = f"{prompt.NAME}/"


def first_values(
  initializer: initializers.Initializer | None,
  checkpoint: str | os.PathLike,
  vocabulary,
  *,
  labels: Callable[[], tuple[str, ...]] | None = None,
  seed: int = 0,
) -> Callable[[Any], PyTree]:
  """A function of what trains: where the embedded engine would start it.

  The base checkpoint's table is read once, when the first value is asked for.

  Args:
    initializer: see `initializers`; None for sampled vocabulary.
    checkpoint: the base checkpoint.
    vocabulary: its seqio vocabulary.
    labels: the task's class labels, see `class_labels`.
    seed: the prompt's seed.
  """

  @functools.cache
  def values(module: Any) -> PyTree:
    chosen = initializer or initializers.from_vocabulary()
    table = read_table(checkpoint)
    pieces = vocabulary.vocab_size - vocabulary.extra_ids
    source = initializers.Source(
      table, vocabulary.encode, pieces, labels() if labels else ()
    )
    rows = chosen(jax.random.key(seed), module.length, source)
    rows = _checked(rows, module, "the initialiser")
    words = table[initializers.SPECIAL : pieces]
    return module.first_parameters(rows, prompt.Given((seed,), words))

  return values


def from_file(
  path: str | os.PathLike | None,
) -> Callable[[Any], PyTree] | None:
  """The same of a saved prompt; None where the checkpoint holds it."""
  if not path:
    return None

  @functools.cache
  def values(module: Any) -> PyTree:
    found = read(path)
    if found.tensors:
      return {name: value[None] for name, value in found.tensors.items()}
    return module.first_parameters(_checked(found.values, module, path))

  return values


@dataclasses.dataclass(frozen=True)
class Saved:
  """The module of a saved prompt that does not collapse to rows: a method.

  Attributes:
    path: where it is.
    tensors: what it has.
  """

  path: str
  tensors: Mapping[str, np.ndarray]

  def __call__(self, length: int, width: int, _: int | None) -> Any:
    """Its module, a bank of one whatever is asked for."""
    shapes = {name: tensor.shape for name, tensor in self.tensors.items()}
    return tensors.Bank(length, width, 1, tuple(shapes.items()))


def saved_method(path: str | os.PathLike | None) -> Saved | None:
  """What a saved prompt needs a module of its own for; None for plain rows."""
  found = read(path) if path else None
  return Saved(found.path, found.tensors) if found and found.tensors else None


def _checked(rows, module: Any, where) -> np.ndarray:
  found = np.asarray(rows, np.float32)
  initializers.check_prompt(found, where, module.length, module.emb_dim)
  return found


def read_table(checkpoint: str | os.PathLike) -> np.ndarray:
  """The embedding table [V, E] of a checkpoint in float32."""
  if "://" in str(checkpoint):
    table = _read_table_elsewhere(str(checkpoint).rstrip("/"))
  else:
    table = pretrained.open_model(checkpoint).tensors[_TABLE].read()
  return np.asarray(table, np.float32)


def _read_table_elsewhere(checkpoint: str):
  """The table alone, of a checkpoint in a bucket."""
  if tf.io.gfile.exists(f"{checkpoint}/{t5x_checkpoints.INDEX}"):
    from t5x import checkpoints as peer

    tree = peer.load_t5x_checkpoint(checkpoint, lazy_parameters=True)
    return tree["target"]["token_embedder"]["embedding"].get()
  for state in (f"{checkpoint}/{t5x_checkpoints.STATE}", checkpoint):
    about = f"{state}/{t5x_checkpoints.METADATA}"
    if tf.io.gfile.exists(about):
      with tf.io.gfile.GFile(about) as file:
        metadata = json_files.parse_object(file.read(), about)
      found = t5x_checkpoints.orbax_tensors(state, metadata, _TABLE)
      return found[_TABLE].read()
  raise ValueError(
    f"There is no checkpoint of t5x at {checkpoint}. Give a folder "
    "checkpoint_<step>."
  )


def class_labels(
  mixture_or_task_name: str,
  task_feature_lengths: Mapping[str, int],
  split: str = "train",
  module: str | None = None,
) -> Callable[[], tuple[str, ...]]:
  """The distinct targets of a task."""

  @functools.cache
  def labels() -> tuple[str, ...]:
    parts = t5x_data.examples(
      mixture_or_task_name, split, task_feature_lengths, module
    )
    found = {text for examples, _ in parts for text in examples.target_texts()}
    return tuple(sorted(found))

  return labels


def source(
  prompt_path: str | os.PathLike | None, checkpoint: str | os.PathLike | None
) -> str | os.PathLike | None:
  """The prompt's file: PROMPT_PATH, or what a run wrote beside a checkpoint.

  None where there is neither: the checkpoint's own prompt is used, if any.

  Raises:
    ValueError: the checkpoint has the parameters of a method, and no file is
      beside it.
  """
  if prompt_path or checkpoint is None:
    return prompt_path
  found = checkpoint
  if "://" not in str(checkpoint):
    found = t5x_checkpoints.find(pathlib.Path(checkpoint))
    if found is None:
      return None  # said when it is restored
  beside = checkpoints.beside(found)
  if any(tf.io.gfile.exists(f"{beside}/{name}") for name in _PROMPTS):
    return beside
  names = {name for name in _prompt_shapes(found) if name != prompt.PARAMETER}
  if names:
    raise ValueError(
      f"{found} was tuned by a method of methods/ ({min(names)}), and its "
      f"prompt is not there, in {beside}. Set PROMPT_PATH to the prompt's file."
    )
  return None


def length(
  prompt_path: str | os.PathLike | None, checkpoint: str | os.PathLike | None
) -> int:
  """P of a saved prompt, or else of the prompt in a checkpoint; 0 for none."""
  if prompt_path:
    return len(read(prompt_path).values)
  shape = _prompt_shapes(checkpoint).get(prompt.PARAMETER, (0,))
  return shape[0]


def _prompt_shapes(checkpoint) -> dict[str, tuple[int, ...]]:
  """The prompt's parameters in a checkpoint; those in a bucket stay unread."""
  if checkpoint is None or "://" in str(checkpoint):
    return {}
  folder = t5x_checkpoints.find(pathlib.Path(checkpoint))
  tensors = t5x_checkpoints.tensors(folder) if folder else {}
  return {
    name: tensor.shape
    for name, tensor in tensors.items()
    if name.startswith(_UNDER)
  }


def placing(prompt_path: str | os.PathLike | None) -> inject.Placing:
  """Where a saved prompt stands and what it attends to, as its record says."""
  return saved(prompt_path).placing if prompt_path else inject.IN_FRONT


def save_at_checkpoints(
  model_dir: str | os.PathLike,
  record: Mapping[str, Any] | None = None,
  network: Any = None,
) -> Callable:
  """What t5x calls at every checkpoint: it writes the prompt as a file.

  Args:
    model_dir: the run's folder.
    record: what prompt.json says beside the steps and versions.
    network: what trains, whose prompt collapses to the rows; None for a plain
      prompt.

  Returns:
    A function of t5x's SaveCheckpointConfig.state_transformation_fns; it
    changes nothing of what is saved.
  """
  module = getattr(network, prompt.NAME, None)

  def save(state, param_infos):
    leaves = {
      path.removeprefix(_UNDER): leaf
      for path, leaf in storage.flatten(state["target"]).items()
      if path.startswith(_UNDER)
    }
    if leaves and jax.process_index() == 0:
      # Each device has all of them.
      params = {
        name: np.asarray(leaf.addressable_data(0))
        for name, leaf in leaves.items()
      }
      step = int(np.asarray(state["state"]["step"].addressable_data(0)))
      about = {
        "steps": step,
        **(record or {}),
        "versions": checkpoints.versions(),
      }
      for place in (f"{model_dir}/prompts/{step}", str(model_dir)):
        _write(place, params, about, module)
    return state, param_infos

  return save


def _write(place: str, params: PyTree, about, module) -> None:
  """Saves a prompt in a folder, of a bucket too (gs://)."""
  if "://" not in place:
    _write_here(place, params, about, module)
    return
  tf.io.gfile.makedirs(place)
  with tempfile.TemporaryDirectory() as here:
    _write_here(here, params, about, module)
    for name in _FILES:
      if os.path.exists(f"{here}/{name}"):
        tf.io.gfile.copy(f"{here}/{name}", f"{place}/{name}", overwrite=True)


def _write_here(folder, params: PyTree, about, module) -> None:
  values = params.get("embedding")
  if module is not None:
    every = {prompt.NAME: params}
    values = prompt.tensors(module, every) or prompt.collapsed(module, every)
  checkpoints.save_prompt(folder, values, about)
  if isinstance(module, multitask.MultiTask):
    multitask.save_shared(folder, module, params)


def read(place: str | os.PathLike) -> checkpoints.SavedPrompt:
  """A saved prompt, plain or deep: a folder or a file, in a bucket too.

  Raises:
    ValueError: it has what t5x's network has no place for.
  """
  found = saved(place)
  if not found.tensors.keys() <= {tensors.ROWS, "deep", "keep"}:
    found.plain("t5x's network")
  return found


def saved(place: str | os.PathLike) -> checkpoints.SavedPrompt:
  """The prompt at a place, with its record."""
  if "://" not in str(place):
    return checkpoints.load_prompt(place)
  with tempfile.TemporaryDirectory() as here:
    if tf.io.gfile.exists(str(place)) and not tf.io.gfile.isdir(str(place)):
      tf.io.gfile.copy(str(place), f"{here}/{checkpoints.ARRAY}")
      return checkpoints.load_prompt(f"{here}/{checkpoints.ARRAY}")
    have = [name for name in _FILES if tf.io.gfile.exists(f"{place}/{name}")]
    if checkpoints.RECORD not in have or not {*_PROMPTS} & {*have}:
      raise ValueError(
        f"{place} has no {' or '.join(_PROMPTS)} with a {checkpoints.RECORD}. "
        "Set PROMPT_PATH to the folder of a run that tuned a prompt, or to one "
        "of its prompts/<step>."
      )
    for name in have:
      tf.io.gfile.copy(f"{place}/{name}", f"{here}/{name}")
    return checkpoints.load_prompt(here)


def record(
  mixture_or_task_name: str,
  initial_checkpoint_path: str,
  initializer: initializers.Initializer | None,
  seed: int,
  *,
  method: reparameterised.Method | None = None,
  placing: inject.Placing = inject.IN_FRONT,
) -> dict[str, Any]:
  """What a prompt.json of a run under t5x says."""
  name = "from_vocabulary" if initializer is None else initializer.__qualname__
  made: Any = method(1, 1, None) if method else None
  said = prompt.method_of(made)
  return {
    "task": mixture_or_task_name,
    "seed": seed,
    "initializer": name.partition(".")[0],
    **({"method": said} if said else {}),
    **placing.record(),
    "model": {"source": str(initial_checkpoint_path)},
  }
