"""Texts in, texts out: a frozen model with one or several saved prompts."""

from collections.abc import Sequence
import os

import numpy as np

from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer
from prompt_tuning.prompts import checkpoints, initializers, prompted
from prompt_tuning.shapes import EOS

GREEDY = infer.Decoding()


class PromptedModel:
  """One frozen model with one or several prompts, for predicting texts.

  Args:
    model: the frozen model.
    prompts: a saved prompt or the path to one, or several, of any length. One
      that is read here must have been trained for these weights.
    decoding: strategy and sizes.

  Raises:
    ValueError: a prompt does not fit the model, or was trained for another.

  Example:
    model = prompt_tuning.load_model('microworld')
    prompted = PromptedModel(model, ['runs/boolq', 'runs/rte'])
    prompted.predict(['passage: … question: …', 'hypothesis: …'], [0, 1])
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
      width = model.config.emb_dim
      initializers.check_prompt(saved.values, saved.path, width=width)
    self._predictor = infer.Predictor(
      prompted.with_prompts(model, [saved.values for saved in self.prompts]),
      decoding,
    )

  def predict(
    self, texts: Sequence[str], prompt_id: infer.Ids | int = 0
  ) -> list[str]:
    """The texts of `answers`."""
    return [answer.text for answer in self.answers(texts, prompt_id)]

  def answers(
    self, texts: Sequence[str], prompt_id: infer.Ids | int = 0
  ) -> list[infer.Answer]:
    """One answer per text, with the labels' probabilities if they are ranked.

    Args:
      texts: inputs in the form that the prompts were trained on.
      prompt_id: which of the prompts each text uses, or one for all.

    Raises:
      ValueError: a text is empty or none, or a prompt_id is not one of a
        prompt.
    """
    if isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
      raise ValueError(f"texts must be a list of texts, got {texts!r:.80}.")
    ids = self._prompt_ids(prompt_id, len(texts))
    rows = []
    for i, text in enumerate(texts):
      pieces = self._predictor.prompted.vocabulary.encode(text)
      if not pieces:
        raise ValueError(f"Text {i} is empty ({text!r}).")
      rows.append([*pieces, EOS])
    return self._predictor.answers(rows, ids) if rows else []

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
