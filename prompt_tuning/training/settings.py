"""What a run learns and how: its tasks, its optimizer, and its prompts.

Tasks, Tuning -> members: a prompt for every task, seed, initialiser and place
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
from typing import Any, NamedTuple

import optax

from prompt_tuning.data import splits
from prompt_tuning.data.layout import Layout
from prompt_tuning.model import freeze
from prompt_tuning.model.inject import IN_FRONT, Placing
from prompt_tuning.prompts import initializers, prompt, wayward
from prompt_tuning.prompts.inner import deep


@dataclasses.dataclass(frozen=True)
class Tasks:
  """What is learned, and how it is read.

  Attributes:
    mixture_or_task_name: a task; several of them train one prompt each.
    task_feature_lengths: tokens of inputs and targets, EOS included.
    seeds: one prompt per task and seed.
    batch_size: B, examples per prompt and step.
    train_split: the split to train on.
    train_examples: so many of its examples, drawn by the seed; 0 for all.
    validation_split: the split to choose the best prompt on; None for none.
    test_splits: splits that the chosen prompt is scored on at the end.
    truncate: cut long examples (and count them) instead of refusing them.
    layout: how the examples of a step lie in memory.
  """

  mixture_or_task_name: str | Sequence[str]
  task_feature_lengths: Mapping[str, int]
  seeds: Sequence[int] = (0,)
  batch_size: int = 32
  train_split: str = "train"
  validation_split: str | None = "validation"
  test_splits: Sequence[str] = ()
  truncate: bool = True
  layout: Layout = Layout()
  train_examples: int = 0

  def __post_init__(self):
    splits.check_lengths(self.task_feature_lengths)
    _check_list("MIXTURE_OR_TASK_NAME", self.names)
    seeds = [self.seeds] if isinstance(self.seeds, int) else self.seeds
    _check_list("SEEDS", list(seeds))
    # A key is made of 32 bits: larger seeds would draw what smaller ones do.
    if any(type(s) is not int or not 0 <= s < 1 << 32 for s in seeds):
      raise ValueError(
        f"SEEDS={self.seeds!r}; give whole numbers from 0 to 4294967295, for "
        "example (0, 1)."
      )
    if self.batch_size < 1:
      raise ValueError(
        f"BATCH_SIZE={self.batch_size}; a batch needs 1 example at least."
      )
    if self.train_examples < 0:
      raise ValueError(
        f"TRAIN_EXAMPLES={self.train_examples}; give a whole number of 1 or "
        "more, or 0 to train on all of TRAIN_SPLIT."
      )
    if isinstance(self.test_splits, str):
      raise ValueError(
        f"TEST_SPLITS={self.test_splits!r} is no list of splits. Write "
        f"TEST_SPLITS=({self.test_splits!r},)."
      )
    if len(set(self.test_splits)) < len(self.test_splits):
      raise ValueError(
        f"TEST_SPLITS={self.test_splits!r} names a split twice. Name it once."
      )

  @property
  def names(self) -> list[str]:
    """The tasks as a list."""
    given = self.mixture_or_task_name
    return [given] if isinstance(given, str) else list(given)


def _check_list(setting: str, values: list) -> None:
  if not values:
    raise ValueError(f"{setting} names nothing; give one or several.")
  twice = [v for i, v in enumerate(values) if v in values[:i]]
  if twice:
    raise ValueError(
      f"{setting}={values!r} has {twice[0]!r} twice, which would train the "
      "same prompt twice. Name it once."
    )


class Member(NamedTuple):
  """One prompt of the bank: what it learns, how it starts, where it stands."""

  task: str
  seed: int
  initializer: initializers.Initializer
  placing: Placing = IN_FRONT


Initializers = (
  initializers.Initializer | Sequence[initializers.Initializer] | None
)


@dataclasses.dataclass(frozen=True)
class Tuning:
  """What trains, from where, and by which optimizer.

  Attributes:
    trainable: regexes over parameter paths, see `freeze`.
    prompt_length: P; 0 for no prompt, or for one that has no rows in front (see
      `deep`).
    initializer: how the prompt starts, see `initializers`; several of them
      train one prompt each, for every task and seed.
    module: what trains, of P, E and N: a module as `prompt.Rows` says, such as
      `reparameterised.residual()` makes.
    placing: where the prompts stand, and what they attend to; several of them
      train one prompt each, for every task, seed and initialiser.
    optimizer: an optax transformation.
    dropout_rate: of the network while training; the paper uses none.
    z_loss: weight of log(Z)^2 in the loss.
    select_by: the metric that chooses the best prompt; None for the mean.
    wayward_text: a text that the prompt is pulled to, see `wayward`; its fields
      are {task}, {labels} and {seed}. None for no pull.
    wayward_gamma: how strongly.
    teachers: a run whose prompts of the same tasks are teachers: the loss has
      the KL of their answers and those of what trains. None for no teachers.
    teacher_weight: of that term.
    remat: compute each layer again for the gradient instead of keeping what it
      computed: less memory and more time for the same step.
  """

  optimizer: optax.GradientTransformation
  trainable: Sequence[str] = freeze.PROMPT
  prompt_length: int = 100
  initializer: Initializers = None
  module: Callable[[int, int, int], Any] = prompt.Prompt
  placing: Placing | Sequence[Placing] = IN_FRONT
  dropout_rate: float = 0.0
  z_loss: float = 1e-4
  select_by: str | None = None
  remat: bool = False
  wayward_text: str | None = None
  wayward_gamma: float = 0.01
  teachers: str | os.PathLike | None = None
  teacher_weight: float = 1.0

  def __post_init__(self):
    if self.prompt_length < 0:
      raise ValueError(
        f"PROMPT_LENGTH={self.prompt_length}; give 0 for no prompt, or a "
        "positive number."
      )
    if not self.prompt_length and not (
      self.module is prompt.Prompt or deep.has_more(self.module)
    ):
      raise ValueError(
        "PROMPT is set (by a file of methods/) and PROMPT_LENGTH=0, so there "
        "is no prompt that it could make. Leave it out, or set PROMPT_LENGTH."
      )
    _check_list("PROMPT_PLACE", [placing.place for placing in self.placings])
    if not self.prompt_length and self.placings != [IN_FRONT]:
      first = self.placings[0]
      raise ValueError(
        f"PROMPT_PLACE={first.place!r} and PROMPT_ATTENTION="
        f"{first.attention!r} are of a prompt, and PROMPT_LENGTH=0. "
        "Leave them out, or set PROMPT_LENGTH."
      )
    if self.wayward_text is not None:
      wayward.check(self.wayward_text, self.wayward_gamma)
      if not self.prompt_length:
        raise ValueError(
          f"WAYWARD_TEXT={self.wayward_text!r} pulls a prompt to a text, and "
          "with PROMPT_LENGTH=0 there is none. Leave it out, or set "
          "PROMPT_LENGTH."
        )
    if self.teachers is not None:
      self._check_teachers()
    if type(self.z_loss) not in (int, float) or not 0 <= self.z_loss:
      raise ValueError(f"z_loss={self.z_loss!r}; give 0 or a positive number.")
    if not 0 <= self.dropout_rate < 1:
      raise ValueError(
        f"DROPOUT_RATE={self.dropout_rate}; give a number from 0 to below 1."
      )

  def _check_teachers(self) -> None:
    if deep.is_inside(self.module) or not self.prompt_length:
      raise ValueError(
        "TEACHERS are plain prompts, and with this PROMPT or PROMPT_LENGTH=0 "
        "what trains is of another kind. Leave TEACHERS out, or train a prompt "
        "that ends as a plain one."
      )
    if not 0 < self.teacher_weight < float("inf"):
      raise ValueError(
        f"TEACHER_WEIGHT={self.teacher_weight!r}; give a number above 0, for "
        "example 1.0, or leave TEACHERS out."
      )

  @property
  def placings(self) -> list[Placing]:
    """The placings as a list."""
    given = self.placing
    return [given] if isinstance(given, Placing) else list(given)

  def said(self, name: str) -> Any:
    """What records say of place or attention: a list, if prompts differ."""
    said = [placing.record().get(name) for placing in self.placings]
    return said if any(one != said[0] for one in said) else said[0]


def members_of(tasks: Tasks, tuning: Tuning) -> list[Member]:
  """A prompt for every task, seed, initialiser and place, in this order."""
  given = tuning.initializer
  if given is None:
    given = initializers.from_vocabulary()
  starts = [given] if callable(given) else list(given)
  if not starts:
    raise ValueError("PROMPT_INITIALIZER names nothing; give one or several.")
  seeds = [tasks.seeds] if isinstance(tasks.seeds, int) else tasks.seeds
  return [
    Member(task, seed, start, placing)
    for task in tasks.names
    for seed in seeds
    for start in starts
    for placing in tuning.placings
  ]


def names_of(members: Sequence[Member]) -> list[str]:
  """The task, with what else tells prompts apart."""

  def several(values) -> bool:
    return len(set(values)) > 1

  starts = several(member.initializer for member in members)
  seeds = several(member.seed for member in members)
  places = several(member.placing for member in members)
  labels = [
    member.task
    + (f"-{initializer_name(member.initializer)}" if starts else "")
    + (f"-{member.placing.place}" if places else "")
    + (f"-seed{member.seed}" if seeds else "")
    for member in members
  ]
  if len(set(labels)) == len(labels):
    return labels
  return [f"{label}-{n}" for n, label in enumerate(labels)]


def initializer_name(initializer) -> str:
  """The function that built an initialiser, `from_vocabulary` for example."""
  return initializer.__qualname__.partition(".")[0]


def check_sharing(members: Sequence[Member]) -> None:
  """Refuses two prompts of one task where prompts share a part.

  Raises:
    ValueError: there are several seeds, initialisers or places.
  """
  names = [member.task for member in members]
  if len(set(names)) < len(names):
    raise ValueError(
      f"SEEDS, PROMPT_INITIALIZER or PROMPT_PLACE make {len(names)} prompts "
      f"for {len(set(names))} tasks, and with this PROMPT all of a run share a "
      "part, so that seeds would not be independent. Give one of each, and a "
      "run for each."
    )
