"""T5s as transformers stores them: read and written without it.

    config.json         the shape, by other names than T5Config's
    model.safetensors   the weights, in one file or several (`weight_files`)
    spiece.model        the vocabulary, if it is there

torch keeps a matrix as (out, in), so kernels are transposed on the way.
"""

import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import model_folder, stored_model, weight_files
from prompt_tuning.model import t5
from prompt_tuning.shapes import PyTree
from prompt_tuning.storage import StoredTensor
from prompt_tuning.vocabulary import BYTES, Vocabulary

FORMAT = "Hugging Face"
CONFIG, VOCABULARY = "config.json", "spiece.model"
TOKENIZER = "tokenizer_config.json"
HEAD = "lm_head.weight"
MODEL_TYPES = ("t5", "mt5")

# feed_forward_proj: the activations of the branches of T5Config
_ACTIVATIONS = {
  "relu": ("relu",),
  "gated-gelu": ("gelu", "linear"),
  "gated-relu": ("relu", "linear"),
  "gated-silu": ("silu", "linear"),
}
# T5Config's field: the key in config.json, in the order they are written.
_KEYS = {
  "vocab_size": "vocab_size",
  "emb_dim": "d_model",
  "head_dim": "d_kv",
  "mlp_dim": "d_ff",
  "num_heads": "num_heads",
  "num_encoder_layers": "num_layers",
  "num_decoder_layers": "num_decoder_layers",
  "mlp_activations": "feed_forward_proj",
  "relpos_buckets": "relative_attention_num_buckets",
  "relpos_max_distance": "relative_attention_max_distance",
  "layer_norm_epsilon": "layer_norm_epsilon",
}
# What transformers takes where a key is missing.
_DEFAULTS = {
  "d_kv": 64,
  "feed_forward_proj": "relu",
  "relative_attention_num_buckets": 32,
  "relative_attention_max_distance": 128,
  "layer_norm_epsilon": 1e-6,
}
# Tensors that old files have and no T5 reads.
_IGNORED = (
  "encoder.embed_tokens.weight",
  "decoder.embed_tokens.weight",
  "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)


def read(folder: pathlib.Path) -> stored_model.StoredModel:
  """The model in a Hugging Face folder.

  Raises:
    FileNotFoundError: a file is missing, a shard for example.
    ValueError: a file is damaged, or describes no T5.
  """
  settings = storage.read_json(folder / CONFIG)
  left = dict(weight_files.read(folder))
  config = _config(settings, folder / CONFIG, has_head=HEAD in left)
  tensors = {}
  for path, name in tensor_names(config).items():
    if name in left:
      tensor = left.pop(name)
      tensors[path] = _transposed(tensor) if _is_matrix(path) else tensor
  # Of the others, those that no T5 reads are left out; the rest is refused.
  tensors |= {k: v for k, v in left.items() if k not in _IGNORED}
  return stored_model.StoredModel(
    str(folder), FORMAT, config, tensors, _vocabulary(folder, settings)
  )


def tensor_names(config: t5.T5Config) -> dict[str, str]:
  """The tensor's name in Hugging Face files for each parameter path."""
  return {
    path: _name(path)
    for path in storage.flatten(t5.abstract_parameters(config))
  }


_MODULES = {
  "encoder": ("attention", "mlp"),
  "decoder": ("self_attention", "encoder_decoder_attention", "mlp"),
}
_NORMS = {
  "encoder": ("pre_attention_layer_norm", "pre_mlp_layer_norm"),
  "decoder": (
    "pre_self_attention_layer_norm",
    "pre_cross_attention_layer_norm",
    "pre_mlp_layer_norm",
  ),
}
_CLASSES = {
  "attention": "SelfAttention",
  "self_attention": "SelfAttention",
  "encoder_decoder_attention": "EncDecAttention",
  "mlp": "DenseReluDense",
}
_LETTERS = {"query": "q", "key": "k", "value": "v", "out": "o"}


def _name(path: str) -> str:
  """encoder/layers_0/mlp/wo/kernel: encoder.block.0.layer.1.DenseReluDense.…"""
  stack, *rest = path.split("/")
  if stack == "token_embedder":
    return "shared.weight"
  if rest[0] == "relpos_bias":
    bias = "layer.0.SelfAttention.relative_attention_bias.weight"
    return f"{stack}.block.0.{bias}"
  if rest[0] == "logits_dense":
    return HEAD
  if rest[0] == f"{stack}_norm":
    return f"{stack}.final_layer_norm.weight"
  block, module, *leaf = rest
  start = f"{stack}.block.{block.removeprefix('layers_')}.layer"
  if module in _NORMS[stack]:
    return f"{start}.{_NORMS[stack].index(module)}.layer_norm.weight"
  layer = _MODULES[stack].index(module)
  matrix = _LETTERS.get(leaf[0], leaf[0])
  return f"{start}.{layer}.{_CLASSES[module]}.{matrix}.weight"


def _is_matrix(path: str) -> bool:
  return path.endswith(("/kernel", "/rel_embedding"))


def _transposed(tensor: StoredTensor) -> StoredTensor:
  """The tensor with its two axes exchanged when it is read."""
  return StoredTensor(
    tensor.shape[::-1],
    tensor.dtype,
    lambda: np.ascontiguousarray(tensor.read().T),
    tensor.where,
  )


def is_model(folder: pathlib.Path) -> bool:
  """Whether a folder has a config.json of transformers."""
  if not (folder / CONFIG).is_file():
    return False
  settings = storage.read_json(folder / CONFIG)
  return isinstance(settings, dict) and "model_type" in settings


def _config(settings: dict, where, *, has_head: bool) -> t5.T5Config:
  """T5Config from the keys of transformers.

  transformers 5 writes `tie_word_embeddings: true` for models whose head is
  their own; `scale_decoder_outputs` is what it means, where it stands.
  """
  settings = {**_DEFAULTS, **settings}
  kind = settings.get("model_type")
  if kind not in MODEL_TYPES:
    raise ValueError(
      f"{where} describes a model of type {kind!r}; known are "
      f"{', '.join(MODEL_TYPES)} (T5 1.0 and 1.1, Flan-T5, mT5, ByT5)."
    )
  projection = settings["feed_forward_proj"]
  if projection not in _ACTIVATIONS:
    raise ValueError(
      f"{where} has feed_forward_proj={projection!r}; known are "
      f"{', '.join(_ACTIVATIONS)}."
    )
  for name, want in (("decoder_start_token_id", 0), ("pad_token_id", 0)):
    if settings.get(name, want) not in (want, None):
      raise ValueError(
        f"{where} has {name}={settings[name]}; a T5 has {want} there."
      )
  # mT5 never scales; its configurations say `tie_word_embeddings` both ways.
  tied = kind != "mt5" and settings.get("tie_word_embeddings") is not False
  try:
    if not settings.get("num_decoder_layers"):
      settings["num_decoder_layers"] = settings["num_layers"]
    fields = {field: settings[key] for field, key in _KEYS.items()}
  except KeyError as error:
    raise ValueError(
      f"{where} does not describe a T5: it has no {error}."
    ) from error
  return t5.T5Config(
    **{**fields, "mlp_activations": _ACTIVATIONS[projection]},
    logits_via_embedding=not has_head,
    scale_logits=settings.get("scale_decoder_outputs", tied),
  )


def _vocabulary(folder: pathlib.Path, settings: dict) -> Vocabulary | None:
  tokenizer = {}
  if (folder / TOKENIZER).is_file():
    tokenizer = storage.read_json(folder / TOKENIZER)
  kinds = (tokenizer.get("tokenizer_class"), settings.get("tokenizer_class"))
  if "ByT5Tokenizer" in kinds:
    return Vocabulary(BYTES, 0)
  if not (folder / VOCABULARY).is_file():
    return None
  default = 0 if settings["model_type"] == "mt5" else 100
  extra_ids = tokenizer.get("extra_ids", default)
  return Vocabulary(str(folder / VOCABULARY), extra_ids)


def save(
  folder: str | os.PathLike,
  config: t5.T5Config,
  params: PyTree,
  *,
  vocabulary: Vocabulary | None = None,
  dtype: str | None = None,
  shard_bytes: int = weight_files.SHARD_BYTES,
) -> pathlib.Path:
  """Writes a folder that transformers loads.

  Args:
    folder: where to.
    config: the model's shape.
    params: its weights.
    vocabulary: written as spiece.model.
    dtype: cast the weights to it.
    shard_bytes: weights beyond it go into several files.

  Raises:
    ValueError: the model has something that transformers' T5 has not.
  """
  folder = pathlib.Path(folder)
  projections = {v: k for k, v in _ACTIVATIONS.items()}
  if config.mlp_activations not in projections:
    raise ValueError(
      f"transformers has no T5 with the activations {config.mlp_activations}; "
      f"it has {', '.join(map(str, projections))}."
    )
  flat = storage.flatten(params)
  kind = jnp.dtype(dtype or flat["token_embedder/embedding"].dtype)
  names = tensor_names(config)
  paths = {names[path]: path for path in flat}

  def tensor(name: str) -> np.ndarray:
    array = np.asarray(flat[paths[name]]).astype(kind, copy=False)
    return array.T if _is_matrix(paths[name]) else array

  sizes = {
    names[path]: leaf.size * kind.itemsize for path, leaf in flat.items()
  }
  weight_files.write(folder, sizes, tensor, shard_bytes)

  settings = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "is_encoder_decoder": True,
    "dtype": kind.name,
    **{key: getattr(config, field) for field, key in _KEYS.items()},
    "feed_forward_proj": projections[config.mlp_activations],
    "dropout_rate": config.dropout_rate,
    "tie_word_embeddings": config.logits_via_embedding,
    "scale_decoder_outputs": bool(config.scale_logits),
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
  }
  if vocabulary is not None:
    tokenizer: dict[str, Any] = {"tokenizer_class": "ByT5Tokenizer"}
    if vocabulary.path != BYTES:
      model_folder.copy_vocabulary(vocabulary, folder / VOCABULARY)
      tokenizer = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": vocabulary.extra_ids,
      }
    storage.write_json(folder / TOKENIZER, tokenizer)
  storage.write_json(folder / CONFIG, settings)
  return folder
