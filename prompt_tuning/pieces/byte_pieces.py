"""The bytes of a text as its pieces, as ByT5 reads it."""

BYTES = "bytes"
"""The path of ByT5's vocabulary, which has no file: an id is a byte + 3."""


class Bytes:
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
