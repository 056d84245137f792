"""Equal settings get the function that was compiled for them."""

import re

import jax
import numpy as np
import tiny_t5
import toy_tasks

from prompt_tuning.model import decode, t5
from prompt_tuning.shapes import remembered
from prompt_tuning.training import optimizers, step


def test_equal_arguments_get_the_same_object():
  make = remembered(lambda size, *, name="": object())
  assert make(1, name="a") is make(1, name="a")
  assert make(1, name="a") is not make(1, name="b")
  assert make(1) is not make(1.0)


def test_arguments_without_a_hash_are_passed_on():
  make = remembered(lambda values: [*values])
  rows = np.arange(3)
  assert make(rows) == [0, 1, 2]
  assert make(rows) is not make(rows)


def test_a_second_problem_of_the_same_settings_has_the_steps_of_the_first():
  def problem(rate):
    network = tiny_t5.prompted(tiny_t5.config(), 3, 2)
    optimizer = optimizers.per_prompt(optimizers.adafactor(rate))
    return step.Problem(network, optimizer, num_prompts=2)

  first = step.make_steps(problem(0.3))
  assert step.make_steps(problem(0.3)) is first
  assert step.make_steps(problem(0.2)) is not first


def test_a_second_decoder_of_a_network_compiles_nothing():
  config = tiny_t5.config()
  params = tiny_t5.weights(config)
  tokens = np.ones((1, 4), np.int32)

  def decoder(length=3):
    network = t5.T5(config)
    return decode.make_decoder(network, decode.Greedy(), length)

  decoder()(params, tokens, jax.random.key(0))
  assert decoder()._cache_size() == 1
  decoder()(params, tokens, jax.random.key(1))
  assert decoder()._cache_size() == 1
  assert decoder(4)._cache_size() == 0


def test_a_run_that_goes_on_compiles_no_step_and_no_decoder(tmp_path, caplog):
  toy_tasks.run(tmp_path, steps=4)
  with jax.log_compiles():
    toy_tasks.run(tmp_path, steps=8)
    jax.jit(lambda x: x + 1)(1)
  made = set(re.findall(r"Compiling jit\((\S+)\)", caplog.text))
  assert "<lambda>" in made
  assert not made & {"loss_of", "update", "decoder"}
