"""The ways to make a model do a task, from the same tasks and one evaluator.

    runs, model, folder -> train, or word -> test split, by rank -> a row each

A program is a list of runs that train together: prompts of one length on one
model, or one run of any other way. Every test is rank classification over the
task's labels, for tuned prompts, tuned models and hand-written prompts alike.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import pathlib
import shutil
from typing import Any

import numpy as np

from prompt_tuning.data import splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import ensemble, evaluate, infer, prompt_design
from prompt_tuning.model import decode
from prompt_tuning.prompts import analysis, initializers, prompted
from prompt_tuning.study import trials as runs
from prompt_tuning.study.trials import Run
from prompt_tuning.tasks.microworld import LABELS
from prompt_tuning.tasks.microworld import prompts as microworld_prompts
from prompt_tuning.training import loop, optimizers, train

LENGTHS = {"inputs": 64, "targets": 8}

INITIALIZERS = {
  runs.RANDOM: initializers.random_uniform(),
  runs.SAMPLED: initializers.from_vocabulary(),
  runs.LABELS: initializers.from_class_labels(),
}

Row = dict[str, Any]
"""What a run found: `scores` (task: metric: value), and more by way."""


def run(
  program: Sequence[Run],
  model: pretrained.FrozenModel,
  folder: pathlib.Path,
  *,
  look: bool = False,
) -> list[Row]:
  """The rows of a program's runs.

  Args:
    program: runs of one way on this model.
    model: the frozen model.
    folder: where training leaves its files; a second call goes on there.
    look: note down what the prompts mean.
  """
  ways: dict[str, Callable[..., list[Row]]] = {
    runs.PROMPT: functools.partial(_prompts, look=look),
    runs.ENSEMBLE: _ensembles,
    runs.MODEL: _tuned_models,
    runs.MULTITASK: _tuned_models,
    runs.DESIGN: _designed,
    runs.OWN_WORDS: _designed,
  }
  rows = ways[program[0].way](program, model, folder)
  shutil.rmtree(folder / "checkpoints", ignore_errors=True)
  shutil.rmtree(folder / "model", ignore_errors=True)
  return rows


@functools.lru_cache(16)
def whole(name: str, split: str) -> splits.Examples:
  """A split of a task, read once."""
  return splits.load(name, split, LENGTHS)


def examples(name: str, split: str, run: Run) -> splits.Examples:
  """A split, or the beginning of it that a run is scored on."""
  found, count = whole(name, split), run.scored
  if not count or split == "train":
    return found
  inputs, targets = (
    splits.Sequences(rows.ids[: rows.starts[count]], rows.starts[: count + 1])
    for rows in (found.inputs, found.targets)
  )
  return dataclasses.replace(
    found, inputs=inputs, targets=targets, fields=found.fields[:count]
  )


def decoding(first: Run, model: pretrained.FrozenModel) -> infer.Decoding:
  """By rank; behind a sentinel where the targets have one."""
  assert model.vocabulary is not None
  prefix = (model.vocabulary.sentinel(0),) if first.has_sentinel else ()
  return infer.Decoding(
    decode.Rank(prefix=prefix), max_length=LENGTHS["targets"]
  )


def _plan(first: Run) -> loop.Plan:
  return loop.Plan(first.steps, eval_every=max(first.steps // 6, 1))


def _unique(values) -> list:
  return list(dict.fromkeys(values))


def _tuned_prompts(
  program: Sequence[Run], model: pretrained.FrozenModel, folder: pathlib.Path
) -> dict[tuple, np.ndarray]:
  """The best prompt for each (task, seed, initialiser), trained together."""
  first = program[0]
  tasks = _unique(run.task for run in program)
  starts = _unique(run.initializer for run in program)
  seeds = _unique(seed for run in program for seed in seeds_of(run))
  trained = train.train(
    model_dir=folder,
    model=model,
    tasks=train.Tasks(
      tasks,
      LENGTHS,
      seeds,
      first.batch_size,
      validation_split=None if first.scored else "validation",
    ),
    tuning=train.Tuning(
      optimizer=optimizers.falling_adafactor(first.steps, first.learning_rate),
      prompt_length=first.prompt_length,
      initializer=[INITIALIZERS[start] for start in starts],
      select_by="accuracy",
    ),
    plan=_plan(first),
    decoding=decoding(first, model),
  )
  assert trained.bank is not None
  keys = [(t, s, i) for t in tasks for s in seeds for i in starts]
  return dict(zip(keys, trained.bank, strict=True))


def seeds_of(run: Run) -> list[int]:
  """The seeds of a run's prompts: an ensemble's are its own."""
  return [run.seed * run.members + n for n in range(run.members)]


def _prompts(
  program: Sequence[Run],
  model: pretrained.FrozenModel,
  folder: pathlib.Path,
  *,
  look: bool,
) -> list[Row]:
  bank = _tuned_prompts(program, model, folder)
  chosen = [bank[run.task, run.seed, run.initializer] for run in program]
  together = prompted.with_prompts(model, chosen)
  rows: list[Row] = [{"scores": {}} for _ in program]
  for tested in zip(*(run.tested for run in program), strict=True):
    evaluator = evaluate.Evaluator(
      together,
      [examples(name, "test", program[0]) for name in tested],
      decoding=decoding(program[0], model),
    )
    for row, result in zip(rows, evaluator(), strict=True):
      row["scores"][result.task] = result.metrics
  if look:
    for run, values, row in zip(program, chosen, rows, strict=True):
      row["meaning"] = _meaning(run, values, model)
  return rows


def _meaning(run: Run, values: np.ndarray, model) -> Row:
  """The words nearest to each position, and the mean of all positions."""
  nearest = analysis.nearest_pieces(values, model, 5)
  labels = sorted(LABELS[run.task])
  pieces = [[n.piece.lstrip("▁") for n in row] for row in nearest]
  return {
    "nearest": [
      [[piece, round(n.cosine, 3)] for piece, n in zip(row, full, strict=True)]
      for row, full in zip(pieces, nearest, strict=True)
    ],
    # Class labels are the first positions, in this order.
    "labels_kept": [
      label in row for label, row in zip(labels, pieces, strict=False)
    ],
    "mean": [round(float(x), 4) for x in values.mean(axis=0)],
  }


def _ensembles(
  program: Sequence[Run], model: pretrained.FrozenModel, folder: pathlib.Path
) -> list[Row]:
  bank = _tuned_prompts(program, model, folder)
  rows = []
  for run in program:
    members = [bank[run.task, seed, run.initializer] for seed in seeds_of(run)]
    votes = ensemble.evaluate_together(
      prompted.with_prompts(model, members),
      examples(run.task, "test", run),
      decoding(run, model),
    )
    rows.append(
      {
        "scores": {run.task: votes.vote},
        "summary": votes.summary(),
        "members": votes.singles,
      }
    )
  return rows


def _tuned_models(
  program: Sequence[Run], model: pretrained.FrozenModel, folder: pathlib.Path
) -> list[Row]:
  (run,) = program
  several = run.way == runs.MULTITASK
  trained = train.train(
    model_dir=folder,
    model=model,
    tasks=train.Tasks(
      run.task,
      LENGTHS,
      (run.seed,),
      run.batch_size,
      # A mixture has no validation split of its own: the last step counts.
      validation_split=None if several or run.scored else "validation",
    ),
    tuning=train.Tuning(
      optimizer=(
        optimizers.adamw(run.learning_rate)
        if run.is_constant
        else optimizers.falling_adamw(run.steps, run.learning_rate)
      ),
      trainable=(".*",),
      prompt_length=0,
      select_by="accuracy",
    ),
    plan=_plan(run),
    decoding=decoding(run, model),
  )
  evaluator = evaluate.Evaluator(
    prompted.without_prompts(model),
    [examples(name, "test", run) for name in run.tested],
    decoding=decoding(run, model),
  )
  results = evaluator(trained.params)
  return [{"scores": {result.task: result.metrics for result in results}}]


def _designed(
  program: Sequence[Run], model: pretrained.FrozenModel, folder: pathlib.Path
) -> list[Row]:
  del folder  # nothing is trained
  return [_worded(run, model) for run in program]


def _worded(run: Run, model: pretrained.FrozenModel) -> Row:
  labels = answers = LABELS[run.task]
  wordings: list[prompt_design.Wording] = prompt_design.templates(
    microworld_prompts.HAND_PROMPTS[run.task]
  )
  if run.way == runs.OWN_WORDS:
    own = microworld_prompts.CORPUS_PROMPTS[run.task]
    wordings, answers = [own], own.answers
  shown = prompt_design.draw(
    examples(run.task, "train", run), run.examples, run.seed
  )
  found = prompt_design.best_of(
    model,
    [prompt_design.with_examples(wording, shown) for wording in wordings],
    examples(run.task, "validation", run),
    examples(run.task, "test", run),
    answers=answers,
    labels=labels,
  )
  return {
    "scores": {run.task: found.metrics},
    "by_wording": found.by_wording,
  }
