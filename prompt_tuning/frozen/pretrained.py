"""The frozen model: weights, configuration and vocabulary of one T5.

    path -> open_model -> StoredModel -> load -> FrozenModel -> save

A path is a folder of this project (`model_folder`), of transformers
(`huggingface`), of t5x (`t5x_checkpoints`) or of gemma (`t5gemma`), here, under
gs:// or on the hub (`remote`). The model that ships with the package is called
`microworld`.
"""

from collections.abc import Mapping
import dataclasses
import functools
import importlib.resources
import logging
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import json_files, processes, storage
from prompt_tuning.frozen import (
  huggingface,
  huggingface_config,
  model_folder,
  placement,
  remote,
  stored_model,
  t5gemma,
  t5x_checkpoints,
)
from prompt_tuning.model import forms, freeze, t5
from prompt_tuning.model.t5gemma import T5GemmaConfig
from prompt_tuning.shapes import PyTree
from prompt_tuning.vocabulary import T5_IDS, Vocabulary

SHIPPED = "microworld"
"""The name of the frozen model that ships with the package."""

FLOATS = ("float32", "bfloat16", "float16")
WEIGHTS_DTYPES = (*FLOATS, *forms.quantized.DTYPES)
"""What weights are held in."""


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
    devices: those that it lies on, if they are several.
  """

  config: t5.Config
  params: PyTree
  vocabulary: Vocabulary | None
  source: str
  stored_hash: str
  devices: placement.Devices | None = None

  def require_vocabulary(self) -> Vocabulary:
    """The vocabulary.

    Raises:
      ValueError: there is none.
    """
    if self.vocabulary is None:
      raise ValueError(
        f"The model {self.source} has no vocabulary. Put its SentencePiece "
        f"model into its folder as {model_folder.VOCABULARY} (or "
        f"{huggingface.VOCABULARY}; a T5Gemma's as {huggingface.GEMMA}), or "
        f"its {model_folder.TOKENIZER}, or set VOCABULARY_PATH."
      )
    return self.vocabulary

  @functools.cached_property
  def num_parameters(self) -> int:
    """How many numbers the frozen weights hold."""
    return forms.quantized.count(self.params)

  @property
  def weights_dtype(self) -> str:
    """What its weights are held in, one of `WEIGHTS_DTYPES`."""
    table = self.params["token_embedder"].get("embedding")
    return forms.quantized.dtype_of(self.params) or str(table.dtype)

  @property
  def embedding(self) -> np.ndarray:
    """The embedding table [V, E] in float32."""
    table = processes.on_host(self.params["token_embedder"])
    return forms.quantized.table(table)


def shipped_folder(name: str = SHIPPED) -> pathlib.Path:
  """Where the package keeps a shipped model."""
  return pathlib.Path(
    str(importlib.resources.files("prompt_tuning") / "assets" / name)
  )


def shipped_vocabulary(name: str = SHIPPED, extra_ids: int = 16) -> Vocabulary:
  """The vocabulary of a shipped model; to pre-train that model again."""
  return Vocabulary(
    str(shipped_folder(name) / model_folder.VOCABULARY), extra_ids
  )


def open_model(
  path: str | os.PathLike, expected: t5.Config | None = None
) -> stored_model.StoredModel:
  """Recognises a model by what is at a path, without reading its weights.

  Raises:
    FileNotFoundError: there is nothing, or a file of a model is missing.
    ValueError: what is there is no T5 of a known format.
  """
  folder = pathlib.Path(path)
  if str(path) == SHIPPED and not folder.exists():
    folder = shipped_folder()
  if not folder.exists():
    folder = remote.local(path)
  own = expected if isinstance(expected, T5GemmaConfig) else None
  tree = t5gemma.flax_checkpoints.find(folder)
  if tree is not None:
    return t5gemma.flax_checkpoints.read(tree, folder, own)
  if own is not None:
    t5gemma.flax_checkpoints.check_index(folder)
  checkpoint = t5x_checkpoints.find(folder)
  if checkpoint is not None:
    return t5x_checkpoints.read(checkpoint, _of_t5x(expected, checkpoint))
  if not folder.is_dir():
    raise ValueError(f"{folder} is a file, not the folder of a model.")
  file = folder / huggingface.CONFIG
  if file.is_file() and huggingface_config.is_config(json_files.read(file)):
    return huggingface.read(folder)
  return model_folder.read(folder)


def _of_t5x(config: t5.Config | None, where) -> t5.T5Config | None:
  """The configuration, unless it is that of a T5Gemma, which t5x has not.

  Raises:
    ValueError: it is one.
  """
  if isinstance(config, T5GemmaConfig):
    raise ValueError(
      f"{where} would be a T5Gemma in a checkpoint of t5x, which has no such "
      "network. A T5Gemma is read and written as a folder of Hugging Face or "
      "of this project, and read as a checkpoint of gemma."
    )
  return config


def load(
  path: str | os.PathLike,
  config: t5.Config | None = None,
  dtype: str | None = None,
  *,
  vocabulary: Vocabulary | None = None,
  activation_dtype: str | None = None,
  stack_layers: bool | None = None,
  mesh: Mapping[str, int] | None = None,
) -> FrozenModel:
  """Loads a frozen T5 of any format; which one is seen from its files.

  Args:
    path: a folder of this project, of transformers, of t5x (native or Orbax) or
      of gemma (a T5Gemma in Orbax), on this machine or under gs://; a name on
      the Hugging Face hub such as 'google/t5-small-lm-adapt'; or 'microworld'
      for the model that ships.
    config: the shape that the model is expected to have; None takes what the
      folder says. A checkpoint of t5x or of gemma takes from it what shapes do
      not tell.
    dtype: cast the weights to 'float32', 'bfloat16' or 'float16', or hold them
      as 'int8' or 'int4' with scales (see `forms.quantized`); None means
      float32 for weights stored in float16, else what is stored.
    vocabulary: instead of the one beside the weights.
    activation_dtype: what the network computes in; None means bfloat16 on a
      GPU, else what the model's configuration says.
    stack_layers: whether the layers of a stack are computed by a scan over one
      tensor of all (see `forms`); None does so with large models and with
      int8 and int4.
    mesh: MESH, how the devices of this machine are used (see `placement`).

  Raises:
    FileNotFoundError: the folder or one of its files is missing.
    ValueError: a file is damaged, or weights and configuration do not fit.
  """
  _check_weights_dtype(dtype)
  stored = open_model(path, config)
  own = stored.config
  if config is not None:
    stored_model.check_expected(own, config, stored.path)
  if activation_dtype is None and jax.default_backend() == "gpu":
    activation_dtype = "bfloat16"
  if activation_dtype is not None:
    own = dataclasses.replace(own, dtype=activation_dtype)
  vocabulary = vocabulary or stored.vocabulary
  if vocabulary is not None:
    vocabulary = vocabulary.numbered(stored.special)
  _check_size(vocabulary, own, stored.path)
  if vocabulary is None:
    logging.getLogger(__name__).warning(
      "%s has no vocabulary, so it can read no text. Set VOCABULARY_PATH.",
      stored.path,
    )
  if stack_layers is None:
    stack_layers = _stacks(stored.num_parameters, dtype)
  devices = _devices(mesh, own)
  params, stored_hash = stored.read(
    dtype,
    stack_layers=stack_layers,
    put=devices.put if devices else forms.on_device,
  )
  return FrozenModel(own, params, vocabulary, str(path), stored_hash, devices)


def _stacks(num_parameters: int, dtype: str | None) -> bool:
  """Whether layers are stacked by default.

  Those of integers are, as the floats of all would be held at once otherwise.
  """
  return num_parameters >= forms.LARGE or dtype in forms.quantized.DTYPES


def _devices(mesh, config: t5.Config) -> placement.Devices | None:
  """The devices of a run; which they are is said if they are several."""
  devices = placement.devices_of(mesh, config)
  if devices:
    processes.said(devices.announced())
  return devices


def _check_weights_dtype(dtype: str | None) -> None:
  if dtype not in (None, *WEIGHTS_DTYPES):
    raise ValueError(
      f"Weights cannot be {dtype!r} (WEIGHTS_DTYPE); they can be "
      f"{', '.join(WEIGHTS_DTYPES)}."
    )


def _check_size(vocabulary, config: t5.Config, where: str) -> None:
  """Refuses ids that have no row: they would read that of another."""
  if vocabulary is not None and vocabulary.size > config.vocab_size:
    raise ValueError(
      f"The vocabulary {vocabulary.path} has {vocabulary.size} ids, "
      f"{vocabulary.extra_ids} sentinels among them, and {where} embeds "
      f"{config.vocab_size}. Set VOCABULARY_PATH and EXTRA_IDS to what the "
      "model was trained with."
    )


def random(
  config: t5.Config | None,
  vocabulary: Vocabulary | None = None,
  *,
  seed: int = 0,
  dtype: str | None = None,
  stack_layers: bool | None = None,
  mesh: Mapping[str, int] | None = None,
) -> FrozenModel:
  """A T5 of random weights: for tests, and for trying out sizes.

  They are float32 unless `dtype` says otherwise; `stack_layers` and `mesh` are
  `load`'s.

  Raises:
    ValueError: there is no size, or something that `load` refuses.
  """
  if config is None:
    raise ValueError(
      "Random weights need a size. Name the gin file of one before "
      "models/random_weights.gin, for example models/t5_1_1_small.gin."
    )
  _check_weights_dtype(dtype)
  _check_size(vocabulary, config, "the model")
  tokens = jnp.ones((1, 1), jnp.int32)
  init = jax.jit(t5.T5(config).init)
  tree = init(jax.random.key(seed), tokens, tokens)["params"]
  stored_hash = stored_model.weights_hash(tree)
  devices = _devices(mesh, config)
  put = devices.put if devices else forms.on_device
  cast = storage.unflatten(
    {
      name: put(name, part)
      for path, leaf in storage.flatten(tree).items()
      for name, part in stored_model.held(path, np.asarray(leaf), dtype).items()
    }
  )
  where = f"random weights (seed {seed})"
  if stack_layers is None:
    stack_layers = _stacks(freeze.count(tree), dtype)
  del tree  # of which `stacked` makes another
  params = forms.stacked(cast, put) if stack_layers else cast
  return FrozenModel(config, params, vocabulary, where, stored_hash, devices)


FORMATS = {
  "prompt-tuning": model_folder.save,
  "huggingface": huggingface.save,
  "t5x": t5x_checkpoints.save,
}
"""What `save` writes, by name."""


def save(
  folder: str | os.PathLike,
  model: FrozenModel,
  to: str = "prompt-tuning",
  dtype: str | None = None,
) -> pathlib.Path:
  """Writes a model in one of `FORMATS`; returns its folder.

  Raises:
    ValueError: an unknown format, or one that cannot hold this model.
  """
  if to not in FORMATS:
    raise ValueError(
      f"A model cannot be written as {to!r}; it can be as {', '.join(FORMATS)}."
    )
  more = {} if to == "t5x" else {"vocabulary": model.vocabulary}
  special = T5_IDS if model.vocabulary is None else model.vocabulary.special
  if to == "t5x":
    _of_t5x(model.config, folder)
  if to == "t5x" and special != T5_IDS:
    raise ValueError(
      f"The vocabulary of {model.source} has pad, eos and unk at "
      f"{', '.join(map(str, special))}, and t5x takes them at 0, 1 and 2. "
      "Write the model as prompt-tuning or huggingface, which keep its ids."
    )
  forms.quantized.refuse(
    model.params, "a model is saved from the weights that it was read from"
  )
  params = forms.apart(model.params)
  return FORMATS[to](folder, model.config, params, dtype=dtype, **more)
