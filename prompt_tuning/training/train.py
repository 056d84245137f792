"""The job: tune prompts (or the model) on seqio tasks, into a run's folder.

    model + tasks + tuning -> prepare -> fit -> report
                                                  prompt.npy, prompt.json,
                                                  predictions/, curves.png

Prompt tuning and model tuning are two settings of `train`: which parameters
the mask trains, and whether there is a prompt at all.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import os
import pathlib

import numpy as np

from prompt_tuning import plots, processes, run_folder, storage
from prompt_tuning.data import scoring
from prompt_tuning.frozen import model_folder, pretrained, stored_model
from prompt_tuning.inference import evaluate, infer, prompted_model
from prompt_tuning.model import freeze
from prompt_tuning.prompts import checkpoints, initializers, multitask, prompt
from prompt_tuning.shapes import Float, PyTree
from prompt_tuning.tasks import declarations
from prompt_tuning.training import loop, optimizers, prepare
from prompt_tuning.training.settings import Tasks, Tuning, initializer_name

_LENGTHS = {"inputs": 128, "targets": 8}  # of `tune`


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a run leaves, also in its folder.

  Attributes:
    params: all parameters, with the best trained part.
    bank: the rows of the best prompts; None without prompts.
    tensors: all of the best prompts, [N, …] by name, where they are more than
      rows.
    results: for each member the results on validation and test splits.
    step: updates done.
    best: scores and steps that the prompts were chosen by, if there were any.
    frozen_unchanged: whether every frozen leaf is bit-identical to the start.
    step_seconds: of the quickest steps, see `loop.Outcome`.
  """

  params: PyTree
  bank: Float[np.ndarray, "N P E"] | None
  tensors: dict[str, np.ndarray]
  results: list[list[evaluate.Result]]
  step: int
  best: loop.Best | None
  frozen_unchanged: bool
  step_seconds: float | None = None


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
    decoding: how validation predictions are made, see `infer.decoding_for`.

  Raises:
    ValueError: a setting, a task or the folder is not usable; the message says
      which and what to do.
  """
  prepared = prepare.prepare(model, tasks, tuning, decoding)
  before = storage.tree_hash(processes.own_parts(prepared.frozen))
  with run_folder.RunFolder(model_dir, prepared.agreement()).alone() as folder:
    outcome = loop.fit(
      prepared.problem,
      (prepared.trained, prepared.frozen),
      prepared.batches,
      plan=plan,
      folder=folder,
      names=prepared.names,
      evaluate=prepared.validate if tasks.validation_split else None,
      watch=watch_for_chance(prepared, plan),
    )
    after = storage.tree_hash(processes.own_parts(prepared.frozen))
    unchanged = after == before
    with folder.writing():
      return report(prepared, outcome, folder, frozen_unchanged=unchanged)


_OTHERS = "give other SEEDS or another LEARNING_RATE"
_LABELS = "start from class labels (prompts/class_labels.gin)"
_RELATED = "start from the prompt of a related task (prompts/file.gin)"
_METHODS = (
  "take a steadier method, methods/low_rank.gin or methods/ia3.gin "
  "(docs/methods.md)"
)


def _advice(prepared: prepare.Prepared) -> str:
  """What may help prompts at chance, of what has not been done."""
  starts = {initializer_name(one.initializer) for one in prepared.members}
  labels = initializers.from_class_labels.__name__
  ways = [_OTHERS, _LABELS, _RELATED, _METHODS]
  if starts == {labels}:
    ways.remove(_LABELS)
  if prepared.tuning.module is not prompt.Prompt:
    ways.remove(_METHODS)
  *first, last = ways
  return (
    "Some begin to learn later. If it stays there, "
    f"{', '.join(first)}, or {last}."
  )


def watch_for_chance(
  prepared: prepare.Prepared, plan: loop.Plan
) -> loop.Watch | None:
  """What says which prompts are at chance after a tenth of their steps."""
  split = prepared.tasks.validation_split
  if not split or not prepared.trains_prompts_only:
    return None
  levels = [
    scoring.chance(examples, prepared.tuning.select_by)
    for examples in prepared.of_members(prepared.scored_sets[split])
  ]
  known = [level for level in levels if level]
  if prepared.shares and known:  # one score for all of them
    levels = [scoring.Chance(*np.mean(known, axis=0))] * len(levels)

  def watch(at: int, scores: Sequence[float]) -> None:
    before = (at - 1) // plan.eval_every * plan.eval_every
    if not 10 * before < plan.steps <= 10 * at:
      return  # not the first look after a tenth
    stuck = [
      f"{name}: {score:.1f} (chance {level.score:.1f})"
      for name, score, level in zip(prepared.names, scores, levels, strict=True)
      if level and score <= level.score + level.margin
    ]
    if stuck:
      logging.getLogger(__name__).warning(
        "After %d of %d steps prompts score on %s no better than always giving "
        "the most frequent answer: %s. %s",
        *(at, plan.steps, split, ", ".join(stuck), _advice(prepared)),
      )

  return watch


def report(
  prepared: prepare.Prepared,
  outcome: loop.Outcome,
  folder: run_folder.RunFolder,
  *,
  frozen_unchanged: bool,
) -> Trained:
  """Scores the best of a run, and writes what the run is for.

  Of several processes all score and gather, and the first writes.
  """
  params = freeze.merge(processes.kept(outcome.trained), prepared.frozen)

  # Every split is answered by the best of each member.
  results: list[list[evaluate.Result]] = [[] for _ in prepared.members]
  for split, of_tasks in prepared.scored_sets.items():
    examples = prepared.of_members(of_tasks)
    for n, result in enumerate(prepared.evaluators[split](params)):
      at = outcome.best.steps[n] if outcome.best else outcome.step
      name = f"{prepared.names[n]}-{split}-{at}.jsonl"
      results[n].append(result)
      folder.write_jsonl(
        f"predictions/{name}", evaluate.prediction_rows(examples[n], result)
      )

  # What trained collapses to rows, or has tensors beside them; prompts and
  # weights go into their files.
  module, bank, more = prepared.prompted.network.prompt, None, {}
  if module is not None:
    bank = processes.on_host(prompt.collapsed(module, params))
    more = processes.on_host(prompt.tensors(module, params))
  trained = Trained(
    *(params, bank, more, results),
    *(outcome.step, outcome.best, frozen_unchanged, outcome.step_seconds),
  )
  about_model = _save_model(prepared, params, folder)
  if not folder.writes:
    return trained
  if bank is not None:
    _save_prompts(prepared, trained, folder.path, about_model)
  if module is not None and prepared.shares:
    own = params[prompt.NAME]
    multitask.save_shared(folder.path, module, own, about_model["hash"])
  plots.curves(folder.metrics(), folder.path / "curves.png")
  return trained


def _save_model(
  prepared: prepare.Prepared, params: PyTree, folder: run_folder.RunFolder
) -> dict:
  """Writes the network if it was tuned; what a prompt's record says of it."""
  model = prepared.model
  source, stored_hash = model.source, model.stored_hash
  if not prepared.trains_prompts_only:
    network = processes.on_first(
      {k: v for k, v in params.items() if k != prompt.NAME}
    )
    source = str(folder.path / "model")
    stored_hash = processes.told(
      lambda: stored_model.weights_hash(network).encode()
    ).decode()
    if folder.writes:
      model_folder.save(
        source, model.config, network, vocabulary=model.vocabulary
      )
  return {
    "source": source,
    "hash": stored_hash,
    "num_parameters": model.num_parameters,
    "weights_dtype": model.weights_dtype,
  }


def _save_prompts(
  prepared: prepare.Prepared,
  trained: Trained,
  folder: pathlib.Path,
  about_model: dict,
) -> None:
  """Writes each prompt: into the run's folder, or one of its own if several."""
  assert trained.bank is not None
  alone = len(prepared.members) == 1
  sets = prepared.of_members(prepared.train_sets)
  method = prompt.method_of(prepared.prompted.network.prompt)
  pull = prepared.problem.pull
  for n, (task, seed, start, placing) in enumerate(prepared.members):
    best = trained.best
    checkpoints.save_prompt(
      folder if alone else folder / "prompts" / prepared.names[n],
      {name: tensor[n] for name, tensor in trained.tensors.items()}
      or trained.bank[n],
      {
        "task": task,
        **_form_of(task),
        "seed": seed,
        "steps": trained.step,
        "best_step": best.steps[n] if best else trained.step,
        "initializer": initializer_name(start),
        **({"method": method} if method else {}),
        **(pull.record(n) if pull else {}),
        **_beside(prepared.tuning),
        **placing.record(),
        "scores": {r.split: r.metrics for r in trained.results[n]},
        "truncated": {
          examples.task: examples.truncated for examples, _ in sets[n]
        },
        "model": about_model,
        "versions": checkpoints.versions(),
      },
    )


def _beside(tuning: Tuning) -> dict:
  """What the prompt was taught by, and what it was trained together with."""
  said: dict = {"teachers": str(tuning.teachers)} if tuning.teachers else {}
  if tuple(tuning.trainable) != freeze.PROMPT:
    said["trainable"] = list(tuning.trainable)
  return said


def _form_of(task: str) -> dict:
  """What a task declared of its inputs and answers, for who uses the prompt."""
  form = declarations.declared(task)
  labels, template = list(form.labels), form.template
  return {
    **({"labels": labels} if labels else {}),
    **({"template": template} if template else {}),
  }


def tune(
  model: pretrained.FrozenModel,
  task: str,
  model_dir: str | os.PathLike,
  *,
  steps: int = 300,
  prompt_length: int = 20,
  lengths: Mapping[str, int] = _LENGTHS,
) -> prompted_model.PromptedModel:
  """Tunes a prompt with the paper's optimizer and initialiser, resumably.

  Other settings are those of `train.train`, which this calls, and of the gin
  files.

  Args:
    model: the frozen model.
    task: a registered seqio task with the splits train and validation.
    model_dir: the run's folder; the best prompt on validation ends up there.
    steps: updates of batch 32; the paper takes 30,000.
    prompt_length: P; the paper takes 100.
    lengths: tokens of `inputs` and `targets`, EOS included.

  Returns:
    The frozen model with the prompt, ready to predict texts.
  """
  train(
    model_dir=model_dir,
    model=model,
    tasks=Tasks(task, lengths),
    tuning=Tuning(
      optimizer=optimizers.adafactor(),
      prompt_length=prompt_length,
      initializer=initializers.from_class_labels(),
    ),
    plan=loop.Plan(steps, eval_every=max(steps // 6, 1)),
  )
  decoding = infer.decoding_for(lengths)
  return prompted_model.PromptedModel(model, [model_dir], decoding)
