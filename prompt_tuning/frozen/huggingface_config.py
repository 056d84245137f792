"""config.json as transformers writes it <-> T5Config.

Whatever it says and changes what the network computes is used, or refused by
name. transformers 5 writes `tie_word_embeddings: true` for models whose head is
their own; `scale_decoder_outputs` is what it means, where it stands.
"""

from typing import Any

from prompt_tuning.json_files import Fields
from prompt_tuning.model import t5
from prompt_tuning.vocabulary import T5_IDS, Ids

MODEL_TYPES = ("t5", "mt5", "umt5")

ACTIVATIONS = {
  "relu": "relu",
  "gelu": "gelu_exact",
  "gelu_new": "gelu",
  "gelu_pytorch_tanh": "gelu",
  "silu": "silu",
  "swish": "silu",
}
"""The activations of transformers by the network's names."""

_PROJECTIONS = {
  ("relu",): "relu",
  ("gelu",): "gelu_new",
  ("gelu_exact",): "gelu",
  ("silu",): "silu",
  ("gelu", "linear"): "gated-gelu",
  ("relu", "linear"): "gated-relu",
  ("silu", "linear"): "gated-silu",
}


def is_config(settings: Any) -> bool:
  """Whether what a config.json holds is of transformers."""
  return isinstance(settings, dict) and "model_type" in settings


def config_of(settings: Fields, *, has_head: bool) -> t5.T5Config:
  """The shape that a config.json describes.

  Args:
    settings: what it holds.
    has_head: whether the weights have a head of their own.

  Raises:
    ValueError: it describes no T5, or one that this network cannot be.
  """
  kind = settings.text("model_type")
  if kind not in MODEL_TYPES:
    raise ValueError(
      f"{settings.where} describes a model of type {kind!r}; known are "
      f"{', '.join(MODEL_TYPES)} (T5 1.0 and 1.1, Flan-T5, mT5, UMT5, ByT5, "
      "MADLAD-400) and t5gemma."
    )
  tied = settings.flag("tie_word_embeddings", None)
  if tied is False and not has_head:
    raise ValueError(
      f"{settings.where} has tie_word_embeddings=false, but the weights have "
      "no lm_head.weight. A file is missing, or the head was lost when they "
      "were saved; restore it, or set tie_word_embeddings=true for a tied head."
    )
  # mT5 never scales; its configurations say `tie_word_embeddings` both ways.
  scales = kind != "mt5" and tied is not False
  if "scale_decoder_outputs" in settings:
    scales = settings.flag("scale_decoder_outputs", False)
  layers = settings.whole("num_layers")
  _check_dropout(settings)
  try:
    return t5.T5Config(
      vocab_size=settings.whole("vocab_size"),
      emb_dim=settings.whole("d_model"),
      num_heads=settings.whole("num_heads"),
      head_dim=settings.whole("d_kv", 64),
      mlp_dim=settings.whole("d_ff"),
      num_encoder_layers=layers,
      num_decoder_layers=settings.whole("num_decoder_layers", layers),
      mlp_activations=_activations(settings, kind),
      logits_via_embedding=not has_head,
      scale_logits=scales,
      relpos_buckets=settings.whole(
        "relative_attention_num_buckets", 32, least=4
      ),
      relpos_max_distance=settings.whole(
        "relative_attention_max_distance", 128, least=2
      ),
      relpos_per_layer=kind == "umt5",
      layer_norm_epsilon=settings.number("layer_norm_epsilon", 1e-6),
    )
  except ValueError as error:
    if str(error).startswith(str(settings.where)):
      raise
    raise ValueError(f"{settings.where}: {error}") from error


def _check_dropout(settings: Fields) -> None:
  """A frozen model is used without dropout; still the number must be one."""
  rate = settings.number("dropout_rate", 0.0, above=-1e-9)
  if rate >= 1:
    raise settings.refuse("dropout_rate", "a number from 0 to below 1")


def _activations(settings: Fields, kind: str) -> tuple[str, ...]:
  """The activations of the branches of the feed-forward part.

  `dense_act_fn` and `is_gated_act` are what `feed_forward_proj` means, written
  out; where they stand, they are what transformers computes with.
  """
  default = "relu" if kind == "t5" else "gated-gelu"
  projection = settings.text("feed_forward_proj", default)
  *gate, name = projection.split("-")
  if gate not in ([], ["gated"]) or name not in ACTIVATIONS:
    raise settings.refuse(
      "feed_forward_proj",
      f"one of {', '.join(ACTIVATIONS)}, or gated- and one of them",
    )
  if projection == "gated-gelu":
    name = "gelu_new"
  name = settings.text("dense_act_fn", name)
  if name not in ACTIVATIONS:
    raise settings.refuse("dense_act_fn", f"one of {', '.join(ACTIVATIONS)}")
  is_gated = settings.flag("is_gated_act", bool(gate))
  return (ACTIVATIONS[name], *["linear"] * is_gated)


def settings_of(
  config: t5.T5Config, dtype: str, special: Ids = T5_IDS
) -> dict[str, Any]:
  """What config.json holds of a model with these ids of pad, eos and unk.

  Raises:
    ValueError: transformers has no T5 with these activations.
  """
  if config.mlp_activations not in _PROJECTIONS:
    raise ValueError(
      f"transformers has no T5 with the activations {config.mlp_activations}; "
      f"it has {', '.join(map(str, _PROJECTIONS))}."
    )
  is_umt5 = config.relpos_per_layer
  return {
    "architectures": [f"{'UMT5' if is_umt5 else 'T5'}ForConditionalGeneration"],
    "model_type": "umt5" if is_umt5 else "t5",
    "is_encoder_decoder": True,
    "dtype": dtype,
    "vocab_size": config.vocab_size,
    "d_model": config.emb_dim,
    "d_kv": config.head_dim,
    "d_ff": config.mlp_dim,
    "num_heads": config.num_heads,
    "num_layers": config.num_encoder_layers,
    "num_decoder_layers": config.num_decoder_layers,
    "feed_forward_proj": _PROJECTIONS[config.mlp_activations],
    "relative_attention_num_buckets": config.relpos_buckets,
    "relative_attention_max_distance": config.relpos_max_distance,
    "layer_norm_epsilon": config.layer_norm_epsilon,
    "dropout_rate": config.dropout_rate,
    "tie_word_embeddings": config.logits_via_embedding,
    "scale_decoder_outputs": bool(config.scale_logits),
    "decoder_start_token_id": special[0],
    "pad_token_id": special[0],
    "eos_token_id": special[1],
  }
