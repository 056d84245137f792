"""A term of the loss that pulls a prompt towards the embedding of a text.

    loss + gamma * sum_t |P_t - embed(text)_t|^2 / T

The T tokens of the text pull the first T positions; those behind them are free.
Khashabi et al. 2022, "Prompt waywardness": a prompt that does its task may
read, piece by nearest piece, as a text about anything else.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import string
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning import spelling
from prompt_tuning.prompts.initializers import Source
from prompt_tuning.shapes import Array, Float

METRIC = "wayward"
"""What the term is called beside the loss."""


@dataclasses.dataclass(frozen=True)
class Pull:
  """The term for every prompt of a bank.

  Attributes:
    texts: of each prompt, its fields filled.
    gamma: how strongly they pull.
    rows: the embeddings [N, P, E] of their tokens, 0 behind a text's end.
    weights: [N, P], gamma / T at the places of a text of T tokens, else 0.
  """

  texts: tuple[str, ...]
  gamma: float
  rows: Float[np.ndarray, "N P E"]
  weights: Float[np.ndarray, "N P"]

  def __call__(self, rows: Float[Array, "N P E"]) -> Float[Array, "N"]:
    """The term of each prompt, of its rows."""
    squares = jnp.square(rows - self.rows).sum(axis=-1)
    return (self.weights * squares).sum(axis=-1)

  def record(self, n: int) -> dict[str, Any]:
    """What the record of prompt n says of it."""
    return {METRIC: {"text": self.texts[n], "gamma": self.gamma}}


def pull(
  texts: Sequence[str], sources: Sequence[Source], length: int, *, gamma: float
) -> Pull:
  """The term that pulls prompts of P positions to a text each.

  Args:
    texts: of the prompts of a bank.
    sources: what encodes each of them.
    length: P.
    gamma: the weight of the term.

  Raises:
    ValueError: a text has no tokens, or more than P.
  """
  width = sources[0].embedding.shape[1]
  rows = np.zeros((len(texts), length, width), np.float32)
  weights = np.zeros((len(texts), length), np.float32)
  for n, (text, source) in enumerate(zip(texts, sources, strict=True)):
    ids = source.encode(text)
    if not 1 <= len(ids) <= length:
      raise ValueError(
        f"WAYWARD_TEXT is {text!r}, which has {len(ids)} tokens, and each of "
        f"them pulls a position of PROMPT_LENGTH={length}. Give a text of 1 to "
        f"{length} tokens, or set PROMPT_LENGTH to {len(ids)} or more."
      )
    rows[n, : len(ids)] = source.embedding[np.asarray(ids, int)]
    weights[n, : len(ids)] = gamma / len(ids)
  return Pull(tuple(texts), gamma, rows, weights)


def filled(text: str, fields: Mapping[str, Any]) -> str:
  """The text with its {fields} in place.

  Raises:
    ValueError: a field is not there, or a brace stands alone.
  """
  formatter, known = string.Formatter(), list(fields)
  try:
    names = [name for _, name, *_ in formatter.parse(text) if name is not None]
  except ValueError as error:
    raise ValueError(
      f"WAYWARD_TEXT={text!r} has a brace that begins or ends no field "
      f"({error}). Write {{{{ and }}}} for braces of the text itself."
    ) from error
  for name in names:
    if name not in known:
      have = f"There are {', '.join(known)}."
      hint = spelling.hint(name, known, have)
      raise ValueError(f"WAYWARD_TEXT={text!r} has the field {name!r}. {hint}")
  try:
    return formatter.vformat(text, (), fields)
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"WAYWARD_TEXT={text!r} says how to write a field, and it cannot be "
      f"written so ({error}). Write the name alone, {{task}} for example."
    ) from error


def check(text: Any, gamma: Any) -> None:
  """Refuses settings that are none.

  Raises:
    ValueError: the text is no text, or gamma no number above 0.
  """
  if not isinstance(text, str):
    raise ValueError(
      f"WAYWARD_TEXT={text!r} is no text. Give one in quotes, or None."
    )
  is_number = isinstance(gamma, int | float) and not isinstance(gamma, bool)
  if not is_number or not 0 < gamma < float("inf"):
    raise ValueError(
      f"WAYWARD_GAMMA={gamma!r}; give a number above 0, for example 0.01, or "
      "leave WAYWARD_TEXT out for no pull."
    )
