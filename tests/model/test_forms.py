"""The same network computed in other forms of its frozen parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import decode, forms, freeze, t5
from prompt_tuning.prompts import prompt
from prompt_tuning.training import optimizers, step

CONFIG = tiny_t5.config(num_encoder_layers=2, num_decoder_layers=2)
PER_LAYER = tiny_t5.config(num_encoder_layers=2, relpos_per_layer=True)
INPUTS = np.array([[5, 9, 4, 1, 0, 0], [7, 3, 8, 6, 2, 1]], np.int32)
TARGETS = np.array([[6, 4, 1, 0], [9, 1, 0, 0]], np.int32)


def copied(params):
  """The tree, so that `stacked` may empty it."""
  return jax.tree.map(lambda leaf: leaf, params)


def test_the_layers_of_a_stack_are_one_tensor_in_their_order():
  params = {
    "encoder": {
      f"layers_{i}": {"mlp": {"wo": {"kernel": jnp.full((2, 3), float(i))}}}
      for i in range(11)  # 10 comes behind 9, and not behind 1
    },
    "token_embedder": {"embedding": jnp.ones((4, 3))},
  }
  made = forms.stacked(copied(params))
  kernel = made["encoder"]["layers"]["mlp"]["wo"]["kernel"]
  assert kernel.shape == (11, 2, 3)
  assert kernel[:, 0, 0].tolist() == list(range(11))
  assert forms.is_stacked(made) and not forms.is_stacked(params)
  before, after = map(storage.flatten, (params, forms.apart(made)))
  assert before.keys() == after.keys()
  assert all((before[path] == after[path]).all() for path in before)


def test_a_stack_of_layers_in_several_types_rounds_none():
  layers = [jnp.ones(3, jnp.bfloat16), jnp.full(3, 1.001, jnp.float32)]
  params = {f"layers_{i}": {"scale": leaf} for i, leaf in enumerate(layers)}
  assert (
    forms.apart(forms.stacked(params))["layers_1"]["scale"][0] == layers[1][0]
  )


def test_what_stacks_are_made_of_is_let_go():
  params = copied(tiny_t5.weights(CONFIG))
  forms.stacked(params)
  assert params == {}


def test_stacks_of_bfloat16_are_bits_on_a_cpu_and_come_apart_again():
  params = jax.tree.map(
    lambda leaf: leaf.astype(jnp.bfloat16), tiny_t5.weights(CONFIG)
  )
  made = forms.stacked(copied(params))
  own = made["encoder"]["layers"]["mlp"]["wo"]["kernel"]
  assert own.dtype == jnp.uint16
  assert made["token_embedder"]["embedding"].dtype == jnp.bfloat16
  before, after = map(storage.flatten, (params, forms.apart(made)))
  assert all((before[path] == after[path]).all() for path in before)
  plain, stacked = (
    logits_and_gradient(CONFIG, tree)
    for tree in (params, forms.stacked(copied(params)))
  )
  for one, two in zip(plain, stacked, strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  "remat", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_step_holds_no_converted_copy_of_a_stack(remat):
  config = tiny_t5.config(num_encoder_layers=24, emb_dim=64, mlp_dim=256)
  params = jax.tree.map(
    lambda leaf: leaf.astype(jnp.bfloat16), tiny_t5.weights(config)
  )
  params = forms.stacked(params)
  network = t5.T5(config, remat=remat)

  def loss(table):
    own = {**params, "token_embedder": {"embedding": table}}
    return network.apply({"params": own}, INPUTS, TARGETS).sum()

  table = params["token_embedder"]["embedding"].astype(jnp.float32)
  compiled = jax.jit(jax.grad(loss)).lower(table).compile()
  encoder = params["encoder"]["layers"]
  converted = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(encoder))
  assert compiled.memory_analysis().temp_size_in_bytes < converted / 2


def logits_and_gradient(config, params, *, remat=False):
  """Logits, loss and the gradient of the prompt, with both kinds of state."""
  module = prompt.Prompt(3, config.emb_dim, 1)
  network = t5.T5(config, prompt=module, remat=remat)
  params = {**params, prompt.NAME: module.first_parameters(rows(config))}
  trained, frozen = freeze.split(params, freeze.mask(params, freeze.PROMPT))
  placeholders = (1 << 30) + np.arange(3, dtype=np.int32)
  inputs = np.concatenate([np.tile(placeholders, (2, 1)), INPUTS], axis=1)
  batch = {
    "inputs": inputs,
    "targets": TARGETS,
    "prompt_id": np.zeros(2, np.int32),
  }
  problem = step.Problem(network, optimizers.per_prompt(optimizers.adafactor()))
  made = step._make_gradient(problem)
  gradient, metrics = jax.jit(made)(trained, frozen, batch, ())
  logits = jax.jit(network.apply)(
    {"params": params}, inputs, t5.shift_right(TARGETS)
  )
  return logits, metrics["loss"], gradient[prompt.NAME]["embedding"]


@functools.cache
def of_loops(config):
  """Those of layers one after the other."""
  return logits_and_gradient(config, tiny_t5.weights(config))


def rows(config):
  """A bank of one prompt."""
  return tiny_t5.rows(3, config.emb_dim)[None]


@pytest.mark.parametrize(
  "is_stacked, remat",
  [
    (False, True),
    pytest.param(True, False, marks=pytest.mark.slow),
    (True, True),
  ],
)
@pytest.mark.parametrize(
  "config",
  [CONFIG, PER_LAYER, tiny_t5.config(dropout_rate=0.5)],
  ids=["shared", "per layer", "dropout"],
)
def test_logits_and_the_gradient_of_the_prompt_stay(config, is_stacked, remat):
  """Dropout is drawn otherwise for stacked layers, so only its mean stays."""
  params = tiny_t5.weights(config)
  plain = of_loops(config)
  if is_stacked:
    params = forms.stacked(copied(params))
  other = logits_and_gradient(config, params, remat=remat)
  if is_stacked and config.dropout_rate:
    plain, other = plain[:1], other[:1]  # logits of no dropout
  for one, two in zip(plain, other, strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  "strategy",
  [decode.Greedy(), decode.Beam(3), decode.Sample(top_k=5)],
  ids=lambda strategy: type(strategy).__name__,
)
@pytest.mark.parametrize(
  "config",
  [
    pytest.param(CONFIG, id="shared", marks=pytest.mark.slow),
    pytest.param(PER_LAYER, id="own"),
  ],
)
def test_decoding_writes_the_same(config, strategy):
  params = tiny_t5.weights(config)
  count = 1 if isinstance(strategy, decode.Greedy) else 2
  run = decode.make_scored_decoder(t5.T5(config), strategy, 5, count)
  ids, log_p = run(params, INPUTS, jax.random.key(0))
  same_ids, same_log_p = run(
    forms.stacked(copied(params)), INPUTS, jax.random.key(0)
  )
  assert ids.tolist() == same_ids.tolist()
  np.testing.assert_allclose(log_p, same_log_p, rtol=1e-5, atol=1e-5)


def test_ranking_and_scoring_say_the_same():
  params = tiny_t5.weights(CONFIG)
  network = t5.T5(CONFIG)
  ways = [
    functools.partial(decode.make_ranker(network), labels=TARGETS),
    functools.partial(decode.make_scorer(network), targets=TARGETS),
  ]
  for way in ways:
    one = way(params, INPUTS)
    two = way(forms.stacked(copied(params)), INPUTS)
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def test_a_program_of_stacked_layers_is_no_longer_for_more_of_them():
  def size(layers, is_stacked):
    config = tiny_t5.config(num_encoder_layers=layers)
    params = tiny_t5.weights(config)
    if is_stacked:
      params = forms.stacked(copied(params))
    lowered = jax.jit(t5.T5(config).apply).lower(
      {"params": params}, INPUTS, TARGETS
    )
    return len(lowered.as_text())

  assert size(8, True) < 1.1 * size(2, True)
  assert size(8, False) > 1.5 * size(2, False)
