"""The body of a request: read within limits, its fields taken one by one."""

import asyncio
from collections.abc import Collection
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from prompt_tuning import spelling
from prompt_tuning.serving.web.errors import ApiError

_BODY_SECONDS = 15.0


async def body(request: Request, most_bytes: int) -> dict[str, Any]:
  """The JSON object in a request's body.

  Raises:
    ApiError: it is too large, too slow, no JSON or no object.
    ClientDisconnect: there is nobody any more.
  """
  kind = request.headers.get("content-type", "").partition(";")[0].strip()
  if kind.lower() != "application/json":
    raise ApiError(
      415,
      f"The body must be JSON, with the header Content-Type: "
      f"application/json; got {kind[:40]!r}.",
    )
  parts, size = [], 0
  try:
    async with asyncio.timeout(_BODY_SECONDS):
      async for part in request.stream():
        size += len(part)
        if size > most_bytes:
          raise ApiError(
            413,
            f"The body is larger than {most_bytes:,} bytes (MOST_BYTES).",
            code="body_too_large",
          )
        parts.append(part)
  except TimeoutError:
    raise ApiError(
      408, f"The body did not come within {_BODY_SECONDS:.0f} seconds."
    ) from None
  try:
    read = json.loads(b"".join(parts))
  except (ValueError, RecursionError) as error:
    reason = "it is nested too deeply"
    if isinstance(error, ValueError):
      reason = str(error)[:120]
    raise ApiError(400, f"The body is no JSON: {reason}.") from None
  if not isinstance(read, dict):
    raise ApiError(
      400, f"The body must be a JSON object, got {type(read).__name__}."
    )
  return read


class Fields:
  """The fields of a body; a null is a field that is not there."""

  def __init__(self, read: dict[str, Any]):
    self._read = {k: v for k, v in read.items() if v is not None}

  def only(self, known: Collection[str]) -> None:
    """Refuses fields of other names.

    Raises:
      ApiError: there is one.
    """
    for name in self._read:
      if name not in known:
        hint = spelling.hint(name, known, f"Known are {', '.join(known)}.")
        raise ApiError(
          400,
          f"Unrecognized request argument {name[:40]!r}. {hint}",
          # Half a surrogate pair could not be sent back.
          param=name[:40].encode(errors="backslashreplace").decode(),
        )

  def refused(self, name: str, value: Any, otherwise: Any) -> None:
    """Refuses a field that is not done here, unless it asks for nothing.

    Raises:
      ApiError: it asks for something.
    """
    if self._read.get(name, otherwise) not in (otherwise, value):
      raise ApiError(
        400,
        f"{name} is not supported. Leave it out.",
        param=name,
        code="unsupported",
      )

  def text(self, name: str) -> str:
    """A text that has to be there."""
    if name not in self._read:
      raise ApiError(400, f"{name} is missing.", param=name)
    return self._text(name, self._read[name])

  def texts(
    self, name: str, *, most: int, otherwise: list[str] | None = None
  ) -> list[str]:
    """A text or a list of texts; it has to be there without `otherwise`."""
    if name not in self._read:
      if otherwise is not None:
        return otherwise
      raise ApiError(400, f"{name} is missing.", param=name)
    value = self._read[name]
    listed = value if isinstance(value, list) else [value]
    if not 0 < len(listed) <= most:
      raise ApiError(
        400,
        f"{name} must have from 1 to {most} texts, got {len(listed)}.",
        param=name,
      )
    return [self._text(name, one) for one in listed]

  def _text(self, name: str, value: Any) -> str:
    if not isinstance(value, str):
      raise ApiError(
        400, f"{name} must be text, got {_shown(value)}.", param=name
      )
    try:
      value.encode()
    except UnicodeEncodeError:
      raise ApiError(
        400, f"{name} is no Unicode: half a surrogate pair.", param=name
      ) from None
    return value

  def whole(self, name: str, otherwise: int, *, least: int, most: int) -> int:
    """A whole number."""
    value = self._read.get(name, otherwise)
    if isinstance(value, float) and value.is_integer():
      value = int(value)
    if (
      type(value) is not int or not least <= value <= most
    ):  # True is no number
      raise ApiError(
        400,
        f"{name} must be a whole number from {least} to {most}, got "
        f"{_shown(value)}.",
        param=name,
      )
    return value

  def number(
    self, name: str, otherwise: int | float, *, least: float, most: float
  ) -> float:
    """A number."""
    value = self._read.get(name, otherwise)
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not least <= value <= most:
      raise ApiError(
        400,
        f"{name} must be a number from {least:g} to {most:g}, got "
        f"{_shown(value)}.",
        param=name,
      )
    return float(value)

  def flag(self, name: str) -> bool:
    """True or false, which it is by default."""
    value = self._read.get(name, False)
    if not isinstance(value, bool):
      raise ApiError(
        400,
        f"{name} must be true or false, got {_shown(value)}.",
        param=name,
      )
    return value

  def table(self, name: str) -> "Fields":
    """An object within the object."""
    value = self._read.get(name, {})
    if not isinstance(value, dict):
      raise ApiError(
        400, f"{name} must be an object, got {_shown(value)}.", param=name
      )
    return Fields(value)

  def has(self, name: str) -> bool:
    """Whether a field is there."""
    return name in self._read


def _shown(value: Any) -> str:
  """A value in a message: short, and never an error itself."""
  if isinstance(value, dict | list):
    return f"a {'list' if isinstance(value, list) else 'table'}"
  if isinstance(value, int) and abs(value) > 10**20:
    return "a number of many digits"
  return ascii(value)[:60]


__all__ = ["ApiError", "ClientDisconnect", "Fields", "body"]
