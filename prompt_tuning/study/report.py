"""The report of a study: its rows as tables, and as a figure like the paper's.

results.md   the tables, and what made them
figure.png   mean and spread over the seeds
"""

from collections.abc import Sequence
import math
import os
import pathlib

from prompt_tuning import plots, storage
from prompt_tuning.study import results
from prompt_tuning.study.trials import Study


def table(study: Study, rows: Sequence[results.Row]) -> str:
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
  out = ["| " + " | ".join([*axes, *heads]) + " |"]
  out.append("|---" * (len(axes) + len(heads)) + "|")
  for x, series in first:
    cells = [
      str(by_metric[metric][x, series].get(column, "–"))
      for column in columns
      for metric in study.metrics
    ]
    head = f"{x:,}" if isinstance(x, int) else str(x)
    named = [series] if study.series else []
    out.append("| " + " | ".join([head, *named, *cells]) + " |")
  return "\n".join(out)


def figure(
  study: Study, rows: Sequence[results.Row], path: str | os.PathLike
) -> pathlib.Path:
  """Draws the results: mean and spread over the seeds."""
  if study.kind == "matrix":
    return plots.matrix(*results.cosines(rows), path)
  found = results.lines(study, rows, study.metrics[0])
  if study.kind == "lines":
    series: dict[str, dict[float, tuple[float, float]]] = {}
    for (x, name), cells in found.items():
      for column, one in cells.items():
        is_mean = column == results.MEAN
        if is_mean or not study.series:
          label = name or ("mean of the tasks" if is_mean else column)
          series.setdefault(label, {})[float(x)] = _drawn(one)
    return plots.lines(series, study.x_label, path)
  groups: dict[str, dict[str, tuple[float, float]]] = {}
  for (x, _), cells in found.items():
    for column, one in cells.items():
      if column != results.MEAN or (study.has_mean and len(cells) > 2):
        groups.setdefault(column, {})[str(x)] = _drawn(one)
  return plots.points(groups, path)


def _drawn(one: results.Cell) -> tuple[float, float]:
  return one.mean, 0.0 if math.isnan(one.spread) else one.spread


def words(rows: Sequence[results.Row], positions: int = 4) -> str:
  """What prompts mean, as a Markdown table: a line per task (seed 0)."""
  out = [
    "| task | nearest words of the positions that are nearest to a word | "
    "class labels kept, all seeds |",
    "|---|---|---|",
  ]
  kept: dict[str, list[bool]] = {}
  for row in rows:
    kept.setdefault(results.run_of(row).task, []).extend(
      row["meaning"]["labels_kept"]
    )
  for row in rows:
    run, nearest = results.run_of(row), row["meaning"]["nearest"]
    if run.seed:
      continue
    best = sorted(range(len(nearest)), key=lambda i: -nearest[i][0][1])
    told = "; ".join(
      f"{i}: " + ", ".join(f"{word} {cos:.2f}" for word, cos in nearest[i][:3])
      for i in sorted(best[:positions])
    )
    flags = kept[run.task]
    out.append(
      f"| {results.shown(run.task)} | {told} | {sum(flags)} of {len(flags)} |"
    )
  return "\n".join(out)


def wordings(rows: Sequence[results.Row]) -> str:
  """Least and greatest test accuracy over hand-written wordings, as a table."""
  spans: dict[str, dict[str, list[float]]] = {}
  several = len({results.run_of(row).model for row in rows}) > 1
  for row in rows:
    if len(row.get("by_wording", ())) > 1:
      run = results.run_of(row)
      title = f"{run.title}, {run.pretraining}" if several else run.title
      tasks = spans.setdefault(title, {})
      tasks.setdefault(results.shown(run.task), []).extend(
        metrics["accuracy"] for metrics in row["by_wording"]
      )
  if not spans:
    return ""
  columns = list(
    dict.fromkeys(task for found in spans.values() for task in found)
  )
  out = [
    "| the wordings, worst to best on test, all seeds | "
    + " | ".join(columns)
    + " |",
    "|---" * (len(columns) + 1) + "|",
  ]
  for title, found in spans.items():
    cells = [
      f"{min(found[c]):.1f} to {max(found[c]):.1f}" if c in found else "–"
      for c in columns
    ]
    out.append(f"| {title} | " + " | ".join(cells) + " |")
  return "\n".join(out)


def tables(study: Study, rows: Sequence[results.Row]) -> str:
  """All tables of a study, and what made them."""
  parts = [table(study, rows)]
  if study.kind == "matrix":
    parts.append(words(rows))
  else:
    parts.append(wordings(rows))
  machines = ", ".join(dict.fromkeys(row["machine"] for row in rows))
  seconds = sum(row["seconds"] for row in rows)
  versions = rows[-1]["versions"]
  have = {results.run_of(row).model for row in rows}
  absent = [model.name for model in study.models if model.name not in have]
  if absent:
    parts.append(f"Not pre-trained, and left out: {', '.join(absent)}.")
  parts.append(
    f"{len(rows)} runs, {seconds / 60:.0f} minutes on {machines}; "
    + ", ".join(f"{name} {version}" for name, version in versions.items())
    + ". ± is the standard deviation over the seeds."
  )
  return "\n\n".join(part for part in parts if part)


def write(
  study: Study, rows: Sequence[results.Row], folder: pathlib.Path
) -> None:
  """Writes results.md and figure.png."""
  storage.write_text(
    folder / "results.md",
    f"# {study.question}\n\nThe paper: {study.paper}\n\n"
    f"{tables(study, rows)}\n\n![{study.name}](figure.png)\n",
  )
  figure(study, rows, folder / "figure.png")
