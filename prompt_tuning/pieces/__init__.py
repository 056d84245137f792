"""How a text is cut: SentencePiece, tokenizers or bytes, with one interface.

    a file -> sentence_pieces, tokenizer_file, byte_pieces -> special_ids

Each kind has the methods of a SentencePiece processor that `vocabulary` calls.
Whatever ids a file gives to pad, eos and unk, those of a T5 come out.
"""

from prompt_tuning.pieces.byte_pieces import BYTES, Bytes
from prompt_tuning.pieces.sentence_pieces import processor
from prompt_tuning.pieces.special_ids import (
  GEMMA_IDS,
  T5_IDS,
  Ids,
  Renumbered,
  ours,
  places,
  texts,
)
from prompt_tuning.pieces.tokenizer_file import Tokenizer, tokens_of

__all__ = [
  "BYTES",
  "GEMMA_IDS",
  "T5_IDS",
  "Bytes",
  "Ids",
  "Renumbered",
  "Tokenizer",
  "ours",
  "places",
  "processor",
  "texts",
  "tokens_of",
]
