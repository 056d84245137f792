"""The letters of every array shape, the array types, the first token ids.

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

from typing import Any

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


def rounded(length: int) -> int:
  """The padded length of `length` tokens: the next multiple of 8.

  All padding in the package goes by it, so that lengths that are nearly equal
  share a compiled program.
  """
  return -(-length // _MULTIPLE) * _MULTIPLE


__all__ = [
  "EOS",
  "PAD",
  "UNK",
  "Array",
  "Bool",
  "Float",
  "Int",
  "PyTree",
  "Shaped",
  "rounded",
]
