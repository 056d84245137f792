"""The training loop: steps, progress, evaluation, the best so far, resume.

    restore -> [ dispatch S steps -> log -> evaluate -> keep the best -> save ]

Prompt tuning, model tuning and pre-training all run through `fit`. Dispatches
end on a grid of absolute steps, so an interrupted run that is started again
repeats exactly the dispatches that it would have made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import dataclasses
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from prompt_tuning import run_folder
from prompt_tuning.model import freeze
from prompt_tuning.shapes import PyTree
from prompt_tuning.training import step

Batch = Mapping[str, np.ndarray]

_MACROS = {
  "steps": "TRAIN_STEPS",
  "eval_every": "EVAL_PERIOD",
  "patience": "PATIENCE",
  "steps_per_dispatch": "STEPS_PER_DISPATCH",
}
"""The names of a plan's numbers on the command line."""
_ROUNDING = 1e-9  # of a score, whose last digit depends on how it is summed
_ADVICE = (
  "Lower LEARNING_RATE, or use float32 activations; the last checkpoint is "
  "unharmed."
)


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


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What `fit` leaves.

  Attributes:
    trained: the trained part at its best evaluation (the last, without one).
    last: the trained part after the last step.
    step: updates done.
    best: scores and steps of the best evaluations; None without evaluation.
  """

  trained: PyTree
  last: PyTree
  step: int
  best: Best | None


def fit(
  problem: step.Problem,
  parts: tuple[PyTree, PyTree],
  batches: Callable[[int], Batch],
  *,
  plan: Plan,
  folder: run_folder.RunFolder,
  names: Sequence[str] = ("",),
  evaluate: Callable[[PyTree], tuple[list[float], list[dict]]] | None = None,
) -> Outcome:
  """Trains the trained part; the frozen one is read only.

  Args:
    problem: network, optimizer and loss.
    parts: the trained and the frozen part of the parameters.
    batches: the batch of a step; a pure function of the step.
    plan: how long, and when to evaluate and save.
    folder: where metrics and checkpoints go, and where to resume from.
    names: of the prompts of the bank, for the log.
    evaluate: from all parameters to (score to select by, metrics) per prompt.

  Raises:
    ValueError: the loss or the trained part is not finite, or the folder
      refuses.
  """
  # The state is that of the folder's last checkpoint, or new. It is donated to
  # each dispatch, so it must not share the caller's arrays.
  trained, frozen = parts
  trained = jax.tree.map(lambda x: jnp.array(x, copy=True), trained)
  state = step.initial_state(problem, trained)
  best = Best.none(len(names))
  kept = jax.tree.map(np.asarray, trained)
  restored = folder.restore({"state": state, "best": kept})
  if restored is not None:
    _, arrays, record = restored
    state = jax.tree.map(jnp.asarray, arrays["state"])
    kept = arrays["best"]
    best = Best(**record["best"])
  start = int(state.step)
  if start > plan.steps:
    raise ValueError(
      f"The run in {folder.path} has done {start} steps, more than "
      f"TRAIN_STEPS={plan.steps}. Choose another MODEL_DIR, or {start} or more."
    )

  # A dispatch is several steps in one program; the batches of the next one are
  # made meanwhile.
  steps = step.make_steps(problem)
  pending: list = []
  bar = tqdm.tqdm(
    total=plan.steps,
    initial=start,
    unit="step",
    disable=not sys.stderr.isatty() or start >= plan.steps,
    dynamic_ncols=True,
  )
  with bar, _Prefetch(batches) as prefetch:
    for first, end in plan.dispatches(start):
      if best.stopped(plan.patience).all():
        break
      stacked = prefetch.take(first, end, plan.next_end(end))
      state, metrics = steps(state, frozen, stacked)
      pending.append(metrics)
      bar.update(end - first)

      # Looking at the metrics waits for the device, so it is done now and then,
      # and before whatever would write a broken state down.
      if not plan.logs_at(end):
        continue
      means = _means(pending)
      _check_finite(names, end, means["loss"])
      if plan.evaluates_at(end) or plan.saves_at(end):
        _check_trained(end, state.trained)
      for i, name in enumerate(names):
        folder.log(end, name, {k: float(v[i]) for k, v in means.items()})

      # Each prompt is kept as it was at its own best evaluation.
      if evaluate is not None and plan.evaluates_at(end):
        scores, values = evaluate(freeze.merge(state.trained, frozen))
        for name, row in zip(names, values, strict=True):
          folder.log(end, name, row)
        improved = best.update(scores, end, plan.patience)
        kept = _choose(improved, state.trained, kept)
      _show(bar, means, best, stacked["inputs"].shape[1])

      # A checkpoint comes after the evaluation of its step, whose outcome it
      # holds: a resumed run does not evaluate it again.
      if plan.saves_at(end):
        folder.save(
          end,
          {"state": state, "best": kept},
          {"best": dataclasses.asdict(best)},
        )
  folder.close()
  return Outcome(
    trained=kept if evaluate is not None else state.trained,
    last=state.trained,
    step=int(state.step),
    best=best if evaluate is not None else None,
  )


def _stack(batches: Sequence[Batch]) -> Batch:
  shapes = {tuple(v.shape for v in batch.values()) for batch in batches}
  if len(shapes) > 1:
    raise ValueError(
      f"{len(batches)} steps in one dispatch need batches of one shape, got "
      f"{len(shapes)} shapes. Set STEPS_PER_DISPATCH=1."
    )
  return {k: np.stack([batch[k] for batch in batches]) for k in batches[0]}


class _Prefetch:
  """Makes the batches of the next dispatch while this one is computed."""

  def __init__(self, batches: Callable[[int], Batch]):
    self._batches = batches
    self._pool = futures.ThreadPoolExecutor(1)
    self._ready: dict[tuple[int, int], futures.Future] = {}

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self._pool.shutdown(cancel_futures=True)

  def _make(self, first: int, end: int) -> Batch:
    return _stack([self._batches(at) for at in range(first, end)])

  def take(self, first: int, end: int, next_end: int) -> Batch:
    """The stacked batches of [first, end); [end, next_end) is begun."""
    ready = self._ready.pop((first, end), None)
    stacked = ready.result() if ready else self._make(first, end)
    if next_end > end:
      self._ready[end, next_end] = self._pool.submit(self._make, end, next_end)
    return stacked


def _means(pending: list) -> dict[str, np.ndarray]:
  """Means over the dispatches since the last log, [N] each; empties them."""
  stacked = [jax.tree.map(np.asarray, metrics) for metrics in pending]
  pending.clear()
  return {
    k: np.concatenate([metrics[k] for metrics in stacked]).mean(axis=0)
    for k in stacked[0]
  }


def _check_finite(names, at, loss) -> None:
  if np.isfinite(loss).all():
    return
  bad = [n for n, x in zip(names, loss, strict=True) if not np.isfinite(x)]
  which = f" of {', '.join(bad)}" if any(bad) else ""
  raise ValueError(f"The loss{which} is not finite at step {at}. {_ADVICE}")


def _check_trained(at, trained) -> None:
  """The update may have broken down behind a loss that was still finite."""
  if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(trained)):
    raise ValueError(
      f"The trained parameters are not finite at step {at}. {_ADVICE}"
    )


def _show(bar, means, best: Best, batch_size: int) -> None:
  """Loss, best score and speed behind the progress bar."""
  shown = {"loss": f"{means['loss'].mean():.3f}"}
  if max(best.steps):
    shown["best"] = f"{np.mean(best.scores):.1f}"
  rate = bar.format_dict["rate"]
  if rate:
    shown["examples/s"] = f"{batch_size * rate:.0f}"
  bar.set_postfix(shown, refresh=False)


def _choose(improved: np.ndarray, new: PyTree, old: PyTree) -> PyTree:
  """The leaves of `new` for the prompts that improved, else those of `old`.

  One row of a bank's leaves is one prompt; a single problem is chosen whole.
  """
  if improved.all():
    return jax.tree.map(np.asarray, new)
  if not improved.any():
    return old

  def choose(x, y):
    rows = improved.reshape(-1, *[1] * (x.ndim - 1))
    return np.where(rows, np.asarray(x), y)

  return jax.tree.map(choose, new, old)
