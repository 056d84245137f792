"""Adafactor and AdamW against their formulas; one prompt at a time."""

import jax
import numpy as np
import optax
import pytest
import tiny_t5

from prompt_tuning.training import optimizers

STEPS = 20


def gradients(*shape, seed=0):
  """STEPS gradients whose size varies over steps, rows and elements."""
  rng = np.random.default_rng(seed)
  size = np.exp(rng.normal(0, 2, (STEPS, *shape[:-1], 1)))
  return (size * rng.normal(size=(STEPS, *shape))).astype(np.float32)


def run(tx, start, grads):
  """The parameters after each update."""
  update = jax.jit(tx.update)
  params, state, path = start, tx.init(start), []
  for gradient in grads:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    path.append(np.asarray(params))
  return np.stack(path)


def adafactor_by_hand(p, grads, *, rate=0.3, decay=1e-5, offset=0):
  """The formula of the module's docstring in float64."""
  p, v, path = p.astype(np.float64), 0.0, []
  for t, g in enumerate(grads.astype(np.float64)):
    b2 = 1 - (t + 1 + offset) ** -0.8
    v = b2 * v + (1 - b2) * (g**2 + 1e-30)
    u = g / np.sqrt(v)
    u /= max(1.0, np.sqrt(np.mean(u**2)))
    p = p - (rate(t) if callable(rate) else rate) * u - decay * p
    path.append(p)
  return np.stack(path)


def falling(step):
  return 0.1 / (1 + step)


@pytest.mark.parametrize(
  "ours, formula",
  [
    ({}, {}),
    ({"learning_rate": 0.03}, {"rate": 0.03}),
    ({"weight_decay": 0.2}, {"decay": 0.2}),
    ({"weight_decay": 0.0}, {"decay": 0.0}),
    ({"step_offset": 1_100_000}, {"offset": 1_100_000}),
    ({"step_offset": 3}, {"offset": 3}),
    ({"learning_rate": falling}, {"rate": falling}),
  ],
  ids=lambda changes: "-".join(changes) or "defaults",
)
def test_adafactor_follows_its_formula(ours, formula):
  start, grads = tiny_t5.rows(5, 8), gradients(5, 8)
  have = run(optimizers.adafactor(**ours), start, grads)
  want = adafactor_by_hand(start, grads, **formula)
  assert np.abs(want[-1] - start).max() > 0.03
  np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


def test_a_fingerprint_tells_optimizers_apart():
  found = [
    optimizers.fingerprint(optimizer)
    for optimizer in (
      optimizers.adafactor(),
      optimizers.adafactor(0.29),
      optimizers.adafactor(weight_decay=0.0),
      optimizers.adafactor(step_offset=1000),
      optimizers.adafactor(optimizers.warmup_cosine(0.3, 600, warmup=1)),
      optimizers.adafactor(optimizers.warmup_cosine(0.3, 700, warmup=1)),
      optimizers.adamw(0.3),
      optimizers.adamw(0.3, clip_norm=0.1),
      optimizers.adamw(0.3, b2=0.98),
    )
  ]
  assert len({tuple(sizes) for sizes in found}) == len(found)
  assert optimizers.fingerprint(optimizers.adafactor()) == found[0]


def test_adafactor_clips_the_update_to_an_rms_of_1():
  start, grads = np.zeros((5, 8), np.float32), gradients(5, 8)
  grads[10:] *= 1e4  # a jump makes g / sqrt(v) large
  path = run(optimizers.adafactor(1.0, 0.0), start, grads)
  rms = np.sqrt((np.diff(path, axis=0) ** 2).mean((1, 2)))
  assert rms.max() <= 1 + 1e-5
  np.testing.assert_allclose(rms[9], 1, rtol=1e-5)


def test_weight_decay_is_not_multiplied_by_the_learning_rate():
  start = tiny_t5.rows(2, 3)
  grads = np.zeros((1, 2, 3), np.float32)
  for rate in (0.3, 0.001):
    have = run(optimizers.adafactor(rate, 0.25), start, grads)
    np.testing.assert_allclose(have[0], 0.75 * start, rtol=1e-6)


@pytest.mark.parametrize("factored", [False, True])
def test_a_prompt_of_150_positions_is_factored_only_if_asked(factored):
  start = {"prompt": np.zeros((150, 130), np.float32)}
  tx = optimizers.adafactor(factored=factored)
  sizes = {leaf.size for leaf in jax.tree.leaves(tx.init(start))}
  assert sizes == ({1, 150, 130} if factored else {1, 150 * 130})


def test_a_long_prompt_follows_the_formula_too():
  start, grads = tiny_t5.rows(150, 130), gradients(150, 130)[:3]
  np.testing.assert_allclose(
    run(optimizers.adafactor(), start, grads),
    adafactor_by_hand(start, grads),
    rtol=1e-4,
    atol=1e-5,
  )


def test_parameter_scaling_multiplies_by_the_rms_of_the_parameter():
  start, grads = 7 * tiny_t5.rows(5, 8), gradients(5, 8)[:1]
  rms = np.sqrt((start**2).mean())
  plain, scaled = (
    run(optimizers.adafactor(0.3, 0.0, parameter_scaling=on), start, grads)[0]
    for on in (False, True)
  )
  np.testing.assert_allclose(
    scaled - start, rms * (plain - start), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_adamw_follows_its_formula(clip_norm):
  start, grads = tiny_t5.rows(5, 8), gradients(5, 8)
  tx = optimizers.adamw(0.01, 0.1, b1=0.8, b2=0.95, clip_norm=clip_norm)
  have = run(tx, start, grads)
  p, m, v = start.astype(np.float64), 0.0, 0.0
  for t, g in enumerate(grads.astype(np.float64)):
    if clip_norm is not None:
      g = g * min(1.0, clip_norm / np.sqrt((g**2).sum()))
    m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
    step = m / (1 - 0.8 ** (t + 1))
    step = step / (np.sqrt(v / (1 - 0.95 ** (t + 1))) + 1e-8)
    p = p - 0.01 * (step + 0.1 * p)
    np.testing.assert_allclose(have[t], p, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "tx",
  [optimizers.adafactor(), optimizers.adamw(0.1, 0.01, clip_norm=0.5)],
  ids=["adafactor", "adamw"],
)
def test_a_bank_trains_each_prompt_as_if_it_were_alone(tx):
  start, grads = tiny_t5.rows(3, 5, 8), gradients(3, 5, 8)
  together = run(optimizers.per_prompt(tx), start, grads)
  for i in range(3):
    alone = run(tx, start[i], grads[:, i])
    np.testing.assert_allclose(together[:, i], alone, rtol=1e-6, atol=1e-6)


def test_without_per_prompt_the_prompts_of_a_bank_are_clipped_together():
  tx = optimizers.adafactor()
  start, grads = tiny_t5.rows(3, 5, 8), gradients(3, 5, 8)
  together = run(tx, start, grads)
  alone = run(tx, start[0], grads[:, 0])
  assert not np.allclose(together[:, 0], alone, atol=1e-2)


@pytest.mark.parametrize("steps, warmup", [(1000, 100), (50, 100)])
def test_the_rate_warms_up_and_falls_along_a_cosine(steps, warmup):
  rate = optimizers.warmup_cosine(0.2, steps, warmup=warmup, floor=0.1)
  values = np.array([rate(step) for step in range(0, steps + 1, 5)])
  top = min(warmup, steps // 2)
  assert values[0] == 0
  np.testing.assert_allclose(rate(top), 0.2, rtol=1e-6)
  np.testing.assert_allclose(rate(top // 2), 0.2 * (top // 2) / top)
  np.testing.assert_allclose(rate((steps + top) / 2), 0.11, rtol=1e-5)
  np.testing.assert_allclose(values[-1], 0.02, rtol=1e-5)
  assert (np.diff(values)[: top // 5] > 0).all()
  assert (np.diff(values)[top // 5 + 1 :] < 0).all()
