"""T5s as transformers stores them: read and written without it.

    config.json         the shape, by other names than T5Config's
    model.safetensors   the weights, in one file or several (`weight_files`)
    spiece.model        the vocabulary, if it is there; else tokenizer.model (a
                        T5Gemma's) or tokenizer.json
    tokenizer_config.json, added_tokens.json    tokens that were added to it

torch keeps a matrix as (out, in), so kernels are transposed on the way.
"""

import logging
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning import json_files, pieces, storage
from prompt_tuning.frozen import (
  huggingface_config,
  model_folder,
  special_ids,
  stored_model,
  t5gemma,
  weight_files,
)
from prompt_tuning.json_files import Fields
from prompt_tuning.model import t5
from prompt_tuning.model.t5gemma import T5GemmaConfig
from prompt_tuning.shapes import EOS, PAD, UNK, PyTree
from prompt_tuning.storage import StoredTensor
from prompt_tuning.vocabulary import BYTES, GEMMA_IDS, T5_IDS, Ids, Vocabulary

FORMAT = "Hugging Face"
CONFIG, VOCABULARY, GEMMA = "config.json", "spiece.model", "tokenizer.model"
TOKENIZER, ADDED = "tokenizer_config.json", "added_tokens.json"
HEAD = "lm_head.weight"
TABLE, ENCODER_TABLE, DECODER_TABLE = (
  "shared.weight",
  "encoder.embed_tokens.weight",
  "decoder.embed_tokens.weight",
)
# A tensor that old files have and no T5 reads.
_IGNORED = (
  "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
)


def read(folder: pathlib.Path) -> stored_model.StoredModel:
  """The model in a Hugging Face folder.

  Raises:
    FileNotFoundError: a file is missing, a shard for example.
    ValueError: a file is damaged, or describes no T5.
  """
  settings = json_files.read_object(folder / CONFIG)
  left = dict(weight_files.read(folder))
  of_kind = _t5gemma if t5gemma.is_t5gemma(settings) else _t5
  config, numbering = of_kind(settings, left)
  tensors = {}
  for path, name in tensor_names(config).items():
    if name in left:
      tensor = left.pop(name)
      tensors[path] = _transposed(tensor) if _is_matrix(path) else tensor
  tensors |= left  # what no T5 has a place for is refused when it is checked
  return stored_model.StoredModel(
    str(folder),
    FORMAT,
    config,
    special_ids.renumbered(tensors, numbering),
    _vocabulary(folder, settings, numbering.special),
    numbering.special,
  )


Known = tuple[t5.Config, special_ids.Numbering]
"""A model's shape and special ids."""


def _t5(settings: Fields, tensors: dict[str, StoredTensor]) -> Known:
  """Those of a T5; tensors that stand twice, or for nothing, are taken away."""
  tensors.pop(_IGNORED, None)
  _join_tables(tensors)
  has_head = HEAD in tensors
  return (
    huggingface_config.config_of(settings, has_head=has_head),
    special_ids.numbering_of(settings, has_head=has_head),
  )


def _t5gemma(settings: Fields, tensors: dict[str, StoredTensor]) -> Known:
  """Those of a T5Gemma, likewise."""
  t5gemma.without_copies(tensors)
  config = t5gemma.config_of(settings, has_head=t5gemma.HEAD in tensors)
  # Its decoder starts from <bos>, which has the place of a T5's unk.
  special = T5_IDS if config.start_id == PAD else GEMMA_IDS
  return config, special_ids.Numbering(special, config.start_id)


def _join_tables(tensors: dict[str, StoredTensor]) -> None:
  """Leaves one embedding table of the up to three equal ones in a file.

  Raises:
    ValueError: they differ.
  """
  names = [n for n in (TABLE, DECODER_TABLE, ENCODER_TABLE) if n in tensors]
  for name in names[1:]:
    first, second = (tensors[one].read() for one in (names[0], name))
    if first.shape != second.shape or not (first == second).all():
      raise ValueError(
        f"{tensors[name].where} has other values than {names[0]}: encoder and "
        "decoder have tables of their own, and this network has one for both."
      )
    del tensors[name]
  if names:
    tensors[TABLE] = tensors.pop(names[0])


def tensor_names(config: t5.Config) -> dict[str, str]:
  """The tensor's name in Hugging Face files for each parameter path."""
  if isinstance(config, T5GemmaConfig):
    return t5gemma.tensor_names(config)
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
_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"
_LETTERS = {"query": "q", "key": "k", "value": "v", "out": "o"}


def _name(path: str) -> str:
  """encoder/layers_0/mlp/wo/kernel: encoder.block.0.layer.1.DenseReluDense.…"""
  stack, *rest = path.split("/")
  if stack == "token_embedder":
    return TABLE
  if rest[0] == "relpos_bias":
    return f"{stack}.block.0.{_BIAS}"
  if rest[0] == "logits_dense":
    return HEAD
  if rest[0] == f"{stack}_norm":
    return f"{stack}.final_layer_norm.weight"
  block, module, *leaf = rest
  block = f"{stack}.block.{block.removeprefix('layers_')}"
  if module == "relpos_bias":
    return f"{block}.{_BIAS}"
  start = f"{block}.layer"
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


def _vocabulary(
  folder: pathlib.Path, settings: Fields, special: Ids
) -> Vocabulary | None:
  tokenizer = Fields({}, folder / TOKENIZER)
  if (folder / TOKENIZER).is_file():
    tokenizer = json_files.read_object(folder / TOKENIZER)
  kinds = (tokenizer.get("tokenizer_class"), settings.get("tokenizer_class"))
  added = _added_tokens(folder, tokenizer)
  if "ByT5Tokenizer" in kinds:
    # The original's sentinels are bytes, not the ids that transformers adds.
    plain = {k: i for k, i in added.items() if not k.startswith("<extra_id_")}
    return Vocabulary(BYTES, 0, plain)
  names = (VOCABULARY, model_folder.VOCABULARY, GEMMA, model_folder.TOKENIZER)
  files = [folder / name for name in names if (folder / name).is_file()]
  if not files:
    return None
  has_none = settings["model_type"] in ("mt5", "umt5") or special != T5_IDS
  default = 0 if has_none else 100
  extra_ids = tokenizer.whole("extra_ids", default, least=0)
  vocabulary = Vocabulary(str(files[0]), extra_ids, added, special)
  words = [k for k, i in added.items() if i > UNK and "<extra_id_" not in k]
  if words and not vocabulary.is_json and not tokenizer.flag("legacy", True):
    logging.getLogger(__name__).warning(
      "%s says legacy=false: in transformers 4 no word began right behind an "
      "added token (%sword). Here, as in transformers 5, one does; a space "
      "behind the token is read the same by all.",
      *(tokenizer.where, words[0]),
    )
  for name, want in (("pad_token", PAD), ("eos_token", EOS)):
    token = tokenizer.get(name)
    token = token.get("content") if isinstance(token, dict) else token
    if token is not None and token != vocabulary.piece(want):
      raise ValueError(
        f"{folder / TOKENIZER} has {name}={token!r}; the "
        f"vocabulary has {vocabulary.piece(want)!r} there, with the id "
        f"{special[want]}. The files are not of one model, or it was trained "
        "with other special tokens, which are not read."
      )
  return vocabulary


def _added_tokens(folder: pathlib.Path, tokenizer: Fields) -> dict[str, int]:
  """The tokens that a tokenizer has beside its pieces, of all its files.

  Raises:
    ValueError: an entry is none, or files give a token different ids.
  """
  entries = []
  for i, entry in tokenizer.table("added_tokens_decoder").items():
    fields = Fields(entry, f"{tokenizer.where}, added_tokens_decoder")
    if not i.isdecimal():
      raise ValueError(f"{fields.where} has the id {i!r}, which is no number.")
    entries.append((fields.text("content"), int(i), tokenizer.where))
    if fields.flag("single_word", False):
      logging.getLogger(__name__).warning(
        "%s says single_word of %r; here it is read inside of words too.",
        *(tokenizer.where, entries[-1][0]),
      )
  if (folder / ADDED).is_file():
    more = json_files.read_object(folder / ADDED)
    entries += [(k, more.whole(k, least=0), more.where) for k in more]
  if (folder / model_folder.TOKENIZER).is_file():
    path = folder / model_folder.TOKENIZER
    tokens = pieces.tokens_of(path)
    entries += [(text, i, path) for text, i in tokens.items()]
  added: dict[str, int] = {}
  for text, i, where in entries:
    if added.setdefault(text, i) != i:
      raise ValueError(
        f"{where} gives the token {text!r} the id {i}, another file of the "
        f"tokenizer gives it {added[text]}. The files are not of one model."
      )
  return added


def save(
  folder: str | os.PathLike,
  config: t5.Config,
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
    vocabulary: written as spiece.model or tokenizer.json, as it is.
    dtype: cast the weights to it.
    shard_bytes: weights beyond it go into several files.

  Raises:
    ValueError: the model has something that transformers' T5 has not.
  """
  folder = pathlib.Path(folder)
  flat = storage.flatten(params)
  special = T5_IDS if vocabulary is None else vocabulary.special
  kind = jnp.dtype(dtype or flat["token_embedder/embedding"].dtype)
  settings = _settings_of(config, str(kind), special)
  names = tensor_names(config)
  paths = {names[path]: path for path in flat}

  def tensor(name: str) -> np.ndarray:
    array = np.asarray(flat[paths[name]]).astype(kind, copy=False)
    array = special_ids.as_stored(paths[name], array, special)
    return array.T if _is_matrix(paths[name]) else array

  sizes = {
    names[path]: leaf.size * kind.itemsize for path, leaf in flat.items()
  }
  weight_files.write(folder, sizes, tensor, shard_bytes)
  if vocabulary is not None:
    name = GEMMA if isinstance(config, T5GemmaConfig) else VOCABULARY
    _save_vocabulary(folder, vocabulary, name)
  storage.write_json(folder / CONFIG, settings)
  return folder


def _settings_of(config: t5.Config, dtype: str, special: Ids) -> dict[str, Any]:
  """What config.json holds."""
  if isinstance(config, T5GemmaConfig):
    return t5gemma.settings_of(config, dtype)
  return huggingface_config.settings_of(config, dtype, special)


def _save_vocabulary(
  folder: pathlib.Path, vocabulary: Vocabulary, name: str
) -> None:
  """Writes the vocabulary's files; a SentencePiece model is called `name`."""
  tokenizer: dict[str, Any] = {"tokenizer_class": "ByT5Tokenizer"}
  if vocabulary.path != BYTES:
    own = model_folder.TOKENIZER if vocabulary.is_json else name
    model_folder.copy_vocabulary(vocabulary, folder / own)
    for other in {VOCABULARY, GEMMA, model_folder.TOKENIZER} - {own}:
      (folder / other).unlink(missing_ok=True)
    tokenizer = {"tokenizer_class": "GemmaTokenizer"}
    if name != GEMMA:
      tokenizer = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": vocabulary.extra_ids,
      }
  if vocabulary.special != T5_IDS:
    keys = ("pad_token", "eos_token", "unk_token")
    ids = pieces.places(vocabulary.special)
    tokenizer |= {
      k: vocabulary.piece(i) for k, i in zip(keys, ids, strict=True)
    }
  if vocabulary.added:
    tokenizer["added_tokens_decoder"] = {
      str(i): {"content": text, "special": False}
      for text, i in vocabulary.added.items()
    }
  storage.write_json(folder / TOKENIZER, tokenizer)
