"""The frozen model: weights, configuration and vocabulary of one T5.

This project's folder holds three files:

    config.json            the fields of T5Config, and `extra_ids`
    weights.safetensors    the parameter tree, any float dtype
    vocabulary.model       SentencePiece pieces, without the sentinels

The model that ships with the package is called `microworld`.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import freeze, storage, t5
from prompt_tuning.shapes import PyTree
from prompt_tuning.vocabulary import Vocabulary

SHIPPED = "microworld"
"""The name of the frozen model that ships with the package."""

CONFIG, WEIGHTS, VOCABULARY = (
  "config.json",
  "weights.safetensors",
  "vocabulary.model",
)


@dataclasses.dataclass(frozen=True)
class FrozenModel:
  """A T5 that is read once and never written.

  Attributes:
    config: its shape.
    params: its parameter tree on the device.
    vocabulary: what turns text into its ids.
    source: where it came from, for messages and metadata.
    stored_hash: hash of the weights as they are stored, before any cast; the
      identity of the model in prompt.json.
  """

  config: t5.T5Config
  params: PyTree
  vocabulary: Vocabulary | None
  source: str
  stored_hash: str

  @functools.cached_property
  def num_parameters(self) -> int:
    """How many numbers the frozen weights hold."""
    return freeze.count(self.params)

  @property
  def embedding(self) -> np.ndarray:
    """The embedding table [V, E] in float32."""
    table = self.params["token_embedder"]["embedding"]
    return np.asarray(table.astype(jnp.float32))


def shipped_folder(name: str = SHIPPED) -> pathlib.Path:
  """Where the package keeps a shipped model."""
  return pathlib.Path(
    str(importlib.resources.files("prompt_tuning") / "assets" / name)
  )


def shipped_vocabulary(name: str = SHIPPED, extra_ids: int = 16) -> Vocabulary:
  """The vocabulary of a shipped model; to pre-train that model again."""
  return Vocabulary(str(shipped_folder(name) / VOCABULARY), extra_ids)


def load(
  path: str | os.PathLike,
  config: t5.T5Config | None = None,
  dtype: str | None = None,
) -> FrozenModel:
  """Loads a frozen T5.

  Args:
    path: a folder as above, or 'microworld' for the model that ships.
    config: the shape that the model is expected to have; the folder's own
      config.json decides if it is None.
    dtype: cast the weights to 'float32', 'bfloat16' or 'float16'; None means
      float32 for weights stored in float16, else what is stored.

  Raises:
    FileNotFoundError: the folder or one of its files is missing.
    ValueError: a file is damaged, or weights and configuration do not fit.
  """
  folder = pathlib.Path(path)
  if str(path) == SHIPPED and not folder.exists():
    folder = shipped_folder()
  if not folder.is_dir():
    raise FileNotFoundError(
      f"There is no model folder {str(path)!r}. Give a folder with "
      f"{CONFIG} and {WEIGHTS}, or {SHIPPED!r} for the model that ships."
    )
  for name in (CONFIG, WEIGHTS):
    if not (folder / name).is_file():
      raise FileNotFoundError(f"The model folder {folder} has no {name}.")
  settings = storage.read_json(folder / CONFIG)
  if not isinstance(settings, dict):
    raise ValueError(
      f"{folder / CONFIG} does not describe a T5: it is no JSON object."
    )
  extra_ids = settings.pop("extra_ids", 0)
  found = _config(settings, folder / CONFIG)
  shape = config and dataclasses.replace(
    config, dtype=found.dtype, dropout_rate=found.dropout_rate
  )
  if shape and shape != found:
    raise ValueError(
      f"{folder / CONFIG} describes {found}, the run asks for {config}. Use "
      "the gin file of this model."
    )
  config = found
  tree, _ = storage.load_tree(folder / WEIGHTS)
  check_tree(tree, config, folder / WEIGHTS)
  vocabulary = None
  if (folder / VOCABULARY).is_file():
    vocabulary = Vocabulary(str(folder / VOCABULARY), extra_ids)
  return FrozenModel(
    config, _cast(tree, dtype), vocabulary, str(path), weights_hash(tree)
  )


def random(
  config: t5.T5Config,
  vocabulary: Vocabulary | None = None,
  *,
  seed: int = 0,
  dtype: str = "float32",
) -> FrozenModel:
  """A T5 of random weights: for tests, and for trying out sizes."""
  tokens = jnp.ones((1, 1), jnp.int32)
  init = jax.jit(t5.T5(config).init)
  tree = init(jax.random.key(seed), tokens, tokens)["params"]
  return FrozenModel(
    config,
    _cast(tree, dtype),
    vocabulary,
    f"random weights (seed {seed})",
    weights_hash(tree),
  )


def save(
  folder: str | os.PathLike,
  config: t5.T5Config,
  params: PyTree,
  *,
  vocabulary: Vocabulary | None = None,
  dtype: str | None = None,
) -> pathlib.Path:
  """Writes a model folder; weights are cast to `dtype` if it is given."""
  folder = pathlib.Path(folder)
  tree = jax.tree.map(
    lambda x: np.asarray(x if dtype is None else x.astype(dtype)), params
  )
  for path, leaf in storage.flatten(tree).items():
    if not np.isfinite(leaf.astype(np.float32)).all():
      raise ValueError(
        f"The weights {path} are not finite as {leaf.dtype}; save them in "
        "float32 or bfloat16."
      )
  storage.save_tree(folder / WEIGHTS, tree)
  settings = dataclasses.asdict(config)
  if vocabulary is not None:
    settings["extra_ids"] = vocabulary.extra_ids
    target = folder / VOCABULARY
    if not target.exists() or not target.samefile(vocabulary.path):
      storage.write_atomically(
        target, lambda name: shutil.copyfile(vocabulary.path, name)
      )
  storage.write_json(folder / CONFIG, settings)
  return folder


def weights_hash(tree: PyTree) -> str:
  """SHA-256 of paths, shapes and values (as float32) of a parameter tree.

  The dtype does not enter: a model stored in bfloat16 and the same values in
  float32 are the same model.
  """
  digest = hashlib.sha256()
  for path, leaf in storage.flatten(tree).items():
    digest.update(f"{path} {tuple(leaf.shape)}\n".encode())
    values = np.asarray(leaf, np.float32, order="C")
    digest.update(values.reshape(-1).view(np.uint8).data)
  return digest.hexdigest()


def check_tree(tree: PyTree, config: t5.T5Config, where) -> None:
  """Compares a parameter tree with what a T5 of this shape has.

  Raises:
    ValueError: a tensor is missing, unexpected, or of another shape.
  """
  want = storage.flatten(t5.abstract_parameters(config))
  have = storage.flatten(tree)
  missing = [path for path in want if path not in have]
  if missing:
    raise ValueError(
      f"{where} has no tensor {missing[0]} ({len(missing)} of {len(want)} are "
      "missing). Its configuration describes another model."
    )
  surplus = [path for path in have if path not in want]
  if surplus:
    raise ValueError(
      f"{where} has a tensor {surplus[0]} that its configuration has no place "
      f"for ({len(surplus)} such tensors)."
    )
  for path, leaf in have.items():
    if tuple(leaf.shape) != tuple(want[path].shape):
      raise ValueError(
        f"{where}: the tensor {path} has shape {tuple(leaf.shape)}, the "
        f"configuration asks for {tuple(want[path].shape)}."
      )


def _config(settings: dict, where) -> t5.T5Config:
  try:
    activations = tuple(settings.pop("mlp_activations"))
    return t5.T5Config(mlp_activations=activations, **settings)
  except (TypeError, KeyError) as error:
    raise ValueError(f"{where} does not describe a T5: {error}.") from error


def _cast(tree, dtype):
  def cast(leaf):
    wanted = dtype
    if wanted is None:
      wanted = "float32" if leaf.dtype == np.float16 else leaf.dtype
    return jnp.asarray(leaf, wanted)

  return jax.tree.map(cast, tree)
