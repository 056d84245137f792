"""Predicted and target texts as what the metrics compare, without TensorFlow.

Functions of `(text, example, is_target)`, as seqio calls them: `example` is the
row that the text belongs to. -1 stands for a text that is no valid answer.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any

INVALID = -1
"""What a text that is no label becomes."""

_DETERMINERS = frozenset(
  "a an few her his each every many much my our some that the their these this "
  "those which whose your".split()
)


def text_of(value) -> str:
  """A text that may still be bytes, as seqio's examples are."""
  return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def is_hidden(target) -> bool:
  """Whether a postprocessed target is that of a row without a public answer."""
  value = target["value"] if isinstance(target, Mapping) else target
  return value == INVALID or value == []


def class_of(labels: Sequence[str]) -> Callable[..., int]:
  """The index of a text in the list of labels, matched letter by letter."""
  index = {label: i for i, label in enumerate(labels)}

  def classify(text: str, **_) -> int:
    return index.get(text, INVALID)

  return classify


def is_invalid(value) -> bool:
  """Whether a postprocessed value is INVALID; the number -1.0 is not."""
  return isinstance(value, int) and value == INVALID


def number(text: str, **_) -> float | int:
  """A text as a finite number; else INVALID, which is no float."""
  try:
    value = float(text)
  except ValueError:
    return INVALID
  return value if math.isfinite(value) else INVALID


def multirc(text: str, example, is_target: bool = False) -> dict[str, Any]:
  """The class, and for a target the question it belongs to."""
  value = class_of(("False", "True"))(text)
  group = {"group": int(example["idx/question"])} if is_target else {}
  return {"value": value, **group}


def record(text: str, example, is_target: bool = False) -> dict[str, Any]:
  """All answers and the query of a target; the text of a prediction."""
  if not is_target:
    entities = {text_of(entity) for entity in example["entities"]}
    return {"value": text, "valid": text in entities}
  return {
    "value": [text_of(answer) for answer in example["answers"]],
    "group": (int(example["idx/passage"]), int(example["idx/query"])),
  }


def wsc(text: str, example, is_target: bool = False) -> int:
  """Whether a predicted referent is the row's; a target is the row's label.

  Case and determiners do not count, and one of the two may say more than the
  other ("fuzzy bunny", "bunny"); but "Bob" is not "Bob's hat".
  """
  if is_target:
    return int(example["label"])
  words = _bare(text)
  if words == [""]:
    return INVALID
  referent = _bare(text_of(example["targets_pretokenized"]))
  if ("'" in " ".join(words)) != ("'" in " ".join(referent)):
    return 0
  said, right = set(words), set(referent)
  return int(said <= right or right <= said)


def _bare(text: str) -> list[str]:
  """The words in lower case, without determiners; [""] if none is left."""
  words = text.strip().lower().split(" ")
  return [word for word in words if word not in _DETERMINERS] or [""]


def answers(text: str, example, is_target: bool = False) -> str | list[str]:
  """All answers of a target; the text of a prediction."""
  if is_target:
    return [text_of(answer) for answer in example["answers"]]
  return text


def text(value: str, **_) -> str:
  """The text itself."""
  return value
