"""Prompt design: hand-written prompts on the frozen model, by rank.

The reference from below (paper, figure 1): the task is put into words instead
of vectors, and the model picks the most likely of the answers given. Examples
of the task may stand in the input in front of the question.
"""

from collections.abc import Callable, Sequence
import dataclasses
import itertools

import numpy as np

from prompt_tuning.data import scoring, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer
from prompt_tuning.model import decode
from prompt_tuning.prompts import prompted
from prompt_tuning.shapes import EOS


def accuracies(
  model: pretrained.FrozenModel,
  wordings: Sequence[Sequence[str]],
  classes: Sequence[int],
  answers: Sequence[str],
  *,
  batch_size: int = 128,
) -> list[float]:
  """Percent of right answers of each wording.

  Args:
    model: the frozen model.
    wordings: for each hand-written prompt the whole text of every example.
    classes: the right answer of every example, an index into `answers`.
    answers: the texts that are ranked by their log-probability.
    batch_size: examples of one call.
  """
  choose = chooser(model, answers, batch_size)
  rights = (choose(texts) == np.asarray(classes) for texts in wordings)
  return [100.0 * float(right.mean()) for right in rights]


def chooser(
  model: pretrained.FrozenModel, answers: Sequence[str], batch_size: int = 128
) -> Callable[[Sequence[str]], np.ndarray]:
  """A function from whole texts to the likeliest of the answers, as indices."""
  predictor = infer.Predictor(
    prompted.without_prompts(model),
    infer.Decoding(decode.Rank(tuple(answers)), batch_size=batch_size),
  )

  def choose(texts: Sequence[str]) -> np.ndarray:
    encoded = predictor.prompted.vocabulary.encode_all(list(texts))
    rows = [[*ids, EOS] for ids in encoded]
    scores = predictor.label_scores(rows, [0] * len(rows))
    return scores.argmax(axis=1)

  return choose


Wording = Callable[[str], str]
"""From an input to the whole text that the model reads."""


def wording(template: str) -> Wording:
  """The wording of a template such as `{input} Is it so?`."""
  return lambda text: template.format(input=text)


def with_examples(bare: Wording, shown: Sequence[tuple[str, str]]) -> Wording:
  """The wording with examples in front, in the same words and answered."""
  front = "".join(f"{bare(text)} {answer} " for text, answer in shown)
  return lambda text: front + bare(text)


def draw(
  examples: splits.Examples, count: int, seed: int
) -> list[tuple[str, str]]:
  """(input, target) of `count` examples, the labels in turn."""
  pairs = zip(examples.input_texts(), examples.target_texts(), strict=True)
  by_label: dict[str, list] = {}
  for pair in pairs:
    by_label.setdefault(pair[1], []).append(pair)
  rng = np.random.default_rng(seed)
  labels = list(rng.permutation(sorted(by_label)))
  return [
    by_label[label][rng.integers(len(by_label[label]))]
    for label in (labels[i % len(labels)] for i in range(count))
  ]


@dataclasses.dataclass(frozen=True)
class Designed:
  """What hand-written prompts score.

  Attributes:
    metrics: on the test split, of the wording that is best on validation.
    by_wording: the test metrics of each wording: the spread.
  """

  metrics: dict[str, float]
  by_wording: list[dict[str, float]]


def best_of(
  model: pretrained.FrozenModel,
  wordings: Sequence[Wording],
  validation: splits.Examples,
  test: splits.Examples,
  *,
  answers: Sequence[str],
  labels: Sequence[str],
) -> Designed:
  """Scores the test split with the wording that is best on validation.

  Args:
    model: the frozen model.
    wordings: the hand-written prompts.
    validation: examples to choose by.
    test: examples to report.
    answers: the texts that are ranked.
    labels: the task's label for each answer; often the same texts.
  """
  sets = list(itertools.product(wordings, (validation, test)))
  texts = [worded(text) for worded, e in sets for text in e.input_texts()]
  chosen = iter(chooser(model, answers)(texts))  # all at once: one program
  metrics = [
    scoring.metrics(
      examples, [labels[int(next(chosen))] for _ in examples.fields]
    )
    for _, examples in sets
  ]
  scores = [scoring.score(validated, None) for validated in metrics[::2]]
  tested = metrics[1::2]
  return Designed(tested[int(np.argmax(scores))], tested)
