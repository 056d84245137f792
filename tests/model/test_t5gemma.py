"""T5Gemma: the claims that hold without another implementation.

Its numbers against transformers' are in tests/frozen/test_families.py.
"""

import dataclasses
import functools
from typing import Any

from flax.linen import partitioning
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import decode, forms, inject, t5
from prompt_tuning.model.t5gemma import Stack, T5GemmaConfig
from prompt_tuning.model.t5gemma.config import FULL, SLIDING
from prompt_tuning.model.t5gemma.grouped import capped, rotated
from prompt_tuning.prompts.inner import tensors
from prompt_tuning.prompts.prompt import Prompt
from prompt_tuning.prompts.prompted import Prompted

# Encoder and decoder differ in all sizes; windows are shorter than inputs.
CONFIG = T5GemmaConfig(
  60,
  Stack(16, 4, 2, 6, 24, 3, attention_cap=2.0, window=3),
  Stack(12, 2, 1, 4, 20, 2, attention_cap=2.0, window=3),
  logits_cap=5.0,
)
TEXT = tiny_t5.tokens(3, 9)
TEXT[1, 5:] = 0
TARGETS = tiny_t5.tokens(3, 6, seed=1)


@functools.cache
def params(config=CONFIG, *, is_stacked=False):
  tree = tiny_t5.weights(config)
  return forms.stacked(tree) if is_stacked else tree


def logits(network, tree, tokens=TEXT, targets=TARGETS, **more):
  before = t5.history(jnp.asarray(targets))
  return np.asarray(
    jax.jit(network.apply)({"params": tree}, tokens, before, **more)
  )


# The parts.


def test_a_rotation_tells_only_how_far_two_places_are_apart():
  query, key = (tiny_t5.rows(1, 5, 2, 8, seed=i) for i in range(2))

  def scores(first):
    turned = [rotated(x, np.array([first]), 100.0) for x in (query, key)]
    return jnp.einsum("bqhd,bshd->bhqs", *turned)

  np.testing.assert_allclose(scores(0), scores(37), atol=1e-4)
  same = rotated(query, np.array([0]), 100.0)[:, 0]
  np.testing.assert_allclose(same, query[:, 0], atol=1e-6)  # place 0 stays


def test_a_cap_bends_what_is_large_and_keeps_what_is_small():
  x = jnp.array([0.01, 1.0, 1000.0, -1000.0])
  np.testing.assert_allclose(
    capped(x, 5.0), [0.01, 5 * np.tanh(0.2), 5, -5], rtol=1e-5
  )
  assert capped(x, None) is x


def test_a_sliding_layer_sees_near_places_alone():
  """To both sides in the encoder, behind itself in the decoder."""
  near = (SLIDING,)
  one = dataclasses.replace(
    CONFIG,
    encoder=dataclasses.replace(
      CONFIG.encoder, num_layers=1, layer_types=near, window=2
    ),
  )
  network, tree = t5.T5(one), params(one)
  encode = functools.partial(
    jax.jit(functools.partial(network.apply, method="encode")),
    {"params": tree},
  )
  text = TEXT[:1]
  other = text.copy()
  other[:, 4] = 7
  moved = np.abs(encode(text) - encode(other)).max(axis=(0, 2)) > 1e-6
  assert moved.tolist() == [2 <= i <= 6 for i in range(9)]


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"num_kv_heads": 3}, "num_heads=4 cannot share num_kv_heads=3"),
    ({"head_dim": 5}, "head_dim=5 must be even"),
    ({"layer_types": (FULL,)}, "for each of num_layers=3"),
    ({"layer_types": ("near",) * 3}, "must name 'sliding_attention' or"),
    ({"mlp_activations": ("cosine",)}, "'cosine'; known are"),
  ],
  ids=str,
)
def test_a_shape_that_cannot_be_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG.encoder, **changes)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"dtype": "float16"}, "ACTIVATION_DTYPE"),
    ({"start_id": 60}, "start_id=60 is none of vocab_size=60"),
  ],
)
def test_a_network_that_cannot_be_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **changes)


# The same however it is computed.


def test_stacked_layers_and_layers_computed_again_say_the_same():
  want = logits(t5.T5(CONFIG), params())
  bound = 2e-5 * np.abs(want).max()
  for remat in (False, True):
    network = t5.T5(CONFIG, remat=remat)
    for is_stacked in (False, True):
      found = logits(network, params(is_stacked=is_stacked))
      np.testing.assert_allclose(found, want, atol=bound)


@pytest.mark.parametrize("is_stacked", [False, True])
def test_place_by_place_it_says_what_it_says_at_once(is_stacked):
  network, tree = t5.T5(CONFIG), params(is_stacked=is_stacked)
  variables = {"params": tree}
  source = tiny_t5.jitted(network, "read")(variables, TEXT)
  source = tiny_t5.jitted(network, "remembered")(variables, source)
  write = functools.partial(
    network.apply, cache_length=6, mutable=["cache"], method="write"
  )
  before = t5.history(jnp.asarray(TARGETS))
  _, cache = jax.eval_shape(write, variables, source, before)
  cache = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), cache)
  said, step = [], jax.jit(write)
  for i in range(6):
    found, cache = step({**variables, **cache}, source, before[:, i : i + 1])
    said.append(found)
  want = logits(network, tree)
  np.testing.assert_allclose(jnp.concatenate(said, 1), want, atol=2e-5)


def test_padding_in_front_and_behind_changes_nothing():
  """A rotation tells distances alone, so a shorter prompt may have it."""
  network = t5.T5(CONFIG)
  want = logits(network, params())
  front, behind = ((0, 0), (2, 0)), ((0, 0), (0, 3))
  for where in (front, behind):
    found = logits(network, params(), np.pad(TEXT, where))
    np.testing.assert_allclose(found, want, atol=1e-4)  # of other angles


def test_packed_rows_say_what_their_examples_say_alone():
  network = t5.T5(CONFIG)
  inputs = np.concatenate([TEXT[:1], TEXT[2:]], axis=1)
  targets = np.concatenate([TARGETS[:1], TARGETS[2:]], axis=1)
  own, theirs = (
    np.repeat([[1, 2]], x.shape[1] // 2, axis=1).astype(np.int32)
    for x in (inputs, targets)
  )
  before = t5.history(jnp.asarray(targets), jnp.asarray(theirs))
  packed = jax.jit(network.apply)(
    {"params": params()},
    inputs,
    before,
    encoder_segment_ids=own,
    decoder_segment_ids=theirs,
  )
  want = logits(network, params())
  np.testing.assert_allclose(packed[0, :6], want[0], atol=2e-5)
  np.testing.assert_allclose(packed[0, 6:], want[2], atol=2e-5)


def test_it_starts_from_its_own_id_and_reads_no_padding_as_one():
  """PAD in front of a target is read as `start_id`."""
  other = dataclasses.replace(CONFIG, start_id=0)
  tree = params()
  table = tree["target_embedder"]["embedding"].copy()
  table[0] = table[2]
  moved = {**tree, "target_embedder": {"embedding": table}}
  one, two = (
    logits(t5.T5(config), moved)[..., 3:] for config in (CONFIG, other)
  )
  np.testing.assert_array_equal(one, two)
  assert np.abs(logits(t5.T5(other), tree)[..., 3:] - one).max() > 1e-3


# Prompts.


def test_a_bank_of_all_kinds_answers_as_each_prompt_alone():
  """Rows, deep rows, vectors and rows of the decoder, cached and at once."""
  rng = np.random.default_rng(0)

  def drawn(*shape, around=0.0):
    return (around + rng.normal(0, 0.3, shape)).astype(np.float32)

  vectors = tensors.vector_shapes(CONFIG)
  assert vectors["encoder_keys"] == (3, 12)  # of the keys, not of the heads
  assert vectors["decoder_cross_keys"] == (2, 4)
  prompts = [
    {"embedding": drawn(2, 16)},
    {
      "embedding": drawn(3, 16),
      "deep": drawn(2, 3, 16),
      "keep": drawn(2, around=1),
    },
    {k: drawn(*shape, around=1.0) for k, shape in vectors.items()},
    {"decoder_embedding": drawn(2, 12)},
  ]

  def answers(chosen, number):
    module, tree = tensors.bank(chosen, CONFIG)
    network = t5.T5(CONFIG, prompt=module)
    whole = {**params(), "prompt": tree}
    together = Prompted(
      network,
      whole,
      tiny_t5.vocabulary(),
      tensors.lengths_of(chosen),
      (inject.IN_FRONT,) * len(chosen),
    )
    tokens = together.reserve(TEXT, np.full(len(TEXT), number, np.int32))
    run = decode.make_scored_decoder(network, decode.Greedy(), 4)
    return run(whole, tokens, jax.random.key(0))

  plain = decode.make_scored_decoder(t5.T5(CONFIG), decode.Greedy(), 4)
  before = plain(params(), TEXT, jax.random.key(0))
  for number, one in enumerate(prompts):
    ids, scores = answers(prompts, number)
    alone, own = answers([one], 0)
    np.testing.assert_array_equal(ids, alone)
    np.testing.assert_allclose(scores, own, atol=1e-4)
    assert np.abs(scores - before[1]).max() > 1e-3  # and it does something


def test_vectors_multiply_keys_and_values_as_their_matrices_would():
  """Keys before they turn: as if the kernels had been multiplied."""
  vectors = {
    name: np.random.default_rng(i).uniform(0.5, 1.5, shape).astype(np.float32)
    for i, (name, shape) in enumerate(tensors.vector_shapes(CONFIG).items())
  }
  module, tree = tensors.bank([vectors], CONFIG)
  found = logits(t5.T5(CONFIG, prompt=module), {**params(), "prompt": tree})
  flat = dict(storage.flatten(params()))
  places = {
    "encoder_keys": "attention/key",
    "encoder_values": "attention/value",
    "decoder_keys": "self_attention/key",
    "decoder_values": "self_attention/value",
    "decoder_cross_keys": "encoder_decoder_attention/key",
    "decoder_cross_values": "encoder_decoder_attention/value",
  }
  for name, vector in vectors.items():
    stack = name.split("_")[0]
    for i, own in enumerate(vector):
      layer = f"{stack}/layers_{i}"
      if name in places:
        flat[f"{layer}/{places[name]}/kernel"] *= own
      else:
        flat[f"{layer}/mlp/wi_1/kernel"] *= own
  want = logits(t5.T5(CONFIG), storage.unflatten(flat))
  np.testing.assert_allclose(found, want, atol=5e-5)


def test_every_parameter_has_its_logical_axes():
  token = jnp.ones((1, 1), jnp.int32)
  made = jax.eval_shape(t5.T5(CONFIG).init, jax.random.key(0), token, token)
  names = storage.flatten(partitioning.get_axis_names(made["params_axes"]))
  leaves = storage.flatten(made["params"])
  assert names.keys() == leaves.keys()
  assert all(len(names[path]) == leaf.ndim for path, leaf in leaves.items())
  key = "decoder/layers_0/encoder_decoder_attention/key/kernel"
  assert tuple(names[key]) == ("embed", "joined_kv")


def test_a_gradient_reaches_every_row_of_a_prompt():
  network = t5.T5(CONFIG, prompt=Prompt(2, 16))
  tokens = tiny_t5.reserved(TEXT, [0, 0, 0], 2)

  @jax.jit
  @jax.grad
  def gradient(rows):
    tree = {**params(), "prompt": {"embedding": rows}}
    said: Any = network.apply({"params": tree}, tokens, TARGETS)
    return said.std()

  found = gradient(jnp.asarray(tiny_t5.rows(2, 16)))
  assert (np.abs(found).max(axis=1) > 1e-5).all()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_integers_say_nearly_the_same(dtype):
  """Both tables and every kernel are held as integers, and none is floats."""
  held = {
    name: part
    for path, leaf in storage.flatten(params()).items()
    for name, part in forms.quantized.parts(path, leaf, dtype).items()
  }
  assert {f"{name}_embedder/embedding_int8" for name in ("token", "target")} < {
    *held
  }
  assert not [name for name in held if name.endswith(("/kernel", "/embedding"))]
  found = logits(t5.T5(CONFIG), storage.unflatten(held))
  want = logits(t5.T5(CONFIG), params())
  close = np.corrcoef(found.ravel(), want.ravel())[0, 1]
  assert close > (0.99 if dtype == "int8" else 0.9)
