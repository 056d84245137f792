"""The training loop: steps, progress, evaluation, the best so far, resume.

    restore -> [ dispatch S steps -> log -> evaluate -> keep the best -> save ]

Prompt tuning, model tuning and pre-training all run through `fit`. It may stop
after any dispatch, asked by a signal: a checkpoint holds all that the rest of
the run depends on, so that the same command goes on bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from prompt_tuning import processes, run_folder
from prompt_tuning.data import layout
from prompt_tuning.frozen import placement
from prompt_tuning.model import freeze
from prompt_tuning.shapes import PyTree
from prompt_tuning.training import interruption, step
from prompt_tuning.training.plan import Best, Plan
from prompt_tuning.training.prefetch import Batch, Dispatch, Parts, Prefetch

Evaluate = Callable[[PyTree], tuple[list[float], list[dict]]]
Watch = Callable[[int, Sequence[float]], None]

_ADVICE = (
  "Lower LEARNING_RATE, or use float32 activations; the last checkpoint is "
  "unharmed."
)


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What `fit` leaves.

  Attributes:
    trained: the trained part at its best evaluation (the last, without one).
    last: the trained part after the last step.
    step: updates done.
    best: scores and steps of the best evaluations; None without evaluation.
    step_seconds: of the quickest steps between two logs; None where a log had
      no other before it.
  """

  trained: PyTree
  last: PyTree
  step: int
  best: Best | None
  step_seconds: float | None = None


def fit(
  problem: step.Problem,
  parts: tuple[PyTree, PyTree],
  batches: Callable[[int], Batch | Parts],
  *,
  plan: Plan,
  folder: run_folder.RunFolder,
  names: Sequence[str] = ("",),
  evaluate: Evaluate | None = None,
  watch: Watch | None = None,
) -> Outcome:
  """Trains the trained part; the frozen one is read only.

  Args:
    problem: network, optimizer and loss.
    parts: the trained and the frozen part of the parameters.
    batches: the batch of a step, or its parts (see `layout`); a pure function
      of the step.
    plan: how long, and when to evaluate and save.
    folder: where metrics and checkpoints go, and where to resume from.
    names: of the prompts of the bank, for the log.
    evaluate: from all parameters to (score to select by, metrics) per prompt.
    watch: is told the step and the scores of each evaluation.

  Raises:
    ValueError: the loss or the trained part is not finite, or the folder
      refuses.
    interruption.Stopped: a signal asked to stop; there is a checkpoint.
  """
  trained, frozen = parts
  run = _Run(problem, trained, frozen, folder, names, (evaluate, watch))
  start = run.restore()
  if start > plan.steps:
    raise ValueError(
      f"The run in {folder.path} has done {start} steps, more than "
      f"TRAIN_STEPS={plan.steps}. Choose another MODEL_DIR, or {start} or more."
    )
  if start or not sys.stderr.isatty():
    processes.said(plan.announced(start))
  steps = step.make_steps(problem, run.state if problem.devices else None)
  bar = tqdm.tqdm(
    total=plan.steps,
    initial=start,
    unit="step",
    disable=not _shows_bar() or start >= plan.steps,
    dynamic_ncols=True,
  )
  with interruption.Requests() as requests, bar, Prefetch(batches) as prefetch:
    # A run that was stopped in an evaluation takes it up first.
    if run.is_due:
      run.look(start, plan, requests)
      run.save(start)
    for first, end in plan.dispatches(start):
      if run.best.stopped(plan.patience).all():
        break

      # A dispatch is several steps in one program; the batches of the next one
      # are made meanwhile.
      batch = prefetch.take(first, end, plan.next_end(end))
      on_devices = step.placed(problem, batch)
      run.state, metrics = steps(run.state, frozen, on_devices)
      run.pending.append(metrics)
      bar.update(end - first)

      # Looking at the metrics waits for the device, so it is done now and then,
      # and before whatever would write a broken state down.
      if plan.logs_at(end):
        means = run.log(end)
        if plan.evaluates_at(end) or plan.saves_at(end):
          run.check(end)
        if plan.evaluates_at(end):
          scores = run.look(end, plan, requests)
          _say(f"step {end} of {plan.steps}", names, means, scores)
        _show(bar, means, run.best, _num_examples(batch))

      # A checkpoint comes after the evaluation of its step, whose outcome it
      # holds: a resumed run does not evaluate it again.
      if plan.saves_at(end):
        run.save(end)
      if plan.logs_at(end):
        run.begun = end, time.perf_counter()
      if requests.agreed():
        run.stop(end, requests)
  folder.close()
  return run.outcome()


class _Run:
  """The state of a run between two dispatches, and what is done with it.

  Attributes:
    state: step, trained leaves and optimizer state.
    best: scores and steps of the best evaluations.
    kept: the trained leaves at the best evaluations.
    pending: metrics since the last log, a stack of steps for each dispatch.
    is_due: whether the evaluation of this step has not been done.
    begun: the step and the moment from which the steps are timed.
    step_seconds: of the quickest steps so far.
  """

  def __init__(self, problem, trained, frozen, folder, names, looks):
    # The state is donated to each dispatch, so it must not share the caller's.
    trained = jax.tree.map(lambda x: jnp.array(x, copy=True), trained)
    self.state = step.initial_state(problem, trained)
    self.kept = processes.kept(trained)
    self.best = Best.none(len(names))
    self.pending: list[dict[str, np.ndarray]] = []
    self.is_due = False
    self.begun: tuple[int, float] | None = None
    self.step_seconds: float | None = None
    self._frozen, self._folder, self._names = frozen, folder, names
    self._evaluate: Evaluate | None = looks[0]
    self._watch: Watch | None = looks[1]

  def restore(self) -> int:
    """Takes up the folder's last checkpoint, if any; the steps done."""
    restored = self._folder.restore({"state": self.state, "best": self.kept})
    if restored is not None:
      _, arrays, record = restored
      self.state = jax.tree.map(placement.lay_as, arrays["state"], self.state)
      self.kept = arrays["best"]
      self.best = Best(**record["best"])
      self.is_due = record.get("evaluation_is_due", False)
      self.pending = [
        {name: np.asarray(values, np.float32) for name, values in part.items()}
        for part in record.get("pending", [])
      ]
    return int(self.state.step)

  def save(self, at: int) -> None:
    """Writes a checkpoint."""
    pending = [
      {name: np.asarray(values).tolist() for name, values in part.items()}
      for part in self.pending
    ]
    self._folder.save(
      at,
      {"state": self.state, "best": self.kept},
      {
        "best": dataclasses.asdict(self.best),
        "evaluation_is_due": self.is_due,
        "pending": pending,
      },
    )

  def stop(self, at: int, requests: interruption.Requests) -> None:
    """Saves where the run stands, and ends it."""
    self.check(at)
    self.save(at)
    raise interruption.Stopped(
      requests.requested,
      f"Stopped at step {at}, which is saved in {self._folder.path}. The same "
      "command goes on there.",
    )

  def log(self, at: int) -> dict[str, np.ndarray]:
    """Logs the means since the last log, [N] each, and returns them."""
    means = _means(self.pending)
    if self.begun:
      took = (time.perf_counter() - self.begun[1]) / (at - self.begun[0])
      self.step_seconds = min(took, self.step_seconds or took)
    _check_finite(self._names, at, means["loss"])
    for i, name in enumerate(self._names):
      values = {k: float(v[i]) for k, v in means.items()}
      self._folder.log(at, name, values)
    return means

  def check(self, at: int) -> None:
    """The update may have broken down behind a loss that was still finite."""
    leaves = jax.tree.leaves(self.state.trained)
    if not all(jnp.isfinite(leaf).all() for leaf in leaves):
      raise ValueError(
        f"The trained parameters are not finite at step {at}. {_ADVICE}"
      )

  def look(
    self, at: int, plan: Plan, requests: interruption.Requests
  ) -> Sequence[float]:
    """Evaluates; each prompt is kept as it was at its own best evaluation.

    Returns:
      The score of each prompt; none without evaluation.
    """
    if self._evaluate is None:
      return ()
    self.is_due = True
    try:
      with requests.interruptible():
        params = freeze.merge(self.state.trained, self._frozen)
        scores, values = self._evaluate(params)
    except interruption.Interrupted:
      self.stop(at, requests)
      raise
    self.is_due = False
    for name, row in zip(self._names, values, strict=True):
      self._folder.log(at, name, row)
    improved = self.best.update(scores, at, plan.patience)
    self.kept = _choose(improved, self.state.trained, self.kept)
    if self._watch:
      self._watch(at, scores)
    return scores

  def outcome(self) -> Outcome:
    """What the run leaves."""
    is_scored = self._evaluate is not None
    return Outcome(
      trained=self.kept if is_scored else self.state.trained,
      last=self.state.trained,
      step=int(self.state.step),
      best=self.best if is_scored else None,
      step_seconds=self.step_seconds,
    )


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


def _num_examples(batch: Dispatch) -> int:
  """Of the first step of a dispatch."""
  if isinstance(batch, Mapping):
    return batch["inputs"].shape[1]
  return layout.num_examples(batch[0])


def _shows_bar() -> bool:
  return sys.stderr.isatty() and processes.is_first()


def _show(bar, means, best: Best, batch_size: int) -> None:
  """Loss, best score and speed behind the progress bar."""
  shown = {"loss": f"{means['loss'].mean():.3f}"}
  if max(best.steps):
    shown["best"] = f"{np.mean(best.scores):.1f}"
  rate = bar.format_dict["rate"]
  if rate:
    shown["examples/s"] = f"{batch_size * rate:.0f}"
  bar.set_postfix(shown, refresh=False)


def _say(at: str, names: Sequence[str], means, scores) -> None:
  """A line for each evaluation, in a log file that shows no bar."""
  if sys.stderr.isatty():
    return
  said = [f"loss {loss:.3f}" for loss in means["loss"]]
  for i, score in enumerate(scores):
    said[i] += f", score {score:.2f}"
  if len(said) > 1:
    said = [f"{n}: {text}" for n, text in zip(names, said, strict=True)]
  processes.said(f"{at}: {'; '.join(said)}")


def _choose(improved: np.ndarray, new: PyTree, old: PyTree) -> PyTree:
  """The leaves of `new` for the prompts that improved, else those of `old`.

  One row of a bank's leaves is one prompt; a single problem is chosen whole.
  """
  if improved.all():
    return processes.kept(new)
  if not improved.any():
    return old

  def choose(x, y):
    rows = improved.reshape(-1, *[1] * (x.ndim - 1))
    return np.where(rows, x, y)

  return jax.tree.map(choose, processes.on_host(new), old)
