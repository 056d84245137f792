"""A prompt that was read, written in the format of another program.

SavedPrompt -> our folder, an adapter of PEFT, or a numpy file
"""

import logging
import os
import pathlib

import numpy as np

from prompt_tuning import storage
from prompt_tuning.prompts import adapters, checkpoints

_log = logging.getLogger(__name__)

FORMATS = ("prompt-tuning", "peft", "numpy")
"""What `convert` writes a prompt as."""


def convert(
  saved: checkpoints.SavedPrompt,
  target: str | os.PathLike,
  to: str,
  base_model: str = "",
) -> pathlib.Path:
  """Writes a prompt that was read in one of `FORMATS`.

  Args:
    saved: the prompt.
    target: a folder, or the file if `to` is numpy.
    to: the format.
    base_model: for PEFT, the folder or name of the frozen model in Hugging
      Face's format; by default what the prompt was trained for.

  Raises:
    ValueError: an unknown format, a folder in the place of a file, PEFT
      without a base model, or a prompt that stands where PEFT has none, or is
      more than rows.
  """
  if to not in FORMATS:
    raise ValueError(
      f"A prompt cannot be written as {to!r}; it can be as "
      f"{', '.join(FORMATS)}."
    )
  if to == "numpy":
    if pathlib.Path(target).is_dir():
      raise ValueError(
        f"{target} is a folder, and numpy is one file. Name it, for example "
        f"{pathlib.Path(target) / checkpoints.ARRAY}."
      )
    if said := saved.placing.record():
      _log.warning(
        "A numpy file holds rows alone, so %s does not say that it has %s.",
        *(target, said),
      )
    return _save_numpy(target, saved.plain("a numpy file"))
  if to == "prompt-tuning":
    return checkpoints.save_prompt(target, saved.whole, saved.record)
  if said := saved.placing.record():
    raise ValueError(
      f"{saved.path} has {said}, and PEFT's prompts stand in front and attend "
      "to everything, so there it would answer otherwise. Train it with "
      "PROMPT_PLACE='front' and PROMPT_ATTENTION=None for PEFT."
    )
  values = saved.plain("an adapter of PEFT for prompt tuning")
  base = base_model or (saved.record.get("model") or {}).get("source")
  if not base:
    raise ValueError(
      "An adapter of PEFT names its base model, and this prompt does not know "
      "one. Give --base_model, a folder or a name on the Hugging Face hub."
    )
  return adapters.save(target, values, base, saved.record)


def _save_numpy(path, values) -> pathlib.Path:
  def write(name):
    with open(name, "wb") as file:
      np.save(file, values, allow_pickle=False)

  return storage.write_atomically(path, write)
