"""JSON that others wrote, checked as it is read: file and key in each message.

    path -> read, text -> parse
    an object -> Fields -> values of the kind and range asked for

A file may be truncated, hand-edited, or of another program; whatever it holds,
it is used as it says or refused by name.
"""

from collections.abc import Mapping
import json
import os
import pathlib
import sys
from typing import Any

MISSING: Any = object()
"""For a field that must be there."""

_LARGEST = 2**31 - 1


def read(path: str | os.PathLike) -> Any:
  """The value in a JSON file.

  Raises:
    ValueError: the file is no JSON; the message names it.
  """
  return parse(pathlib.Path(path).read_bytes(), path)


def parse(text: str | bytes, where: str | os.PathLike) -> Any:
  """The value of a text that stands in the file `where`.

  Raises:
    ValueError: the text is no JSON; the message names the file.
  """
  try:
    return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
  except (ValueError, RecursionError) as error:
    reason = error if isinstance(error, ValueError) else "nested too deeply"
    raise ValueError(
      f"{where} is not valid JSON ({reason}). It may have been truncated; "
      "restore it or remove it."
    ) from error


def parse_object(text: str | bytes, where: str | os.PathLike) -> "Fields":
  """The object of a text that stands in the file `where`.

  Raises:
    ValueError: the text is no JSON, or is something else.
  """
  return Fields(parse(text, where), where)


def read_object(path: str | os.PathLike) -> "Fields":
  """The object in a JSON file.

  Raises:
    ValueError: the file is no JSON, or holds something else.
  """
  return Fields(read(path), path)


def _kind(value: Any) -> str:
  """What JSON calls a value."""
  names = {bool: "a truth value", str: "a text", list: "a list"}
  names |= {dict: "an object", int: "a number", float: "a number"}
  return "null" if value is None else names.get(type(value), "no JSON")


class Fields(Mapping[str, Any]):
  """An object of a file; what a field holds is checked when it is asked for.

  As a mapping it gives the values unchecked. `null` counts as a missing field.

  Args:
    values: the object.
    where: the file, for messages.

  Raises:
    ValueError: `values` is no object.
  """

  def __init__(self, values: Any, where: str | os.PathLike):
    if not isinstance(values, Mapping):
      raise ValueError(f"{where} holds {_kind(values)}, not an object.")
    self._values, self.where = values, where

  def __getitem__(self, name: str) -> Any:
    return self._values[name]

  def __iter__(self):
    return iter(self._values)

  def __len__(self) -> int:
    return len(self._values)

  def refuse(self, name: str, wanted: str) -> ValueError:
    """The error for a field that holds something else than what is wanted."""
    have = json.dumps(self._values.get(name), ensure_ascii=False, default=str)
    return ValueError(
      f"{self.where} has {name}={have:.60}; it must be {wanted}."
    )

  def _value(self, name: str, default: Any) -> Any:
    value = self._values.get(name)
    if value is None and default is MISSING:
      raise ValueError(f"{self.where} has no {name!r}.")
    return default if value is None else value

  def whole(self, name: str, default: Any = MISSING, *, least: int = 1) -> Any:
    """A whole number from `least` on; the default as it is."""
    value = self._value(name, default)
    if value is default:
      return value
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not least <= value <= _LARGEST:
      raise self.refuse(name, f"a whole number of {least} or more")
    return value

  def number(
    self, name: str, default: Any = MISSING, *, above: float = 0
  ) -> Any:
    """A finite number above `above`, a float; the default as it is."""
    value = self._value(name, default)
    if value is default:
      return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not above < value <= sys.float_info.max:
      raise self.refuse(name, f"a number above {above:g}")
    return float(value)

  def text(self, name: str, default: Any = MISSING) -> Any:
    """A text; the default as it is."""
    value = self._value(name, default)
    if value is not default and not isinstance(value, str):
      raise self.refuse(name, "a text")
    return value

  def flag(self, name: str, default: Any = MISSING) -> Any:
    """True or false; the default as it is."""
    value = self._value(name, default)
    if value is not default and not isinstance(value, bool):
      raise self.refuse(name, "true or false")
    return value

  def words(self, name: str, default: Any = MISSING) -> Any:
    """A list of texts; the default as it is."""
    value = self._value(name, default)
    is_list = isinstance(value, list) and all(isinstance(x, str) for x in value)
    if value is not default and not is_list:
      raise self.refuse(name, "a list of texts")
    return value

  def table(self, name: str) -> "Fields":
    """An object inside; an empty one where there is none."""
    return Fields(self._value(name, {}), f"{self.where}, {name}")

  def texts(self, name: str) -> dict[str, str]:
    """An object inside whose values are texts.

    Raises:
      ValueError: a value is no text.
    """
    inside = self.table(name)
    return {key: inside.text(key) for key in inside}
