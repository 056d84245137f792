"""This project's own model folder.

config.json            the fields of T5Config, `extra_ids`, `added_tokens`, and
                       `special_ids` where the vocabulary's file has others
weights.safetensors    the parameter tree, any float dtype, with hashes of its
                       tensors and of the other two files
vocabulary.model       SentencePiece pieces, without the sentinels; or
tokenizer.json         a vocabulary of the tokenizers library
"""

from collections.abc import Mapping
import dataclasses
import os
import pathlib
import shutil

import jax
import numpy as np

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import stored_model
from prompt_tuning.model import t5
from prompt_tuning.shapes import PyTree
from prompt_tuning.vocabulary import BYTES, GEMMA_IDS, T5_IDS, Ids, Vocabulary

_FILES = "file_sha256"
FORMAT = "prompt-tuning"
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
VOCABULARY, TOKENIZER = "vocabulary.model", "tokenizer.json"
# No fields of T5Config.
_BESIDE = ("extra_ids", "added_tokens", "vocabulary", "special_ids")


def read(folder: pathlib.Path) -> stored_model.StoredModel:
  """The model in a folder as above.

  Raises:
    FileNotFoundError: one of its files is missing.
    ValueError: a file is damaged.
  """
  for name in (CONFIG, WEIGHTS):
    if not (folder / name).is_file():
      raise FileNotFoundError(f"The model folder {folder} has no {name}.")
  tensors, header = storage.open_tensors(folder / WEIGHTS)
  _check_files(folder, header)
  settings = dict(json_files.read_object(folder / CONFIG))
  beside = json_files.Fields(
    {name: settings.pop(name, None) for name in _BESIDE},
    folder / CONFIG,
  )
  extra_ids = beside.whole("extra_ids", 0, least=0)
  tokens = beside.table("added_tokens")
  added = {text: tokens.whole(text, least=0) for text in tokens}
  special = _special(beside)
  vocabulary = None
  if beside.text("vocabulary", None) == BYTES:
    vocabulary = Vocabulary(BYTES, extra_ids, added)
  else:
    for name in (VOCABULARY, "spiece.model", TOKENIZER):
      if vocabulary is None and (folder / name).is_file():
        file = str(folder / name)
        vocabulary = Vocabulary(file, extra_ids, added, special)
  return stored_model.StoredModel(
    str(folder),
    FORMAT,
    stored_model.config_of(json_files.Fields(settings, folder / CONFIG)),
    tensors,
    vocabulary,
    special,
  )


def _special(beside: json_files.Fields) -> Ids:
  """The ids of pad, eos and unk in the vocabulary's file.

  Raises:
    ValueError: they are not 0, 1 and 2 in some order.
  """
  have = beside.get("special_ids")
  ids = list(T5_IDS) if have is None else have
  is_list = isinstance(ids, list) and all(type(i) is int for i in ids)
  known = is_list and (sorted(ids) == list(T5_IDS) or ids == list(GEMMA_IDS))
  if not known:
    raise beside.refuse("special_ids", "0, 1 and 2 in some order, or 0, 1, 3")
  return (ids[0], ids[1], ids[2])


def _check_files(folder: pathlib.Path, header: Mapping[str, str]) -> None:
  """Compares the files beside the weights with what was written with them."""
  hashes = json_files.parse_object(
    header.get(_FILES, "{}"), f"{folder / WEIGHTS}, its metadata {_FILES}"
  )
  for name in hashes:
    written = hashes.text(name)
    file = folder / name
    if not file.is_file():
      raise FileNotFoundError(
        f"The model folder {folder} has lost its {name}. Restore it from a "
        "copy."
      )
    if storage.file_hash(file) != written:
      raise ValueError(
        f"{file} is not what was written with the weights (its hash differs). "
        "Restore it from a copy, or save the model anew."
      )


def save(
  folder: str | os.PathLike,
  config: t5.Config,
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
  stored_model.check_savable(tree)
  settings = dataclasses.asdict(config)
  beside = [folder / CONFIG]
  if vocabulary is not None:
    settings["extra_ids"] = vocabulary.extra_ids
    if vocabulary.added:
      settings["added_tokens"] = vocabulary.added
    if vocabulary.special != T5_IDS:
      settings["special_ids"] = list(vocabulary.special)
    if vocabulary.path == BYTES:
      settings["vocabulary"] = BYTES
    else:
      name = TOKENIZER if vocabulary.is_json else VOCABULARY
      copy_vocabulary(vocabulary, folder / name)
      beside.append(folder / name)
      # What a model of another kind left here would be read in its place.
      other = VOCABULARY if vocabulary.is_json else TOKENIZER
      (folder / other).unlink(missing_ok=True)
  storage.write_json(folder / CONFIG, settings)
  hashes = {file.name: storage.file_hash(file) for file in beside}
  storage.save_tree(folder / WEIGHTS, tree, {_FILES: hashes})
  return folder


def copy_vocabulary(vocabulary: Vocabulary, target: pathlib.Path) -> None:
  """Copies the vocabulary's file, unless it stands there already."""
  if not target.exists() or not target.samefile(vocabulary.path):
    storage.write_atomically(
      target, lambda name: shutil.copyfile(vocabulary.path, name)
    )
