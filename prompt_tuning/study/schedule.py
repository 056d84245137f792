"""What is left of a study to do, in which programs, and how long it takes.

    study, rows that are done -> runs that are left -> programs -> seconds

Prompts of one length on one model train as one program, whatever their tasks,
seeds and initialisers.
"""

from collections.abc import Sequence
import dataclasses
import os
import pathlib

from prompt_tuning.frozen import pretrained
from prompt_tuning.study import results
from prompt_tuning.study import trials as runs
from prompt_tuning.study.trials import Pretraining, Run, Study

BANK = 16
"""Prompts of one program at most: its memory grows with them."""

_SPEED = 3.3e10
"""Parameters x tokens per second of training, on 2 cores."""

_START = 15.0
"""Seconds to compile a program."""

Program = list[Run]


@dataclasses.dataclass(frozen=True)
class Folders:
  """Where a study's files are.

  Attributes:
    output: what the user names.
    study: of this study.
    models: of the frozen models that studies pre-train.
    shipped: the frozen model of the runs on the one that ships.
  """

  output: pathlib.Path
  study: pathlib.Path
  models: pathlib.Path
  shipped: str = runs.SHIPPED

  @property
  def rows(self) -> pathlib.Path:
    """The results file."""
    return self.study / "results.jsonl"

  def model(self, name: str) -> str | pathlib.Path:
    """The path of a frozen model."""
    own = self.models / name / "model"
    return self.shipped if name == runs.SHIPPED else own


def folders(
  output: str | os.PathLike, name: str, shipped: str, *, is_reduced: bool
) -> Folders:
  """The folders of a study; a reduced one keeps to itself."""
  place = pathlib.Path(output) / ("reduced" if is_reduced else "")
  return Folders(place, place / name, place / "models", shipped)


@dataclasses.dataclass(frozen=True)
class Work:
  """What a study has, and what is left of it.

  Attributes:
    rows: the rows that are done, of these runs on these weights.
    stale: rows of the file that are of other settings or weights.
    programs: what is left on the models that there are.
    later: the programs on models that are lacking.
    models: the frozen models that there are.
    lacking: the study's models that are not pre-trained yet.
  """

  rows: list[dict]
  stale: list[dict]
  programs: list[Program]
  later: list[Program]
  models: dict[str, pretrained.FrozenModel]
  lacking: list[Pretraining]

  def seconds(self, programs: Sequence[Program]) -> float:
    """How long programs take on 2 cores, roughly."""
    parameters = {name: m.num_parameters for name, m in self.models.items()}
    parameters |= {model.name: model.parameters for model in self.lacking}
    every = (estimate(p, parameters[p[0].model]) for p in programs)
    return sum(every, 0.0)


def work(study: Study, where: Folders) -> Work:
  """Compares a study's runs with the rows that there are."""
  lacking = [m for m in study.models if not _is_made(where.model(m.name))]
  absent = {model.name for model in lacking}
  names = dict.fromkeys(run.model for run in study.runs)
  models = {
    name: pretrained.load(where.model(name))
    for name in names
    if name not in absent
  }
  done, stale = {}, []
  for row in results.load(where.rows):
    if _answers(row, study, models):
      done[results.run_of(row)] = row
    else:
      stale.append(row)
  look = study.kind == "matrix"
  for other in sorted(where.output.glob("*/results.jsonl")):
    for row in results.load(other):
      if _answers(row, study, models):
        own = {k: v for k, v in row.items() if k != "meaning" or look}
        done.setdefault(results.run_of(row), own)
  left = [run for run in study.runs if run not in done]
  return Work(
    list(done.values()),
    stale,
    programs([run for run in left if run.model not in absent]),
    programs([run for run in left if run.model in absent]),
    models,
    lacking,
  )


def _answers(row, study: Study, models) -> bool:
  """Whether a row, of this study or another, is of a run of this study."""
  run = results.run_of(row)
  model = models.get(run.model)
  return (
    run in study.runs
    and (model is None or row["model_hash"] == model.stored_hash)
    and (study.kind != "matrix" or "meaning" in row)
  )


def _is_made(path: str | pathlib.Path) -> bool:
  return (pathlib.Path(path) / "config.json").is_file()


def programs(given: Sequence[Run]) -> list[Program]:
  """Runs that train together, in the order of the runs.

  A program is a full product of tasks, seeds and initialisers, as
  `train.train` takes them, of at most `BANK` prompts.
  """
  groups: dict[tuple, Program] = {}
  for n, run in enumerate(given):
    groups.setdefault(_bank(run) or (n,), []).append(run)
  return [part for group in groups.values() for part in _divided(group)]


def _bank(run: Run) -> tuple | None:
  """What runs of one bank agree in; None for what trains alone."""
  if run.way not in (runs.PROMPT, runs.ENSEMBLE):
    return None
  shared = dataclasses.replace(run, task="", seed=0, initializer="", tests=())
  return (shared, run.has_sentinel, len(run.tested))


def _divided(group: Program) -> list[Program]:
  """Splits what is no full product by value, and what is too large in half."""
  axes = ("task", "initializer", "seed")
  values = {
    axis: list(dict.fromkeys(getattr(run, axis) for run in group))
    for axis in axes
  }
  product = 1
  for axis in axes:
    product *= len(values[axis])
  is_product = product == len(group)
  if len(group) == 1 or (
    is_product and sum(run.members for run in group) <= BANK
  ):
    return [group]
  axis = next(axis for axis in axes if len(values[axis]) > 1)
  found, half = values[axis], len(values[axis]) // 2
  parts = [found[:half], found[half:]] if is_product else [[v] for v in found]
  return [
    program
    for part in parts
    for program in _divided([r for r in group if getattr(r, axis) in part])
  ]


def estimate(program: Program, parameters: int) -> float:
  """Seconds of a program on 2 cores, roughly."""
  total = _START
  for run in program:
    tokens = 50 + run.prompt_length
    if run.way in (runs.DESIGN, runs.OWN_WORDS):
      wordings = 1 if run.way == runs.OWN_WORDS else 5
      seen = 1500 * wordings * tokens * (1 + run.examples) / 3
    else:
      seen = run.steps * run.batch_size * tokens * run.members
    total += seen * parameters / _SPEED
  return total


def describe(study: Study, found: Work, *, with_pretraining: bool) -> str:
  """What a study will do, and how long it takes."""
  total = len(study.runs)
  todo = found.programs + (found.later if with_pretraining else [])
  seconds = found.seconds(todo)
  if with_pretraining:
    seconds += 60 * sum(model.minutes for model in found.lacking)
  lines = [
    f"Study {study.name}: {study.question}",
    f"The paper: {study.paper}",
    f"{total} runs, {len(found.rows)} done before; "
    f"{sum(map(len, todo))} to do in {_count(len(todo), 'program')}, "
    f"{_time(seconds)} on 2 cores",
  ]
  for program in todo:
    lines.append(f"  {_title(program)}")
  if found.stale:
    lines.append(
      f"{len(found.stale)} rows are of other settings or other weights, and "
      "are moved to results.old.jsonl"
    )
  then = (
    "it is made first."
    if with_pretraining
    else "its runs are left out. --pretrain makes it."
  )
  for model in found.lacking:
    lines.append(
      f"The model {model.name} is not pre-trained yet (about {model.minutes} "
      f"minutes on 2 cores); {then}"
    )
  return "\n".join(lines)


def _count(number: int, what: str) -> str:
  return f"{number} {what}{'' if number == 1 else 's'}"


def _time(seconds: float) -> str:
  if seconds < 90:
    return f"about {seconds:.0f} seconds"
  if seconds < 5400:
    return f"about {seconds / 60:.0f} minutes"
  return f"about {seconds / 3600:.1f} hours"


def _title(program: Program) -> str:
  """A program in a line."""
  first = program[0]
  parts = [first.title, f"on {first.pretraining}"]
  if first.prompt_length:
    prompts = sum(run.members for run in program)
    length = _count(first.prompt_length, "position")
    parts.append(f"{_count(prompts, 'prompt')} of {length}")
  parts.append(", ".join(dict.fromkeys(results.shown(r.task) for r in program)))
  seeds = sorted({run.seed for run in program})
  parts.append(f"seeds {', '.join(map(str, seeds))}")
  return "; ".join(parts)
