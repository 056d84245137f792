"""A T5Gemma as the library gemma (google-deepmind) names and shapes it.

    decoder/layer_0/cross_attn/kv_einsum [2, K, E, D]
      -> decoder/layers_0/encoder_decoder_attention/key/kernel [E, K D]
      -> decoder/layers_0/encoder_decoder_attention/value/kernel [E, K D]

Queries, keys and values of a self-attention are one leaf where every head has
its own keys. The gate of the feed-forward part has the width first or last; the
shapes say which. Norms are 1 + scale and tables are rows of words, as here.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

from prompt_tuning.model.t5gemma import Stack, T5GemmaConfig

STACKS = ("encoder", "decoder")
TABLE = "embedder/input_embedding"

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the leaves of a stack lie.

  Attributes:
    joined: queries, keys and values of the self-attention are one leaf.
    width_last: the gate is [2, M, E] and not [2, E, M].
  """

  joined: bool
  width_last: bool


@dataclasses.dataclass(frozen=True)
class Piece:
  """What a parameter is made of.

  Attributes:
    leaf: the leaf's name.
    whole: the leaf's shape.
    index: the part of its first axis; None for all of it.
    order: of the part's axes, before neighbours are joined; () as they are.
  """

  leaf: str
  whole: Shape
  index: int | None = None
  order: tuple[int, ...] = ()


def pieces(
  config: T5GemmaConfig, layouts: dict[str, Layout], rows: int
) -> dict[str, Piece]:
  """What every parameter of `t5.T5` is made of, by its path.

  Args:
    config: the model's shape.
    layouts: of its encoder and its decoder.
    rows: of the tables as they are stored, which may be more than V.
  """
  found = {}
  for stack, table in zip(
    STACKS, ("token_embedder", "target_embedder"), strict=True
  ):
    shape: Stack = getattr(config, stack)
    width = shape.emb_dim
    found[f"{table}/embedding"] = Piece(f"{stack}/{TABLE}", (rows, width))
    found[f"{stack}/{stack}_norm/scale"] = Piece(
      f"{stack}/final_norm/scale", (width,)
    )
    for i in range(shape.num_layers):
      for path, piece in _layer(config, stack, layouts[stack]):
        found[f"{stack}/layers_{i}/{path}"] = dataclasses.replace(
          piece, leaf=f"{stack}/layer_{i}/{piece.leaf}"
        )
  return found


def _layer(
  config: T5GemmaConfig, stack: str, layout: Layout
) -> Iterator[tuple[str, Piece]]:
  """The parameters of a layer, by their paths in it."""
  shape: Stack = getattr(config, stack)
  width, mlp = shape.emb_dim, shape.mlp_dim
  own = "attention" if stack == "encoder" else "self_attention"
  norms = {f"{own}_layer_norm": "attention_norm", "mlp_layer_norm": "ffw_norm"}
  yield from _attention(shape, width, own, "attn", layout.joined)
  if stack == "decoder":
    norms["cross_attention_layer_norm"] = "cross_attention_norm"
    yield from _attention(
      shape,
      config.encoder.emb_dim,
      "encoder_decoder_attention",
      "cross_attn",
      False,
    )
  for norm, name in norms.items():
    for side in ("pre", "post"):
      yield f"{side}_{norm}/scale", Piece(f"{side}_{name}/scale", (width,))
  gate = (2, mlp, width) if layout.width_last else (2, width, mlp)
  order = (1, 0) if layout.width_last else ()
  for i in range(2):
    yield f"mlp/wi_{i}/kernel", Piece("mlp/gating_einsum", gate, i, order)
  yield "mlp/wo/kernel", Piece("mlp/linear", (mlp, width))


def _attention(
  shape: Stack, source: int, path: str, name: str, joined: bool
) -> Iterator[tuple[str, Piece]]:
  """The parameters of an attention to places of the width `source`."""
  width, size = shape.emb_dim, shape.head_dim
  heads, keys = shape.num_heads, shape.num_kv_heads
  order: Any = (1, 0, 2)
  if joined:
    whole = (3, heads, width, size)
    for i, matrix in enumerate(("query", "key", "value")):
      yield (
        f"{path}/{matrix}/kernel",
        Piece(f"{name}/qkv_einsum", whole, i, order),
      )
  else:
    query = Piece(f"{name}/q_einsum", (heads, width, size), None, order)
    yield f"{path}/query/kernel", query
    whole = (2, keys, source, size)
    for i, matrix in enumerate(("key", "value")):
      yield (
        f"{path}/{matrix}/kernel",
        Piece(f"{name}/kv_einsum", whole, i, order),
      )
  out = Piece(f"{name}/attn_vec_einsum", (heads, size, width))
  yield f"{path}/out/kernel", out
