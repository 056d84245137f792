"""The features of the tasks, in the vocabulary of the frozen model that reads.

A task is registered once and any model can read it, so its features carry a
`ModelVocabulary`, which stands for the vocabulary in use when a text is
encoded. `splits.load` puts the frozen model's in place (`using`), a run under
t5x for good (`use`). Elsewhere it is what the environment variable
TASK_VOCABULARY names, a SentencePiece file, and without it T5's own.

`seqio` is here for the whole package: TensorFlow behind it takes seconds, and
a command that reads no task (`inspect`, `infer` on a text file) starts without.
"""

from collections.abc import Iterator
import contextlib
import contextvars
import functools
import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np

from prompt_tuning.vocabulary import BYTES, EOS, T5_IDS, UNK, Vocabulary

if TYPE_CHECKING:
  import seqio
else:

  class _OnDemand:
    """seqio, imported when it is first used, without TensorFlow's greetings."""

    @functools.cached_property
    def _module(self):
      os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
      with _importing:
        if "seqio" in sys.modules:
          return importlib.import_module("seqio")
        with _silent():
          return importlib.import_module("seqio")

    def __getattr__(self, name: str):
      return getattr(self._module, name)

  _importing = threading.RLock()  # what is silent, is for all threads

  seqio = _OnDemand()

T5 = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
"""The vocabulary of the published T5 models."""

_in_use: contextvars.ContextVar["seqio.Vocabulary | None"] = (
  contextvars.ContextVar("vocabulary", default=None)
)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """Inside, what is written to file descriptor 2 is dropped."""
  terminal = os.dup(2)
  with open(os.devnull, "wb") as nowhere:
    os.dup2(nowhere.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(terminal, 2)
      os.close(terminal)


@contextlib.contextmanager
def using(vocabulary: Vocabulary | None) -> Iterator[None]:
  """Inside, the tasks are encoded with this vocabulary (None: no change)."""
  token = _in_use.set(_in_use.get() if vocabulary is None else of(vocabulary))
  try:
    yield
  finally:
    _in_use.reset(token)


_for_good: list["seqio.Vocabulary"] = []  # the last one counts


def use(path: str, extra_ids: int) -> "seqio.Vocabulary":
  """From now on the tasks are encoded with this vocabulary, in all threads."""
  is_json = path.endswith(".json")
  vocabulary = of(Vocabulary(path)) if is_json else _open(path, extra_ids)
  _for_good.append(vocabulary)
  return vocabulary


@functools.cache
def _own_class():
  """The class of vocabularies that seqio has none for, made once."""
  import tensorflow as tf

  class Own(seqio.Vocabulary):
    """A vocabulary that seqio has no class for: its ids are made in Python."""

    def __init__(self, vocabulary: Vocabulary):
      super().__init__(extra_ids=0)  # its size has the sentinels in it
      self.read = vocabulary

    bos_id = None
    eos_id = EOS
    unk_id = UNK

    @property
    def _base_vocab_size(self) -> int:
      return self.read.size

    def _encode(self, s: str) -> list[int]:
      return self.read.encode(s)

    def _decode(self, ids) -> str:
      return self.read.decode(ids)

    def _encode_tf(self, s):
      def encode(text: bytes):
        return np.array(self.read.encode(text.decode("utf-8")), np.int32)

      if s.shape.rank:
        spec = tf.RaggedTensorSpec([None], tf.int32)
        return tf.map_fn(self._encode_tf, s, fn_output_signature=spec)
      ids = tf.numpy_function(encode, [s], tf.int32)
      ids.set_shape([None])
      return ids

    def _decode_tf(self, ids):
      return tf.numpy_function(self.read.decode, [ids], tf.string)

    def _key(self):
      added = tuple(sorted(self.read.added.items()))
      return self.read.path, self.read.special, added

    def __eq__(self, other) -> bool:
      return isinstance(other, Own) and self._key() == other._key()

    def __hash__(self) -> int:
      return hash(self._key())

  return Own


def of(vocabulary: Vocabulary) -> "seqio.Vocabulary":
  """The same vocabulary for seqio; its own class wherever it has one."""
  if vocabulary.is_json or vocabulary.added or vocabulary.special != T5_IDS:
    return _own_class()(vocabulary)
  return _open(vocabulary.path, vocabulary.extra_ids)


@functools.lru_cache(8)
def _open(path: str, extra_ids: int) -> "seqio.Vocabulary":
  if path == BYTES:
    return seqio.ByteVocabulary(extra_ids)
  return seqio.SentencePieceVocabulary(path, extra_ids)


def current() -> "seqio.Vocabulary":
  """The vocabulary in use."""
  default = (os.environ.get("TASK_VOCABULARY") or T5, 100)
  chosen = _in_use.get() or (_for_good or [None])[-1]
  return chosen or _open(*default)


class ModelVocabulary:
  """Stands for the vocabulary in use, in the features of a task."""

  def __getattr__(self, name: str):
    if name.startswith("__"):  # copying and pickling ask for what is not there
      raise AttributeError(name)
    return getattr(current(), name)

  def __eq__(self, other) -> bool:
    return isinstance(other, ModelVocabulary) or current() == other

  def __hash__(self) -> int:
    return hash(ModelVocabulary)

  def __repr__(self) -> str:
    return f"ModelVocabulary({current()!r})"


def of_text(
  vocabulary: "seqio.Vocabulary | None" = None,
) -> "dict[str, seqio.Feature]":
  """Those of a text-to-text task; in the model's vocabulary by default."""
  return {
    name: seqio.Feature(vocabulary or ModelVocabulary(), add_eos=True)
    for name in ("inputs", "targets")
  }
