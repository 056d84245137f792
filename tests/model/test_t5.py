"""The network: its tree, its sizes, its numbers, packing and the cache."""

import dataclasses
import fractions

from flax.errors import ScopeParamShapeError
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import attention, freeze, layers, t5

GATED = tiny_t5.config(num_encoder_layers=2)
TIED = tiny_t5.config(
  mlp_activations=("relu",), logits_via_embedding=True, num_decoder_layers=2
)
UMT5 = tiny_t5.config(
  num_encoder_layers=2, num_decoder_layers=2, relpos_per_layer=True
)
INPUTS, TARGETS = tiny_t5.tokens(2, 20), tiny_t5.tokens(2, 6, seed=1)


# The tree.


def expected_tree(config) -> dict[str, tuple[tuple, tuple]]:
  """Path -> (shape, logical axes), as t5x has them."""
  width, inner = config.emb_dim, config.num_heads * config.head_dim
  scale = ((width,), ("embed",))
  table = ((config.num_heads, 32), ("heads", "relpos_buckets"))

  def attention(at):
    read = ((width, inner), ("embed", "joined_kv"))
    return {
      **{f"{at}/{name}/kernel": read for name in ("query", "key", "value")},
      f"{at}/out/kernel": ((inner, width), ("joined_kv", "embed")),
    }

  def mlp(at):
    names = ["wi"] if len(config.mlp_activations) == 1 else ["wi_0", "wi_1"]
    read = ((width, config.mlp_dim), ("embed", "mlp"))
    return {
      **{f"{at}/{name}/kernel": read for name in names},
      f"{at}/wo/kernel": ((config.mlp_dim, width), ("mlp", "embed")),
    }

  tree = {
    "token_embedder/embedding": (
      (config.vocab_size, width),
      ("vocab", "embed"),
    ),
    "encoder/relpos_bias/rel_embedding": table,
    "decoder/relpos_bias/rel_embedding": table,
    "encoder/encoder_norm/scale": scale,
    "decoder/decoder_norm/scale": scale,
  }
  for i in range(config.num_encoder_layers):
    at = f"encoder/layers_{i}"
    tree[f"{at}/pre_attention_layer_norm/scale"] = scale
    tree[f"{at}/pre_mlp_layer_norm/scale"] = scale
    tree |= attention(f"{at}/attention") | mlp(f"{at}/mlp")
  for i in range(config.num_decoder_layers):
    at = f"decoder/layers_{i}"
    for part in ("self_attention", "cross_attention", "mlp"):
      tree[f"{at}/pre_{part}_layer_norm/scale"] = scale
    tree |= attention(f"{at}/self_attention") | mlp(f"{at}/mlp")
    tree |= attention(f"{at}/encoder_decoder_attention")
  if not config.logits_via_embedding:
    tree["decoder/logits_dense/kernel"] = (
      (width, config.vocab_size),
      ("embed", "vocab"),
    )
  return tree


@pytest.mark.parametrize("config", [GATED, TIED], ids=["1.1", "1.0"])
def test_parameters_have_the_paths_shapes_and_axes_of_t5x(config):
  token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  made = jax.eval_shape(t5.T5(config).init, jax.random.key(0), token, token)
  axes = {
    path.removesuffix("_axes"): tuple(leaf.names)
    for path, leaf in storage.flatten(made["params_axes"]).items()
  }
  have = {
    path: (leaf.shape, axes.pop(path))
    for path, leaf in storage.flatten(made["params"]).items()
  }
  assert have == expected_tree(config)
  assert not axes


def sized(layers, heads, head_dim, emb_dim, mlp_dim, vocab_size, *, tied=False):
  return t5.T5Config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=heads,
    head_dim=head_dim,
    mlp_dim=mlp_dim,
    num_encoder_layers=layers[0],
    num_decoder_layers=layers[1],
    mlp_activations=("relu",) if tied else ("gelu", "linear"),
    logits_via_embedding=tied,
  )


# The counts are those that Hugging Face reports for the released models.
SIZES = {
  "t5-1.1-small": (sized((8, 8), 6, 64, 512, 1024, 32128), 76_961_152),
  "t5-1.1-base": (sized((12, 12), 12, 64, 768, 2048, 32128), 247_577_856),
  "t5-1.1-xxl": (
    sized((24, 24), 64, 64, 4096, 10240, 32128),
    11_135_332_352,
  ),
  "t5-1.0-small": (
    sized((6, 6), 8, 64, 512, 2048, 32128, tied=True),
    60_506_624,
  ),
  "byt5-small": (sized((12, 4), 6, 64, 1472, 3584, 384), 299_637_760),
  "mt5-small": (sized((8, 8), 6, 64, 512, 1024, 250112), 300_176_768),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_released_size_has_its_number_of_parameters(name):
  config, count = SIZES[name]
  by_hand = sum(
    np.prod(shape, dtype=int) for shape, _ in expected_tree(config).values()
  )
  assert freeze.count(t5.abstract_parameters(config)) == by_hand == count


# The numbers.


def exact_bucket(offset, bidirectional, buckets, max_distance) -> int:
  """T5's bucket of one offset in whole numbers, without a logarithm."""
  first = 0
  if bidirectional:
    buckets //= 2
    first = buckets if offset > 0 else 0
    distance = abs(offset)
  else:
    distance = max(-offset, 0)
  near = buckets // 2
  if distance < near:
    return first + distance
  # The largest k with distance / near >= (max_distance / near)^(k / far).
  far = buckets - near
  ratio = fractions.Fraction(distance, near) ** far
  growth = fractions.Fraction(max_distance, near)
  k = max(k for k in range(far) if k == 0 or ratio >= growth**k)
  return first + near + k


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("buckets, far", [(32, 128), (4, 8), (8, 20)])
def test_relative_buckets_equal_exact_arithmetic(bidirectional, buckets, far):
  offsets = np.arange(-300, 301, dtype=np.int32)
  have = attention.relative_buckets(
    offsets[None],
    bidirectional=bidirectional,
    buckets=buckets,
    max_distance=far,
  )[0]
  want = [exact_bucket(int(o), bidirectional, buckets, far) for o in offsets]
  np.testing.assert_array_equal(have, want)
  assert have.min() == 0
  # Towards the right, offset 0 has no bucket of its own.
  assert set(have) == set(range(buckets)) - {buckets // 2} | (
    set() if bidirectional else {buckets // 2}
  )


def gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


class Numpy:
  """T5 as the papers describe it: one example, one head at a time."""

  def __init__(self, config, params):
    self.config = config
    self.params = {
      k: np.asarray(v, np.float64) for k, v in storage.flatten(params).items()
    }

  def norm(self, x, at):
    rms = np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x / rms * self.params[f"{at}/scale"]

  def attention(self, x, source, at, bias, seen):
    width = self.config.head_dim
    q, k, v = (
      y @ self.params[f"{at}/{name}/kernel"]
      for y, name in ((x, "query"), (source, "key"), (source, "value"))
    )
    heads = []
    for h in range(self.config.num_heads):
      part = slice(h * width, (h + 1) * width)
      logits = q[:, part] @ k[:, part].T + bias[h]
      weights = np.where(seen, np.exp(logits - logits.max(-1)[:, None]), 0)
      heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
    return np.concatenate(heads, -1) @ self.params[f"{at}/out/kernel"]

  def mlp(self, x, at):
    def dense(y, name):
      return y @ self.params[f"{at}/{name}/kernel"]

    if self.config.mlp_activations == ("relu",):
      return dense(np.maximum(dense(x, "wi"), 0), "wo")
    return dense(gelu(dense(x, "wi_0")) * dense(x, "wi_1"), "wo")

  def bias(self, stack, i, length, bidirectional):
    at = f"{stack}/layers_{i}" if self.config.relpos_per_layer else stack
    table = self.params[f"{at}/relpos_bias/rel_embedding"]
    return np.array(
      [
        [
          [row[exact_bucket(k - q, bidirectional, 32, 128)] for k in at]
          for q in at
        ]
        for at in [range(length)]
        for row in table
      ]
    )

  def __call__(self, inputs, decoder_inputs):
    """Logits [L, V] of one example without padding."""
    table = self.params["token_embedder/embedding"]
    size, length = len(inputs), len(decoder_inputs)
    x = table[inputs]
    for i in range(self.config.num_encoder_layers):
      bias = self.bias("encoder", i, size, True)
      at = f"encoder/layers_{i}"
      y = self.norm(x, f"{at}/pre_attention_layer_norm")
      x = x + self.attention(y, y, f"{at}/attention", bias, True)
      x = x + self.mlp(self.norm(x, f"{at}/pre_mlp_layer_norm"), f"{at}/mlp")
    encoded = self.norm(x, "encoder/encoder_norm")
    x = table[decoder_inputs]
    none = np.zeros((self.config.num_heads, 1, 1))
    past = np.tril(np.ones((length, length), bool))
    for i in range(self.config.num_decoder_layers):
      bias = self.bias("decoder", i, length, False)
      at = f"decoder/layers_{i}"
      y = self.norm(x, f"{at}/pre_self_attention_layer_norm")
      x = x + self.attention(y, y, f"{at}/self_attention", bias, past)
      y = self.norm(x, f"{at}/pre_cross_attention_layer_norm")
      cross = f"{at}/encoder_decoder_attention"
      x = x + self.attention(y, encoded, cross, none, True)
      x = x + self.mlp(self.norm(x, f"{at}/pre_mlp_layer_norm"), f"{at}/mlp")
    x = self.norm(x, "decoder/decoder_norm")
    if self.config.logits_via_embedding:
      return x @ table.T / np.sqrt(self.config.emb_dim)
    return x @ self.params["decoder/logits_dense/kernel"]


def apply(config, method=None):
  """The jitted network of a shape."""
  return tiny_t5.jitted(t5.T5(config), method)


def logits(config, params, *args, **kwargs):
  return np.asarray(apply(config)({"params": params}, *args, **kwargs))


@pytest.mark.parametrize(
  "config", [GATED, TIED, UMT5], ids=["1.1", "1.0", "umt5"]
)
def test_logits_equal_an_independent_numpy_t5(config):
  params = tiny_t5.weights(config)
  have = logits(config, params, INPUTS, TARGETS)
  reference = Numpy(config, params)
  for i in range(2):
    want = reference(INPUTS[i], TARGETS[i])
    assert want.std() > 0.1
    np.testing.assert_allclose(have[i], want, rtol=1e-4, atol=2e-5)


def test_scaling_of_the_logits_is_a_division_by_the_root_of_the_width():
  plain = dataclasses.replace(TIED, scale_logits=False)
  assert TIED.scale_logits and not GATED.scale_logits
  args = tiny_t5.weights(TIED), INPUTS, TARGETS
  np.testing.assert_allclose(
    logits(plain, *args) / 4, logits(TIED, *args), rtol=1e-5, atol=1e-5
  )


def test_the_decoder_does_not_see_later_targets():
  params = tiny_t5.weights(GATED)
  other = TARGETS.copy()
  other[:, 3] = (other[:, 3] + 1) % 60
  one = logits(GATED, params, INPUTS, TARGETS)
  two = logits(GATED, params, INPUTS, other)
  np.testing.assert_array_equal(one[:, :3], two[:, :3])
  assert (one[:, 3:] != two[:, 3:]).any(-1).all()


def test_shift_right_starts_with_id_0_and_drops_the_last_target():
  targets = tiny_t5.ids([5, 6, 1], [7, 1, 0])
  np.testing.assert_array_equal(t5.shift_right(targets), [[0, 5, 6], [0, 7, 1]])


def test_padding_changes_nothing():
  params = tiny_t5.weights(GATED)
  inputs, targets = INPUTS[:, :15], TARGETS[:, :4]
  padded = np.pad(inputs, ((0, 0), (0, 5)))
  later = np.pad(targets, ((0, 0), (0, 2)))
  np.testing.assert_allclose(
    logits(GATED, params, padded, later)[:, :4],
    logits(GATED, params, inputs, targets),
    atol=1e-5,
  )


def test_segment_ids_isolate_packed_examples():
  params = tiny_t5.weights(GATED)
  packed = logits(
    GATED,
    params,
    INPUTS,
    TARGETS,
    encoder_segment_ids=np.repeat([[1, 2]] * 2, 10, axis=1).astype(np.int32),
    decoder_segment_ids=np.repeat([[1, 2]] * 2, 3, axis=1).astype(np.int32),
  )
  assert not np.allclose(packed, logits(GATED, params, INPUTS, TARGETS), 0.1)
  for segment in (0, 1):
    mine = slice(3 * segment, 3 * segment + 3)
    alone = np.zeros_like(INPUTS), np.zeros_like(TARGETS)
    alone[0][:, :10] = INPUTS[:, 10 * segment :][:, :10]
    alone[1][:, :3] = TARGETS[:, mine]
    np.testing.assert_allclose(
      logits(GATED, params, *alone)[:, :3], packed[:, mine], atol=1e-5
    )


@pytest.mark.parametrize(
  "config", [GATED, TIED, UMT5], ids=["1.1", "1.0", "umt5"]
)
def test_cached_decoding_gives_the_logits_of_teacher_forcing(config):
  params = tiny_t5.weights(config)
  inputs = INPUTS.copy()
  inputs[1, 5:] = 0
  want = logits(config, params, inputs, TARGETS)
  variables = {"params": params}
  source = apply(config, "read")(variables, inputs)
  source = apply(config, "remembered")(variables, source)
  network = t5.T5(config)

  def step(cache, here):
    return network.apply(
      {**variables, **cache},
      source,
      here,
      cache_length=6,
      mutable=["cache"],
      method="write",
    )

  _, shapes = jax.eval_shape(step, {}, TARGETS)
  cache = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  step = jax.jit(step)
  for i in range(6):
    have, cache = step(cache, TARGETS[:, i : i + 1])
    np.testing.assert_allclose(have[:, 0], want[:, i], rtol=1e-4, atol=1e-5)


# Dropout and dtypes.

DROPPED = dataclasses.replace(GATED, dropout_rate=0.5)


def test_dropout_is_off_unless_asked_for():
  args = tiny_t5.weights(GATED), INPUTS, TARGETS
  np.testing.assert_array_equal(logits(DROPPED, *args), logits(GATED, *args))


def test_dropout_follows_its_key():
  args = tiny_t5.weights(DROPPED), INPUTS, TARGETS

  def with_key(seed):
    rngs = {"dropout": jax.random.key(seed)}
    return logits(DROPPED, *args, enable_dropout=True, rngs=rngs)

  np.testing.assert_array_equal(with_key(0), with_key(0))
  assert not np.allclose(with_key(0), with_key(1), atol=1e-2)
  assert not np.allclose(with_key(0), logits(DROPPED, *args), atol=1e-2)


def test_a_key_and_t5x_flag_of_dropout_must_not_contradict():
  args = {"params": tiny_t5.weights(DROPPED)}, INPUTS, TARGETS
  key = {"dropout": jax.random.key(0)}
  network = t5.T5(DROPPED)
  with pytest.raises(ValueError, match="rngs has no key 'dropout'"):
    network.apply(*args, enable_dropout=True)
  with pytest.raises(ValueError, match="rngs has a key 'dropout'"):
    network.apply(*args, enable_dropout=False, rngs=key)


def test_dropout_has_one_pattern_along_the_length():
  module = layers.Mlp(DROPPED)
  x = np.broadcast_to(tiny_t5.rows(2, 1, 16), (2, 9, 16))
  params = tiny_t5.weights(DROPPED)["encoder"]["layers_0"]["mlp"]
  rngs = {"dropout": jax.random.key(0)}
  y = module.apply({"params": params}, x, rngs=rngs)
  np.testing.assert_allclose(y, np.broadcast_to(y[:, :1], y.shape), rtol=1e-5)
  assert not np.allclose(y, module.apply({"params": params}, x), atol=1e-2)


def rounded(params, dtype):
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def test_weights_in_bfloat16_are_their_values_in_float32():
  """Float32 activations beside them lose nothing more."""
  frozen = rounded(tiny_t5.weights(GATED), jnp.bfloat16)
  floats = rounded(frozen, jnp.float32)
  have = logits(GATED, frozen, INPUTS, TARGETS)
  assert have.dtype == np.float32
  np.testing.assert_allclose(
    have, logits(GATED, floats, INPUTS, TARGETS), atol=1e-5
  )


def test_activations_in_bfloat16_come_near_and_give_float32_logits():
  half = dataclasses.replace(GATED, dtype="bfloat16")
  args = tiny_t5.weights(GATED), INPUTS, TARGETS
  encoded = jax.eval_shape(apply(half, "encode"), {"params": args[0]}, INPUTS)
  assert encoded.dtype == jnp.bfloat16
  have, want = logits(half, *args), logits(GATED, *args)
  assert have.dtype == np.float32
  assert 1e-4 < np.abs(have - want).max() < 0.2 * np.abs(want).max()


@pytest.mark.parametrize("queries", [1, 3, 30])
def test_keys_and_values_absorbed_are_the_same_attention(queries):
  """Where few positions attend to many, there are no keys and values."""
  shape = tiny_t5.config()
  module = attention.Attention(shape)
  x = tiny_t5.rows(2, queries, shape.emb_dim, seed=1)
  source = tiny_t5.rows(2, 12, shape.emb_dim, seed=2)
  bias = tiny_t5.rows(2, shape.num_heads, queries, 12, seed=3)
  variables = jax.jit(module.init)(jax.random.key(0), x, source, bias)

  @jax.jit
  def absorbed(params, source):
    return module.apply({"params": params}, x, source, bias)

  @jax.jit
  def explicit(params, source):
    bound = {"params": params}
    found = module.apply(bound, source, method="keys_values")
    return module.apply(bound, x, found, bias)

  params = variables["params"]
  assert {*params} == {"query", "key", "value", "out"}
  np.testing.assert_allclose(
    absorbed(params, source), explicit(params, source), atol=1e-5
  )
  for have, want in zip(
    *(
      jax.tree.leaves(
        jax.jit(jax.grad(lambda *a, f=f: (f(*a) ** 2).sum(), (0, 1)))(
          params, source
        )
      )
      for f in (absorbed, explicit)
    ),
    strict=True,
  ):
    np.testing.assert_allclose(have, want, atol=1e-3, rtol=1e-4)


def test_a_parameter_of_another_shape_is_refused():
  params = tiny_t5.weights(tiny_t5.config())
  kernel = params["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]
  params["encoder"]["layers_0"]["mlp"]["wo"]["kernel"] = kernel[:-1]
  with pytest.raises(ScopeParamShapeError, match="mlp/wo.*32, 16.*31, 16"):
    logits(tiny_t5.config(), params, INPUTS, TARGETS)
