"""The parts of a T5: its configuration, projections, norm, feed-forward.

Parameter names, logical axes and numerics are those of t5x's `examples.t5`, and
`t5gemma` is made of the same parts. A parameter is float32 when it is made;
whatever dtype it has later, it is cast to the configuration's where it is used.
"""

from collections.abc import Mapping
import dataclasses
import functools
import types
from typing import Any, Literal, NamedTuple

from flax import linen as nn
from flax.errors import ScopeParamShapeError
from flax.linen import partitioning, spmd
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from prompt_tuning.model.forms import quantized
from prompt_tuning.shapes import PAD, Array, Float, Int

ACTIVATIONS = {
  "relu": nn.relu,
  "gelu": nn.gelu,  # with tanh, as T5 has it
  "gelu_exact": functools.partial(nn.gelu, approximate=False),
  "silu": nn.silu,
  "linear": lambda x: x,
}
"""Of the branches of the feed-forward part, by name."""


class Widths(NamedTuple):
  """The sizes of a stack, encoder or decoder, that a prompt is made for.

  Attributes:
    layers: how many there are.
    emb_dim: of what goes in.
    keys: of all heads' keys (and values) together.
    hidden: of the feed-forward part.
  """

  layers: int
  emb_dim: int
  keys: int
  hidden: int


def check_dtype(dtype: str) -> None:
  """Refuses what activations cannot be.

  Raises:
    ValueError: with what they can be.
  """
  if dtype not in ("float32", "bfloat16"):
    raise ValueError(
      f"Activations cannot be {dtype!r} (ACTIVATION_DTYPE); they can be "
      "float32 or bfloat16. Those of a T5 are too large for float16."
    )


def check_activations(names: tuple[str, ...]) -> None:
  """Refuses activations that there are not.

  Raises:
    ValueError: with those that there are.
  """
  unknown = [name for name in names if name not in ACTIVATIONS]
  if unknown:
    raise ValueError(
      f"mlp_activations={names} has {unknown[0]!r}; known are "
      f"{', '.join(ACTIVATIONS)}."
    )


@dataclasses.dataclass(frozen=True)
class T5Config:
  """The shape of a T5 and the numbers that its weights were trained with.

  `dtype` is the dtype of activations only. `scale_logits` divides the decoder's
  output by sqrt(E) before the logits (T5 1.0); by default it follows
  `logits_via_embedding`. With `relpos_per_layer` each layer has a table of
  relative positions of its own (UMT5), else a stack's layers share one.
  """

  vocab_size: int
  emb_dim: int
  num_heads: int
  head_dim: int
  mlp_dim: int
  num_encoder_layers: int
  num_decoder_layers: int
  mlp_activations: tuple[str, ...] = ("gelu", "linear")
  logits_via_embedding: bool = False
  scale_logits: bool | None = None
  relpos_buckets: int = 32
  relpos_max_distance: int = 128
  relpos_per_layer: bool = False
  layer_norm_epsilon: float = 1e-6
  dropout_rate: float = 0.0
  dtype: str = "float32"

  def __post_init__(self):
    object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
    check_dtype(self.dtype)
    check_activations(self.mlp_activations)
    if self.relpos_max_distance <= self.relpos_buckets // 2:
      raise ValueError(
        f"relpos_max_distance={self.relpos_max_distance} must be more than "
        f"half of relpos_buckets={self.relpos_buckets}."
      )
    if self.scale_logits is None:
      object.__setattr__(self, "scale_logits", self.logits_via_embedding)

  def widths(self, stack: Literal["encoder", "decoder"]) -> Widths:
    """The sizes of a stack that a prompt is made for."""
    layers = self.num_encoder_layers
    if stack == "decoder":
      layers = self.num_decoder_layers
    joined = self.num_heads * self.head_dim
    return Widths(layers, self.emb_dim, joined, self.mlp_dim)


def parameter(module: nn.Module, name, initializer, shape, axes):
  """A float32 parameter with its logical axes recorded as t5x expects.

  One whose bits are kept as integers (see `forms.stacking`) is bfloat16.
  """
  if module.has_variable("params", name):
    # Flax's `param` traces the initialiser for its shape, which takes a fifth
    # of the time that tracing a network does.
    value = module.get_variable("params", name)
    if value.shape != shape:
      path = "/".join(module.path)
      raise ScopeParamShapeError(name, path, value.shape, shape)
    value = spmd.with_logical_constraint(value, PartitionSpec(*axes))
  else:
    value = partitioning.param_with_axes(
      name, initializer, shape, jnp.float32, axes=axes, module=module
    )
  if value.dtype == jnp.uint16:
    value = lax.bitcast_convert_type(value, jnp.bfloat16)
  return value


class Dense(nn.Module):
  """A matrix without bias: [..., in] -> [..., features]."""

  features: int
  axes: tuple[str, str]
  dtype: Any
  scale: float = 1.0  # of the initial variance

  @nn.compact
  def matrix(self, inputs: int) -> Float[Array, "inputs features"]:
    """The kernel."""
    if (held := quantized.of(self, "kernel")) is not None:
      return held.weight(self.dtype)
    kernel = parameter(
      self,
      "kernel",
      nn.initializers.variance_scaling(
        self.scale, "fan_in", "truncated_normal"
      ),
      (inputs, self.features),
      self.axes,
    )
    return kernel.astype(self.dtype)

  def __call__(
    self, x: Float[Array, "*B inputs"]
  ) -> Float[Array, "*B features"]:
    x = x.astype(self.dtype)
    if (held := quantized.of(self, "kernel")) is not None:
      return held.dot(x)
    return jnp.dot(x, self.matrix(x.shape[-1]))


def head(vocab_size: int) -> Dense:
  """The logits of a decoder that has a matrix of its own for them."""
  return Dense(vocab_size, ("embed", "vocab"), jnp.float32)


class RMSNorm(nn.Module):
  """T5's layer norm: no mean, no bias, computed in float32.

  The factor is the parameter and `offset`, which is 1 in a Gemma.
  """

  epsilon: float
  dtype: Any
  offset: float = 0.0

  @nn.compact
  def __call__(self, x: Float[Array, "*B E"]) -> Float[Array, "*B E"]:
    first = nn.initializers.constant(1 - self.offset)
    scale = parameter(self, "scale", first, (x.shape[-1],), ("embed",))
    x = x.astype(jnp.float32)
    x = x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    factor = self.offset + scale.astype(jnp.float32)
    return (x * factor).astype(self.dtype)


Vectors = Mapping[str, Float[Array, "#B #L _"]]
"""What a prompt multiplies keys, values and hidden by, see `inside`."""

NO_VECTORS: Vectors = types.MappingProxyType({})
"""Nothing."""


def scaled(
  x: Float[Array, "B L _"], vectors: Vectors, name: str
) -> Float[Array, "B L _"]:
  """x times the vector of a name, if there is one."""
  return x * vectors[name].astype(x.dtype) if name in vectors else x


def across(vectors: Vectors) -> Vectors:
  """Those of a decoder layer's look at the input, called as in any other."""
  return {
    name.removeprefix("cross_"): vector
    for name, vector in vectors.items()
    if name.startswith("cross_")
  }


class Embed(nn.Module):
  """The embedding table [V, E], read by gather.

  Attributes:
    vocab_size: V.
    emb_dim: E.
    dtype: of what is read.
    start: the id whose row is read for PAD, which a decoder starts from.
    deviation: of the initial rows.
  """

  vocab_size: int
  emb_dim: int
  dtype: Any
  start: int = PAD
  deviation: float = 1.0

  def setup(self):
    self.held = quantized.of(self, "embedding")
    if self.held is not None:
      return
    self.embedding = parameter(
      self,
      "embedding",
      nn.initializers.normal(self.deviation),
      (self.vocab_size, self.emb_dim),
      ("vocab", "embed"),
    )

  def __call__(self, tokens: Int[Array, "*B T"]) -> Float[Array, "*B T E"]:
    if self.start != PAD:
      tokens = jnp.where(tokens == PAD, self.start, tokens)
    if self.held is not None:
      return self.held.rows(tokens, self.dtype)
    return jnp.take(self.embedding, tokens, axis=0, mode="clip").astype(
      self.dtype
    )

  def attend(self, x: Float[Array, "*B L E"]) -> Float[Array, "*B L V"]:
    """Logits of the tied table."""
    if self.held is not None:
      return self.held.dot(x)
    return jnp.dot(x, self.embedding.astype(x.dtype).T)


class Mlp(nn.Module):
  """The feed-forward part: a product of activated branches, then `wo`."""

  config: Any  # T5Config, or what has its fields for this part

  @nn.compact
  def __call__(
    self, x: Float[Array, "B L E"], vectors: Vectors = NO_VECTORS
  ) -> Float[Array, "B L E"]:
    config = self.config
    names = config.mlp_activations
    branches = []
    for i, activation in enumerate(names):
      name = "wi" if len(names) == 1 else f"wi_{i}"
      branch = Dense(config.mlp_dim, ("embed", "mlp"), config.dtype, name=name)(
        x
      )
      branches.append(ACTIVATIONS[activation](branch))
    hidden = scaled(functools.reduce(jnp.multiply, branches), vectors, "hidden")
    hidden = dropout(self, hidden)
    return Dense(config.emb_dim, ("mlp", "embed"), config.dtype, name="wo")(
      hidden
    )


def dropout(
  module: nn.Module, x: Float[Array, "*B L E"]
) -> Float[Array, "*B L E"]:
  """Dropout with one pattern along the length (L), as T5 was trained.

  It is on where the caller of `apply` gives a key for it.
  """
  rate = module.config.dropout_rate  # pyright: ignore[reportAttributeAccessIssue]
  if not rate or not module.has_rng("dropout"):
    return x
  shape = (*x.shape[:-2], 1, x.shape[-1])
  keep = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, shape)
  return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def norm(config: T5Config, name: str | None = None) -> RMSNorm:
  """The norm of this network."""
  return RMSNorm(config.layer_norm_epsilon, config.dtype, name=name)
