"""A user's own files as examples: a template, a target field, labels.

{"premise": …, "hypothesis": …, "label": 1} + "premise: {premise} …", "1=yes"
    -> {"inputs": "premise: …", "targets": "yes"}
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import logging
import string

from prompt_tuning import spelling, tables
from prompt_tuning.tables import BadRow, T, field
from prompt_tuning.tasks import answers, metrics
from prompt_tuning.tasks.rows.sources import unit_hash

HELD_OUT = 0.1
"""The share of the training rows that validate if there is no other file."""

METRICS: dict[str, Callable[[int], metrics.Metric]] = {
  "accuracy": lambda n: metrics.accuracy,
  "f1": lambda n: metrics.f1,
  "macro_f1": metrics.mean_f1,
  "matthews": lambda n: metrics.matthews,
  "pearson": lambda n: metrics.pearson,
  "spearman": lambda n: metrics.spearman,
  "squad": lambda n: metrics.squad,
}
"""Metrics by name, from the number of labels."""
OF_NUMBERS = {"pearson", "spearman"}
_OF_CLASSES = {"f1", "macro_f1", "matthews"}
OF_TEXT = {"squad"}
_IS = "\x1f"  # between a value and its word, where both may have a =
_said: set[tuple[str, str]] = set()
_ADVICE = (
  "Correct the row, or count and leave out bad rows with --skip_bad_rows."
)


@dataclasses.dataclass(frozen=True)
class OwnData:
  """Files and how they are read.

  Attributes:
    train: the file of the training rows; None for a task that is only scored.
    validation: the file to choose the best prompt by; without it a tenth of the
      training rows, held out by their text.
    test: the file to score at the end.
    template: the input, with the fields' names in braces.
    target: the field of the answer.
    labels: the values that the target may have, or `value=word` where the model
      is to say another word; () for any text.
    metric: names from METRICS.
    skip_bad_rows: leave bad rows out, and say how many, instead of stopping.
  """

  train: str | None
  validation: str | None
  test: str | None
  template: str
  target: str
  labels: tuple[str, ...] = ()
  metric: tuple[str, ...] = ("accuracy",)
  skip_bad_rows: bool = False

  def __post_init__(self):
    self._check_metrics()
    self._check_labels()
    if not any((self.train, self.validation, self.test)):
      raise ValueError("There is no file; give one with --data.")
    self.placeholders  # noqa: B018 (a bad template is an error here)

  def _check_metrics(self) -> None:
    unknown = [name for name in self.metric if name not in METRICS]
    if unknown or not self.metric:
      hint = spelling.hint("".join(unknown[:1]), METRICS, alike=0.6)
      raise ValueError(
        f"METRIC={list(self.metric)}: {unknown or 'nothing'} is no metric; "
        f"choose from {', '.join(METRICS)}. {hint}".rstrip()
      )
    metric = {*self.metric}
    if metric & _OF_CLASSES and not self.labels:
      raise ValueError(
        f"The metric {', '.join(self.metric)} compares classes; name them "
        "with --labels no,yes."
      )
    if (metric & OF_NUMBERS and metric - OF_NUMBERS) or (
      metric & _OF_CLASSES and metric & OF_TEXT
    ):
      raise ValueError(
        f"METRIC={list(self.metric)}: {' and '.join(sorted(OF_NUMBERS))} "
        f"compare numbers, {', '.join(sorted(_OF_CLASSES))} labels and squad "
        "texts. Choose metrics of one kind."
      )
    if "f1" in self.metric and len(self.classes) != 2:
      raise ValueError(
        f"The metric f1 is that of the second of two labels; there are "
        f"{len(self.classes)}. Give two, or use macro_f1."
      )

  def _check_labels(self) -> None:
    values = [_value_and_word(label)[0] for label in self.labels]
    twice = [v for i, v in enumerate(values) if v in values[:i]]
    if twice:
      raise ValueError(f"LABELS={self._said} has {twice[0]!r} twice.")
    if len(values) > 1 and len(set(self.words.values())) == 1:
      raise ValueError(
        f"LABELS={self._said} says {self.words[values[0]]!r} for every "
        "value, so there is nothing to tell apart. Give two words at least."
      )
    if not all(self.words.values()):
      raise ValueError(
        f"LABELS={self._said} has a label without a word. Write "
        "value=word, or only the value."
      )

  @property
  def _said(self) -> list[str]:
    """The labels as they may be typed."""
    return [label.replace(_IS, "=") for label in self.labels]

  @property
  def words(self) -> dict[str, str]:
    """The word of each value of the target field."""
    return dict(map(_value_and_word, self.labels))

  @property
  def classes(self) -> list[str]:
    """The words that the model may say, in the order of the labels."""
    return list(dict.fromkeys(self.words.values()))

  @property
  def placeholders(self) -> list[tuple[str, str | None]]:
    """(text, name of the field behind it) pieces of the template."""
    try:
      parsed = list(string.Formatter().parse(self.template))
    except ValueError as error:
      raise ValueError(
        f"TEMPLATE={self.template!r} is no template ({error}). Write fields in "
        "braces, and a brace of the text twice."
      ) from error
    for _, name, form, conversion in parsed:
      if name == "" or form or conversion:
        raise ValueError(
          f"TEMPLATE={self.template!r} has a pair of braces with "
          f"{'more than' if name else 'nothing instead of'} a field's name in "
          "it. Write {premise}, and a brace of the text twice."
        )
    if not any(name for _, name, *_ in parsed):
      raise ValueError(
        f"TEMPLATE={self.template!r} names no field; write for example "
        '"premise: {premise} hypothesis: {hypothesis}".'
      )
    return [(text, name) for text, name, *_ in parsed]

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that the files make."""
    files = {
      "train": self.train,
      "validation": self.validation or self.train,
      "test": self.test,
    }
    return tuple(split for split, file in files.items() if file)

  def examples(self, split: str) -> list[dict]:
    """The examples of a split."""
    path = {
      "train": self.train,
      "validation": self.validation or self.train,
      "test": self.test,
    }[split]
    assert path is not None
    every = self._read(path, self._example)
    if split == "test" or self.validation:
      return every
    held_out = split == "validation"
    kept = [
      example
      for example in every
      if (unit_hash(example["inputs"]) < HELD_OUT) == held_out
    ]
    if not kept:
      raise ValueError(
        f"A tenth of the rows, by their text, cannot be held out of {path}: it "
        f"has {len(every)} rows, too few or too much alike. Give a file "
        "of its own with --validation."
      )
    return kept

  def to_predict(self, make: Callable[[tables.Row, str], T]) -> list[T]:
    """Makes something of every row of `test` and its input; answers may lack.

    Args:
      make: from a row and its input; raises `BadRow` for one it cannot use.
    """
    assert self.test is not None
    return self._read(self.test, lambda row: make(row, self.text(row)))

  def _read(self, path: str, make: Callable[[tables.Row], T]) -> list[T]:
    """Makes something of every good row; how many are bad is said."""
    table = tables.read(
      path, make, skip_bad_rows=self.skip_bad_rows, advice=_ADVICE
    )
    bad = len(table.skipped)
    said = f"{bad} of {bad + len(table.items)} rows are bad and left out"
    # The validation rows may be held out of a file that was read for training.
    if bad and (said, table.skipped[0]) not in _said:
      _said.add((said, table.skipped[0]))
      logging.getLogger(__name__).warning(
        "%s; the first: %s", said, table.skipped[0]
      )
    return table.items

  def text(self, row: tables.Row) -> str:
    """The input of a row.

    Raises:
      BadRow: a field of the template is missing or empty.
    """
    parts = []
    for literal, name in self.placeholders:
      value = field(row, name, "--template") if name else ""
      if name and not value.strip():
        raise BadRow(f"the field {name!r} is empty.")
      parts.append(literal + value)
    return "".join(parts)

  def _example(self, row: tables.Row) -> dict:
    text = self.text(row)
    target, *others = self._answers(row)
    words = self.words
    if words and target not in words:
      raise BadRow(
        f"the field {self.target!r} is {target!r}, none of the labels "
        f"{', '.join(map(repr, words))}. One with a comma in it needs them as "
        "a JSON list or object."
      )
    word = words.get(target, target)
    if not word.strip():
      raise BadRow(f"the field {self.target!r} is empty.")
    is_number = not answers.is_invalid(answers.number(word))
    if OF_NUMBERS.intersection(self.metric) and not is_number:
      raise BadRow(f"the field {self.target!r} is {word!r}, no number.")
    if self.labels and others:
      raise BadRow(
        f"the field {self.target!r} has several answers for a label."
      )
    return {"inputs": text, "targets": word, "answers": [word, *others]}

  def _answers(self, row: tables.Row) -> list[str]:
    """The right answers of a row: one text, or a list of them.

    A list may stand under "text", as Hugging Face's SQuAD has it.
    """
    value = row.get(self.target)
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
      value = value["text"]
    if not isinstance(value, list):
      return [field(row, self.target, "--target")]
    if not value or not all(isinstance(answer, str) for answer in value):
      raise BadRow(
        f"the field {self.target!r} is {value!r:.60}, no list of answers."
      )
    return list(dict.fromkeys(value))


def listed(value: Sequence[str] | str) -> tuple[str, ...]:
  """A comma-separated list, or a list; where a text has commas, as JSON.

  Raises:
    ValueError: it begins as JSON and is none.
  """
  if isinstance(value, str) and value.lstrip().startswith("["):
    try:
      value = json.loads(value)
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{value} is no list in JSON ({error}).") from error
    if not all(isinstance(part, str) for part in value):
      raise ValueError(f"{value} must be a list of texts.")
    return tuple(value)
  parts = value.split(",") if isinstance(value, str) else value
  return tuple(str(part).strip() for part in parts if str(part).strip())


def labelled(value: Sequence[str] | str | Mapping[str, str]) -> tuple[str, ...]:
  """LABELS as `value=word` texts.

  They are a comma-separated list of `value` or `value=word`; where a value or a
  word has commas or equals signs, a list in JSON of whole values, or an object
  in JSON of words by value.

  Raises:
    ValueError: it begins as JSON and is none, names nothing, or has a word that
      is no text.
  """
  typed = value
  if isinstance(value, str) and value.lstrip().startswith("{"):
    try:
      value = json.loads(value, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
      raise ValueError(f"LABELS={value} is no object in JSON ({error}).") from (
        error
      )
  if isinstance(value, Mapping):
    wrong = [word for word in value.values() if not isinstance(word, str)]
    if wrong or not value:
      why = f"{wrong[0]!r} is no text" if wrong else "it names nothing"
      raise ValueError(
        f"LABELS={typed}: {why}. Give a word for each value, for example "
        '{"0": "no", "1": "yes"}, or leave it out for any text.'
      )
    return tuple(f"{v}{_IS}{word}" for v, word in value.items())
  is_json = isinstance(value, str) and value.lstrip().startswith("[")
  parts = listed(value)
  if is_json and not parts:
    raise ValueError(
      f"LABELS={typed} names nothing. Give labels, or leave it out for any "
      "text."
    )
  return tuple(f"{part}{_IS}{part}" for part in parts) if is_json else parts


def _pairs(pairs: list[tuple[str, object]]) -> dict:
  """An object of JSON, no name of which stands twice.

  Raises:
    ValueError: one does.
  """
  names = [name for name, _ in pairs]
  twice = [name for i, name in enumerate(names) if name in names[:i]]
  if twice:
    raise ValueError(f"{twice[0]!r} stands twice")
  return dict(pairs)


def _value_and_word(label: str) -> tuple[str, str]:
  """A label in its two parts; a value may have a = in it, a word none."""
  sign = _IS if _IS in label else "="
  value, equals, word = label.rpartition(sign)
  return (value, word) if equals else (label, label)
