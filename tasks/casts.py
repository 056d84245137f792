"""Rows of a benchmark as text to text: one function per form, no TensorFlow.

    row, with the fields of TFDS -> [{"inputs": …, "targets": …, "idx": …}]

A cast gives the form that T5 was trained on, `boolq passage: … question: …`,
letter by letter as the `t5` package does; `without_task_word` makes the form
for prompt tuning, where the prompt stands for the task's name. A cast returns
a list: ReCoRD's rows become one example per answer, WSC's may become none.
"""

from collections.abc import Callable, Mapping, Sequence
import re
import string
from typing import Any

import numpy as np

from prompt_tuning.tables import Row

Example = dict[str, Any]
Cast = Callable[[Row], list[Example]]

HIDDEN = -1
"""The label of test rows whose answer is not public."""
UNKNOWN = "<unk>"
"""The target of such a row."""

# RE2's white space, which T5 squeezed by; Python's \s has more.
_SPACE = re.compile(r"[\t\n\f\r ]+")
_PUNCTUATION = re.compile(f"([{re.escape(string.punctuation)}])")
_AFTER_SENTENCE = re.compile(r"([.?!\"'])\n@highlight\n")

# Two rows of WSC whose index does not point at the pronoun (the punctuation
# sticks to it, or another word stands there), and where the pronoun is.
_MISPLACED = {
  "Some day they might want to use it , but really for now": ("use it ,", 4),
  '"Good for him," he said.': ('for him,"', 4),
}


def without_task_word(cast: Cast) -> Cast:
  """The same cast, its inputs without what stands up to the first space."""

  def shorter(row: Row) -> list[Example]:
    return [
      {**example, "inputs": example["inputs"].split(" ", 1)[-1]}
      for example in cast(row)
    ]

  return shorter


def keyed(word: str, fields: Mapping[str, str], labels: Sequence[str]) -> Cast:
  """Casts to `word key: value key: value`, the target being the label's word.

  Args:
    word: the task's name in T5's training.
    fields: the keys in their order, each with its column.
    labels: the word of each class.
  """

  def cast(row: Row) -> list[Example]:
    parts = [f"{key}: {row[column]}" for key, column in fields.items()]
    return [
      {
        "inputs": " ".join([word, *parts]),
        "targets": label_word(row["label"], labels),
        "idx": row["idx"],
      }
    ]

  return cast


def label_word(label: int, labels: Sequence[str]) -> str:
  """The word of a class, `<unk>` for a hidden one."""
  return UNKNOWN if label == HIDDEN else labels[label]


def stsb(row: Row) -> list[Example]:
  """STS-B: the score is rounded to fifths and written with one decimal."""
  score = np.round(np.float32(row["label"]) * 5) / np.float32(5)
  pair = f"sentence1: {row['sentence1']} sentence2: {row['sentence2']}"
  return [
    {"inputs": f"stsb {pair}", "targets": f"{score:.1f}", "idx": row["idx"]}
  ]


def multirc(row: Row) -> list[Example]:
  """MultiRC: one example per answer; the paragraph's HTML is removed."""
  text = (
    f"multirc question: {row['question']} answer: {row['answer']} "
    f"paragraph: {row['paragraph']}"
  )
  text = text.replace("<br>", " ")
  return [
    {
      "inputs": re.sub("</?b>", "", text),
      "targets": label_word(row["label"], ("False", "True")),
      **{f"idx/{part}": i for part, i in row["idx"].items()},
    }
  ]


def record(row: Row) -> list[Example]:
  """ReCoRD: one example per answer, each with all answers for scoring."""
  passage = _AFTER_SENTENCE.sub(r"\1 ", row["passage"])
  passage = passage.replace("\n@highlight\n", ". ")
  text = (
    f"record query: {row['query']} entities: {', '.join(row['entities'])} "
    f"passage: {passage}"
  )
  return [
    {
      "inputs": text,
      "targets": answer,
      **{f"idx/{part}": i for part, i in row["idx"].items()},
      "answers": list(row["answers"]),
      "entities": list(row["entities"]),
    }
    for answer in row["answers"] or [UNKNOWN]
  ]


def wsc(row: Row) -> list[Example]:
  """WSC: the pronoun between asterisks; the target is the referent.

  Raises:
    ValueError: the word at span2_index is not the pronoun.
  """
  return [
    {
      "inputs": f"wsc: {_marked(row)}",
      "targets": row["span1_text"],
      "label": row["label"],
      "idx": row["idx"],
    }
  ]


def wsc_training(row: Row) -> list[Example]:
  """WSC for training: only the rows whose referent is the right one."""
  return wsc(row) if row["label"] else []


def _marked(row: Row) -> str:
  text, pronoun = row["text"], row["span2_text"]
  for phrase, (words, offset) in _MISPLACED.items():
    if phrase in text:
      begin = text.index(words) + offset
      rest = text[begin + len(pronoun) :].lstrip(" ")
      return f"{text[:begin]}*{pronoun}* {rest}".rstrip(" ")
  words, index = text.split(" "), row["span2_index"]
  if not 0 < index < len(words) or words[index] != pronoun:
    word = words[index] if 0 <= index < len(words) else "nothing"
    raise ValueError(
      f"The row of WSC with idx {row['idx']} has {word!r} at span2_index "
      f"{index}, not its span2_text {pronoun!r}. Use the corrected data, TFDS "
      "super_glue/wsc.fixed."
    )
  before, after = " ".join(words[:index]), " ".join(words[index + 1 :])
  # T5 marks whatever is a lone X, so an X of the text would be marked too.
  return f"{before} X {after}".replace(" X ", f" *{pronoun}* ")


def pronoun(row: Row) -> list[Example]:
  """Definite pronoun resolution in the form of WSC, for training.

  The first occurrence of the pronoun between a space and a space, full stop or
  comma is the one in question.
  """
  occurrence = re.compile(f" ({re.escape(row['pronoun'])})( |\\.|,)")
  text = occurrence.sub(r" *\1*\2", row["sentence"], count=1)
  answer = row["candidates"][row["label"]]
  return [{"inputs": f"wsc: {text}", "targets": answer}]


def question(row: Row) -> list[Example]:
  """SQuAD and MRQA: `question: … context: …`, punctuation set apart."""
  texts = row["answers"]
  if isinstance(texts, Mapping):
    texts = texts["text"]
  answers = [_apart(text) for text in texts]
  text = (
    f"question: {_apart(row['question'])} context: {_apart(row['context'])}"
  )
  return [
    {
      "inputs": _SPACE.sub(" ", text),
      "targets": answers[0] if answers else UNKNOWN,
      "id": row["id"] if "id" in row else row["qid"],
      "answers": answers,
    }
  ]


def _apart(text: str) -> str:
  """Spaces around every punctuation character, runs of white space as one."""
  return _SPACE.sub(" ", _PUNCTUATION.sub(r" \1 ", text))
