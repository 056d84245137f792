"""A prompt: its parameter, where it starts, and the rows it comes to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import freeze, t5
from prompt_tuning.prompts import prompt

CONFIG = tiny_t5.config()
TARGETS = tiny_t5.tokens(2, 4, seed=9)


@pytest.mark.parametrize(
  "num_prompts, shape, axes",
  [
    (None, (3, 16), ("prompt", "prompt_embed")),
    (2, (2, 3, 16), ("prompts", "prompt", "prompt_embed")),
  ],
)
def test_the_prompt_adds_one_parameter_with_its_axes(num_prompts, shape, axes):
  network = tiny_t5.prompted(CONFIG, 3, num_prompts)
  inputs = tiny_t5.reserved(tiny_t5.tokens(1, 4), [0], 3)
  made = jax.eval_shape(network.init, jax.random.key(0), inputs, TARGETS[:1])
  have = storage.flatten(made["params"])
  added = have.keys() - storage.flatten(t5.abstract_parameters(CONFIG)).keys()
  assert added == {"prompt/embedding"}
  assert have["prompt/embedding"].shape == shape
  assert made["params_axes"]["prompt"]["embedding_axes"].names == axes


def test_a_prompt_starts_where_its_initializer_says():
  def initializer(key, shape, dtype):
    return jnp.arange(np.prod(shape), dtype=dtype).reshape(shape)

  module = prompt.Prompt(2, 3, initializer=initializer)
  made = module.init(jax.random.key(0))
  np.testing.assert_array_equal(
    made["params"]["embedding"], [[0, 1, 2], [3, 4, 5]]
  )


@pytest.mark.parametrize("num_prompts", [None, 2])
def test_a_prompt_collapses_to_the_rows_that_it_starts_from(num_prompts):
  shape = (3, 16) if num_prompts is None else (num_prompts, 3, 16)
  rows = tiny_t5.rows(*shape)
  module = prompt.Prompt(3, 16, num_prompts)
  first = module.first_parameters(rows)
  assert storage.flatten({prompt.NAME: first}).keys() == {prompt.PARAMETER}
  found = prompt.collapsed(module, tiny_t5.weights(CONFIG) | {"prompt": first})
  np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize(
  "trainable, expected",
  [(freeze.PROMPT, True), (freeze.EVERYTHING_ELSE, False), ((".*",), False)],
)
def test_only_a_prompt_is_all_that_trains(trainable, expected):
  params = tiny_t5.weights(CONFIG, prompt=tiny_t5.rows(3, 16))
  trained, _ = freeze.split(params, freeze.mask(params, trainable))
  assert prompt.is_all_that_trains(trained) == expected
