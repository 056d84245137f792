"""A study's results: one row per trial, and the means and spreads of rows.

    results.jsonl -> entries (x, series, task, metric, seed) -> cells

The mean over tasks is taken for each seed first, then mean and standard
deviation over the seeds, as the paper's figures show them.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import itertools
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from prompt_tuning import json_files
from prompt_tuning.study.trials import METHOD, Study, Trial
from prompt_tuning.tables import Row
from prompt_tuning.tasks import microworld

MEAN = "mean"


class Entry(NamedTuple):
  """One number of one trial."""

  x: Any
  series: str
  column: str
  metric: str
  seed: int
  value: float


class Cell(NamedTuple):
  """The mean over seeds, and their standard deviation (nan for one seed)."""

  mean: float
  spread: float

  def __str__(self) -> str:
    spread = "" if math.isnan(self.spread) else f" ± {self.spread:.1f}"
    return f"{self.mean:.1f}{spread}"


def load(path: str | os.PathLike) -> list[dict]:
  """The rows of a results file; none if there is no such file.

  Raises:
    ValueError: a line is no row; the message has its number.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    return []
  rows = []
  for line, text in enumerate(file.read_bytes().splitlines(), 1):
    try:
      row = dict(json_files.parse_object(text, "it"))
      _check(json_files.Fields(row, "it"))
    except (ValueError, TypeError) as error:
      raise ValueError(
        f"{file}, line {line} is no row of a study ({error}). Remove the "
        "line; its run is done again."
      ) from error
    rows.append(row)
  return rows


def _check(row: json_files.Fields) -> None:
  """Refuses a row that lacks what tables and figures are made of.

  Raises:
    ValueError: a field is missing, or of another kind.
    TypeError: it has a setting that no trial has.
  """
  # The trial; a setting that an older row lacks has its default.
  run = row.table("run")
  run.text("task")
  run.words("tests")
  for field in dataclasses.fields(Trial):
    if isinstance(field.default, bool):
      run.flag(field.name, None)
    elif isinstance(field.default, int):
      run.whole(field.name, None, least=0)
    elif isinstance(field.default, float):
      run.number(field.name, None, above=-1e-9)
    elif field.name != "tests":
      run.text(field.name, None)
  if trial_of(row).way == METHOD:
    row.table("course").whole("trained_numbers")

  # The numbers: of a task, and of an ensemble's ways to answer.
  tables = [row.table(name) for name in ("scores", "summary")]
  for scores in (table.table(name) for table in tables for name in table):
    for metric, value in scores.items():
      if isinstance(value, bool) or not isinstance(value, int | float):
        raise scores.refuse(metric, "a number")
  row.whole("parameters")
  row.text("model_hash")
  row.text("machine")
  row.number("seconds", above=-1e-9)


def trial_of(row: Row) -> Trial:
  """The trial that a row is the result of."""
  settings = dict(row["run"])
  return Trial(**{**settings, "tests": tuple(settings["tests"])})


def lacking(study: Study, rows: Iterable[Row]) -> list[Trial]:
  """The trials of a study without a row."""
  have = {trial_of(row) for row in rows}
  return [trial for trial in study.trials if trial not in have]


def shown(task: str) -> str:
  """A task's name in tables and figures."""
  name = task.removeprefix("microworld_").removesuffix(microworld.SENTINEL)
  return name.replace("_to_", " → ")


def entries(study: Study, row: Row) -> list[Entry]:
  """The numbers of one row; an ensemble's has several values of x."""
  trial = trial_of(row)
  x = row["parameters"] if study.x == "parameters" else getattr(trial, study.x)
  series = getattr(trial, study.series) if study.series else ""
  scores = [(x, task, metrics) for task, metrics in row["scores"].items()]
  if "summary" in row:
    scores = [(way, trial.task, row["summary"][way]) for way in row["summary"]]
  return [
    Entry(at, series, shown(task), metric, trial.seed, metrics[metric])
    for at, task, metrics in scores
    for metric in study.metrics
  ]


def cell(values: Sequence[float]) -> Cell:
  """Mean and standard deviation (n - 1) of the seeds' values."""
  spread = np.std(values, ddof=1) if len(values) > 1 else math.nan
  return Cell(float(np.mean(values)), float(spread))


def over_seeds(
  numbers: Sequence[Entry], columns: Sequence[str]
) -> dict[str, Cell]:
  """Cells by column, and under `mean` the mean over all columns.

  Args:
    numbers: entries of one metric that agree in x and series.
    columns: of the table. A seed that lacks one does not count for the mean.
  """
  by_seed: dict[int, dict[str, float]] = {}
  for entry in numbers:
    by_seed.setdefault(entry.seed, {})[entry.column] = entry.value
  whole = [
    float(np.mean(list(values.values())))
    for values in by_seed.values()
    if len(values) == len(columns)
  ]
  cells = {MEAN: cell(whole)} if whole else {}
  for column in columns:
    values = [v[column] for v in by_seed.values() if column in v]
    if values:
      cells[column] = cell(values)
  return cells


Lines = dict[tuple[Any, str], dict[str, Cell]]
"""Cells by column, for each (x, series)."""


def lines(study: Study, rows: Sequence[Row], metric: str) -> Lines:
  """The cells of each (x, series), in the order of the study."""
  groups: dict[tuple[Any, str], list[Entry]] = {}
  for row in rows:
    for entry in entries(study, row):
      if entry.metric == metric:
        groups.setdefault((entry.x, entry.series), []).append(entry)
  every = itertools.chain.from_iterable(groups.values())
  columns = list(dict.fromkeys(entry.column for entry in every))
  # An ensemble's ways stand in the order of its summary.
  order = {} if any("summary" in row for row in rows) else _order(study)

  def rank(key):
    x, series = key
    number = x if isinstance(x, int | float) else order.get(x, len(order))
    return number, order.get(series, 0)

  ordered = sorted(groups, key=rank)
  return {key: over_seeds(groups[key], columns) for key in ordered}


def _order(study: Study) -> dict[Any, int]:
  """The rank of every x and series among the study's trials."""
  names = (
    getattr(trial, field)
    for field in (study.series, study.x)
    if field and field != "parameters"
    for trial in study.trials
  )
  return {name: i for i, name in enumerate(dict.fromkeys(names))}


def cosines(rows: Sequence[Row]) -> tuple[list[str], np.ndarray]:
  """Cosines between the mean positions of prompts, by task.

  Prompts of one seed start from the same words, so only prompts of different
  seeds are compared, also within a task. nan where there is no such pair.
  """
  by_task: dict[str, dict[int, np.ndarray]] = {}
  for row in rows:
    trial, mean = trial_of(row), np.array(row["meaning"]["mean"])
    unit = mean / np.linalg.norm(mean)
    by_task.setdefault(shown(trial.task), {})[trial.seed] = unit
  names = list(by_task)
  values = np.full((len(names), len(names)), np.nan)
  for (i, first), (j, second) in itertools.product(enumerate(names), repeat=2):
    pairs = [
      float(a @ b)
      for s, a in by_task[first].items()
      for t, b in by_task[second].items()
      if s != t
    ]
    if pairs:
      values[i, j] = np.mean(pairs)
  return names, values
