"""The download folders of GLUE and SuperGLUE as rows with the fields of TFDS.

    GLUE/CoLA/train.tsv, SuperGLUE/BoolQ/val.jsonl … -> rows

For those who have the official zips and not TFDS. The rows are what TFDS makes
of the same files, WSC's corrections included.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import json
import logging
import pathlib
from typing import Any

from prompt_tuning import tables
from prompt_tuning.tables import BadRow, field
from prompt_tuning.tasks.casts import HIDDEN

Row = dict[str, Any]


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


_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_NLI = {"premise": "sentence1", "hypothesis": "sentence2"}
_NLI_LABELS = ("entailment", "neutral", "contradiction")
_ENTAILMENT = ("entailment", "not_entailment")

GLUE = {
  "cola": Tsv("CoLA", {"sentence": "sentence"}, "is_acceptable"),
  "sst2": Tsv("SST-2", {"sentence": "sentence"}, "label"),
  "mrpc": Tsv(
    "MRPC",
    {"sentence1": "#1 String", "sentence2": "#2 String"},
    "Quality",
  ),
  "qqp": Tsv(
    "QQP", {name: name for name in ("question1", "question2")}, "is_duplicate"
  ),
  "stsb": Tsv("STS-B", _PAIR, "score", ()),
  "mnli": Tsv("MNLI", _NLI, "gold_label", _NLI_LABELS),
  "mnli_matched": Tsv("MNLI", _NLI, "gold_label", _NLI_LABELS),
  "mnli_mismatched": Tsv("MNLI", _NLI, "gold_label", _NLI_LABELS),
  "qnli": Tsv(
    "QNLI",
    {"question": "question", "sentence": "sentence"},
    "label",
    _ENTAILMENT,
  ),
  "rte": Tsv("RTE", _PAIR, "label", _ENTAILMENT),
  "wnli": Tsv("WNLI", _PAIR, "label"),
  "ax": Tsv("MNLI", _NLI, "", _NLI_LABELS),
}
SUPER_GLUE = {
  "boolq": "BoolQ",
  "cb": "CB",
  "copa": "COPA",
  "multirc": "MultiRC",
  "record": "ReCoRD",
  "rte": "RTE",
  "wic": "WiC",
  "wsc.fixed": "WSC",
  "axb": "AX-b",
  "axg": "AX-g",
}
_DIAGNOSTIC = ("MNLI/diagnostic.tsv", "diagnostic/diagnostic.tsv", "AX.tsv")
"""Where GLUE's diagnostic set lies, as different downloads have it."""
FOLDERS = {
  "glue": {task: tsv.folder for task, tsv in GLUE.items()},
  "super_glue": SUPER_GLUE,
}
_TEXTS = {
  "boolq": ("question", "passage"),
  "cb": ("premise", "hypothesis"),
  "copa": ("premise", "choice1", "choice2", "question"),
  "rte": ("premise", "hypothesis"),
  "wic": ("word", "sentence1", "sentence2"),
  "wsc.fixed": ("text",),
  "axb": ("sentence1", "sentence2"),
  "axg": ("premise", "hypothesis"),
}
_CLASSES = {
  "boolq": ("False", "True"),
  "cb": ("entailment", "contradiction", "neutral"),
  "copa": ("0", "1"),
  "rte": _ENTAILMENT,
  "wic": ("False", "True"),
  "wsc.fixed": ("False", "True"),
  "axb": _ENTAILMENT,
  "axg": _ENTAILMENT,
}


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
  place = folder / SUPER_GLUE[task] / _super_glue_file(task, split)
  found = tables.read(_existing(place), MAKERS.get(task) or _plain(task))
  return [row for rows in found.items for row in rows]


def _super_glue_file(task: str, split: str) -> str:
  if task in ("axb", "axg"):
    return f"{SUPER_GLUE[task]}.jsonl"
  return {"validation": "val"}.get(split, split) + ".jsonl"


def _existing(place: pathlib.Path) -> pathlib.Path:
  if place.is_file():
    return place
  have = sorted(p.name for p in place.parent.glob("*")) or "nothing"
  raise FileNotFoundError(
    f"There is no {place}; its folder holds {have}. Unzip the official "
    "download of the benchmark as it is."
  )


def _read_glue(folder: pathlib.Path, task: str, split: str) -> list[Row]:
  spec = GLUE[task]
  name = split.replace("validation", "dev")
  if task in ("mnli_matched", "mnli_mismatched"):
    name += task.removeprefix("mnli")
  place = folder / spec.folder / f"{name}.tsv"
  if task == "ax":
    places = [folder / file for file in _DIAGNOSTIC]
    place = next(filter(pathlib.Path.is_file, places), places[0])
  names = None
  if task == "cola" and split != "test":  # these two have no line of names
    names = ("source", "is_acceptable", "star", "sentence")

  def make(row: tables.Row) -> Row:
    return {
      **{name: field(row, column) for name, column in spec.fields.items()},
      "label": _glue_label(row, spec),
    }

  # QQP has rows that break off, which TFDS leaves out as well.
  table = tables.read(
    _existing(place),
    make,
    names=names,
    may_be_longer=True,
    skip_bad_rows=task == "qqp",
  )
  if table.skipped:
    logging.getLogger(__name__).warning(
      "%s: %d rows are bad and left out.", place, len(table.skipped)
    )
  rows = zip(table.places, table.items, strict=True)
  return [{**row, "idx": place} for place, row in rows]


def _glue_label(row: tables.Row, spec: Tsv) -> int | float:
  if spec.label not in row:
    return HIDDEN
  word = field(row, spec.label)
  if spec.labels:
    return _class(word, spec.labels, spec.label)
  try:
    return float(word)
  except ValueError:
    raise BadRow(f"the field {spec.label!r} is {word!r}, no number.") from None


def _class(word: str, labels, name: str) -> int:
  if word not in labels:
    raise BadRow(
      f"the field {name!r} is {word!r}, none of {', '.join(labels)}."
    )
  return labels.index(word)


def _plain(task: str) -> Callable[[tables.Row], list[Row]]:
  """One line, one row; the label is a word, a truth value or a number."""

  def make(row: tables.Row) -> list[Row]:
    made: Row = {name: field(row, name) for name in _TEXTS[task]}
    made["idx"] = _idx(row)
    made["label"] = HIDDEN
    if "label" in row:
      word = str(row["label"])
      if task in ("boolq", "wic"):
        word = word.capitalize()
      made["label"] = _class(word, _CLASSES[task], "label")
    return [made]

  return make


def _idx(row: tables.Row) -> int:
  word = field(row, "idx")
  try:
    return int(word)
  except ValueError:
    raise BadRow(f"the field 'idx' is {word!r}, no number.") from None


def _part(row: Any, name: str, kind: type) -> Any:
  value = row.get(name) if isinstance(row, dict) else None
  if not isinstance(value, kind):
    raise BadRow(
      f"the field {name!r} is {json.dumps(value)[:60]}, no {kind.__name__}."
    )
  return value


def _multirc(row: tables.Row) -> list[Row]:
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


def _record(row: tables.Row) -> list[Row]:
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


def _wsc(row: tables.Row) -> list[Row]:
  """A row of WSC with its spans made substrings of the text."""
  (made,) = _plain("wsc.fixed")(row)
  target = _part(row, "target", dict)
  for span in ("span1", "span2"):
    made[f"{span}_index"] = _part(target, f"{span}_index", int)
    made[f"{span}_text"] = _span(made, field(target, f"{span}_text"), span)
  return [made]


def _span(made: Row, text: str, span: str) -> str:
  if text in made["text"] or text.startswith("Kamenev"):
    return text  # two names with other words between them cannot be mended
  if "theyscold" in text:
    made["span2_index"] = 10
  words, index = made["text"].split(), made[f"{span}_index"]
  if not 0 <= index < len(words):
    raise BadRow(f"the field '{span}_index' is {index}, outside of the text.")
  first = text[0].lower() if words[index][0].islower() else text[0].upper()
  return (first + text[1:]).rstrip(".").replace("\n", " ")


MAKERS: dict[str, Callable[[tables.Row], list[Row]]] = {
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
      for place in (folder / name, folder):
        if task != "ax" and place.name == name and any(place.glob(kind)):
          yield benchmark, place.parent, task
  for file in map(pathlib.Path, _DIAGNOSTIC):
    for parent in (folder, folder.parent):
      whole = parent / file
      if whole.is_file() and folder in (parent, whole.parent):
        yield "glue", parent, "ax"
        return
