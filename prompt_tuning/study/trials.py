"""What a study is made of: trials, the models they need, and a layout.

Trial          one thing that is tuned (or worded) and tested: one row
Pretraining  a frozen model that a study makes for itself
Study        a question, its trials, and how the answer is laid out
"""

from collections.abc import Sequence
import dataclasses
import itertools

from prompt_tuning.frozen.pretrained import SHIPPED
from prompt_tuning.tasks import microworld

PROMPT, MODEL = "prompt tuning", "model tuning"
MULTITASK = "multi-task model tuning"
DESIGN, OWN_WORDS = "prompt design", "prompt design in the text's own words"
ENSEMBLE = "ensemble"
SOURCE = "prompt tuning from the best source"
METHOD = "method"

RANDOM, SAMPLED, LABELS = "random uniform", "sampled vocabulary", "class labels"


@dataclasses.dataclass(frozen=True)
class Trial:
  """One row of a study's results.

  Attributes:
    task: what it is trained on.
    way: how the model is made to do it, see `ways`.
    seed: of initialisation and order; of the examples of prompt design.
    model: the frozen model: `microworld`, or one of the study's own.
    prompt_length: P; 0 where nothing is put in front.
    initializer: how the prompt starts.
    steps: updates.
    learning_rate: the highest.
    is_constant: whether it stays so; else it falls along a cosine.
    batch_size: B.
    tests: the tasks that it is scored on; by default the one it is trained on.
    examples: of the training split that stand in the input (prompt design).
    members: prompts that vote (ensembles).
    scored: test examples that are scored; 0 for all. With fewer there is no
      validation, and the last step counts.
    few: training examples, drawn by the seed; 0 for all. With fewer there is no
      validation either.
    method: what trains, of `methods.MODULES`, where methods are compared.
  """

  task: str
  way: str = PROMPT
  seed: int = 0
  model: str = SHIPPED
  prompt_length: int = 20
  initializer: str = LABELS
  steps: int = 600
  learning_rate: float = 0.3
  is_constant: bool = False
  batch_size: int = 32
  tests: tuple[str, ...] = ()
  examples: int = 0
  members: int = 1
  scored: int = 0
  few: int = 0
  method: str = ""

  @property
  def tested(self) -> tuple[str, ...]:
    """The tasks that it is scored on."""
    return self.tests or (self.task,)

  @property
  def has_sentinel(self) -> bool:
    """Whether a sentinel stands in front of the targets."""
    return self.task.endswith(microworld.SENTINEL)

  @property
  def title(self) -> str:
    """The way or the method, and what sets it apart from the usual."""
    if self.method:
      return self.method
    if self.examples:
      return f"{self.way}, {self.examples} examples in the input"
    if self.is_constant:
      return f"{self.way}, constant {self.learning_rate:g}"
    return self.way

  @property
  def pretraining(self) -> str:
    """The frozen model, and whether targets have a sentinel, in words."""
    name = self.model.replace("_", " ")
    if self.model == SHIPPED:
      name = "the model that ships"
    return name + (" + sentinel" if self.has_sentinel else "")


@dataclasses.dataclass(frozen=True)
class Pretraining:
  """A frozen model of a study, and how it is made.

  Attributes:
    name: of the model, and of its folder under `models/`.
    gin_file: of `prompt-tuning pretrain`.
    bindings: beside it; `{models}` is the folder of all models.
    parameters: how many it has.
    minutes: how long it takes on 2 cores, roughly.
  """

  name: str
  gin_file: str
  bindings: tuple[str, ...]
  parameters: int
  minutes: int


@dataclasses.dataclass(frozen=True)
class Study:
  """A question of the paper, and the trials that answer it.

  Attributes:
    name: what the user types.
    question: in a line.
    paper: what the paper found.
    trials: the rows.
    x: what the table's lines differ in: a field or property of `Trial`, or
      "parameters" of the model.
    series: what the figure's lines differ in, "" for one line.
    kind: of figure: "lines", "points" or "matrix".
    x_label: under the figure.
    metrics: the table's; the figure shows the first.
    has_mean: whether the mean over the tasks means something.
    models: the frozen models beside the one that ships.
  """

  name: str
  question: str
  paper: str
  trials: tuple[Trial, ...]
  x: str
  series: str = ""
  kind: str = "points"
  x_label: str = ""
  metrics: tuple[str, ...] = ("accuracy",)
  has_mean: bool = True
  models: tuple[Pretraining, ...] = ()


_NO_PROMPT = {"prompt_length": (0,), "initializer": ("",)}


def grid(**axes: Sequence) -> tuple[Trial, ...]:
  """A trial for every combination of the values."""
  return tuple(
    Trial(**dict(zip(axes, values, strict=True)))
    for values in itertools.product(*axes.values())
  )


def designed(**axes: Sequence) -> tuple[Trial, ...]:
  """Trials that train nothing."""
  return grid(**_NO_PROMPT, learning_rate=(0.0,), **axes)


def tuned_models(
  learning_rate: float = 3e-4, **axes: Sequence
) -> tuple[Trial, ...]:
  """Trials that train every weight and no prompt."""
  return grid(**_NO_PROMPT, learning_rate=(learning_rate,), **axes)
