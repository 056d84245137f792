"""Decoding against slow loops: no cache, one example and one beam at a time."""

import functools
import itertools

import jax
import numpy as np
import pytest
import tiny_t5

from prompt_tuning.model import decode, t5
from prompt_tuning.model.decode import Beam, Greedy, Sample
from prompt_tuning.vocabulary import EOS, PAD

V, B, L = 12, 8, 5
CONFIG = tiny_t5.config(vocab_size=V)
PLAIN = t5.T5(CONFIG)
INPUTS = tiny_t5.tokens(B, 6, rows=V)
INPUTS[::2, 4:] = PAD


def params(prompt=None):
  return tiny_t5.weights(CONFIG, seed=6, prompt=prompt)


@functools.cache
def decoder(network, strategy, max_length):
  return decode.make_decoder(network, strategy, max_length)


def run(strategy, inputs=INPUTS, max_length=L, *, seed=0, prompt=None):
  network = PLAIN
  if prompt is not None:
    network = tiny_t5.prompted(CONFIG, prompt.shape[-2], prompt.shape[0])
  write = decoder(network, strategy, max_length)
  return np.asarray(write(params(prompt), inputs, jax.random.key(seed)))


def log_probabilities(targets, inputs=INPUTS):
  """Teacher-forced log p of every token at every place, [B, L, V]."""
  logits = tiny_t5.jitted(PLAIN)(
    {"params": params()}, inputs, t5.shift_right(targets)
  )
  return np.asarray(jax.nn.log_softmax(logits))


def until_the_end(ids):
  """One target without what follows its end."""
  ids = ids.tolist()
  return ids[: ids.index(EOS) + 1] if EOS in ids else ids


def naive_greedy():
  ids = np.zeros((B, L), np.int32)
  done = np.zeros(B, bool)
  for place in range(L):
    best = log_probabilities(ids)[:, place].argmax(-1)
    ids[:, place] = np.where(done, PAD, best)
    done |= best == EOS
  return ids


def test_greedy_equals_a_loop_without_cache():
  ids = run(Greedy())
  np.testing.assert_array_equal(ids, naive_greedy())
  lengths = {len(until_the_end(row)) for row in ids}
  assert len(lengths) > 1  # not all of them end together


def test_teacher_forcing_on_a_greedy_target_gives_it_back():
  ids = run(Greedy())
  again = log_probabilities(ids).argmax(-1)
  for row, same in zip(ids, again, strict=True):
    size = len(until_the_end(row))
    np.testing.assert_array_equal(row[:size], same[:size])


STRATEGIES = [Greedy(), Sample(), Beam(3)]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_padding_follows_the_end(strategy):
  assert run(strategy).shape == (B, L)
  ids = np.concatenate([run(strategy, seed=seed) for seed in range(4)])
  assert ids.dtype == np.int32
  ended = [row.tolist().index(EOS) for row in ids if EOS in row]
  assert ended and min(ended) < L - 1
  for row in ids:
    assert not row[len(until_the_end(row)) :].any()


def test_a_batch_of_mixed_prompts_decodes_as_one_by_one():
  bank = tiny_t5.rows(3, 2, 16)
  which = np.arange(B, dtype=np.int32) % 3
  mixed = run(Beam(3), tiny_t5.reserved(INPUTS, which, 2), prompt=bank)
  for n in range(3):
    alone = run(Beam(3), tiny_t5.reserved(INPUTS, [n] * B, 2), prompt=bank)
    np.testing.assert_array_equal(mixed[which == n], alone[which == n])
  assert len({row.tobytes() for row in mixed}) > 3


# Sampling.


@pytest.mark.parametrize(
  "strategy", [Sample(2.0, top_k=1), Sample(top_k=1000, top_p=1e-6)], ids=str
)
def test_sampling_from_the_best_token_is_greedy(strategy):
  for seed in range(3):
    np.testing.assert_array_equal(run(strategy, seed=seed), run(Greedy()))


def test_a_sample_is_a_function_of_its_key():
  first = run(Sample())
  np.testing.assert_array_equal(run(Sample()), first)
  assert not np.array_equal(run(Sample(), seed=1), first)


def test_places_and_examples_are_drawn_apart():
  """The same input and the same distribution, but another draw."""
  ids = run(Sample(temperature=1e6), np.repeat(INPUTS[:1], 64, axis=0))
  whole = ids[(ids != EOS).all(1) & (ids != PAD).all(1)]
  assert len({row.tobytes() for row in whole}) > 0.9 * len(whole) > 10
  assert (whole[:, 0] == whole[:, 1]).mean() < 0.4


COUNT = 4000


def drawn(strategy):
  """How often each token is the first of COUNT samples of one input."""
  inputs = np.repeat(INPUTS[1:2], COUNT, axis=0)
  return np.bincount(run(strategy, inputs, 1)[:, 0], minlength=V)


def first_token():
  """The distribution of the first token of that input."""
  return np.exp(log_probabilities(np.zeros((B, L), np.int32))[1, 0])


def agrees(counts, probabilities) -> bool:
  """Whether counts are within 4.5 standard deviations of what is expected."""
  p = probabilities / probabilities.sum()
  deviation = np.sqrt(COUNT * p * (1 - p))
  return (np.abs(counts - COUNT * p) <= 4.5 * deviation).all()


def test_samples_follow_the_softmax_at_their_temperature():
  counts = drawn(Sample(temperature=0.5))
  assert agrees(counts, first_token() ** 2)
  assert not agrees(counts, first_token() ** 1.5)


def test_top_k_draws_from_the_k_most_likely_and_from_all_of_them():
  p = first_token()
  counts = drawn(Sample(2.0, top_k=3))
  inside = p >= np.sort(p)[-3]
  assert agrees(counts, np.where(inside, p**0.5, 0))


def test_top_p_draws_from_the_smallest_set_that_reaches_p():
  p, top_p = first_token(), 0.7
  order = np.argsort(p)[::-1]
  size = int((np.cumsum(p[order]) < top_p).sum()) + 1
  assert 1 < size < V - 2
  inside = np.isin(np.arange(V), order[:size])
  assert agrees(drawn(Sample(top_p=top_p)), np.where(inside, p, 0))


@pytest.mark.parametrize(
  "settings",
  [
    {"temperature": 0.0},
    {"temperature": -1.0},
    {"top_k": -1},
    {"top_p": 0.0},
    {"top_p": 1.5},
  ],
  ids=str,
)
def test_a_sample_without_sense_is_refused_by_name(settings):
  [(name, value)] = settings.items()
  with pytest.raises(ValueError, match=f"{name}.* got .*{value}"):
    Sample(**settings)


# Beams.


@pytest.mark.parametrize("beams", [0, -2])
def test_no_beam_is_refused_by_name(beams):
  with pytest.raises(ValueError, match=f"num_beams must be .* got {beams}"):
    Beam(beams)


def test_one_beam_is_greedy():
  np.testing.assert_array_equal(run(Beam(1)), run(Greedy()))


def score(log_p, length, alpha):
  return log_p / ((5 + length) / 6) ** alpha


@functools.cache
def all_of_two_places():
  """Every target of two places, with log p for each example, by brute force."""
  zeros = np.zeros((B, L), np.int32)
  found = {(EOS,): log_probabilities(zeros)[:, 0, EOS]}
  for first in set(range(V)) - {EOS}:
    ids = zeros.copy()
    ids[:, 0] = first
    log_p = log_probabilities(ids)
    for second in range(V):
      both = log_p[:, 0, first] + log_p[:, 1, second]
      found[first, second] = both
  return found


def test_enough_beams_find_the_best_target_of_all():
  """More beams than tokens: no target of two places can be lost."""
  by_alpha = {}
  for alpha in (0.0, 4.0):
    scores = {
      target: score(log_p, len(target), alpha)
      for target, log_p in all_of_two_places().items()
    }
    want = [max(scores, key=lambda t, i=i: scores[t][i]) for i in range(B)]
    have = run(Beam(V + 1, alpha), max_length=2)
    np.testing.assert_array_equal(have, [[*target, PAD][:2] for target in want])
    by_alpha[alpha] = have
  assert not np.array_equal(by_alpha[0.0], by_alpha[4.0])
  assert not np.array_equal(by_alpha[0.0], run(Greedy())[:, :2])


@functools.cache
def next_log_p(at: int, prefix: tuple[int, ...]):
  """Log p of each token that may follow, for one example."""
  ids = np.zeros((B, L), np.int32)
  ids[:, : len(prefix)] = prefix
  return log_probabilities(ids)[at, len(prefix)]


def slow_beam(at: int, beams: int, alpha: float) -> list[int]:
  """Beam search for one example with lists, after `_beam`'s docstring."""
  going, ended = [(0.0, ())], []
  for _ in range(L):
    candidates = [
      (log_p + next_log_p(at, ids)[token], (*ids, token))
      for log_p, ids in going
      for token in range(V)
    ]
    candidates = sorted(candidates, reverse=True)[: 2 * beams]
    for log_p, ids in candidates[:beams]:
      if ids[-1] == EOS:
        ended.append((score(log_p, len(ids), alpha), ids))
    going = [one for one in candidates if one[1][-1] != EOS][:beams]
    if len(ended) >= beams:
      break
  if len(ended) < beams:
    ended += [(score(log_p, L, alpha), ids) for log_p, ids in going]
  best = max(ended)[1]
  return [*best, *[PAD] * (L - len(best))]


@pytest.mark.parametrize("beams, alpha", [(2, 0.6), (4, 2.0)])
def test_beams_equal_a_search_with_lists(beams, alpha):
  have = run(Beam(beams, alpha))
  want = [slow_beam(at, beams, alpha) for at in range(B)]
  np.testing.assert_array_equal(have, want)
  assert not np.array_equal(have, run(Greedy()))


# Several targets, with their log-probabilities.


@functools.cache
def scored_decoder(strategy, max_length, count):
  return decode.make_scored_decoder(PLAIN, strategy, max_length, count)


def scored(strategy, count, max_length=2, *, seed=0, first=0):
  write = scored_decoder(strategy, max_length, count)
  ids, log_p = write(params(), INPUTS, jax.random.key(seed), first)
  assert ids.shape == (B, count, max_length) and log_p.shape == (B, count)
  return np.asarray(ids), np.asarray(log_p)


@pytest.mark.parametrize("alpha", [0.0, 4.0])
def test_the_best_beams_are_the_best_of_all_targets_in_order(alpha):
  """As many beams as targets: the list is the enumeration, sorted."""
  every = all_of_two_places()
  ids, log_p = scored(Beam(V * V, alpha), 20)
  for at in range(B):
    want = sorted(every, key=lambda t: -score(every[t][at], len(t), alpha))[:20]
    assert [tuple(until_the_end(row)) for row in ids[at]] == want
    np.testing.assert_allclose(
      log_p[at], [every[target][at] for target in want], rtol=1e-4
    )


def test_beams_that_there_are_not_are_told_apart():
  """12 targets of one place, and 20 beams."""
  ids, log_p = scored(Beam(20), 20, max_length=1)
  real = np.asarray(decode.is_target(log_p))
  np.testing.assert_array_equal(real, [[True] * V + [False] * (20 - V)] * B)
  for row in ids[:, :V, 0]:
    assert set(row.tolist()) == set(range(V))
  np.testing.assert_allclose(np.exp(log_p[:, :V]).sum(axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize(
  "strategy, count",
  [(Greedy(), 1), (Sample(1.7, top_k=4), 6), (Sample(top_p=0.8), 1)],
  ids=str,
)
def test_a_targets_log_probability_is_the_networks_own(strategy, count):
  """Whatever the temperature: as enumerated, and the likeliest stands first."""
  ids, log_p = scored(strategy, count)
  want = [
    [all_of_two_places()[tuple(until_the_end(row))][at] for row in ids[at]]
    for at in range(B)
  ]
  np.testing.assert_allclose(log_p, want, rtol=1e-4, atol=1e-5)
  assert (np.diff(log_p, axis=1) <= 0).all()


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_scores_change_no_target(strategy):
  np.testing.assert_array_equal(scored(strategy, 1, L)[0][:, 0], run(strategy))


def test_more_samples_begin_with_the_fewer():
  one, three = scored(Sample(), 1)[0], scored(Sample(), 3)[0]
  for at in range(B):
    assert one[at, 0].tolist() in three[at].tolist()
  assert len({row.tobytes() for row in three[0]}) > 1


def test_an_example_draws_by_its_number_and_not_by_its_batch():
  whole = run(Sample())
  write = decoder(PLAIN, Sample(), L)
  for begin in range(0, B, 2):
    part = write(params(), INPUTS[begin : begin + 2], jax.random.key(0), begin)
    np.testing.assert_array_equal(part, whole[begin : begin + 2])


@pytest.mark.parametrize(
  "strategy, count, message",
  [
    (Greedy(), 2, "DECODING is Greedy, which has one. Set .*Beam"),
    (decode.Rank(), 2, "DECODING is Rank, .* gives every label's prob"),
    (Beam(4), 5, "there are beams, 4. Set decode.Beam.num_beams to 5"),
    (Sample(), 0, "NUM_DECODES.* at least 1, got 0"),
    (Sample(), True, "NUM_DECODES.* at least 1, got True"),
  ],
  ids=str,
)
def test_more_targets_than_there_are_is_refused(strategy, count, message):
  with pytest.raises(ValueError, match=message):
    decode.check_count(strategy, count)


# Ranking.


def test_a_labels_score_is_the_sum_of_its_tokens_log_probabilities():
  labels = tiny_t5.ids(
    [5, EOS, 0, 0, 0], [6, 7, EOS, 0, 0], [8, 8, 9, 3, EOS], [EOS, 0, 0, 0, 0]
  )
  have = decode.make_ranker(PLAIN)(params(), INPUTS, labels)
  assert have.shape == (B, 4)
  for at, label in itertools.product(range(B), range(4)):
    tokens = until_the_end(labels[label])
    want = sum(
      next_log_p(at, tuple(tokens[:place]))[token]
      for place, token in enumerate(tokens)
    )
    np.testing.assert_allclose(have[at, label], want, rtol=1e-4)


def test_the_ranks_of_mixed_prompts_are_those_of_each_alone():
  bank = tiny_t5.rows(2, 2, 16)
  labels = tiny_t5.ids([5, EOS], [6, EOS])
  which = np.arange(B, dtype=np.int32) % 2
  mixed = decode.make_ranker(tiny_t5.prompted(CONFIG, 2, 2))(
    params(bank), tiny_t5.reserved(INPUTS, which, 2), labels
  )
  rank = decode.make_ranker(tiny_t5.prompted(CONFIG, 2))
  for n in range(2):
    alone = rank(params(bank[n]), tiny_t5.reserved(INPUTS, [0] * B, 2), labels)
    np.testing.assert_allclose(mixed[which == n], alone[which == n], rtol=1e-5)
