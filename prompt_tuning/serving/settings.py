"""What a server is started with."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax

from prompt_tuning.data import layout
from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts.checkpoints import SavedPrompt
from prompt_tuning.prompts.inner import tensors
from prompt_tuning.serving.sizes import Room, Sizes

_OF_SUITING = 4  # a call encodes a part of what suits training on a CPU
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
      those of the longest that is there at the start, 100 if none has any.
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

  def room(self, prompts: Sequence[SavedPrompt]) -> Room:
    """What a prompt may have, where these are served from the start."""
    longest = max((len(one.values) for one in prompts), default=0) or _LONGEST
    every = [one.tensors for one in prompts]
    before = max(tensors.lengths_of(every, tensors.DECODER_ROWS), default=0)
    vectors = any(tensors.has_vectors(one) for one in every)
    return Room(self.longest_prompt or longest, before, vectors)

  def sizes(self, room: Room) -> Sizes:
    """All shapes."""
    platform = jax.default_backend()
    encoded = layout.suiting(platform, self.model.config.emb_dim)
    if platform == "cpu":
      # As fast by the row (docs/benchmarks.md), and what decodes waits less.
      encoded = max(512, encoded // _OF_SUITING)
    inputs = room.mark + room.rows + self.task_feature_lengths["inputs"]
    return Sizes(
      *(self.rows, inputs, self.target_length, encoded),
      before=room.before,
      vectors=room.vectors,
    )


def _is_a(value: Any, kinds: tuple[type, ...]) -> bool:
  """Whether it is a number of these kinds; a Boolean is none."""
  return isinstance(value, kinds) and not isinstance(value, bool)
