"""The microworld's SentencePiece vocabulary: a piece for every word.

    python -m prompt_tuning.tasks.microworld.vocabulary [PATH]

PAD 0, EOS 1, UNK 2, then the words by frequency, then letters, digits and
punctuation, so that whatever a user types in ASCII still encodes.
"""

import collections
import importlib.resources
import io
import itertools
import pathlib
import re
import string
import sys

import sentencepiece

from prompt_tuning.tasks.microworld import text as microworld_text

PATH = pathlib.Path(
  str(importlib.resources.files("prompt_tuning")),
  "assets/microworld/vocabulary.model",
)
SPACE = "\u2581"  # SentencePiece writes a space in front of a word like this
WORD = re.compile(r"\w+")


def count_words(seed: int = 0, count: int = 200_000) -> collections.Counter:
  """How often each word stands in the first `count` documents of a seed."""
  stream = itertools.islice(microworld_text.documents(seed), count)
  return collections.Counter(
    word for text in stream for word in WORD.findall(text)
  )


def train_vocabulary(path) -> None:
  """Trains the vocabulary on the microworld's text and writes the model.

  SentencePiece takes a word for a candidate only if it also stands inside
  another word; a small lexicon has few such words, so every word is handed
  over as a symbol and the trainer is left with the characters.
  """
  counts = count_words()
  ordered = sorted(counts, key=lambda word: (-counts[word], word))
  characters = string.ascii_letters + string.digits + string.punctuation
  symbols = [SPACE + word for word in ordered]
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["|".join(characters) + " |"]),
    model_writer=model,
    model_type="char",
    vocab_size=3 + len(symbols) + len(characters) + 1,
    user_defined_symbols=symbols,
    required_chars=characters,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  pathlib.Path(path).write_bytes(model.getvalue())


if __name__ == "__main__":
  train_vocabulary(sys.argv[1] if len(sys.argv) > 1 else PATH)
