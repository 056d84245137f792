"""A signal ends a run after the step that it is in, with a checkpoint.

    SIGINT or SIGTERM -> the step ends -> checkpoint -> `Stopped`
    a second one      -> the process ends at once

The signal of a batch system (preemption, a time limit) and Ctrl-C are the same
here. Of several processes all end after the same step, whichever got it. Only
a run in the main thread listens; elsewhere signals are its owner's.
"""

from collections.abc import Iterator
import contextlib
import os
import signal
import sys
import threading
from typing import Any

from prompt_tuning import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
  """A run that was asked to stop, and has saved where it stands.

  Attributes:
    number: of the signal.
    is_agreed: that all processes of the run stop, at this step.
  """

  def __init__(self, number: int, message: str):
    super().__init__(message)
    self.number = number
    self.is_agreed = True  # by all processes of the run


class Interrupted(KeyboardInterrupt):
  """What a signal raises inside `Requests.interruptible`."""


class Requests:
  """Listens while it is entered.

  Attributes:
    requested: the number of the signal that asked to stop; 0 before.
  """

  def __init__(self):
    self.requested = 0
    self._may_raise = False
    self._before: dict[int, Any] = {}

  def agreed(self) -> int:
    """The same for all processes of the run, each of which asks at this point.

    A signal that came to one of them stops all.
    """
    found = processes.agreed(self.requested)
    if found:  # a signal may have come meanwhile, which is for the next time
      self.requested = found
    return found

  def __enter__(self) -> "Requests":
    if threading.current_thread() is not threading.main_thread():
      return self
    # Python calls a handler between two of its own instructions, which may be
    # minutes off while XLA works. The system writes to the pipe at once.
    self._reader, self._writer = os.pipe()
    os.set_blocking(self._writer, False)
    self._before_fd = signal.set_wakeup_fd(self._writer)
    for number in SIGNALS:
      self._before[number] = signal.signal(number, self._note)
    self._watcher = threading.Thread(target=self._watch, daemon=True)
    self._watcher.start()
    return self

  def __exit__(self, *exception) -> None:
    if not self._before:
      return
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before.clear()
    signal.set_wakeup_fd(self._before_fd)
    os.close(self._writer)  # the watching thread reads the end, and ends
    self._watcher.join(timeout=5)  # once it has said what it has to say

  @contextlib.contextmanager
  def interruptible(self) -> Iterator[None]:
    """Inside, the first signal raises `Interrupted` instead of waiting.

    Raises:
      Interrupted: a signal came, inside or before.
    """
    if processes.count() > 1:  # one alone may not leave the others
      with processes.between_batches(self._raise_if_agreed):
        self._raise_if_agreed()
        yield
      return
    self._may_raise = True
    try:
      if self.requested:
        raise Interrupted
      yield
    finally:
      self._may_raise = False

  def _raise_if_agreed(self) -> None:
    if self.agreed():
      raise Interrupted

  def _note(self, number: int, frame) -> None:
    del frame
    self.requested = number
    if self._may_raise:
      self._may_raise = False
      raise Interrupted

  def _watch(self) -> None:
    seen = 0
    with open(self._reader, "rb", buffering=0) as pipe:
      while number := pipe.read(1):
        if number[0] not in SIGNALS:
          continue
        seen += 1
        if seen > 1:
          os._exit(128 + number[0])
        print(
          "\nStopping after this step, with a checkpoint. A second signal ends "
          "at once, without one.",
          file=sys.stderr,
          flush=True,
        )
