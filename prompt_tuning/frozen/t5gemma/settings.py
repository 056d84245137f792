"""config.json of a T5Gemma as transformers writes it <-> T5GemmaConfig.

What is missing has transformers' default, which is that of 2B. Whatever changes
what the network computes is used, or refused by name; `null` switches a cap
off. How long an input may be (max_position_embeddings) changes nothing.
"""

import logging
from typing import Any

from prompt_tuning.frozen.huggingface_config import ACTIVATIONS
from prompt_tuning.json_files import Fields
from prompt_tuning.model import t5gemma
from prompt_tuning.model.t5gemma.config import FULL, SLIDING
from prompt_tuning.shapes import EOS, PAD

MODEL_TYPE = "t5gemma"
_STACK_TYPE = "t5_gemma_module"
_STACKS = ("encoder", "decoder")
_BOS = 2


def is_t5gemma(settings: Fields) -> bool:
  """Whether a config.json describes one.

  Raises:
    ValueError: it describes a T5Gemma 2, which is another network.
  """
  kind = settings.text("model_type")
  if kind.startswith("t5gemma") and kind != MODEL_TYPE:
    raise ValueError(
      f"{settings.where} describes a model of type {kind!r}: a T5Gemma 2 has "
      "one attention for the input and what is written, norms of queries and "
      "keys, and images, and cannot be read here. T5Gemma (t5gemma) and the "
      "T5s can."
    )
  return kind == MODEL_TYPE


def config_of(settings: Fields, *, has_head: bool) -> t5gemma.T5GemmaConfig:
  """The shape that a config.json describes.

  Args:
    settings: what it holds.
    has_head: whether the weights have a head beside the decoder's table.

  Raises:
    ValueError: it describes something that this network cannot be.
  """
  encoder, decoder = (settings.table(stack) for stack in _STACKS)
  rows = [fields.whole("vocab_size", 256_000) for fields in (encoder, decoder)]
  if rows[0] != rows[1]:
    raise ValueError(
      f"{settings.where} has vocab_size {rows[0]} for the encoder and "
      f"{rows[1]} for the decoder; one vocabulary needs tables of one size."
    )
  if settings.flag("tie_word_embeddings", True) is False and not has_head:
    raise ValueError(
      f"{settings.where} has tie_word_embeddings=false, but the weights have "
      "no lm_head.out_proj.weight. A file is missing, or the head was lost "
      "when they were saved; restore it, or set tie_word_embeddings=true."
    )
  _check_across(settings, encoder, decoder)
  try:
    return t5gemma.T5GemmaConfig(
      vocab_size=rows[0],
      encoder=_stack(encoder),
      decoder=_stack(decoder),
      logits_via_embedding=not has_head,
      logits_cap=_cap(decoder, "final_logit_softcapping", 30.0),
      start_id=_start(settings, decoder),
    )
  except ValueError as error:
    if str(error).startswith(str(settings.where)):
      raise
    raise ValueError(f"{settings.where}: {error}") from error


def _check_across(settings: Fields, encoder: Fields, decoder: Fields) -> None:
  """Refuses what says that the parts do not go together."""
  width = encoder.whole("hidden_size", 2304)
  if decoder.whole("cross_attention_hidden_size", width) != width:
    raise decoder.refuse(
      "cross_attention_hidden_size", f"the encoder's hidden_size, {width}"
    )
  for name in ("dropout_rate", "attention_dropout"):
    if settings.number(name, 0.0, above=-1e-9) >= 1:
      raise settings.refuse(name, "a number from 0 to below 1")
  for fields in (settings, encoder, decoder):
    _check_ids(fields)


def _check_ids(fields: Fields) -> None:
  """Refuses other ids of pad and eos than a T5Gemma's, which are a T5's."""
  if fields.whole("pad_token_id", PAD, least=0) != PAD:
    raise fields.refuse("pad_token_id", f"{PAD}, as a T5Gemma has it")
  ends = fields.get("eos_token_id")
  several = ends if isinstance(ends, list) else [EOS if ends is None else ends]
  if EOS not in several:
    raise fields.refuse("eos_token_id", f"{EOS}, or a list with it")
  if len(several) > 1:
    logging.getLogger(__name__).warning(
      "%s has eos_token_id=%s; here an answer ends with %d alone.",
      *(fields.where, several, EOS),
    )


def _start(settings: Fields, decoder: Fields) -> int:
  """What the decoder starts from: `bos_token_id` of the decoder."""
  start = decoder.whole("bos_token_id", _BOS, least=0)
  for name in ("bos_token_id", "decoder_start_token_id"):
    if settings.whole(name, start, least=0) != start:
      raise settings.refuse(name, f"the decoder's bos_token_id, {start}")
  return start


def _cap(fields: Fields, name: str, default: float) -> float | None:
  """A soft cap; `null` is none."""
  if name in fields and fields[name] is None:
    return None
  return fields.number(name, default)


def _stack(fields: Fields) -> t5gemma.Stack:
  """The shape of an encoder or a decoder."""
  kind = fields.text("model_type", _STACK_TYPE)
  if kind != _STACK_TYPE:
    raise fields.refuse("model_type", f"{_STACK_TYPE!r}")
  if fields.flag("attention_bias", False):
    raise fields.refuse("attention_bias", "false: attention has no biases here")
  name = fields.text("hidden_activation", "gelu_pytorch_tanh")
  if name not in ACTIVATIONS:
    raise fields.refuse("hidden_activation", f"one of {', '.join(ACTIVATIONS)}")
  layers = fields.whole("num_hidden_layers", 26)
  types = tuple(fields.words("layer_types", ()))
  if any(kind not in (SLIDING, FULL) for kind in types):
    raise fields.refuse("layer_types", f"a list of {SLIDING} and {FULL}")
  window = fields.whole("sliding_window", 4096)
  has_none = "sliding_window" in fields and fields["sliding_window"] is None
  if has_none and SLIDING in (types or (SLIDING,)):
    raise fields.refuse("sliding_window", "how far sliding layers see")
  return t5gemma.Stack(
    emb_dim=fields.whole("hidden_size", 2304),
    num_heads=fields.whole("num_attention_heads", 8),
    num_kv_heads=fields.whole("num_key_value_heads", 4),
    head_dim=fields.whole("head_dim", 256),
    mlp_dim=fields.whole("intermediate_size", 9216),
    num_layers=layers,
    query_scale=fields.number("query_pre_attn_scalar", 256.0),
    attention_cap=_cap(fields, "attn_logit_softcapping", 50.0),
    window=window,
    layer_types=types,
    rope_base=_rope_base(fields),
    mlp_activations=(ACTIVATIONS[name], "linear"),
    layer_norm_epsilon=fields.number("rms_norm_eps", 1e-6),
  )


def _rope_base(fields: Fields) -> float:
  """The base of the rotations; older files have it outside."""
  if fields.get("rope_scaling") is not None:
    raise fields.refuse("rope_scaling", "null: positions are not scaled here")
  rope = fields.table("rope_parameters")
  kind = rope.text("rope_type", rope.text("type", "default"))
  if kind != "default":
    raise rope.refuse("rope_type", "'default'")
  return rope.number("rope_theta", fields.number("rope_theta", 10_000.0))


_NAMES = {
  "gelu": "gelu_pytorch_tanh",
  "gelu_exact": "gelu",
  "relu": "relu",
  "silu": "silu",
}


def settings_of(config: t5gemma.T5GemmaConfig, dtype: str) -> dict[str, Any]:
  """What config.json holds of a model.

  Raises:
    ValueError: transformers has no T5Gemma with these activations.
  """
  ids = {"pad_token_id": PAD, "eos_token_id": EOS}
  ids["bos_token_id"] = config.start_id
  more = {
    "vocab_size": config.vocab_size,
    "dropout_rate": config.dropout_rate,
    "attention_dropout": 0.0,
    "tie_word_embeddings": config.logits_via_embedding,
    "dtype": dtype,
    **ids,
  }
  stacks = {
    name: _stack_settings(getattr(config, name), config) | more
    for name in _STACKS
  }
  stacks["encoder"]["is_decoder"] = False
  stacks["decoder"] |= {
    "is_decoder": True,
    "cross_attention_hidden_size": config.encoder.emb_dim,
  }
  return {
    "architectures": ["T5GemmaForConditionalGeneration"],
    "model_type": MODEL_TYPE,
    "is_encoder_decoder": True,
    **more,
    **stacks,
  }


def _whole(number: float) -> int | float:
  """A number as transformers has it, which takes whole ones as such."""
  return int(number) if number == int(number) else number


def _stack_settings(
  stack: t5gemma.Stack, config: t5gemma.T5GemmaConfig
) -> dict[str, Any]:
  """What config.json holds of an encoder or a decoder."""
  activation, *rest = stack.mlp_activations
  if activation not in _NAMES or rest != ["linear"]:
    raise ValueError(
      "transformers has no T5Gemma with the activations "
      f"{stack.mlp_activations}; it has one of {', '.join(_NAMES)}, and linear."
    )
  return {
    "model_type": _STACK_TYPE,
    "hidden_size": stack.emb_dim,
    "intermediate_size": stack.mlp_dim,
    "num_hidden_layers": stack.num_layers,
    "num_attention_heads": stack.num_heads,
    "num_key_value_heads": stack.num_kv_heads,
    "head_dim": stack.head_dim,
    "hidden_activation": _NAMES[activation],
    "rms_norm_eps": stack.layer_norm_epsilon,
    "query_pre_attn_scalar": _whole(stack.query_scale),
    "sliding_window": stack.window,
    "layer_types": list(stack.layer_types),
    "attn_logit_softcapping": stack.attention_cap,
    "final_logit_softcapping": config.logits_cap,
    "attention_bias": False,
    "rope_parameters": {
      "rope_type": "default",
      "rope_theta": stack.rope_base,
    },
  }
