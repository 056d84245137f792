"""Rows of jsonl, json, csv and tsv files, with the place of what is bad.

    train.jsonl, train.json, train.csv.gz, train.tsv.xz … -> {field: value}

A json file is a list of objects, one object a line, or SQuAD's nested form
(`squad_rows`). A csv file has quotes as spreadsheets write them, and commas or
semicolons between the fields, as its first line shows; in a tsv file (or .txt)
every tab separates and a quote is a letter, as in GLUE. Both have a line of
names first; lines with nothing in any field are passed over. Nothing here knows
of tasks or TensorFlow.
"""

import bz2
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import csv
import dataclasses
import difflib
import gzip
import io
import itertools
import json
import lzma
import math
import os
import pathlib
from typing import Any, Generic, TypeVar
import zlib

T = TypeVar("T")
Row = Mapping[str, Any]

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_FORMATS = {
  ".jsonl": "jsonl",
  ".json": "json",
  ".csv": "csv",
  ".tsv": "tsv",
  ".txt": "tsv",
}
_DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error)
_LONGEST_CELL = 2**31 - 1  # Python's csv refuses what is longer than 131,072


class BadRow(ValueError):
  """A row that cannot be used; the message names the field."""


@dataclasses.dataclass(frozen=True)
class Table(Generic[T]):
  """What was made of the rows of a file.

  Attributes:
    items: one for each good row.
    places: which row of the file each of them is, from 0; bad rows count.
    skipped: the message of each bad row.
  """

  items: list[T]
  places: list[int]
  skipped: list[str]


def read(
  path: str | os.PathLike,
  make: Callable[[Row], T],
  *,
  names: Sequence[str] | None = None,
  may_be_longer: bool = False,
  skip_bad_rows: bool = False,
  advice: str = "Correct the row.",
) -> Table[T]:
  """Makes something of every row of a file.

  Args:
    path: .jsonl, .json, .csv, .tsv or .txt, and .gz, .bz2 or .xz behind it.
    make: from a row; raises `BadRow` for one that it cannot use.
    names: of the columns, for a csv or tsv file without a line of names.
    may_be_longer: drop what a csv or tsv row has behind the last named column,
      instead of calling it a bad row.
    skip_bad_rows: keep the messages of bad rows instead of raising the first.
    advice: what to do about a bad row, the end of its message.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: an unknown format, a damaged file, one without good rows, or a
      bad row; the message has file, line and field.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    hint = " It is a folder; name a file in it." if file.is_dir() else ""
    raise FileNotFoundError(f"There is no file {file}.{hint}")
  items, places, skipped = [], [], []
  try:
    for i, (line, row) in enumerate(_rows(file, names, may_be_longer)):
      try:
        if isinstance(row, BadRow):
          raise row
        items.append(make(_checked(row)))
        places.append(i)
      except BadRow as error:
        message = f"{file}, line {line}: {error}"
        if not skip_bad_rows:
          raise ValueError(f"{message} {advice}") from error
        skipped.append(message)
  except _DAMAGED as error:
    raise ValueError(f"{file} cannot be read ({error}).") from error
  if not items:
    why = f"has only bad rows; {skipped[0]}" if skipped else "has no rows."
    raise ValueError(f"{file} {why}")
  return Table(items, places, skipped)


def markdown(*lines: Sequence[str]) -> str:
  """A Markdown table; the first line has the heads."""
  rows = ["| " + " | ".join(line) + " |" for line in lines]
  return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])


def field(row: Row, name: str, named_by: str = "") -> str:
  """The text of a field; a number or truth value is written as in JSON.

  Args:
    row: of a file.
    name: of the field.
    named_by: the flag that named the field, for the message.

  Raises:
    BadRow: there is no such field, or it holds no text.
  """
  if name not in row:
    close = difflib.get_close_matches(name, row, 1, 0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {list(row)}."
    by = f", which {named_by} names" if named_by else ""
    raise BadRow(f"the row has no field {name!r}{by}; {hint}")
  value = row[name]
  if value is None or isinstance(value, list | dict):
    raise BadRow(f"the field {name!r} is {value!r}, not a text or a number.")
  return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(row: Row) -> Row:
  """Refuses text that was no UTF-8."""
  for name, value in row.items():
    if not all(map(_is_text, _texts(value))):
      raise BadRow(
        f"the field {name!r} is not UTF-8 text. Save the file as UTF-8 if it "
        "is in another encoding."
      )
  return row


def _texts(value: Any) -> Iterator[str]:
  """All texts in a field, which may be a list or an object of them."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, list | dict):
    parts = value if isinstance(value, list) else [*value, *value.values()]
    for part in parts:
      yield from _texts(part)


def _is_text(value: str) -> bool:
  """Whether it was UTF-8; other bytes are decoded to lone surrogates."""
  try:
    value.encode("utf-8")
  except UnicodeEncodeError:
    return False
  return True


def _rows(
  file: pathlib.Path, names: Sequence[str] | None, may_be_longer: bool
) -> Iterator[tuple[int, Row | BadRow]]:
  """(line, row) of a file; a row that is no row is a `BadRow`."""
  suffixes = ["", *(suffix.lower() for suffix in file.suffixes[-2:])]
  opener = _OPENERS.get(suffixes[-1])
  kind = _FORMATS.get(suffixes[-2 if opener else -1])
  if kind is None:
    raise ValueError(
      f"{file} has no known format; the name must end in "
      f"{', '.join(_FORMATS)}, with {', '.join(_OPENERS)} behind it if it is "
      "compressed."
    )
  with (opener or open)(file, "rb") as binary:
    text = io.TextIOWrapper(
      binary, encoding="utf-8-sig", errors="surrogateescape", newline=""
    )
    if kind == "jsonl":
      yield from _objects(enumerate(text, 1))
      return
    if kind == "json":
      yield from _whole(text.read())
      return
    for line, row in _csv_rows(text) if kind == "csv" else _tsv_rows(text):
      if isinstance(row, list) and not any(row):
        continue
      if names is None:
        names = _names(row, f"{file}, line {line}")
      elif isinstance(row, BadRow):
        yield line, row
      else:
        yield line, _named(row, names, may_be_longer)


def _names(row: list[str] | BadRow, where: str) -> list[str]:
  """The names of the columns; without them no row can be read.

  Raises:
    ValueError: it is no line of names.
  """
  if isinstance(row, BadRow):
    raise ValueError(f"{where}, which names the fields: {row}") from row
  if not all(map(_is_text, row)):
    raise ValueError(
      f"{where}, which names the fields, is not UTF-8 text: {row}. Save the "
      "file as UTF-8."
    )
  twice = [name for i, name in enumerate(row) if name and name in row[:i]]
  if twice:
    raise ValueError(f"{where}: the field {twice[0]!r} is named twice.")
  return row


def _parsed(content: str) -> Any:
  """A JSON value; NaN and infinity, which are none, are refused.

  Raises:
    ValueError: it is no JSON.
  """

  def refuse(name: str):
    raise ValueError(f"{name} is no value of JSON; write null, or a text")

  def number(written: str) -> float:
    if math.isinf(value := float(written)):
      raise ValueError(f"{written} is too large a number; write it as a text")
    return value

  try:
    return json.loads(content, parse_constant=refuse, parse_float=number)
  except RecursionError as error:
    raise ValueError("it is nested too deeply") from error


def _objects(
  lines: Iterable[tuple[int, str]],
) -> Iterator[tuple[int, Row | BadRow]]:
  """The objects of numbered lines."""
  for line, content in lines:
    if not content.strip():
      continue
    try:
      row = _parsed(content)
    except ValueError as error:
      yield line, BadRow(f"this is no JSON ({error}).")
      continue
    yield line, _as_row(row)


def _as_row(value: Any) -> Row | BadRow:
  if isinstance(value, dict | BadRow):
    return value
  return BadRow('this is no JSON object, {"field": value, …}.')


def _whole(content: str) -> Iterator[tuple[int, Row | BadRow]]:
  """The rows of a json file; the number of a row stands for its line."""
  try:
    value = _parsed(content)
  except ValueError:  # perhaps one object a line
    yield from _objects(enumerate(io.StringIO(content, newline=""), 1))
    return
  if isinstance(value, dict) and isinstance(value.get("data"), list):
    value = value["data"]
    if any(isinstance(part, dict) and "paragraphs" in part for part in value):
      value = list(squad_rows(value))
  rows = value if isinstance(value, list) else [value]
  yield from enumerate(map(_as_row, rows), 1)


def squad_rows(articles: Sequence[Any]) -> Iterator[Row | BadRow]:
  """A row for each question of SQuAD's nested form.

  The fields are title, context, question, id and answers, a list of texts. A
  question, paragraph or article of another form is a bad row.
  """
  for article in articles:
    for paragraph in _within(article, "paragraphs"):
      for asked in _within(paragraph, "qas"):
        if isinstance(asked, BadRow):
          yield asked
          continue
        try:
          yield {
            "title": article.get("title", ""),
            "context": paragraph["context"],
            "question": asked["question"],
            "id": str(asked.get("id", "")),
            "answers": [answer["text"] for answer in asked.get("answers", ())],
          }
        except (KeyError, TypeError, AttributeError) as error:
          yield BadRow(f"this is not SQuAD's nested form ({error!r}).")


def _within(part: Any, name: str) -> list:
  """The list of a name in a part of SQuAD's nested form; else a bad row."""
  if isinstance(part, BadRow):
    return [part]
  if isinstance(part, dict) and isinstance(part.get(name), list):
    return part[name]
  return [BadRow(f"this is not SQuAD's nested form (there is no {name!r}).")]


def _tsv_rows(text: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
  for line, content in enumerate(text, 1):
    yield line, content.rstrip("\r\n").split("\t")


def _named(
  cells: list[str], names: Sequence[str], may_be_longer: bool
) -> Row | BadRow:
  """The cells by the names of their columns."""
  count = len(names)
  if len(cells) < count or (len(cells) > count and not may_be_longer):
    return BadRow(
      f"the row has {len(cells)} fields, {count} are needed "
      f"({', '.join(names)}); the last is {cells[-1][:60]!r}."
    )
  return dict(zip(names, cells[:count], strict=True))


def _csv_rows(
  text: io.TextIOWrapper,
) -> Iterator[tuple[int, list[str] | BadRow]]:
  csv.field_size_limit(_LONGEST_CELL)
  first = text.readline()
  between = ";" if ";" in first and "," not in first else ","
  lines = itertools.chain([first], text)
  reader = csv.reader(lines, strict=True, delimiter=between)
  while True:
    line = reader.line_num + 1
    try:
      yield line, next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      yield line, BadRow(f"this is no csv ({error}).")
