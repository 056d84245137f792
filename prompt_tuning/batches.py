"""Batches by step, of one task or several for each prompt.

    Examples -> order of a seed -> batch(step): [N * B, P + T], [N * B, L]

The order of the examples is a function of seed and step, so a resumed run sees
the examples that it would have seen.
"""

from collections.abc import Sequence
import functools

import numpy as np

from prompt_tuning import data, inject

_BLOCK = 8192  # places of a mixture's schedule that are drawn together


def width(sets: Sequence[data.Rows]) -> int:
  """The padded length that holds all sequences: a multiple of 8."""
  return -(-max(rows.longest for rows in sets) // 8) * 8


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
  """

  def __init__(
    self,
    sets: Sequence[Sequence[tuple[data.Examples, float]]],
    seeds: Sequence[int],
    *,
    batch_size: int,
    prompt_length: int,
  ):
    self._orders = [
      Order([len(e) for e, _ in parts], [r for _, r in parts], seed)
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

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of a step."""
    first = step * self._batch_size
    inputs, targets = [], []
    for order, parts in zip(self._orders, self._sets, strict=True):
      for task, index in order.places(first, self._batch_size):
        one = np.array([index])
        inputs.append(parts[task].inputs.padded(one, self._widths[0]))
        targets.append(parts[task].targets.padded(one, self._widths[1]))
    prompt_id = np.repeat(
      np.arange(len(self._sets), dtype=np.int32), self._batch_size
    )
    return {
      "inputs": inject.reserve(
        np.concatenate(inputs), prompt_id, self._prompt_length
      ),
      "targets": np.concatenate(targets),
      "prompt_id": prompt_id,
    }


class Order:
  """Which example stands at each place of an endless, shuffled sequence.

  Every task is gone through in a fresh permutation per epoch; a mixture's
  rates decide which task each place takes.
  """

  def __init__(self, sizes: Sequence[int], rates: Sequence[float], seed: int):
    self._sizes, self._seed = sizes, seed
    self._rates = np.array(rates) / np.sum(rates)
    self._before = [np.zeros(len(sizes), np.int64)]
    self._permutation = functools.lru_cache(2 * len(sizes))(self._shuffle)

  def _shuffle(self, task: int, epoch: int) -> np.ndarray:
    rng = np.random.default_rng([self._seed, 1, task, epoch])
    return rng.permutation(self._sizes[task])

  def _tasks(self, block: int) -> np.ndarray:
    rng = np.random.default_rng([self._seed, 2, block])
    return rng.choice(len(self._sizes), _BLOCK, p=self._rates)

  def _counts_before(self, block: int) -> np.ndarray:
    while len(self._before) <= block:
      drawn = self._tasks(len(self._before) - 1)
      counts = np.bincount(drawn, minlength=len(self._sizes))
      self._before.append(self._before[-1] + counts)
    return self._before[block]

  def places(self, first: int, count: int) -> list[tuple[int, int]]:
    """(task, index of the example) at `count` places from `first` on."""
    if len(self._sizes) == 1:
      return [(0, self._example(0, i)) for i in range(first, first + count)]
    found = []
    for place in range(first, first + count):
      block, inside = divmod(place, _BLOCK)
      tasks = self._block(block)
      task = int(tasks[inside])
      earlier = int((tasks[:inside] == task).sum())
      rank = int(self._counts_before(block)[task]) + earlier
      found.append((task, self._example(task, rank)))
    return found

  @functools.cached_property
  def _block(self):
    return functools.lru_cache(2)(self._tasks)

  def _example(self, task: int, rank: int) -> int:
    epoch, place = divmod(rank, self._sizes[task])
    return int(self._permutation(task, epoch)[place])
