"""The ways to make a model do a task, from the same tasks and one evaluator.

    trials, model, folder -> train, or word -> test split, by rank -> a row each

A program is a list of trials that train together: prompts of one length on one
model, or one trial of any other way. Every test is rank classification over the
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
from prompt_tuning.study import trials
from prompt_tuning.study.trials import Trial
from prompt_tuning.tasks.microworld import prompts as microworld_prompts
from prompt_tuning.tasks.microworld.examples import LABELS, LENGTHS
from prompt_tuning.training import loop, optimizers, train

INITIALIZERS = {
  trials.RANDOM: initializers.random_uniform(),
  trials.SAMPLED: initializers.from_vocabulary(),
  trials.LABELS: initializers.from_class_labels(),
}

Findings = dict[str, Any]
"""What a trial found: `scores` (task: metric: value), and more by way."""


def run(
  program: Sequence[Trial],
  model: pretrained.FrozenModel,
  folder: pathlib.Path,
  *,
  look: bool = False,
) -> list[Findings]:
  """The findings of a program's trials.

  Args:
    program: trials of one way on this model.
    model: the frozen model.
    folder: where training leaves its files; a second call goes on there.
    look: note down what the prompts mean.
  """
  ways: dict[str, Callable[..., list[Findings]]] = {
    trials.PROMPT: functools.partial(_prompts, look=look),
    trials.ENSEMBLE: _ensembles,
    trials.MODEL: _tuned_models,
    trials.MULTITASK: _tuned_models,
    trials.DESIGN: _designed,
    trials.OWN_WORDS: _designed,
  }
  findings = ways[program[0].way](program, model, folder)
  shutil.rmtree(folder / "checkpoints", ignore_errors=True)
  shutil.rmtree(folder / "model", ignore_errors=True)
  return findings


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


def _trained(
  program: Sequence[Trial],
  model: pretrained.FrozenModel,
  folder: pathlib.Path,
  tuning: train.Tuning,
) -> train.Trained:
  """Trains the tasks and seeds of a program, as its first trial says."""
  first = program[0]
  # A mixture has no validation split of its own: the last step counts.
  has_choice = not (first.scored or first.way == trials.MULTITASK)
  return train.train(
    model_dir=folder,
    model=model,
    tasks=train.Tasks(
      _unique(trial.task for trial in program),
      LENGTHS,
      _unique(seed for trial in program for seed in seeds_of(trial)),
      first.batch_size,
      validation_split="validation" if has_choice else None,
    ),
    tuning=tuning,
    plan=loop.Plan(first.steps, eval_every=max(first.steps // 6, 1)),
    decoding=decoding(first, model),
  )


def _unique(values) -> list:
  return list(dict.fromkeys(values))


def _tuned_prompts(
  program: Sequence[Trial], model: pretrained.FrozenModel, folder: pathlib.Path
) -> dict[tuple, np.ndarray]:
  """The best prompt for each (task, seed, initialiser), trained together."""
  first = program[0]
  tasks = _unique(trial.task for trial in program)
  starts = _unique(trial.initializer for trial in program)
  seeds = _unique(seed for trial in program for seed in seeds_of(trial))
  tuning = train.Tuning(
    optimizer=optimizers.falling_adafactor(first.steps, first.learning_rate),
    prompt_length=first.prompt_length,
    initializer=[INITIALIZERS[start] for start in starts],
    select_by="accuracy",
  )
  trained = _trained(program, model, folder, tuning)
  assert trained.bank is not None
  keys = [(t, s, i) for t in tasks for s in seeds for i in starts]
  return dict(zip(keys, trained.bank, strict=True))


def seeds_of(trial: Trial) -> list[int]:
  """The seeds of a trial's prompts: an ensemble's are its own."""
  return [trial.seed * trial.members + n for n in range(trial.members)]


def _prompts(
  program: Sequence[Trial],
  model: pretrained.FrozenModel,
  folder: pathlib.Path,
  *,
  look: bool,
) -> list[Findings]:
  bank = _tuned_prompts(program, model, folder)
  chosen = [
    bank[trial.task, trial.seed, trial.initializer] for trial in program
  ]
  together = prompted.with_prompts(model, chosen)
  findings: list[Findings] = [{"scores": {}} for _ in program]
  for tested in zip(*(trial.tested for trial in program), strict=True):
    evaluator = evaluate.Evaluator(
      together,
      [examples(name, "test", program[0]) for name in tested],
      decoding=decoding(program[0], model),
    )
    for finding, result in zip(findings, evaluator(), strict=True):
      finding["scores"][result.task] = result.metrics
  if look:
    for trial, rows, finding in zip(program, chosen, findings, strict=True):
      finding["meaning"] = _meaning(trial, rows, model)
  return findings


def _meaning(trial: Trial, rows: np.ndarray, model) -> Findings:
  """The words nearest to each position, and the mean of all positions."""
  nearest = [
    [[n.piece.lstrip("▁"), round(n.cosine, 3)] for n in neighbors]
    for neighbors in analysis.nearest_pieces(rows, model, 5)
  ]
  # Class labels are the first positions, in this order.
  firsts = zip(sorted(LABELS[trial.task]), nearest, strict=False)
  return {
    "nearest": nearest,
    "labels_kept": [label in dict(words) for label, words in firsts],
    "mean": [round(float(x), 4) for x in rows.mean(axis=0)],
  }


def _ensembles(
  program: Sequence[Trial], model: pretrained.FrozenModel, folder: pathlib.Path
) -> list[Findings]:
  bank = _tuned_prompts(program, model, folder)
  findings = []
  for trial in program:
    start = trial.initializer
    members = [bank[trial.task, seed, start] for seed in seeds_of(trial)]
    votes = ensemble.evaluate_together(
      prompted.with_prompts(model, members),
      examples(trial.task, "test", trial),
      decoding(trial, model),
    )
    findings.append(
      {
        "scores": {trial.task: votes.vote},
        "summary": votes.summary(),
        "members": votes.singles,
      }
    )
  return findings


def _tuned_models(
  program: Sequence[Trial], model: pretrained.FrozenModel, folder: pathlib.Path
) -> list[Findings]:
  (trial,) = program
  optimizer = optimizers.falling_adamw(trial.steps, trial.learning_rate)
  if trial.is_constant:
    optimizer = optimizers.adamw(trial.learning_rate)
  tuning = train.Tuning(
    optimizer=optimizer,
    trainable=(".*",),
    prompt_length=0,
    select_by="accuracy",
  )
  trained = _trained(program, model, folder, tuning)
  evaluator = evaluate.Evaluator(
    prompted.without_prompts(model),
    [examples(name, "test", trial) for name in trial.tested],
    decoding=decoding(trial, model),
  )
  results = evaluator(trained.params)
  return [{"scores": {result.task: result.metrics for result in results}}]


def _designed(
  program: Sequence[Trial], model: pretrained.FrozenModel, folder: pathlib.Path
) -> list[Findings]:
  del folder  # nothing is trained
  return [_worded(trial, model) for trial in program]


def _worded(trial: Trial, model: pretrained.FrozenModel) -> Findings:
  labels = answers = LABELS[trial.task]
  hand_prompts = microworld_prompts.HAND_PROMPTS[trial.task]
  wordings: list = [prompt_design.wording(text) for text in hand_prompts]
  if trial.way == trials.OWN_WORDS:
    own = microworld_prompts.CORPUS_PROMPTS[trial.task]
    wordings, answers = [own], own.answers
  shown = prompt_design.draw(
    examples(trial.task, "train", trial), trial.examples, trial.seed
  )
  scores = prompt_design.best_of(
    model,
    [prompt_design.with_examples(wording, shown) for wording in wordings],
    examples(trial.task, "validation", trial),
    examples(trial.task, "test", trial),
    answers=answers,
    labels=labels,
  )
  return {
    "scores": {trial.task: scores.metrics},
    "by_wording": scores.by_wording,
  }
