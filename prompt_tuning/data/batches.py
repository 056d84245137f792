"""Batches by step, of one task or several for each prompt.

    Examples -> order of a seed -> batch(step): [N * B, P + T], [N * B, L]

The order of the examples is a function of seed and step, so a resumed run sees
the examples that it would have seen.
"""

from collections.abc import Sequence
import functools

import numpy as np

from prompt_tuning.data import splits
from prompt_tuning.model import inject
from prompt_tuning.shapes import PAD, Int, rounded

_BLOCK = 8192  # places of a mixture's schedule that are drawn together


def width(sets: Sequence[splits.Sequences]) -> int:
  """The padded length that holds all sequences."""
  return rounded(max(rows.longest for rows in sets))


Parts = Sequence[tuple[splits.Examples, float]]
"""The tasks that a task or mixture consists of, with their rates."""


class TaskBatches:
  """Batches of one or several prompts, each with its own task and seed.

  Called with a step it returns `inputs` [N * B, P + T], `targets` [N * B, L]
  and `prompt_id` [N * B]: B examples for each of the N prompts. Prompt n gets
  what it would get alone with its seed.

  Args:
    sets: for each prompt its tasks with their rates; most have one task.
    seeds: for each prompt the seed of its order.
    batch_size: B, examples per prompt.
    prompt_length: P.
    places: where each prompt stands, see `inject.PLACES`; () for in front.
    few: how many examples of each task are used, drawn by the seed; 0 for all.
  """

  def __init__(
    self,
    sets: Sequence[Parts],
    seeds: Sequence[int],
    *,
    batch_size: int,
    prompt_length: int,
    places: Sequence[str] = (),
    few: int = 0,
  ):
    self._orders = [
      Order([len(e) for e, _ in parts], [r for _, r in parts], seed, few)
      for parts, seed in zip(sets, seeds, strict=True)
    ]
    self._sets = [[examples for examples, _ in parts] for parts in sets]
    every = [examples for parts in self._sets for examples in parts]
    self._widths = (
      width([examples.inputs for examples in every]),
      width([examples.targets for examples in every]),
    )
    self._batch_size = batch_size
    self._prompt_length = prompt_length
    self._places = list(places) or [inject.FRONT] * len(sets)

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of a step."""
    size, prompts = self._batch_size, len(self._sets)
    columns = [
      np.full((prompts * size, width), PAD, np.int32) for width in self._widths
    ]
    for n, (order, parts) in enumerate(
      zip(self._orders, self._sets, strict=True)
    ):
      tasks, index = order.places(step * size, size)
      for task in np.unique(tasks):
        (chosen,) = np.nonzero(tasks == task)
        examples = parts[task]
        for column, rows in zip(
          columns, (examples.inputs, examples.targets), strict=True
        ):
          column[n * size + chosen] = rows.padded(
            index[chosen], column.shape[1]
          )
    inputs, targets = columns
    prompt_id = np.repeat(np.arange(prompts, dtype=np.int32), size)
    at = inject.columns(inputs, self._places, prompt_id)
    return {
      "inputs": inject.reserve(inputs, prompt_id, self._prompt_length, at=at),
      "targets": targets,
      "prompt_id": prompt_id,
    }


class Order:
  """Which example stands at each place of an endless, shuffled sequence.

  Every task is gone through in a fresh permutation per epoch; a mixture's
  rates decide which task each place takes. With `few` there are no more than so
  many of them, the same in every epoch.
  """

  def __init__(
    self,
    sizes: Sequence[int],
    rates: Sequence[float],
    seed: int,
    few: int = 0,
  ):
    self._all, self._seed = sizes, seed
    self._sizes = [min(size, few) if few else size for size in sizes]
    self._rates = np.array(rates) / np.sum(rates)
    self._before = [np.zeros(len(sizes), np.int64)]
    self._permutation = functools.lru_cache(2 * len(sizes))(self._shuffle)

  def _shuffle(self, task: int, epoch: int) -> np.ndarray:
    rng = np.random.default_rng([self._seed, 1, task, epoch])
    order = rng.permutation(self._sizes[task])
    if self._sizes[task] == self._all[task]:
      return order
    drawing = np.random.default_rng([self._seed, 3, task])
    return drawing.permutation(self._all[task])[order]

  def _tasks(self, block: int) -> np.ndarray:
    rng = np.random.default_rng([self._seed, 2, block])
    return rng.choice(len(self._sizes), _BLOCK, p=self._rates)

  def _counts_before(self, block: int) -> np.ndarray:
    while len(self._before) <= block:
      drawn = self._tasks(len(self._before) - 1)
      counts = np.bincount(drawn, minlength=len(self._sizes))
      self._before.append(self._before[-1] + counts)
    return self._before[block]

  def places(
    self, first: int, count: int
  ) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "B"]]:
    """The task and the example at `count` places from `first` on."""
    if len(self._sizes) == 1:
      places = range(first, first + count)
      tasks = np.zeros(count, np.int64)
      return tasks, np.array([self._example(0, i) for i in places], np.int64)
    tasks, index = [], []
    for place in range(first, first + count):
      block, inside = divmod(place, _BLOCK)
      drawn = self._block(block)
      task = int(drawn[inside])
      earlier = int((drawn[:inside] == task).sum())
      rank = int(self._counts_before(block)[task]) + earlier
      tasks.append(task)
      index.append(self._example(task, rank))
    return np.array(tasks), np.array(index)

  @functools.cached_property
  def _block(self):
    return functools.lru_cache(2)(self._tasks)

  def _example(self, task: int, rank: int) -> int:
    epoch, place = divmod(rank, self._sizes[task])
    return int(self._permutation(task, epoch)[place])
