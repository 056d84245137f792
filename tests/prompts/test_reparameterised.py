"""Rows that are computed from other parameters: formulas, starts, numbers."""

import numpy as np
import pytest
import tiny_t5

from prompt_tuning.prompts import prompt, reparameterised
from prompt_tuning.prompts.prompt import Given

P, E, N = 5, 8, 2
WORDS = tiny_t5.rows(30, E, seed=7)
GIVEN = Given((3, 9), WORDS)
METHODS = {
  "residual": reparameterised.residual(4),
  "low_rank": reparameterised.low_rank(2),
  "ulpt": reparameterised.ulpt(3),
  "superposition": reparameterised.superposition(6),
}


def rows_of(module, params) -> np.ndarray:
  return np.asarray(prompt.collapsed(module, {"prompt": params}))


def f32(*values) -> np.ndarray:
  return np.array(values, np.float32)


# Each formula, by hand.


def test_a_residual_prompt_by_hand():
  module = reparameterised.Residual(1, 2, bottleneck=2)
  # [1, 2] down is [3, -1], relu [3, 0], up [3, 9]; less the mean [-3, 3], whose
  # variance is 9: [-1, 1]; scaled by [2, 4] it is [-2, 4], and 10 is added.
  params = {
    "embedding": f32([1, 2]),
    "down": f32([1, 1], [1, -1]),
    "up": f32([1, 3], [5, 5]),
    "scale": f32([2, 4]),
    "bias": f32([10, 10]),
  }
  np.testing.assert_allclose(rows_of(module, params), [[9, 16]], rtol=1e-6)


def test_a_prompt_of_low_rank_by_hand():
  module = reparameterised.LowRank(2, 3, rank=1)
  params = {"left": f32([1], [2]), "right": f32([3, 4, 5])}
  np.testing.assert_array_equal(
    rows_of(module, params), [[3, 4, 5], [6, 8, 10]]
  )


def test_a_projected_prompt_by_hand():
  module = reparameterised.ULPT(1, 2, rank=2)
  params = {
    "codes": f32([1, 2]),
    "fixed_projection": f32([1, 0], [3, 1]),
    "scale": f32([10, 100]),
    "shift": f32([1, -1]),
  }
  np.testing.assert_array_equal(rows_of(module, params), [[71, 199]])


def test_a_superposition_by_hand():
  module = reparameterised.Superposition(2, 2, num_words=3)
  params = {
    "weights": f32([1, 0, 2], [-1, 1, 0]),
    "fixed_words": f32([1, 2], [3, 4], [5, 6]),
  }
  np.testing.assert_array_equal(rows_of(module, params), [[11, 14], [2, 2]])


# What each is equal to where it is as plain as it can be.


def test_a_residual_prompt_without_up_projection_is_the_plain_one():
  rows = tiny_t5.rows(N, P, E)
  module = METHODS["residual"](P, E, N)
  first = module.first_parameters(rows, GIVEN)
  first |= {"up": 0 * first["up"], "scale": 1 + first["scale"]}
  np.testing.assert_array_equal(rows_of(module, first), rows)


@pytest.mark.parametrize("length, width", [(P, E), (E, P)])
def test_full_rank_starts_at_the_rows(length, width):
  rows = tiny_t5.rows(N, length, width)
  module = reparameterised.LowRank(length, width, N, rank=min(length, width))
  first = module.first_parameters(rows)
  np.testing.assert_allclose(rows_of(module, first), rows, atol=1e-6)


def test_a_lower_rank_starts_at_the_nearest_matrix_of_that_rank():
  rows = tiny_t5.rows(P, E)
  first = reparameterised.LowRank(P, E, rank=2).first_parameters(rows)
  found = rows_of(reparameterised.LowRank(P, E, rank=2), first)
  assert np.linalg.matrix_rank(found, tol=1e-5) == 2
  lost = np.linalg.svd(rows, compute_uv=False)[2:]
  np.testing.assert_allclose(
    np.linalg.norm(found - rows), np.linalg.norm(lost), rtol=1e-5
  )


@pytest.mark.parametrize("scale", [0, 1])
def test_rows_of_less_rank_leave_no_direction_without_gradient(scale):
  rows = np.broadcast_to(scale * tiny_t5.rows(1, E), (P, E))
  module = reparameterised.LowRank(P, E, rank=3)
  first = module.first_parameters(rows)
  np.testing.assert_allclose(rows_of(module, first), rows, atol=1e-6)
  assert (np.abs(first["left"]).max(axis=0) > 1e-3).all()


def test_codes_that_make_the_rows_are_the_plain_prompt():
  rows = tiny_t5.rows(P, E)
  module = reparameterised.ULPT(P, E, rank=P)
  params = {
    "codes": np.eye(P, dtype=np.float32),
    "fixed_projection": rows,
    "scale": np.ones((1, E), np.float32),
    "shift": np.zeros((1, E), np.float32),
  }
  np.testing.assert_array_equal(rows_of(module, params), rows)


def test_as_many_codes_as_dimensions_start_at_the_rows():
  rows = tiny_t5.rows(N, P, E)
  module = reparameterised.ULPT(P, E, N, rank=E)
  first = module.first_parameters(rows, GIVEN)
  np.testing.assert_allclose(rows_of(module, first), rows, atol=1e-4)


def test_one_word_with_weight_1_is_that_word():
  module = reparameterised.Superposition(1, E, num_words=6)
  first = module.first_parameters(tiny_t5.rows(1, E), Given((3,), WORDS))
  first["weights"] = f32([0, 0, 0, 1, 0, 0])
  found = rows_of(module, first)
  np.testing.assert_array_equal(found[0], first["fixed_words"][3])
  assert (found == WORDS).all(axis=1).any()


def test_words_start_as_the_words_that_are_among_them():
  module = reparameterised.Superposition(2, E, num_words=6)
  given = Given((3,), WORDS)
  words = module.first_parameters(tiny_t5.rows(2, E), given)["fixed_words"]
  first = module.first_parameters(words[[4, 1]], given)
  expected = np.eye(6)[[4, 1]]
  np.testing.assert_allclose(first["weights"], expected, atol=1e-5)


def test_the_words_differ_from_each_other():
  module = reparameterised.Superposition(1, E, num_words=len(WORDS))
  first = module.first_parameters(tiny_t5.rows(1, E), Given((0,), WORDS))
  assert len(np.unique(first["fixed_words"], axis=0)) == len(WORDS)


# Banks.


@pytest.mark.parametrize("name", METHODS)
def test_a_bank_starts_and_collapses_as_each_of_its_prompts_alone(name):
  rows = tiny_t5.rows(N, P, E)
  bank = METHODS[name](P, E, N)
  first = bank.first_parameters(rows, GIVEN)
  found = rows_of(bank, first)
  assert found.shape == rows.shape and found.dtype == np.float32
  for n in range(N):
    alone = METHODS[name](P, E, 1)
    own = Given(GIVEN.seeds[n : n + 1], WORDS)
    start = alone.first_parameters(rows[n : n + 1], own)
    assert start.keys() == first.keys()
    for leaf in start:
      np.testing.assert_allclose(start[leaf][0], first[leaf][n], atol=1e-6)
    np.testing.assert_allclose(
      rows_of(alone, start)[0], found[n], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", METHODS)
def test_what_is_drawn_is_drawn_again_from_the_seed(name):
  rows = tiny_t5.rows(1, P, E)
  module = METHODS[name](P, E, 1)
  once, twice, other = (
    module.first_parameters(rows, Given((seed,), WORDS)) for seed in (3, 3, 4)
  )
  for leaf in once:
    np.testing.assert_array_equal(once[leaf], twice[leaf])
    if leaf.startswith("fixed_") or leaf in ("down", "up"):
      assert (once[leaf] != other[leaf]).any()


@pytest.mark.parametrize(
  "name, expected",
  [
    ("residual", P * E + 2 * E * 4 + 2 * E),
    ("low_rank", 2 * (P + E)),
    ("ulpt", 3 * P + 2 * E),
    ("superposition", P * 6),
  ],
)
def test_as_many_numbers_train_as_the_formula_says(name, expected):
  module = METHODS[name](P, E, N)
  first = module.first_parameters(tiny_t5.rows(N, P, E), GIVEN)
  mask = prompt.trainable({"prompt": dict.fromkeys(first, True)})["prompt"]
  assert sum(first[leaf].size for leaf in first if mask[leaf]) == N * expected


def test_what_is_fixed_does_not_train():
  mask = {"prompt": {"fixed_words": True, "weights": True}, "x": True}
  assert prompt.trainable(mask) == {
    "prompt": {"fixed_words": False, "weights": True},
    "x": True,
  }


def test_a_method_is_named_with_its_settings():
  assert prompt.method_of(METHODS["residual"](P, E, N)) == {
    "name": "Residual",
    "bottleneck": 4,
  }
  assert prompt.method_of(prompt.Prompt(P, E)) is None
  assert prompt.method_of(None) is None


# Mistakes.


@pytest.mark.parametrize(
  "build, setting",
  [
    (reparameterised.residual, "BOTTLENECK"),
    (reparameterised.low_rank, "RANK"),
    (reparameterised.ulpt, "RANK"),
    (reparameterised.superposition, "NUM_WORDS"),
  ],
)
@pytest.mark.parametrize("size", [0, -1, True])
def test_what_is_no_size_is_refused(build, setting, size):
  with pytest.raises(
    ValueError, match=f"{setting}=.* is no size; give a whole"
  ):
    build(size)


def test_more_rank_than_there_is_is_refused():
  module = reparameterised.LowRank(P, E, rank=6)
  with pytest.raises(ValueError, match="RANK=6 is more than .* Set RANK to 5"):
    module.first_parameters(tiny_t5.rows(P, E))


@pytest.mark.parametrize("words, have", [(WORDS, 30), (None, 0)])
def test_more_words_than_there_are_are_refused(words, have):
  module = reparameterised.Superposition(P, E, num_words=31)
  with pytest.raises(
    ValueError, match=f"NUM_WORDS=31 .* vocabulary has {have}"
  ):
    module.first_parameters(tiny_t5.rows(P, E), Given((0,), words))
