"""Prompt design: hand-written prompts on the frozen model, by rank.

The reference from below (paper, figure 1): the task is put into words instead
of vectors, and the model picks the most likely of the answers given.
"""

from collections.abc import Sequence

import numpy as np

from prompt_tuning import decode, infer, pretrained, t5
from prompt_tuning.vocabulary import EOS


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
  if model.vocabulary is None:
    raise ValueError(f"The model {model.source} has no vocabulary.")
  predictor = infer.Predictor(
    t5.T5(model.config),
    model.vocabulary,
    infer.Decoding(decode.Rank(tuple(answers)), batch_size=batch_size),
    prompt_length=0,
  )
  found = []
  for texts in wordings:
    rows = [[*ids, EOS] for ids in model.vocabulary.encode_all(list(texts))]
    scores = predictor.label_scores(model.params, rows, [0] * len(rows))
    right = scores.argmax(axis=1) == np.asarray(classes)
    found.append(100.0 * float(right.mean()))
  return found
