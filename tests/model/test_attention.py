"""Attention by one kernel of a GPU says what ours says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning.frozen import pretrained
from prompt_tuning.model import attention, decode, t5

INPUTS = np.array([[5, 9, 4, 1, 0, 0], [7, 3, 8, 6, 2, 1]], np.int32)
TARGETS = np.array([[6, 4, 1, 0], [9, 1, 0, 0]], np.int32)


@pytest.fixture
def on_a_gpu(monkeypatch):
  """The choices of a GPU, computed by XLA on what there is."""
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  calls = []
  real = attention.fused

  def by_xla(*arrays):
    calls.append(arrays[0].shape)
    return real(*arrays, "xla")

  monkeypatch.setattr(attention, "fused", by_xla)
  return calls


@pytest.mark.parametrize("axes", [(2, 1), (1, 3), (2, 3)])
def test_one_kernel_says_what_two_products_say(axes):
  rng = np.random.default_rng(0)
  q, k, v = (
    rng.standard_normal((2, length, 3, 8), np.float32) for length in (4, 6, 6)
  )
  bias = rng.standard_normal((*axes, 4, 6), np.float32)
  bias[:, :, :, 5] = attention.MASKED
  logits = np.einsum("bqhd,bkhd->bhqk", q, k) + bias
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  expected = np.einsum("bhqk,bkhd->bqhd", weights, v)
  mixed = attention.fused(*map(jnp.asarray, (q, k, v, bias)), "xla")
  np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-5)


def test_what_the_kernel_cannot_do_is_left_to_us():
  x = jnp.ones((1, 4, 2, 8), jnp.float32)  # and there is no GPU here
  assert attention.fused(x, x, x, jnp.zeros((1, 1, 4, 4))) is None


def test_a_network_in_bfloat16_takes_it(on_a_gpu):
  config = tiny_t5.config(dtype="bfloat16")
  params = tiny_t5.weights(config)
  run = jax.jit(t5.T5(config).apply)
  fused = run({"params": params}, INPUTS, TARGETS)
  assert (2, 6, config.num_heads, config.head_dim) in on_a_gpu
  run = tiny_t5.jitted(t5.T5(tiny_t5.config()))
  plain = run({"params": params}, INPUTS, TARGETS)
  np.testing.assert_allclose(fused, plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
  "dtype, rngs", [("float32", False), ("bfloat16", True)]
)
def test_float32_and_dropout_do_not(on_a_gpu, dtype, rngs):
  config = tiny_t5.config(dtype=dtype, dropout_rate=0.1)
  keys = {"dropout": jax.random.key(0)} if rngs else {}
  run = functools.partial(t5.T5(config).apply, rngs=keys)
  run({"params": tiny_t5.weights(config)}, INPUTS, TARGETS)
  assert not on_a_gpu


def test_a_place_of_cached_decoding_does_not(on_a_gpu):
  config = tiny_t5.config(dtype="bfloat16")
  run = decode.make_decoder(t5.T5(config), decode.Greedy(), 4)
  run(tiny_t5.weights(config), INPUTS, jax.random.key(0))
  assert on_a_gpu and all(shape[1] > 1 for shape in on_a_gpu)


def test_a_gpu_computes_in_bfloat16_unless_it_is_told(monkeypatch):
  assert pretrained.load("microworld").config.dtype == "float32"
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert pretrained.load("microworld").config.dtype == "bfloat16"
  told = pretrained.load("microworld", activation_dtype="float32")
  assert told.config.dtype == "float32"
