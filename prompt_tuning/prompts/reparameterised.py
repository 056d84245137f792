"""Prompts that are computed from other parameters while they train.

    Residual       P + LayerNorm(relu(P D) U)     one small network per prompt
    LowRank        A B                            A [P, r], B [r, E]
    ULPT           s * (Z R) + b                  R [r, E] random, frozen
    Superposition  W X                            X [M, E] of the vocabulary

Each returns rows [N, P, E] (`prompt.Rows`), so that a run ends with a plain
prompt. A bank's prompts have nothing in common but the frozen model: N together
train as N alone. `residual()` and the others make what a run takes as its
module, a function of P, E and N.
"""

from collections.abc import Callable, Sequence
import functools

from flax import linen as nn
from flax.linen import partitioning
import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.prompts.prompt import ROWS_ALONE, Given, Rows
from prompt_tuning.shapes import Array, Float, PyTree

Method = Callable[[int, int, int | None], Rows]
"""From P, E and N to what trains."""

_EPSILON = 1e-6
_SMALLEST = 1e-2  # singular value, or root of one, beside the largest

matmul = functools.partial(jnp.matmul, precision="highest")
"""In float32 on every device, so that a file predicts as its run did."""


class Residual(nn.Module):
  """Rows with a small network around them, shared by a prompt's positions.

  P' = P + scale * norm(relu(P down) up) + bias (Razdaibiedina et al. 2023,
  "Residual Prompt Tuning", section 3). The network has no biases but that of
  its LayerNorm: P E + 2 E b + 2 E numbers train.

  Attributes:
    length: P.
    emb_dim: E.
    num_prompts: N.
    bottleneck: b, the width of the hidden layer.
  """

  length: int
  emb_dim: int
  num_prompts: int | None = None
  bottleneck: int = 64

  @nn.compact
  def __call__(self) -> Float[Array, "*N P E"]:
    rows = leaf(self, "embedding", self.length, self.emb_dim)
    down = leaf(self, "down", self.emb_dim, self.bottleneck)
    up = leaf(self, "up", self.bottleneck, self.emb_dim)
    scale = leaf(self, "scale", 1, self.emb_dim)
    bias = leaf(self, "bias", 1, self.emb_dim)
    wide = matmul(nn.relu(matmul(rows, down)), up)
    wide -= wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(wide).mean(axis=-1, keepdims=True)
    return rows + scale * (wide * jax.lax.rsqrt(variance + _EPSILON)) + bias

  def first_parameters(
    self, rows: Float[Array, "*N P E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """The rows, beside a random network whose scale is 0: exactly the rows."""
    wide, narrow = self.emb_dim, self.bottleneck
    empty = np.zeros((*rows.shape[:-2], 1, wide), np.float32)
    return {
      "embedding": rows,
      "down": drawn(rows, given, 0, (wide, narrow)) / np.float32(wide**0.5),
      "up": drawn(rows, given, 1, (narrow, wide)) / np.float32(narrow**0.5),
      "scale": empty,
      "bias": empty,
    }


def residual(bottleneck: int = 64) -> Method:
  """Residual prompts, see `Residual`."""
  check_size("BOTTLENECK", bottleneck)
  return functools.partial(Residual, bottleneck=bottleneck)


class LowRank(nn.Module):
  """A product of two thin matrices; r (P + E) numbers train.

  P' = left right (LoPT, DPT: "decomposed prompt tuning").

  Attributes:
    length: P.
    emb_dim: E.
    num_prompts: N.
    rank: r, at most the smaller of P and E.
  """

  length: int
  emb_dim: int
  num_prompts: int | None = None
  rank: int = 10

  @nn.compact
  def __call__(self) -> Float[Array, "*N P E"]:
    left = leaf(self, "left", self.length, self.rank)
    return matmul(left, leaf(self, "right", self.rank, self.emb_dim))

  def first_parameters(
    self, rows: Float[Array, "*N P E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """The nearest matrix of rank r, by singular values; all of it if r is full.

    Raises:
      ValueError: the rank is more than rows can have.
    """
    del given
    full = min(self.length, self.emb_dim)
    if self.rank > full:
      raise ValueError(
        f"RANK={self.rank} is more than a prompt of {self.length} positions "
        f"and width {self.emb_dim} can have. Set RANK to {full} or less."
      )
    left, values, right = np.linalg.svd(
      np.asarray(rows, np.float64), full_matrices=False
    )
    values, root = values[..., : self.rank], roots(values)[..., : self.rank]
    return {
      "left": np.float32(left[..., : self.rank] * root[..., None, :]),
      "right": np.float32(
        (values / root)[..., None] * right[..., : self.rank, :]
      ),
    }


def low_rank(rank: int = 10) -> Method:
  """Prompts of low rank, see `LowRank`."""
  check_size("RANK", rank)
  return functools.partial(LowRank, rank=rank)


class ULPT(nn.Module):
  """Short codes seen through a random frozen matrix; r P + 2 E numbers train.

  P' = scale * (codes fixed_projection) + shift ("ultra-low-dimensional prompt
  tuning"). The matrix is drawn from the seed of the run, N(0, 1 / r), whenever
  the run starts; it is in no file.

  Attributes:
    length: P.
    emb_dim: E.
    num_prompts: N.
    rank: r, the width of a code.
  """

  length: int
  emb_dim: int
  num_prompts: int | None = None
  rank: int = 64

  @nn.compact
  def __call__(self) -> Float[Array, "*N P E"]:
    codes = leaf(self, "codes", self.length, self.rank)
    projection = leaf(self, "fixed_projection", self.rank, self.emb_dim)
    scale = leaf(self, "scale", 1, self.emb_dim)
    shift = leaf(self, "shift", 1, self.emb_dim)
    return scale * matmul(codes, projection) + shift

  def first_parameters(
    self, rows: Float[Array, "*N P E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """The mean row as shift, and the codes nearest to the rest by squares.

    Exactly the rows where r is E or more; else what is left of them in the r
    random directions.
    """
    shape = (self.rank, self.emb_dim)
    projection = drawn(rows, given, 0, shape) / np.float32(self.rank**0.5)
    shift = np.mean(rows, axis=-2, keepdims=True, dtype=np.float64)
    codes = (rows - shift) @ np.linalg.pinv(np.asarray(projection, np.float64))
    return {
      "codes": np.float32(codes),
      "fixed_projection": projection,
      "scale": np.ones(shift.shape, np.float32),
      "shift": np.float32(shift),
    }


def ulpt(rank: int = 64) -> Method:
  """Codes behind a random projection, see `ULPT`."""
  check_size("RANK", rank)
  return functools.partial(ULPT, rank=rank)


class Superposition(nn.Module):
  """Weighted sums of rows of the vocabulary; P M numbers train.

  P' = weights fixed_words ("SuperPos-Prompt"): M different pieces are drawn by
  the seed of the run, whose frozen embeddings each position mixes with weights
  of its own, free in sign and size.

  Attributes:
    length: P.
    emb_dim: E.
    num_prompts: N.
    num_words: M.
  """

  length: int
  emb_dim: int
  num_prompts: int | None = None
  num_words: int = 128

  @nn.compact
  def __call__(self) -> Float[Array, "*N P E"]:
    weights = leaf(self, "weights", self.length, self.num_words)
    words = leaf(self, "fixed_words", self.num_words, self.emb_dim)
    return matmul(weights, words)

  def first_parameters(
    self, rows: Float[Array, "*N P E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """The weights nearest to the rows by squares.

    Directions in which the words hardly differ are left out, as they would need
    huge weights: so the start is not exactly the rows.

    Raises:
      ValueError: the vocabulary has fewer pieces, or there is none.
    """
    have = 0 if given.words is None else len(given.words)
    if given.words is None or self.num_words > have:
      raise ValueError(
        f"NUM_WORDS={self.num_words} different pieces are to be mixed, and the "
        f"vocabulary has {have}. Set NUM_WORDS to {have or 'its size'} or less."
      )
    found = [
      given.words[jax.random.choice(key, have, (self.num_words,), False)]
      for key in keys(rows, given, 0)
    ]
    shape = (*rows.shape[:-2], self.num_words, self.emb_dim)
    words = np.stack(found).astype(np.float32).reshape(shape)
    inverse = np.linalg.pinv(np.asarray(words, np.float64), rcond=_SMALLEST)
    return {"weights": np.float32(rows @ inverse), "fixed_words": words}


def superposition(num_words: int = 128) -> Method:
  """Mixtures of words, see `Superposition`."""
  check_size("NUM_WORDS", num_words)
  return functools.partial(Superposition, num_words=num_words)


def roots(values: Float[np.ndarray, "*N _"]) -> Float[np.ndarray, "*N _"]:
  """Square roots of singular values, but none far below the largest.

  They scale one factor of a product. If it and the other were 0 in a direction,
  neither would have a gradient there.
  """
  root = np.sqrt(values)
  largest = root.max(axis=-1, keepdims=True)
  return np.maximum(root, np.where(largest > 0, _SMALLEST * largest, 1.0))


def leaf(module, name: str, *shape: int) -> Float[Array, "..."]:
  """A parameter of every prompt of a module's bank, [*N, *shape].

  Its values come from `first_parameters`; Flax's `init` makes zeros. No rule of
  a mesh maps its axes, as those of a plain prompt.
  """
  bank = () if module.num_prompts is None else (module.num_prompts,)
  return zeros(module, name, *bank, *shape, banks=len(bank))


def zeros(module, name: str, *shape: int, banks: int = 0) -> Array:
  """A parameter that starts as zeros, with the names of its axes for t5x."""
  names = ("prompt_layers", "prompt_rows", "prompt_columns")
  axes = names[-(len(shape) - banks) :]
  return partitioning.param_with_axes(
    *(name, nn.initializers.zeros, shape, jnp.float32),
    axes=("prompts",) * banks + axes,
    module=module,
  )


def keys(
  rows: Float[Array, "*N P E"], given: Given, number: int
) -> Sequence[Array]:
  """The key of a drawing for each prompt, by the prompt's seed alone."""
  num_prompts = int(np.prod(rows.shape[:-2]))
  return [
    jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), number)
    for seed in given.seeds or (0,) * num_prompts
  ]


def drawn(
  rows: Float[Array, "*N P E"], given: Given, number: int, shape
) -> Float[Array, "*N _ _"]:
  """Normal numbers for each prompt, [*N, *shape]."""
  each = [jax.random.normal(key, shape) for key in keys(rows, given, number)]
  return np.asarray(jnp.stack(each)).reshape(*rows.shape[:-2], *shape)


def check_size(setting: str, value) -> None:
  """Refuses what is no size.

  Raises:
    ValueError: it is no whole number of 1 or more.
  """
  if not isinstance(value, int) or isinstance(value, bool) or value < 1:
    raise ValueError(
      f"{setting}={value!r} is no size; give a whole number of 1 or more."
    )
