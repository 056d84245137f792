"""The shapes of a server: a few numbers of rows, a few widths, nothing else."""

import dataclasses

from prompt_tuning.model import kept
from prompt_tuning.shapes import power_of_two, rounded

_NARROWEST = 32  # less saves next to nothing


@dataclasses.dataclass(frozen=True)
class Room:
  """What a prompt may have; memory and programs are laid out for it.

  Attributes:
    rows: positions in front of an input at most.
    before: rows in front of an answer at most.
    vectors: whether it may have vectors in the layers (IA3).
  """

  rows: int
  before: int = 0
  vectors: bool = False

  @property
  def mark(self) -> int:
    """Places of an input that tell prompts apart where its own do not."""
    return int(self.vectors or self.before > 0)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How many and how long.

  Attributes:
    rows: how many rows decode at once; a power of two.
    inputs: tokens of an input at most, EOS and its prompt's places included.
    targets: tokens of an answer at most, EOS included.
    encoded: places of input that one call encodes at most, unless one input
      alone has more. What is decoding waits for that call.
    before: rows of a prompt in front of an answer at most.
    vectors: whether rows have vectors of their prompts in every layer.
  """

  rows: int
  inputs: int
  targets: int
  encoded: int
  before: int = 0
  vectors: bool = False

  def __post_init__(self):
    for name in ("rows", "inputs", "targets", "encoded"):
      value = getattr(self, name)
      if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")
    if self.rows != power_of_two(self.rows):
      raise ValueError(
        f"The rows that decode at once (EVAL_BATCH_SIZE) are a power of two, "
        f"got {self.rows}; the next is {power_of_two(self.rows)}."
      )

  @property
  def widths(self) -> tuple[int, ...]:
    """The padded lengths of inputs: powers of two, and the longest."""
    longest = rounded(self.inputs)
    few = {rounded(length, few=True) for length in range(1, longest + 1)}
    return tuple(sorted({min(max(_NARROWEST, w), longest) for w in few}))

  @property
  def counts(self) -> tuple[int, ...]:
    """The numbers of rows: powers of two."""
    return tuple(1 << n for n in range(self.rows.bit_length()))

  def width(self, length: int) -> int:
    """The narrowest width that holds a length."""
    return next(width for width in self.widths if width >= length)

  def read(self, rows: int, width: int) -> int:
    """How many places of an input a step of so many rows looks at.

    They are those of the width or, where these are copied in vain, all.
    """
    longest = self.widths[-1]
    few = kept.copies_some(rows * width, self.rows * longest)
    return width if few else longest

  def together(self, width: int) -> int:
    """How many rows of a width one call encodes at most."""
    fitting = [n for n in self.counts if n * width <= self.encoded]
    return max(fitting, default=1)
