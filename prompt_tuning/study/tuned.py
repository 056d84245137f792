"""What a study trains: the prompts of a program, or a model.

    trials that train together -> train -> the best prompts, the best weights

A program is a list of trials that train together: prompts of one length on one
model, or one trial of any other way.
"""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib

import numpy as np

from prompt_tuning.data import splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer
from prompt_tuning.model import decode
from prompt_tuning.prompts import initializers
from prompt_tuning.study import trials
from prompt_tuning.study.trials import Trial
from prompt_tuning.tasks.microworld.examples import LENGTHS
from prompt_tuning.training import loop, optimizers, train

INITIALIZERS = {
  trials.RANDOM: initializers.random_uniform(),
  trials.SAMPLED: initializers.from_vocabulary(),
  trials.LABELS: initializers.from_class_labels(),
}


@functools.lru_cache(16)
def whole(name: str, split: str) -> splits.Examples:
  """A split of a task, read once."""
  return splits.load(name, split, LENGTHS)


def examples(name: str, split: str, trial: Trial) -> splits.Examples:
  """A split, or the beginning of it that a trial is scored on."""
  every, count = whole(name, split), trial.scored
  if not count or split == "train":
    return every
  inputs, targets = (
    splits.Sequences(rows.ids[: rows.starts[count]], rows.starts[: count + 1])
    for rows in (every.inputs, every.targets)
  )
  return dataclasses.replace(
    every, inputs=inputs, targets=targets, fields=every.fields[:count]
  )


def decoding(first: Trial, model: pretrained.FrozenModel) -> infer.Decoding:
  """By rank; behind a sentinel where the targets have one."""
  assert model.vocabulary is not None
  prefix = (model.vocabulary.sentinel(0),) if first.has_sentinel else ()
  return infer.Decoding(
    decode.Rank(prefix=prefix), max_length=LENGTHS["targets"]
  )


def tasks_of(program: Sequence[Trial]) -> train.Tasks:
  """What the prompts of a program learn, as its first trial says."""
  first, tasks = program[0], _unique(trial.task for trial in program)
  # A mixture has no validation split of its own, and where examples are few a
  # large one would be no fair judge: the last step counts.
  is_mixture = first.way == trials.MULTITASK
  has_choice = not (first.scored or first.few or is_mixture)
  few = first.few and min(first.few, *(len(whole(t, "train")) for t in tasks))
  return train.Tasks(
    tasks,
    LENGTHS,
    _unique(seed for trial in program for seed in seeds_of(trial)),
    first.batch_size,
    validation_split="validation" if has_choice else None,
    train_examples=few,
  )


def trained(
  program: Sequence[Trial],
  model: pretrained.FrozenModel,
  folder: pathlib.Path,
  tuning: train.Tuning,
  *,
  looks: int = 6,
) -> train.Trained:
  """Trains a program, and looks so many times how well it does."""
  first = program[0]
  return train.train(
    model_dir=folder,
    model=model,
    tasks=tasks_of(program),
    tuning=tuning,
    plan=loop.Plan(first.steps, eval_every=max(first.steps // looks, 1)),
    decoding=decoding(first, model),
  )


def whole_model(trial: Trial) -> train.Tuning:
  """Every weight trains, and there is no prompt."""
  optimizer = optimizers.falling_adamw(trial.steps, trial.learning_rate)
  if trial.is_constant:
    optimizer = optimizers.adamw(trial.learning_rate)
  return train.Tuning(
    optimizer=optimizer,
    trainable=(".*",),
    prompt_length=0,
    select_by="accuracy",
  )


def _unique(values) -> list:
  return list(dict.fromkeys(values))


def prompts(
  program: Sequence[Trial],
  model: pretrained.FrozenModel,
  folder: pathlib.Path,
  *,
  start: initializers.Initializer | None = None,
) -> dict[tuple, np.ndarray]:
  """The best prompt for each (task, seed, initialiser), trained together.

  Args:
    program: the trials.
    model: the frozen model.
    folder: of the run.
    start: where all of them start, in place of what the trials say.
  """
  first = program[0]
  tasks = _unique(trial.task for trial in program)
  starts = _unique(trial.initializer for trial in program)
  seeds = _unique(seed for trial in program for seed in seeds_of(trial))
  tuning = train.Tuning(
    optimizer=optimizers.falling_adafactor(first.steps, first.learning_rate),
    prompt_length=first.prompt_length,
    initializer=[start or INITIALIZERS[name] for name in starts],
    select_by="accuracy",
  )
  bank = trained(program, model, folder, tuning).bank
  assert bank is not None
  keys = [(t, s, i) for t in tasks for s in seeds for i in starts]
  return dict(zip(keys, bank, strict=True))


def seeds_of(trial: Trial) -> list[int]:
  """The seeds of a trial's prompts: an ensemble's are its own."""
  return [trial.seed * trial.members + n for n in range(trial.members)]
