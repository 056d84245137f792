"""A run before its first step: all that it needs, worked out once.

model, Tasks, Tuning -> splits read, prompts in front of the frozen model,
                        trained and frozen part, batches -> `Prepared`
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any, TypeVar

import jax
import numpy as np

from prompt_tuning import storage
from prompt_tuning.data import batches, layout, registry, scoring, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.model import forms, freeze
from prompt_tuning.prompts import initializers, prompt, prompted
from prompt_tuning.shapes import Float, PyTree
from prompt_tuning.training import optimizers, step, terms
from prompt_tuning.training.settings import (
  Member,
  Tasks,
  Tuning,
  check_sharing,
  initializer_name,
  members_of,
  names_of,
)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Prepared:
  """What a run is, from its settings to the parts that train.

  Attributes:
    model: the frozen model.
    tasks: what is learned.
    tuning: what trains.
    decoding: how predictions are made.
    members: the prompts of the bank; one without a prompt for model tuning.
    names: of the members, for the log and for files.
    train_sets: for each task, the tasks that it consists of with their rates.
    scored_sets: for each split that is scored, the examples of each task.
    prompted: the network with its first parameters.
    trained: the part of the parameters that trains, in float32.
    frozen: the others.
    problem: network, optimizer and loss.
  """

  model: pretrained.FrozenModel
  tasks: Tasks
  tuning: Tuning
  decoding: infer.Decoding
  members: list[Member]
  names: list[str]
  train_sets: list[batches.Parts]
  scored_sets: Mapping[str, list[splits.Examples]]
  prompted: prompted.Prompted
  trained: PyTree
  frozen: PyTree
  problem: step.Problem

  @property
  def trains_prompts_only(self) -> bool:
    """Whether the frozen model stays as it is."""
    return prompt.is_all_that_trains(self.trained)

  @property
  def shares(self) -> bool:
    """Whether the prompts have a trained part together."""
    return any(jax.tree.leaves(prompt.shared(self.trained)))

  @functools.cached_property
  def batches(self) -> Callable[[int], layout.Batch | layout.Parts]:
    """The batch of each step, laid out."""
    of_tasks = batches.TaskBatches(
      self.of_members(self.train_sets),
      [member.seed for member in self.members],
      batch_size=self.tasks.batch_size,
      prompt_length=self.prompted.places,
      places=[member.placing.place for member in self.members],
      few=self.tasks.train_examples,
    )
    return self.tasks.layout.arrange(
      lambda step: self.prompted.framed(of_tasks(step)),
      num_prompts=len(self.members),
      emb_dim=self.model.config.emb_dim,
      platform=jax.default_backend(),
      devices=self.model.devices.data if self.model.devices else 1,
    )

  def of_members(self, of_tasks: Sequence[T]) -> list[T]:
    """What belongs to a task, for each member in place of each task."""
    copies = len(self.members) // len(of_tasks)
    return [value for value in of_tasks for _ in range(copies)]

  @functools.cached_property
  def evaluators(self) -> dict[str, evaluate.Evaluator]:
    """For each split that is scored, what scores the members on it."""
    return {
      split: evaluate.Evaluator(
        self.prompted, self.of_members(of_tasks), decoding=self.decoding
      )
      for split, of_tasks in self.scored_sets.items()
    }

  def validate(self, params: PyTree) -> tuple[list[float], list[dict]]:
    """The score that each member is chosen by, and its metrics."""
    assert self.tasks.validation_split is not None
    results = self.evaluators[self.tasks.validation_split](params)
    metrics = [result.metrics for result in results]
    chosen_by = self.tuning.select_by
    scores = [scoring.score(found, chosen_by) for found in metrics]
    if self.shares:
      # What prompts share is kept as it was at one step for all of them.
      scores = [float(np.mean(scores))] * len(scores)
    return scores, metrics

  def agreement(self) -> dict[str, Any]:
    """What a checkpoint must agree with to be gone on from.

    The best prompt so far was chosen by its scores, so what it was scored on,
    and how, must be the same as well as what it was trained on.
    """
    tasks, tuning, decoding = self.tasks, self.tuning, self.decoding
    starts = [member.initializer for member in self.members]
    teacher = self.problem.teacher
    trained_on = [e for parts in self.train_sets for e, _ in parts]
    chosen_on = self.scored_sets.get(tasks.validation_split or "", [])
    return {
      "training data of hash": splits.content_hash(trained_on),
      "validation data of hash": splits.content_hash(chosen_on),
      "DECODING": f"{decoding.strategy}, {decoding.max_length} tokens at most",
      "metrics": [registry.metric_names(e.task) for e in chosen_on],
      "updates by OPTIMIZER and LEARNING_RATE": optimizers.fingerprint(
        tuning.optimizer
      ),
      "DROPOUT_RATE": tuning.dropout_rate,
      "SELECT_BY": tuning.select_by,
      "z_loss": tuning.z_loss,
      "MIXTURE_OR_TASK_NAME": tasks.names,
      "TASK_FEATURE_LENGTHS": dict(tasks.task_feature_lengths),
      "SEEDS": [member.seed for member in self.members],
      "BATCH_SIZE": tasks.batch_size,
      "TRAIN_SPLIT": tasks.train_split,
      "TRAIN_EXAMPLES": tasks.train_examples or None,
      "VALIDATION_SPLIT": tasks.validation_split,
      "PROMPT_LENGTH": tuning.prompt_length,
      "PROMPT_INITIALIZER": [initializer_name(start) for start in starts],
      "start by PROMPT_INITIALIZER": initializers.settings_of(starts),
      "PROMPT": prompt.method_of(self.prompted.network.prompt),
      # None of a prompt in front, as before there were other places.
      "PROMPT_PLACE": tuning.said("place"),
      "PROMPT_ATTENTION": tuning.said("attention"),
      "WAYWARD_TEXT": tuning.wayward_text,
      "WAYWARD_GAMMA": tuning.wayward_text and tuning.wayward_gamma,
      "TEACHERS": teacher and storage.tensor_hash(teacher.rows),
      "TEACHER_WEIGHT": teacher and teacher.weight,
      "TRAINABLE": list(tuning.trainable),
      "model": self.model.stored_hash,
      # None of floats, as before there were others.
      "WEIGHTS_DTYPE": forms.quantized.dtype_of(self.model.params),
    }


def prepare(
  model: pretrained.FrozenModel,
  tasks: Tasks,
  tuning: Tuning,
  decoding: infer.Decoding | None = None,
) -> Prepared:
  """Works out a run; see `train.train` for the arguments.

  Raises:
    ValueError: a setting or a task is not usable.
  """
  members = members_of(tasks, tuning)
  names = names_of(members)

  # Every split is read now, so that one that is not there is no surprise later.
  train_sets = [_train_set(name, tasks, model) for name in tasks.names]
  scored_sets = {
    split: [_scored_set(name, split, tasks, model) for name in tasks.names]
    for split in (tasks.validation_split, *tasks.test_splits)
    if split
  }

  # So is whatever the choice of the best prompt depends on: a perfect answer
  # must have the score that it is chosen by.
  for examples in scored_sets.get(tasks.validation_split or "", []):
    perfect = scoring.metrics(examples, examples.target_texts())
    scoring.score(perfect, tuning.select_by)

  # What trains stands beside the frozen model, from its first values on.
  config = dataclasses.replace(model.config, dropout_rate=tuning.dropout_rate)
  params = model.params
  if list(tuning.trainable) != list(freeze.PROMPT):
    params = forms.apart(params)  # the layers by their names, for the regexes
  dropping = dataclasses.replace(model, config=config, params=params)
  together, sources = prompted.without_prompts(dropping), []
  if tuning.prompt_length or tuning.module is not prompt.Prompt:
    module = tuning.module(tuning.prompt_length, config.emb_dim, len(members))
    module = prompt.for_network(module, config)
    sources = _sources(model, members, train_sets)
    num_rows = getattr(module, "num_rows", module.length)
    rows = _first_rows(members, sources, num_rows)
    first = module.first_parameters(rows, _given(model, members))
    placings = [member.placing for member in members]
    together = prompted.with_module(dropping, module, first, placings)

  # One mask splits the parameters. The steps of an optimizer are lost in the
  # rounding of a narrower type, so what trains is float32.
  mask = prompt.trainable(freeze.mask(together.params, tuning.trainable))
  trained, frozen = freeze.split(together.params, mask)
  if not prompt.is_all_that_trains(trained):
    what = f"TRAINABLE={tuning.trainable!r} trains weights of the network"
    forms.quantized.refuse(together.params, what)
  trained = jax.tree.map(lambda leaf: leaf.astype(np.float32), trained)
  only_prompts = prompt.is_all_that_trains(trained)
  if len(members) > 1 and not only_prompts:
    raise ValueError(
      f"{len(members)} runs at once ({', '.join(names)}) can share one frozen "
      "model only if nothing but their prompts trains. Give one task and one "
      "seed, or train only the prompt."
    )
  is_shared = prompt.shared(trained)
  if any(jax.tree.leaves(is_shared)):
    check_sharing(members)
  problem = step.Problem(
    together.network.clone(remat=tuning.remat),
    optimizers.of_bank(tuning.optimizer, is_shared)
    if only_prompts
    else tuning.optimizer,
    num_prompts=len(members),
    z_loss=tuning.z_loss,
    seed=members[0].seed,
    pull=terms.pull_of(tuning, members, sources, trained),
    devices=model.devices,
    teacher=terms.teacher_of(tuning, members, model, together, trained),
  )
  return Prepared(
    model,
    tasks,
    tuning,
    decoding or infer.decoding_for(tasks.task_feature_lengths),
    members,
    names,
    train_sets,
    scored_sets,
    together,
    trained,
    frozen,
    problem,
  )


def _train_set(
  name: str, tasks: Tasks, model: pretrained.FrozenModel
) -> batches.Parts:
  """The tasks of a task or mixture with their rates, in memory."""
  parts = [
    (_load(task, tasks.train_split, tasks, model), rate)
    for task, rate in registry.tasks_of(name)
  ]
  for examples, _ in parts:
    if len(examples) < tasks.train_examples:
      raise ValueError(
        f"TRAIN_EXAMPLES={tasks.train_examples} are more than the "
        f"{len(examples)} of {examples.task}, split {examples.split}. Set it "
        f"to {len(examples)} or less, or to 0 for all of them."
      )
  return parts


def _scored_set(
  name: str, split: str, tasks: Tasks, model: pretrained.FrozenModel
) -> splits.Examples:
  parts = registry.tasks_of(name)
  if len(parts) > 1:
    raise ValueError(
      f"{name} is a mixture of {len(parts)} tasks and cannot be scored as "
      "one. Set VALIDATION_SPLIT=None and evaluate its tasks one by one."
    )
  return _load(parts[0][0], split, tasks, model)


def _load(task: str, split: str, tasks: Tasks, model) -> splits.Examples:
  return splits.load(
    task,
    split,
    tasks.task_feature_lengths,
    tasks.truncate,
    vocabulary=model.vocabulary,
  )


def _sources(
  model: pretrained.FrozenModel,
  members: Sequence[Member],
  train_sets: Sequence[batches.Parts],
) -> list[initializers.Source]:
  """What the frozen model and its task offer to each prompt."""
  embedding, vocabulary = model.embedding, model.require_vocabulary()
  copies = len(members) // len(train_sets)
  found = []
  for parts in train_sets:
    targets = {text for e, _ in parts for text in e.target_texts()}
    source = initializers.Source(
      embedding,
      vocabulary.encode,
      vocabulary.num_pieces,
      tuple(sorted(targets)),
      vocabulary.words,
    )
    found += [source] * copies
  return found


def _first_rows(
  members: Sequence[Member],
  sources: Sequence[initializers.Source],
  length: int,
) -> Float[np.ndarray, "N {length} E"]:
  """The prompts before training, each by its initialiser and seed."""
  if not length:  # no initialiser is asked for nothing
    width = sources[0].embedding.shape[1]
    return np.zeros((len(members), 0, width), np.float32)
  rows = [
    member.initializer(jax.random.key(member.seed), length, source)
    for member, source in zip(members, sources, strict=True)
  ]
  return np.stack([np.asarray(row, np.float32) for row in rows])


def _given(
  model: pretrained.FrozenModel, members: Sequence[Member]
) -> prompt.Given:
  """What a module may start from besides rows."""
  pieces = model.require_vocabulary().num_pieces
  return prompt.Given(
    [member.seed for member in members],
    model.embedding[initializers.SPECIAL : pieces],
    model.stored_hash,
  )
