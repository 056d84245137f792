"""The batches of the next dispatch are made while this one is computed."""

from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

import numpy as np

from prompt_tuning.data.layout import Batch, Parts

Dispatch = Batch | Sequence[Parts]
"""The batches of several steps: stacked, or the parts of each step."""


def _stack(steps: Sequence[Batch | Parts]) -> Dispatch:
  batches = [step for step in steps if isinstance(step, Mapping)]
  if not batches:
    return [step for step in steps if not isinstance(step, Mapping)]
  shapes = {tuple(v.shape for v in batch.values()) for batch in batches}
  if len(shapes) > 1:
    raise ValueError(
      f"{len(batches)} steps in one dispatch need batches of one shape, got "
      f"{len(shapes)} shapes. Set STEPS_PER_DISPATCH=1."
    )
  return {k: np.stack([batch[k] for batch in batches]) for k in batches[0]}


class Prefetch:
  """Makes the batches of the next dispatch while this one is computed."""

  def __init__(self, batches: Callable[[int], Batch | Parts]):
    self._batches = batches
    self._pool = futures.ThreadPoolExecutor(1)
    self._ready: dict[tuple[int, int], futures.Future] = {}

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self._pool.shutdown(cancel_futures=True)

  def _make(self, first: int, end: int) -> Dispatch:
    return _stack([self._batches(at) for at in range(first, end)])

  def take(self, first: int, end: int, next_end: int) -> Dispatch:
    """The batches of [first, end); [end, next_end) is begun."""
    ready = self._ready.pop((first, end), None)
    stacked = ready.result() if ready else self._make(first, end)
    if next_end > end:
      self._ready[end, next_end] = self._pool.submit(self._make, end, next_end)
    return stacked
