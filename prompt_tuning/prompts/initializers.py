"""How a prompt starts: functions that build an initialiser [P, E].

    from_vocabulary() -> initialiser(key, length, source) -> float32 [P, E]

A `Source` holds what an initialiser may need of the frozen model: its embedding
table, its vocabulary and the task's class labels. Paper section 3.2 compares
random uniform, sampled vocabulary and class labels.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import storage
from prompt_tuning.prompts import prompt_files
from prompt_tuning.shapes import Array, Float

_DEFAULTS = {"scale": 0.5, "most_common": 5000, "class_labels": []}
"""Of the functions below, which no run names."""

SPECIAL = 3
"""PAD, EOS and UNK are the first three ids; they are no words."""


@dataclasses.dataclass(frozen=True)
class Source:
  """What the frozen model and the task offer to an initialiser.

  Attributes:
    embedding: the frozen table [V, E].
    encode: text to ids, without EOS.
    num_pieces: pieces of the vocabulary, sentinels not counted.
    labels: the class labels of the task.
    words: the pieces that may be drawn, the most common first; () for all but
      the special ones.
  """

  embedding: np.ndarray
  encode: Callable[[str], list[int]]
  num_pieces: int
  labels: Sequence[str] = ()
  words: Sequence[int] = ()


Initializer = Callable[[Array, int, Source], Float[Array, "P E"]]


def _telling(
  initializer: Initializer, settings: Callable[[], dict[str, Any]]
) -> Initializer:
  """An initialiser that says what it was built with, see `settings_of`."""
  vars(initializer)["settings"] = settings
  return initializer


def settings_of(
  initializers: Sequence[Initializer],
) -> list[dict[str, Any]] | None:
  """What initialisers were built with, but for their defaults; None if nothing.

  Two that differ in name or in this may start a prompt differently.
  """
  said = [getattr(each, "settings", dict)() for each in initializers]
  said = [
    {k: v for k, v in one.items() if v != _DEFAULTS.get(k)} for one in said
  ]
  return said if any(said) else None


def random_uniform(scale: float = 0.5) -> Initializer:
  """Numbers uniform in [-scale, scale]; the paper's range is 0.5."""
  is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
  if not is_number or not 0 <= scale < math.inf:
    raise ValueError(
      f"The scale of random_uniform is {scale!r}; give a number of 0 or more."
    )

  def initializer(key, length: int, source: Source):
    shape = (length, source.embedding.shape[1])
    return jax.random.uniform(key, shape, jnp.float32, -scale, scale)

  return _telling(initializer, lambda: {"scale": scale})


def _check_most_common(most_common) -> None:
  """Refuses what cannot be a number of pieces.

  Raises:
    ValueError: it is no whole number of 1 or more.
  """
  is_whole = isinstance(most_common, int | np.integer)
  if not is_whole or isinstance(most_common, bool) or most_common < 1:
    raise ValueError(
      f"most_common={most_common!r} is not a number of pieces to draw from; "
      "give a whole number of 1 or more (5000 if it is left out)."
    )


def from_vocabulary(most_common: int = 5000) -> Initializer:
  """Embeddings of different pieces drawn from the `most_common` first.

  A SentencePiece vocabulary is in the order of frequency. PAD, EOS, UNK,
  sentinels and the marks of a Gemma are left out. A prompt longer than that
  repeats pieces.

  Raises:
    ValueError: `most_common` is no whole number of 1 or more.
  """
  _check_most_common(most_common)

  def initializer(key, length: int, source: Source):
    words = source.words or range(SPECIAL, source.num_pieces)
    pieces = np.asarray(words[:most_common])
    if not len(pieces):
      raise ValueError(
        f"There is no piece to draw from: most_common={most_common}, the "
        f"vocabulary has {source.num_pieces} pieces."
      )
    repeat = length > len(pieces)
    drawn = jax.random.choice(key, pieces, (length,), replace=repeat)
    return _rows(source, np.asarray(drawn))

  return _telling(initializer, lambda: {"most_common": int(most_common)})


def from_class_labels(
  class_labels: Sequence[str] = (), most_common: int = 5000
) -> Initializer:
  """One position per class label: the mean of its pieces' embeddings.

  The positions behind the labels are sampled from the vocabulary.

  Args:
    class_labels: the labels; by default the distinct targets of the task.
    most_common: for the rest, as in `from_vocabulary`.

  Raises:
    ValueError: an argument is none of these.
  """
  _check_most_common(most_common)
  if isinstance(class_labels, str) or not all(
    isinstance(label, str) for label in class_labels
  ):
    raise ValueError(
      f"class_labels={class_labels!r} is no list of texts; give the labels as "
      "in ('yes', 'no')."
    )

  def initializer(key, length: int, source: Source):
    names = list(class_labels or source.labels)
    if not names:
      raise ValueError(
        "There are no class labels to start from. Set CLASS_LABELS, or choose "
        "another initialiser such as prompts/vocabulary.gin."
      )
    if len(names) > length:
      raise ValueError(
        f"PROMPT_LENGTH={length} has no room for {len(names)} class labels "
        f"({', '.join(names[:5])}, …). Set it to {len(names)} or more, name "
        "CLASS_LABELS, or choose another initialiser such as "
        "prompts/vocabulary.gin."
      )
    rows = []
    for name in names:
      ids = source.encode(name)
      if not ids:
        raise ValueError(f"The class label {name!r} has no pieces.")
      rows.append(_rows(source, ids).mean(axis=0))
    rest = from_vocabulary(most_common)(key, length - len(names), source)
    return jnp.concatenate([jnp.stack(rows), rest])

  settings = {"class_labels": [*class_labels], "most_common": int(most_common)}
  return _telling(initializer, lambda: settings)


def from_string(text: str, most_common: int = 5000) -> Initializer:
  """The embeddings of a text's pieces, then sampled vocabulary.

  Raises:
    ValueError: the text is none, or `most_common` is no number of pieces.
  """
  _check_most_common(most_common)
  if not isinstance(text, str):
    raise ValueError(f"from_string starts from a text, not from {text!r}.")

  def initializer(key, length: int, source: Source):
    ids = source.encode(text)
    if not ids:
      raise ValueError("The text to start the prompt from is empty.")
    if len(ids) > length:
      raise ValueError(
        f"The text {text!r} has {len(ids)} pieces, PROMPT_LENGTH={length} has "
        f"no room for them. Set it to {len(ids)} or more, or shorten the text."
      )
    rest = from_vocabulary(most_common)(key, length - len(ids), source)
    return jnp.concatenate([_rows(source, ids), rest])

  settings = {"text": text, "most_common": int(most_common)}
  return _telling(initializer, lambda: settings)


def from_array(path: str | os.PathLike) -> Initializer:
  """A prompt from a file [P, E], see `prompt_files`."""

  def initializer(key, length: int, source: Source):
    del key
    values = prompt_files.read_array(path)
    check_prompt(values, path, length, source.embedding.shape[1])
    return jnp.asarray(values, jnp.float32)

  def settings():
    return {
      "hash of PROMPT_FILE": storage.tensor_hash(prompt_files.read_array(path))
    }

  return _telling(initializer, settings)


def check_prompt(
  values: np.ndarray, path, length: int | None = None, width: int | None = None
) -> None:
  """Checks a prompt that came from outside.

  Raises:
    ValueError: it is no finite float array [P, E] of the shape wanted.
  """
  if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
    raise ValueError(
      f"{path} holds an array of shape {values.shape} and type "
      f"{values.dtype}; a prompt is a float array [P, E]."
    )
  if not values.size:
    raise ValueError(
      f"{path} holds an array of shape {values.shape}, which is empty."
    )
  got_length, got_width = values.shape
  if width is not None and got_width != width:
    raise ValueError(
      f"The prompt in {path} has shape {values.shape}, so its width is "
      f"{got_width}; the frozen model needs {width}. It was trained for a "
      "model of another size."
    )
  if length is not None and got_length != length:
    raise ValueError(
      f"The prompt in {path} has shape {values.shape}, the run expects "
      f"({length}, {got_width}). Set PROMPT_LENGTH={got_length}."
    )
  bad = np.flatnonzero(~is_finite(values).all(axis=1))
  if bad.size:
    shown = ", ".join(map(str, bad[:8])) + (", …" if bad.size > 8 else "")
    raise ValueError(
      f"The prompt in {path} has NaN or infinity in row {shown} "
      f"({bad.size} of {got_length} rows). It cannot be used."
    )


def is_finite(values: np.ndarray) -> np.ndarray:
  """Which numbers are finite as float32, which prompts are used in."""
  with np.errstate(over="ignore"):
    return np.isfinite(np.asarray(values).astype(np.float32))


def _rows(source: Source, ids) -> jax.Array:
  return jnp.asarray(source.embedding[np.asarray(ids, int)], jnp.float32)
