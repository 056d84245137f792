"""How long is a step of each method? In turns, on the model that ships.

    python benchmarks/methods.py

Every method trains a prompt for each of two tasks, on the same batches. Their
steps take turns, ten at a time, so that whatever else the machine does slows
all of them; the quickest ten of each count.
"""

import time

import jax

from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts import initializers, multitask
from prompt_tuning.study import methods
from prompt_tuning.tasks.microworld.examples import LENGTHS
from prompt_tuning.training import optimizers, train
from prompt_tuning.training.prefetch import Prefetch
from prompt_tuning.training.prepare import prepare
from prompt_tuning.training.step import initial_state, make_steps

METHODS = {**methods.MODULES, "product": multitask.multi_task()}
TASKS = ("microworld_boolq", "microworld_rte")
LENGTH, STEPS, ROUNDS = 20, 10, 12
LENGTHS_OF = {"IA3": 0}  # of those that are not LENGTH


class Steps:
  """The steps of one method on the bank that its runs have."""

  def __init__(self, model: pretrained.FrozenModel, name: str):
    tasks = train.Tasks(TASKS, LENGTHS)
    tuning = train.Tuning(
      optimizers.adafactor(),
      prompt_length=LENGTHS_OF.get(name, LENGTH),
      initializer=initializers.from_vocabulary(),
      module=METHODS[name],
    )
    prepared = prepare(model, tasks, tuning)
    self._frozen = prepared.frozen
    with Prefetch(prepared.batches) as prefetch:
      self._batches = prefetch.take(0, STEPS, STEPS)
    self._state = initial_state(prepared.problem, prepared.trained)
    self._steps = make_steps(prepared.problem)
    self.best = float("inf")

  def go(self, at: int) -> None:
    """Takes ten steps, the same in every round."""
    begin = time.perf_counter()
    self._state, _ = self._steps(self._state, self._frozen, self._batches)
    jax.block_until_ready(self._state)
    if at:  # the first round compiles
      self.best = min(self.best, (time.perf_counter() - begin) / STEPS)


def main() -> None:
  """Prints a line for each method."""
  model = pretrained.load(pretrained.SHIPPED)
  running = {name: Steps(model, name) for name in METHODS}
  for at in range(ROUNDS):
    for steps in running.values():
      steps.go(at)
  plain = running[methods.PLAIN].best
  for name, steps in running.items():
    print(f"{name:15}{steps.best:7.4f} s a step, {steps.best / plain:5.2f} x")


if __name__ == "__main__":
  main()
