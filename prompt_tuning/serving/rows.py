"""A row: one input with one answer that is being written, from its request on.

    Row (tokens, how to write) -> `engine` -> ids, log-probabilities, an ending

A request has a row for each answer: several samples, or each label that is
ranked, are rows of equal tokens, which are encoded once.
"""

from collections.abc import Callable, Sequence
import dataclasses
import enum
import time

import numpy as np

from prompt_tuning.prompts.prompted import Prompted
from prompt_tuning.shapes import Int


class Ending(enum.Enum):
  """Why a row has ended."""

  STOP = "stop"  # the end of sequence, or a text to stop at
  LENGTH = "length"
  LATE = "late"
  GONE = "gone"  # nobody waits for it
  FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Writing:
  """How an answer is written.

  Attributes:
    most: tokens at most, EOS included.
    temperature: 0 for the likeliest token at each place.
    top_p: see `decode.Sample`.
    seed: of the draws.
    text: number of the input in its request, of which the draws depend.
    choice: number of the answer to that input, of which they depend, too.
    likely: whether the likeliest tokens of each place are wanted.
    given: tokens that are written whatever their probability, or ().
  """

  most: int
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int = 0
  text: int = 0
  choice: int = 0
  likely: bool = False
  given: tuple[int, ...] = ()


@dataclasses.dataclass
class Times:
  """When what happened, in seconds of `time.monotonic`; 0 for not yet."""

  asked: float = 0.0
  begun: float = 0.0
  first: float = 0.0
  ended: float = 0.0


class Row:
  """One input and its answer.

  The engine's thread writes; others read what is written, and may say that the
  row is not wanted any more.

  Args:
    prompted: the network with the prompts that the tokens name.
    tokens: the input's ids, EOS and the prompt's places included, no padding.
    writing: how the answer is written.
    told: is called in the engine's thread when the row has ended, and after
      every token if `each`.
    before: how many rows its prompt has in front of the answer.
    each: see `told`.
    stops: whether the answer ends behind the ids so far.
    deadline: of `time.monotonic`.

  Attributes:
    ids: the answer so far, EOS included.
    log_p: of each id, in nats.
    likely: the likeliest ids at each place and their log-probabilities.
    ending: why it has ended; None while it has not.
    times: when it was asked for, begun, and so on.
    is_wanted: to be set to False by whoever asked.
  """

  def __init__(
    self,
    prompted: Prompted,
    tokens: Int[np.ndarray, "T"],
    writing: Writing,
    *,
    told: Callable[["Row"], None],
    before: int = 0,
    each: bool = False,
    stops: Callable[[Sequence[int]], bool] | None = None,
    deadline: float = float("inf"),
  ):
    self.prompted, self.tokens, self.writing = prompted, tokens, writing
    self.told, self.each, self.stops = told, each, stops
    self.before, self.deadline = before, deadline
    self.ids: list[int] = []
    self.log_p: list[float] = []
    self.likely: list[tuple[np.ndarray, np.ndarray]] = []
    self.ending: Ending | None = None
    self.times = Times(asked=time.monotonic())
    self.is_wanted = True
    self.width = 0  # padded length of the input; the engine sets it

  @property
  def read(self) -> int:
    """Tokens of the input, the prompt's places among them, but no mark."""
    return len(self.tokens) - int(self.tokens[0] < 0)

  @property
  def next_given(self) -> int | None:
    """The token that has to stand next; None where it is free."""
    given, at = self.writing.given, len(self.ids)
    return given[at] if at < len(given) else None

  @property
  def same_input(self) -> tuple[int, bytes]:
    """Equal for rows that are encoded alike."""
    return id(self.prompted), self.tokens.tobytes()
