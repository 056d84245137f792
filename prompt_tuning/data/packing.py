"""Rows that hold several examples each, told apart by segments."""

from collections.abc import Mapping
import dataclasses

import numpy as np

from prompt_tuning.shapes import PAD, Int

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Lengths:
  """The lengths of the examples of a step, the prompt's places included."""

  inputs: Int[np.ndarray, "B"]
  targets: Int[np.ndarray, "B"]

  @classmethod
  def of(cls, batch: Batch) -> "Lengths":
    """Up to the last token that is no padding, 1 at least."""

    def length(tokens):
      return 1 + np.where(tokens != PAD, np.arange(tokens.shape[1]), 0).max(1)

    return cls(length(batch["inputs"]), length(batch["targets"]))


def first_fit(of: Lengths, width: tuple[int, int]) -> list[list[int]]:
  """Rows of examples, longest first, each into the first row with room for it.

  An example that is longer than a row has one of its own.
  """
  rows: list[list[int]] = []
  room: list[np.ndarray] = []
  for example in np.argsort(-of.inputs, kind="stable"):
    need = np.array([of.inputs[example], of.targets[example]])
    at = next((i for i, left in enumerate(room) if (left >= need).all()), None)
    if at is None:
      at = len(rows)
      rows.append([])
      room.append(np.array(width))
    rows[at].append(int(example))
    room[at] = room[at] - need
  return rows


def empty(rows: int, width: int, target_width: int) -> dict[str, np.ndarray]:
  """Rows without examples."""
  names = {
    "inputs": width,
    "input_segments": width,
    "targets": target_width,
    "target_segments": target_width,
    "prompt_id": target_width,
  }
  return {k: np.zeros((rows, wide), np.int32) for k, wide in names.items()}


def cut(batch: Batch, of: Lengths, example: int):
  """An example without padding: inputs, targets, and its prompt."""
  inputs = batch["inputs"][example, : of.inputs[example]]
  targets = batch["targets"][example, : of.targets[example]]
  return inputs, targets, batch["prompt_id"][example]


def fill(part: dict[str, np.ndarray], row: int, examples) -> None:
  """Writes examples into a row, one behind the other; segments from 1 on."""
  at = at_targets = 0
  for segment, (inputs, targets, prompt_id) in enumerate(examples, 1):
    place = slice(at, at := at + len(inputs))
    part["inputs"][row, place] = inputs
    part["input_segments"][row, place] = segment
    place = slice(at_targets, at_targets := at_targets + len(targets))
    part["targets"][row, place] = targets
    part["target_segments"][row, place] = segment
    part["prompt_id"][row, place] = prompt_id
