"""Measures how long a training step waits for its data.

    python benchmarks/data_pipeline.py        (about 2 minutes on 2 cores)

Trains prompts of the smallest model that makes sense, the shipped one, as the
command `train` does; the larger the model, the less its steps wait. The loop
makes the batches of the next dispatch while the present one is computed, and
`waits` is the share of the time in which the batches were not there yet. It
should be under 2 %. `makes` is the share that making them takes, were it not
done meanwhile. The first dispatches compile and are left out.
"""

import argparse
import time

import jax
import numpy as np

from prompt_tuning.cli import demo
from prompt_tuning.data import batches, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.model import freeze
from prompt_tuning.prompts import prompted
from prompt_tuning.training import step
from prompt_tuning.training.prefetch import Prefetch

TASKS = ("microworld_boolq", "microworld_rte", "microworld_qqp")


class Timed:
  """A source of batches that adds up the seconds spent in it."""

  def __init__(self, batches):
    self._batches = batches
    self.seconds = 0.0

  def __call__(self, at: int):
    begin = time.perf_counter()
    batch = self._batches(at)
    self.seconds += time.perf_counter() - begin
    return batch


def measure(batch_size: int, prompts: int, dispatches: int) -> dict:
  """Shares of the time of `dispatches` dispatches of ten steps."""
  model = pretrained.load(pretrained.SHIPPED)
  names = [TASKS[n % len(TASKS)] for n in range(prompts)]
  sets = [
    [(splits.load(n, "train", demo.LENGTHS, vocabulary=model.vocabulary), 1.0)]
    for n in names
  ]
  source = Timed(
    batches.TaskBatches(
      sets, range(prompts), batch_size=batch_size, prompt_length=20
    )
  )
  bank = jax.random.normal(jax.random.key(0), (prompts, 20, 128)) / 10
  together = prompted.with_prompts(model, list(np.asarray(bank)))
  mask = freeze.mask(together.params, freeze.PROMPT)
  trained, frozen = freeze.split(together.params, mask)
  problem = step.Problem(
    together.network, demo.prompt_tuning(1000).optimizer, num_prompts=prompts
  )
  state = step.initial_state(problem, trained)
  run = step.make_steps(problem)
  waited = begin = 0.0
  with Prefetch(source) as prefetch:
    for i in range(dispatches + 3):
      if i == 3:
        waited, source.seconds, begin = 0.0, 0.0, time.perf_counter()
      asked = time.perf_counter()
      stacked = prefetch.take(10 * i, 10 * i + 10, 10 * i + 20)
      waited += time.perf_counter() - asked
      state, metrics = run(state, frozen, stacked)
      jax.block_until_ready(metrics)
    total = time.perf_counter() - begin
  return {
    "B": batch_size,
    "N": prompts,
    "ms/step": 100 * total / dispatches,
    "waits %": 100 * waited / total,
    "makes %": 100 * source.seconds / total,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--dispatches", type=int, default=20)
  arguments = parser.parse_args()
  for batch_size, prompts in ((8, 1), (32, 1), (32, 3)):
    found = measure(batch_size, prompts, arguments.dispatches)
    print("  ".join(f"{k} {v:.4g}" for k, v in found.items()), flush=True)
  print(f"on {jax.devices()[0].device_kind}")


if __name__ == "__main__":
  main()
