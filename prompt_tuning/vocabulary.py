"""Text to ids and back, by SentencePiece or bytes, without TensorFlow.

Sentinels stand behind the pieces as in T5: `<extra_id_i>` has the id
`size - 1 - i`, in a text too. The ids are those of
`seqio.SentencePieceVocabulary`, which the tasks are encoded with.
"""

from collections.abc import Iterable, Sequence
import functools
import pathlib
from typing import Any

from google.protobuf import message
import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from prompt_tuning.shapes import EOS, PAD, UNK

BYTES = "bytes"
"""The path of ByT5's vocabulary, which has no file: an id is a byte + 3."""


class _Bytes:
  """The bytes as pieces, with the methods of a SentencePiece processor."""

  def __init__(self, extra_ids: int):
    self._size = 256 + 3 + extra_ids

  def get_piece_size(self) -> int:
    return self._size

  def encode(self, text, num_threads: int = 1):
    del num_threads
    if not isinstance(text, str):
      return [self.encode(one) for one in text]
    return [byte + 3 for byte in text.encode("utf-8")]

  def decode(self, ids) -> str:
    known = bytes(i - 3 for i in ids if 3 <= i < 256 + 3)
    return known.decode("utf-8", errors="ignore")

  def id_to_piece(self, i: int) -> str:
    special = ("<pad>", "</s>", "<unk>")
    return special[i] if i < 3 else f"<0x{i - 3:02X}>"


SPECIAL = {"pad": PAD, "eos": EOS, "unk": UNK}


def _processor(path: str, extra_ids: int) -> Any:
  """A SentencePiece model that also knows sentinels, where a word may begin.

  Raises:
    ValueError: the file is none, or its special ids are not those of a T5.
  """
  processor = sentencepiece.SentencePieceProcessor()
  protos: Any = sentencepiece_model_pb2  # its classes are made at run time
  try:
    model = protos.ModelProto.FromString(pathlib.Path(path).read_bytes())
    for i in reversed(range(extra_ids)):
      model.pieces.add(
        piece=f"\u2581<extra_id_{i}>",
        score=0.0,
        type=protos.ModelProto.SentencePiece.USER_DEFINED,
      )
    processor.LoadFromSerializedProto(model.SerializeToString())
  except (RuntimeError, message.DecodeError) as error:
    raise ValueError(f"{path} is no SentencePiece model ({error}).") from error
  have = {name: getattr(processor, f"{name}_id")() for name in SPECIAL}
  if have != SPECIAL:
    shown = ", ".join(f"{name} {i}" for name, i in have.items())
    raise ValueError(
      f"{path} has the special ids {shown} (-1 is none); a T5 has pad 0, eos "
      "1, unk 2. It is the vocabulary of another model, or was trained without "
      "--pad_id=0 --eos_id=1 --unk_id=2."
    )
  return processor


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
      return _Bytes(self.extra_ids)
    return _processor(self.path, self.extra_ids)

  @property
  def num_pieces(self) -> int:
    """How many pieces there are without the sentinels."""
    return self.size - self.extra_ids

  @property
  def size(self) -> int:
    """Pieces and sentinels."""
    return self._pieces.get_piece_size()

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
      kept.append(int(token) if token < self.size else UNK)
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
