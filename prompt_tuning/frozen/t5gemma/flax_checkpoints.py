"""T5Gemmas as gemma (google-deepmind) stores them: read without it.

folder/_METADATA, manifest.ocdbt, …    the tree, by Orbax; or in
folder/default/, folder/state/,        (what Orbax has not finished writing
folder/NAME/, folder/NAME/default/ …   is passed over)
folder/tokenizer.model                 the vocabulary, if it is there
folder/config.json                     Hugging Face's, for other sizes than
                                       the published ones
"""

import functools
import math
import pathlib
import re
from typing import Any

import numpy as np

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import stored_model, zarr_arrays
from prompt_tuning.frozen.t5gemma import flax_sizes, flax_tree, settings
from prompt_tuning.frozen.t5gemma.flax_tree import Piece
from prompt_tuning.model import t5
from prompt_tuning.model.t5gemma import T5GemmaConfig
from prompt_tuning.storage import StoredTensor
from prompt_tuning.vocabulary import GEMMA_IDS, T5_IDS, Ids, Vocabulary

FORMAT = "Gemma Orbax"
_CONFIG, _INSIDE = "config.json", ("default", "state")
_UNFINISHED = ".orbax-checkpoint-tmp"  # of a folder until it is whole
_VOCABULARIES = ("tokenizer.model", "vocabulary.model", "tokenizer.json")
_OTHER_WEIGHTS = ("*.safetensors", "*.bin", "checkpoint")
# What may stand in front of a leaf's name: of a trainer, of older checkpoints.
_ROOTS = ("params", "transformer")
_GEMMA = re.compile(r"(.+/)?(embedder/input_embedding|attn/attn_vec_einsum)")


def is_gemma(tree: pathlib.Path) -> bool:
  """Whether a folder is a tree of Orbax with the names of gemma."""
  try:
    is_tree = (tree / zarr_arrays.METADATA).is_file()
    return is_tree and any(_GEMMA.fullmatch(name) for name, _ in _named(tree))
  except (OSError, ValueError):
    return False  # said when it is read as whatever else it may be


def find(path: pathlib.Path) -> pathlib.Path | None:
  """The folder of a tree with the names of gemma; None if there is none.

  It is the path itself, `default` or `state` in it, or the one such folder in
  it.

  Raises:
    ValueError: there are several, or none but one that is half written.
  """
  for tree in _places(path):
    if is_gemma(tree):
      return tree
  if not path.is_dir() or any([*path.glob(name)] for name in _OTHER_WEIGHTS):
    return None
  found = [
    tree
    for folder in sorted(path.iterdir())
    for tree in _places(folder)
    if is_gemma(tree)
  ]
  whole = [
    tree
    for tree in found
    if not any(_UNFINISHED in name for name in tree.relative_to(path).parts)
  ]
  if found and not whole:
    raise ValueError(
      f"{found[0]} is a checkpoint that Orbax has not finished writing, and "
      f"{path} holds no other. Give the path of a whole one."
    )
  if len(whole) > 1:
    raise ValueError(
      f"{path} holds several checkpoints: "
      f"{', '.join(str(tree) for tree in whole[:5])}. Give the path of one."
    )
  return whole[0] if whole else None


def check_index(path: pathlib.Path) -> None:
  """Refuses a damaged index where `find` found no tree, and one was expected.

  Raises:
    ValueError: the file _METADATA there cannot be read or names no leaf.
  """
  for tree in _places(path):
    if (tree / zarr_arrays.METADATA).is_file() and not _named(tree):
      raise ValueError(
        f"{tree / zarr_arrays.METADATA} names no leaf. It is damaged: restore "
        "the checkpoint from a copy."
      )


def _places(folder: pathlib.Path) -> list[pathlib.Path]:
  """Where a checkpoint's tree may lie."""
  return [folder, *(folder / name for name in _INSIDE)]


def read(
  tree: pathlib.Path, beside: pathlib.Path, expected: T5GemmaConfig | None
) -> stored_model.StoredModel:
  """The model in a tree of gemma's.

  Args:
    tree: see `find`.
    beside: the path that was given.
    expected: what shapes do not tell, where no config.json does.

  Raises:
    ValueError: the tree is damaged or not whole, is another model than a
      T5Gemma, or has sizes that leave something open.
  """
  shown, arrays = str(tree), _leaves(tree)
  if not any(name.startswith("encoder/") for name in arrays):
    raise ValueError(
      f"{shown} holds a Gemma without an encoder. A prompt is put before the "
      "input of an encoder here: give a T5Gemma or a T5."
    )
  metadata = json_files.read_object(tree / zarr_arrays.METADATA)
  opened = functools.partial(
    zarr_arrays.leaf, f"file://{tree.resolve()}", metadata
  )
  leaves = {name: opened(array) for name, array in arrays.items()}
  sizes = flax_sizes.sizes_of(
    {name: leaf.shape for name, leaf in leaves.items()}, shown
  )
  config = _config(sizes, (tree, beside), expected)
  made = flax_tree.pieces(config, sizes.layouts, sizes.rows)
  _check_leaves(leaves, made, shown)
  shapes = storage.flatten(t5.abstract_parameters(config))
  tensors = {
    path: _tensor(leaves, made[path], shape.shape, opened, arrays)
    for path, shape in shapes.items()
  }
  special = T5_IDS if config.start_id == 0 else GEMMA_IDS
  vocabulary = _vocabulary((tree, beside, tree.parent), special)
  return stored_model.StoredModel(
    shown, FORMAT, config, tensors, vocabulary, special
  )


def _leaves(tree: pathlib.Path) -> dict[str, str]:
  """What the array of every leaf is called, by its name in `flax_tree`.

  Raises:
    ValueError: two leaves have one name there.
  """
  found: dict[str, str] = {}
  for name, array in _named(tree):
    if name in found:
      raise ValueError(
        f"{tree} holds {name} twice, as {found[name]} and as {array}, so which "
        "weights are the model's is open. Save those of one model."
      )
    found[name] = array
  return found


def _named(tree: pathlib.Path) -> list[tuple[str, str]]:
  """Every leaf's name in `flax_tree`, and what its array is called."""
  metadata = json_files.read_object(tree / zarr_arrays.METADATA)
  every = zarr_arrays.leaves(metadata, str(tree))
  if any(keys[0] == "params" for keys in every):
    every = {k: name for k, name in every.items() if k[0] == "params"}
  found = []
  for keys, name in every.items():
    words = "/".join(keys).split("/")
    while words[0] in _ROOTS and len(words) > 1:
      words = words[1:]
    last = -1 if words[-1] == "w" else None
    found.append(("/".join(words[:last]), name))
  return found


def _config(sizes, places, expected) -> T5GemmaConfig:
  """The shape, of config.json, of what is expected, or as published."""
  for folder in places:
    file = folder / _CONFIG
    if not file.is_file():
      continue
    fields = json_files.read_object(file)
    if not settings.is_t5gemma(fields):
      raise fields.refuse(
        "model_type", f"{settings.MODEL_TYPE!r}, as the weights beside it are"
      )
    config = settings.config_of(fields, has_head=False)
    flax_sizes.check_sizes(sizes, config, str(file))
    return config
  return flax_sizes.config_of(sizes, expected, str(places[0]))


def _check_leaves(
  leaves: dict[str, StoredTensor], made: dict[str, Piece], where: str
) -> None:
  """Compares the leaves with what a T5Gemma of these sizes has.

  Raises:
    ValueError: one is missing, has no place, or has another shape.
  """
  want = {piece.leaf: piece.whole for piece in made.values()}
  if missing := [name for name in want if name not in leaves]:
    raise ValueError(
      f"{where} has no tensor {missing[0]} ({len(missing)} of {len(want)} are "
      "missing). Restore the checkpoint from a copy."
    )
  if surplus := [name for name in leaves if name not in want]:
    raise ValueError(
      f"{where} has a tensor {surplus[0]} that a T5Gemma has no place for "
      f"({len(surplus)} such tensors). It is another network, or was saved "
      "with parts that were added to it; save the network's own weights."
    )
  for name, shape in want.items():
    if leaves[name].shape != shape:
      raise ValueError(
        f"{leaves[name].where}: the tensor {name} has the shape "
        f"{leaves[name].shape}, the others ask for {shape}. Restore the "
        "checkpoint from a copy."
      )


def _tensor(leaves, piece: Piece, shape, opened, arrays) -> StoredTensor:
  """A parameter that is a part of a leaf, read when its turn comes."""
  leaf: StoredTensor = leaves[piece.leaf]
  index: Any = piece.index
  if index is None and math.prod(leaf.shape) > math.prod(shape):
    index = slice(shape[0])  # rows of a table that no word has
  if index is not None:
    leaf = opened(arrays[piece.leaf], index)

  def read() -> np.ndarray:
    array = leaf.read()
    ordered = array.transpose(piece.order) if piece.order else array
    return np.ascontiguousarray(ordered).reshape(shape)

  part = "" if piece.index is None else f", part {piece.index}"
  return StoredTensor(tuple(shape), leaf.dtype, read, leaf.where + part)


def _vocabulary(places, special: Ids) -> Vocabulary | None:
  """The vocabulary in the first folder that has one."""
  for folder in places:
    for name in _VOCABULARIES:
      if (folder / name).is_file():
        return Vocabulary(str(folder / name), 0, special=special)
  return None
