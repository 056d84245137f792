"""The features of the tasks, in the vocabulary of the frozen model that reads.

A task is registered once and any model can read it, so its features carry a
`ModelVocabulary`, which stands for the vocabulary in use when a text is
encoded. `splits.load` puts the frozen model's in place (`using`), a run under
t5x for good (`use`). Elsewhere it is what the environment variable
TASK_VOCABULARY names, a SentencePiece file, and without it T5's own.
"""

from collections.abc import Iterator
import contextlib
import contextvars
import functools
import os

import seqio

from prompt_tuning.vocabulary import BYTES, Vocabulary

T5 = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
"""The vocabulary of the published T5 models."""

_in_use: contextvars.ContextVar[tuple[str, int] | None] = (
  contextvars.ContextVar("vocabulary", default=None)
)


@contextlib.contextmanager
def using(vocabulary: Vocabulary | None) -> Iterator[None]:
  """Inside, the tasks are encoded with this vocabulary (None: no change)."""
  chosen = vocabulary and (vocabulary.path, vocabulary.extra_ids)
  token = _in_use.set(chosen or _in_use.get())
  try:
    yield
  finally:
    _in_use.reset(token)


_for_good: list[tuple[str, int]] = []  # the last one counts


def use(path: str, extra_ids: int) -> seqio.Vocabulary:
  """From now on the tasks are encoded with this vocabulary, in all threads."""
  _for_good.append((path, extra_ids))
  return _open(path, extra_ids)


@functools.lru_cache(8)
def _open(path: str, extra_ids: int) -> seqio.Vocabulary:
  if path == BYTES:
    return seqio.ByteVocabulary(extra_ids)
  return seqio.SentencePieceVocabulary(path, extra_ids)


def current() -> seqio.Vocabulary:
  """The vocabulary in use."""
  default = (os.environ.get("TASK_VOCABULARY") or T5, 100)
  return _open(*(_in_use.get() or (_for_good or [default])[-1]))


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
  vocabulary: seqio.Vocabulary | None = None,
) -> dict[str, seqio.Feature]:
  """Those of a text-to-text task; in the model's vocabulary by default."""
  return {
    name: seqio.Feature(vocabulary or ModelVocabulary(), add_eos=True)
    for name in ("inputs", "targets")
  }
