"""A prompt's first values under t5x, and its file at every checkpoint.

base checkpoint's table -> initialiser -> first values [P, E]
t5x saves a checkpoint  -> MODEL_DIR/prompt.npy, prompt.json
                           MODEL_DIR/prompts/<step>/ the same, kept
"""

from collections.abc import Callable, Mapping
import functools
import os
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow as tf

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import pretrained, t5x_checkpoints
from prompt_tuning.prompts import checkpoints, initializers, prompt
from prompt_tuning.t5x import t5x_data

_TABLE = "token_embedder/embedding"
_FILES = (checkpoints.ARRAY, checkpoints.RECORD)


def first_values(
  initializer: initializers.Initializer | None,
  checkpoint: str | os.PathLike,
  vocabulary,
  *,
  labels: Callable[[], tuple[str, ...]] | None = None,
  seed: int = 0,
) -> Callable:
  """A Flax initialiser that starts a prompt as the embedded engine would.

  The base checkpoint's table is read once, when the first value is asked for.

  Args:
    initializer: see `initializers`; None for sampled vocabulary.
    checkpoint: the base checkpoint.
    vocabulary: its seqio vocabulary.
    labels: the task's class labels, see `class_labels`.
    seed: the prompt's seed.
  """

  @functools.cache
  def values(length: int) -> np.ndarray:
    chosen = initializer or initializers.from_vocabulary()
    source = initializers.Source(
      read_table(checkpoint),
      vocabulary.encode,
      vocabulary.vocab_size - vocabulary.extra_ids,
      labels() if labels else (),
    )
    # t5x asks while it traces; the values are those of this moment.
    with jax.ensure_compile_time_eval():
      return np.asarray(chosen(jax.random.key(seed), length, source))

  return _constant(values)


def from_file(path: str | os.PathLike | None) -> Callable:
  """A Flax initialiser with the values of a saved prompt; None for zeros."""
  if not path:
    return jax.nn.initializers.zeros

  @functools.cache
  def values(length: int) -> np.ndarray:
    found = read(path)
    initializers.check_prompt(found, path, length)
    return found

  return _constant(values)


def _constant(values: Callable[[int], np.ndarray]) -> Callable:
  def initial(key, shape, dtype=jnp.float32):
    del key
    length, width = shape
    found = values(length)
    initializers.check_prompt(found, "the initialiser", length, width)
    return jnp.asarray(found, dtype)

  return initial


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


def length(
  prompt_path: str | os.PathLike | None, checkpoint: str | os.PathLike
) -> int:
  """P of a saved prompt, or else of the prompt in a checkpoint; 0 for none."""
  if prompt_path:
    return len(read(prompt_path))
  if "://" in str(checkpoint):  # its prompt lies beside it
    folder, _, step = str(checkpoint).rstrip("/").rpartition("/checkpoint_")
    beside = f"{folder}/prompts/{step}"
    found = tf.io.gfile.exists(f"{beside}/{checkpoints.ARRAY}")
    return len(read(beside)) if found else 0
  folder = t5x_checkpoints.find(pathlib.Path(checkpoint))
  tensors = t5x_checkpoints.tensors(folder) if folder else {}
  return (
    tensors[prompt.PARAMETER].shape[0] if prompt.PARAMETER in tensors else 0
  )


def save_at_checkpoints(
  model_dir: str | os.PathLike, record: Mapping[str, Any] | None = None
) -> Callable:
  """What t5x calls at every checkpoint: it writes the prompt as a file.

  Args:
    model_dir: the run's folder.
    record: what prompt.json says beside the steps and versions.

  Returns:
    A function of t5x's SaveCheckpointConfig.state_transformation_fns; it
    changes nothing of what is saved.
  """

  def save(state, param_infos):
    rows = storage.flatten(state["target"]).get(prompt.PARAMETER)
    if rows is not None and jax.process_index() == 0:
      values = np.asarray(rows.addressable_data(0))
      step = int(np.asarray(state["state"]["step"].addressable_data(0)))
      about = {
        "steps": step,
        **(record or {}),
        "versions": checkpoints.versions(),
      }
      for place in (f"{model_dir}/prompts/{step}", str(model_dir)):
        _write(place, values, about)
    return state, param_infos

  return save


def _write(place: str, values: np.ndarray, about: Mapping[str, Any]) -> None:
  """Saves a prompt in a folder, of a bucket too (gs://)."""
  if "://" not in place:
    checkpoints.save_prompt(place, values, about)
    return
  tf.io.gfile.makedirs(place)
  with tempfile.TemporaryDirectory() as here:
    checkpoints.save_prompt(here, values, about)
    for name in _FILES:
      tf.io.gfile.copy(f"{here}/{name}", f"{place}/{name}", overwrite=True)


def read(place: str | os.PathLike) -> np.ndarray:
  """The values of a saved prompt: a folder or a numpy file, in a bucket too."""
  if "://" not in str(place):
    return checkpoints.load_prompt(place).values
  with tempfile.TemporaryDirectory() as here:
    if tf.io.gfile.exists(str(place)) and not tf.io.gfile.isdir(str(place)):
      tf.io.gfile.copy(str(place), f"{here}/{checkpoints.ARRAY}")
      return checkpoints.load_prompt(f"{here}/{checkpoints.ARRAY}").values
    for name in _FILES:
      if not tf.io.gfile.exists(f"{place}/{name}"):
        raise ValueError(
          f"{place} has no {name}. Set PROMPT_PATH to the folder of a run that "
          "tuned a prompt, or to one of its prompts/<step>."
        )
      tf.io.gfile.copy(f"{place}/{name}", f"{here}/{name}")
    return checkpoints.load_prompt(here).values


def record(
  mixture_or_task_name: str,
  initial_checkpoint_path: str,
  initializer: initializers.Initializer | None,
  seed: int,
) -> dict[str, Any]:
  """What a prompt.json of a run under t5x says."""
  name = "from_vocabulary" if initializer is None else initializer.__qualname__
  return {
    "task": mixture_or_task_name,
    "seed": seed,
    "initializer": name.partition(".")[0],
    "model": {"source": str(initial_checkpoint_path)},
  }
