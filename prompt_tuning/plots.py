"""Pictures: the curves of a run."""

from collections.abc import Sequence
import os
import pathlib

from prompt_tuning import storage

_LOSS = "loss"
_NOT_METRICS = {"step", "prompt", _LOSS, "token_accuracy"}


def curves(rows: Sequence[dict], path: str | os.PathLike) -> pathlib.Path:
  """Draws loss and validation metrics over the steps, one line per prompt.

  Args:
    rows: lines of metrics.jsonl.
    path: of the .png file.
  """
  prompts = list(dict.fromkeys(row["prompt"] for row in rows))
  found = (name for row in rows for name in row if name not in _NOT_METRICS)
  panels = [_LOSS, *dict.fromkeys(found)]
  drawing, *axes = _figure(5.0 * len(panels), len(panels))
  for axis, name in zip(axes, panels, strict=True):
    for prompt in prompts:
      points = [
        (row["step"], row[name])
        for row in rows
        if row["prompt"] == prompt and name in row
      ]
      if points:
        marker = "" if name == _LOSS else "o"
        axis.plot(*zip(*points, strict=True), marker=marker, ms=3, label=prompt)
    axis.set_xlabel("step")
    title = "training loss (nats per token)" if name == _LOSS else name
    axis.set_title(title if name == _LOSS else f"validation {name}")
    axis.grid(alpha=0.3)
  for axis in axes:
    if axis.get_legend_handles_labels()[0]:
      axis.legend(fontsize="small")
  return _write(drawing, path)


def _figure(width: float, panels: int = 1):
  """A figure without a window, and its axes side by side."""
  from matplotlib import figure  # slow to import

  drawing = figure.Figure(figsize=(width, 3.6), layout="constrained")
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
    places = [n + (i - (len(ways) - 1) / 2) * 0.2 for n in range(len(rows))]
    bars = axis.bar(places, values, 0.18, label=way.replace("_", " "))
    axis.bar_label(bars, fmt="%.0f", fontsize="x-small")
  axis.axhline(rows[0]["chance"], color="gray", ls=":", label="chance")
  axis.set_xticks(range(len(rows)), [row["task"] for row in rows])
  axis.set_ylabel("test accuracy (%)")
  axis.set_ylim(0, 112)
  axis.legend(fontsize="x-small", ncols=5, loc="upper center")
  return _write(drawing, path)
