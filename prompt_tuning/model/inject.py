"""How a prompt gets into an encoder: placeholder ids, swapped when embedded.

    text         [  t1   t2  t3 EOS]               [B, T]
    reserve      [p0 p1 p2  t1   t2  t3 EOS]       [B, P + T]
    embed        rows of the table, prompt rows where placeholders stand

A placeholder's id names one row of the bank [N, P, E]: `PLACEHOLDER +
prompt_id * P + position`. So the tokens alone say which prompt an example
uses: examples with different prompts share a batch, packed segments bring
their own, and masks and relative positions of any T5 come out right because a
placeholder is a token like any other (its id is above 0). In a bank of prompts
of different lengths a shorter one has padding in front of its example: masked,
with no distance that T5 sees changed.

Where the places stand in the text is the caller's choice (`PLACES`), and so is
what they attend to in the encoder (`PromptMask`).
"""

from collections.abc import Sequence
import dataclasses

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from prompt_tuning import spelling
from prompt_tuning.shapes import EOS, PAD, Array, Bool, Float, Int

PLACEHOLDER = 1 << 30
"""The first placeholder id: far above every vocabulary."""

PLACES = ("front", "after_first", "before_end", "after_end")
"""Where a prompt may stand: in front of its input, behind the first token, in
front of EOS (at the end, where there is none), behind EOS."""

FRONT = PLACES[0]

SIGHTS = ("prompt_to_prompt", "prompt_to_prompt_causal", "prompt_to_input")
"""What positions of a prompt may attend to: all of the prompt, itself and those
before it, the input. The input attends to everything, whatever they do."""


@dataclasses.dataclass(frozen=True)
class Placing:
  """Where a prompt stands, and what it attends to in the encoder.

  Attributes:
    place: one of `PLACES` (PROMPT_PLACE).
    attention: some of `SIGHTS`, together; None for everything, which no mask
      computes (PROMPT_ATTENTION).
  """

  place: str = FRONT
  attention: Sequence[str] | None = None

  def __post_init__(self):
    _check("PROMPT_PLACE", self.place, PLACES)
    if self.attention is None:
      return
    given = self.attention
    if not isinstance(given, Sequence):
      raise ValueError(
        f"PROMPT_ATTENTION={given!r} is no list of names. Name some of "
        f"{', '.join(SIGHTS)}, or leave it out for everything."
      )
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
      _check("PROMPT_ATTENTION", name, SIGHTS)
    if not names:
      raise ValueError(
        f"PROMPT_ATTENTION={given!r} lets a prompt attend to nothing. Name "
        f"some of {', '.join(SIGHTS)}, or leave it out for everything."
      )
    kept = tuple(name for name in SIGHTS if name in names)
    object.__setattr__(self, "attention", kept)

  def record(self) -> dict:
    """What a prompt's record says of it: nothing of what is as ever."""
    record: dict = {}
    if self.place != FRONT:
      record["place"] = self.place
    if self.attention is not None:
      record["attention"] = list(self.attention)
    return record


def _check(setting: str, value, known: Sequence[str]) -> None:
  if value not in known:
    have = f"There are {', '.join(known)}."
    raise ValueError(
      f"{setting}={value!r} is not known. "
      f"{spelling.hint(str(value), known, have)}"
    )


IN_FRONT = Placing()
"""As ever: in front of the input, attending to everything."""


def placings(
  place: str | Sequence[str] = FRONT, attention: Sequence[str] | None = None
) -> list[Placing]:
  """A placing for each place that is named, of one attention."""
  names = [place] if isinstance(place, str) else list(place)
  return [Placing(name, attention) for name in names]


def is_placeholder(tokens: Int[Array, "*B"]) -> Bool[Array, "*B"]:
  """Which tokens stand for a prompt's row."""
  return tokens >= PLACEHOLDER


def is_word(tokens: Int[Array, "*B"]) -> Bool[Array, "*B"]:
  """Which tokens are of the vocabulary, and no place or mark of a prompt."""
  return (tokens >= PAD) & (tokens < PLACEHOLDER)


def reserve(
  tokens: Int[np.ndarray, "B T"],
  prompt_id: Int[np.ndarray, "B"],
  length: int,
  own_length: Int[np.ndarray, "B"] | None = None,
  *,
  at: Int[np.ndarray, "B"] | None = None,
) -> Int[np.ndarray, "B {length}+T"]:
  """Puts `length` places for each example's prompt among its tokens.

  Args:
    tokens: [B, T], padded with 0.
    prompt_id: [B], the example's prompt in the bank.
    length: P; 0 returns the tokens as they are.
    own_length: [B], how many of the P places the example's prompt has, the last
      ones; None for all.
    at: [B], how many tokens stand in front of them, see `columns`; None for
      none.

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
  spare = np.zeros((len(tokens), 1), np.int32)
  if own_length is not None:
    spare = length - own_length[:, None]
    places[column < spare] = PAD
  whole = np.concatenate([places, tokens.astype(np.int32)], axis=1)
  if at is None:
    return whole
  # Padding, the text up to the places, the places, the rest of the text.
  column, at = np.arange(whole.shape[1]), at[:, None]
  source = np.where(column < length + at, column - at, column)
  source = np.where(column < spare + at, length + column - spare, source)
  source = np.where(column < spare, column, source)
  return np.take_along_axis(whole, source, axis=1)


def columns(
  tokens: Int[np.ndarray, "B T"],
  places: Sequence[str],
  prompt_id: Int[np.ndarray, "B"],
) -> Int[np.ndarray, "B"] | None:
  """How many tokens stand in front of each example's prompt; None for none.

  Args:
    tokens: padded with 0.
    places: of every prompt of the bank, see `PLACES`.
    prompt_id: the example's prompt in the bank.
  """
  if all(place == FRONT for place in places):
    return None
  length = np.max(
    np.where(tokens != PAD, 1 + np.arange(tokens.shape[1]), 0), axis=1
  )
  ends = (tokens == EOS) & (np.arange(tokens.shape[1]) == length[:, None] - 1)
  of_place = {
    "front": np.zeros_like(length),
    "after_first": np.minimum(1, length),
    "before_end": length - ends.any(axis=1),
    "after_end": length,
  }
  every = np.stack([of_place[place] for place in places])
  return every[prompt_id, np.arange(len(tokens))]


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


@dataclasses.dataclass(frozen=True)
class PromptMask:
  """What may attend to what in an encoder, besides padding and segments.

  Attributes:
    length: P of the bank.
    attention: of every prompt of the bank, see `Placing`.
  """

  length: int
  attention: tuple[Sequence[str] | None, ...]

  def __call__(self, tokens: Int[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Which positions (the first T) attend to which (the second)."""
    chosen = [SIGHTS if own is None else own for own in self.attention]
    may = np.array([[name in own for name in SIGHTS] for own in chosen])
    is_prompt = is_placeholder(tokens)
    number = (tokens - PLACEHOLDER) // self.length
    of_token = jnp.asarray(may)[jnp.where(is_prompt, number, 0)]
    whole, causal, towards_input = jnp.moveaxis(of_token[..., None], 2, 0)
    before = np.tri(tokens.shape[1], dtype=bool)
    among = whole | (causal & before)
    seen = jnp.where(is_prompt[:, None, :], among, towards_input)
    return ~is_prompt[:, :, None] | seen


def prompt_mask(length: int, placings: Sequence[Placing]) -> PromptMask | None:
  """The mask of a bank; None where no prompt needs one."""
  sets = tuple(placing.attention for placing in placings)
  if not length or set(sets) <= {None}:
    return None
  return PromptMask(length, sets)
