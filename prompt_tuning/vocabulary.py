"""Text to ids and back, by SentencePiece, tokenizers or bytes.

    pieces | sentinels | added tokens

`<extra_id_i>` stands behind the pieces as in T5, the last first, in a text too;
the ids are those of `seqio.SentencePieceVocabulary`. A tokenizer.json is read
by its own library and not turned into a SentencePiece model: its normalizer,
its pre-tokenizer and its model can be of many kinds, and its ids are those that
the model was trained with, whatever they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import functools
import pathlib
import re
from typing import Any

from google.protobuf import message
import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
import tokenizers

from prompt_tuning import json_files
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


_SENTINEL = re.compile(r"<extra_id_\d+>")
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
    # protobuf gives bytes for what is no UTF-8, which would fail at a text.
    if not all(isinstance(entry.piece, str) for entry in model.pieces):
      raise RuntimeError("a piece is no UTF-8 text")
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
    raise _other_ids(path, have) from None
  return processor


def _other_ids(path: str, have: Mapping[str, int]) -> ValueError:
  """The error for special ids that the network does not know."""
  shown = ", ".join(f"{name} {i}" for name, i in have.items())
  return ValueError(
    f"{path} has the special ids {shown} (-1 is none); a T5 has pad 0, eos "
    "1, unk 2. It is the vocabulary of another model, or was trained without "
    "--pad_id=0 --eos_id=1 --unk_id=2."
  )


class _Tokenizer:
  """A tokenizer.json, with the methods of a SentencePiece processor.

  Raises:
    ValueError: it is none, or its special ids are not those of a T5.
  """

  def __init__(self, path: str):
    try:
      read = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # the library raises Exception itself
      raise ValueError(
        f"{path} cannot be read by the tokenizers library ({error}). It is "
        "damaged, or of a newer version: save the tokenizer anew."
      ) from error
    names = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    ids = {key: read.token_to_id(name) for key, name in names.items()}
    have = {key: -1 if i is None else i for key, i in ids.items()}
    if have != SPECIAL:
      raise _other_ids(path, have)
    # How long a text may be is the run's choice.
    read.no_truncation()
    read.no_padding()
    self._read = read
    self._size = max(read.get_vocab().values()) + 1

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


class Vocabulary:
  """A vocabulary file, the sentinels behind its pieces, and added tokens.

  Args:
    path: see below.
    extra_ids: how many sentinels a SentencePiece model gets; a tokenizer.json
      says itself what it has.
    added: more tokens by their texts, wherever they stand in a text.

  Attributes:
    path: a SentencePiece model, a tokenizer.json (any name that ends in .json),
      or "bytes" for the vocabulary of ByT5.
    extra_ids: how many sentinels there are.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a tokenizer.json is damaged, or `extra_ids` is negative.
  """

  def __init__(
    self,
    path: str,
    extra_ids: int = 100,
    added: Mapping[str, int] | None = None,
  ):
    if path != BYTES and not pathlib.Path(path).is_file():
      raise FileNotFoundError(f"There is no vocabulary file {path}.")
    if extra_ids < 0:
      raise ValueError(
        f"EXTRA_IDS={extra_ids}; give the number of sentinels, T5 has 100."
      )
    self.path = str(path)
    self._asked = dict(added or {})
    self._own: dict[str, int] = {}
    if self.is_json:
      self._own = tokens_of(path)
      extra_ids = sum(bool(_SENTINEL.fullmatch(name)) for name in self._own)
    self.extra_ids = extra_ids

  @property
  def is_json(self) -> bool:
    """Whether it is a tokenizer.json."""
    return self.path.endswith(".json")

  @functools.cached_property
  def _pieces(self) -> Any:
    if self.path == BYTES:
      return _Bytes(self.extra_ids)
    if self.is_json:
      return _Tokenizer(self.path)
    return _processor(self.path, self.extra_ids)

  @functools.cached_property
  def added(self) -> dict[str, int]:
    """The tokens by their texts that are no pieces or sentinels of the file.

    Raises:
      ValueError: they are other special tokens than a T5 has.
    """
    count, given = self._pieces.get_piece_size(), {}
    for text, i in self._asked.items():
      special = {"<pad>": PAD, "</s>": EOS, "<unk>": UNK}.get(text, i)
      if i != special or (i in SPECIAL.values() and self._name(i) != text):
        raise ValueError(
          f"The added token {text!r} has the id {i} in {self.path}; in a T5 "
          f"{self._name(special)!r} has {special}, and 0, 1 and 2 are <pad>, "
          "</s> and <unk>. The model was trained with other special ids."
        )
      if i >= count or self._name(i) != text:
        given[text] = i
    return given

  @functools.cached_property
  def _written(self) -> dict[int, str]:
    """The tokens by id that stand between the words of a decoded text."""
    tokens = {**self._own, **self.added}.items()
    return {i: text for text, i in tokens if i > UNK}

  def _name(self, i: int) -> str:
    return self._pieces.id_to_piece(i).removeprefix("\u2581")

  @functools.cached_property
  def num_pieces(self) -> int:
    """How many pieces there are in front of sentinels and added tokens."""
    if self.is_json:
      behind = [i for i in self._own.values() if i > UNK]
      return min([self._pieces.get_piece_size(), *behind])
    return self._pieces.get_piece_size() - self.extra_ids

  @functools.cached_property
  def size(self) -> int:
    """Pieces, sentinels and added tokens: one more than the largest id."""
    last = max(self.added.values(), default=-1)
    return max(self._pieces.get_piece_size(), last + 1)

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
    name = f"<extra_id_{i}>"
    own = {**self._own, **self.added}
    return own.get(name, self.num_pieces + self.extra_ids - 1 - i)

  @functools.cached_property
  def _splits(self) -> re.Pattern | None:
    """Finds added tokens in a text, the longest where several begin."""
    longest = sorted(self.added, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest))) if longest else None

  def encode(self, text: str) -> list[int]:
    """Ids of a text, without EOS."""
    return self.encode_all([text])[0]

  def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of many texts."""
    if self._splits is None:
      return self._pieces.encode(list(texts), num_threads=2)
    return [[*self._ids(text, self._splits)] for text in texts]

  def _ids(self, text: str, splits: re.Pattern) -> Iterator[int]:
    """The ids of a text with added tokens; what is between begins a word."""
    begin = 0
    for token in splits.finditer(text):
      yield from self._pieces.encode(text[begin : token.start()])
      yield self.added[token[0]]
      begin = token.end()
    yield from self._pieces.encode(text[begin:])

  def decode(self, ids: Iterable[int] | np.ndarray) -> str:
    """Text of ids up to the first EOS; padding is dropped."""
    parts: list[str] = []
    kept: list[int] = []
    for token in map(int, ids):
      if token == EOS:
        break
      if token == PAD:
        continue
      if token in self._written:
        parts += [self._pieces.decode(kept), self._written[token]]
        kept = []
      else:
        kept.append(token if token < self._pieces.get_piece_size() else UNK)
    parts.append(self._pieces.decode(kept))
    return " ".join(filter(None, parts))

  def piece(self, token: int) -> str:
    """The piece of one id, as the vocabulary writes it."""
    if token in self._written:
      return self._written[token]
    if token >= self._pieces.get_piece_size():
      return f"<unused_{token}>"
    behind = token - self.num_pieces
    if 0 <= behind < self.extra_ids:
      return f"<extra_id_{self.extra_ids - 1 - behind}>"
    return self._pieces.id_to_piece(int(token))


def at(path: str | None, extra_ids: int = 100) -> Vocabulary | None:
  """The vocabulary at a path; None for no path (the model's own is used)."""
  return None if path is None else Vocabulary(path, extra_ids)
