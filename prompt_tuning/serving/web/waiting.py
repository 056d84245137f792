"""Waiting for rows: the engine's thread tells, the server's loop wakes up.

engine: told(row) -> Hub -> one call into the loop for many rows -> Waiting
"""

import asyncio
import collections
from collections.abc import AsyncGenerator, Sequence
import contextlib

from starlette.requests import ClientDisconnect, Request

from prompt_tuning.serving.engine import Closed, Full
from prompt_tuning.serving.rows import Ending, Row
from prompt_tuning.serving.service import NotReady, Service
from prompt_tuning.serving.web.errors import ApiError


class Hub:
  """Wakes up what waits in a loop."""

  def __init__(self, loop: asyncio.AbstractEventLoop):
    self._loop = loop
    self._told: collections.deque[asyncio.Event] = collections.deque()
    self._is_called = False

  def tell(self, event: asyncio.Event) -> None:
    """Sets an event of the loop from another thread, soon."""
    self._told.append(event)
    if not self._is_called:
      self._is_called = True
      with contextlib.suppress(RuntimeError):  # the loop has ended
        self._loop.call_soon_threadsafe(self._wake)

  def _wake(self) -> None:
    self._is_called = False
    while self._told:
      self._told.popleft().set()


class Waiting:
  """One request's wait for its rows.

  Args:
    hub: of the loop that waits.
    count: how many rows there are.
  """

  def __init__(self, hub: Hub, count: int):
    self._hub, self._left = hub, count
    self._event = asyncio.Event()
    self._is_gone = False

  def told(self, row: Row) -> None:
    """In the engine's thread: a row has ended, or has another token."""
    self._left -= row.ending is not None
    if row.each or not self._left:
      self._hub.tell(self._event)

  async def changes(
    self, service: Service, rows: Sequence[Row], request: Request
  ) -> AsyncGenerator[None]:
    """Submits rows, and goes on each time that something was told.

    Whatever ends the wait, a client that went away among it, lets the rows go.

    Raises:
      ApiError: the rows are not taken.
      ClientDisconnect: nobody waits any more.
    """
    _submit(service, rows)
    watching = asyncio.ensure_future(self._watch(request))
    try:
      while self._left:
        await self._event.wait()
        self._event.clear()
        if self._is_gone:
          raise ClientDisconnect()
        yield
    finally:
      watching.cancel()
      for row in rows:
        row.is_wanted = False

  async def _watch(self, request: Request) -> None:
    """Waits until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
      pass
    self._is_gone = True
    self._event.set()


def _submit(service: Service, rows: Sequence[Row]) -> None:
  try:
    service.submit(rows)
  except NotReady:
    raise not_ready() from None
  except Full:
    raise ApiError(
      429,
      "Too many requests wait (MOST_WAITING). Try again.",
      code="queue_full",
      retry=1,
    ) from None
  except Closed:
    raise ApiError(
      503, "The server is being stopped.", code="stopping", retry=5
    ) from None


def not_ready() -> ApiError:
  """The error of a server that has only begun."""
  return ApiError(
    503,
    "The server is compiling its programs. Try again.",
    code="not_ready",
    retry=5,
  )


def check_ended(row: Row, most_seconds: int | float) -> None:
  """Refuses to answer with a row that was not written to its end.

  Raises:
    ApiError: why it was not.
  """
  if row.ending is Ending.LATE:
    raise ApiError(
      503,
      f"There was no answer within {most_seconds:g} seconds (MOST_SECONDS).",
      code="timeout",
      retry=1,
    )
  if row.ending is Ending.FAILED:
    raise ApiError(500, "The server failed; its log says how.", code="failed")
