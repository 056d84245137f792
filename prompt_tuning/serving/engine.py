"""The engine: rows wait, decode together in slots, and leave one by one.

    waiting -> a free slot: encode -> step, step, step … -> ended
                     ^ in front of every step

One thread does all of it. In front of every step rows that wait are put into
free slots, as many as one call encodes; then all slots take one place. So a
long answer holds up nobody, and a row that ends makes room at once.
"""

import collections
from collections.abc import Sequence
import dataclasses
import itertools
import logging
import threading
import time

import numpy as np

from prompt_tuning.serving import picking
from prompt_tuning.serving.programs import Programs, draws_of
from prompt_tuning.serving.rows import Ending, Row
from prompt_tuning.shapes import EOS, PAD, power_of_two

_log = logging.getLogger(__name__)

_FAR = 256  # rows behind the first that may be encoded together with it
_LOOK = 0.1  # seconds between looks at the deadlines of rows that wait


class Full(Exception):
  """So many rows wait that no more are taken."""


class Closed(Exception):
  """The engine is being stopped, and takes no rows."""


@dataclasses.dataclass
class Counts:
  """What the engine has done.

  Attributes:
    steps: of all slots.
    rows: that were in these steps.
    encoded: inputs.
    tokens: of answers.
  """

  steps: int = 0
  rows: int = 0
  encoded: int = 0
  tokens: int = 0


class Engine:
  """Decodes rows as they come.

  Args:
    programs: compiled.
    most_waiting: how many rows may wait.

  Attributes:
    counts: what it has done.
  """

  def __init__(self, programs: Programs, most_waiting: int):
    self._programs, self._most_waiting = programs, most_waiting
    sizes = programs.sizes
    self.counts = Counts()
    self._waiting: collections.deque[Row] = collections.deque()
    self._rows: list[Row | None] = [None] * sizes.rows
    self._slots = programs.empty()
    self._changed = threading.Condition()
    self._is_closed = False
    self._looked = 0.0
    self._thread = threading.Thread(
      target=self._run, name="prompt-tuning engine", daemon=True
    )
    self._thread.start()

  # From other threads.

  def submit(self, rows: Sequence[Row]) -> None:
    """Takes the rows of a request, all or none.

    Raises:
      Full: too many wait.
      Closed: it takes no rows any more.
    """
    with self._changed:
      if self._is_closed:
        raise Closed()
      if len(self._waiting) + len(rows) > self._most_waiting:
        raise Full()
      for row in rows:
        row.width = self._programs.sizes.width(len(row.tokens))
      self._waiting.extend(rows)
      self._changed.notify()

  @property
  def is_closed(self) -> bool:
    """Whether it takes no rows any more."""
    return self._is_closed

  @property
  def running(self) -> int:
    """Rows that decode."""
    return sum(row is not None for row in self._rows)

  @property
  def waiting(self) -> int:
    """Rows that wait."""
    return len(self._waiting)

  def close(self) -> None:
    """Takes no more rows, and returns when all of them have ended."""
    with self._changed:
      self._is_closed = True
      self._changed.notify()
    self._thread.join()

  # In the engine's own thread.

  def _run(self) -> None:
    while True:
      with self._changed:
        while not (self._waiting or self.running):
          if self._is_closed:
            return
          self._changed.wait()
      try:
        self._let_go()
        self._begin()
        if self.running:
          self._step()
      except Exception:  # of one step; the next may go well
        _log.exception("A step of the engine failed.")
        if not self._fail():
          return

  def _fail(self) -> bool:
    """Ends what was decoding: nobody knows what its slots hold.

    Returns:
      Whether there are new slots. Without them it takes no rows any more, and
      what waits ends too.
    """
    for at, row in enumerate(self._rows):
      if row is not None:
        self._end(at, Ending.FAILED)
    try:
      self._slots = self._programs.empty()
    except Exception:
      _log.exception("The engine has no slots any more, and ends.")
      with self._changed:
        self._is_closed = True
        lost = [*self._waiting]
        self._waiting.clear()
      for row in lost:
        _finish(row, Ending.FAILED)
      return False
    return True

  def _let_go(self) -> None:
    """Frees the slots of rows that nobody waits for, or that are late."""
    now = time.monotonic()
    for at, row in enumerate(self._rows):
      if row is not None and (ending := _given_up(row, now)):
        self._end(at, ending)
    if now - self._looked > _LOOK:
      self._looked = now
      with self._changed:
        lost = [row for row in self._waiting if _given_up(row, now)]
        for row in lost:
          self._waiting.remove(row)
      for row in lost:
        _finish(row, _given_up(row, now) or Ending.GONE)

  def _begin(self) -> None:
    """Puts rows that wait into free slots, as many as one call encodes.

    The first row says how wide the call is; rows of its width go with it.
    """
    free = [at for at, row in enumerate(self._rows) if row is None]
    with self._changed:
      groups = self._take(len(free))
    if not groups:
      return
    places = iter(free)
    firsts, copies = [], []
    for group in groups:
      own = list(itertools.islice(places, len(group)))
      firsts.append(own[0])
      copies += [(own[0], other) for other in own[1:]]
      for at, row in zip(own, group, strict=True):
        self._rows[at] = row
        row.times.begun = time.monotonic()

    # Encode each input once; what is short of a power of two repeats the last.
    first = groups[0][0]
    tokens = np.full((power_of_two(len(groups)), first.width), PAD, np.int32)
    for i, group in enumerate(groups):
      tokens[i, : len(group[0].tokens)] = group[0].tokens
    tokens[len(groups) :] = tokens[len(groups) - 1]
    self._slots = self._programs.encode(
      self._slots, first.prompted, tokens, _filled(firsts)
    )
    self.counts.encoded += len(groups)
    self._copy(copies)

  def _take(self, free: int) -> list[list[Row]]:
    """Rows that begin now, those of equal input together."""
    if not free or not self._waiting:
      return []
    first = self._waiting[0]
    most = self._programs.sizes.together(first.width)
    taken: dict[tuple, list[Row]] = {}
    kept = []
    for _ in range(min(_FAR, len(self._waiting))):
      if not free:
        break
      row = self._waiting.popleft()
      goes = row.width == first.width and row.prompted is first.prompted
      goes = goes and (row.same_input in taken or len(taken) < most)
      if goes:
        taken.setdefault(row.same_input, []).append(row)
        free -= 1
      else:
        kept.append(row)
    self._waiting.extendleft(reversed(kept))
    return list(taken.values())

  def _copy(self, pairs: Sequence[tuple[int, int]]) -> None:
    if pairs:
      origin, to = zip(*pairs, strict=True)
      self._slots = self._programs.copy(
        self._slots, _filled(origin), _filled(to)
      )

  def _close_ranks(self) -> None:
    """Moves the last rows into free slots, if fewer slots can then step."""
    used = [at for at, row in enumerate(self._rows) if row is not None]
    size = power_of_two(len(used))
    far = [at for at in used if at >= size]
    if far:
      free = [at for at in range(size) if self._rows[at] is None]
      moves = list(zip(far, free, strict=False))
      self._copy(moves)
      for origin, to in moves:
        self._rows[to], self._rows[origin] = self._rows[origin], None

  def _step(self) -> None:
    """Every row takes its next token."""
    self._close_ranks()
    rows = [row for row in self._rows if row is not None]
    count = power_of_two(len(rows))
    here = self._rows[:count]
    last = [row.ids[-1] if row and row.ids else PAD for row in here]
    place = [row.before + len(row.ids) if row else 0 for row in here]
    given = [picking.FREE] * count
    for at, row in enumerate(here):
      if row and (token := row.next_given) is not None:
        given[at] = token
    self._slots, picked = self._programs.step(
      self._slots,
      max(row.width for row in rows),
      *(np.array(each, np.int32) for each in (last, place, given)),
      draws=_draws(here),
    )
    tokens, log_p = picked.token.tolist(), picked.log_p.tolist()
    likely, nats = map(np.asarray, (picked.likely, picked.likely_log_p))
    self.counts.steps += 1
    self.counts.rows += len(rows)
    self.counts.tokens += len(rows)
    for at, row in enumerate(here):
      if row is not None:
        # The log-probability last: who reads it finds the others there.
        if row.writing.likely:
          row.likely.append((likely[at], nats[at]))
        row.ids.append(tokens[at])
        row.log_p.append(log_p[at])
        self._written(at, row)

  def _written(self, at: int, row: Row) -> None:
    """What follows from a row's newest token."""
    row.times.first = row.times.first or time.monotonic()
    given = row.writing.given
    if given:
      ending = Ending.STOP if len(row.ids) == len(given) else None
    elif row.ids[-1] == EOS or (row.stops and row.stops(row.ids)):
      ending = Ending.STOP
    elif len(row.ids) == row.writing.most:
      ending = Ending.LENGTH
    else:
      ending = None
    if ending:
      self._end(at, ending)
    elif row.each:
      row.told(row)

  def _end(self, at: int, ending: Ending) -> None:
    row, self._rows[at] = self._rows[at], None
    assert row is not None
    _finish(row, ending)


def _finish(row: Row, ending: Ending) -> None:
  row.times.ended = time.monotonic()
  row.ending = ending
  row.told(row)


def _given_up(row: Row, now: float) -> Ending | None:
  if not row.is_wanted:
    return Ending.GONE
  return Ending.LATE if now > row.deadline else None


def _filled(places: Sequence[int]) -> np.ndarray:
  """The slots, the last one again until they are a power of two."""
  behind = power_of_two(len(places)) - len(places)
  return np.array([*places, *[places[-1]] * behind], np.int32)


def _draws(rows: Sequence[Row | None]) -> picking.Draws | None:
  """How the rows draw; None if the likeliest token is all that is asked for."""
  special = [row for row in rows if row and _draws_or_asks(row)]
  if not special:
    return None
  draws = draws_of(len(rows))
  for at, row in enumerate(rows):
    if row is not None:
      one = row.writing
      draws.temperature[at], draws.top_p[at] = one.temperature, one.top_p
      draws.seed[at], draws.place[at] = one.seed, len(row.ids)
      draws.text[at], draws.choice[at] = one.text, one.choice
  return draws


def _draws_or_asks(row: Row) -> bool:
  return row.writing.temperature > 0 or row.writing.likely
