"""What is at a path: a prompt or a model, of which format, and what is in it.

inspect(path)           facts by name, ready to print
convert(source, target) the same thing in another format
"""

import os
import pathlib
from typing import Any

import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained, t5x_checkpoints
from prompt_tuning.model import t5
from prompt_tuning.model.t5gemma import Stack, T5GemmaConfig
from prompt_tuning.model.t5gemma.config import SLIDING
from prompt_tuning.prompts import analysis, checkpoints, conversion


def inspect(
  path: str | os.PathLike,
  model: str | os.PathLike | None = None,
  neighbors: int = 5,
) -> dict[str, Any]:
  """Facts about what is at a path.

  Args:
    path: a prompt or a model of any format.
    model: for a prompt, the frozen model whose vocabulary names its positions.
    neighbors: how many nearest pieces each position is described by.

  Raises:
    FileNotFoundError: there is nothing.
    ValueError: it is damaged, or of no known format.
  """
  if checkpoints.is_prompt(path):
    return _prompt_facts(path, model, neighbors)
  return _model_facts(path)


def _prompt_facts(path, model, neighbors: int) -> dict[str, Any]:
  several = checkpoints.load_prompts(path)
  if len(several) > 1:
    return {
      "what": f"prompts of {len(several)} tasks ({several[0].format}), that "
      "convert writes into a folder each",
      "path": str(path),
      "shape": "{} positions x {}".format(*several[0].values.shape),
      **several[0].record,
    }
  frozen = None if model is None else pretrained.load(model)
  saved = checkpoints.load_prompt(path, frozen, allow_other_model=True)
  facts: dict[str, Any] = {
    "what": f"a prompt ({saved.format})",
    "path": str(path),
    **(_tensor_facts(saved) if saved.tensors else _row_facts(saved)),
    "dtype": str(saved.values.dtype),
  }
  shown = ("length", "width", "tensors", "tensor_sha256")
  facts |= {k: v for k, v in saved.record.items() if k not in shown}
  if frozen is not None:
    trained_for = (saved.record.get("model") or {}).get("hash")
    if trained_for is not None:
      same = trained_for == frozen.stored_hash
      facts["trained for this model"] = "yes" if same else "no"
    rows = saved.plain("the table of nearest pieces")
    nearest = analysis.nearest_pieces(rows, frozen, neighbors)
    facts["nearest pieces"] = {
      f"position {i}": ", ".join(f"{n.piece} {n.cosine:.2f}" for n in row)
      for i, row in enumerate(nearest)
    }
    facts["clusters"] = {
      f"position {i}": " / ".join(words)
      for i, words in analysis.clusters(nearest).items()
    } or "none (a cluster is three or more variants of one word)"
  return facts


def _row_facts(saved: checkpoints.SavedPrompt) -> dict[str, Any]:
  norms = np.linalg.norm(saved.values, axis=1)
  return {
    "shape": "{} positions x {}".format(*saved.values.shape),
    "parameters": f"{saved.values.size:,}",
    "tensor sha256": storage.tensor_hash(saved.values),
    "norms": f"{norms.min():.3g} to {norms.max():.3g}, mean {norms.mean():.3g}",
  }


def _tensor_facts(saved: checkpoints.SavedPrompt) -> dict[str, Any]:
  """Of a prompt that has more than rows; `keep` does not train."""
  sizes = [v.size for name, v in saved.tensors.items() if name != "keep"]
  return {
    "tensors": {
      name: " x ".join(map(str, tensor.shape))
      for name, tensor in saved.tensors.items()
    },
    "parameters": f"{sum(sizes):,}",
    "tensor sha256": storage.tree_hash(dict(saved.tensors)),
  }


def _model_facts(path) -> dict[str, Any]:
  stored = pretrained.open_model(path)
  stored.check()
  config, vocabulary = stored.config, stored.vocabulary
  words = "none"
  if vocabulary is not None:
    words = f"{vocabulary.path}, {vocabulary.num_pieces} pieces, "
    words += f"{vocabulary.extra_ids} sentinels"
  return {
    "what": f"a T5 ({stored.format})",
    "path": stored.path,
    **_shape_facts(config),
    "parameters": f"{stored.num_parameters:,}",
    "tensors": len(stored.tensors),
    "dtype": stored.dtype,
    "weights sha256": stored.hash(),
    "vocabulary": words,
  } | _prompt_beside(path)


def _shape_facts(config: t5.Config) -> dict[str, Any]:
  """The sizes of a network, and what its weights were trained with."""
  layers = f"{config.num_encoder_layers} + {config.num_decoder_layers}"
  head = "tied" if config.logits_via_embedding else "its own"
  if isinstance(config, T5GemmaConfig):
    return {
      "network": "T5Gemma",
      "layers": layers,
      "encoder": _stack_facts(config.encoder),
      "decoder": _stack_facts(config.decoder),
      "embedding rows": f"{config.vocab_size}, twice",
      "head": head,
      "logits capped at": config.logits_cap or "nothing",
      "starts from": config.start_id,
    }
  return {
    "layers": layers,
    "width": config.emb_dim,
    "heads": f"{config.num_heads} x {config.head_dim}",
    "feed-forward": f"{config.mlp_dim}, {', '.join(config.mlp_activations)}",
    "embedding rows": config.vocab_size,
    "head": head,
    "logits scaled": "yes" if config.scale_logits else "no",
    "relative positions": f"{config.relpos_buckets} buckets, up to "
    f"{config.relpos_max_distance}",
  }


def _stack_facts(stack: Stack) -> str:
  return (
    f"width {stack.emb_dim}, {stack.num_heads} heads of {stack.head_dim} with "
    f"{stack.num_kv_heads} keys, feed-forward {stack.mlp_dim}, "
    f"{stack.layer_types.count(SLIDING)} layers see {stack.window} places, "
    f"scores capped at {stack.attention_cap or 'nothing'}"
  )


def _prompt_beside(path) -> dict[str, Any]:
  """The prompt in a checkpoint of t5x that was tuned with one."""
  folder = t5x_checkpoints.find(pathlib.Path(path))
  tensors = t5x_checkpoints.prompts(folder) if folder else {}
  what = "a prompt" if len(tensors) == 1 else "a part of the prompt"
  return {
    f"prompt {name}": f"{tensor.shape}, {what} that convert --to numpy writes"
    for name, tensor in tensors.items()
  }


def convert(
  source: str | os.PathLike,
  target: str | os.PathLike,
  to: str,
  *,
  dtype: str | None = None,
  base_model: str = "",
) -> pathlib.Path:
  """Writes the prompt or the model at `source` in another format.

  Args:
    source: a prompt or a model of any format.
    target: a folder; a file for a prompt as numpy.
    to: one of `conversion.FORMATS` or `pretrained.FORMATS`.
    dtype: of a model's weights; as they are stored by default.
    base_model: for a prompt as an adapter of PEFT.

  Raises:
    FileNotFoundError: there is nothing at `source`.
    ValueError: it is damaged, cannot be written so, or `target` exists.
  """
  if pathlib.Path(target).resolve() == pathlib.Path(source).resolve():
    raise ValueError(f"{source} would be written over itself. Name another.")
  only_prompt = {*conversion.FORMATS} - {*pretrained.FORMATS}
  if checkpoints.is_prompt(source) or (
    to in only_prompt and _prompt_beside(source)
  ):
    if dtype is not None:
      raise ValueError(
        f"--dtype {dtype} is of a model's weights; a prompt is always float32. "
        "Leave it out."
      )
    prompts = checkpoints.load_prompts(source)
    _check_base(base_model, prompts[0])
    _check_free(pathlib.Path(target))
    if len(prompts) == 1:
      return conversion.convert(prompts[0], target, to, base_model)
    ending = ".npy" if to == "numpy" else ""
    for k, saved in enumerate(prompts):
      own = pathlib.Path(target) / f"task_{k}{ending}"
      conversion.convert(saved, own, to, base_model)
    return pathlib.Path(target)
  kept = pretrained.open_model(source).dtype
  if to not in pretrained.FORMATS:
    raise ValueError(
      f"{source} is a model, which cannot be written as {to!r}; it can be as "
      f"{', '.join(pretrained.FORMATS)}."
    )
  if to != "t5x":  # whose folder may hold other steps
    _check_free(pathlib.Path(target))
  model = pretrained.load(source, dtype=dtype or kept)
  return pretrained.save(target, model, to)


def _check_base(base_model: str, saved: checkpoints.SavedPrompt) -> None:
  """Compares the width of a prompt with that of a base model that is here.

  Raises:
    ValueError: they differ.
  """
  if not base_model or not pathlib.Path(base_model).is_dir():
    return  # of none, or of one that its reader will find
  width = pretrained.open_model(base_model).config.emb_dim
  if len(saved.values) and saved.values.shape[1] != width:
    raise ValueError(
      f"{saved.path} has a width of {saved.values.shape[1]}, and the model at "
      f"{base_model} has {width}. Give --base_model the model that the prompt "
      "was trained for."
    )


def _check_free(target: pathlib.Path) -> None:
  if target.is_file() or (target.is_dir() and any(target.iterdir())):
    raise ValueError(f"{target} exists. Choose another, or remove it.")
