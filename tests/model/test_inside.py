"""Deep rows, vectors and rows for the decoder, inside the network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning.model import decode, forms, freeze, inject, inside, t5
from prompt_tuning.prompts import prompt, prompted
from prompt_tuning.prompts.inner import deep, tensors

CONFIG = tiny_t5.config(num_encoder_layers=2, num_decoder_layers=2)
P, Q, N, E = 3, 2, 3, 16
TEXT, TARGETS = tiny_t5.tokens(3, 5), tiny_t5.tokens(3, 4, seed=9)
METHODS = {
  "replace": deep.deep("replace"),
  "add": deep.deep("add"),
  "ia3": deep.ia3(),
  "decoder": deep.decoder(Q),
}


def one(kind: str, seed: int, length: int = P, q: int = Q) -> dict:
  """The tensors of a prompt of a kind, all of them drawn."""
  rng = np.random.default_rng(seed)

  def drawn(*shape):
    return np.float32(rng.normal(0, 1, shape))

  shapes = tensors.vector_shapes(CONFIG)
  return {
    "plain": {"embedding": drawn(length, E)},
    "replace": {
      "embedding": drawn(length, E),
      "deep": drawn(1, length, E),
      "keep": np.zeros(1, np.float32),
    },
    "add": {
      "embedding": drawn(length, E),
      "deep": drawn(1, length, E),
      "keep": np.ones(1, np.float32),
    },
    "ia3": {k: 1 + drawn(*shape) for k, shape in shapes.items()},
    "decoder": {
      "embedding": drawn(length, E),
      "decoder_embedding": drawn(q, E),
    },
  }[kind]


def frozen(stacked: bool = False):
  from prompt_tuning.frozen import pretrained

  params = tiny_t5.weights(CONFIG)
  params = forms.stacked(params) if stacked else params
  return pretrained.FrozenModel(CONFIG, params, tiny_t5.vocabulary(), "x", "y")


def together(*prompts, stacked: bool = False) -> prompted.Prompted:
  return prompted.with_prompts(frozen(stacked), list(prompts))


def logits(
  bank: prompted.Prompted, text=TEXT, prompt_id=(0, 0, 0), targets=TARGETS
):
  """Teacher-forced logits of targets, [B, L, V]."""
  tokens = bank.reserve(text, tiny_t5.ids(*prompt_id))

  def forced(params, tokens, written):
    variables = {"params": params}
    source = bank.network.apply(variables, tokens, method="read")
    if source.before is not None:
      written = jnp.concatenate([source.before, written], axis=1)
    found = bank.network.apply(
      variables, source, t5.history(written), method="write"
    )
    return found[:, -targets.shape[1] :]

  return np.asarray(jax.jit(forced)(bank.params, tokens, targets))


def plain(text=TEXT):
  return logits(together(), text)


@functools.cache
def alone(kind: str, seed: int, length: int = P, q: int = Q):
  return logits(together(one(kind, seed, length, q)))


def test_ia3_of_ones_is_the_plain_model():
  ones = {k: np.ones_like(v) for k, v in one("ia3", 0).items()}
  np.testing.assert_array_equal(logits(together(ones)), plain())


@pytest.mark.parametrize("kind", ["replace", "add", "ia3", "decoder"])
def test_every_kind_counts(kind):
  assert not np.allclose(alone(kind, 0), alone(kind, 1), atol=0.05)


def test_rows_that_the_layers_computed_leave_the_output_as_it_was():
  rows = tiny_t5.rows(P, E)
  text = np.repeat(TEXT[:1], 3, axis=0)
  bank = together({"embedding": rows})
  tokens = bank.reserve(text, tiny_t5.ids(0, 0, 0))
  capture = functools.partial(
    bank.network.apply,
    method="read",
    capture_intermediates=lambda module, _: module.name == "layers_0",
  )
  _, seen = jax.jit(capture)({"params": bank.params}, tokens)
  (first,) = seen["intermediates"]["encoder"]["layers_0"]["__call__"]
  same = {
    "embedding": rows,
    "deep": np.asarray(first[:1, :P]),
    "keep": np.zeros(1, np.float32),
  }
  np.testing.assert_allclose(
    logits(together(same), text), logits(bank, text), rtol=1e-6, atol=1e-6
  )
  added = {**same, "deep": 0 * same["deep"], "keep": np.ones(1, np.float32)}
  np.testing.assert_array_equal(
    logits(together(added), text), logits(bank, text)
  )


MIXED = [
  one("plain", 0),
  one("ia3", 1),
  one("decoder", 2, 2, 1),
  one("replace", 3, 2),
  one("decoder", 4),
  one("add", 5),
]


@pytest.mark.parametrize(
  "stacked", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_batch_mixes_prompts_of_all_kinds_and_lengths(stacked):
  bank = together(*MIXED, stacked=stacked)
  assert bank.lengths == (3, 0, 2, 2, 3, 3) and bank.places == 3
  kinds = ["plain", "ia3", "decoder", "replace", "decoder", "add"]
  for ids in ((0, 1, 2), (5, 4, 3)):
    mixed = logits(bank, prompt_id=ids)
    for row, n in enumerate(ids):
      lengths = (2, 1) if n == 2 else (2,) if n == 3 else ()
      np.testing.assert_allclose(
        mixed[row], alone(kinds[n], n, *lengths)[row], rtol=2e-5, atol=2e-5
      )


@pytest.mark.parametrize(
  "stacked", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_cached_decoding_says_what_teacher_forcing_says(stacked):
  bank = together(*MIXED, stacked=stacked)
  ids = tiny_t5.ids(1, 2, 4)
  tokens = bank.reserve(TEXT, ids)
  for strategy in (decode.Greedy(), decode.Beam(2)):
    decoder = decode.make_scored_decoder(bank.network, strategy, 5)
    written, nats = decoder(bank.params, tokens, jax.random.key(0))
    written = written[:, 0]
    forced = jax.nn.log_softmax(logits(bank, prompt_id=ids, targets=written))
    own = np.take_along_axis(np.asarray(forced), written[..., None], 2)[..., 0]
    behind = np.cumsum(written == 1, axis=1) - (written == 1) > 0
    own = np.where(behind, 0, own).sum(axis=1)
    np.testing.assert_allclose(nats[:, 0], own, rtol=1e-5, atol=1e-5)


def test_ranking_gives_what_scoring_gives():
  bank = together(*MIXED)
  tokens = bank.reserve(TEXT, tiny_t5.ids(1, 2, 4))
  labels = tiny_t5.ids([5, 6, 1], [7, 1, 0])
  ranked = decode.make_ranker(bank.network)(bank.params, tokens, labels)
  score = decode.make_scorer(bank.network)
  for c, label in enumerate(labels):
    nats = score(bank.params, tokens, np.tile(label, (3, 1)))
    np.testing.assert_allclose(ranked[:, c], nats, rtol=1e-6, atol=1e-6)


# By hand.


def test_a_deep_row_replaces_or_is_added_at_its_places():
  x = jnp.asarray(tiny_t5.rows(1, 4, 2))
  first = inject.PLACEHOLDER
  tokens = tiny_t5.ids([first + 2, 7, first + 1, 0])
  rows = jnp.asarray([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
  own = {"deep": rows, "keep": jnp.asarray([0.0, 1.0])}
  found = inside.OfStack({}, tokens).enter(x, own)[0]
  expected = [x[0, 0] + rows[1, 0], x[0, 1], rows[0, 1], x[0, 3]]
  np.testing.assert_array_equal(found, jnp.stack(expected))


def test_vectors_multiply_keys_values_and_hidden():
  from prompt_tuning.model import attention, layers

  vectors = {
    "keys": np.float32(1 + tiny_t5.rows(2, 1, 16)),
    "values": np.float32(1 + tiny_t5.rows(2, 1, 16, seed=1)),
    "hidden": np.float32(1 + tiny_t5.rows(2, 1, 32, seed=2)),
  }
  weights = tiny_t5.weights(CONFIG)["encoder"]["layers_0"]
  x = tiny_t5.rows(2, 4, E, seed=3)
  bias = np.zeros((1, 1, 4, 4), np.float32)
  part = attention.Attention(CONFIG)
  found = part.apply({"params": weights["attention"]}, x, x, bias, vectors)
  w = {k: v["kernel"] for k, v in weights["attention"].items()}
  query, key, value = (x @ w[name] for name in ("query", "key", "value"))
  key, value = key * vectors["keys"], value * vectors["values"]
  heads = [each.reshape(2, 4, 2, 8) for each in (query, key, value)]
  scores = np.exp(np.einsum("bqhd,bkhd->bhqk", *heads[:2]))
  scores /= scores.sum(-1, keepdims=True)
  mixed = np.einsum("bhqk,bkhd->bqhd", scores, heads[2]).reshape(2, 4, 16)
  np.testing.assert_allclose(found, mixed @ w["out"], rtol=1e-4, atol=1e-5)

  part = layers.Mlp(CONFIG)
  found = part.apply({"params": weights["mlp"]}, x, vectors)
  w = {k: v["kernel"] for k, v in weights["mlp"].items()}
  hidden = np.asarray(layers.ACTIVATIONS["gelu"](x @ w["wi_0"])) * (
    x @ w["wi_1"]
  )
  np.testing.assert_allclose(
    found, (hidden * vectors["hidden"]) @ w["wo"], rtol=1e-4, atol=1e-5
  )


def test_the_decoder_sees_its_rows_as_words_of_its_own():
  """Rows that are embeddings of words are those words in front of id 0."""
  words = tiny_t5.tokens(1, Q, seed=4)[0]
  table = tiny_t5.weights(CONFIG)["token_embedder"]["embedding"]
  found = logits(together({"decoder_embedding": table[words]}))
  typed = np.concatenate(
    [np.tile(words, (3, 1)), np.zeros((3, 1), np.int32), TARGETS[:, :-1]], 1
  )
  params = tiny_t5.weights(CONFIG)
  expected = tiny_t5.jitted(t5.T5(CONFIG))({"params": params}, TEXT, typed)
  np.testing.assert_allclose(found, expected[:, Q:], rtol=1e-5, atol=1e-5)


def test_the_history_of_targets_begins_behind_the_places():
  place = inject.PLACEHOLDER
  targets = tiny_t5.ids(
    [place, place + 1, 5, 1, place + 2, place + 3, 6, 1, 0],
    [5, 6, 1, 7, 1, 0, 0, 0, 0],
    [-1, place, 5, 1, -1, -1, 6, 1, 0],
  )
  segments = tiny_t5.ids(
    [1, 1, 1, 1, 2, 2, 2, 2, 0],
    [1, 1, 1, 2, 2, 0, 0, 0, 0],
    [1, 1, 1, 1, 2, 2, 2, 2, 0],
  )
  np.testing.assert_array_equal(
    t5.history(targets, segments),
    [
      [place, place + 1, 0, 5, place + 2, place + 3, 0, 6, 0],
      [0, 5, 6, 0, 7, 0, 0, 0, 0],
      [-1, place, 0, 5, -1, -1, 0, 6, 0],
    ],
  )


def test_the_last_mark_says_which_prompt_a_place_is_of():
  tokens = tiny_t5.ids([-3, 5, 6, -1, 7, -2, 0, 0])
  np.testing.assert_array_equal(inside.marked(tokens), [[2]])
  segments = tiny_t5.ids([1, 1, 1, 2, 2, 3, 0, 0])
  prompt_id = inside.marked(tokens, segments)
  np.testing.assert_array_equal(prompt_id, [[2, 2, 2, 0, 0, 1, 1, 1]])
  own = tiny_t5.ids([1, 2, 2, 3])
  np.testing.assert_array_equal(
    inside.of_targets(prompt_id, (own, segments)), [[2, 0, 0, 1]]
  )


# Packed rows and gradients.


@functools.cache
def trainable(name: str) -> prompted.Prompted:
  """A bank of N with parameters that are drawn."""
  module = prompt.for_network(METHODS[name](P, E, N), CONFIG)
  num_rows = getattr(module, "num_rows", P)
  first = module.first_parameters(tiny_t5.rows(N, num_rows, E))
  rng = np.random.default_rng(1)
  first = {
    k: np.float32(v + 0.3 * rng.normal(size=np.shape(v)))
    for k, v in first.items()
  }
  return prompted.with_module(frozen(), module, first)


def problem(bank: prompted.Prompted, packed: bool):
  """The loss of each prompt, and its gradient by the prompts' parameters."""
  from prompt_tuning.data import layout
  from prompt_tuning.training import optimizers, step

  ids = tiny_t5.ids(2, 0, 1)
  inputs = np.array(TEXT)
  inputs[1, 3:] = 0
  targets = np.array(TARGETS)
  targets[2, 2:] = 0
  batch = {
    "inputs": inject.reserve(inputs, ids, bank.places),
    "targets": targets,
    "prompt_id": ids,
  }
  arranged = layout.Layout("packed" if packed else "padded").arrange(
    lambda _: bank.framed(batch), num_prompts=N, emb_dim=E
  )(0)
  whole = step.Problem(bank.network, optimizers.adafactor(), num_prompts=N)
  mask = freeze.mask(bank.params, freeze.PROMPT)
  trained, rest = freeze.split(bank.params, mask)
  gradient_of = jax.jit(step._make_gradient(whole))
  parts = [arranged] if isinstance(arranged, dict) else arranged
  found = [gradient_of(trained, rest, part, (0,)) for part in parts]
  return jax.tree.map(lambda *each: sum(each), *found)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("add", "ia3")))
    for name in METHODS
  ],
)
def test_packed_rows_have_the_loss_and_the_gradient_of_padded_ones(name):
  bank = trainable(name)
  padded, packed = (problem(bank, is_packed) for is_packed in (False, True))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
    *(packed, padded),
  )
  gradients = jax.tree.leaves(padded[0])
  assert all(
    np.any(np.asarray(leaf)[n]) for leaf in gradients for n in range(N)
  )


def encoded(prompt: dict, sights, text) -> np.ndarray:
  """The encoder's output of one example, its prompt behind it."""
  placing = inject.Placing("after_end", sights)
  bank = prompted.with_prompts(frozen(), [prompt], [placing])
  tokens = bank.reserve(text, tiny_t5.ids(0))
  source = jax.jit(
    lambda params, tokens: bank.network.apply(
      {"params": params}, tokens, method="read"
    )
  )(bank.params, tokens)
  return np.asarray(source.encoded[0])


@pytest.mark.parametrize("kind", ["replace", "add"])
def test_deep_rows_see_what_their_prompt_may_attend_to(kind):
  """Of every layer: the prompt's places come last, the text in front."""
  prompt, text = one(kind, 0), TEXT[:1]
  other = text[:, ::-1]
  last = {**prompt, "deep": prompt["deep"].copy()}
  last["deep"][:, -1] += 1

  def moved(sights, prompt=prompt, text=text):
    before = encoded(one(kind, 0), sights, TEXT[:1])
    return np.abs(encoded(prompt, sights, text) - before).max(axis=1) > 1e-4

  blind = ("prompt_to_prompt",)
  assert not moved(blind, text=other)[-P:].any()
  assert moved(("prompt_to_prompt", "prompt_to_input"), text=other)[-P:].all()
  assert moved(blind, prompt=last).all()
  causal = moved(("prompt_to_prompt_causal",), prompt=last)
  assert causal.tolist() == [True] * text.shape[1] + [False] * (P - 1) + [True]


def test_deep_prompts_of_other_places_and_sights_share_a_batch():
  prompts = [one("add", 0), one("plain", 1), one("replace", 2)]
  placings = [
    inject.Placing("after_end", ("prompt_to_prompt",)),
    inject.Placing("after_first"),
    inject.Placing("front", ("prompt_to_prompt_causal", "prompt_to_input")),
  ]
  bank = prompted.with_prompts(frozen(), prompts, placings)
  mixed = logits(bank, prompt_id=(2, 0, 1))
  for n, k in enumerate((2, 0, 1)):
    single = prompted.with_prompts(frozen(), [prompts[k]], [placings[k]])
    np.testing.assert_allclose(
      mixed[n], logits(single)[n], rtol=1e-4, atol=1e-4
    )
    in_front = logits(together(prompts[k]))[n]
    assert np.abs(mixed[n] - in_front).max() > 1e-2
