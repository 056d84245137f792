"""Data: tasks -> examples -> the batch of a step; predictions -> scores.

`registry`: seqio's tasks -> `splits`: ids -> `batches`: [N * B, P + T]
predictions -> `scoring` -> metrics
texts -> `text` by `objectives` -> batches to pre-train on
"""

__all__ = ["batches", "objectives", "registry", "scoring", "splits", "text"]
