"""Text to ids and back, by SentencePiece or bytes, without TensorFlow.

Sentinels stand behind the pieces as in T5: `<extra_id_i>` has the id
`size - 1 - i`. The ids are those of `seqio.SentencePieceVocabulary`.
"""

from collections.abc import Iterable, Sequence
import functools
import pathlib
from typing import Any

import numpy as np
import sentencepiece

from prompt_tuning.shapes import EOS, PAD, UNK

BYTES = "bytes"
"""The path of ByT5's vocabulary, which has no file: an id is a byte + 3."""


class _Bytes:
  """The bytes as pieces, with the methods of a SentencePiece processor."""

  def get_piece_size(self) -> int:
    return 256 + 3

  def encode(self, text, num_threads: int = 1):
    del num_threads
    if not isinstance(text, str):
      return [self.encode(one) for one in text]
    return [byte + 3 for byte in text.encode("utf-8")]

  def decode(self, ids) -> str:
    found = bytes(i - 3 for i in ids if i >= 3)
    return found.decode("utf-8", errors="ignore")

  def id_to_piece(self, i: int) -> str:
    special = ("<pad>", "</s>", "<unk>")
    return special[i] if i < 3 else f"<0x{i - 3:02X}>"


class Vocabulary:
  """A SentencePiece model and the sentinels behind its pieces.

  Attributes:
    path: the .model file, or "bytes" for the vocabulary of ByT5.
    extra_ids: how many sentinels there are.
  """

  def __init__(self, path: str, extra_ids: int = 100):
    if path != BYTES and not pathlib.Path(path).is_file():
      raise FileNotFoundError(f"There is no vocabulary file {path}.")
    if extra_ids < 0:
      raise ValueError(
        f"EXTRA_IDS={extra_ids}; give the number of sentinels, T5 has 100."
      )
    self.path = str(path)
    self.extra_ids = extra_ids

  @functools.cached_property
  def _pieces(self) -> Any:
    if self.path == BYTES:
      return _Bytes()
    try:
      return sentencepiece.SentencePieceProcessor(model_file=self.path)
    except RuntimeError as error:
      raise ValueError(
        f"{self.path} is no SentencePiece model ({error})."
      ) from error

  @property
  def num_pieces(self) -> int:
    """How many pieces there are without the sentinels."""
    return self._pieces.get_piece_size()

  @property
  def size(self) -> int:
    """Pieces and sentinels."""
    return self.num_pieces + self.extra_ids

  def sentinel(self, i: int) -> int:
    """The id of `<extra_id_i>`.

    Raises:
      ValueError: there are not so many; its id would be that of a piece.
    """
    if not 0 <= i < self.extra_ids:
      raise ValueError(
        f"There is no sentinel <extra_id_{i}>: the vocabulary has "
        f"{self.extra_ids} of them. Cut longer texts into several."
      )
    return self.size - 1 - i

  def encode(self, text: str) -> list[int]:
    """Ids of a text, without EOS."""
    return self._pieces.encode(text)

  def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of many texts."""
    return self._pieces.encode(list(texts), num_threads=2)

  def decode(self, ids: Iterable[int] | np.ndarray) -> str:
    """Text of ids up to the first EOS; padding is dropped."""
    kept: list[int] = []
    for token in ids:
      if token == EOS:
        break
      if token == PAD:
        continue
      kept.append(int(token) if token < self.num_pieces else UNK)
    return self._pieces.decode(kept)

  def piece(self, token: int) -> str:
    """The piece of one id, as SentencePiece writes it."""
    if token >= self.num_pieces:
      i = self.size - 1 - token
      return f"<extra_id_{i}>" if i >= 0 else f"<unused_{token}>"
    return self._pieces.id_to_piece(int(token))


def at(path: str | None, extra_ids: int = 100) -> Vocabulary | None:
  """The vocabulary at a path; None for no path (the model's own is used)."""
  return None if path is None else Vocabulary(path, extra_ids)
