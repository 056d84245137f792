"""Terms of the loss beside that of the examples: a pull, and teachers.

WAYWARD_TEXT -> the pull of each prompt to a text
TEACHERS     -> the answers of saved prompts, for those that train to give
"""

from collections.abc import Sequence
import pathlib

import jax
import numpy as np

from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts import (
  checkpoints,
  initializers,
  prompt,
  prompted,
  wayward,
)
from prompt_tuning.shapes import PyTree
from prompt_tuning.training import step
from prompt_tuning.training.settings import Member, Tuning


def pull_of(
  tuning: Tuning,
  members: Sequence[Member],
  sources: Sequence[initializers.Source],
  trained: PyTree,
) -> wayward.Pull | None:
  """The term that pulls each prompt to its text, if there is one.

  Raises:
    ValueError: the text does not fit, or TRAINABLE leaves the prompts out.
  """
  text = tuning.wayward_text
  if text is None:
    return None
  if not jax.tree.leaves(trained.get(prompt.NAME, {})):
    raise ValueError(
      "WAYWARD_TEXT pulls the prompt to a text, and TRAINABLE leaves the "
      "prompt as it is. Leave WAYWARD_TEXT out, or train the prompt as well."
    )
  texts = [
    wayward.filled(
      text,
      {
        "task": member.task,
        "labels": ", ".join(source.labels),
        "seed": member.seed,
      },
    )
    for member, source in zip(members, sources, strict=True)
  ]
  return wayward.pull(
    texts, sources, tuning.prompt_length, gamma=tuning.wayward_gamma
  )


def teacher_of(
  tuning: Tuning,
  members: Sequence[Member],
  model: pretrained.FrozenModel,
  pupils: prompted.Prompted,
  trained: PyTree,
) -> step.Teacher | None:
  """The teachers of the members, in the network with plain prompts.

  Raises:
    FileNotFoundError: the run has no prompt of a task.
    ValueError: one is of another length, place or model, or of no rows alone;
      or the network trains.
  """
  if tuning.teachers is None:
    return None
  if not prompt.is_all_that_trains(trained):
    raise ValueError(
      f"TRAINABLE={tuning.trainable!r} trains weights of the network, from "
      "which the answers of TEACHERS come: they would not stay what they are. "
      "Train the prompt alone, or leave TEACHERS out."
    )
  folder, rows = pathlib.Path(tuning.teachers), []
  for task, _, _, placing in members:
    path = folder / "prompts" / task
    if not checkpoints.is_prompt(path):
      path = folder  # a run of one prompt
    saved = checkpoints.load_prompt(path, model, allow_other_model=True)
    values = saved.plain("a teacher")
    own = model.stored_hash
    weights = (saved.record.get("model") or {}).get("hash") or own
    wrong = {
      "frozen weights of hash": (weights[:12], own[:12]),
      "task": (saved.record.get("task", task), task),
      "PROMPT_LENGTH": (len(values), tuning.prompt_length),
      "placing": (saved.placing, placing),
    }
    for name, (has, needs) in wrong.items():
      if has != needs:
        raise ValueError(
          f"TEACHERS={str(folder)!r}: the prompt {path} has {name}={has!r}, "
          f"and its pupil has {needs!r}. A teacher stands in its pupil's "
          "places and learns the same task; train one that agrees."
        )
    rows.append(values)
  bank = np.stack(rows)
  plain = prompt.Prompt(*bank.shape[1:], num_prompts=len(bank))
  network = pupils.network.clone(prompt=plain)
  return step.Teacher(network, bank, tuning.teacher_weight)
