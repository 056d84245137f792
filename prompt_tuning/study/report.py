"""The report of a study: its rows as tables, and as a figure like the paper's.

results.md   the tables, and what made them
figure.png   mean and spread over the seeds
"""

from collections.abc import Sequence
import itertools
import math
import os
import pathlib
from typing import Any

import numpy as np

from prompt_tuning import plots, storage
from prompt_tuning.study import results
from prompt_tuning.study.trials import Study
from prompt_tuning.tables import Row, markdown


def table(study: Study, rows: Sequence[Row]) -> str:
  """The results as a Markdown table."""
  by_metric = {
    metric: results.lines(study, rows, metric) for metric in study.metrics
  }
  first = by_metric[study.metrics[0]]
  columns = list(dict.fromkeys(c for cells in first.values() for c in cells))
  if not study.has_mean or len(columns) < 3:
    columns.remove(results.MEAN) if results.MEAN in columns else None
  heads = [
    f"{column} {metric}" if len(study.metrics) > 1 else column
    for column in columns
    for metric in study.metrics
  ]
  axes = [study.x_label or "test accuracy, %"]
  axes += ["way"] if study.series else []
  lines = [[*axes, *heads]]
  for x, series in first:
    cells = [
      str(by_metric[metric][x, series].get(column, "–"))
      for column in columns
      for metric in study.metrics
    ]
    head = f"{x:,}" if isinstance(x, int) else str(x)
    way = [series] if study.series else []
    lines.append([head, *way, *cells])
  return markdown(*lines)


def figure(
  study: Study, rows: Sequence[Row], path: str | os.PathLike
) -> pathlib.Path:
  """Draws the results: mean and spread over the seeds."""
  if study.kind == "matrix":
    return plots.matrix(*results.cosines(rows), path)
  lines = results.lines(study, rows, study.metrics[0])
  if study.kind == "lines":
    series: dict[str, dict[float, tuple[float, float]]] = {}
    for (x, name), cells in lines.items():
      for column, cell in cells.items():
        is_mean = column == results.MEAN
        if is_mean or not study.series:
          label = name or ("mean of the tasks" if is_mean else column)
          series.setdefault(label, {})[float(x)] = _drawn(cell)
    return plots.lines(series, study.x_label, path)
  groups: dict[str, dict[str, tuple[float, float]]] = {}
  for (x, _), cells in lines.items():
    for column, cell in cells.items():
      if column != results.MEAN or (study.has_mean and len(cells) > 2):
        groups.setdefault(column, {})[str(x)] = _drawn(cell)
  return plots.points(groups, path)


def _drawn(cell: results.Cell) -> tuple[float, float]:
  return cell.mean, 0.0 if math.isnan(cell.spread) else cell.spread


def words(rows: Sequence[Row], positions: int = 4) -> str:
  """What prompts mean, as a Markdown table: a line per task (seed 0)."""
  nearest_words = "nearest words of the positions that are nearest to a word"
  lines = [["task", nearest_words, "class labels kept, all seeds"]]
  kept: dict[str, list[bool]] = {}
  for row in rows:
    flags = kept.setdefault(results.trial_of(row).task, [])
    flags += row["meaning"]["labels_kept"]
  for row in rows:
    trial, nearest = results.trial_of(row), row["meaning"]["nearest"]
    if trial.seed:
      continue
    best = sorted(range(len(nearest)), key=lambda i: -nearest[i][0][1])
    told = "; ".join(
      f"{i}: " + ", ".join(f"{word} {cos:.2f}" for word, cos in nearest[i][:3])
      for i in sorted(best[:positions])
    )
    flags = kept[trial.task]
    share = f"{sum(flags)} of {len(flags)}"
    lines.append([results.shown(trial.task), told, share])
  return markdown(*lines)


def wordings(rows: Sequence[Row]) -> str:
  """Least and greatest test accuracy over hand-written wordings, as a table."""
  spans: dict[str, dict[str, list[float]]] = {}
  several = len({results.trial_of(row).model for row in rows}) > 1
  for row in rows:
    if len(row.get("by_wording", ())) > 1:
      trial = results.trial_of(row)
      title = f"{trial.title}, {trial.pretraining}" if several else trial.title
      tasks = spans.setdefault(title, {})
      scores = tasks.setdefault(results.shown(trial.task), [])
      scores += [metrics["accuracy"] for metrics in row["by_wording"]]
  if not spans:
    return ""
  columns = list(dict.fromkeys(itertools.chain.from_iterable(spans.values())))
  lines = [["the wordings, worst to best on test, all seeds", *columns]]
  for title, tasks in spans.items():
    cells = [
      f"{min(tasks[c]):.1f} to {max(tasks[c]):.1f}" if c in tasks else "–"
      for c in columns
    ]
    lines.append([title, *cells])
  return markdown(*lines)


def sources(rows: Sequence[Row]) -> str:
  """Which source each seed started from, as a Markdown table."""
  by_task: dict[str, dict[Any, list[str]]] = {}
  for row in rows:
    if "cosines" in row:
      trial, (task, cosine) = results.trial_of(row), _best(row["cosines"])
      cells = by_task.setdefault(results.shown(trial.task), {})
      cells.setdefault(trial.few, []).append(
        f"{results.shown(task)} {cosine:.2f}"
      )
  if not by_task:
    return ""
  columns = sorted({few for cells in by_task.values() for few in cells})
  head = ["the source that each seed started from, by cosine"]
  lines = [[*head, *(f"{few} examples" for few in columns)]]
  for task, cells in by_task.items():
    lines.append([task, *(", ".join(cells.get(few, ["–"])) for few in columns)])
  return markdown(*lines)


def courses(rows: Sequence[Row]) -> str:
  """How steadily and how fast each method trained, as a Markdown table."""
  groups: dict[tuple[str, str], list[Row]] = {}
  for row in rows:
    if "course" in row:
      trial = results.trial_of(row)
      groups.setdefault((trial.title, results.shown(trial.task)), []).append(
        row
      )
  if not groups:
    return ""
  lines = [
    [
      *("way", "task", "mean, 95 % interval", "worst seed", "numbers"),
      *("steps to 95 % of the final score", "seconds a step"),
    ]
  ]
  for (title, task), of_seeds in groups.items():
    scores = [score for row in of_seeds for score in _accuracies(row)]
    taken = [row["course"]["steps_to_most"] for row in of_seeds]
    timed = [row["course"]["step_seconds"] for row in of_seeds]
    seconds = [each for each in timed if each is not None]
    steps = "–"
    if None not in taken:
      steps = f"{np.mean(taken):.0f} ({min(taken)} to {max(taken)})"
    lines.append(
      [
        *(title, task, _interval(scores), f"{min(scores):.1f}"),
        f"{of_seeds[0]['course']['trained_numbers']:,}",
        *(steps, f"{min(seconds):.3f}" if seconds else "–"),
      ]
    )
  return markdown(*lines)


def _accuracies(row: Row) -> list[float]:
  return [metrics["accuracy"] for metrics in row["scores"].values()]


def _interval(values: Sequence[float]) -> str:
  """The mean, and how far the true one may be from it (Student's t)."""
  from scipy import stats  # slow to import

  if len(values) < 2:
    return f"{np.mean(values):.1f}"
  cell = results.cell(values)
  t = stats.t.ppf(0.975, len(values) - 1)
  return f"{cell.mean:.1f} ± {t * cell.spread / len(values) ** 0.5:.1f}"


def _best(cosines: dict[str, float]) -> tuple[str, float]:
  return max(cosines.items(), key=lambda item: item[1])


def tables(study: Study, rows: Sequence[Row]) -> str:
  """All tables of a study, and what made them."""
  more = words if study.kind == "matrix" else wordings
  parts = [table(study, rows), more(rows), sources(rows), courses(rows)]
  machines = ", ".join(dict.fromkeys(row["machine"] for row in rows))
  seconds = sum(row["seconds"] for row in rows)
  versions = rows[-1]["versions"]
  have = {results.trial_of(row).model for row in rows}
  absent = [model.name for model in study.models if model.name not in have]
  if absent:
    parts.append(f"Not pre-trained, and left out: {', '.join(absent)}.")
  parts.append(
    f"{len(rows)} runs, {seconds / 60:.0f} minutes on {machines}; "
    + ", ".join(f"{name} {version}" for name, version in versions.items())
    + ". ± is the standard deviation over the seeds."
  )
  return "\n\n".join(part for part in parts if part)


def write(study: Study, rows: Sequence[Row], folder: pathlib.Path) -> None:
  """Writes results.md and figure.png."""
  storage.write_text(
    folder / "results.md",
    f"# {study.question}\n\nThe paper: {study.paper}\n\n"
    f"{tables(study, rows)}\n\n![{study.name}](figure.png)\n",
  )
  figure(study, rows, folder / "figure.png")
