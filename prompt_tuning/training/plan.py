"""How long a run trains, when it looks, logs and saves, and what was best.

Dispatches end on a grid of absolute steps, so an interrupted run that is
started again repeats exactly the dispatches that it would have made.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import math

import numpy as np

_ROUNDING = 1e-9  # of a score, whose last digit depends on how it is summed

_MACROS = {
  "steps": "TRAIN_STEPS",
  "eval_every": "EVAL_PERIOD",
  "patience": "PATIENCE",
  "steps_per_dispatch": "STEPS_PER_DISPATCH",
}
"""The names of a plan's numbers on the command line."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """How long to train and when to look.

  Attributes:
    steps: updates in all.
    eval_every: updates between evaluations.
    checkpoint_every: updates between checkpoints; 0 means at evaluations.
    patience: evaluations without a better score until a prompt stops; 0 never
      stops.
    log_every: updates that a logged mean is taken over, up to the end of a
      dispatch.
    steps_per_dispatch: updates per call of the jitted function. Small models
      gain from more of them.
  """

  steps: int
  eval_every: int = 100
  checkpoint_every: int = 0
  patience: int = 0
  log_every: int = 10
  steps_per_dispatch: int = 10

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      least = 0 if field.name in ("checkpoint_every", "patience") else 1
      if value < least:
        macro = _MACROS.get(field.name)
        name = f"{field.name} ({macro})" if macro else field.name
        raise ValueError(f"{name} must be at least {least}, got {value}.")

  @property
  def save_every(self) -> int:
    """Updates between checkpoints."""
    return self.checkpoint_every or self.eval_every

  def announced(self, start: int) -> str:
    """What is to be said before a run that begins at a step."""
    if not start:
      return f"{self.steps} steps; the first one compiles."
    if start < self.steps:
      return f"Going on from step {start} of {self.steps}."
    return (
      f"The {self.steps} steps were done before; here is what came of them."
    )

  def dispatches(self, start: int) -> Iterator[tuple[int, int]]:
    """(first step, step after the last) of each dispatch from `start` on."""
    while start < self.steps:
      end = self.next_end(start)
      yield start, end
      start = end

  def next_end(self, start: int) -> int:
    """Where the dispatch that begins at `start` ends."""
    grids = (self.steps_per_dispatch, self.eval_every, self.save_every)
    return min([self.steps, *((start // g + 1) * g for g in grids)])

  def evaluates_at(self, at: int) -> bool:
    """Whether there is an evaluation after `at` updates."""
    return at == self.steps or at % self.eval_every == 0

  def logs_at(self, at: int) -> bool:
    """Whether the means so far are logged after `at` updates."""
    ends = self.evaluates_at(at) or self.saves_at(at)
    return ends or at % self.log_every == 0

  def saves_at(self, at: int) -> bool:
    """Whether there is a checkpoint after `at` updates."""
    return at == self.steps or at % self.save_every == 0


@dataclasses.dataclass
class Best:
  """The best evaluation of each prompt; plain numbers that go into JSON."""

  scores: list[float]
  steps: list[int]
  misses: list[int]

  @classmethod
  def none(cls, n: int) -> "Best":
    """No evaluation yet."""
    return cls([-math.inf] * n, [0] * n, [0] * n)

  def stopped(self, patience: int) -> np.ndarray:
    """Which prompts have run out of patience, [N] booleans."""
    return np.array([bool(patience) and m >= patience for m in self.misses])

  def update(
    self, scores: Sequence[float], at: int, patience: int
  ) -> np.ndarray:
    """Takes in an evaluation; which prompts have improved, [N] booleans."""
    stopped = self.stopped(patience)
    improved = (np.array(scores) > np.array(self.scores) + _ROUNDING) & ~stopped
    for i, better in enumerate(improved):
      if better:
        self.scores[i], self.steps[i] = float(scores[i]), at
      if not stopped[i]:
        self.misses[i] = 0 if better else self.misses[i] + 1
    return improved
