"""The prompt in the encoder's input: exact, per example, at any place."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import forms, inject, t5
from prompt_tuning.prompts.prompt import Prompt

CONFIG = tiny_t5.config()
TARGETS = tiny_t5.tokens(2, 4, seed=9)


def logits(network, prompt, inputs, targets=TARGETS, **kwargs):
  params = tiny_t5.weights(network.config, prompt=prompt)
  return np.asarray(
    tiny_t5.jitted(network)({"params": params}, inputs, targets, **kwargs)
  )


def plain(inputs, **kwargs):
  return logits(t5.T5(CONFIG), None, inputs, **kwargs)


def table():
  return tiny_t5.weights(CONFIG)["token_embedder"]["embedding"]


def test_places_stand_in_front_and_name_the_rows_of_their_prompt():
  have = tiny_t5.reserved([[5, 6], [7, 0], [8, 0]], [2, 0, 1], 3)
  first = inject.PLACEHOLDER
  np.testing.assert_array_equal(have[:, 3:], [[5, 6], [7, 0], [8, 0]])
  np.testing.assert_array_equal(
    have[:, :3] - first, [[6, 7, 8], [0, 1, 2], [3, 4, 5]]
  )
  np.testing.assert_array_equal(
    inject.is_placeholder(have), [[True] * 3 + [False] * 2] * 3
  )
  assert have.dtype == np.int32


def test_placeholders_are_above_every_vocabulary_and_fit_int32():
  assert 250112 < inject.PLACEHOLDER
  bank_of_a_million_prompts = tiny_t5.reserved([[5]], [999_999], 100)
  assert bank_of_a_million_prompts[:, :-1].min() >= inject.PLACEHOLDER


def test_a_prompt_of_three_words_embeddings_equals_typing_them():
  words = tiny_t5.tokens(1, 3)[0]
  text = tiny_t5.tokens(2, 5, seed=1)
  text[1, 3:] = 0
  typed = np.concatenate([np.tile(words, (2, 1)), text], axis=1)
  have = logits(
    tiny_t5.prompted(CONFIG, 3),
    table()[words],
    tiny_t5.reserved(text, [0, 0], 3),
  )
  np.testing.assert_array_equal(have, plain(typed))


def test_a_prompt_of_length_0_is_the_plain_model():
  text = tiny_t5.tokens(2, 8)
  same = tiny_t5.reserved(text, [0, 0], 0)
  np.testing.assert_array_equal(same, text)
  have = logits(tiny_t5.prompted(CONFIG, 0), tiny_t5.rows(0, 16), same)
  np.testing.assert_array_equal(have, plain(text))


def test_the_prompt_counts():
  text = tiny_t5.reserved(tiny_t5.tokens(2, 5), [0, 0], 3)
  network = tiny_t5.prompted(CONFIG, 3)
  one, two = (
    logits(network, tiny_t5.rows(3, 16, seed=s), text) for s in (0, 1)
  )
  assert not np.allclose(one, two, atol=0.1)


def test_a_batch_mixes_the_prompts_of_a_bank():
  bank = tiny_t5.rows(3, 3, 16)
  text = tiny_t5.tokens(2, 5)
  mixed = logits(
    tiny_t5.prompted(CONFIG, 3, 3), bank, tiny_t5.reserved(text, [2, 1], 3)
  )
  alone = tiny_t5.prompted(CONFIG, 3)
  for i, which in enumerate((2, 1)):
    one = logits(alone, bank[which], tiny_t5.reserved(text, [0, 0], 3))
    np.testing.assert_array_equal(mixed[i], one[i])


def test_a_shorter_prompt_of_a_bank_gives_what_it_gives_alone():
  short, long = tiny_t5.rows(2, 16), tiny_t5.rows(5, 16, seed=1)
  bank = np.stack([np.pad(short, [(3, 0), (0, 0)], constant_values=9), long])
  text = tiny_t5.tokens(2, 5)
  tokens = inject.reserve(text, tiny_t5.ids(0, 1), 5, tiny_t5.ids(2, 5))
  assert tokens[0, :3].tolist() == [0, 0, 0]
  mixed = logits(tiny_t5.prompted(CONFIG, 5, 2), bank, tokens)
  for i, own in enumerate((short, long)):
    alone = tiny_t5.reserved(text, [0, 0], len(own))
    one = logits(tiny_t5.prompted(CONFIG, len(own)), own, alone)
    np.testing.assert_allclose(mixed[i], one[i], atol=1e-5)


def test_a_prompt_may_stand_anywhere_in_the_text():
  words = tiny_t5.tokens(1, 3)[0]
  text = tiny_t5.tokens(2, 8, seed=1)
  places = text.copy()
  for i, at in enumerate((2, 5)):
    text[i, at : at + 3] = words
    places[i, at : at + 3] = inject.PLACEHOLDER + np.arange(3)
  have = logits(tiny_t5.prompted(CONFIG, 3), table()[words], places)
  np.testing.assert_array_equal(have, plain(text))


def test_packed_segments_bring_their_own_prompts():
  bank = tiny_t5.rows(2, 2, 16)
  text, targets = tiny_t5.tokens(2, 2), tiny_t5.tokens(2, 2, seed=3)
  apart = tiny_t5.reserved(text, [1, 0], 2)
  network = tiny_t5.prompted(CONFIG, 2, 2)
  halves = np.repeat(tiny_t5.ids(1, 2), 2)[None]
  packed = logits(
    network,
    bank,
    apart.reshape(1, 8),
    targets.reshape(1, 4),
    encoder_segment_ids=np.repeat(tiny_t5.ids(1, 2), 4)[None],
    decoder_segment_ids=halves,
  )
  np.testing.assert_allclose(
    packed.reshape(2, 2, -1),
    logits(network, bank, apart, targets),
    atol=1e-5,
  )


def test_padding_behind_a_prompted_input_changes_nothing():
  text = tiny_t5.tokens(2, 5)
  network, prompt = tiny_t5.prompted(CONFIG, 3), tiny_t5.rows(3, 16)
  longer = np.pad(text, ((0, 0), (0, 3)))
  np.testing.assert_allclose(
    logits(network, prompt, tiny_t5.reserved(longer, [0, 0], 3)),
    logits(network, prompt, tiny_t5.reserved(text, [0, 0], 3)),
    atol=1e-5,
  )


def gradient_of(config, prompt_id):
  """A function of all parameters, for two examples of a bank of three."""
  network = tiny_t5.prompted(config, 3, 3)
  inputs = tiny_t5.reserved(tiny_t5.tokens(2, 5), prompt_id, 3)

  def loss(params):
    return (network.apply({"params": params}, inputs, TARGETS) ** 2).sum()

  return jax.grad(loss)


@functools.cache
def gradients():
  """Examples of the prompts 2 and 0."""
  params = tiny_t5.weights(CONFIG, prompt=tiny_t5.rows(3, 3, 16))
  return storage.flatten(jax.jit(gradient_of(CONFIG, [2, 0]))(params))


def test_the_gradient_reaches_the_rows_that_were_used_and_no_other():
  bank = np.asarray(gradients()["prompt/embedding"])
  moved = (bank != 0).all(-1)
  np.testing.assert_array_equal(moved, [[True] * 3, [False] * 3, [True] * 3])
  assert not bank[1].any()


def test_a_placeholder_sends_no_gradient_into_the_embedding_table():
  gradient = np.asarray(gradients()["token_embedder/embedding"])
  read = {*tiny_t5.tokens(2, 5).flat, *TARGETS.flat}
  assert set(np.flatnonzero(gradient.any(-1))) == read


def test_any_embedding_of_tokens_takes_a_prompt():
  module = inject.PromptedEmbedding(nn.Embed(20, 4), Prompt(2, 4))
  inputs = tiny_t5.ids([5, inject.PLACEHOLDER + 1, 6, 0])
  variables = module.init(jax.random.key(0), inputs)
  words = variables["params"]["embed"]["embedding"]
  rows = variables["params"]["prompt"]["embedding"]
  np.testing.assert_array_equal(
    module.apply(variables, inputs)[0],
    jnp.stack([words[5], rows[1], words[6], words[0]]),
  )


def test_a_prompt_stays_float32_under_bfloat16_activations():
  config = tiny_t5.config(dtype="bfloat16")
  network = tiny_t5.prompted(config, 3, 3)
  inputs = tiny_t5.reserved(tiny_t5.tokens(1, 4), [1], 3)
  made = jax.eval_shape(network.init, jax.random.key(0), inputs, TARGETS[:1])
  gradient = jax.eval_shape(gradient_of(config, [2, 0]), made["params"])
  for tree in (made["params"], gradient):
    assert tree["prompt"]["embedding"].dtype == jnp.float32


@pytest.mark.parametrize("prompt_id", [[-1, 0], [0, inject.PLACEHOLDER // 3]])
def test_a_prompt_id_that_has_no_placeholders_is_refused(prompt_id):
  with pytest.raises(ValueError, match="prompt_id runs from"):
    tiny_t5.reserved([[5], [6]], prompt_id, 3)


# Where the places stand.

FIRST = inject.PLACEHOLDER
ROWS = tiny_t5.ids(
  *([5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 7, 6], [1, 0, 0, 0], [0, 0, 0, 0])
)
P0, P1, P2, P3 = (FIRST + i for i in range(4))


@pytest.mark.parametrize(
  "place, expected",
  [
    (
      "front",
      [
        [P0, P1, 5, 6, 1, 0],
        [P2, P3, 7, 1, 0, 0],
        [P0, P1, 8, 9, 7, 6],
        [P2, P3, 1, 0, 0, 0],
        [P0, P1, 0, 0, 0, 0],
      ],
    ),
    (
      "after_first",
      [
        [5, P0, P1, 6, 1, 0],
        [7, P2, P3, 1, 0, 0],
        [8, P0, P1, 9, 7, 6],
        [1, P2, P3, 0, 0, 0],
        [P0, P1, 0, 0, 0, 0],
      ],
    ),
    (
      "before_end",
      [
        [5, 6, P0, P1, 1, 0],
        [7, P2, P3, 1, 0, 0],
        [8, 9, 7, 6, P0, P1],
        [P2, P3, 1, 0, 0, 0],
        [P0, P1, 0, 0, 0, 0],
      ],
    ),
    (
      "after_end",
      [
        [5, 6, 1, P0, P1, 0],
        [7, 1, P2, P3, 0, 0],
        [8, 9, 7, 6, P0, P1],
        [1, P2, P3, 0, 0, 0],
        [P0, P1, 0, 0, 0, 0],
      ],
    ),
  ],
)
def test_a_prompt_stands_where_its_place_is(place, expected):
  ids = tiny_t5.ids(0, 1, 0, 1, 0)
  at = inject.columns(ROWS, [place] * 2, ids)
  assert (at is None) == (place == inject.FRONT)
  found = inject.reserve(ROWS, ids, 2, at=at)
  assert found.dtype == np.int32
  assert found.tolist() == expected


def test_prompts_of_other_places_and_lengths_stand_in_one_batch():
  rows = np.stack([ROWS[0]] * 4)
  ids = tiny_t5.ids(0, 1, 2, 3)
  at = inject.columns(rows, inject.PLACES, ids)
  found = inject.reserve(rows, ids, 3, tiny_t5.ids(3, 2, 1, 2), at=at)
  assert np.where(found > FIRST, found - FIRST, found).tolist() == [
    [FIRST, 1, 2, 5, 6, 1, 0],
    [0, 5, 4, 5, 6, 1, 0],
    [0, 0, 5, 6, 8, 1, 0],
    [0, 5, 6, 1, 10, 11, 0],
  ]


# What prompts attend to.

SEEN = {
  ("prompt_to_prompt",): ["0110", "0110"],
  ("prompt_to_prompt_causal",): ["0100", "0110"],
  ("prompt_to_input",): ["1001", "1001"],
  ("prompt_to_prompt", "prompt_to_prompt_causal"): ["0110", "0110"],
  ("prompt_to_prompt", "prompt_to_input"): ["1111", "1111"],
  ("prompt_to_prompt_causal", "prompt_to_input"): ["1101", "1111"],
  inject.SIGHTS: ["1111", "1111"],
}
"""Of a text [word, prompt, prompt, word], what the prompt attends to."""


@pytest.mark.parametrize("attention", SEEN)
def test_a_prompt_attends_to_what_is_named_and_the_input_to_everything(
  attention,
):
  mask = inject.prompt_mask(2, [inject.Placing(attention=attention[::-1])])
  (found,) = np.asarray(mask(tiny_t5.ids([5, P0, P1, 1])))
  rows = ["".join(map(str, row)) for row in found.astype(int)]
  assert rows == ["1111", *SEEN[attention], "1111"]


def test_no_set_is_no_mask():
  assert inject.prompt_mask(2, [inject.Placing()] * 3) is None


def test_prompts_of_different_sets_attend_in_one_batch_as_alone():
  sets = [None, *SEEN]
  mask = inject.prompt_mask(2, [inject.Placing(attention=s) for s in sets])
  first = FIRST + 2 * np.arange(len(sets), dtype=np.int32)
  tokens = np.stack(
    [[5, place, place + 1, 1] for place in first], dtype=np.int32
  )
  found = np.asarray(mask(tokens))
  assert found[0].all()
  for matrix, attention in zip(found[1:], SEEN, strict=True):
    alone = inject.prompt_mask(2, [inject.Placing(attention=attention)])
    np.testing.assert_array_equal(alone(tiny_t5.ids([5, P0, P1, 1]))[0], matrix)


def encoded(attention, rows, text, params=None, **packed):
  """The encoder's output of a text with the prompt behind its first token."""
  config = tiny_t5.config(num_encoder_layers=2)
  placing = inject.Placing("after_first", attention)
  network = t5.T5(
    config,
    Prompt(len(rows), 16),
    attends=inject.prompt_mask(len(rows), [placing]),
  )
  if params is None:
    params = tiny_t5.weights(config, prompt=rows)
  ids = np.zeros(len(text), np.int32)
  at = inject.columns(text, [placing.place], ids)
  tokens = inject.reserve(text, ids, len(rows), at=at)
  tokens = tokens.reshape(packed.pop("shape", tokens.shape))
  answer = tiny_t5.jitted(network, "encode")
  return np.asarray(answer({"params": params}, tokens, **packed))


TEXT = tiny_t5.tokens(2, 5)
THREE = 2 * tiny_t5.rows(3, 16)


@pytest.mark.parametrize("attention", SEEN)
def test_what_a_prompt_does_not_attend_to_changes_nothing_of_it(attention):
  before = encoded(attention, THREE, TEXT)[:, 1:4]
  other_text = encoded(attention, THREE, tiny_t5.tokens(2, 5, seed=7))[:, 1:4]
  other_row = THREE.copy()
  other_row[1] += 1
  moved = abs(encoded(attention, other_row, TEXT)[:, 1:4] - before).max((0, 2))
  # Of two layers: through the input a prompt sees itself after all.
  through_input = "prompt_to_input" in attention
  assert (abs(other_text - before).max() > 0.01) == through_input
  first = through_input or "prompt_to_prompt" in attention
  assert (moved > 0.01).tolist() == [
    first,
    True,
    first or "causal" in str(attention),
  ]


def test_the_whole_set_is_everything_bit_for_bit():
  whole = encoded(inject.SIGHTS, THREE, TEXT)
  np.testing.assert_array_equal(whole, encoded(None, THREE, TEXT))


def test_stacked_layers_and_packed_rows_have_the_same_mask():
  attention = ("prompt_to_prompt_causal", "prompt_to_input")
  apart = encoded(attention, THREE, TEXT)
  config = tiny_t5.config(num_encoder_layers=2)
  stacked = forms.stacked(tiny_t5.weights(config, prompt=THREE))
  np.testing.assert_allclose(
    encoded(attention, THREE, TEXT, stacked), apart, atol=1e-5
  )
  segments = np.repeat(tiny_t5.ids(1, 2), 8)[None]
  packed = encoded(
    *(attention, THREE, TEXT), shape=(1, 16), encoder_segment_ids=segments
  )
  np.testing.assert_allclose(packed.reshape(apart.shape), apart, atol=1e-5)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"place": "behind_first"}, "PROMPT_PLACE='behind_first'.*after_first"),
    ({"place": "x"}, "PROMPT_PLACE='x' is not known. There are front"),
    (
      {"attention": "prompt_to_inputs"},
      "PROMPT_ATTENTION='prompt_to_inputs'.*Did you mean prompt_to_input",
    ),
    (
      {"attention": ()},
      r"PROMPT_ATTENTION=\(\) lets a prompt attend to nothing",
    ),
  ],
)
def test_a_place_or_set_that_is_not_known_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    inject.Placing(**options)


def test_the_record_says_what_is_not_as_ever():
  assert inject.Placing().record() == {}
  given = inject.Placing("after_end", ["prompt_to_input", "prompt_to_prompt"])
  assert given.record() == {
    "place": "after_end",
    "attention": ["prompt_to_prompt", "prompt_to_input"],
  }
  assert inject.Placing(**given.record()) == given
