"""What a prompt has inside the network, beyond its rows in front.

    deep       x = keep * x + row      at its places, before encoder layers 1 …
    vectors    keys, values, hidden    of every layer, each times its own (IA3)
    decoder    rows in front of the decoder's input

A module that returns `tensors()` has some of these, see `of`; the network asks
for them. Where a prompt has none of one kind, keep = 1, row = 0 and vectors of
ones compute what the plain network computes, so a bank mixes all kinds.

The placeholders in an example name the rows of its prompt. What has no place
there is found by the mark, the id `-1 - prompt_id` in front of a row of tokens:
ids below 0 are padding, which nothing attends to. A bank of one has no marks.
"""

from typing import NamedTuple

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model import inject
from prompt_tuning.shapes import Array, Bool, Float, Int, PyTree

VECTORS = ("keys", "values", "hidden")
"""What is multiplied in every encoder layer, `encoder_keys` for example."""

DECODER_VECTORS = ("keys", "values", "cross_keys", "cross_values", "hidden")
"""The same of every decoder layer; `cross_` is of its look at the input."""

NO_PLACE = -1
"""In front of a decoder prompt that is shorter than others of its bank."""


class Inside(NamedTuple):
  """What the prompts of a bank have in a network.

  Attributes:
    encoder: for its layers, by name, [N, layers, …].
    decoder: for its layers.
    rows: in front of the decoder's input.
    lengths: how many of those each prompt has, the last ones.
    is_marked: whether the mark says which prompt an example uses.
  """

  encoder: PyTree
  decoder: PyTree
  rows: Float[Array, "N Q E"] | None = None
  lengths: tuple[int, ...] = ()
  is_marked: bool = False


class OfStack(NamedTuple):
  """What the layers of one stack get.

  Attributes:
    tensors: by name, [N, layers, …].
    tokens: the tokens whose places deep rows have.
    prompt_id: of every example or, in packed rows, place; None in a bank of 1.
  """

  tensors: PyTree
  tokens: Int[Array, "B T"] | None = None
  prompt_id: Int[Array, "B _"] | None = None

  def enter(self, x: Float[Array, "B T E"], own) -> Float[Array, "B T E"]:
    """A layer's input, with its deep rows [N, P, E]."""
    if not own or "deep" not in own:
      return x
    assert self.tokens is not None
    length, width = own["deep"].shape[1:]
    rows = own["deep"].reshape(-1, width).astype(x.dtype)
    row = jnp.clip(self.tokens - inject.PLACEHOLDER, 0, rows.shape[0] - 1)
    keep = jnp.take(own["keep"].astype(x.dtype), row // length)[..., None]
    deep = keep * x + jnp.take(rows, row, axis=0)
    return jnp.where(inject.is_placeholder(self.tokens)[..., None], deep, x)

  def vectors(self, own) -> dict[str, Float[Array, "#B #T _"]]:
    """A layer's vectors [N, _], for each example or place."""
    chosen = {k: v for k, v in (own or {}).items() if k in DECODER_VECTORS}
    if self.prompt_id is None:
      return {k: v[None] for k, v in chosen.items()}
    return {k: v[self.prompt_id] for k, v in chosen.items()}


NOTHING = OfStack({})
"""For a stack without anything inside."""


def of(module: nn.Module | None) -> Inside:
  """What a prompt's module has in the network, from its `tensors()`.

  Those are `deep` [N, layers - 1, P, E] and `keep` [N, layers - 1], the vectors
  [N, layers, _] and `decoder_embedding` [N, Q, E]. A module may have
  `decoder_lengths` too.
  """
  if not hasattr(module, "tensors"):
    return Inside({}, {})
  tensors = module.tensors()  # pyright: ignore[reportOptionalMemberAccess]
  if module.num_prompts is None:  # pyright: ignore
    tensors = {name: tensor[None] for name, tensor in tensors.items()}
  encoder, decoder = (
    {
      name: tensors[f"{stack}_{name}"]
      for name in DECODER_VECTORS
      if f"{stack}_{name}" in tensors
    }
    for stack in ("encoder", "decoder")
  )
  if "deep" in tensors:
    # The rows before layer 0 are those in front.
    first = ((0, 0), (1, 0))
    deep = jnp.pad(tensors["deep"], (*first, (0, 0), (0, 0)))
    keep = jnp.pad(tensors["keep"], first, constant_values=1)
    encoder |= {"deep": deep, "keep": keep}
  rows = tensors.get("decoder_embedding")
  lengths = ()
  if rows is not None:
    own = getattr(module, "decoder_lengths", ())
    lengths = own or (rows.shape[1],) * rows.shape[0]
  every = next(iter(tensors.values()))
  needs_mark = rows is not None or {*encoder, *decoder} - {"deep", "keep"}
  is_marked = bool(needs_mark) and every.shape[0] > 1
  return Inside(encoder, decoder, rows, lengths, is_marked)


def mark(
  tokens: Int[np.ndarray, "B T"], prompt_id: Int[np.ndarray, "B"]
) -> Int[np.ndarray, "B 1+T"]:
  """Puts the mark of each example's prompt in front of its tokens."""
  marks = (-1 - prompt_id.astype(np.int32))[:, None]
  return np.concatenate([marks, tokens], axis=1)


def marked(
  tokens: Int[Array, "B T"], segments: Int[Array, "B T"] | None = None
) -> Int[Array, "B _"]:
  """The prompt of each example [B, 1] or, in packed rows, of each place [B, T].

  It is the one that the last mark up to a place names.
  """
  if segments is None:
    tokens = tokens[:, :1]
  place = jnp.where(tokens < 0, jnp.arange(tokens.shape[1]), 0)
  last = jnp.maximum.accumulate(place, axis=1)
  return jnp.maximum(-1 - jnp.take_along_axis(tokens, last, axis=1), 0)


def of_targets(
  prompt_id: Int[Array, "B T"],
  segments: tuple[Int[Array, "B L"], Int[Array, "B T"]],
) -> Int[Array, "B L"]:
  """The prompt of each target in packed rows, by its segment."""
  own, source = segments
  same = own[:, :, None] == source[:, None, :]
  return jnp.where(same, prompt_id[:, None, :], 0).max(axis=2)


def places(
  found: Inside, prompt_id: Int[Array, "B _"] | None, batch: int
) -> Int[Array, "B Q"] | None:
  """What stands in front of every decoder input; None for nothing."""
  if found.rows is None:
    return None
  length = found.rows.shape[1]
  first = jnp.zeros((batch, 1), jnp.int32) if prompt_id is None else prompt_id
  column = jnp.arange(length, dtype=jnp.int32)
  missing = length - jnp.asarray(found.lengths, jnp.int32)[first]
  named = inject.PLACEHOLDER + first * length + column
  return jnp.where(column < missing, NO_PLACE, named)


def filled(
  found: Inside, tokens: Int[Array, "B _"] | None, span: int
) -> Bool[Array, "B 1 1 {span}"] | bool:
  """Which of the decoder's places are some, where prompts differ in length.

  Args:
    found: the bank's.
    tokens: the first of the decoder's input.
    span: how many places there are.
  """
  if tokens is None or len(set(found.lengths)) < 2:
    return True
  behind = ((0, 0), (0, span - tokens.shape[1]))
  real = jnp.pad(tokens > NO_PLACE, behind, constant_values=True)
  return real[:, None, None]
