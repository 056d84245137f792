"""Prompts that start from the best of source prompts, in a study (SPoT).

    source tasks, all their examples          -> a prompt each
    a trial's few examples, a few steps       -> its brief prompt
    the source of the nearest mean row        -> where the trial starts

Vu et al. 2022, "SPoT: better frozen model adaptation through soft prompt
transfer", section 4: the cosine of mean rows says which source helps.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import NamedTuple

import numpy as np

from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts import analysis, checkpoints, initializers
from prompt_tuning.study import trials, tuned
from prompt_tuning.study.trials import Trial

SOURCES = (
  "microworld_boolq",
  "microworld_qqp",
  "microworld_twofact",
  "microworld_sst2",
)
"""The source tasks."""

_SEED = 1000  # of no trial: prompts of one seed start from the same words


class Started(NamedTuple):
  """What came of a trial.

  Attributes:
    rows: its prompt [P, E].
    cosines: of its brief prompt with each source, by task.
  """

  rows: np.ndarray
  cosines: dict[str, float]


def source_trials(trial: Trial) -> list[Trial]:
  """The sources of a trial: twice its steps, of all examples."""
  whole = dataclasses.replace(
    trial,
    way=trials.PROMPT,
    seed=_SEED,
    steps=2 * trial.steps,
    tests=(),
    few=0,
  )
  return [dataclasses.replace(whole, task=task) for task in SOURCES]


def brief_trial(trial: Trial) -> Trial:
  """The brief prompt of a trial: a quarter of its steps."""
  return dataclasses.replace(trial, steps=max(trial.steps // 4, 1))


def from_best(
  program: Sequence[Trial], model: pretrained.FrozenModel, folder: pathlib.Path
) -> list[Started]:
  """Trains the prompts of trials of one task, each from its best source."""
  places = _sources(program[0], model, folder.parent)
  sources = {
    task: checkpoints.load_prompt(place, model).values
    for task, place in places.items()
  }
  brief = tuned.prompts(
    [brief_trial(trial) for trial in program], model, folder / "brief"
  )
  cosines = [
    dict(analysis.similar(brief[_key(trial)], sources)) for trial in program
  ]

  # Those that start from one source train together.
  best = [next(iter(found)) for found in cosines]
  found: dict[tuple, np.ndarray] = {}
  for task in dict.fromkeys(best):
    those = [t for t, its in zip(program, best, strict=True) if its == task]
    start = initializers.from_array(places[task] / checkpoints.ARRAY)
    found |= tuned.prompts(those, model, folder / task, start=start)
  return [
    Started(found[_key(trial)], {k: round(v, 4) for k, v in each.items()})
    for trial, each in zip(program, cosines, strict=True)
  ]


def _key(trial: Trial) -> tuple[str, int, str]:
  return trial.task, trial.seed, trial.initializer


def folder_of(
  trial: Trial, model: pretrained.FrozenModel, programs: pathlib.Path
) -> pathlib.Path:
  """The run of a trial's sources, among the programs of its study."""
  settings = [dataclasses.asdict(source) for source in source_trials(trial)]
  identity = json.dumps([settings, model.stored_hash]).encode()
  return programs / f"sources-{hashlib.sha256(identity).hexdigest()[:10]}"


def _sources(
  trial: Trial, model: pretrained.FrozenModel, programs: pathlib.Path
) -> dict[str, pathlib.Path]:
  """Where the prompt of each source task is; trained where they are lacking."""
  every, folder = source_trials(trial), folder_of(trial, model, programs)
  places = {s.task: folder / "prompts" / s.task for s in every}
  if not all(checkpoints.is_prompt(place) for place in places.values()):
    tuned.prompts(every, model, folder)
  return places
