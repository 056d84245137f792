"""The mask: what trains, what does not, and what the optimizer sees."""

import re

import jax
import numpy as np
import optax
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import freeze, t5
from prompt_tuning.training import optimizers

CONFIG = tiny_t5.config()


def params():
  return tiny_t5.weights(CONFIG, prompt=tiny_t5.rows(3, 16))


def paths_that_train(trains):
  return {path for path, value in storage.flatten(trains).items() if value}


def test_prompt_tuning_trains_the_prompt_only():
  trains = freeze.mask(params(), freeze.PROMPT)
  assert paths_that_train(trains) == {"prompt/embedding"}
  assert jax.tree.structure(trains) == jax.tree.structure(params())


def test_model_tuning_trains_all_but_the_prompt():
  trains = freeze.mask(params(), freeze.EVERYTHING_ELSE)
  assert paths_that_train(trains) == (
    storage.flatten(params()).keys() - {"prompt/embedding"}
  )


def test_a_prompt_is_found_deep_in_the_tree_and_not_by_a_part_of_its_name():
  tree = {
    "encoder": {"prompt": {"prompt": {"prompt": 0}}},
    "my_prompt": {"embedding": 0},
    "prompts": {"embedding": 0},
  }
  trains = freeze.mask(tree, freeze.PROMPT)
  assert paths_that_train(trains) == {"encoder/prompt/prompt/prompt"}
  rest = paths_that_train(freeze.mask(tree, freeze.EVERYTHING_ELSE))
  assert rest == {"my_prompt/embedding", "prompts/embedding"}


@pytest.mark.parametrize(
  "trainable, message",
  [
    (".*", r"TRAINABLE='.\*' is no list of patterns. Write TRAINABLE=\('.\*',"),
    (("(",), r"TRAINABLE has '\(', which is no regular expression"),
  ],
)
def test_what_is_no_list_of_patterns_is_refused(trainable, message):
  with pytest.raises(ValueError, match=message):
    freeze.mask({"a": np.zeros(1)}, trainable)


def test_several_patterns_add_up():
  trains = freeze.mask(params(), (*freeze.PROMPT, r".*/scale"))
  have = paths_that_train(trains)
  assert len(have) == 1 + sum("/scale" in p for p in storage.flatten(params()))


@pytest.mark.parametrize("pattern", ["promt/.*", "prompt", "embedding"])
def test_a_pattern_that_matches_no_whole_path_raises_with_all_paths(pattern):
  with pytest.raises(ValueError, match=re.escape(repr(pattern))) as caught:
    freeze.mask(params(), (".*/scale", pattern))
  for path in storage.flatten(params()):
    assert path in str(caught.value)


PATTERNS = [
  freeze.PROMPT,
  freeze.EVERYTHING_ELSE,
  (".*/scale", "decoder/.*"),
  (".*",),
]


@pytest.mark.parametrize("patterns", PATTERNS)
def test_merge_is_the_inverse_of_split(patterns):
  trained, frozen = freeze.split(params(), freeze.mask(params(), patterns))
  merged = freeze.merge(trained, frozen)
  assert storage.flatten(merged).keys() == storage.flatten(params()).keys()
  jax.tree.map(np.testing.assert_array_equal, merged, params())
  assert freeze.count(trained) + freeze.count(frozen) == freeze.count(params())


def test_a_hole_is_no_leaf():
  trains = freeze.mask(params(), freeze.PROMPT)
  trained, frozen = freeze.split(params(), trains)
  assert len(jax.tree.leaves(trained)) == 1
  assert len(jax.tree.leaves(frozen)) == len(jax.tree.leaves(params())) - 1
  assert freeze.count(trained) == 3 * 16


def test_count_adds_up_the_numbers_of_all_leaves():
  assert freeze.count({"a": np.zeros((2, 3)), "b": {"c": np.zeros(())}}) == 7
  assert freeze.count(t5.abstract_parameters(CONFIG)) == freeze.count(
    tiny_t5.weights(CONFIG)
  )


@pytest.mark.parametrize(
  "optimizer, numbers_per_weight",
  [(optimizers.adafactor(), 1), (optimizers.adamw(1e-3), 2)],
)
def test_the_optimizer_state_covers_the_trained_leaves_only(
  optimizer, numbers_per_weight
):
  trains = freeze.mask(params(), freeze.PROMPT)
  trained, _ = freeze.split(params(), trains)
  leaves = jax.tree.leaves(optimizer.init(trained))
  of_the_prompt = [leaf for leaf in leaves if leaf.size == 48]
  assert len(of_the_prompt) == numbers_per_weight
  # Beside them: the count of steps, and Adafactor's places for factors.
  assert all(leaf.size == 1 for leaf in leaves if leaf.size != 48)
  assert len(leaves) <= 4


def test_an_update_passes_the_holes_by():
  trained, frozen = freeze.split(params(), freeze.mask(params(), (".*/scale",)))
  tx = optimizers.adafactor()
  gradient = jax.tree.map(np.ones_like, trained)
  updates, _ = tx.update(gradient, tx.init(trained), trained)
  after = freeze.merge(optax.apply_updates(trained, updates), frozen)
  moved = {
    path
    for path, leaf in storage.flatten(after).items()
    if not np.array_equal(leaf, storage.flatten(params())[path])
  }
  assert moved == {p for p in storage.flatten(params()) if p.endswith("scale")}
