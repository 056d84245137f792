"""The loop: resume bit for bit, the best of each prompt, early stopping."""

import contextlib
import itertools
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import disks
import jax
import jax.numpy as jnp
from killing import Killing
import numpy as np
import places
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import freeze
from prompt_tuning.run_folder import RunFolder
from prompt_tuning.training import loop, optimizers, step
from prompt_tuning.training.loop import Best, Plan

CONFIG = tiny_t5.config()
P = 3
NAMES = ("a", "b")
START = tiny_t5.rows(2, P, 16)
PLAN = Plan(
  steps=12, eval_every=4, checkpoint_every=3, log_every=2, steps_per_dispatch=2
)


def batch(at: int) -> dict[str, np.ndarray]:
  """Two examples for each of the two prompts; a function of the step."""
  which = tiny_t5.ids(0, 0, 1, 1)
  text = tiny_t5.tokens(4, 5, seed=at)
  return {
    "inputs": tiny_t5.reserved(text, which, P),
    "targets": tiny_t5.tokens(4, 3, seed=at + 1000),
    "prompt_id": which,
  }


def parts(start=START):
  params = jax.tree.map(jnp.array, tiny_t5.weights(CONFIG, prompt=start))
  return freeze.split(params, freeze.mask(params, freeze.PROMPT))


def rows(tree) -> np.ndarray:
  """A copy of the bank."""
  return np.array(tree["prompt"]["embedding"])


def evaluate(params):
  """A score that goes up and down, from the parameters alone."""
  scores = np.sin(40 * rows(params).mean((1, 2))).tolist()
  return scores, [{"score": score} for score in scores]


def fit(path, *, start=START, batches=batch, plan=PLAN, names=NAMES, **options):
  """Trains a bank from `start` in a folder."""
  problem = step.Problem(
    tiny_t5.prompted(CONFIG, P, len(start)),
    optimizers.per_prompt(options.pop("tx", optimizers.adafactor())),
    len(start),
  )
  with RunFolder(path).alone() as folder:
    return loop.fit(
      problem,
      parts(start),
      batches,
      plan=plan,
      folder=folder,
      names=names,
      **{"evaluate": evaluate, **options},
    )


def left(path, outcome):
  """All that a run leaves, to the bit."""
  folder = RunFolder(path)
  return {
    "trained": rows(outcome.trained).tobytes(),
    "last": rows(outcome.last).tobytes(),
    "best": outcome.best,
    "step": outcome.step,
    "metrics": folder.metrics_file.read_bytes(),
    "checkpoints": [
      (entry.name, storage.tree_hash(storage.load_tree(entry)[0]))
      for entry in sorted((path / "checkpoints").iterdir())
    ],
  }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  path = tmp_path_factory.mktemp("whole")
  return left(path, fit(path))


def test_a_run_leaves_metrics_checkpoints_and_the_best_prompts(
  tmp_path, uninterrupted
):
  outcome = fit(tmp_path)
  assert left(tmp_path, outcome) == uninterrupted
  metrics = RunFolder(tmp_path).metrics()
  losses = [r for r in metrics if "loss" in r]
  scores = [r for r in metrics if "score" in r]
  # Logged at every second step, and where there is a look or a checkpoint.
  ends = [2, 3, 4, 6, 8, 9, 10, 12]
  assert [(r["step"], r["prompt"]) for r in losses] == [
    *itertools.product(ends, NAMES)
  ]
  assert [(r["step"], r["prompt"]) for r in scores] == [
    *itertools.product([4, 8, 12], NAMES)
  ]
  for n, name in enumerate(NAMES):
    mine = {r["step"]: r["score"] for r in scores if r["prompt"] == name}
    assert outcome.best.scores[n] == max(mine.values())
    assert mine[outcome.best.steps[n]] == outcome.best.scores[n]
  assert RunFolder(tmp_path).checkpoint_steps() == [9, 12]
  assert outcome.step == 12


def test_the_loss_in_the_log_is_the_mean_since_the_last_line(tmp_path):
  single = Plan(steps=4, eval_every=4, log_every=1, steps_per_dispatch=1)
  pairs = Plan(steps=4, eval_every=4, log_every=2, steps_per_dispatch=1)
  found = []
  for name, plan in (("single", single), ("pairs", pairs)):
    fit(tmp_path / name, plan=plan, evaluate=None)
    metrics = RunFolder(tmp_path / name).metrics()
    found.append([r["loss"] for r in metrics if r["prompt"] == "b"])
  means = np.array(found[0]).reshape(2, 2).mean(1)
  np.testing.assert_allclose(found[1], means, rtol=1e-6)


class Stop(Exception):
  """What interrupts a run in these tests."""


def raising(function, at):
  """`function`, but its call number `at` raises."""
  calls = itertools.count()

  def wrapped(argument):
    if next(calls) == at:
      raise Stop
    return function(argument)

  return wrapped


@pytest.mark.parametrize("at", [0, 1, 4, 7, 11])
def test_a_run_stopped_at_any_step_and_started_again_is_the_same(
  tmp_path, uninterrupted, at
):
  def stopping(number):
    if number == at:
      raise Stop
    return batch(number)

  with pytest.raises(Stop):
    fit(tmp_path, batches=stopping)
  assert left(tmp_path, fit(tmp_path)) == uninterrupted


@pytest.mark.parametrize("at", [0, 2])
def test_a_run_stopped_in_an_evaluation_and_started_again_is_the_same(
  tmp_path, uninterrupted, at
):
  with pytest.raises(Stop):
    fit(tmp_path, evaluate=raising(evaluate, at))
  assert left(tmp_path, fit(tmp_path)) == uninterrupted


def test_a_finished_run_started_again_does_nothing(tmp_path, uninterrupted):
  fit(tmp_path)
  nothing = raising(batch, 0)
  again = fit(tmp_path, batches=nothing, evaluate=raising(evaluate, 0))
  assert left(tmp_path, again) == uninterrupted


# kill -9. The process under fire imports this module and calls `main`.

SLOW = Plan(
  steps=50, eval_every=10, checkpoint_every=5, log_every=1, steps_per_dispatch=1
)


def main(path: str) -> None:
  """A run that takes long enough to be killed in it."""

  def slow(at):
    time.sleep(0.01)
    return batch(at)

  fit(pathlib.Path(path), batches=slow, plan=SLOW)


def started(path) -> subprocess.Popen:
  here = pathlib.Path(__file__)
  code = f"import {here.stem}; {here.stem}.main({str(path)!r})"
  return subprocess.Popen(
    [sys.executable, "-c", code],
    cwd=here.parent,
    env={**os.environ, "PYTHONPATH": str(places.TESTS)},
    stderr=subprocess.PIPE,
  )


def killed(path, at: int) -> bool:
  """Starts the run, kills it soon after step `at`; whether it was running."""
  process = started(path)
  metrics = path / "metrics.jsonl"
  sign = f'"step": {at},'
  while process.poll() is None:
    if metrics.exists() and sign in metrics.read_text():
      time.sleep(random.uniform(0, 0.03))
      process.send_signal(signal.SIGKILL)
      break
    time.sleep(0.002)
  _, errors = process.communicate()
  assert process.returncode in (0, -signal.SIGKILL), errors.decode()
  return process.returncode == -signal.SIGKILL


def test_a_run_killed_again_and_again_is_the_same(tmp_path):
  whole, path = tmp_path / "whole", tmp_path / "killed"
  expected = left(whole, fit(whole, plan=SLOW))
  # One before the first checkpoint, the others anywhere.
  moments = [3, random.randint(5, 25), random.randint(26, 45)]
  kills = [killed(path, at) for at in moments]
  assert sum(kills) >= 2
  assert left(path, fit(path, plan=SLOW)) == expected, moments


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_that_ends_at_any_file_operation_goes_on_to_the_same_bits(
  step, tmp_path, uninterrupted
):
  kills = 0
  for killing in Killing.everywhere(step):
    path = tmp_path / str(killing.at)
    with killing:
      fit(path)
    kills += killing.killed
    assert left(path, fit(path)) == uninterrupted, killing.at
    assert not list(path.rglob("*.tmp")), killing.at
  assert kills * step > 30


def test_a_refused_write_costs_nothing_but_time(tmp_path, uninterrupted):
  path = tmp_path / "run"
  with contextlib.ExitStack() as limits:

    def refusing(params):
      folder = RunFolder(path)
      if int(folder.metrics()[-1]["step"]) == 8:
        size = folder.metrics_file.stat().st_size
        limits.enter_context(disks.files_up_to(size))
      return evaluate(params)

    with pytest.raises(ValueError, match="MODEL_DIR=.*too large.*go on from"):
      fit(path, evaluate=refusing)
  assert left(path, fit(path)) == uninterrupted


def test_a_disk_that_fills_up_costs_nothing_but_time(tmp_path, uninterrupted):
  instead = "test_a_refused_write_costs_nothing_but_time"
  with disks.disk(tmp_path / "disk", "size=256k", instead) as path:
    fillers = []

    def filling(params):
      if int(RunFolder(path).metrics()[-1]["step"]) == 8:
        fillers.append(disks.fill(path))
      return evaluate(params)

    with pytest.raises(ValueError, match="MODEL_DIR=.*No space left"):
      fit(path, evaluate=filling)
    fillers[0].unlink()
    assert left(path, fit(path)) == uninterrupted


# What the caller's arrays and terminal see.


def test_frozen_weights_are_bit_identical_after_a_run_with_a_resume(tmp_path):
  trained, frozen = parts()
  before = storage.tree_hash(frozen), storage.tree_hash(trained)
  problem = step.Problem(
    tiny_t5.prompted(CONFIG, P, 2),
    optimizers.per_prompt(optimizers.adafactor()),
    2,
  )
  seen = []
  for batches in (raising(batch, 7), batch):
    try:
      outcome = loop.fit(
        problem,
        (trained, frozen),
        batches,
        plan=PLAN,
        folder=RunFolder(tmp_path),
        names=NAMES,
        evaluate=lambda p: seen.append(p) or evaluate(p),
      )
    except Stop:
      pass
  assert (storage.tree_hash(frozen), storage.tree_hash(trained)) == before
  assert not np.array_equal(rows(outcome.last), START)
  weights = freeze.split(seen[-1], freeze.mask(seen[-1], freeze.PROMPT))[1]
  assert storage.tree_hash(weights) == before[0]


def test_there_is_no_progress_bar_without_a_terminal(tmp_path, capfd):
  fit(tmp_path, plan=Plan(steps=2, steps_per_dispatch=2), evaluate=None)
  first, line = capfd.readouterr().err.splitlines()
  assert first == "2 steps; the first one compiles."
  assert line.startswith("step 2 of 2: a: loss ") and "%" not in line


def test_without_evaluation_the_last_prompts_are_kept(tmp_path):
  outcome = fit(tmp_path, evaluate=None)
  assert outcome.best is None
  np.testing.assert_array_equal(rows(outcome.trained), rows(outcome.last))
  np.testing.assert_array_equal(
    rows(outcome.last), rows(fit(tmp_path / "other").last)
  )


# The best of each prompt, and patience.


def scripted(*scripts):
  """An evaluation with given scores; the banks that it was shown."""
  shown = []

  def scored(params):
    scores = [float(script[len(shown)]) for script in scripts]
    shown.append(rows(params))
    return scores, [{"score": score} for score in scores]

  return scored, shown


LOOK = Plan(
  steps=40, eval_every=2, patience=2, log_every=2, steps_per_dispatch=2
)
# The 9 comes after `a` has run out of patience.
SCRIPTS = [1, 3, 2, 3, 9, 9, 9], [1, 2, 3, 4, 5, 5, 4]


def test_each_prompt_is_kept_at_its_best_and_stops_by_its_own_patience(
  tmp_path,
):
  scored, shown = scripted(*SCRIPTS)
  outcome = fit(tmp_path, plan=LOOK, evaluate=scored)
  assert outcome.best.scores == [3, 5]
  assert outcome.best.steps == [4, 10]
  assert outcome.step == 14  # the seventh look, of twenty
  kept = rows(outcome.trained)
  np.testing.assert_array_equal(kept[0], shown[1][0])
  np.testing.assert_array_equal(kept[1], shown[4][1])
  np.testing.assert_array_equal(rows(outcome.last), shown[6])


def test_a_prompt_of_a_bank_ends_as_it_would_alone(tmp_path):
  together = fit(tmp_path / "2", plan=LOOK, evaluate=scripted(*SCRIPTS)[0])

  def own(at):
    """The examples of prompt b, as prompt 0."""
    mixed = batch(at)
    text = mixed["inputs"][2:, P:]
    return {
      "inputs": tiny_t5.reserved(text, [0, 0], P),
      "targets": mixed["targets"][2:],
      "prompt_id": tiny_t5.ids(0, 0),
    }

  alone = fit(
    tmp_path / "1",
    start=START[1:],
    batches=own,
    names=("b",),
    plan=LOOK,
    evaluate=scripted(SCRIPTS[1])[0],
  )
  assert alone.best.scores == together.best.scores[1:]
  assert alone.best.steps == together.best.steps[1:]
  np.testing.assert_allclose(
    rows(alone.trained)[0], rows(together.trained)[1], rtol=1e-4, atol=1e-4
  )


def test_a_run_that_stopped_early_and_is_started_again_stays_stopped(tmp_path):
  first = fit(tmp_path, plan=LOOK, evaluate=scripted(*SCRIPTS)[0])
  before = left(tmp_path, first)
  again = fit(tmp_path, plan=LOOK, evaluate=raising(evaluate, 0))
  assert left(tmp_path, again) == before


def test_a_prompt_without_a_valid_score_keeps_its_start(tmp_path):
  scored, shown = scripted([1, 2], [math.nan, math.nan])
  plan = Plan(steps=4, eval_every=2, log_every=2, steps_per_dispatch=2)
  kept = rows(fit(tmp_path, plan=plan, evaluate=scored).trained)
  np.testing.assert_array_equal(kept[0], shown[1][0])
  np.testing.assert_array_equal(kept[1], START[1])


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_a_bank_are_the_best_of_its_prompts_alone(seed):
  rng = np.random.default_rng(seed)
  scores = rng.integers(0, 6, (30, 4)).astype(float)
  patience = int(rng.integers(0, 4))
  bank, alone = Best.none(4), [Best.none(1) for _ in range(4)]
  for at, row in enumerate(scores, start=1):
    improved = bank.update(row.tolist(), at, patience)
    own = [
      best.update([score], at, patience)[0]
      for best, score in zip(alone, row, strict=True)
    ]
    assert improved.tolist() == own
  for n, best in enumerate(alone):
    assert (bank.scores[n], bank.steps[n]) == (best.scores[0], best.steps[0])
    if not patience:
      first = int(scores[:, n].argmax())
      assert (best.scores[0], best.steps[0]) == (scores[first, n], first + 1)
  assert bank.stopped(patience).tolist() == [
    best.stopped(patience)[0] for best in alone
  ]
  assert patience or not bank.stopped(patience).any()


# What goes wrong.


def test_a_loss_that_is_not_finite_is_an_error_with_the_prompts_name(tmp_path):
  start = START.copy()
  start[1, 0, 0] = np.nan
  with pytest.raises(ValueError, match="loss of b is not finite at step 2.*"):
    fit(tmp_path, start=start)
  assert RunFolder(tmp_path).checkpoint_steps() == []


def test_a_checkpoint_holds_finite_numbers_only(tmp_path):
  """Behind a loss that is still finite the update may break down."""
  breaking = optimizers.adafactor(lambda at: jnp.where(at < 5, 0.3, jnp.inf))
  plan = Plan(
    steps=12,
    eval_every=3,
    checkpoint_every=1,
    log_every=1,
    steps_per_dispatch=1,
  )
  with pytest.raises(ValueError, match="not finite at step 6.*LEARNING_RATE"):
    fit(tmp_path, tx=breaking, plan=plan)
  assert RunFolder(tmp_path).checkpoint_steps() == [4, 5]
  for path in (tmp_path / "checkpoints").iterdir():
    tensors = storage.flatten(storage.load_tree(path)[0])
    assert all(np.isfinite(x).all() for x in tensors.values())


def test_an_evaluation_of_other_prompts_than_named_is_an_error(tmp_path):
  def one_too_few(params):
    scores, values = evaluate(params)
    return scores, values[:1]

  with pytest.raises(ValueError, match="zip"):
    fit(tmp_path, evaluate=one_too_few)


@pytest.mark.parametrize(
  "name, value",
  [
    ("steps", 0),
    ("eval_every", 0),
    ("log_every", -1),
    ("steps_per_dispatch", 0),
    ("checkpoint_every", -1),
    ("patience", -1),
  ],
)
def test_a_plan_without_sense_is_refused_by_name(name, value):
  with pytest.raises(ValueError, match=f"^{name} .*must be .* got {value}"):
    Plan(**{"steps": 10, name: value})


@pytest.mark.parametrize("seed", range(20))
def test_dispatches_cover_every_step_and_end_where_something_happens(seed):
  rng = random.Random(seed)
  plan = Plan(
    steps=rng.randint(1, 60),
    eval_every=rng.randint(1, 20),
    checkpoint_every=rng.randint(0, 20),
    log_every=rng.randint(1, 20),
    steps_per_dispatch=rng.randint(1, 20),
  )
  all_of_them = [*plan.dispatches(0)]
  steps = [s for first, end in all_of_them for s in range(first, end)]
  assert steps == [*range(plan.steps)]
  ends = {end for _, end in all_of_them}
  assert max(b - a for a, b in all_of_them) <= plan.steps_per_dispatch
  every = range(1, plan.steps + 1)
  assert {s for s in every if plan.evaluates_at(s) or plan.saves_at(s)} <= ends
  assert {s for s in every if s % plan.eval_every == 0} <= ends
  assert plan.evaluates_at(plan.steps) and plan.saves_at(plan.steps)
  assert plan.logs_at(plan.steps)
  for first, end in all_of_them:
    if plan.saves_at(end):  # a run that goes on from here does the same
      assert [*plan.dispatches(end)] == [
        pair for pair in all_of_them if pair[0] >= end
      ]
    assert plan.next_end(first) == end


def test_a_log_file_has_a_line_for_each_evaluation(tmp_path, capfd):
  fit(tmp_path)
  _, *lines = capfd.readouterr().err.splitlines()
  assert [line.split(":")[0] for line in lines] == [
    f"step {at} of 12" for at in (4, 8, 12)
  ]
  logged = RunFolder(tmp_path).metrics()
  last = {
    (row["prompt"], key): row[key]
    for row in logged
    if row["step"] == 12
    for key in ("loss", "score")
    if key in row
  }
  assert lines[-1] == "step 12 of 12: " + "; ".join(
    f"{n}: loss {last[n, 'loss']:.3f}, score {last[n, 'score']:.2f}"
    for n in NAMES
  )


def test_a_run_that_goes_on_says_from_where(tmp_path, capfd):
  fit(tmp_path, plan=Plan(steps=4, eval_every=4))
  capfd.readouterr()
  fit(tmp_path, plan=Plan(steps=8, eval_every=4))
  assert "Going on from step 4 of 8." in capfd.readouterr().err
  fit(tmp_path, plan=Plan(steps=8, eval_every=4))
  assert "The 8 steps were done before" in capfd.readouterr().err


def test_one_prompt_needs_no_name_and_no_evaluation_no_score(tmp_path, capfd):

  def first(at):
    return {name: values[:2] for name, values in batch(at).items()}

  one = {"start": START[:1], "names": ("a",), "batches": first}
  fit(tmp_path / "scored", **one)
  fit(tmp_path / "plain", **one, evaluate=None)
  scored, plain = np.split(np.array(capfd.readouterr().err.splitlines()), 2)
  for line, other in zip(scored[1:], plain[1:], strict=True):
    head, score = line.rsplit(", score ", 1)
    assert head == other and ": loss " in head and float(score) <= 1


def test_a_terminal_has_its_bar_and_no_lines(tmp_path, capfd, monkeypatch):
  monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
  fit(tmp_path)
  shown = capfd.readouterr().err
  assert "12/12" in shown and "step 12 of 12" not in shown
