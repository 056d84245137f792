"""T5Gemma as others store it.

transformers, for `frozen.huggingface`:
  config.json, {"encoder": {…}, "decoder": {…}}  <->  T5GemmaConfig
  model.decoder.layers.0.cross_attn.q_proj.weight <-> a parameter's path
gemma (google-deepmind), whole (`flax_checkpoints`):
  shapes -> `flax_sizes` -> T5GemmaConfig
  decoder/layer_0/cross_attn/q_einsum -> `flax_tree` -> a parameter's path
"""

from prompt_tuning.frozen.t5gemma import flax_checkpoints
from prompt_tuning.frozen.t5gemma.names import (
  HEAD,
  tensor_names,
  without_copies,
)
from prompt_tuning.frozen.t5gemma.settings import (
  MODEL_TYPE,
  config_of,
  is_t5gemma,
  settings_of,
)

__all__ = [
  "HEAD",
  "MODEL_TYPE",
  "config_of",
  "flax_checkpoints",
  "is_t5gemma",
  "settings_of",
  "tensor_names",
  "without_copies",
]
