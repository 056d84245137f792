"""Prompts of several tasks with a shared part: formulas, starts, the file."""

import numpy as np
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.prompts import multitask, prompt

P, E, N = 5, 8, 3
ROWS = tiny_t5.rows(N, P, E)
METHODS = {
  "product": multitask.multi_task(),
  "add": multitask.multi_task("add"),
  "concat": multitask.multi_task("concat", 2),
  "features": multitask.multi_task("features", 3),
  "project": multitask.multi_task("project", 4),
}


def rows_of(module, params) -> np.ndarray:
  return np.asarray(prompt.collapsed(module, {"prompt": params}))


def f32(*values) -> np.ndarray:
  return np.array(values, np.float32)


@pytest.mark.parametrize(
  "combine, size, shared, own, expected",
  [
    (
      *("product", 0, [[1, 2], [3, 4]]),
      {"left": [[2, 10]], "right": [[1, -1]]},
      [[[2, -4], [30, -40]]],
    ),
    (
      *("add", 0, [[1, 2], [3, 4]]),
      {"own": [[[10, 20], [30, 40]]]},
      [[[11, 22], [33, 44]]],
    ),
    ("concat", 1, [[1, 2]], {"own": [[[3, 4]]]}, [[[1, 2], [3, 4]]]),
    ("features", 1, [[1], [2]], {"own": [[[3], [4]]]}, [[[1, 3], [2, 4]]]),
    (
      *("project", 1, [[1], [2]]),
      {"kernel": [[[3, 4]]], "bias": [[10, 20]]},
      [[[13, 24], [16, 28]]],
    ),
  ],
)
def test_a_combination_by_hand(combine, size, shared, own, expected):
  module = multitask.multi_task(combine, size)(2, 2, 1)
  params = {name: f32(*value) for name, value in own.items()}
  found = rows_of(module, params | {"shared_rows": f32(*shared)})
  np.testing.assert_array_equal(found, expected)


def test_ones_are_the_shared_rows_for_every_task():
  module = METHODS["product"](P, E, N)
  params = {
    "shared_rows": ROWS[0],
    "left": np.ones((N, P), np.float32),
    "right": np.ones((N, E), np.float32),
  }
  np.testing.assert_array_equal(rows_of(module, params), [ROWS[0]] * N)


@pytest.mark.parametrize(
  "combine, expected",
  [
    ("product", np.stack([ROWS.mean(axis=0)] * N)),
    ("add", ROWS),
    ("concat", np.concatenate([[ROWS[:, :3].mean(0)] * N, ROWS[:, 3:]], 1)),
    (
      "features",
      np.concatenate([[ROWS[..., :5].mean(0)] * N, ROWS[..., 5:]], 2),
    ),
  ],
)
def test_it_starts_where_it_says(combine, expected):
  module = METHODS[combine](P, E, N)
  first = module.first_parameters(ROWS)
  np.testing.assert_allclose(rows_of(module, first), expected, atol=1e-6)


def test_a_projection_of_full_width_starts_at_the_rows():
  module = multitask.multi_task("project", P)(P, E, N)
  first = module.first_parameters(ROWS)
  np.testing.assert_allclose(rows_of(module, first), ROWS, atol=1e-5)


@pytest.mark.parametrize(
  "combine, expected",
  [
    ("product", P * E + N * (P + E)),
    ("add", P * E + N * P * E),
    ("concat", (P - 2) * E + N * 2 * E),
    ("features", P * (E - 3) + N * P * 3),
    ("project", P * 4 + N * (4 * E + E)),
  ],
)
def test_as_many_numbers_train_as_the_formula_says(combine, expected):
  first = METHODS[combine](P, E, N).first_parameters(ROWS)
  assert sum(leaf.size for leaf in first.values()) == expected


@pytest.mark.parametrize("combine", METHODS)
def test_what_is_shared_is_one_leaf(combine):
  first = METHODS[combine](P, E, N).first_parameters(ROWS)
  kinds = prompt.shared({"prompt": first})["prompt"]
  assert [name for name, shared in kinds.items() if shared] == ["shared_rows"]
  assert all(len(first[name]) == N for name in first if not kinds[name])


@pytest.mark.parametrize("combine", METHODS)
def test_a_new_task_starts_from_the_shared_part_and_the_mean_of_the_tasks(
  tmp_path, combine
):
  module = METHODS[combine](P, E, N)
  first = module.first_parameters(ROWS)
  first = {k: v + tiny_t5.rows(*v.shape, seed=3) for k, v in first.items()}
  multitask.save_shared(tmp_path, module, first)
  for place in (tmp_path, tmp_path / multitask.FILE):
    later = multitask.multi_task(combine, module.size, place)(P, E, 2)
    found = later.first_parameters(ROWS[:2])
    for name, leaf in found.items():
      shared = name.startswith("shared_")
      expected = first[name] if shared else [first[name].mean(axis=0)] * 2
      np.testing.assert_allclose(leaf, expected, atol=1e-6)


@pytest.mark.parametrize(
  "combine, size, message",
  [
    ("prodct", 0, "COMBINE='prodct' is no way .* Did you mean product"),
    ("add", 3, "COMBINE_SIZE=3 is set, and COMBINE='add' has no size"),
    ("concat", 0, "COMBINE_SIZE=0 is no size"),
    ("project", -1, "COMBINE_SIZE=-1 is no size"),
  ],
)
def test_a_setting_that_cannot_be_is_refused(combine, size, message):
  with pytest.raises(ValueError, match=message):
    multitask.multi_task(combine, size)


@pytest.mark.parametrize(
  "combine, size, most",
  [("concat", 5, 4), ("features", 8, 7), ("project", 6, 5)],
)
def test_a_size_that_leaves_no_room_is_refused(combine, size, most):
  module = multitask.multi_task(combine, size)(P, E, N)
  with pytest.raises(ValueError, match=f"COMBINE_SIZE={size} .* 1 to {most}"):
    module.first_parameters(ROWS)


def test_a_file_that_is_not_there_or_of_another_prompt_is_named(tmp_path):
  module = METHODS["add"](P, E, N)
  with pytest.raises(FileNotFoundError, match="SHARED_FROM=.* has no shared"):
    multitask.multi_task("add", 0, tmp_path)(P, E, N).first_parameters(ROWS)
  multitask.save_shared(tmp_path, module, module.first_parameters(ROWS))
  for combine, length in [("product", P), ("add", P + 1)]:
    other = multitask.multi_task(combine, 0, tmp_path)(length, E, N)
    with pytest.raises(
      ValueError, match=f"written by .*COMBINE={combine!r} nee"
    ):
      other.first_parameters(tiny_t5.rows(N, length, E))


def test_one_position_cannot_be_divided():
  method = multitask.multi_task("concat", 1)
  with pytest.raises(ValueError, match="divides PROMPT_LENGTH .* and it is 1"):
    method(1, E, N).first_parameters(tiny_t5.rows(N, 1, E))


@pytest.mark.parametrize(
  "values, message",
  [(np.nan, "without NaN .* with some"), (1, "floats, .* of type int")],
)
def test_a_shared_part_that_is_no_numbers_is_refused(values, message, tmp_path):
  kind = np.float32 if np.isnan(values) else np.int32
  own = np.zeros((P, E), kind)
  tree = {"shared_rows": np.full((P, E), values, kind), "own": own}
  storage.save_tree(tmp_path / multitask.FILE, tree, {})
  method = multitask.multi_task("add", start_from=tmp_path)
  with pytest.raises(ValueError, match=message):
    method(P, E, N).first_parameters(ROWS)
