"""Prompt tuning: a frozen T5, and a few trained vectors in front of its input.

Importing this package is instant: it loads no JAX and no TensorFlow. A name in
`EXPORTS` loads its module when it is first asked for (PEP 562).
"""

import importlib

__version__ = "0.1.0"

EXPORTS = {
  "Decoding": "infer.Decoding",
  "FrozenModel": "pretrained.FrozenModel",
  "Prompt": "prompt.Prompt",
  "PromptedModel": "infer.PromptedModel",
  "SavedPrompt": "checkpoints.SavedPrompt",
  "T5": "t5.T5",
  "T5Config": "t5.T5Config",
  "load_model": "pretrained.load",
  "load_prompt": "checkpoints.load_prompt",
  "nearest_pieces": "analysis.nearest_pieces",
  "save_model": "pretrained.save",
  "save_prompt": "checkpoints.save_prompt",
  "tune": "tuning.tune",
}


def __getattr__(name: str):
  if name not in EXPORTS:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module, attribute = EXPORTS[name].split(".")
  value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
  globals()[name] = value
  return value


def __dir__():
  return sorted({*globals(), *EXPORTS})
