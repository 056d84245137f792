"""A SentencePiece model, with the sentinels of a T5 behind its pieces."""

import pathlib
from typing import Any

from google.protobuf import message
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from prompt_tuning.pieces.special_ids import NAMES, Ids, check


def processor(path: str, extra_ids: int, special: Ids) -> Any:
  """A SentencePiece model that also knows sentinels, where a word may begin.

  Raises:
    ValueError: the file is none, or has other special ids.
  """
  made = sentencepiece.SentencePieceProcessor()
  protos: Any = sentencepiece_model_pb2  # its classes are made at run time
  try:
    model = protos.ModelProto.FromString(pathlib.Path(path).read_bytes())
    # protobuf gives bytes for what is no UTF-8, which would fail at a text.
    if not all(isinstance(entry.piece, str) for entry in model.pieces):
      raise RuntimeError("a piece is no UTF-8 text")
    for i in reversed(range(extra_ids)):
      model.pieces.add(
        piece=f"\u2581<extra_id_{i}>",
        score=0.0,
        type=protos.ModelProto.SentencePiece.USER_DEFINED,
      )
    made.LoadFromSerializedProto(model.SerializeToString())
  except (RuntimeError, message.DecodeError) as error:
    raise ValueError(f"{path} is no SentencePiece model ({error}).") from error
  check(path, [getattr(made, f"{k}_id")() for k in NAMES], special)
  return made
