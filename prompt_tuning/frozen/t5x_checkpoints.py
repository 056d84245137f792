"""T5s as t5x stores them: read and written without it.

    native   checkpoint_<step>/checkpoint            the tree, msgpack
             checkpoint_<step>/target.<path>/        the arrays, zarr (older
                                                     t5x: small ones in msgpack)
    Orbax    checkpoint_<step>/state/_METADATA       the tree
             checkpoint_<step>/state/manifest.ocdbt  the arrays, zarr in OCDBT

Such a folder has no configuration: all of it but the maximal distance of the
relative positions follows from the tensors' shapes.
"""

from collections.abc import Mapping
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import tempfile
from typing import Any

from flax import serialization, traverse_util
import numpy as np

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import stored_model, t5gemma, zarr_arrays
from prompt_tuning.model import t5
from prompt_tuning.shapes import PyTree
from prompt_tuning.storage import StoredTensor

NATIVE, ORBAX = "t5x native", "t5x Orbax"
INDEX, STATE = "checkpoint", "state"
METADATA = zarr_arrays.METADATA
HASHES = "tensor_sha256.json"
_STEP = re.compile(r"checkpoint_(\d+)")
_STACKED = re.compile(r"(encoder|decoder)/\1/(.+)")


def find(path: pathlib.Path) -> pathlib.Path | None:
  """The folder of a checkpoint, given it, its index file, or a MODEL_DIR.

  Of a MODEL_DIR it is the checkpoint of the last step; None if there is none.
  """
  if path.name == INDEX and path.is_file():
    path = path.parent
  if is_native(path) or is_orbax(path):
    return path
  if not path.is_dir():
    return None
  steps = {
    int(step[1]): entry
    for entry in path.iterdir()
    if (step := _STEP.fullmatch(entry.name))
    and (is_native(entry) or is_orbax(entry))
  }
  return steps[max(steps)] if steps else None


def is_native(folder: pathlib.Path) -> bool:
  """Whether a folder is a native checkpoint."""
  return (folder / INDEX).is_file()


def is_orbax(folder: pathlib.Path) -> bool:
  """Whether a folder is an Orbax checkpoint, or its `state`.

  That of a T5Gemma is another library's.
  """
  trees = [f for f in (folder, folder / STATE) if (f / METADATA).is_file()]
  return bool(trees) and not t5gemma.flax_checkpoints.is_gemma(trees[0])


def read(
  folder: pathlib.Path, expected: t5.T5Config | None = None
) -> stored_model.StoredModel:
  """The model in a checkpoint of t5x.

  Args:
    folder: the checkpoint, see `find`.
    expected: settings that shapes do not tell (distances, epsilon).

  Raises:
    ValueError: the checkpoint is damaged or holds no T5.
  """
  # A tuned checkpoint has a prompt beside the frozen model.
  every = tensors(folder).items()
  frozen = {path: tensor for path, tensor in every if not _is_prompt(path)}
  config = infer_config(frozen, folder)
  if expected is not None:
    config = dataclasses.replace(
      config,
      relpos_max_distance=expected.relpos_max_distance,
      layer_norm_epsilon=expected.layer_norm_epsilon,
      scale_logits=expected.scale_logits,
    )
  kind = NATIVE if is_native(folder) else ORBAX
  return stored_model.StoredModel(str(folder), kind, config, frozen)


def _is_prompt(path: str) -> bool:
  """Whether a parameter is a prompt's: prompt/embedding, or of the original
  code encoder/prompt/prompt/prompt."""
  return "prompt" in path.split("/")


def prompts(folder: pathlib.Path) -> dict[str, StoredTensor]:
  """The parameters of prompts in a checkpoint."""
  every = tensors(folder).items()
  return {path: tensor for path, tensor in every if _is_prompt(path)}


def tensors(folder: pathlib.Path) -> dict[str, StoredTensor]:
  """Every parameter in a checkpoint of t5x, that of a prompt too."""
  opened = (_open_native if is_native(folder) else _open_orbax)(folder)
  unstacked = {}
  for path, tensor in opened.items():
    unstacked |= _unstacked(path, tensor)
  return unstacked


def _unstacked(path: str, tensor: StoredTensor) -> dict[str, StoredTensor]:
  """A tensor of all layers, as t5x's scalable_t5 scans over, by layer.

  encoder/encoder/mlp/wo/kernel [M, layers, E]: encoder/layers_0/mlp/wo/kernel …
  """
  stacked = _STACKED.fullmatch(path)
  if stacked is None:
    return {path: tensor}
  stack, rest = stacked.groups()
  whole = functools.lru_cache(1)(tensor.read)
  first, layers, *last = tensor.shape
  return {
    f"{stack}/layers_{i}/{rest}": StoredTensor(
      (first, *last),
      tensor.dtype,
      lambda i=i: np.ascontiguousarray(whole()[:, i]),
      f"{tensor.where}, layer {i}",
    )
    for i in range(layers)
  }


def infer_config(tensors: Mapping[str, Any], where) -> t5.T5Config:
  """The configuration that the shapes of a T5's tensors tell.

  Raises:
    ValueError: a tensor without which there is no T5 is missing.
  """

  def shape(path):
    if path not in tensors:
      raise ValueError(
        f"{where} has no tensor {path}, so it is no T5. It has "
        f"{', '.join(sorted(tensors)[:3]) or 'none'} …"
      )
    return tensors[path].shape

  def layers(stack):
    numbers = (re.match(rf"{stack}/layers_(\d+)/", path) for path in tensors)
    return 1 + max((int(n[1]) for n in numbers if n), default=-1)

  rows, width = shape("token_embedder/embedding")
  heads, buckets = shape("encoder/relpos_bias/rel_embedding")
  joined = shape("encoder/layers_0/attention/query/kernel")[1]
  gated = "encoder/layers_0/mlp/wi_0/kernel" in tensors
  mlp = shape(f"encoder/layers_0/mlp/{'wi_0' if gated else 'wi'}/kernel")[1]
  return t5.T5Config(
    vocab_size=rows,
    emb_dim=width,
    num_heads=heads,
    head_dim=joined // heads,
    mlp_dim=mlp,
    num_encoder_layers=layers("encoder"),
    num_decoder_layers=layers("decoder"),
    mlp_activations=("gelu", "linear") if gated else ("relu",),
    logits_via_embedding="decoder/logits_dense/kernel" not in tensors,
    relpos_buckets=buckets,
  )


def _open_native(folder: pathlib.Path) -> dict[str, StoredTensor]:
  index = folder / INDEX
  try:
    content: Any = serialization.msgpack_restore(index.read_bytes())
    tree = content.get("optimizer", content)["target"]
    # A tensor's specification is a leaf.
    leaves: Any = traverse_util.flatten_dict(
      tree, is_leaf=lambda _, node: "kvstore" in node, sep="/"
    )
  except Exception as error:  # msgpack raises many kinds
    raise ValueError(
      f"{index} cannot be read as the index of a t5x checkpoint "
      f"({type(error).__name__}: {error}). It is truncated, damaged, or of "
      "another program."
    ) from error
  hashes = {}
  if (folder / HASHES).is_file():
    fields = json_files.read_object(folder / HASHES)
    hashes = {path: fields.text(path) for path in fields}
    for path in hashes:
      if path not in leaves:
        raise ValueError(f"{index} has lost the tensor {path} of {HASHES}.")
  opened = {}
  for path, leaf in leaves.items():
    if leaf is None:
      continue
    if isinstance(leaf, Mapping):
      try:
        driver, at = leaf["driver"], leaf["kvstore"]["path"]
        name = at.rstrip("/").rpartition("/")[2]
      except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
          f"{index} does not say where the tensor {path} is. It is damaged: "
          "restore the checkpoint from a copy."
        ) from error
      kvstore = {"driver": "file", "path": f"{folder / name}/"}
      tensor = zarr_arrays.opened(driver, kvstore, str(folder / name))
    else:
      array = np.asarray(leaf)
      tensor = StoredTensor(
        array.shape, str(array.dtype), lambda a=array: a, f"{index}: {path}"
      )
    opened[path] = _hashed(tensor, hashes.get(path))
  return opened


def _hashed(tensor: StoredTensor, expected: str | None) -> StoredTensor:
  if expected is None:
    return tensor

  def read():
    array = tensor.read()
    if storage.tensor_hash(array) != expected:
      raise ValueError(
        f"{tensor.where} is not what was written (its hash differs). Restore "
        "the checkpoint from a copy."
      )
    return array

  return dataclasses.replace(tensor, read=read)


def _open_orbax(folder: pathlib.Path) -> dict[str, StoredTensor]:
  state = folder if (folder / METADATA).is_file() else folder / STATE
  metadata = json_files.read_object(state / METADATA)
  return orbax_tensors(f"file://{state.resolve()}", metadata)


def orbax_tensors(
  state: str, metadata: Mapping[str, Any], only: str | None = None
) -> dict[str, StoredTensor]:
  """The parameters in the `state` of an Orbax checkpoint.

  Args:
    state: its URL (file:// or gs://).
    metadata: what its file _METADATA says.
    only: open this one alone.
  """
  shown = state.removeprefix("file://")
  every = zarr_arrays.leaves(metadata, shown)
  roots = {keys[0] for keys in every}
  root = next((name for name in ("target", "params") if name in roots), None)
  if root is None:
    raise ValueError(
      f"{shown} is an Orbax checkpoint without 'target' or 'params'; it has "
      f"{', '.join(sorted(roots))}."
    )
  return {
    path: zarr_arrays.leaf(state, metadata, name)
    for keys, name in every.items()
    if (path := "/".join(keys[1:])) and keys[0] == root
    if only in (None, path)
  }


def save(
  folder: str | os.PathLike,
  config: t5.T5Config,
  params: PyTree,
  *,
  dtype: str | None = None,
  step: int = 0,
) -> pathlib.Path:
  """Writes a native checkpoint `checkpoint_<step>` that t5x restores.

  Args:
    folder: a folder `checkpoint_<step>`, or one to put it in.
    config: the model's shape, for the message of a wrong tree.
    params: its weights.
    dtype: cast the weights to it.
    step: what t5x takes for the number of steps that were trained.

  Raises:
    ValueError: the tree is not that of `config`.
  """
  folder = pathlib.Path(folder)
  if not _STEP.fullmatch(folder.name):
    folder = folder / f"checkpoint_{step}"
  stored_model.check_tree(params, config, folder)
  if folder.exists():
    raise ValueError(f"{folder} exists. Choose another folder, or remove it.")
  folder.parent.mkdir(parents=True, exist_ok=True)
  unfinished = pathlib.Path(
    tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)
  )
  try:
    _write(unfinished, params, dtype, step)
    unfinished.chmod(0o755)
    unfinished.rename(folder)
  except BaseException:
    shutil.rmtree(unfinished, ignore_errors=True)
    raise
  return folder


def _write(folder: pathlib.Path, params: PyTree, dtype, step: int) -> None:
  leaves, hashes = {}, {}
  for path, leaf in storage.flatten(params).items():
    array = np.asarray(leaf if dtype is None else leaf.astype(dtype))
    stored_model.check_savable({path: array})
    hashes[path] = storage.tensor_hash(array)
    leaves[path] = zarr_arrays.write(folder, path, array)
  content = {
    "version": 3,
    "optimizer": {
      "target": storage.unflatten(leaves),
      "state": {"step": np.int32(step)},
    },
  }
  storage.write_json(folder / HASHES, hashes)
  storage.write_atomically(
    folder / INDEX,
    lambda name: pathlib.Path(name).write_bytes(
      serialization.msgpack_serialize(content)
    ),
  )
