"""Our T5 and t5x's on the same parameters.

`golden/t5x_network.npz` is what t5x's own network made of these cases, so the
comparison needs no t5x (see `golden/make_t5x_network.py`).
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import places
import pytest
import t5x_peer
import tiny_t5

from prompt_tuning.model import t5

GOLDEN = places.GOLDEN / "t5x_network.npz"
CASES = {
  "t5_1_1": tiny_t5.config(num_encoder_layers=2, num_decoder_layers=2),
  "t5_1_0": tiny_t5.config(
    mlp_activations=("relu",), logits_via_embedding=True
  ),
}
SEGMENTS = {
  "encoder_segment_ids": tiny_t5.ids(
    [1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0]
  ),
  "decoder_segment_ids": tiny_t5.ids([1, 1, 2, 2, 2], [1, 1, 1, 0, 0]),
}


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Tokens of the encoder and the decoder, and targets, with padding."""
  source, targets = tiny_t5.tokens(2, 7), tiny_t5.tokens(2, 5, seed=1)
  source[1, 5:], targets[1, 3:] = 0, 0
  return source, np.asarray(t5.shift_right(targets)), targets


def cached(network, variables) -> np.ndarray:
  """Logits of decoding one token after the other."""
  source, so_far, _ = inputs()
  length = so_far.shape[1]
  static = {"decode": True, "enable_dropout": False, "mutable": ["cache"]}

  @jax.jit
  def begin(variables):
    """The encoded input, and a cache with nothing in it."""
    encoded = network.apply(
      variables, source, enable_dropout=False, method=network.encode
    )
    ones = jnp.ones_like(so_far)
    given = jnp.ones_like(source), ones, ones
    return encoded, network.apply(variables, *given, **static)[1]

  @jax.jit
  def step(state, encoded, token):
    return network.apply(
      {**variables, "cache": state["cache"]},
      *(encoded, source, token, token),
      **static,
      max_decode_length=length,
      method=network.decode,
    )

  encoded, state = begin(variables)
  rows = []
  for at in range(length):
    logits, state = step(state, encoded, so_far[:, at : at + 1])
    rows.append(logits[:, 0])
  return np.stack(rows, 1)


def outputs(network, name: str) -> dict[str, np.ndarray]:
  """What a network says, where the target is no padding."""
  variables = {"params": tiny_t5.weights(CASES[name])}
  real = inputs()[2] > 0
  answer = jax.jit(network.apply, static_argnames="enable_dropout")
  plain = answer(variables, *inputs(), enable_dropout=False)
  packed = answer(variables, *inputs(), **SEGMENTS, enable_dropout=False)
  found = {
    "logits": plain,
    "packed": packed,
    "cached": cached(network, variables),
  }
  return {key: np.asarray(value)[real] for key, value in found.items()}


def check(network, name: str) -> None:
  golden = np.load(GOLDEN)
  for key, value in outputs(network, name).items():
    np.testing.assert_allclose(
      value, golden[f"{name}/{key}"], rtol=0, atol=2e-5, err_msg=key
    )


@pytest.mark.parametrize("name", CASES)
def test_our_network_says_what_t5x_said(name):
  check(t5.T5(CASES[name]), name)


@t5x_peer.needed("golden/t5x_network (test_our_network_says_what_t5x_said)")
@pytest.mark.parametrize("name", CASES)
def test_t5x_still_says_it(name):
  t5x_models = importlib.import_module("prompt_tuning.t5x.t5x_models")
  check(t5x_models.t5x_network(CASES[name]), name)
