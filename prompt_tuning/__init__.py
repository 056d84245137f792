"""Prompt tuning: a frozen T5, and a few trained vectors in front of its input.

Importing this package is instant: it loads no JAX and no TensorFlow. A name in
`EXPORTS` loads its module when it is first asked for (PEP 562).
"""

import importlib

__version__ = "0.2.0"

EXPORTS = {
  "declare_task": "tasks.declarations.declare",
  "Decoding": "inference.infer.Decoding",
  "FrozenModel": "frozen.pretrained.FrozenModel",
  "load_model": "frozen.pretrained.load",
  "load_prompt": "prompts.checkpoints.load_prompt",
  "nearest_pieces": "prompts.analysis.nearest_pieces",
  "Prompt": "prompts.prompt.Prompt",
  "PromptedModel": "inference.prompted_model.PromptedModel",
  "save_model": "frozen.pretrained.save",
  "save_prompt": "prompts.checkpoints.save_prompt",
  "SavedPrompt": "prompts.checkpoints.SavedPrompt",
  "T5": "model.t5.T5",
  "T5Config": "model.t5.T5Config",
  "tune": "training.tuning.tune",
}


def __getattr__(name: str):
  if name not in EXPORTS:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module, _, attribute = EXPORTS[name].rpartition(".")
  value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
  globals()[name] = value
  return value


def __dir__():
  return sorted({*globals(), *EXPORTS})
