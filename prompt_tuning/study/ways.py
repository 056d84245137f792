"""The ways to make a model do a task, from the same tasks and one evaluator.

    trials, model, folder -> train, or word -> test split, by rank -> a row each

A program is a list of trials that train together: prompts of one length on one
model, or one trial of any other way. Every test is rank classification over the
task's labels, for tuned prompts, tuned models and hand-written prompts alike.
"""

from collections.abc import Callable, Sequence
import functools
import pathlib
import shutil
from typing import Any

import numpy as np

from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import ensemble, evaluate, prompt_design
from prompt_tuning.prompts import analysis, prompted
from prompt_tuning.study import methods, sources, trials, tuned
from prompt_tuning.study.trials import Trial
from prompt_tuning.tasks.microworld import prompts as microworld_prompts
from prompt_tuning.tasks.microworld.examples import LABELS
from prompt_tuning.training import train

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
    trials.SOURCE: _from_sources,
    trials.METHOD: _methods,
    trials.MODEL: _tuned_models,
    trials.MULTITASK: _tuned_models,
    trials.DESIGN: _designed,
    trials.OWN_WORDS: _designed,
  }
  findings = ways[program[0].way](program, model, folder)
  shutil.rmtree(folder / "checkpoints", ignore_errors=True)
  shutil.rmtree(folder / "model", ignore_errors=True)
  return findings


def _prompts(
  program: Sequence[Trial],
  model: pretrained.FrozenModel,
  folder: pathlib.Path,
  *,
  look: bool,
) -> list[Findings]:
  bank = tuned.prompts(program, model, folder)
  chosen = [
    bank[trial.task, trial.seed, trial.initializer] for trial in program
  ]
  findings = _scored(program, model, chosen)
  if look:
    for trial, rows, finding in zip(program, chosen, findings, strict=True):
      finding["meaning"] = _meaning(trial, rows, model)
  return findings


def _from_sources(
  program: Sequence[Trial], model: pretrained.FrozenModel, folder: pathlib.Path
) -> list[Findings]:
  chosen = sources.from_best(program, model, folder)
  findings = _scored(program, model, [one.rows for one in chosen])
  for finding, one in zip(findings, chosen, strict=True):
    finding["cosines"] = one.cosines
  return findings


def _scored(
  program: Sequence[Trial],
  model: pretrained.FrozenModel,
  chosen: Sequence,
) -> list[Findings]:
  """The scores of the trials' prompts, on whatever they are tested on."""
  together = prompted.with_prompts(model, chosen)
  findings: list[Findings] = [{"scores": {}} for _ in program]
  for tested in zip(*(trial.tested for trial in program), strict=True):
    evaluator = evaluate.Evaluator(
      together,
      [tuned.examples(name, "test", program[0]) for name in tested],
      decoding=tuned.decoding(program[0], model),
    )
    for finding, result in zip(findings, evaluator(), strict=True):
      finding["scores"][result.task] = result.metrics
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
  bank = tuned.prompts(program, model, folder)
  findings = []
  for trial in program:
    start = trial.initializer
    members = [bank[trial.task, seed, start] for seed in tuned.seeds_of(trial)]
    votes = ensemble.evaluate_together(
      prompted.with_prompts(model, members),
      tuned.examples(trial.task, "test", trial),
      tuned.decoding(trial, model),
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
  trained = tuned.trained(program, model, folder, tuned.whole_model(trial))
  return [_scored_model(trial, model, trained)]


def _scored_model(
  trial: Trial, model: pretrained.FrozenModel, trained: train.Trained
) -> Findings:
  """The scores of a model that was tuned."""
  evaluator = evaluate.Evaluator(
    prompted.without_prompts(model),
    [tuned.examples(name, "test", trial) for name in trial.tested],
    decoding=tuned.decoding(trial, model),
  )
  results = evaluator(trained.params)
  return {"scores": {result.task: result.metrics for result in results}}


def _methods(
  program: Sequence[Trial], model: pretrained.FrozenModel, folder: pathlib.Path
) -> list[Findings]:
  trained, courses = methods.compared(program, model, folder)
  if trained.bank is None:
    findings = [_scored_model(program[0], model, trained)]
  else:
    whole: list = [
      {name: tensor[n] for name, tensor in trained.tensors.items()} or rows
      for n, rows in enumerate(trained.bank)
    ]
    findings = _scored(program, model, whole)
  for finding, course in zip(findings, courses, strict=True):
    finding["course"] = course
  return findings


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
    tuned.examples(trial.task, "train", trial), trial.examples, trial.seed
  )
  scores = prompt_design.best_of(
    model,
    [prompt_design.with_examples(wording, shown) for wording in wordings],
    tuned.examples(trial.task, "validation", trial),
    tuned.examples(trial.task, "test", trial),
    answers=answers,
    labels=labels,
  )
  return {
    "scores": {trial.task: scores.metrics},
    "by_wording": scores.by_wording,
  }
