"""The tensors of a prompt that has more than rows in front, by name.

    embedding          [P, E]               in front of the input
    deep, keep         [layers - 1, P, E], [layers - 1]
                                            keep * hidden + deep, layers 1 …
    encoder_keys …     [layers, A or F]     factors of keys, values, hidden
    decoder_embedding  [Q, E]               in front of the decoder's input

A prompt has some of these; they are what its file holds. `bank` puts prompts of
all kinds and lengths into one module, each as if alone: what one of them does
not have computes nothing (see `model.inside`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from prompt_tuning import storage
from prompt_tuning.model import inside, t5
from prompt_tuning.prompts import initializers
from prompt_tuning.prompts.reparameterised import zeros
from prompt_tuning.shapes import Array, Float, PyTree

Tensors = Mapping[str, np.ndarray]
"""Of one prompt, by name."""

ROWS, DECODER_ROWS = "embedding", "decoder_embedding"

SHAPES = "tensors"
"""What a prompt's record calls their shapes."""


def vector_shapes(config: t5.Config) -> dict[str, tuple[int, int]]:
  """The names of IA3's vectors, and their shapes in a network."""
  encoder, decoder = config.widths("encoder"), config.widths("decoder")
  stacks = {
    "encoder": (inside.VECTORS, encoder),
    "decoder": (inside.DECODER_VECTORS, decoder),
  }
  return {
    f"{stack}_{name}": (
      own.layers,
      own.hidden if name == "hidden" else own.keys,
    )
    for stack, (names, own) in stacks.items()
    for name in names
  }


def _shapes(found: Tensors, config: t5.Config) -> dict[str, tuple[int, ...]]:
  """What the tensors' shapes must be, but for the lengths that they have."""
  width, deeper = config.emb_dim, config.num_encoder_layers - 1

  def rows(name):
    has_rows = name in found and found[name].ndim >= 2
    return found[name].shape[-2] if has_rows else 1

  return {
    ROWS: (rows(ROWS), width),
    "deep": (deeper, rows(ROWS), width),
    "keep": (deeper,),
    DECODER_ROWS: (rows(DECODER_ROWS), config.widths("decoder").emb_dim),
    **vector_shapes(config),
  }


NAMES = frozenset(
  {ROWS, "deep", "keep", DECODER_ROWS}
  | {f"encoder_{name}" for name in inside.VECTORS}
  | {f"decoder_{name}" for name in inside.DECODER_VECTORS}
)
"""Of all tensors that a prompt may have."""


def has_vectors(found: Tensors) -> bool:
  """Whether there are some of IA3's among a prompt's tensors."""
  return any(name.endswith(inside.DECODER_VECTORS) for name in found)


def check(found: Tensors, path) -> None:
  """Checks tensors that came from outside.

  Raises:
    ValueError: one is of no prompt, or not finite, or they do not go together.
  """
  if not found:
    raise ValueError(f"{path} holds no tensors; a prompt has one at least.")
  for name, tensor in found.items():
    if name not in NAMES:
      raise ValueError(
        f"{path} holds a tensor {name!r}, which no prompt has; there are "
        f"{', '.join(sorted(NAMES))}."
      )
    is_float = np.issubdtype(tensor.dtype, np.floating)
    if not is_float or not tensor.size or not tensor.ndim:
      raise ValueError(
        f"{path}: {name} has shape {tensor.shape} and type {tensor.dtype}; it "
        "must be an array of floats, and not empty."
      )
    if not initializers.is_finite(tensor).all():
      raise ValueError(
        f"{path}: {name} has NaN or infinity in it. It cannot be used."
      )
  if ("deep" in found) != ("keep" in found) or (
    "deep" in found and ROWS not in found
  ):
    raise ValueError(
      f"{path} has the tensors {', '.join(sorted(found))}; deep, keep and "
      f"{ROWS} belong together."
    )


def check_plain(found: Tensors, path, purpose: str) -> None:
  """Refuses a prompt that has tensors, where nothing but rows is of use.

  Raises:
    ValueError: it has some; the message names the purpose.
  """
  more = ", ".join(sorted({*found} - {ROWS}))
  if more:
    raise ValueError(
      f"{path} is more than rows in front of an input (it has {more}), and "
      f"{purpose} has rows alone. Use it with eval, infer, ensemble or "
      "PromptedModel, or train a plain prompt."
    )


def read(path) -> dict[str, np.ndarray] | None:
  """Reads a file of tensors; None where it has one alone, of another name.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is damaged, or of no prompt.
  """
  stored, _ = storage.open_tensors(path)
  if len(stored) == 1 and not stored.keys() <= NAMES:
    return None
  found = {name: tensor.read() for name, tensor in stored.items()}
  check(found, path)
  return found


def contents(values: Tensors, path) -> tuple[dict[str, Any], bytes]:
  """What a prompt's record says of its tensors, and their file.

  Raises:
    ValueError: they are of no prompt.
  """
  found = {k: np.asarray(v, np.float32) for k, v in sorted(values.items())}
  check(found, path)
  return {
    SHAPES: {name: list(tensor.shape) for name, tensor in found.items()},
    "tensor_sha256": storage.tree_hash(found),
  }, storage.tensor_bytes(found)


def check_fits(found: Tensors, config: t5.Config, path) -> None:
  """Compares tensors with the network that they shall be used in.

  Raises:
    ValueError: a shape is that of another network.
  """
  needed = _shapes(found, config)
  for name, tensor in found.items():
    if tensor.shape != needed[name]:
      raise ValueError(
        f"{path}: {name} has shape {tensor.shape}; the frozen model needs "
        f"{needed[name]}. The prompt was trained for a model of another size."
      )


class Bank(nn.Module):
  """Saved prompts of several kinds side by side.

  Attributes:
    length: P, of the longest.
    emb_dim: E.
    num_prompts: N.
    shapes: of the tensors that a prompt has, by name.
    decoder_lengths: how many rows of the decoder each prompt has.
  """

  length: int
  emb_dim: int
  num_prompts: int
  shapes: tuple[tuple[str, tuple[int, ...]], ...]
  decoder_lengths: tuple[int, ...] = ()

  def __call__(self) -> Float[Array, "N P E"]:
    empty = jnp.zeros((self.num_prompts, 0, self.emb_dim))
    return self.tensors().get(ROWS, empty)

  @nn.compact
  def tensors(self) -> dict[str, Array]:
    """What its prompts have, filled up."""
    return {
      name: zeros(self, name, self.num_prompts, *shape, banks=1)
      for name, shape in self.shapes
    }


def lengths_of(prompts: Sequence[Tensors], name: str = ROWS) -> tuple[int, ...]:
  """How many rows of a name each prompt has."""
  return tuple(len(one[name]) if name in one else 0 for one in prompts)


def bank(prompts: Sequence[Tensors], config: t5.Config) -> tuple[Bank, PyTree]:
  """One module for prompts of all kinds, and its parameters."""
  longest = {
    name: max(lengths_of(prompts, name)) for name in (ROWS, DECODER_ROWS)
  }
  widest = {name: np.zeros((rows, 0)) for name, rows in longest.items()}
  needed = _shapes(widest, config)
  have = sorted({name for one in prompts for name in one})
  module = Bank(
    longest[ROWS],
    config.emb_dim,
    len(prompts),
    tuple((name, needed[name]) for name in have),
    lengths_of(prompts, DECODER_ROWS) if longest[DECODER_ROWS] else (),
  )
  return module, {
    name: np.stack([_filled(one, name, needed[name]) for one in prompts])
    for name in have
  }


def _filled(one: Tensors, name: str, shape: tuple[int, ...]) -> np.ndarray:
  """A prompt's tensor, in front of which there may be places of others."""
  nothing = 0.0 if name in (ROWS, "deep", DECODER_ROWS) else 1.0
  if name not in one:
    return np.full(shape, nothing, np.float32)
  missing = [to - of for to, of in zip(shape, one[name].shape, strict=True)]
  return np.pad(np.float32(one[name]), [(each, 0) for each in missing])
