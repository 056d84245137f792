"""Data: tasks -> examples -> the batch of a step; predictions -> scores.

`registry`: all the tasks -> `splits`: ids -> `batches`: [N * B, P + T]
                                          -> `layout`: parts without padding
                                             (`packing`: several in a row)
predictions -> `scoring` -> metrics
texts -> `text` by `objectives` -> batches to pre-train on
"""

import importlib

__all__ = [
  "batches",
  "layout",
  "objectives",
  "packing",
  "registry",
  "scoring",
  "splits",
  "text",
]

_NAMES = {
  "Examples": "splits",
  "find": "registry",
  "labels": "registry",
  "load": "splits",
  "metrics": "scoring",
  "postprocess": "scoring",
}
"""Functions and classes that are here by name as well, and their module."""


def __getattr__(name: str):
  if name not in _NAMES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
