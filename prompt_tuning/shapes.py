"""The letters of every array shape, the array types, the first token ids, and
what lets equal shapes and settings share a compiled program.

    B  examples of a batch          E  embedding width
    T  input tokens                 V  rows of the embedding table
    L  target tokens                N  prompts in a bank
    P  positions of a prompt        K  beams or samples of an example
    H  attention heads              D  width of one head
    Q  positions that attend        S  positions that are attended to
    C  labels that are ranked       M  width of the feed-forward part

Docstrings write shapes as `[B, P + T, E]`. Annotations are jaxtyping's
(`Float[Array, 'B T E']`); the test suite checks them at every call.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, TypeVar

import jax
from jaxtyping import Bool, Float, Int, Shaped
import numpy as np

Array = jax.Array | np.ndarray
"""An array of JAX, traced or not, or of numpy."""

PyTree = Any
"""Nested dictionaries of arrays."""

PAD, EOS, UNK = 0, 1, 2
"""The first ids of every T5 vocabulary; a decoder starts from PAD."""

_MULTIPLE = 8


def rounded(length: int, *, few: bool = False) -> int:
  """The padded length of `length` tokens: the next multiple of 8.

  All padding in the package goes by it, so that lengths that are nearly equal
  share a compiled program.

  Args:
    length: tokens.
    few: the next of 8, 16, 32, 64 … instead: a handful of programs for every
      length that may come.
  """
  multiple = -(-length // _MULTIPLE) * _MULTIPLE
  return power_of_two(multiple) if few else multiple


def power_of_two(count: int) -> int:
  """The smallest power of two that is not below `count`, which is above 0."""
  return 1 << (count - 1).bit_length()


def padded(
  rows: Sequence[Sequence[int] | np.ndarray], length: int = 0
) -> Int[np.ndarray, "B T"]:
  """Rows of ids as one array, PAD behind them."""
  length = max(length, max(len(row) for row in rows))
  array = np.full((len(rows), length), PAD, np.int32)
  for i, row in enumerate(rows):
    array[i, : len(row)] = row
  return array


Made = TypeVar("Made")

_FEW = 16


def remembered(make: Callable[..., Made]) -> Callable[..., Made]:
  """`make`, whose results for the last 16 arguments are kept.

  What JAX has traced and compiled belongs to a function object: made anew from
  the same settings it would be traced and compiled again. So a second run,
  evaluation or model of the same settings in one process gets the function of
  the first. Arguments without a hash (an array, say) are passed on, and nothing
  is kept.
  """
  kept = functools.lru_cache(_FEW, typed=True)(make)

  @functools.wraps(make)
  def made(*args, **kwargs):
    try:
      hash((args, *kwargs.items()))
    except TypeError:
      return make(*args, **kwargs)
    return kept(*args, **kwargs)

  return made


__all__ = [
  "EOS",
  "PAD",
  "UNK",
  "Array",
  "Bool",
  "Float",
  "Int",
  "PyTree",
  "padded",
  "Shaped",
  "power_of_two",
  "remembered",
  "rounded",
]
