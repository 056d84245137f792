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

import numpy as np

from prompt_tuning import pieces
from prompt_tuning.pieces import BYTES, GEMMA_IDS, T5_IDS, Ids
from prompt_tuning.shapes import EOS, PAD, UNK

_SENTINEL = re.compile(r"<extra_id_\d+>")


_NO_WORD = re.compile(r"<[^<>]*>|\[[^\[\]]+\]|[\s\u2581]*")
"""Pieces of a Gemma that are marks for the model, or blank."""


class Vocabulary:
  """A vocabulary file, the sentinels behind its pieces, and added tokens.

  Args:
    path: see below.
    extra_ids: how many sentinels a SentencePiece model gets; a tokenizer.json
      says itself what it has.
    added: more tokens by their texts, wherever they stand in a text.
    special: the ids of pad, eos and unk in the file. All ids here are those of
      a T5, which has them at 0, 1 and 2.

  Attributes:
    path: a SentencePiece model, a tokenizer.json (any name that ends in .json),
      or "bytes" for the vocabulary of ByT5.
    extra_ids: how many sentinels there are.
    special: as above.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a tokenizer.json is damaged, or `extra_ids` is negative.
  """

  def __init__(
    self,
    path: str,
    extra_ids: int = 100,
    added: Mapping[str, int] | None = None,
    special: Ids = T5_IDS,
  ):
    if path != BYTES and not pathlib.Path(path).is_file():
      raise FileNotFoundError(f"There is no vocabulary file {path}.")
    if extra_ids < 0:
      raise ValueError(
        f"EXTRA_IDS={extra_ids}; give the number of sentinels, T5 has 100."
      )
    self.path, self.special = str(path), special
    self._asked = dict(added or {})
    self._own: dict[str, int] = {}
    if self.is_json:
      self._own = pieces.ours(pieces.tokens_of(path), special)
      extra_ids = sum(bool(_SENTINEL.fullmatch(name)) for name in self._own)
    self.extra_ids = extra_ids

  @property
  def is_json(self) -> bool:
    """Whether it is a tokenizer.json."""
    return self.path.endswith(".json")

  def numbered(self, special: Ids) -> "Vocabulary":
    """The same file, of a model with these special ids."""
    if special == self.special:
      return self
    return Vocabulary(self.path, self.extra_ids, self._asked, special)

  @functools.cached_property
  def _pieces(self) -> Any:
    if self.path == BYTES:
      return pieces.Bytes(self.extra_ids)
    if self.is_json:
      read: Any = pieces.Tokenizer(self.path, self.special)
    else:
      read = pieces.processor(self.path, self.extra_ids, self.special)
    return (
      read
      if self.special in (T5_IDS, GEMMA_IDS)
      else pieces.Renumbered(read, self.special)
    )

  @functools.cached_property
  def added(self) -> dict[str, int]:
    """The tokens by their texts that are no pieces or sentinels of the file.

    Raises:
      ValueError: they are other special tokens than a T5 has.
    """
    count, given = self._pieces.get_piece_size(), {}
    names, ids = pieces.texts(self.special), pieces.places(self.special)
    own = dict(zip(names, ids, strict=True))
    for text, i in pieces.ours(self._asked, self.special).items():
      special = own.get(text, i)
      if i != special or (i in T5_IDS and self._name(i) != text):
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
    """The tokens by id that stand between the words of a decoded text.

    In a Gemma, where some are line breaks, they stand where they are.
    """
    if self.special == GEMMA_IDS:
      return {}
    tokens = {**self._own, **self.added}.items()
    return {i: text for text, i in tokens if i > UNK}

  def _name(self, i: int) -> str:
    return self._pieces.id_to_piece(i).removeprefix("\u2581")

  @functools.cached_property
  def num_pieces(self) -> int:
    """How many pieces there are in front of sentinels and added tokens."""
    if self.is_json:
      return self._pieces.count(self._own.values())
    return self._pieces.get_piece_size() - self.extra_ids

  @functools.cached_property
  def words(self) -> tuple[int, ...]:
    """The pieces that a text is made of, in the order of the file.

    Behind the special ones; a Gemma has many more of those in front (`<mask>`,
    `<unused0>`, bytes, tags, blanks), which no text or hardly one has.
    """
    ids = range(UNK + 1, self.num_pieces)
    if self.special != GEMMA_IDS:
      return tuple(ids)
    return tuple(i for i in ids if not _NO_WORD.fullmatch(self._name(i)))

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
    if self._splits is None:
      return self._pieces.encode(text)  # a list would start threads each time
    return [*self._ids(text, self._splits)]

  def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of many texts."""
    if self._splits is None:
      return self._pieces.encode(list(texts), num_threads=2)
    return [self.encode(text) for text in texts]

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
