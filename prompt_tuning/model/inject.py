"""How a prompt gets into an encoder: placeholder ids, swapped when embedded.

    text         [  t1   t2  t3 EOS]               [B, T]
    reserve      [p0 p1 p2  t1   t2  t3 EOS]       [B, P + T]
    embed        rows of the table, prompt rows where placeholders stand

A placeholder's id names one row of the bank [N, P, E]: `PLACEHOLDER +
prompt_id * P + position`. So the tokens alone say which prompt an example
uses: examples with different prompts share a batch, packed segments bring
their own, and masks and relative positions of any T5 come out right because a
placeholder is a token like any other (its id is above 0). In a bank of prompts
of different lengths a shorter one stands at the end of its places, and those in
front of it are padding: masked, with no distance that T5 sees changed.
"""

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from prompt_tuning.shapes import PAD, Array, Bool, Float, Int

PLACEHOLDER = 1 << 30
"""The first placeholder id: far above every vocabulary."""


def is_placeholder(tokens: Int[Array, "*B"]) -> Bool[Array, "*B"]:
  """Which tokens stand for a prompt's row."""
  return tokens >= PLACEHOLDER


def reserve(
  tokens: Int[np.ndarray, "B T"],
  prompt_id: Int[np.ndarray, "B"],
  length: int,
  own_length: Int[np.ndarray, "B"] | None = None,
) -> Int[np.ndarray, "B {length}+T"]:
  """Puts `length` places for each example's prompt in front of its tokens.

  Args:
    tokens: [B, T], padded with 0.
    prompt_id: [B], the example's prompt in the bank.
    length: P; 0 returns the tokens as they are.
    own_length: [B], how many of the P places the example's prompt has, the last
      ones; None for all.

  Raises:
    ValueError: a prompt_id is negative, or the bank has too many positions.
  """
  if prompt_id.size and not (
    prompt_id.min() >= 0 and (prompt_id.max() + 1) * length <= PLACEHOLDER
  ):
    raise ValueError(
      f"prompt_id runs from {prompt_id.min()} to {prompt_id.max()}; with "
      f"prompts of {length} positions it must be from 0 to "
      f"{PLACEHOLDER // max(length, 1) - 1}."
    )
  first = PLACEHOLDER + prompt_id.astype(np.int32)[:, None] * length
  column = np.arange(length, dtype=np.int32)
  places = first + column
  if own_length is not None:
    places[column < length - own_length[:, None]] = PAD
  return np.concatenate([places, tokens.astype(np.int32)], axis=1)


def swap(
  embedded: Float[Array, "B T E"],
  tokens: Int[Array, "B T"],
  prompt: Float[Array, "*N P E"],
) -> Float[Array, "B T E"]:
  """Replaces the embedding of every placeholder by its row of the prompt.

  The prompt keeps its own dtype until here, where it takes the embedding's.
  """
  rows = prompt.reshape(-1, prompt.shape[-1]).astype(embedded.dtype)
  if not rows.shape[0]:
    return embedded
  row = jnp.clip(tokens - PLACEHOLDER, 0, rows.shape[0] - 1)
  chosen = jnp.take(rows, row, axis=0, mode="clip")
  return jnp.where(is_placeholder(tokens)[..., None], chosen, embedded)


class PromptedEmbedding(nn.Module):
  """An embedding that swaps a prompt in; it owns no parameter itself.

  Attributes:
    embed: any module from tokens [B, T] to vectors [B, T, E].
    prompt: a module that returns the prompt's rows [..., E].
  """

  embed: nn.Module
  prompt: nn.Module

  def __call__(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T E"]:
    words = jnp.where(is_placeholder(tokens), 0, tokens)
    return swap(self.embed(words), tokens, self.prompt())
