"""The loss: cross-entropy by hand, padding, one mean per prompt."""

import jax
import numpy as np
import pytest
import tiny_t5

from prompt_tuning.model import losses


def logits(*shape, seed=0):
  return (3 * tiny_t5.rows(*shape, seed=seed)).astype(np.float32)


def by_hand(row, target, z_loss=0.0) -> float:
  """The loss of one token in float64."""
  row = row.astype(np.float64)
  log_z = np.log(np.exp(row).sum())
  return log_z - row[target] + z_loss * log_z**2


@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.1])
def test_the_loss_of_a_token_is_its_cross_entropy(z_loss):
  scores, targets = logits(2, 3, 7), tiny_t5.ids([1, 2, 3], [4, 5, 6])
  have = losses.token_losses(scores, targets, z_loss)
  for at in np.ndindex(2, 3):
    want = by_hand(scores[at], targets[at], z_loss)
    np.testing.assert_allclose(have[at], want, rtol=1e-5)


def test_two_equal_logits_cost_the_logarithm_of_two():
  have = losses.token_losses(np.zeros((1, 1, 2), np.float32), tiny_t5.ids([1]))
  np.testing.assert_allclose(have, [[np.log(2)]], rtol=1e-6)


def test_large_logits_stay_finite():
  scores = np.array([[[1e4, -1e4, 0]]], np.float32)
  have = losses.token_losses(scores, tiny_t5.ids([1]))
  np.testing.assert_allclose(have, [[2e4]], rtol=1e-6)


def test_padding_costs_nothing_and_sends_no_gradient():
  scores, targets = logits(2, 3, 7), tiny_t5.ids([1, 2, 0], [4, 0, 0])

  def total(x):
    return losses.token_losses(x, targets, 1e-4).sum()

  have = losses.token_losses(scores, targets, 1e-4)
  np.testing.assert_array_equal(have == 0, targets == 0)
  gradient = np.asarray(jax.grad(total)(scores))
  np.testing.assert_array_equal(gradient.any(-1), targets != 0)


def test_the_mean_of_a_prompt_is_over_its_own_target_tokens():
  scores = logits(4, 3, 7)
  targets = tiny_t5.ids([1, 2, 3], [4, 0, 0], [5, 6, 0], [1, 1, 1])
  which = tiny_t5.ids(0, 2, 0, 2)
  loss, accuracy = losses.per_prompt(
    scores, targets, which, num_prompts=3, z_loss=1e-4
  )
  for prompt in (0, 2):
    places = [
      at
      for at in np.ndindex(targets.shape)
      if targets[at] and which[at[0]] == prompt
    ]
    rows = [by_hand(scores[at], targets[at], 1e-4) for at in places]
    right = [scores[at].argmax() == targets[at] for at in places]
    np.testing.assert_allclose(loss[prompt], np.mean(rows), rtol=1e-5)
    np.testing.assert_allclose(accuracy[prompt], np.mean(right), rtol=1e-6)


def test_a_prompt_without_examples_has_loss_0():
  loss, accuracy = losses.per_prompt(
    logits(1, 2, 7),
    tiny_t5.ids([1, 2]),
    tiny_t5.ids(1),
    num_prompts=3,
    z_loss=0.0,
  )
  np.testing.assert_array_equal(np.asarray(loss) != 0, [False, True, False])
  assert not accuracy[0]


def test_accuracy_counts_the_most_likely_token():
  targets = tiny_t5.ids([1, 2, 0])
  scores = np.zeros((1, 3, 4), np.float32)
  scores[0, [0, 1, 2], [1, 3, 0]] = 5  # right, wrong, padding
  _, accuracy = losses.per_prompt(
    scores, targets, tiny_t5.ids(0), num_prompts=1, z_loss=0.0
  )
  np.testing.assert_array_equal(accuracy, [0.5])


def test_the_loss_of_a_prompt_does_not_see_the_other_prompts():
  scores, targets = logits(4, 3, 7), tiny_t5.tokens(4, 3, rows=7)
  which = tiny_t5.ids(0, 1, 0, 1)

  def of_prompt_0(x, targets):
    loss, _ = losses.per_prompt(x, targets, which, num_prompts=2, z_loss=1e-4)
    return loss[0]

  value, gradient = jax.value_and_grad(of_prompt_0)(scores, targets)
  assert not np.asarray(gradient)[[1, 3]].any()
  assert np.asarray(gradient)[[0, 2]].all()
  other, shorter = scores.copy(), targets.copy()
  other[1] *= -2
  shorter[3, 1:] = 0
  assert of_prompt_0(other, shorter) == value


def test_a_nan_in_one_prompt_stays_there():
  scores, targets = logits(2, 3, 7), tiny_t5.tokens(2, 3, rows=7)
  scores[1] = np.nan
  loss, _ = losses.per_prompt(
    scores, targets, tiny_t5.ids(0, 1), num_prompts=2, z_loss=1e-4
  )
  np.testing.assert_array_equal(np.isnan(loss), [False, True])


def test_sums_are_per_prompt():
  have = losses.sum_per_prompt(
    np.array([1, 2, 4, 8], np.float32), tiny_t5.ids(1, 0, 1, 1), 3
  )
  np.testing.assert_array_equal(have, [2, 13, 0])
