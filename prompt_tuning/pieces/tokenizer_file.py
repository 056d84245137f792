"""A tokenizer.json, read by the tokenizers library."""

from collections.abc import Iterable
import pathlib

import tokenizers

from prompt_tuning import json_files
from prompt_tuning.pieces.special_ids import Ids, check, texts


class Tokenizer:
  """A tokenizer.json, with the methods of a SentencePiece processor.

  Raises:
    ValueError: it is none, or has other special ids.
  """

  def __init__(self, path: str, special: Ids):
    try:
      read = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # the library raises Exception itself
      raise ValueError(
        f"{path} cannot be read by the tokenizers library ({error}). It is "
        "damaged, or of a newer version: save the tokenizer anew."
      ) from error
    ids = [read.token_to_id(name) for name in texts(special)]
    check(path, [-1 if i is None else i for i in ids], special)
    # How long a text may be is the run's choice.
    read.no_truncation()
    read.no_padding()
    self._read = read
    self._ids = {*read.get_vocab().values()}
    self._size = max(self._ids) + 1

  def count(self, tokens: Iterable[int]) -> int:
    """How many pieces stand in front of all these tokens that end the file."""
    return max(self._ids - {*tokens}, default=-1) + 1

  def get_piece_size(self) -> int:
    return self._size

  def encode(self, text, num_threads: int = 1):
    del num_threads
    if isinstance(text, str):
      return self._read.encode(text, add_special_tokens=False).ids
    encoded = self._read.encode_batch(text, add_special_tokens=False)
    return [one.ids for one in encoded]

  def decode(self, ids) -> str:
    return self._read.decode(ids, skip_special_tokens=False)

  def id_to_piece(self, i: int) -> str:
    return self._read.id_to_token(i) or f"<unused_{i}>"


def tokens_of(path: str | pathlib.Path) -> dict[str, int]:
  """The added tokens of a tokenizer.json, sentinels among them.

  Raises:
    ValueError: the file is no JSON, or an entry is no token.
  """
  entries = json_files.read_object(path).get("added_tokens") or []
  if not isinstance(entries, list):
    entries = [entries]
  found = {}
  for entry in entries:
    fields = json_files.Fields(entry, f"{path}, added_tokens")
    found[fields.text("content")] = fields.whole("id", least=0)
  return found
