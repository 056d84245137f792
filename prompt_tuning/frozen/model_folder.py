"""This project's own model folder.

config.json            the fields of T5Config, and `extra_ids`
weights.safetensors    the parameter tree, any float dtype, with hashes
vocabulary.model       SentencePiece pieces, without the sentinels
"""

import dataclasses
import os
import pathlib
import shutil

import jax
import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import stored_model
from prompt_tuning.model import t5
from prompt_tuning.shapes import PyTree
from prompt_tuning.vocabulary import BYTES, Vocabulary

FORMAT = "prompt-tuning"
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
VOCABULARY = "vocabulary.model"


def read(folder: pathlib.Path) -> stored_model.StoredModel:
  """The model in a folder as above.

  Raises:
    FileNotFoundError: one of its files is missing.
    ValueError: a file is damaged.
  """
  for name in (CONFIG, WEIGHTS):
    if not (folder / name).is_file():
      raise FileNotFoundError(f"The model folder {folder} has no {name}.")
  settings = storage.read_json(folder / CONFIG)
  if not isinstance(settings, dict):
    raise ValueError(
      f"{folder / CONFIG} does not describe a T5: it is no JSON object."
    )
  extra_ids = settings.pop("extra_ids", 0)
  vocabulary = None
  if settings.pop("vocabulary", None) == BYTES:
    vocabulary = Vocabulary(BYTES, extra_ids)
  elif (folder / VOCABULARY).is_file():
    vocabulary = Vocabulary(str(folder / VOCABULARY), extra_ids)
  tensors, _ = storage.open_tensors(folder / WEIGHTS)
  config = stored_model.config_of(settings, folder / CONFIG)
  return stored_model.StoredModel(
    str(folder), FORMAT, config, tensors, vocabulary
  )


def save(
  folder: str | os.PathLike,
  config: t5.T5Config,
  params: PyTree,
  *,
  vocabulary: Vocabulary | None = None,
  dtype: str | None = None,
) -> pathlib.Path:
  """Writes a model folder; weights are cast to `dtype` if it is given.

  Raises:
    ValueError: a weight is not finite in that type.
  """
  folder = pathlib.Path(folder)
  tree = jax.tree.map(
    lambda x: np.asarray(x if dtype is None else x.astype(dtype)), params
  )
  check_finite(tree)
  storage.save_tree(folder / WEIGHTS, tree)
  settings = dataclasses.asdict(config)
  if vocabulary is not None:
    settings["extra_ids"] = vocabulary.extra_ids
    if vocabulary.path == BYTES:
      settings["vocabulary"] = BYTES
    else:
      copy_vocabulary(vocabulary, folder / VOCABULARY)
  storage.write_json(folder / CONFIG, settings)
  return folder


def check_finite(tree: PyTree) -> None:
  """Refuses weights with NaN or infinity.

  Raises:
    ValueError: the message names the first such tensor.
  """
  for path, leaf in storage.flatten(tree).items():
    if not np.isfinite(leaf.astype(np.float32)).all():
      raise ValueError(
        f"The weights {path} are not finite as {leaf.dtype}; save them in "
        "float32 or bfloat16."
      )


def copy_vocabulary(vocabulary: Vocabulary, target: pathlib.Path) -> None:
  """Copies the SentencePiece model, unless it stands there already."""
  if not target.exists() or not target.samefile(vocabulary.path):
    storage.write_atomically(
      target, lambda name: shutil.copyfile(vocabulary.path, name)
    )
