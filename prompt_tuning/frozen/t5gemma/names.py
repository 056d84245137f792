"""The names of a T5Gemma's tensors in Hugging Face files."""

from prompt_tuning import storage
from prompt_tuning.model import t5
from prompt_tuning.model.t5gemma import T5GemmaConfig
from prompt_tuning.storage import StoredTensor

HEAD = "lm_head.out_proj.weight"
_TABLES = {
  "token_embedder": "model.encoder.embed_tokens.weight",
  "target_embedder": "model.decoder.embed_tokens.weight",
}
_MODULES = {
  "attention": "self_attn",
  "self_attention": "self_attn",
  "encoder_decoder_attention": "cross_attn",
  "pre_attention_layer_norm": "pre_self_attn_layernorm",
  "post_attention_layer_norm": "post_self_attn_layernorm",
  "pre_self_attention_layer_norm": "pre_self_attn_layernorm",
  "post_self_attention_layer_norm": "post_self_attn_layernorm",
  "pre_cross_attention_layer_norm": "pre_cross_attn_layernorm",
  "post_cross_attention_layer_norm": "post_cross_attn_layernorm",
  "pre_mlp_layer_norm": "pre_feedforward_layernorm",
  "post_mlp_layer_norm": "post_feedforward_layernorm",
}
_MATRICES = {
  "query": "q_proj",
  "key": "k_proj",
  "value": "v_proj",
  "out": "o_proj",
  "wi_0": "gate_proj",
  "wi_1": "up_proj",
  "wo": "down_proj",
}


def tensor_names(config: T5GemmaConfig) -> dict[str, str]:
  """The tensor's name in Hugging Face files for each parameter path."""
  return {
    path: _name(path)
    for path in storage.flatten(t5.abstract_parameters(config))
  }


def _name(path: str) -> str:
  """encoder/layers_0/mlp/wo/kernel: model.encoder.layers.0.mlp.down_proj.…"""
  stack, *rest = path.split("/")
  if stack in _TABLES:
    return _TABLES[stack]
  if rest[0] == "logits_dense":
    return HEAD
  if rest[0] == f"{stack}_norm":
    return f"model.{stack}.norm.weight"
  layer, module, *leaf = rest
  name = f"model.{stack}.layers.{layer.removeprefix('layers_')}"
  name += f".{_MODULES.get(module, module)}"
  if leaf[0] in _MATRICES:
    name += f".{_MATRICES[leaf[0]]}"
  return f"{name}.weight"


def without_copies(tensors: dict[str, StoredTensor]) -> None:
  """Takes away a head that is the decoder's table once more.

  A head of other values is one of its own, as transformers has it.
  """
  table = tensors.get(_TABLES["target_embedder"])
  if HEAD not in tensors or table is None:
    return
  own = tensors[HEAD]
  if own.shape == table.shape and (own.read() == table.read()).all():
    del tensors[HEAD]
