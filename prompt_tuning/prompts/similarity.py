"""Which saved prompts are like another one: where a new task may start (SPoT).

    a briefly trained prompt, folders of prompts -> cosine of mean rows, ranked

Vu et al. 2022, "SPoT": prompts of tasks that help each other are alike, after
few steps already.
"""

from collections.abc import Sequence
import os
import pathlib
import shlex
from typing import Any, NamedTuple

from prompt_tuning.prompts import analysis, checkpoints
from prompt_tuning.prompts.checkpoints import SavedPrompt

_ARRAYS = (".npy", ".npz")
_FILES = (checkpoints.ARRAY, checkpoints.UPSTREAM, checkpoints.TENSORS)
"""Of a prompt that is a folder."""
_OF_RUNS = ("checkpoints", "predictions", "model")
"""What a run's folder has besides prompts."""


class Similar(NamedTuple):
  """A saved prompt, and how like the given one it is."""

  prompt: SavedPrompt
  cosine: float

  @property
  def row(self) -> dict[str, Any]:
    """A line of a table."""
    return {
      "cosine": round(self.cosine, 4),
      "task": self.prompt.name,
      "positions": len(self.prompt.values),
      "prompt": self.prompt.path,
    }


def rank(
  prompt: str | os.PathLike,
  sources: Sequence[str | os.PathLike],
  *,
  allow_other_model: bool = False,
) -> list[Similar]:
  """Saved prompts by the cosine of their mean rows with a prompt's.

  Args:
    prompt: a prompt of any format.
    sources: prompts, and folders whose prompts are looked for at any depth.
    allow_other_model: take sources that were trained for other weights.

  Raises:
    FileNotFoundError: there is no prompt at a path.
    ValueError: a source is damaged, or is for another model.
  """
  given = checkpoints.load_prompt(prompt)
  own = _home(pathlib.Path(prompt))
  paths = [path for source in sources for path in _find(pathlib.Path(source))]
  others = {
    str(path): checkpoints.load_prompt(path)
    for path in dict.fromkeys(paths)
    if _home(path) != own
  }
  if not others:
    raise ValueError(
      f"{', '.join(map(str, sources))} has no prompt but {prompt} itself. Give "
      "folders with prompts of other tasks."
    )
  purpose = "the likeness of prompts"
  rows = given.plain(purpose)
  values = {path: other.plain(purpose) for path, other in others.items()}
  for other in others.values():
    _check(given, other, allow_other_model)
  return [
    Similar(others[path], cosine)
    for path, cosine in analysis.similar(rows, values)
  ]


def _home(path: pathlib.Path) -> pathlib.Path:
  """One path for a prompt that is named by its folder or by its file."""
  path = path.resolve()
  return path.parent if path.name in _FILES else path


def _find(path: pathlib.Path) -> list[pathlib.Path]:
  """The prompts at a path: itself, or all in a folder.

  Raises:
    FileNotFoundError: there are none.
  """
  if checkpoints.is_prompt(path):
    return [path]
  found: list[pathlib.Path] = []
  for folder, folders, files in os.walk(path):
    here = pathlib.Path(folder)
    if checkpoints.is_prompt(here):
      found.append(here)
      folders.clear()
      continue
    folders[:] = sorted(
      name for name in folders if name not in _OF_RUNS and name[0] != "."
    )
    found += [
      here / name
      for name in sorted(files)
      if pathlib.Path(name).suffix in _ARRAYS
    ]
  if not found:
    raise FileNotFoundError(
      f"There is no prompt in {path}. Give the folder of a run that has ended, "
      "or one with such folders, adapters of PEFT or numpy files in it."
    )
  return found


def _check(given: SavedPrompt, other: SavedPrompt, allow_other_model) -> None:
  """Refuses what cannot be compared.

  Raises:
    ValueError: the widths or the frozen weights differ.
  """
  widths = given.values.shape[1], other.values.shape[1]
  if widths[0] != widths[1]:
    raise ValueError(
      f"The prompt {other.path} has width {widths[1]} and {given.path} has "
      f"{widths[0]}: they are for models of different sizes. Leave it out."
    )
  models = [prompt.record.get("model") or {} for prompt in (given, other)]
  hashes = [str(model.get("hash") or "") for model in models]
  if all(hashes) and hashes[0] != hashes[1] and not allow_other_model:
    raise ValueError(
      f"The prompt {other.path} was trained for the frozen weights of "
      f"{models[1].get('source')!r} (hash {hashes[1][:12]}), {given.path} for "
      f"those of {models[0].get('source')!r} (hash {hashes[0][:12]}). Leave it "
      "out, or compare them all the same with --allow_other_model."
    )


def table(ranked: Sequence[Similar]) -> str:
  """A line for each prompt, nearest first."""
  lines = [["cosine", "task", "positions", "prompt"]]
  for one in ranked:
    row = {**one.row, "cosine": f"{one.cosine:.3f}"}
    lines.append([str(row[name]) for name in lines[0]])
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
    for line in lines
  )


def start_from(best: SavedPrompt) -> str:
  """The settings that let a run start from a prompt, as the user types them."""
  path, lines = pathlib.Path(best.path), []
  if best.format in ("PEFT", "t5x"):
    path = pathlib.Path("source.npy")
    lines.append(
      f"prompt-tuning convert {_quoted(best.path)} {path} --to numpy"
    )
  elif path.is_dir():
    path = next(path / name for name in _FILES if (path / name).is_file())
  return "\n".join(
    [
      *lines,
      "prompt-tuning train … --gin_file=prompts/file.gin \\",
      f"  --gin.PROMPT_FILE={_quoted(path)} "
      f"--gin.PROMPT_LENGTH={len(best.values)}",
    ]
  )


def _quoted(path: str | os.PathLike) -> str:
  return shlex.quote(str(path))
