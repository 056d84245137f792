"""Runs a study: pre-trains its models, runs its programs, writes its results.

    results.jsonl   one row per trial: settings, scores, seconds, versions
    results.md      the tables
    figure.png      mean and spread over the seeds
    programs/       prompts and metrics of what was trained

A finished program's rows are written at once. Running the command again skips
them, and the trials that another study has done, and goes on inside the program
that was interrupted.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import sys
import time

import jax
import tqdm

import prompt_tuning
from prompt_tuning import configuration, run_folder, spelling, storage
from prompt_tuning.frozen import pretrained
from prompt_tuning.frozen.pretrained import SHIPPED
from prompt_tuning.prompts import checkpoints
from prompt_tuning.study import report, results, schedule, studies, ways
from prompt_tuning.study.trials import Pretraining, Study
from prompt_tuning.training import pretrain


def find(name: str) -> Study:
  """The study of a name.

  Raises:
    ValueError: there is none; the message has the closest name.
  """
  if name not in studies.STUDIES:
    every = f"There are {', '.join(studies.STUDIES)}."
    hint = spelling.hint(name, studies.STUDIES, every, alike=0.4)
    raise ValueError(f"There is no study {name!r}. {hint}")
  return studies.STUDIES[name]


def listing() -> str:
  """Every study with its question, one a line."""
  width = max(map(len, studies.STUDIES))
  return "\n".join(
    f"{study.name:<{width}}  {study.question} ({len(study.trials)} runs)"
    for study in studies.STUDIES.values()
  )


def run(
  name: str,
  output: str | os.PathLike = "runs/studies",
  *,
  model: str = SHIPPED,
  weights_dtype: str | None = None,
  dry_run: bool = False,
  is_reduced: bool = False,
  with_pretraining: bool = False,
) -> pathlib.Path:
  """Runs what is left of a study and writes its results.

  Args:
    name: of the study.
    output: the folder of all studies.
    model: a frozen model in place of the one that ships.
    weights_dtype: what the frozen weights are held in (see `pretrained.load`);
      such a study has a folder of its own.
    dry_run: say what would be done, and stop.
    is_reduced: take a grid of a minute, under `reduced/`.
    with_pretraining: first pre-train the study's models that are lacking.

  Raises:
    ValueError: there is no such study.
  """
  study = find(name)
  if is_reduced:
    study = studies.reduced(study)
  where = schedule.folders(
    *(output, name, model), is_reduced=is_reduced, weights_dtype=weights_dtype
  )
  work = schedule.work(study, where)
  print(schedule.describe(study, work, with_pretraining=with_pretraining))
  if dry_run:
    return where.study
  run_folder.RunFolder(where.output, setting="--output")  # can be written to
  if with_pretraining and work.lacking:
    make_models(work.lacking, where)
    work = schedule.work(study, where)
  rows = _run_programs(study, work, where)
  report.write(study, rows, where.study)
  print(f"\n{report.tables(study, rows)}\n\nEverything is in {where.study}.")
  return where.study


def _run_programs(
  study: Study, work: schedule.Work, where: schedule.Folders
) -> list[dict]:
  """Runs every program and adds its rows to the file."""

  def keep(rows: list[dict]) -> None:
    rows.sort(key=lambda row: study.trials.index(results.trial_of(row)))
    storage.write_jsonl(where.rows, rows)

  # Rows of other settings are put by, not lost.
  rows = list(work.rows)
  if work.stale:
    old = where.study / "results.old.jsonl"
    storage.write_jsonl(old, [*results.load(old), *work.stale])
  if rows or work.stale:
    keep(rows)

  # A finished program's rows are written at once.
  bar = tqdm.tqdm(
    total=sum(map(len, work.programs)),
    unit="run",
    disable=not sys.stderr.isatty() or not work.programs,
    dynamic_ncols=True,
  )
  programs, look = where.study / "programs", study.kind == "matrix"
  with bar:
    for program in work.programs:
      first = program[0]
      bar.set_description(f"{first.title} on {first.pretraining}")
      model = work.models[first.model]
      rows += run_program(program, model, programs, look=look)
      keep(rows)
      bar.update(len(program))
  return rows


def run_program(
  program: schedule.Program,
  model: pretrained.FrozenModel,
  folder: pathlib.Path,
  *,
  look: bool = False,
) -> list[dict]:
  """The rows of a program, with what they were made by.

  Args:
    program: trials that train together.
    model: the frozen model.
    folder: of all programs; this one's name comes from trials and weights.
    look: note down what the prompts mean.
  """
  settings = [dataclasses.asdict(trial) for trial in program]
  # What a trial of before has not is no part of its program's name.
  later = ("few", "method")
  named = [
    {k: v for k, v in s.items() if k not in later or v} for s in settings
  ]
  identity = json.dumps([named, model.stored_hash]).encode()
  name = program[0].way.replace(" ", "_")
  digest = hashlib.sha256(identity).hexdigest()[:10]
  begin = time.monotonic()
  findings = ways.run(program, model, folder / f"{name}-{digest}", look=look)
  seconds = (time.monotonic() - begin) / len(program)
  return [
    {
      "run": trial,
      **finding,
      "seconds": round(seconds, 1),
      "parameters": model.num_parameters,
      "model_hash": model.stored_hash,
      "machine": machine(),
      "versions": versions(),
    }
    for trial, finding in zip(settings, findings, strict=True)
  ]


def make_models(
  lacking: Sequence[Pretraining], where: schedule.Folders
) -> None:
  """Pre-trains models, each resumably."""
  for n, model in enumerate(lacking, 1):
    print(f"Pre-training {model.name} ({n} of {len(lacking)}) …", flush=True)
    bindings = [b.format(models=where.models) for b in model.bindings]
    configuration.configure(
      [model.gin_file],
      [*bindings, f"MODEL_DIR={str(where.models / model.name)!r}"],
      (),
    )
    configuration.call(pretrain.pretrain)
    configuration.save(where.models / model.name / "config.gin", operative=True)


def machine() -> str:
  """The processor and its number of cores, or the accelerators."""
  device = jax.devices()[0]
  if device.platform == "cpu":
    return f"{os.cpu_count()} cores of {platform.machine()}"
  return f"{jax.device_count()} x {device.device_kind}"


def versions() -> dict[str, str]:
  """Of what the numbers depend on."""
  return {
    "prompt-tuning": prompt_tuning.__version__,
    "python": platform.python_version(),
    **checkpoints.versions("jax", "jaxlib", "flax", "optax", "numpy"),
  }
