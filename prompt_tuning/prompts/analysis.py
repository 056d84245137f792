"""What a prompt means: the pieces nearest to its positions, prompts like it.

The paper (section 7) finds that the neighbours of a position form clusters of
one meaning, and that class labels persist where a prompt started from them.
Prompts of tasks that help each other are alike (SPoT, Vu et al. 2022).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from prompt_tuning.frozen import pretrained
from prompt_tuning.shapes import Array, Float


class Neighbor(NamedTuple):
  """A piece and its cosine similarity with a prompt position."""

  piece: str
  cosine: float


def nearest_pieces(
  prompt: Float[Array, "P E"],
  model: pretrained.FrozenModel,
  count: int = 5,
) -> list[list[Neighbor]]:
  """For each position the `count` nearest pieces by cosine, nearest first.

  Rows of the table behind the vocabulary are left out.

  Raises:
    ValueError: `count` is below 1, or the model has no vocabulary.
  """
  if count < 1:
    raise ValueError(
      f"{count} nearest pieces were asked for; ask for 1 or more."
    )
  vocabulary = model.require_vocabulary()
  table = _unit(model.embedding[: vocabulary.num_pieces])
  cosines = _unit(np.asarray(prompt, np.float32)) @ table.T
  order = np.argsort(-cosines, axis=1)[:, :count]
  return [
    [Neighbor(vocabulary.piece(int(i)), float(row[i])) for i in best]
    for row, best in zip(cosines, order, strict=True)
  ]


def _unit(rows: np.ndarray) -> np.ndarray:
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.maximum(norms, 1e-12)


def clusters(
  neighbors: list[list[Neighbor]], least: int = 3
) -> dict[int, list[str]]:
  """Positions whose neighbours are variants of one word.

  The paper (section 7) sees them as (Technology / technology / Technologies …).
  Two pieces are variants if, without case and the mark of a word's beginning,
  one begins with the other or they share a beginning of five letters.

  Returns:
    For each such position the variants, `least` or more of its neighbours.
  """
  families = {}
  for position, row in enumerate(neighbors):
    words = [n.piece.lstrip("\u2581") for n in row]
    groups = ([o for o in words if _variants(word, o)] for word in words)
    families[position] = max(groups, key=len, default=[])
  return {at: words for at, words in families.items() if len(words) >= least}


def _variants(word: str, other: str) -> bool:
  short, long = sorted((word.lower(), other.lower()), key=len)
  if len(short) < 3:
    return False
  return long.startswith(short) or (len(short) >= 5 and short[:5] == long[:5])


def similar(
  prompt: Float[Array, "P E"], others: Mapping[str, Float[Array, "_ E"]]
) -> list[tuple[str, float]]:
  """The names of other prompts with the cosine of mean rows, nearest first.

  Lengths may differ, and the order of the rows does not count.
  """
  means = np.stack(
    [np.mean(rows, axis=0, dtype=np.float64) for rows in others.values()]
  )
  own = np.asarray(np.mean(prompt, axis=0, keepdims=True, dtype=np.float64))
  cosines = (_unit(means) @ _unit(own).T)[:, 0]
  order = np.argsort(-cosines, kind="stable")
  return [([*others][i], float(cosines[i])) for i in order]
