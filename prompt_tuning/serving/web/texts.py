"""An answer's ids as text: whole, in parts as it grows, up to a stop."""

from collections.abc import Sequence

from prompt_tuning.shapes import EOS
from prompt_tuning.vocabulary import Vocabulary

_HALF = "\ufffd"  # what bytes that are not yet a letter decode to


class Text:
  """The text of a row.

  Args:
    vocabulary: of the model.
    stops: texts in front of which the answer ends.
  """

  def __init__(self, vocabulary: Vocabulary, stops: Sequence[str] = ()):
    self._vocabulary, self._stops = vocabulary, tuple(stops)
    self._sent = 0

  def stopped(self, ids: Sequence[int]) -> bool:
    """Whether a stop stands in the text so far."""
    text = self._vocabulary.decode(ids)
    return any(stop in text for stop in self._stops)

  def whole(self, ids: Sequence[int]) -> str:
    """The text, without a stop and what follows."""
    text = self._vocabulary.decode(ids)
    ends = [text.find(stop) for stop in self._stops if stop in text]
    return text[: min(ends, default=len(text))]

  def part(self, ids: Sequence[int], *, is_last: bool) -> str:
    """What has come since the last part, as far as it will stay as it is."""
    text = self.whole(ids)
    end = len(text)
    if not is_last:
      end -= len(text) - len(text.rstrip(_HALF))
      end -= max((_overlap(text[:end], s) for s in self._stops), default=0)
    part = text[self._sent : end]
    self._sent = max(self._sent, end)
    return part

  def pieces(self, ids: Sequence[int]) -> list[tuple[str, int]]:
    """Each token's part of the text, and where that begins in it."""
    found, before = [], ""
    for n, token in enumerate(ids, 1):
      if token == EOS:
        found.append(("</s>", len(before)))
        continue
      text = self._vocabulary.decode(ids[:n])
      goes_on = text.startswith(before)
      piece = text[len(before) :] if goes_on else self._vocabulary.piece(token)
      found.append((piece, len(before)))
      before = text
    return found

  def name(self, token: int) -> str:
    """A token among the likeliest."""
    return "</s>" if token == EOS else self._vocabulary.piece(token)


def _overlap(text: str, stop: str) -> int:
  """How much of a stop's beginning the text ends with."""
  lengths = range(min(len(text), len(stop) - 1), 0, -1)
  return next((n for n in lengths if text.endswith(stop[:n])), 0)
