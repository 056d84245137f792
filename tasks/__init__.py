"""The tasks this project brings, one file per benchmark.

    `rows`, or a user's files (`own_data`) -> `casts` -> a task
      predictions -> classes (`answers`) -> scores (`metrics`)

`rows.text_to_text` makes them known here and in seqio; `declarations` keeps
what a task says of itself beside that.
"""

import importlib

__all__ = [
  "answers",
  "benchmark",
  "casts",
  "declarations",
  "features",
  "metrics",
  "microworld",
  "own_data",
  "register_all",
  "rows",
]

BENCHMARKS = (
  "microworld",
  "glue",
  "superglue",
  "squad",
  "mrqa",
  "transfer",
)
"""The modules that register tasks when they are imported."""


def register_all() -> None:
  """Registers the tasks of every benchmark."""
  for module in BENCHMARKS:
    importlib.import_module(f"{__name__}.{module}")
