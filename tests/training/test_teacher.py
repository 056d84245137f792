"""Distillation: prompts that come near the answers of other prompts."""

import jax
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.data.layout import Layout
from prompt_tuning.model import inject, losses
from prompt_tuning.prompts import checkpoints, multitask
from prompt_tuning.prompts.inner import deep
from prompt_tuning.training import loop, optimizers, prepare, step

BOTH = (toy_tasks.CAT, toy_tasks.DOG)
ROWS = tiny_t5.rows(2, 4, 16)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
  """A run's folder with a prompt for each of two tasks."""
  folder = tmp_path_factory.mktemp("teachers")
  for task, rows in zip(BOTH, ROWS, strict=True):
    checkpoints.save_prompt(folder / "prompts" / task, rows, {"task": task})
  return folder


def tuning(teachers, **changes):
  settings = {"optimizer": optimizers.adafactor(0.1), **changes}
  return toy_tasks.tuning(teachers=teachers, **settings)


def prepared(teachers, names=BOTH, layout="padded", **changes):
  return prepare.prepare(
    toy_tasks.model(),
    toy_tasks.tasks(names, layout=Layout(layout)),
    tuning(teachers, **changes),
  )


def test_divergence_is_the_mean_kl_of_each_prompts_targets():
  """By hand: two examples of one prompt, one of another with a PAD."""
  rng = np.random.default_rng(0)
  one, other = np.float32(rng.normal(0, 2, (2, 3, 2, 5)))
  targets = tiny_t5.ids(4, 3, 4, 3, 4, 0).reshape(3, 2)
  found = losses.divergence_per_prompt(
    one, other, targets, tiny_t5.ids(0, 0, 1), num_prompts=2
  )
  p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (one, other))
  each = (p * np.log(p / q)).sum(-1)
  want = [each[:2].mean(), each[2, 0]]
  np.testing.assert_allclose(found, want, rtol=1e-5)
  same = losses.divergence_per_prompt(
    one, one, targets, tiny_t5.ids(0, 0, 1), num_prompts=2
  )
  np.testing.assert_allclose(same, 0, atol=1e-6)


def first_step(found: prepare.Prepared):
  state = step.initial_state(found.problem, found.trained)
  take = jax.jit(step.make_step(found.problem))
  return take(state, found.frozen, found.batches(0))


def test_a_teacher_who_is_its_pupil_says_nothing(teachers):
  """The term is 0, and the loss is that of examples alone."""
  given = [lambda key, length, source: ROWS[0]]
  taught, untaught = (
    first_step(prepared(folder, toy_tasks.CAT, initializer=given))[1]
    for folder in (teachers, None)
  )
  np.testing.assert_allclose(taught[step.DISTILLED], 0, atol=1e-5)
  assert step.DISTILLED not in untaught
  np.testing.assert_allclose(taught["loss"], untaught["loss"], rtol=1e-6)


def test_the_gradient_is_the_examples_and_the_teachers(teachers):
  """Against differences of the loss, at a weight of 2."""
  found = prepared(teachers, teacher_weight=2.0)
  batch, way = found.batches(0), 1e-2 * ROWS
  both = jax.jit(step._make_gradient(found.problem))

  def at(rows):
    trained = jax.tree.map(lambda _: rows, found.trained)
    return both(trained, found.frozen, batch, (0,))

  def total(rows):
    _, metrics = at(rows)
    return (metrics["loss"] + 2 * metrics[step.DISTILLED]).sum()

  (rows,) = jax.tree.leaves(found.trained)
  (gradient,) = jax.tree.leaves(at(rows)[0])
  slope = (total(rows + way) - total(rows - way)) / 2
  np.testing.assert_allclose((gradient * way).sum(), slope, rtol=0.02)


def test_a_pupil_comes_nearer_to_its_teacher(teachers):
  """Of one batch, laid out in rows and packed."""
  curves = {}
  for layout in ("padded", "packed"):
    found = prepared(teachers, layout=layout, teacher_weight=100.0)
    steps = step.make_steps(found.problem)
    state = step.initial_state(found.problem, found.trained)
    batch = found.batches(0)
    several = [batch] * 12
    if layout == "padded":
      several = jax.tree.map(lambda *each: np.stack(each), *several)
    _, metrics = steps(state, found.frozen, several)
    curves[layout] = metrics[step.DISTILLED]
  np.testing.assert_allclose(
    curves["padded"][0], curves["packed"][0], rtol=1e-3
  )
  for curve in curves.values():
    assert (curve[-1] < 0.7 * curve[0]).all()


def test_a_shared_part_learns_from_a_teacher_of_each_task(teachers, tmp_path):
  found = prepared(teachers, module=multitask.multi_task())
  assert found.shares
  _, metrics = first_step(found)
  assert metrics[step.DISTILLED].shape == (2,)
  assert (metrics[step.DISTILLED] > 0).all()


def test_a_record_names_the_teachers_and_another_is_not_gone_on_with(
  teachers, tmp_path
):
  short = loop.Plan(2, eval_every=2, steps_per_dispatch=2)
  toy_tasks.run(tmp_path / "a", plan=short, tuned=tuning(teachers))
  record = checkpoints.load_prompt(tmp_path / "a").record
  assert record["teachers"] == str(teachers) and "trainable" not in record
  for other in (tuning(None), tuning(teachers, teacher_weight=2.0)):
    with pytest.raises(ValueError, match="belongs to a run with TEACHER"):
      toy_tasks.run(tmp_path / "a", plan=short, tuned=other)


def test_a_teacher_that_does_not_fit_is_refused(teachers, tmp_path):
  with pytest.raises(FileNotFoundError, match="no prompt"):
    prepared(tmp_path, toy_tasks.CAT)
  for changes, message in (
    ({"prompt_length": 3}, "PROMPT_LENGTH=4, and its pupil has 3"),
    ({"placing": inject.Placing("after_end")}, "pupil has .*after_end"),
    ({"module": deep.deep()}, "of another kind"),
    ({"teacher_weight": 0.0}, "TEACHER_WEIGHT=0.0; give"),
  ):
    with pytest.raises(ValueError, match=message):
      prepared(teachers, **changes)
  checkpoints.save_prompt(tmp_path, ROWS[0], {"task": "another"})
  with pytest.raises(ValueError, match="has task='another'"):
    prepared(tmp_path, toy_tasks.CAT)


def test_teachers_of_a_network_that_trains_are_refused(teachers):
  with pytest.raises(ValueError, match="which the answers of TEACHERS come"):
    prepared(teachers, (toy_tasks.CAT,), trainable=(".*",))


def test_a_teacher_of_other_weights_is_refused_with_what_can_be_done(tmp_path):
  record = {"model": {"source": "x", "hash": "2" * 64}}
  checkpoints.save_prompt(tmp_path, ROWS[0], record)
  own = toy_tasks.model().stored_hash[:12]
  message = f"frozen weights of hash='222222222222', and its pupil has '{own}'"
  with pytest.raises(ValueError, match=message):
    prepared(tmp_path, (toy_tasks.CAT,))
