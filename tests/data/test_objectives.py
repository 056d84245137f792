"""Objectives: nothing is lost, and the rates hold."""

import numpy as np
import pytest

from prompt_tuning.data import objectives
from prompt_tuning.vocabulary import EOS

FIRST = 1000  # <0> is 1000, <1> is 999, … as in a vocabulary


def sentinel(i):
  return FIRST - i


def is_sentinel(token):
  return 900 < token <= FIRST


def text(length):
  return list(range(2, 2 + length))


def corrupt(length, seed=0, **settings):
  rng = np.random.default_rng(seed)
  objective = objectives.SpanCorruption(**settings)
  return objective(text(length), rng, sentinel)


def spans(targets):
  """The hidden spans by sentinel, in the order of the targets."""
  found = {}
  for token in targets[:-1]:
    if is_sentinel(token):
      found[token] = []
      last = token
    else:
      found[last].append(token)
  return found


def restored(inputs, targets):
  """The text, with every sentinel replaced by its span."""
  hidden = spans(targets)
  parts = [hidden.get(token, [token]) for token in inputs[:-1]]
  return [token for part in parts for token in part]


LENGTHS = [2, 3, 5, 7, 20, 64, 333]
SETTINGS = [{}, {"noise_density": 0.5, "mean_span_length": 2.0}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_span_corruption_hides_nothing_for_good(length, settings):
  for seed in range(10):
    inputs, targets = corrupt(length, seed, **settings)
    assert restored(inputs, targets) == text(length)
    assert inputs[-1] == targets[-1] == EOS


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_sentinels_come_in_order_in_front_of_spans_that_are_not_empty(
  length, settings
):
  for seed in range(10):
    inputs, targets = corrupt(length, seed, **settings)
    order = [token for token in inputs if is_sentinel(token)]
    assert order == [sentinel(i) for i in range(len(order))]
    assert order == [*spans(targets)]
    assert all(spans(targets).values())
    assert is_sentinel(targets[0])
    assert not is_sentinel(inputs[0])
    both = zip(inputs, inputs[1:], strict=False)
    assert not any(is_sentinel(a) and is_sentinel(b) for a, b in both)


@pytest.mark.parametrize("density, mean", [(0.15, 3.0), (0.5, 2.0)])
def test_density_and_span_length_are_what_was_asked_for(density, mean):
  _, targets = corrupt(400, noise_density=density, mean_span_length=mean)
  lengths = [len(span) for span in spans(targets).values()]
  assert sum(lengths) == round(400 * density)
  assert len(lengths) == round(sum(lengths) / mean)


def test_568_tokens_give_512_inputs_and_114_targets():
  inputs, targets = corrupt(568)
  assert (len(inputs), len(targets)) == (512, 114)


@pytest.mark.parametrize("tokens", [[], [5]])
def test_a_text_too_short_to_hide_anything_is_kept(tokens):
  rng = np.random.default_rng(0)
  pair = objectives.SpanCorruption()(tokens, rng, sentinel)
  assert pair == ([*tokens, EOS], [EOS])


def test_all_ways_to_cut_the_spans_are_equally_likely():
  """Four hidden tokens in two spans: 1 + 3, 2 + 2 or 3 + 1."""
  counts = {1: 0, 2: 0, 3: 0}
  for seed in range(1500):
    _, targets = corrupt(10, seed, noise_density=0.4, mean_span_length=2.0)
    counts[len(spans(targets)[sentinel(0)])] += 1
  deviation = np.sqrt(1500 * (1 / 3) * (2 / 3))
  assert all(abs(n - 500) < 4 * deviation for n in counts.values())


def prefix(length, seed=0, tokens=None, **settings):
  objective = objectives.PrefixLM(**settings)
  return objective(tokens or text(length), np.random.default_rng(seed))


def test_prefix_and_rest_make_up_the_text():
  for length in (2, 3, 20):
    for seed in range(10):
      inputs, targets = prefix(length, seed)
      assert inputs[:-1] + targets[:-1] == text(length)
      assert inputs[-1] == targets[-1] == EOS
      assert inputs[:-1] and targets[:-1]


def test_the_place_of_the_split_is_uniform():
  places = [len(prefix(6, seed)[0]) - 1 for seed in range(2000)]
  counts = np.bincount(places, minlength=6)
  assert counts[0] == 0 and len(counts) == 6
  deviation = np.sqrt(2000 * 0.2 * 0.8)
  assert (np.abs(counts[1:] - 400) < 4 * deviation).all()


@pytest.mark.parametrize("tokens", [[], [5]])
def test_a_text_without_a_split_is_all_target(tokens):
  rng = np.random.default_rng(0)
  assert objectives.PrefixLM()(tokens, rng) == ([EOS], [*tokens, EOS])


def test_the_split_is_in_front_of_the_last_sentence_at_its_rate():
  tokens = [5, 6, 90, 7, 8, 91, 10, 11, 12, 13, 90]
  always = {"sentence_rate": 1.0, "sentence_ends": (90, 91)}
  for seed in range(20):
    inputs, _ = prefix(0, seed, tokens, **always)
    assert inputs == [*tokens[:6], EOS]
  sometimes = always | {"sentence_rate": 0.7}
  at = [len(prefix(0, seed, tokens, **sometimes)[0]) for seed in range(1000)]
  rate = 0.7 + 0.3 / 10  # the uniform split falls there too
  deviation = np.sqrt(1000 * rate * (1 - rate))
  assert abs(at.count(7) - 1000 * rate) < 4 * deviation


def test_a_text_of_one_sentence_is_split_anywhere():
  tokens = [5, 6, 7, 8, 90]
  at = {
    len(prefix(0, seed, tokens, sentence_rate=1.0, sentence_ends=(90,))[0])
    for seed in range(100)
  }
  assert at == {2, 3, 4, 5}


class Drawn(np.random.Generator):
  """A generator whose choices are given."""

  def __init__(self, *choices):
    super().__init__(np.random.PCG64(0))
    self.choices = [np.array(choice) for choice in choices]

  def choice(self, total, size, replace):
    chosen = self.choices.pop(0)
    assert not replace and len(chosen) == size and (chosen < total).all()
    return chosen


def test_deleted_tokens_leave_no_trace_and_the_target_is_the_text():
  pair = objectives.TokenDeletion(2 / 6)([5, 6, 7, 8, 9, 10], Drawn([4, 1]))
  assert pair == ([5, 7, 8, 10, EOS], [5, 6, 7, 8, 9, 10, EOS])


def test_one_sentinel_stands_for_every_span_and_the_target_is_the_text():
  """Three hidden as 2 + 1 behind three shown as 1 + 2."""
  objective = objectives.TextInfilling(0.5, mean_span_length=1.5)
  tokens = [5, 6, 7, 8, 9, 10]
  inputs, targets = objective(tokens, Drawn([1], [0]), sentinel)
  assert inputs == [5, sentinel(0), 8, 9, sentinel(0), EOS]
  assert targets == [*tokens, EOS]


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_shown_of_a_whole_text_stands_in_its_order(length):
  for seed in range(10):
    for objective in (objectives.TokenDeletion(), objectives.TextInfilling()):
      rng = np.random.default_rng(seed)
      inputs, targets = objective(text(length), rng, sentinel)
      assert targets == [*text(length), EOS] and inputs[-1] == EOS
      shown = [token for token in inputs[:-1] if not is_sentinel(token)]
      assert shown == sorted(shown) and {*shown} < {*text(length)}
      assert length - len(shown) == min(max(round(0.15 * length), 1), length)


def test_infilling_hides_the_spans_that_span_corruption_hides():
  for seed, roll in ((0, False), (1, True), (2, True)):
    rng = np.random.default_rng(seed)
    inputs, _ = corrupt(64, seed, random_roll=roll)
    objective = objectives.TextInfilling(random_roll=roll)
    filled, _ = objective(text(64), rng, sentinel)
    assert filled == [
      FIRST if is_sentinel(token) else token for token in inputs
    ]


def test_every_token_is_deleted_as_often():
  counts = np.zeros(10)
  for seed in range(2000):
    rng = np.random.default_rng(seed)
    inputs, _ = objectives.TokenDeletion(0.2)(text(10), rng)
    counts[[token - 2 for token in {*text(10)} - {*inputs}]] += 1
  assert counts.sum() == 2 * 2000
  assert (np.abs(counts - 400) < 4 * np.sqrt(2000 * 0.2 * 0.8)).all()


@pytest.mark.parametrize("tokens", [[], [5]])
@pytest.mark.parametrize(
  "objective", [objectives.TokenDeletion(), objectives.TextInfilling()]
)
def test_a_text_too_short_to_lose_anything_is_its_own_target(tokens, objective):
  pair = objective(tokens, np.random.default_rng(0), sentinel)
  assert pair == ([*tokens, EOS], [*tokens, EOS])


@pytest.mark.parametrize("density", [0.0, 1.0, -0.1, 15.0])
def test_a_part_that_is_none_is_refused(density):
  with pytest.raises(ValueError, match="TextInfilling.noise_density="):
    objectives.TextInfilling(density)
  with pytest.raises(ValueError, match="TokenDeletion.noise_density="):
    objectives.TokenDeletion(density)


def test_a_whole_text_has_room_for_its_end():
  whole = objectives.TokenDeletion()
  parts = objectives.Mixture(((objectives.PrefixLM(), 1.0), (whole, 1.0)))
  for objective in (whole, parts, objectives.TextInfilling()):
    assert objectives.longest_text(objective, (24, 16)) == 15
    assert objectives.longest_text(objective, (24, 99)) == 23
  for objective in (objectives.PrefixLM(), objectives.SpanCorruption()):
    assert objectives.longest_text(objective, (24, 16)) == 24


def test_a_mixture_draws_its_parts_by_their_rates():
  def named(name):
    return lambda tokens, rng, sentinel: ([name, *tokens], [])

  mixture = objectives.Mixture(((named(1), 3.0), (named(2), 1.0)))
  rng = np.random.default_rng(0)
  drawn = [mixture([7], rng, sentinel)[0] for _ in range(2000)]
  assert {tuple(one) for one in drawn} == {(1, 7), (2, 7)}
  deviation = np.sqrt(2000 * 0.75 * 0.25)
  assert abs(drawn.count([1, 7]) - 1500) < 4 * deviation


MIXTURE = objectives.Mixture(
  ((objectives.SpanCorruption(), 1.0), (objectives.PrefixLM(), 1.0))
)


@pytest.mark.parametrize(
  "objective",
  [
    *(objectives.SpanCorruption(), objectives.PrefixLM(), MIXTURE),
    *(objectives.TokenDeletion(), objectives.TextInfilling()),
  ],
  ids=["spans", "prefix", "mixture", "deletion", "infilling"],
)
def test_an_example_is_a_function_of_text_and_seed(objective):
  def examples(seed):
    rng = np.random.default_rng(seed)
    return [objective(text(60), rng, sentinel) for _ in range(5)]

  assert examples(1) == examples(1)
  assert examples(1) != examples(2)
