"""What is left of a study to do, in which programs, and how long it takes.

    study, rows that are done -> trials that are left -> programs -> seconds

Prompts of one length on one model train as one program, whatever their tasks,
seeds and initialisers.
"""

from collections.abc import Sequence
import dataclasses
import math
import os
import pathlib

from prompt_tuning.frozen import pretrained
from prompt_tuning.frozen.pretrained import SHIPPED
from prompt_tuning.study import results, trials
from prompt_tuning.study.trials import Pretraining, Study, Trial

BANK = 16
"""Prompts of one program at most: its memory grows with them."""

_SPEED = 3.3e10
"""Parameters x tokens per second of training, on 2 cores."""

_START = 15.0
"""Seconds to compile a program."""

Program = list[Trial]


@dataclasses.dataclass(frozen=True)
class Folders:
  """Where a study's files are.

  Attributes:
    output: what the user names.
    study: of this study.
    models: of the frozen models that studies pre-train.
    shipped: the frozen model of the trials on the one that ships.
    weights_dtype: what frozen weights are held in; None as they are stored.
  """

  output: pathlib.Path
  study: pathlib.Path
  models: pathlib.Path
  shipped: str = SHIPPED
  weights_dtype: str | None = None

  @property
  def rows(self) -> pathlib.Path:
    """The results file."""
    return self.study / "results.jsonl"

  def model(self, name: str) -> str | pathlib.Path:
    """The path of a frozen model."""
    own = self.models / name / "model"
    return self.shipped if name == SHIPPED else own


def folders(
  output: str | os.PathLike,
  name: str,
  shipped: str,
  *,
  is_reduced: bool,
  weights_dtype: str | None = None,
) -> Folders:
  """The folders of a study; one that is reduced, or of another type of weights,
  keeps to itself."""
  whole = pathlib.Path(output) / ("reduced" if is_reduced else "")
  own = whole / (weights_dtype or "") / name
  return Folders(whole, own, whole / "models", shipped, weights_dtype)


@dataclasses.dataclass(frozen=True)
class Work:
  """What a study has, and what is left of it.

  Attributes:
    rows: the rows that are done, of these trials on these weights.
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
  """Compares a study's trials with the rows that there are."""
  lacking = [m for m in study.models if not _is_made(where.model(m.name))]
  absent = {model.name for model in lacking}
  names = dict.fromkeys(trial.model for trial in study.trials)
  made = [name for name in names if name not in absent]
  models = {
    name: pretrained.load(where.model(name), dtype=where.weights_dtype)
    for name in made
  }
  done, stale = {}, []
  for row in results.load(where.rows):
    if _answers(row, study, models):
      done[results.trial_of(row)] = row
    else:
      stale.append(row)
  look = study.kind == "matrix"
  for other in sorted(where.study.parent.glob("*/results.jsonl")):
    for row in results.load(other):
      if _answers(row, study, models):
        own = {k: v for k, v in row.items() if k != "meaning" or look}
        done.setdefault(results.trial_of(row), own)
  left = [trial for trial in study.trials if trial not in done]
  return Work(
    list(done.values()),
    stale,
    programs([trial for trial in left if trial.model not in absent]),
    programs([trial for trial in left if trial.model in absent]),
    models,
    lacking,
  )


def _answers(row, study: Study, models) -> bool:
  """Whether a row, of this study or another, is of a trial of this study."""
  trial = results.trial_of(row)
  model = models.get(trial.model)
  return (
    trial in study.trials
    and (model is None or row["model_hash"] == model.stored_hash)
    and (study.kind != "matrix" or "meaning" in row)
  )


def _is_made(path: str | pathlib.Path) -> bool:
  return (pathlib.Path(path) / "config.json").is_file()


def programs(left: Sequence[Trial]) -> list[Program]:
  """Trials that train together, in their own order.

  A program is a full product of tasks, seeds and initialisers, as
  `train.train` takes them, of at most `BANK` prompts.
  """
  groups: dict[tuple, Program] = {}
  for n, trial in enumerate(left):
    groups.setdefault(_bank(trial) or (n,), []).append(trial)
  return [part for group in groups.values() for part in _divided(group)]


def _bank(trial: Trial) -> tuple | None:
  """What trials of one bank agree in; None for what trains alone."""
  banked = (trials.PROMPT, trials.ENSEMBLE, trials.SOURCE, trials.METHOD)
  if trial.way not in banked or trial.method == trials.MODEL:
    return None
  shared = dataclasses.replace(trial, task="", seed=0, initializer="", tests=())
  if trial.way == trials.SOURCE:  # each task may start from another one
    shared = dataclasses.replace(shared, task=trial.task)
  return (shared, trial.has_sentinel, len(trial.tested))


def _divided(group: Program) -> list[Program]:
  """Splits what is no full product by value, and what is too large in half."""
  axes = ("task", "initializer", "seed")
  by_axis = {a: list(dict.fromkeys(getattr(t, a) for t in group)) for a in axes}
  is_product = math.prod(map(len, by_axis.values())) == len(group)
  prompts = sum(trial.members for trial in group)
  if len(group) == 1 or (is_product and prompts <= BANK):
    return [group]
  axis = next(axis for axis in axes if len(by_axis[axis]) > 1)
  values, half = by_axis[axis], len(by_axis[axis]) // 2
  parts = (
    [values[:half], values[half:]] if is_product else [[v] for v in values]
  )
  return [
    program
    for part in parts
    for program in _divided([t for t in group if getattr(t, axis) in part])
  ]


def estimate(program: Program, parameters: int) -> float:
  """Seconds of a program on 2 cores, roughly."""
  total = _START
  for trial in program:
    tokens = 50 + trial.prompt_length
    if trial.way in (trials.DESIGN, trials.OWN_WORDS):
      wordings = 1 if trial.way == trials.OWN_WORDS else 5
      seen = 1500 * wordings * tokens * (1 + trial.examples) / 3
    else:
      seen = trial.steps * trial.batch_size * tokens * trial.members
      if trial.way == trials.SOURCE:  # and its brief prompt, and the sources
        seen *= 2
    total += seen * parameters / _SPEED
  return total


def describe(study: Study, work: Work, *, with_pretraining: bool) -> str:
  """What a study will do, and how long it takes."""
  # What there is to do, and to make before it.
  todo = work.programs + (work.later if with_pretraining else [])
  seconds = work.seconds(todo)
  if with_pretraining:
    seconds += 60 * sum(model.minutes for model in work.lacking)
  lines = [
    f"Study {study.name}: {study.question}",
    f"The paper: {study.paper}",
    f"{len(study.trials)} runs, {len(work.rows)} done before; "
    f"{sum(map(len, todo))} to do in {_count(len(todo), 'program')}, "
    f"{_time(seconds)} on 2 cores",
    *(f"  {_title(program)}" for program in todo),
  ]

  # What will not be as one might think.
  if work.stale:
    lines.append(
      f"{len(work.stale)} rows are of other settings or other weights, and "
      "are moved to results.old.jsonl"
    )
  then = "its runs are left out. --pretrain makes it."
  if with_pretraining:
    then = "it is made first."
  for model in work.lacking:
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
    prompts = sum(trial.members for trial in program)
    length = _count(first.prompt_length, "position")
    parts.append(f"{_count(prompts, 'prompt')} of {length}")
  parts.append(", ".join(dict.fromkeys(results.shown(r.task) for r in program)))
  seeds = sorted({trial.seed for trial in program})
  parts.append(f"seeds {', '.join(map(str, seeds))}")
  return "; ".join(parts)
