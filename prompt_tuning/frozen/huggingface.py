"""T5s as transformers stores them: read and written without it.

    config.json
    model.safetensors, or model-0000i-of-0000n.safetensors and an index
    pytorch_model.bin           old folders; through torch, never unpickled;
                                in shards with an index as well
    spiece.model                the vocabulary, if it is there

torch keeps a matrix as (out, in), so kernels are transposed on the way.
"""

from collections.abc import Iterator, Mapping
import functools
import os
import pathlib
from typing import Any

import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import model_folder, stored_model
from prompt_tuning.model import t5
from prompt_tuning.shapes import PyTree
from prompt_tuning.storage import StoredTensor
from prompt_tuning.vocabulary import BYTES, Vocabulary

FORMAT = "Hugging Face"
CONFIG, VOCABULARY = "config.json", "spiece.model"
TOKENIZER = "tokenizer_config.json"
SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
PICKLED = "pytorch_model.bin"
HEAD = "lm_head.weight"
MODEL_TYPES = ("t5", "mt5")
SHARD_BYTES = 2 << 30

# feed_forward_proj: the activations of the branches of T5Config
_ACTIVATIONS = {
  "relu": ("relu",),
  "gated-gelu": ("gelu", "linear"),
  "gated-relu": ("relu", "linear"),
  "gated-silu": ("silu", "linear"),
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
  found = _open(folder)
  config = _config(settings, folder / CONFIG, has_head=HEAD in found)
  names = tensor_names(config)
  known = set(names.values())
  tensors = {
    path: _transposed(found[name]) if _is_matrix(path) else found[name]
    for path, name in names.items()
    if name in found
  } | {
    name: tensor
    for name, tensor in found.items()
    if name not in known and name not in _IGNORED
  }
  vocabulary = _vocabulary(folder, settings)
  return stored_model.StoredModel(
    str(folder), FORMAT, config, tensors, vocabulary
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
  place = _MODULES[stack].index(module)
  matrix = _LETTERS.get(leaf[0], leaf[0])
  return f"{start}.{place}.{_CLASSES[module]}.{matrix}.weight"


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


def _open(folder: pathlib.Path) -> Mapping[str, StoredTensor]:
  """The tensors of whatever weight files the folder has."""
  for name, read in (
    (SINGLE, lambda path: storage.open_tensors(path)[0]),
    (PICKLED, _open_pickled),
  ):
    index = folder / f"{name}.index.json"
    if index.is_file():
      return _open_shards(index, read)
    if (folder / name).is_file():
      return read(folder / name)
  raise FileNotFoundError(
    f"The Hugging Face folder {folder} has no weights: there is neither "
    f"{SINGLE} nor {INDEX} nor {PICKLED}."
  )


def _open_shards(index: pathlib.Path, read) -> Mapping[str, StoredTensor]:
  folder = index.parent
  weight_map = storage.read_json(index).get("weight_map", {})
  opened = {}
  for shard in sorted(set(weight_map.values())):
    if not (folder / shard).is_file():
      lost = [name for name, place in weight_map.items() if place == shard]
      raise FileNotFoundError(
        f"The shard {folder / shard} is missing; {index.name} places "
        f"{len(lost)} tensors in it, the first is {lost[0]}."
      )
    opened[shard] = read(folder / shard)
  for name, shard in weight_map.items():
    if name not in opened[shard]:
      raise ValueError(
        f"{folder / shard} has no tensor {name}, which {index.name} places "
        "there. The files are not of one model."
      )
  return {name: opened[shard][name] for name, shard in weight_map.items()}


def _open_pickled(path: pathlib.Path) -> Mapping[str, StoredTensor]:
  """Tensors of a .bin file, through torch without its unpickler."""
  try:
    import torch  # an optional extra, for this old format only
  except ImportError as error:
    raise ValueError(
      f"{path} is in torch's old format, which only torch reads. Install "
      "'prompt-tuning-jax[torch]', or fetch the model as safetensors."
    ) from error
  try:
    state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
  except Exception as error:  # torch raises many kinds, also for old zips
    raise ValueError(
      f"{path} cannot be read as tensors ({str(error).splitlines()[0]}). It is "
      "damaged, or holds other objects than tensors, which are never loaded."
    ) from error

  def read(tensor):
    if tensor.dtype == torch.bfloat16:
      import ml_dtypes  # comes with jax

      return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()

  return {
    name: StoredTensor(
      tuple(tensor.shape),
      str(tensor.dtype).removeprefix("torch."),
      functools.partial(read, tensor),
      f"{path}: {name}",
    )
    for name, tensor in state.items()
  }


def is_config(settings: Any) -> bool:
  """Whether a config.json is one of transformers."""
  return isinstance(settings, dict) and "model_type" in settings


def _config(settings: dict, where, *, has_head: bool) -> t5.T5Config:
  """T5Config from the keys of transformers.

  transformers 5 writes `tie_word_embeddings: true` for models whose head is
  their own; `scale_decoder_outputs` is what it means, where it stands.
  """
  kind = settings.get("model_type")
  if kind not in MODEL_TYPES:
    raise ValueError(
      f"{where} describes a model of type {kind!r}; known are "
      f"{', '.join(MODEL_TYPES)} (T5 1.0 and 1.1, Flan-T5, mT5, ByT5)."
    )
  projection = settings.get("feed_forward_proj", "relu")
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
    layers = settings["num_layers"]
    return t5.T5Config(
      vocab_size=settings["vocab_size"],
      emb_dim=settings["d_model"],
      num_heads=settings["num_heads"],
      head_dim=settings.get("d_kv", 64),
      mlp_dim=settings["d_ff"],
      num_encoder_layers=layers,
      num_decoder_layers=settings.get("num_decoder_layers") or layers,
      mlp_activations=_ACTIVATIONS[projection],
      logits_via_embedding=not has_head,
      scale_logits=settings.get("scale_decoder_outputs", tied),
      relpos_buckets=settings.get("relative_attention_num_buckets", 32),
      relpos_max_distance=settings.get("relative_attention_max_distance", 128),
      layer_norm_epsilon=settings.get("layer_norm_epsilon", 1e-6),
    )
  except KeyError as error:
    raise ValueError(
      f"{where} does not describe a T5: it has no {error}."
    ) from (error)


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
  shard_bytes: int = SHARD_BYTES,
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
  stored = dtype or str(np.dtype(flat["token_embedder/embedding"].dtype))
  _save_weights(folder, config, flat, stored, shard_bytes)
  tied = config.logits_via_embedding
  settings = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "is_encoder_decoder": True,
    "dtype": stored,
    "vocab_size": config.vocab_size,
    "d_model": config.emb_dim,
    "d_kv": config.head_dim,
    "d_ff": config.mlp_dim,
    "num_heads": config.num_heads,
    "num_layers": config.num_encoder_layers,
    "num_decoder_layers": config.num_decoder_layers,
    "feed_forward_proj": projections[config.mlp_activations],
    "relative_attention_num_buckets": config.relpos_buckets,
    "relative_attention_max_distance": config.relpos_max_distance,
    "layer_norm_epsilon": config.layer_norm_epsilon,
    "dropout_rate": config.dropout_rate,
    "tie_word_embeddings": tied,
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


def _save_weights(folder, config, flat, dtype: str, shard_bytes: int) -> None:
  """One file, or shards and their index."""
  names = tensor_names(config)
  shards = list(
    _shards(flat, np.dtype(_numpy_dtype(dtype)).itemsize, shard_bytes)
  )
  weight_map = {}
  for i, paths in enumerate(shards, 1):
    file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
    if len(shards) == 1:
      file = SINGLE
    tensors = {names[path]: _stored(path, flat[path], dtype) for path in paths}
    model_folder.check_finite(storage.unflatten(tensors))
    storage.save_tensors(folder / file, tensors, {"format": "pt"})
    weight_map |= dict.fromkeys(tensors, file)
  if len(shards) > 1:
    total = sum(leaf.size for leaf in flat.values())
    total *= np.dtype(_numpy_dtype(dtype)).itemsize
    storage.write_json(
      folder / INDEX,
      {"metadata": {"total_size": total}, "weight_map": weight_map},
    )
  for stale in (INDEX, SINGLE):
    keep = INDEX if len(shards) > 1 else SINGLE
    if stale != keep:
      (folder / stale).unlink(missing_ok=True)


def _numpy_dtype(name: str):
  import jax.numpy as jnp  # knows bfloat16

  return jnp.dtype(name)


def _stored(path: str, leaf, dtype: str) -> np.ndarray:
  array = np.asarray(leaf).astype(_numpy_dtype(dtype), copy=False)
  return array.T if _is_matrix(path) else array


def _shards(flat, itemsize: int, limit: int) -> Iterator[list[str]]:
  """The paths in groups of at most `limit` bytes, one tensor at least."""
  group, size = [], 0
  for path, leaf in flat.items():
    bytes_here = leaf.size * itemsize
    if group and size + bytes_here > limit:
      yield group
      group, size = [], 0
    group.append(path)
    size += bytes_here
  yield group
