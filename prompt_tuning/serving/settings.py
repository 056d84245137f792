"""What a server is started with."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax

from prompt_tuning.data import layout
from prompt_tuning.frozen import pretrained
from prompt_tuning.serving.sizes import Sizes

_LONGEST = 100  # positions, where no prompt says another number


@dataclasses.dataclass(frozen=True)
class Settings:
  """The model, the shapes and the limits; the macro of each behind it.

  Attributes:
    model: the frozen model (MODEL).
    task_feature_lengths: TASK_FEATURE_LENGTHS; `inputs` is how many tokens a
      text may have, EOS included.
    target_length: tokens of an answer at most (TARGET_LENGTH).
    rows: answers that are written at once (EVAL_BATCH_SIZE), a power of two.
    longest_prompt: positions of a prompt at most (LONGEST_PROMPT); None for
      those of the longest that is there at the start.
    most_waiting: answers that may wait (MOST_WAITING); others are refused.
    most_bytes: of a request's body (MOST_BYTES).
    most_seconds: of a request (MOST_SECONDS), waiting included.
    temperature: where a request says none (TEMPERATURE).
    allow_other_model: serve prompts of other weights (ALLOW_OTHER_MODEL).
  """

  model: pretrained.FrozenModel
  task_feature_lengths: Mapping[str, int]
  target_length: int = 64
  rows: int = 32
  longest_prompt: int | None = None
  most_waiting: int = 1024
  most_bytes: int = 1 << 20
  most_seconds: int | float = 60.0
  temperature: int | float = 0.0
  allow_other_model: bool = False

  def __post_init__(self):
    macros = {
      "rows": "EVAL_BATCH_SIZE",
      "target_length": "TARGET_LENGTH",
      "most_waiting": "MOST_WAITING",
      "most_bytes": "MOST_BYTES",
      "most_seconds": "MOST_SECONDS",
    }
    if self.longest_prompt is not None:
      macros["longest_prompt"] = "LONGEST_PROMPT"
    for name, macro in macros.items():
      value = getattr(self, name)
      kinds = (int, float) if name == "most_seconds" else (int,)
      if not _is_a(value, kinds) or not value > 0:
        whole = "" if float in kinds else "whole "
        raise ValueError(f"{macro}={value!r} must be a {whole}number above 0.")
    if not _is_a(self.temperature, (int, float)) or (
      not 0 <= self.temperature <= 2
    ):
      raise ValueError(
        f"TEMPERATURE={self.temperature!r} must be a number from 0 to 2; 0 is "
        "the likeliest answer."
      )

  def sizes(self, lengths: list[int]) -> tuple[int, Sizes]:
    """The positions of a prompt at most, and all shapes.

    Args:
      lengths: of the prompts that there are.
    """
    longest = self.longest_prompt or max(lengths, default=_LONGEST)
    encoded = layout.suiting(jax.default_backend(), self.model.config.emb_dim)
    inputs = longest + self.task_feature_lengths["inputs"]
    return longest, Sizes(self.rows, inputs, self.target_length, encoded)


def _is_a(value: Any, kinds: tuple[type, ...]) -> bool:
  """Whether it is a number of these kinds; a Boolean is none."""
  return isinstance(value, kinds) and not isinstance(value, bool)
