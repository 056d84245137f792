"""Ids of pad, eos and unk in a file, and the same tokens by a T5's ids."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prompt_tuning.shapes import EOS, PAD, UNK

Ids = tuple[int, int, int]
"""The ids of pad, eos and unk in a file: those of a T5, in any order."""

NAMES = ("pad", "eos", "unk")
T5_IDS = (PAD, EOS, UNK)

GEMMA_IDS = (PAD, EOS, 3)
"""Those of a Gemma, where they stay: id 2 is that of its <bos>."""


def texts(special: Ids) -> tuple[str, str, str]:
  """What pad, eos and unk are called."""
  return ("<pad>", "<eos>" if special == GEMMA_IDS else "</s>", "<unk>")


def places(special: Ids) -> Ids:
  """Their ids here."""
  return GEMMA_IDS if special == GEMMA_IDS else T5_IDS


def check(path: str, have: Sequence[int], want: Ids) -> None:
  """Refuses special ids that the model does not have.

  Raises:
    ValueError: they are others. A model with ids of its own may call pad what
      its vocabulary calls otherwise (MADLAD-400: <s>).
  """
  has_no_pad = want != T5_IDS and have[0] == -1
  if (want[0] if has_no_pad else have[0], *have[1:]) == want:
    return
  shown, needed = (
    ", ".join(f"{k} {i}" for k, i in zip(NAMES, ids, strict=True))
    for ids in (have, want)
  )
  raise ValueError(
    f"{path} has the special ids {shown} (-1 is none); "
    f"{'a T5' if want == T5_IDS else 'its model'} has {needed}. It is the "
    "vocabulary of another model, or was trained without "
    f"--pad_id={want[0]} --eos_id={want[1]} --unk_id={want[2]}."
  )


def ours(tokens: Mapping[str, int], special: Ids) -> dict[str, int]:
  """Tokens of a file by the ids of a T5."""
  if special == GEMMA_IDS:
    return dict(tokens)
  return {k: special.index(i) if i < 3 else i for k, i in tokens.items()}


class Renumbered:
  """Pieces of other special ids, by the ids of a T5."""

  def __init__(self, pieces: Any, special: Ids):
    self._pieces, self._special = pieces, special
    self.get_piece_size = pieces.get_piece_size

  def count(self, tokens: Iterable[int]) -> int:
    """Pieces in front of these tokens, of a tokenizer.json."""
    return self._pieces.count(tokens)

  def encode(self, text, **options):
    if isinstance(text, str):
      return self.encode([text])[0]
    found, place = self._pieces.encode(text, **options), self._special.index
    return [[place(i) if i < 3 else i for i in ids] for ids in found]

  def decode(self, ids) -> str:
    return self._pieces.decode([self._stored(i) for i in ids])

  def id_to_piece(self, i: int) -> str:
    return self._pieces.id_to_piece(self._stored(i))

  def _stored(self, i: int) -> int:
    return self._special[i] if i < 3 else i
