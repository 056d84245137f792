"""Scores of prompts on their tasks: predict, postprocess, task's metrics.

Examples per prompt -> one stream of examples that names its prompts
                    -> predictions -> metrics per prompt
"""

from collections.abc import Sequence
import dataclasses

from prompt_tuning.data import registry, scoring, splits
from prompt_tuning.inference import infer
from prompt_tuning.prompts.prompted import Prompted
from prompt_tuning.shapes import PyTree, rounded
from prompt_tuning.tasks import benchmark, declarations
from prompt_tuning.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Result:
  """The evaluation of one prompt on one split.

  Attributes:
    task: the task's name.
    split: the split's name.
    metrics: the task's metrics.
    predictions: a text per example.
    answers: what was answered to each example, log-probabilities and several
      answers with it; () where the predictions were not written by a model.
  """

  task: str
  split: str
  metrics: dict[str, float]
  predictions: list[str]
  answers: Sequence[infer.Answer] = dataclasses.field(default=(), compare=False)


class Evaluator:
  """Scores a bank: each set of examples with the prompt that is its own.

  Args:
    prompted: a network with its prompts.
    sets: the examples.
    prompt_id: the place in the bank of the prompt of each set; by default set n
      is for prompt n.
    decoding: how predictions are made. `Rank` without labels takes those of
      each task, see `registry.labels`.
  """

  def __init__(
    self,
    prompted: Prompted,
    sets: Sequence[splits.Examples],
    prompt_id: Sequence[int] | None = None,
    *,
    decoding: infer.Decoding,
  ):
    self._sets = sets
    self._prompt_id = range(len(sets)) if prompt_id is None else prompt_id
    self._predictors: dict[infer.Decoding, infer.Predictor] = {}
    # Sets of like decoding and length share batches.
    self._groups: dict[tuple[infer.Decoding, int], list[int]] = {}
    for i, examples in enumerate(sets):
      chosen = with_labels(decoding, examples.task, prompted.vocabulary)
      if chosen not in self._predictors:
        self._predictors[chosen] = infer.Predictor(prompted, chosen)
      group = chosen, rounded(examples.inputs.longest)
      self._groups.setdefault(group, []).append(i)

  def __call__(
    self, params: PyTree | None = None, *, show_progress: bool = False
  ) -> list[Result]:
    """The results of all sets; of `params` while the network trains."""
    results: dict[int, Result] = {}
    for (decoding, _), indices in self._groups.items():
      rows, prompt_id = [], []
      for i in indices:
        rows += self._sets[i].input_rows()
        prompt_id += [self._prompt_id[i]] * len(self._sets[i])
      answers = iter(
        self._predictors[decoding].answers(
          rows, prompt_id, params=params, show_progress=show_progress
        )
      )
      for i in indices:
        examples = self._sets[i]
        own = [next(answers) for _ in range(len(examples))]
        texts = [answer.text for answer in own]
        results[i] = Result(
          examples.task,
          examples.split,
          scoring.metrics(examples, texts),
          texts,
          own,
        )
    return [results[i] for i in range(len(self._sets))]


def with_labels(
  decoding: infer.Decoding, task: str, vocabulary: Vocabulary
) -> infer.Decoding:
  """The decoding; `Rank` without labels gets those of the task."""
  return decoding.ranking(lambda: registry.labels(task, vocabulary))


def averages(results: Sequence[Result]) -> dict[str, float]:
  """The score of each benchmark that several results are tasks of."""
  by_benchmark: dict[str, dict[str, dict[str, float]]] = {}
  for result in results:
    name = declarations.declared(result.task).benchmark
    if name and result.metrics:
      by_benchmark.setdefault(name, {})[result.task] = result.metrics
  return {
    f"{name}, mean of {len(tasks)} tasks": benchmark.average(tasks)
    for name, tasks in by_benchmark.items()
    if len(tasks) > 1
  }


def prediction_rows(examples: splits.Examples, result: Result) -> list[dict]:
  """The lines of a predictions file: input, target and what was answered."""
  answers = result.answers or [infer.Answer(t) for t in result.predictions]
  return [
    {"input": source, "target": target, **answer.row()}
    for source, target, answer in zip(
      examples.input_texts(), examples.target_texts(), answers, strict=True
    )
  ]
