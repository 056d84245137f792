"""The job: tune prompts (or the model) on seqio tasks, into a run's folder.

    model + tasks + initialiser -> fit -> prompt.npy, prompt.json, predictions,
                                          curves.png

Prompt tuning and model tuning are two settings of `train`: which parameters
the mask trains, and whether there is a prompt at all.
"""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib

import jax
import numpy as np

from prompt_tuning import (
  batches,
  checkpoints,
  data,
  evaluate,
  freeze,
  infer,
  initializers,
  loop,
  model_folder,
  optimizers,
  plots,
  pretrained,
  run_folder,
  step,
  storage,
  stored_model,
  train_settings,
)
from prompt_tuning.shapes import PyTree
from prompt_tuning.train_settings import Tasks, Tuning


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a run leaves, also in its folder.

  Attributes:
    params: all parameters, with the best trained part.
    bank: the best prompts [N, P, E]; None without prompts.
    results: for each prompt the results on validation and test splits.
    step: updates done.
    best: scores and steps that the prompts were chosen by, if there were any.
    frozen_unchanged: whether every frozen leaf is bit-identical to the start.
  """

  params: PyTree
  bank: np.ndarray | None
  results: list[list[evaluate.Result]]
  step: int
  best: loop.Best | None
  frozen_unchanged: bool


def train(
  *,
  model_dir: str | os.PathLike,
  model: pretrained.FrozenModel,
  tasks: Tasks,
  tuning: Tuning,
  plan: loop.Plan,
  decoding: infer.Decoding | None = None,
) -> Trained:
  """Trains, resuming from the folder's last checkpoint if there is one.

  Args:
    model_dir: the run's folder.
    model: the frozen model.
    tasks: what to learn.
    tuning: what trains.
    plan: how long.
    decoding: how validation predictions are made; greedy by default, with
      the length of the targets.

  Raises:
    ValueError: a setting, a task or the folder is not usable; the message says
      which and what to do.
  """
  vocabulary = model.require_vocabulary()
  members = train_settings.members(tasks, tuning)
  names = train_settings.names(members)

  # Read the tasks, so that a split that is not there is no surprise later.
  train_sets = [_train_set(name, tasks, model) for name in tasks.names]
  scored_sets = {
    split: [_evaluation_set(name, split, tasks, model) for name in tasks.names]
    for split in (tasks.validation_split, *tasks.test_splits)
    if split
  }
  decoding = decoding or infer.Decoding(
    max_length=tasks.task_feature_lengths.get("targets", 16)
  )
  agree = train_settings.to_agree(
    model,
    tasks,
    tuning,
    members,
    decoding,
    trained_on=[examples for parts in train_sets for examples, _ in parts],
    chosen_on=scored_sets.get(tasks.validation_split or "", []),
  )
  folder = run_folder.RunFolder(model_dir, agree, keep=2)
  prompts_per_task = len(members) // len(train_sets)
  sets = [parts for parts in train_sets for _ in range(prompts_per_task)]

  # Put the prompts in front of the frozen model.
  length = tuning.prompt_length
  bank = _initial_bank(model, members, sets, tuning) if length else None
  config = dataclasses.replace(model.config, dropout_rate=tuning.dropout_rate)
  network, params = infer.with_prompts(
    dataclasses.replace(model, config=config), bank
  )
  trains = freeze.mask(params, tuning.trainable)
  trained, frozen = freeze.split(params, trains)
  # The steps of an optimizer are lost in the rounding of a narrower type.
  trained = jax.tree.map(lambda leaf: leaf.astype(np.float32), trained)
  only_prompts = bank is not None and _is_only_prompts(trained)
  if len(members) > 1 and not only_prompts:
    raise ValueError(
      f"{len(members)} runs at once ({', '.join(names)}) can share one frozen "
      "model only if nothing but their prompts trains. Give one task and one "
      "seed, or train only the prompt."
    )
  optimizer = tuning.optimizer
  problem = step.Problem(
    network,
    optimizers.per_prompt(optimizer) if only_prompts else optimizer,
    num_prompts=len(members),
    z_loss=tuning.z_loss,
    seed=members[0].seed,
  )
  before = storage.tree_hash(frozen)

  # Train, and keep the best on the validation split.
  @functools.cache
  def evaluator(split: str) -> tuple[evaluate.Evaluator, list[data.Examples]]:
    examples = [
      found for found in scored_sets[split] for _ in range(prompts_per_task)
    ]
    return evaluate.Evaluator(
      network,
      vocabulary,
      examples,
      decoding=decoding,
      prompt_length=length,
    ), examples

  validate: Callable | None = None
  if tasks.validation_split:
    validator, _ = evaluator(tasks.validation_split)

    def score_all(params):
      metrics = [result.metrics for result in validator(params)]
      return [evaluate.score(m, tuning.select_by) for m in metrics], metrics

    validate = score_all

  outcome = loop.fit(
    problem,
    (trained, frozen),
    batches.TaskBatches(
      sets,
      [member.seed for member in members],
      batch_size=tasks.batch_size,
      prompt_length=length,
    ),
    plan=plan,
    folder=folder,
    names=names,
    evaluate=validate,
  )
  best = freeze.merge(jax.tree.map(np.asarray, outcome.trained), frozen)

  # Score the best, and write what the run is for.
  results: list[list[evaluate.Result]] = [[] for _ in members]
  for split in scored_sets:
    scorer, examples = evaluator(split)
    for n, result in enumerate(scorer(best)):
      at = outcome.best.steps[n] if outcome.best else outcome.step
      results[n].append(result)
      infer.write_predictions(
        folder.path / "predictions" / f"{names[n]}-{split}-{at}.jsonl",
        evaluate.prediction_rows(examples[n], result),
      )
  report = Trained(
    params=best,
    bank=np.asarray(best["prompt"]["embedding"]) if bank is not None else None,
    results=results,
    step=outcome.step,
    best=outcome.best,
    frozen_unchanged=storage.tree_hash(frozen) == before,
  )
  _write(folder, report, model=model, tasks=tasks, tuning=tuning, sets=sets)
  plots.curves(folder.metrics(), folder.path / "curves.png")
  return report


def _train_set(name: str, tasks: Tasks, model: pretrained.FrozenModel):
  """The tasks of a task or mixture with their rates, in memory."""
  parts = []
  for member, rate in data.members(name):
    examples = data.load(
      member,
      tasks.train_split,
      tasks.task_feature_lengths,
      tasks.truncate,
      vocabulary=model.vocabulary,
    )
    parts.append((examples, rate))
  return parts


def _evaluation_set(
  name: str, split: str, tasks: Tasks, model: pretrained.FrozenModel
) -> data.Examples:
  found = data.members(name)
  if len(found) > 1:
    raise ValueError(
      f"{name} is a mixture of {len(found)} tasks and cannot be scored as "
      "one. Set VALIDATION_SPLIT=None and evaluate its tasks one by one."
    )
  return data.load(
    found[0][0],
    split,
    tasks.task_feature_lengths,
    tasks.truncate,
    vocabulary=model.vocabulary,
  )


def _initial_bank(model, members, sets, tuning: Tuning) -> np.ndarray:
  """The prompts before training, [N, P, E]."""
  embedding, rows = model.embedding, []
  for member, parts in zip(members, sets, strict=True):
    found = {t for examples, _ in parts for t in examples.target_texts()}
    source = initializers.Source(
      embedding,
      model.vocabulary.encode,
      model.vocabulary.num_pieces,
      tuple(sorted(found)),
    )
    key = jax.random.key(member.seed)
    rows.append(member.initializer(key, tuning.prompt_length, source))
  return np.stack([np.asarray(row, np.float32) for row in rows])


def _is_only_prompts(trained: PyTree) -> bool:
  return all(
    path == "prompt/embedding" or not jax.tree.leaves(leaf)
    for path, leaf in storage.flatten(trained).items()
  )


def _write(
  folder: run_folder.RunFolder,
  report: Trained,
  *,
  model: pretrained.FrozenModel,
  tasks: Tasks,
  tuning: Tuning,
  sets,
) -> None:
  """Writes the artefacts: a prompt per member, or the tuned model."""
  members = train_settings.members(tasks, tuning)
  names = train_settings.names(members)
  source, stored_hash = model.source, model.stored_hash
  if not _is_only_prompts(_trained_part(report.params, tuning)):
    params = {k: v for k, v in report.params.items() if k != "prompt"}
    source = str(pathlib.Path(folder.path) / "model")
    stored_hash = stored_model.weights_hash(params)
    model_folder.save(source, model.config, params, vocabulary=model.vocabulary)
  for n, (task, seed, start) in enumerate(members):
    if report.bank is None:
      break
    alone = len(members) == 1
    checkpoints.save_prompt(
      folder.path if alone else folder.path / "prompts" / names[n],
      report.bank[n],
      {
        "task": task,
        "seed": seed,
        "steps": report.step,
        "best_step": report.best.steps[n] if report.best else report.step,
        "initializer": train_settings.initializer_name(start),
        "scores": {r.split: r.metrics for r in report.results[n]},
        "truncated": {
          examples.task: examples.truncated for examples, _ in sets[n]
        },
        "model": {
          "source": source,
          "hash": stored_hash,
          "num_parameters": model.num_parameters,
        },
        "versions": checkpoints.versions(),
      },
    )


def _trained_part(params: PyTree, tuning: Tuning) -> PyTree:
  return freeze.split(params, freeze.mask(params, tuning.trainable))[0]
