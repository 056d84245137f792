"""Prompt tuning: a frozen T5, and a few trained vectors in front of its input.

Importing this package is instant: it loads no JAX and no TensorFlow. A name in
`EXPORTS` loads its module when it is first asked for (PEP 562).
"""

import importlib

__version__ = "0.1.0"

EXPORTS = {
  "Prompt": "prompt_tuning.prompt",
  "T5": "prompt_tuning.t5",
  "T5Config": "prompt_tuning.t5",
}


def __getattr__(name: str):
  if name not in EXPORTS:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  value = getattr(importlib.import_module(EXPORTS[name]), name)
  globals()[name] = value
  return value


def __dir__():
  return sorted({*globals(), *EXPORTS})
