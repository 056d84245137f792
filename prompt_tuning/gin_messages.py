"""gin's messages as one line each, with the closest valid name.

    TRAIN_STEPS = @: Unexpected token.
    mine.gin, line 3: train.Tasks has no parameter 'bach_size'. Did you mean …

gin counts the lines of the flags as one text, which no user has seen; here the
flag itself stands in front.
"""

from collections.abc import Sequence
import importlib
import inspect
import io
import os
import re
import sys
import tokenize

import prompt_tuning
from prompt_tuning import spelling

REFUSED = (
  *(AttributeError, ImportError, NameError, SyntaxError, TypeError),
  *(ValueError, tokenize.TokenError),
)
"""What gin raises for a file or a flag that it cannot use."""


OPEN = "A bracket or a quote is opened and never closed."


def is_closed(value: str) -> bool:
  """Whether each bracket of a value is closed."""
  try:
    list(tokenize.generate_tokens(io.StringIO(value).readline))
  except tokenize.TokenError:
    return False
  return True


def readable(error: Exception, statements: Sequence[str]) -> ValueError:
  """gin's message as one line, with the statement or the file it is about."""
  text = str(error)
  what = re.split(r"\n| \((?:[^()]+, )?line \d", text)[0].strip()
  what = (
    _unknown_parameter(what)
    or _unknown_name(what)
    or _unknown_module(what, statements)
    or what
  )
  if isinstance(error, tokenize.TokenError):
    what = OPEN
  elif what.startswith("malformed node"):
    what = "This is no value. Put a text into quotes."
  elif what == "No module named 't5x'":
    what += ". The files in t5x/ are for t5x's launchers, see docs/t5x.md; for "
    what += "prompt-tuning there are others of the same names."
  file = re.search(r'(?:In file "|\()([^"(]+\.gin)"?, line (\d+)', text)
  line = re.search(r"(?:bindings string |\()line (\d+)", text)
  if file:
    return ValueError(f"{file[1]}, line {file[2]}: {what}")
  if line and 0 < int(line[1]) <= len(statements):
    return ValueError(f"{statements[int(line[1]) - 1]}: {what}")
  return ValueError(what)


_IMPORT = re.compile(r"(?:from (prompt_tuning[.\w]*) )?import ([.\w]+)")


def check_imports(path: str | os.PathLike, text: str) -> None:
  """Refuses an import of before the package was put into folders.

  Raises:
    ValueError: with the import to write instead.
  """
  for number, line in enumerate(text.splitlines(), 1):
    old = _IMPORT.match(line)
    home = _home(".".join(filter(None, old.groups()))) if old else None
    if home:
      folder, _, name = home.rpartition(".")
      raise ValueError(
        f"{path}, line {number}: The module {name.split()[-1]!r} is in a "
        f"folder of its own now: instead of `{line.strip()}` write `from "
        f"{folder} import {name}`."
      )


def _home(old: str) -> str | None:
  """Where a module is that was at `old`; None for one that is there still."""
  package, _, name = old.rpartition(".")
  if package == "prompt_tuning.tasks" and name.startswith("microworld_"):
    part = name.removeprefix("microworld_")
    return f"prompt_tuning.tasks.microworld.{part} as {name}"
  return prompt_tuning.home_of(name) if package == "prompt_tuning" else None


def _unknown_parameter(text: str) -> str | None:
  """A message with the closest parameter, if `text` says one is unknown."""
  unknown = re.match(
    r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", text
  )
  if unknown is None:
    return None
  name, parameter = unknown.groups()
  module, _, attribute = name.rpartition(".")
  home = prompt_tuning.home_of(module)
  if home is None:
    return None
  owner = importlib.import_module(home)
  have = list(inspect.signature(getattr(owner, attribute)).parameters)
  hint = spelling.hint(parameter, have, f"It has {', '.join(have)}.")
  return f"{name} has no parameter {parameter!r}. {hint}"


def _unknown_name(text: str) -> str | None:
  """A message with the closest name, if `text` says a module has no such."""
  unknown = re.match(
    r"Couldn't resolve selector .*<module '([\w.]+)'.* has no attribute (\w+)",
    text,
  )
  if unknown is None:
    return None
  module, name = unknown.groups()
  have = [n for n in vars(sys.modules[module]) if not n.startswith("_")]
  return f"{module} has no {name!r}. {spelling.hint(name, have)}".rstrip()


def _unknown_module(text: str, statements: Sequence[str]) -> str | None:
  """A message with the closest module, if `text` says one is unknown."""
  unknown = re.match(r"'(\w+)' was not provided by an import", text)
  if unknown is None:
    return None
  imports = ("from prompt_tuning", "import ")
  have = sorted(
    line.split()[-1] for line in statements if line.startswith(imports)
  )
  known = f"Known: {', '.join(have)}."
  hint = spelling.hint(unknown[1], have, known, alike=0.6)
  return f"There is no module {unknown[1]!r} here. {hint}"
