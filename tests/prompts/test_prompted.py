"""A frozen network with prompts in front of its input, of any lengths."""

import dataclasses

import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.model import inject, t5
from prompt_tuning.prompts import checkpoints, prompt, prompted

TEXT = tiny_t5.tokens(3, 5)
TARGETS = tiny_t5.tokens(3, 4, seed=1)


def prompts(*lengths: int) -> list[np.ndarray]:
  return [
    3 * tiny_t5.rows(length, 16, seed=n) for n, length in enumerate(lengths)
  ]


def logits(one: prompted.Prompted, tokens) -> np.ndarray:
  answer = tiny_t5.jitted(one.network)
  return np.asarray(
    answer({"params": one.params}, tokens, t5.shift_right(TARGETS))
  )


@pytest.mark.parametrize("lengths", [(4,), (4, 4), (7, 1, 4)])
def test_the_places_are_those_of_the_longest_prompt(lengths):
  several = prompted.with_prompts(toy_tasks.model(), prompts(*lengths))
  assert several.lengths == lengths
  assert several.places == max(lengths)
  assert several.bank.shape == (len(lengths), max(lengths), 16)


def test_without_prompts_it_is_the_frozen_model():
  model = toy_tasks.model()
  for bare in (
    prompted.without_prompts(model),
    prompted.with_prompts(model, []),
  ):
    assert (bare.lengths, bare.places, bare.bank) == ((), 0, None)
    assert bare.params is model.params
    ids = tiny_t5.ids(0, 0, 0)
    np.testing.assert_array_equal(bare.reserve(TEXT, ids), TEXT)


def test_the_frozen_parameters_are_those_of_the_model():
  model = toy_tasks.model()
  several = prompted.with_prompts(model, prompts(4, 4))
  assert several.params.keys() - model.params.keys() == {prompt.NAME}
  assert all(
    several.params[name] is model.params[name] for name in model.params
  )
  assert prompt.NAME not in model.params
  assert several.vocabulary is model.vocabulary


def test_a_bank_of_one_length_is_its_prompts_bit_for_bit():
  given = prompts(4, 4)
  several = prompted.with_prompts(toy_tasks.model(), given)
  np.testing.assert_array_equal(several.bank, np.stack(given))


def test_a_shorter_prompt_of_a_bank_stands_behind_zeros():
  given = prompts(2, 5)
  bank = np.asarray(prompted.with_prompts(toy_tasks.model(), given).bank)
  np.testing.assert_array_equal(bank[0, 3:], given[0])
  np.testing.assert_array_equal(bank[1], given[1])
  assert not bank[0, :3].any()


def test_no_place_is_reserved_for_what_stands_in_front_of_a_shorter_prompt():
  several = prompted.with_prompts(toy_tasks.model(), prompts(2, 5))
  tokens = several.reserve(TEXT, tiny_t5.ids(0, 1, 0))
  first = inject.PLACEHOLDER
  np.testing.assert_array_equal(tokens[:, 5:], TEXT)
  assert tokens[:, :5].tolist() == [
    [0, 0, 0, first + 3, first + 4],
    [first + 5 + place for place in range(5)],
    [0, 0, 0, first + 3, first + 4],
  ]


def test_prompts_of_different_lengths_say_in_one_batch_what_they_say_alone():
  given = prompts(7, 1, 4)
  ids = tiny_t5.ids(2, 0, 1)
  several = prompted.with_prompts(toy_tasks.model(), given)
  mixed = logits(several, several.reserve(TEXT, ids))
  for row, n in enumerate(ids):
    one = prompted.with_prompts(toy_tasks.model(), [given[n]])
    alone = logits(one, one.reserve(TEXT, tiny_t5.ids(0, 0, 0)))
    np.testing.assert_allclose(mixed[row], alone[row], atol=1e-4)
  assert np.ptp(mixed - logits(several, several.reserve(TEXT, ids[::-1]))) > 0.1


def test_prompts_of_other_places_say_in_one_batch_what_they_say_alone():
  placings = [
    inject.Placing("after_end"),
    inject.Placing("after_first", ("prompt_to_prompt_causal",)),
    inject.Placing("before_end", ("prompt_to_input",)),
  ]
  given = prompts(4, 6, 3)
  text = np.concatenate([TEXT[:, :4], [[1], [1], [0]]], axis=1, dtype=np.int32)
  ids = tiny_t5.ids(1, 0, 2)
  several = prompted.with_prompts(toy_tasks.model(), given, placings)
  mixed = logits(several, several.reserve(text, ids))
  for row, n in enumerate(ids):
    one = prompted.with_prompts(toy_tasks.model(), [given[n]], [placings[n]])
    alone = logits(one, one.reserve(text, tiny_t5.ids(0, 0, 0)))
    np.testing.assert_allclose(mixed[row], alone[row], atol=1e-4)
    front = prompted.with_prompts(toy_tasks.model(), [given[n]])
    in_front = logits(front, front.reserve(text, tiny_t5.ids(0, 0, 0)))
    assert abs(alone[row] - in_front[row]).max() > 0.1


def test_a_saved_prompt_stands_as_its_record_says():
  given = prompts(4, 4)
  record = {"place": "after_end", "attention": ["prompt_to_input"]}
  saved = [
    checkpoints.SavedPrompt(given[0], {}, "one"),
    checkpoints.SavedPrompt(given[1], record, "other"),
  ]
  several = prompted.with_saved(toy_tasks.model(), saved)
  assert several.placings == (
    inject.Placing(),
    inject.Placing("after_end", ("prompt_to_input",)),
  )


def test_a_module_that_trains_reserves_its_length_for_each_prompt():
  module = prompt.Prompt(3, 16, 2)
  rows = tiny_t5.rows(2, 3, 16)
  trains = prompted.with_module(
    toy_tasks.model(), module, module.first_parameters(rows)
  )
  assert trains.lengths == (3, 3)
  np.testing.assert_array_equal(trains.bank, rows)


def test_a_model_without_vocabulary_is_refused():
  mute = dataclasses.replace(toy_tasks.model(), vocabulary=None)
  with pytest.raises(ValueError, match="has no vocabulary"):
    prompted.with_prompts(mute, prompts(4))
