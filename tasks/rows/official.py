"""The download folders of GLUE and SuperGLUE as rows with the fields of TFDS.

    GLUE/CoLA/train.tsv, SuperGLUE/BoolQ/val.jsonl … -> rows

For those who have the official zips and not TFDS. The rows are what TFDS makes
of the same files, WSC's corrections included.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import json
import logging
import pathlib
from typing import Any

from prompt_tuning import tables
from prompt_tuning.tables import BadRow, Row, field
from prompt_tuning.tasks.casts import HIDDEN


@dataclasses.dataclass(frozen=True)
class Tsv:
  """A task of GLUE.

  Attributes:
    folder: its folder.
    fields: names of TFDS, each with its column.
    label: the column of the label.
    labels: the labels as they stand in the file, in the order of the classes.
  """

  folder: str
  fields: Mapping[str, str]
  label: str
  labels: tuple[str, ...] = ("0", "1")


@dataclasses.dataclass(frozen=True)
class Jsonl:
  """A task of SuperGLUE.

  Attributes:
    folder: its folder.
    texts: its fields that are texts, in the order in which T5 reads them.
    labels: the labels as they stand in the file, in the order of the classes;
      () for a task whose rows are made in a way of its own.
  """

  folder: str
  texts: tuple[str, ...] = ()
  labels: tuple[str, ...] = ()


_SENTENCE = {"sentence": "sentence"}
_PAIR = {name: name for name in ("sentence1", "sentence2")}
_QUESTIONS = {name: name for name in ("question1", "question2")}
_NLI = {"hypothesis": "sentence2", "premise": "sentence1"}
_NLI_LABELS = ("entailment", "neutral", "contradiction")
_ENTAILMENT = ("entailment", "not_entailment")
_TRUTH = ("False", "True")

GLUE = {
  "cola": Tsv("CoLA", _SENTENCE, "is_acceptable"),
  "sst2": Tsv("SST-2", _SENTENCE, "label"),
  "mrpc": Tsv(
    "MRPC", {"sentence1": "#1 String", "sentence2": "#2 String"}, "Quality"
  ),
  "qqp": Tsv("QQP", _QUESTIONS, "is_duplicate"),
  "stsb": Tsv("STS-B", _PAIR, "score", ()),
  "mnli": Tsv("MNLI", _NLI, "gold_label", _NLI_LABELS),
  "mnli_matched": Tsv("MNLI", _NLI, "gold_label", _NLI_LABELS),
  "mnli_mismatched": Tsv("MNLI", _NLI, "gold_label", _NLI_LABELS),
  "qnli": Tsv(
    "QNLI", {"question": "question", **_SENTENCE}, "label", _ENTAILMENT
  ),
  "rte": Tsv("RTE", _PAIR, "label", _ENTAILMENT),
  "wnli": Tsv("WNLI", _PAIR, "label"),
  "ax": Tsv("MNLI", _NLI, "", _NLI_LABELS),
}
_INFERENCE = ("hypothesis", "premise")
_COPA = ("choice1", "choice2", "premise", "question")
_CB = ("entailment", "contradiction", "neutral")
SUPER_GLUE = {
  "boolq": Jsonl("BoolQ", ("passage", "question"), _TRUTH),
  "cb": Jsonl("CB", _INFERENCE, _CB),
  "copa": Jsonl("COPA", _COPA, ("0", "1")),
  "multirc": Jsonl("MultiRC"),
  "record": Jsonl("ReCoRD"),
  "rte": Jsonl("RTE", _INFERENCE, _ENTAILMENT),
  "wic": Jsonl("WiC", ("sentence1", "sentence2", "word"), _TRUTH),
  "wsc.fixed": Jsonl("WSC", ("text",), _TRUTH),
  "axb": Jsonl("AX-b", ("sentence1", "sentence2"), _ENTAILMENT),
  "axg": Jsonl("AX-g", _INFERENCE, _ENTAILMENT),
}
FOLDERS = {
  benchmark: {task: files.folder for task, files in tasks.items()}
  for benchmark, tasks in (("glue", GLUE), ("super_glue", SUPER_GLUE))
}
_DIAGNOSTIC = ("MNLI/diagnostic.tsv", "diagnostic/diagnostic.tsv", "AX.tsv")
"""Where GLUE's diagnostic set lies, as different downloads have it."""


def read(
  folder: pathlib.Path, benchmark: str, task: str, split: str
) -> list[Row]:
  """The rows of a split.

  Args:
    folder: holds the folders of the benchmark's tasks (CoLA, MNLI, …).
    benchmark: `glue` or `super_glue`.
    task: the name of the TFDS configuration.
    split: the name of the TFDS split.

  Raises:
    FileNotFoundError: the file of the split is not there.
    ValueError: a bad row; the message has file, line and field.
  """
  if benchmark == "glue":
    return _read_glue(folder, task, split)
  name = "val" if split == "validation" else split
  if task in ("axb", "axg"):
    name = SUPER_GLUE[task].folder
  file = _existing(folder / SUPER_GLUE[task].folder / f"{name}.jsonl")
  make = MAKERS.get(task) or functools.partial(_plain, task)
  return [row for rows in tables.read(file, make).items for row in rows]


def _existing(file: pathlib.Path) -> pathlib.Path:
  if file.is_file():
    return file
  have = sorted(p.name for p in file.parent.glob("*")) or "nothing"
  raise FileNotFoundError(
    f"There is no {file}; its folder holds {have}. Unzip the official "
    "download of the benchmark as it is."
  )


def _read_glue(folder: pathlib.Path, task: str, split: str) -> list[Row]:
  spec = GLUE[task]
  name = split.replace("validation", "dev")
  if task in ("mnli_matched", "mnli_mismatched"):
    name += task.removeprefix("mnli")
  file = folder / spec.folder / f"{name}.tsv"
  if task == "ax":
    files = [folder / name for name in _DIAGNOSTIC]
    file = next(filter(pathlib.Path.is_file, files), files[0])
  names = None
  if task == "cola" and split != "test":  # these two have no line of names
    names = ("source", "is_acceptable", "star", "sentence")

  def make(row: Row) -> Row:
    return {
      **{name: field(row, column) for name, column in spec.fields.items()},
      "label": _glue_label(row, spec),
    }

  # QQP has rows that break off, which TFDS leaves out as well.
  table = tables.read(
    _existing(file),
    make,
    names=names,
    may_be_longer=True,
    skip_bad_rows=task == "qqp",
  )
  if table.skipped:
    logging.getLogger(__name__).warning(
      "%s: %d rows are bad and left out.", file, len(table.skipped)
    )
  rows = zip(table.places, table.items, strict=True)
  return [{**row, "idx": i} for i, row in rows]


def _glue_label(row: Row, spec: Tsv) -> int | float:
  if spec.label not in row:
    return HIDDEN
  word = field(row, spec.label)
  if spec.labels:
    return _class(word, spec.labels, spec.label)
  return _number(word, spec.label, float)


def _class(word: str, labels, name: str) -> int:
  if word not in labels:
    raise BadRow(
      f"the field {name!r} is {word!r}, none of {', '.join(labels)}."
    )
  return labels.index(word)


def _plain(task: str, row: Row) -> list[dict[str, Any]]:
  """One line, one row; the label is a word, a truth value or a number."""
  made = {name: field(row, name) for name in SUPER_GLUE[task].texts}
  label = HIDDEN
  if "label" in row:
    word = str(row["label"])
    if task in ("boolq", "wic"):
      word = word.capitalize()
    label = _class(word, SUPER_GLUE[task].labels, "label")
  return [{**made, "idx": _idx(row), "label": label}]


def _idx(row: Row) -> int:
  return _number(field(row, "idx"), "idx", int)


def _number(word: str, name: str, kind: Callable[[str], Any]) -> Any:
  try:
    return kind(word)
  except ValueError:
    raise BadRow(f"the field {name!r} is {word!r}, no number.") from None


def _part(row: Any, name: str, kind: type) -> Any:
  value = row.get(name) if isinstance(row, dict) else None
  if not isinstance(value, kind):
    raise BadRow(
      f"the field {name!r} is {json.dumps(value)[:60]}, no {kind.__name__}."
    )
  return value


def _multirc(row: Row) -> list[Row]:
  paragraph = _part(row, "passage", dict)
  return [
    {
      "paragraph": _part(paragraph, "text", str),
      "question": _part(question, "question", str),
      "answer": _part(answer, "text", str),
      "label": _answer_label(answer),
      "idx": {
        "paragraph": _idx(row),
        "question": _idx(question),
        "answer": _idx(answer),
      },
    }
    for question in _part(paragraph, "questions", list)
    for answer in _part(question, "answers", list)
  ]


def _answer_label(answer: Mapping[str, Any]) -> int:
  """0 or 1; hidden where there is none, or null."""
  label = answer.get("label")
  if label not in (None, 0, 1):
    raise BadRow(f"the field 'label' of an answer is {label!r}, none of 0, 1.")
  return HIDDEN if label is None else int(label)


def _record(row: Row) -> list[Row]:
  passage = _part(row, "passage", dict)
  text = _part(passage, "text", str)
  entities = {
    text[_part(entity, "start", int) : _part(entity, "end", int) + 1]
    for entity in _part(passage, "entities", list)
  }
  return [
    {
      "passage": text,
      "query": _part(query, "query", str),
      "entities": sorted(entities),
      "answers": sorted(
        {_part(answer, "text", str) for answer in query.get("answers") or ()}
      ),
      "idx": {"passage": _idx(row), "query": _idx(query)},
    }
    for query in _part(row, "qas", list)
  ]


def _wsc(row: Row) -> list[Row]:
  """A row of WSC with its spans made substrings of the text."""
  (made,) = _plain("wsc.fixed", row)
  target = _part(row, "target", dict)
  for span in ("span1", "span2"):
    made[f"{span}_index"] = _part(target, f"{span}_index", int)
    made[f"{span}_text"] = _span(made, field(target, f"{span}_text"), span)
  return [made]


def _span(made: dict[str, Any], text: str, span: str) -> str:
  if text in made["text"] or text.startswith("Kamenev"):
    return text  # two names with other words between them cannot be mended
  if "theyscold" in text:
    made["span2_index"] = 10
  words, index = made["text"].split(), made[f"{span}_index"]
  if not 0 <= index < len(words):
    raise BadRow(f"the field '{span}_index' is {index}, outside of the text.")
  first = text[0].lower() if words[index][0].islower() else text[0].upper()
  return (first + text[1:]).rstrip(".").replace("\n", " ")


MAKERS: dict[str, Callable[[Row], list[Row]]] = {
  "multirc": _multirc,
  "record": _record,
  "wsc.fixed": _wsc,
}


def recognise(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path, str]]:
  """(benchmark, its folder, task) of every task that a folder holds.

  The folder is that of a benchmark or of one task, an absolute path.
  """
  for benchmark, names in FOLDERS.items():
    kind = "*.tsv" if benchmark == "glue" else "*.jsonl"
    for task, name in names.items():
      for own in (folder / name, folder):
        if task != "ax" and own.name == name and any(own.glob(kind)):
          yield benchmark, own.parent, task
  for file in map(pathlib.Path, _DIAGNOSTIC):
    for parent in (folder, folder.parent):
      whole = parent / file
      if whole.is_file() and folder in (parent, whole.parent):
        yield "glue", parent, "ax"
        return
