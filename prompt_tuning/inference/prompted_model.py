"""Texts in, texts out: a frozen model with one or several saved prompts.

    texts -> ids -> 1, 2, 4 … rows of 8, 16, 32 … tokens -> answers

Whatever comes is padded to one of a few shapes, so that a service compiles a
handful of programs, or none (`PromptedModel.warm_up`).
"""

from collections.abc import Sequence
import os

import numpy as np

from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer
from prompt_tuning.prompts import checkpoints, prompted
from prompt_tuning.shapes import EOS

GREEDY = infer.Decoding()


class PromptedModel:
  """One frozen model with one or several prompts, for predicting texts.

  Args:
    model: the frozen model.
    prompts: a saved prompt or the path to one, or several, of any length. One
      that is read here must have been trained for these weights.
    decoding: strategy and sizes; there several answers and their
      log-probabilities are asked for.

  Raises:
    ValueError: a prompt does not fit the model, or was trained for another.

  Example:
    model = prompt_tuning.load_model('microworld')
    prompted = PromptedModel(model, ['runs/boolq', 'runs/rte'])
    prompted.predict(['passage: … question: …', 'hypothesis: …'], [0, 1])

    beams = Decoding(decode.Beam(4), num_decodes=3)
    for answer in PromptedModel(model, 'runs/rte', beams).answers(texts):
      print([(one.text, one.log_probability) for one in answer.several])
  """

  def __init__(
    self,
    model: pretrained.FrozenModel,
    prompts: Sequence[checkpoints.SavedPrompt | str | os.PathLike]
    | checkpoints.SavedPrompt
    | os.PathLike = (),
    decoding: infer.Decoding = GREEDY,
  ):
    if isinstance(prompts, str | os.PathLike | checkpoints.SavedPrompt):
      prompts = [prompts]
    self.prompts = [
      p
      if isinstance(p, checkpoints.SavedPrompt)
      else checkpoints.load_prompt(p, model)
      for p in prompts
    ]
    for saved in self.prompts:
      saved.check_fits(model)
    self._predictor = infer.Predictor(
      prompted.with_saved(model, self.prompts),
      decoding,
      few_shapes=True,
    )

  def warm_up(
    self, longest: int, count: int | None = None, *, answers: int = 0
  ) -> int:
    """Compiles ahead what `predict` and `answers` need, and `score` if asked.

    Afterwards no call compiles whose texts have `longest` tokens at most, end
    included, rounded up to 8, 16, 32 …, and are not more than `count`.

    Args:
      longest: tokens of a text.
      count: texts of a call; by default any number.
      answers: tokens of an answer that `score` is given, end included, rounded
        up in the same way; with 0 the programs of `score` are left out.

    Returns:
      How many programs there are, one for each shape.

    Raises:
      ValueError: a number is below 1 (`answers`: below 0).
    """
    count = self._predictor.decoding.batch_size if count is None else count
    least = {"longest": (longest, 1), "count": (count, 1)}
    for name, (value, low) in {**least, "answers": (answers, 0)}.items():
      if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}.")
    shapes = self._predictor.shapes(longest, count)
    targets = self._predictor.lengths(answers)
    for size, length in shapes:
      rows, ids = [[EOS] * length] * size, [0] * size
      self._predictor.answers(rows, ids)
      for target in targets:
        given = [[EOS] * target] * size
        self._predictor.log_probabilities(rows, ids, given)
    return len(shapes) * (1 + len(targets))

  def predict(
    self, texts: Sequence[str], prompt_id: infer.Ids | int = 0
  ) -> list[str]:
    """The texts of `answers`."""
    return [answer.text for answer in self.answers(texts, prompt_id)]

  def answers(
    self, texts: Sequence[str], prompt_id: infer.Ids | int = 0
  ) -> list[infer.Answer]:
    """What the model answers to each text.

    An answer has the labels' probabilities if they are ranked, and what the
    decoding asks for: its log-probability, several answers.

    Args:
      texts: inputs in the form that the prompts were trained on.
      prompt_id: which of the prompts each text uses, or one for all.

    Raises:
      ValueError: a text is empty or none, or a prompt_id is not one of a
        prompt.
    """
    rows, ids = self._rows(texts, prompt_id)
    return self._predictor.answers(rows, ids)

  def score(
    self,
    texts: Sequence[str],
    answers: Sequence[str],
    prompt_id: infer.Ids | int = 0,
  ) -> list[float]:
    """The log-probability of a given answer to each text, in nats.

    It is that of the answer as the vocabulary encodes it, which a model that
    wrote it need not have chosen, its end included.

    Args:
      texts: inputs in the form that the prompts were trained on.
      answers: one for each text.
      prompt_id: which of the prompts each text uses, or one for all.

    Raises:
      ValueError: as in `answers`; or there are not as many answers as texts.
    """
    _check_texts("answers", answers)
    rows, ids = self._rows(texts, prompt_id)
    if len(answers) != len(rows):
      raise ValueError(
        f"There are {len(answers)} answers to {len(rows)} texts. Give one for "
        "each text."
      )
    if not rows:
      return []
    encode = self._predictor.prompted.vocabulary.encode
    given = [[*encode(answer), EOS] for answer in answers]
    return self._predictor.log_probabilities(rows, ids, given).tolist()

  def _rows(
    self, texts: Sequence[str], prompt_id: infer.Ids | int
  ) -> tuple[list[list[int]], list[int]]:
    """The ids of each text, and its prompt's place in the bank."""
    _check_texts("texts", texts)
    ids = self._prompt_ids(prompt_id, len(texts))
    rows = []
    for i, text in enumerate(texts):
      pieces = self._predictor.prompted.vocabulary.encode(text)
      if not pieces:
        raise ValueError(f"Text {i} is empty ({text!r}).")
      rows.append([*pieces, EOS])
    return rows, ids

  def _prompt_ids(self, prompt_id: infer.Ids | int, count: int) -> list[int]:
    """A prompt's place in the bank for each of the texts."""
    ids = np.asarray(prompt_id)
    is_whole = ids.dtype.kind in "iu" or not ids.size
    if not is_whole or ids.shape not in {(), (count,)}:
      raise ValueError(
        f"prompt_id must be a whole number, or one for each of the "
        f"{count} texts; got {prompt_id!r:.80}."
      )
    ids = np.broadcast_to(ids.astype(np.int32), (count,))
    last = max(len(self.prompts), 1) - 1
    if count and not (0 <= ids.min() and ids.max() <= last):
      raise ValueError(
        f"prompt_id must be from 0 to {last}, got {ids.tolist()}."
      )
    return ids.tolist()


def _check_texts(name: str, texts: Sequence[str]) -> None:
  if isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
    raise ValueError(f"{name} must be a list of texts, got {texts!r:.80}.")
