"""A process that ends ends the others, each with a sentence that says why.

    its own error   -> told to all, who look every second
    killed, no host -> the next exchange fails (CPU), or its heartbeat is
                       missing; JAX then aborts the process, after our sentence

A process that waits for the others in a computation runs no Python code, so the
looking is a thread's, and the last sentence is written by the handler of the
abort itself.
"""

from collections.abc import Callable, Iterator
import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from typing import Any

from jax._src import distributed  # the service's client has no public name

LOST = 3
"""The exit code of a process that ends because another one has."""

_PERIOD = 1.0  # seconds between two looks
_FOLDER = "prompt_tuning/ended/"
_AGAIN = (
  "The same command in all {} of them starts it again; train goes on from the "
  "last checkpoint."
)
_OF_OTHERS = re.compile(
  r"Gloo|NCCL|coordination service|heartbeat|(closed|reset) by peer", re.I
)
"""What JAX says where another process does not answer."""


class _Watch:
  """What a joined process knows of itself."""

  def __init__(self, number: int, count: int):
    self.number, self.count = number, count
    self.is_over = threading.Event()
    self._lock = threading.Lock()
    _at_abort(lambda: self.end(self.lost))
    threading.Thread(target=self._look, daemon=True).start()

  @property
  def lost(self) -> str:
    """What is said where nobody knows which process it was."""
    return (
      f"Process {self.number} of {self.count} ends: another process of this "
      f"run is lost, or cannot be reached. {_AGAIN.format(self.count)}"
    )

  def told(self) -> str:
    """What another process said as it ended; empty for nothing."""
    for key, message in client().key_value_dir_get(_FOLDER):
      which = key.rpartition("/")[2]
      if which != str(self.number):
        return (
          f"Process {self.number} of {self.count} ends with process {which}, "
          f"which said: {message}\n{_AGAIN.format(self.count)}"
        )
    return ""

  def end(self, message: str) -> None:
    """Says why, and ends the process at once."""
    if self._lock.acquire(blocking=False):  # the first to know says it
      os.write(2, f"\n{message}\n".encode())
      os._exit(LOST)
    time.sleep(60)

  def _look(self) -> None:
    while not self.is_over.wait(_PERIOD):
      try:
        message = self.told()
      except Exception:  # process 0 does not answer
        message = self.lost
      if message and not self.is_over.is_set():
        self.end(message)


_watch: _Watch | None = None
_has_told = False
_left: list[Any] = []  # what must not be destroyed while the process lasts


def _at_abort(call: Callable[[], None]) -> None:
  """Calls a function where JAX aborts the process, which it has to end."""
  handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: call())
  _left.append(handler)
  ctypes.CDLL(None).signal(signal.SIGABRT, handler)


def client() -> Any:
  """Of JAX's service: what the processes tell each other, by name."""
  return distributed.global_state.client


@contextlib.contextmanager
def explained(message: str, code: int) -> Iterator[None]:
  """Inside, a process that JAX aborts says why and ends with a code."""

  def end() -> None:
    os.write(2, f"\n{message}\n".encode())
    os._exit(code)

  _at_abort(end)
  try:
    yield
  finally:
    ctypes.CDLL(None).signal(signal.SIGABRT, None)  # the default


def start(number: int, count: int) -> None:
  """Watches the others from now on."""
  global _watch
  _watch = _Watch(number, count)


def stop() -> bool:
  """The run is over, and who ends now is not lost; whether others were."""
  global _watch
  if _watch is None:
    return False
  _watch.is_over.set()
  _watch = None
  return True


def why(error: BaseException) -> str:
  """What an error says of the other processes; empty if it is one's own."""
  if _watch is None:
    return ""
  if not _OF_OTHERS.search(str(error)):
    return ""
  try:
    for _ in range(3):  # whoever ended by an error says so at the same time
      if message := _watch.told():
        return message
      time.sleep(0.3)
  except Exception:  # process 0 does not answer
    pass
  return f"{_watch.lost} ({str(error).splitlines()[0][:200]})"


def leave(code: int) -> int:
  """Ends a process that has told the others; else the code, for the caller.

  Once they are gone JAX aborts it, which it would in the seconds that a process
  takes to come down.
  """
  if _has_told:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  return code


def tell(message: str) -> None:
  """Tells the others that this one ends, and why."""
  global _has_told
  if _watch is None:
    return
  _has_told = True
  _watch.is_over.set()
  try:
    client().key_value_set(f"{_FOLDER}{_watch.number}", message)
    if not _watch.number:  # it is process 0 that the others ask
      time.sleep(2 * _PERIOD)
  except Exception:  # they are gone
    pass
  # At the end of this process JAX would wait for the others, and abort.
  state = distributed.global_state
  _left.extend([state.client, state.service])
  state.client = state.service = None
