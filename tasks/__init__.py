"""The tasks this project brings, one file per benchmark."""

BENCHMARKS = (
  "microworld",
  "glue",
  "superglue",
  "squad",
  "mrqa",
  "transfer",
)
"""The modules that register tasks when they are imported."""
