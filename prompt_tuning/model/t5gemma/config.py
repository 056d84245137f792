"""The shape of a T5Gemma: two stacks that may differ in size."""

import dataclasses
from typing import Literal

import numpy as np

from prompt_tuning.model import layers
from prompt_tuning.shapes import Int

SLIDING, FULL = "sliding_attention", "full_attention"
"""What a layer sees: places that are near, or all."""

_EVERYWHERE = 1 << 30  # the window of a layer that sees all


@dataclasses.dataclass(frozen=True)
class Stack:
  """The shape of an encoder or a decoder.

  Attributes:
    emb_dim: E.
    num_heads: H.
    num_kv_heads: how many keys and values the heads share, each those of H / K
      neighbours.
    head_dim: D.
    mlp_dim: M.
    num_layers: how many layers there are.
    query_scale: scores are divided by its square root; 0 for D.
    attention_cap: c in c tanh(score / c); None for scores as they are.
    window: how far a sliding layer sees: an encoder's to both sides, a
      decoder's so many places with its own.
    layer_types: `SLIDING` or `FULL` for every layer; () for them in turn.
    rope_base: of the rotations' wavelengths.
    mlp_activations: of the branches of the feed-forward part.
    layer_norm_epsilon: of every norm.
  """

  emb_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  num_layers: int
  query_scale: float = 0.0
  attention_cap: float | None = 50.0
  window: int = 4096
  layer_types: tuple[str, ...] = ()
  rope_base: float = 10_000.0
  mlp_activations: tuple[str, ...] = ("gelu", "linear")
  layer_norm_epsilon: float = 1e-6

  def __post_init__(self):
    layers.check_activations(self.mlp_activations)
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f"num_heads={self.num_heads} cannot share num_kv_heads="
        f"{self.num_kv_heads} keys; the first must be a multiple of the second."
      )
    if self.head_dim % 2:
      raise ValueError(
        f"head_dim={self.head_dim} must be even: halves are rotated together."
      )
    types = tuple(self.layer_types) or tuple(
      FULL if i % 2 else SLIDING for i in range(self.num_layers)
    )
    if len(types) != self.num_layers or {*types} - {SLIDING, FULL}:
      raise ValueError(
        f"layer_types={types} must name {SLIDING!r} or {FULL!r} for each of "
        f"num_layers={self.num_layers} layers."
      )
    scale = float(self.query_scale or self.head_dim)
    object.__setattr__(self, "layer_types", types)
    object.__setattr__(self, "query_scale", scale)

  @property
  def windows(self) -> Int[np.ndarray, "1 layers"]:
    """How far each layer sees; layers are where `forms.AXIS` says."""
    of_type = {SLIDING: self.window, FULL: _EVERYWHERE}
    return np.array([[of_type[kind] for kind in self.layer_types]], np.int32)


@dataclasses.dataclass(frozen=True)
class Part(Stack):
  """A stack, and what all of the network computes with."""

  dropout_rate: float = 0.0
  dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class T5GemmaConfig:
  """The shape of a T5Gemma and the numbers its weights were trained with.

  Attributes:
    vocab_size: V, of both tables.
    encoder: the one stack.
    decoder: the other.
    logits_via_embedding: whether the decoder's table gives the logits.
    logits_cap: c in c tanh(logit / c); None for logits as they are.
    start_id: what the decoder starts from.
    dropout_rate: while the network itself trains.
    dtype: of activations only.
  """

  vocab_size: int
  encoder: Stack
  decoder: Stack
  logits_via_embedding: bool = True
  logits_cap: float | None = 30.0
  start_id: int = 2
  dropout_rate: float = 0.0
  dtype: str = "float32"

  def __post_init__(self):
    layers.check_dtype(self.dtype)
    if not 0 <= self.start_id < self.vocab_size:
      raise ValueError(
        f"start_id={self.start_id} is none of vocab_size={self.vocab_size} ids."
      )

  @property
  def emb_dim(self) -> int:
    """E of the encoder, where prompts stand."""
    return self.encoder.emb_dim

  @property
  def num_encoder_layers(self) -> int:
    """How many layers the encoder has."""
    return self.encoder.num_layers

  @property
  def num_decoder_layers(self) -> int:
    """How many layers the decoder has."""
    return self.decoder.num_layers

  def part(self, stack: Literal["encoder", "decoder"]) -> Part:
    """What the layers of a stack are made of."""
    shape: Stack = getattr(self, stack)
    fields = {
      field.name: getattr(shape, field.name)
      for field in dataclasses.fields(shape)
    }
    return Part(**fields, dropout_rate=self.dropout_rate, dtype=self.dtype)

  def widths(self, stack: Literal["encoder", "decoder"]) -> layers.Widths:
    """The sizes of a stack that a prompt is made for."""
    shape: Stack = getattr(self, stack)
    keys = shape.num_kv_heads * shape.head_dim
    return layers.Widths(shape.num_layers, shape.emb_dim, keys, shape.mlp_dim)
