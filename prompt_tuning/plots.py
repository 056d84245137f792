"""Pictures: the curves of a run, the scores of ways, the answers of studies."""

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Literal

import numpy as np

from prompt_tuning import storage

_LOSS = "loss"
_NOT_METRICS = {
  "step",
  "prompt",
  _LOSS,
  "token_accuracy",
  "wayward",
  "distillation",
}


def curves(rows: Sequence[dict], path: str | os.PathLike) -> pathlib.Path:
  """Draws loss and validation metrics over the steps, one line per prompt.

  Args:
    rows: lines of metrics.jsonl.
    path: of the .png file.
  """
  prompts = list(dict.fromkeys(row["prompt"] for row in rows))
  metrics = (name for row in rows for name in row if name not in _NOT_METRICS)
  panels = [_LOSS, *dict.fromkeys(metrics)]
  # Every run draws these: measuring all texts (constrained layout) takes longer
  # than drawing them, and the room that they need is known.
  drawing, *axes = _figure(5.0 * len(panels), len(panels), layout=None)
  left, right = 0.13 / len(panels), 1 - 0.03 / len(panels)
  drawing.subplots_adjust(left, 0.15, right, 0.92, wspace=0.17)
  for axis, name in zip(axes, panels, strict=True):
    for i, prompt in enumerate(prompts):
      points = [
        (row["step"], row[name])
        for row in rows
        if row["prompt"] == prompt and name in row
      ]
      if points:
        axis.plot(
          *zip(*points, strict=True),
          color=f"C{i}",  # the same in every panel
          marker="" if name == _LOSS else "o",
          ms=3,
          label=prompt,
        )
    axis.set_xlabel("step")
    loss = "training loss (nats per token)"
    axis.set_title(loss if name == _LOSS else f"validation {name}")
    axis.grid(alpha=0.3)
  for axis in axes:
    if axis.get_legend_handles_labels()[0]:
      axis.legend(fontsize="small")
  return _write(drawing, path)


def _figure(
  width: float,
  panels: int = 1,
  layout: Literal["constrained"] | None = "constrained",
):
  """A figure without a window, and its axes side by side."""
  from matplotlib import figure  # slow to import

  drawing = figure.Figure(figsize=(width, 3.6), layout=layout)
  return (drawing, *drawing.subplots(1, panels, squeeze=False)[0])


def _write(drawing, path: str | os.PathLike) -> pathlib.Path:
  return storage.write_atomically(
    path, lambda name: drawing.savefig(name, format="png", dpi=120)
  )


def scores(rows: Sequence[dict], path: str | os.PathLike) -> pathlib.Path:
  """Draws one group of bars per task: the ways to steer a model, in percent.

  Args:
    rows: for each task a dictionary with `task`, `chance` and one accuracy per
      way (None where it was not measured).
    path: of the .png file.
  """
  drawing, axis = _figure(1.6 + 2.2 * len(rows))
  ways = [name for name in rows[0] if name not in ("task", "chance")]
  for i, way in enumerate(ways):
    values = [row[way] or 0.0 for row in rows]
    xs = [n + (i - (len(ways) - 1) / 2) * 0.2 for n in range(len(rows))]
    bars = axis.bar(xs, values, 0.18, label=way.replace("_", " "))
    label = axis.bar_label(bars, fmt="%.0f", padding=2, fontsize="x-small")
    for text in label:  # which the line of chance may cross
      text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
  axis.axhline(rows[0]["chance"], color="gray", ls=":", label="chance")
  axis.set_xticks(range(len(rows)), [row["task"] for row in rows])
  axis.set_ylabel("test accuracy (%)")
  axis.set_ylim(0, 118)
  axis.legend(fontsize="x-small", ncols=5, loc="upper center")
  return _write(drawing, path)


CHANCE = 50.0
"""Percent; the studies' tasks have two labels of equal frequency."""

Line = Mapping[float, tuple[float, float]]
"""Mean and spread by x."""


def lines(
  series: Mapping[str, Line], x_label: str, path: str | os.PathLike
) -> pathlib.Path:
  """Draws means over a growing quantity, with their spread as a band."""
  drawing, axis = _figure(5.6)
  for name, line in series.items():
    xs = sorted(line)
    means, spreads = np.array([line[x] for x in xs]).T
    (drawn,) = axis.plot(xs, means, marker="o", ms=4, label=name)
    low, high = means - spreads, means + spreads
    axis.fill_between(xs, low, high, color=drawn.get_color(), alpha=0.2)
  ticks = sorted({x for line in series.values() for x in line})
  short = [f"{x / 1e6:.2g}M" if x >= 1e5 else f"{x:g}" for x in ticks]
  axis.set_xscale("log")
  axis.set_xticks(ticks, short)
  axis.set_xticks([], minor=True)
  axis.set_xlabel(x_label)
  _percent(axis, [value for line in series.values() for value in line.values()])
  axis.legend(fontsize="small")
  return _write(drawing, path)


def points(
  groups: Mapping[str, Mapping[str, tuple[float, float]]],
  path: str | os.PathLike,
) -> pathlib.Path:
  """Draws a group of points per task, one per setting, with its spread.

  Args:
    groups: for each task mean and spread by setting.
    path: of the .png file.
  """
  names = list(dict.fromkeys(n for group in groups.values() for n in group))
  width = 0.7 / max(len(names), 1)
  drawing, axis = _figure(4.7 + 0.3 * len(names) * len(groups))
  for i, name in enumerate(names):
    shift = (i - (len(names) - 1) / 2) * width
    drawn = [
      (g + shift, *group[name])
      for g, group in enumerate(groups.values())
      if name in group
    ]
    xs, means, spreads = zip(*drawn, strict=True)
    axis.errorbar(xs, means, yerr=spreads, fmt="o", capsize=3, label=name)
  for g in range(1, len(groups)):
    axis.axvline(g - 0.5, color="gray", lw=0.5)
  axis.set_xlim(-0.5, len(groups) - 0.5)
  axis.set_xticks(range(len(groups)), list(groups))
  _percent(axis, [v for group in groups.values() for v in group.values()])
  axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
  return _write(drawing, path)


def _percent(axis, values: Sequence[tuple[float, float]]) -> None:
  """The vertical axis of accuracies, with chance unless all are far above."""
  least = min(mean - spread for mean, spread in values)
  if least < (CHANCE + 100) / 2:
    least = min(least, CHANCE)
    axis.axhline(CHANCE, color="gray", ls=":", label="chance")
  axis.set_ylabel("test accuracy (%)")
  axis.set_title("mean ± standard deviation over seeds", fontsize="medium")
  margin = (100 - least) / 10
  axis.set_ylim(least - margin, 100 + margin / 2)
  axis.grid(alpha=0.3, axis="y")


def matrix(
  names: Sequence[str], values, path: str | os.PathLike
) -> pathlib.Path:
  """Draws a square table of cosines as colours, with the numbers."""
  drawing, axis = _figure(5.6)
  axis.imshow(values, cmap="viridis", vmin=-0.2, vmax=1)
  axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
  axis.set_yticks(range(len(names)), names)
  style = {"ha": "center", "va": "center", "fontsize": "x-small"}
  for (i, j), value in np.ndenumerate(values):
    if not np.isnan(value):
      axis.text(j, i, f"{value:.2f}", color="white", **style)
  axis.set_title("cosine of mean prompts, other seeds", fontsize="medium")
  return _write(drawing, path)
