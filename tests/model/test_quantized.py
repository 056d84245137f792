"""Weights as integers with scales: how far off they are, what passes back."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import decode, forms, freeze, t5
from prompt_tuning.model.forms import quantized
from prompt_tuning.prompts import prompt

CONFIG = tiny_t5.config(num_encoder_layers=2, num_decoder_layers=2)
TIED = tiny_t5.config(logits_via_embedding=True)
TARGETS = np.array([[6, 4, 1, 0], [9, 1, 0, 0]], np.int32)
both = pytest.mark.parametrize("dtype", quantized.DTYPES)


def held(params, dtype):
  """The tree in integers and scales."""
  return storage.unflatten(
    {
      name: part
      for path, leaf in storage.flatten(params).items()
      for name, part in quantized.parts(path, leaf, dtype).items()
    }
  )


def as_floats(path, weight, dtype):
  """What a weight is worth when it is held so."""
  made = quantized.parts(path, weight, dtype)
  if path in made:
    return weight
  integers, scale = map(jnp.asarray, made.values())
  one = quantized.Quantized(integers, scale, path.endswith("embedding"))
  return np.asarray(one.weight(jnp.float32))


def dequantised(params, dtype):
  """Floats that are worth what the integers are."""
  flat = storage.flatten(params)
  return storage.unflatten(
    {path: as_floats(path, leaf, dtype) for path, leaf in flat.items()}
  )


def drawn(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_kernel_of_int8_by_hand():
  kernel = np.array([[127.0, 0.5], [-63.4, -1.0], [0.6, 0.26]], np.float32)
  integers, scale = quantized.parts("a/kernel", kernel, "int8").values()
  np.testing.assert_allclose(scale, [1, 1 / 127], rtol=1e-6)
  assert integers.tolist() == [[127, 64], [-63, -127], [1, 33]]
  assert integers.dtype == np.int8


def test_a_kernel_of_int4_by_hand():
  kernel = np.array([[8.0, -4], [3.4, 3.6], [-8, 0.2], [0.6, 1]], np.float32)
  kernel = np.concatenate([kernel, np.zeros((4, 2), np.float32)])
  packed, scale = quantized.parts("a/kernel", kernel, "int4").values()
  # 8 would be an 8, which there is not, so that it is a 7.
  assert scale.tolist() == [[1.0, 0.5]]
  # Bytes of two neighbours in a column, the first one low, 8 for 0.
  assert packed.shape == (4, 2) and packed.dtype == np.uint8
  assert [int(byte) & 15 for byte in packed[:, 0]] == [15, 0, 8, 8]
  assert [int(byte) >> 4 for byte in packed[:, 1]] == [15, 10, 8, 8]


@both
def test_no_weight_is_off_by_more_than_half_a_step(dtype):
  kernel = drawn(128, 24)
  kernel[:, 3] = 0
  grouped = kernel.reshape(1 if dtype == "int8" else 2, -1, 24)
  # A step of int8 is a 127th of the largest, of int4 an eighth; +8 is no
  # integer of 4 bits, so what is as far on the other side is off by a step.
  part = 0.5 / 127 if dtype == "int8" else 1 / 8
  allowed = np.abs(grouped).max(1, keepdims=True) * part
  off = np.abs(as_floats("a/kernel", kernel, dtype) - kernel)
  assert (off.reshape(grouped.shape) <= allowed + 1e-6).all()
  assert not off[:, 3].any()


@both
def test_a_product_is_off_by_what_its_weights_are(dtype):
  kernel, x = drawn(64, 24), drawn(5, 64, seed=1)
  off = np.abs(as_floats("a/kernel", kernel, dtype) - kernel)
  integers, scale = quantized.parts("a/kernel", kernel, dtype).values()
  made = quantized.Quantized(jnp.asarray(integers), jnp.asarray(scale)).dot(x)
  bound = np.abs(x) @ off
  assert (np.abs(np.asarray(made) - x @ kernel) <= bound + 1e-4).all()
  assert bound.max() > 0


def test_head_table_and_small_kernels_are_int8_in_a_model_of_int4():
  forms_of = {
    path: quantized.form_of(path, leaf.shape, "int4")
    for path, leaf in storage.flatten(tiny_t5.weights(CONFIG)).items()
  }
  assert forms_of["token_embedder/embedding"] == "int8"
  assert forms_of["decoder/logits_dense/kernel"] == "int8"
  assert forms_of["encoder/layers_0/mlp/wo/kernel"] == "int4"
  assert forms_of["encoder/encoder_norm/scale"] is None
  assert forms_of["encoder/relpos_bias/rel_embedding"] is None
  assert quantized.form_of("a/kernel", (12, 8), "int4") == "int8"


@both
def test_integers_take_the_bytes_that_they_should(dtype):
  kernel = drawn(1024, 64)
  held_in = sum(
    p.nbytes for p in quantized.parts("a/kernel", kernel, dtype).values()
  )
  weights = {"int8": 1, "int4": 1 / 2 + 4 / quantized.GROUP}[dtype]
  assert held_in == pytest.approx(weights * kernel.size, rel=0.01)
  tree = {"a": {"kernel": kernel, "scale": drawn(3)}}
  assert quantized.count(held(tree, dtype)) == kernel.size + 3
  assert quantized.dtype_of(held(tree, dtype)) == dtype
  assert quantized.dtype_of(tree) is None


def outcome(config, params, remat=False):
  """Logits, and the gradient of a prompt of three rows."""
  module = prompt.Prompt(3, config.emb_dim, 1)
  network = t5.T5(config, prompt=module, remat=remat)
  rows = {"embedding": jnp.asarray(drawn(1, 3, config.emb_dim, seed=7))}
  inputs = tiny_t5.reserved(tiny_t5.tokens(2, 6), tiny_t5.ids(0, 0), 3)

  def loss(rows):
    whole = {**params, prompt.NAME: rows}
    logits = network.apply({"params": whole}, inputs, t5.history(TARGETS))
    return (
      logits * jnp.cos(jnp.arange(logits.size).reshape(logits.shape))
    ).sum(), logits

  (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(rows)
  return np.asarray(logits), np.asarray(gradient["embedding"])


@pytest.mark.parametrize(
  "config, dtype",
  [
    pytest.param(CONFIG, "int8", id="own head-int8"),
    pytest.param(TIED, "int4", id="tied-int4"),
    pytest.param(CONFIG, "int4", id="own head-int4", marks=pytest.mark.slow),
    pytest.param(TIED, "int8", id="tied-int8", marks=pytest.mark.slow),
  ],
)
def test_forward_and_backward_are_those_of_the_dequantised_weights(
  config, dtype
):
  params = tiny_t5.weights(config)
  want = outcome(config, dequantised(params, dtype))
  apart = held(params, dtype)
  stacked = forms.stacked(jax.tree.map(lambda leaf: leaf, apart))
  for tree, remat in ((apart, False), (stacked, True)):
    for made, wanted in zip(outcome(config, tree, remat), want, strict=True):
      scale = np.abs(wanted).max()
      np.testing.assert_allclose(made / scale, wanted / scale, atol=1e-5)


@both
def test_logits_are_near_those_of_the_floats(dtype):
  params = tiny_t5.weights(CONFIG)
  floats, _ = outcome(CONFIG, params)
  made, _ = outcome(CONFIG, held(params, dtype))
  off = np.sqrt(np.mean((made - floats) ** 2)) / floats.std()
  # A weight of int8 is off by about a 300th of its deviation here, of int4 by
  # a tenth, and a product of many passes on what its parts have.
  assert 0 < off < {"int8": 0.05, "int4": 1.0}[dtype]


@both
def test_bfloat16_computes_with_the_same_integers(dtype):
  params = held(tiny_t5.weights(CONFIG), dtype)
  narrow = dataclasses.replace(CONFIG, dtype="bfloat16")
  for one, two in zip(
    outcome(CONFIG, params), outcome(narrow, params), strict=True
  ):
    assert np.sqrt(np.mean((one - two) ** 2)) < 0.1 * np.abs(one).max()


@both
def test_a_step_holds_the_floats_of_few_layers(dtype):
  config = tiny_t5.config(num_encoder_layers=24, emb_dim=64, mlp_dim=256)
  params = tiny_t5.weights(config)
  floats = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  params = forms.stacked(held(params, dtype))
  network = t5.T5(config, remat=True)

  def loss(scale):
    own = {**params, "encoder": {**params["encoder"], "encoder_norm": scale}}
    tokens = tiny_t5.tokens(2, 6)
    return network.apply({"params": own}, tokens, TARGETS).sum()

  norm = params["encoder"]["encoder_norm"]
  compiled = jax.jit(jax.grad(loss)).lower(norm).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < floats / 4


@both
def test_what_is_written_is_what_the_dequantised_weights_write(dtype):
  config = tiny_t5.config()
  params = tiny_t5.weights(config)
  decoder = decode.make_decoder(t5.T5(config), decode.Greedy(), 5)
  tokens, key = tiny_t5.tokens(3, 6), jax.random.key(0)
  made = decoder(forms.stacked(held(params, dtype)), tokens, key)
  wanted = decoder(dequantised(params, dtype), tokens, key)
  np.testing.assert_array_equal(made, wanted)
  assert len(np.unique(made)) > 2


def test_axes_of_integers_and_scales_are_those_of_the_weight():
  of_weights = {
    "mlp/wi/kernel": ("embed", "mlp"),
    "token_embedder/embedding": ("vocab", "embed"),
    "norm/scale": ("embed",),
  }
  for path, rank, axes in (
    ("mlp/wi/kernel_int8", 2, ("embed", "mlp")),
    ("mlp/wi/kernel_scale", 1, ("mlp",)),
    ("mlp/wi/kernel_int4", 2, ("embed", "mlp")),
    ("mlp/wi/kernel_scale", 2, ("embed", "mlp")),
    ("token_embedder/embedding_int8", 2, ("vocab", "embed")),
    ("token_embedder/embedding_scale", 1, ("vocab",)),
    ("norm/scale", 1, ("embed",)),
  ):
    assert quantized.axes(path, rank, of_weights) == axes


def test_the_table_is_read_in_floats():
  table = drawn(10, 4)
  made = quantized.parts("token_embedder/embedding", table, "int8")
  own = {path.split("/")[1]: leaf for path, leaf in made.items()}
  np.testing.assert_allclose(quantized.table(own), table, atol=0.02)
  np.testing.assert_array_equal(quantized.table({"embedding": table}), table)


def test_what_needs_floats_refuses_integers():
  params = tiny_t5.weights(CONFIG)
  quantized.refuse(params, "this trains them")
  with pytest.raises(ValueError, match="WEIGHTS_DTYPE='int4' is for frozen"):
    quantized.refuse(held(params, "int4"), "this trains them")


def test_a_mask_of_the_prompt_leaves_integers_frozen():
  params = {**held(tiny_t5.weights(CONFIG), "int8")}
  params[prompt.NAME] = {"embedding": drawn(1, 3, CONFIG.emb_dim)}
  trained, _ = freeze.split(params, freeze.mask(params, freeze.PROMPT))
  assert freeze.count(trained) == 3 * CONFIG.emb_dim


def test_a_module_without_such_a_parameter_has_floats():
  class Plain(nn.Module):
    @nn.compact
    def __call__(self):
      return jnp.float32(quantized.of(self, "kernel") is None)

  assert Plain().apply({"params": {"kernel": jnp.ones((2, 2))}}) == 1
