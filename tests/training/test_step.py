"""One step: what moves, what does not, and one prompt among others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import freeze, losses, t5
from prompt_tuning.prompts import wayward
from prompt_tuning.training import optimizers, step

CONFIG = tiny_t5.config()
P = 3


def problem(num_prompts=1, tx=None, config=CONFIG, **settings):
  tx = optimizers.adafactor() if tx is None else tx
  return step.Problem(
    tiny_t5.prompted(config, P, num_prompts),
    optimizers.per_prompt(tx),
    num_prompts,
    **settings,
  )


def parts(bank, config=CONFIG):
  """The trained and the frozen part, on the device."""
  params = jax.tree.map(jnp.array, tiny_t5.weights(config, prompt=bank))
  return freeze.split(params, freeze.mask(params, freeze.PROMPT))


def batch(prompt_id, *, seed=0):
  """Four examples for each of the prompts, with targets of uneven length."""
  which = np.repeat(np.asarray(prompt_id, np.int32), 4)
  size = len(which)
  targets = tiny_t5.tokens(size, 4, seed=seed + 100)
  targets[::2, 2:] = 0
  text = tiny_t5.tokens(size, 6, seed=seed)
  text[1::3, 4:] = 0
  return {
    "inputs": tiny_t5.reserved(text, which, P),
    "targets": targets,
    "prompt_id": which,
  }


def stacked(batches):
  return {k: np.stack([b[k] for b in batches]) for k in batches[0]}


def train(problem, bank, batches, per_dispatch=1):
  """The final bank, and the metrics of all steps."""
  trained, frozen = parts(bank)
  state = step.initial_state(problem, trained)
  run, metrics = step.make_steps(problem), []
  for at in range(0, len(batches), per_dispatch):
    state, row = run(state, frozen, stacked(batches[at : at + per_dispatch]))
    metrics.append(row)
  rows = {k: np.concatenate([m[k] for m in metrics]) for k in metrics[0]}
  return np.asarray(state.trained["prompt"]["embedding"]), rows


def pulling(bank) -> wayward.Pull:
  """Prompts pulled at two of three places, and at one."""
  rows = np.array(tiny_t5.rows(len(bank), P, 16, seed=7))
  weights = np.float32([[0.2, 0.2, 0], [0.6, 0, 0]])[: len(bank)]
  return wayward.Pull(("",) * len(bank), 1.0, rows, weights)


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_pull_adds_its_gradient_once_and_is_told_beside_the_loss(in_parts):
  """By plain descent at rate 1: a row moves by 2 w (row - text) more."""
  bank = np.array(tiny_t5.rows(2, P, 16))
  pull, sgd = pulling(bank), optax.sgd(1.0)
  whole = batch([0, 1])
  batches = stacked([whole])
  if in_parts:
    tokens = np.float32([(whole["targets"][:4] != 0).sum()] * 2)
    half = {k: np.split(v, 2) for k, v in whole.items()}
    batches = [
      [{**{k: v[i] for k, v in half.items()}, "tokens": tokens} for i in (0, 1)]
    ]
  found = []
  for term in (None, pull):
    one = problem(2, sgd, pull=term)
    trained, frozen = parts(bank)
    state = step.initial_state(one, trained)
    state, metrics = step.make_steps(one)(state, frozen, batches)
    found.append((np.asarray(state.trained["prompt"]["embedding"]), metrics))
  (plain, before), (pulled, after) = found
  expected = -2 * pull.weights[..., None] * (bank - pull.rows)
  np.testing.assert_allclose(pulled - plain, expected, atol=1e-5)
  assert (pulled[:, 2] == plain[:, 2]).all()
  np.testing.assert_array_equal(after["loss"], before["loss"])
  np.testing.assert_allclose(after["wayward"], pull(bank)[None], rtol=1e-6)
  assert "wayward" not in before


def test_a_step_moves_the_prompt_and_nothing_else():
  trained, frozen = parts(tiny_t5.rows(1, P, 16))
  before, weights = storage.tree_hash(trained), storage.tree_hash(frozen)
  state = step.initial_state(problem(), trained)
  one = step.make_steps(problem())
  state, metrics = one(state, frozen, stacked([batch([0])]))
  assert int(state.step) == 1
  assert storage.tree_hash(state.trained) != before
  assert storage.tree_hash(frozen) == weights
  moved = np.asarray(state.trained["prompt"]["embedding"])
  assert (moved != tiny_t5.rows(1, P, 16)).all()
  assert jax.tree.structure(state.trained) == jax.tree.structure(trained)
  assert {k: v.shape for k, v in metrics.items()} == {
    "loss": (1, 1),
    "token_accuracy": (1, 1),
  }


def test_model_tuning_moves_all_but_the_prompt():
  params = tiny_t5.weights(CONFIG, prompt=tiny_t5.rows(1, P, 16))
  trains = freeze.mask(params, freeze.EVERYTHING_ELSE)
  trained, frozen = freeze.split(jax.tree.map(jnp.array, params), trains)
  tuning = step.Problem(tiny_t5.prompted(CONFIG, P, 1), optimizers.adamw(1e-3))
  state = step.initial_state(tuning, trained)
  state, _ = step.make_steps(tuning)(state, frozen, stacked([batch([0])]))
  after = storage.flatten(freeze.merge(state.trained, frozen))
  before = storage.flatten(params)
  same = {k for k in before if np.array_equal(before[k], after[k])}
  assert same == {"prompt/embedding"}


def test_the_metrics_are_the_loss_and_accuracy_before_the_update():
  bank, example = tiny_t5.rows(2, P, 16), batch([0, 1])
  _, metrics = train(problem(2, z_loss=0.01), bank, [example])
  logits = tiny_t5.jitted(tiny_t5.prompted(CONFIG, P, 2))(
    {"params": tiny_t5.weights(CONFIG, prompt=bank)},
    example["inputs"],
    t5.shift_right(example["targets"]),
  )
  loss, accuracy = losses.per_prompt(
    logits,
    example["targets"],
    example["prompt_id"],
    num_prompts=2,
    z_loss=0.01,
  )
  np.testing.assert_allclose(metrics["loss"][0], loss, rtol=1e-5)
  np.testing.assert_allclose(metrics["token_accuracy"][0], accuracy)


def test_training_on_one_batch_lowers_its_loss():
  _, metrics = train(problem(), tiny_t5.rows(1, P, 16), [batch([0])] * 20)
  assert metrics["loss"][-1, 0] < 0.9 * metrics["loss"][0, 0]


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_three_prompts_trained_together_equal_three_runs_alone(name):
  tx = {"adafactor": optimizers.adafactor(), "adamw": optimizers.adamw(0.03)}
  bank = tiny_t5.rows(3, P, 16)
  own = [[batch([0], seed=10 * n + at) for at in range(5)] for n in range(3)]
  which = np.repeat(np.arange(3, dtype=np.int32), 4)

  def mixed(at):
    """The three batches of a step as one, in any order."""
    three = stacked([own[n][at] for n in range(3)])
    rows = {k: v.reshape(12, *v.shape[2:]) for k, v in three.items()}
    rows["inputs"] = tiny_t5.reserved(rows["inputs"][:, P:], which, P)
    rows["prompt_id"] = which
    order = np.random.default_rng(at).permutation(12)
    return {k: v[order] for k, v in rows.items()}

  batches = [mixed(at) for at in range(5)]
  together, metrics = train(problem(3, tx[name]), bank, batches)
  for n in range(3):
    alone, own_metrics = train(problem(1, tx[name]), bank[n : n + 1], own[n])
    np.testing.assert_allclose(together[n], alone[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
      metrics["loss"][:, n], own_metrics["loss"][:, 0], rtol=1e-5
    )


def test_a_bank_of_one_equals_a_prompt_without_a_bank():
  bank, batches = (
    tiny_t5.rows(1, P, 16),
    [batch([0], seed=at) for at in range(3)],
  )
  one, _ = train(problem(), bank, batches)
  single = step.Problem(tiny_t5.prompted(CONFIG, P), optimizers.adafactor())
  same, _ = train(single, bank[0], batches)
  np.testing.assert_allclose(one[0], same, rtol=1e-5, atol=1e-5)


def test_several_steps_a_dispatch_equal_single_steps():
  bank = tiny_t5.rows(2, P, 16)
  batches = [batch([0, 1], seed=at) for at in range(4)]
  one, metrics = train(problem(2), bank, batches)
  other, rows = train(problem(2), bank, batches, per_dispatch=4)
  np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)
  for name in metrics:
    assert rows[name].shape == (4, 2)
    np.testing.assert_allclose(rows[name], metrics[name], rtol=1e-5)


def test_a_nan_in_one_prompt_does_not_reach_the_others():
  bank = tiny_t5.rows(2, P, 16)
  broken = bank.copy()
  broken[1] = np.nan
  batches = [batch([0, 1], seed=at) for at in range(2)]
  whole, _ = train(problem(2), bank, batches)
  half, metrics = train(problem(2), broken, batches)
  np.testing.assert_array_equal(half[0], whole[0])
  assert np.isfinite(metrics["loss"][:, 0]).all()
  assert np.isnan(metrics["loss"][:, 1]).all()


def test_dropout_is_another_at_every_step_and_the_same_in_every_run():
  config = tiny_t5.config(dropout_rate=0.3)
  bank, same = tiny_t5.rows(1, P, 16), batch([0])
  # Without a learning rate the prompt stays, so only the dropout differs.
  still = optax.sgd(0.0)

  def run():
    tuning = problem(1, still, config)
    return train(tuning, bank, [same] * 4)[1]["loss"][:, 0]

  first = run()
  assert len({*first.tolist()}) == 4
  np.testing.assert_array_equal(run(), first)


def test_dropout_is_another_in_every_part_and_the_same_in_every_run():
  """Equal parts would have equal gradients, and no part drops as the whole."""
  bank, same = tiny_t5.rows(1, P, 16), batch([0])
  trained, frozen = parts(bank)
  tokens = np.array([(same["targets"] > 0).sum()], np.float32)
  part = {**same, "tokens": tokens}

  def losses_of(count: int, rate: float) -> np.ndarray:
    """The loss of a step of so many equal parts, twice."""
    tuning = problem(1, optax.sgd(0.0), tiny_t5.config(dropout_rate=rate))
    run = step.make_step_of_parts(tuning)
    found = []
    for _ in range(2):
      state = step.initial_state(tuning, jax.tree.map(jnp.copy, trained))
      found.append(run(state, frozen, [part] * count)[1]["loss"][0])
    return np.array(found)

  once, twice = losses_of(1, 0.3), losses_of(2, 0.3)
  assert once[0] == once[1] and twice[0] == twice[1]
  assert abs(twice[0] - 2 * once[0]) > 1e-3  # the second part drops others
  once, twice = losses_of(1, 0.0), losses_of(2, 0.0)
  assert twice[0] == pytest.approx(2 * once[0], rel=1e-6)


def test_the_state_on_the_device_is_the_trained_part_and_nothing_more():
  trained, frozen = parts(tiny_t5.rows(2, P, 16))
  state = step.initial_state(problem(2), trained)
  size = 2 * P * 16
  # The bank, its second moments, and a few numbers for each prompt.
  assert 2 * size < freeze.count(state) < 2 * size + 16
  assert freeze.count(frozen) == freeze.count(tiny_t5.weights(CONFIG))
