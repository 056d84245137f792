"""gin: from files and flags to a checked configuration.

    --gin_file=…  --gin.NAME=value  --gin_search_paths=…   (t5x's flags)

Macros have t5x's names, and are checked (`gin_macros`).
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import logging
import os
import pathlib
import re
import sys
from typing import Any

import gin
from gin import config as gin_config

from prompt_tuning import gin_messages, processes, spelling, storage
from prompt_tuning.gin_macros import (
  check_flags,
  check_kinds,
  check_macros,
  defined,
  files_that_set,
  forget,
  gin_folder,
  macro,
  own_texts,
  used,
)

_IMPORT = re.compile(r"^(?:from|import) .+$", re.MULTILINE)
_INCLUDE = re.compile(r'^include\s+[\'"]([^\'"]+)[\'"]', re.MULTILINE)
_FOLDERS = re.compile(r"^\w+_DIR = (\\\n)?.*\n", re.MULTILINE)
_TEXTS = ("_DIR", "_FILE", "_NAME", "_PATH")


def configure(
  files: Sequence[str],
  bindings: Sequence[str],
  search_paths: Sequence[str],
) -> None:
  """Parses gin files and bindings into gin's configuration.

  Args:
    files: gin files, found in the search paths and in the package's gin/.
    bindings: `NAME=value` or `module.function.parameter=value`; a value that
      is no gin literal is taken as text.
    search_paths: folders to look into first.

  Raises:
    FileNotFoundError: a file is in none of the folders.
    ValueError: a macro that nothing uses or of another kind than in its file,
      or what gin refuses.
  """
  folders = [*map(pathlib.Path, search_paths), pathlib.Path(), gin_folder()]
  paths = [_find(name, folders) for name in files]
  check_methods(paths)
  bindings = [_binding(binding) for binding in bindings]
  texts = _texts(paths, folders)
  typed = "\n".join(bindings)
  check_macros(defined(texts), used([*texts, typed, *own_texts()]))
  check_flags(defined([typed]), used([*texts, typed]))
  gin.clear_config()
  for folder in reversed(folders[:-2] + [folders[-1]]):
    gin.add_config_file_search_path(str(folder))
  logging.disable(logging.ERROR)  # gin reports each folder without the file
  # A flag may refer to whatever the files have imported.
  statements = [*_imports(texts), *bindings]
  try:
    with _files_alone():
      gin.parse_config_files_and_bindings(
        [str(path) for path in paths],
        statements,
        finalize_config=False,
        print_includes_and_imports=False,
      )
  except gin_messages.REFUSED as error:
    raise gin_messages.readable(error, statements) from error
  finally:
    logging.disable(logging.NOTSET)
  check_kinds(texts)


def check_methods(paths: Iterable[pathlib.Path]) -> None:
  """Refuses two methods, of which the first would be forgotten.

  Raises:
    ValueError: with both.
  """
  names = {path.name: None for path in paths if path.parent.name == "methods"}
  if len(names) > 1:
    both = " and ".join(f"methods/{name}" for name in names)
    raise ValueError(
      f"{both} each say what trains, and a run has one method. Name one."
    )


@contextlib.contextmanager
def _files_alone() -> Iterator[None]:
  """gin finds its files in the search path's folders and nowhere else.

  It looks for `runs/x.gin` in a Python package `runs`, too, and fails if there
  is a folder that is called so where Python looks for packages.
  """
  readers = gin_config._FILE_READERS
  every = list(readers)
  readers[:] = [reader for reader in every if reader[0] is open]
  try:
    yield
  finally:
    readers[:] = every


def _find(name: str, folders: Iterable[pathlib.Path]) -> pathlib.Path:
  for folder in folders:
    if (folder / name).is_file():
      return folder / name
  have = [
    str(path.relative_to(folder))
    for folder in folders
    for path in folder.glob("*/*.gin")
  ]
  searched = "It is looked for in the folders of --gin_search_paths, in the "
  searched += f"current one and in {gin_folder()}."
  hint = spelling.hint(name, have, searched)
  raise FileNotFoundError(f"There is no gin file {name!r}. {hint}")


def _texts(paths, folders) -> list[str]:
  """The texts of files and of what they include."""
  texts, queue = [], list(paths)
  while queue:
    path = queue.pop()
    try:
      text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
      raise ValueError(
        f"{path} is no gin file: it is not UTF-8 ({error})."
      ) from error
    gin_messages.check_imports(path, text)
    texts.append(text)
    queue += [_find(name, folders) for name in _INCLUDE.findall(text)]
  return texts


def _imports(texts: Iterable[str]) -> list[str]:
  """The import lines of the files; gin's own comes first."""
  lines = {line for text in texts for line in _IMPORT.findall(text)}
  return sorted(lines, key=lambda line: ("__gin__" not in line, line))


def _binding(binding: str) -> str:
  """A binding with its value as gin reads it; bare text gets its quotes."""
  name, equals, value = binding.partition("=")
  if not equals:
    raise ValueError(
      f"--gin.{binding} has no value; write --gin.{binding}=value."
    )
  try:
    literal = ast.literal_eval(value)
  except (ValueError, SyntaxError):
    if not value.startswith(("@", "%", "[", "(", "{")):
      value = repr(value)
    elif not gin_messages.is_closed(value):
      # gin would blame the flag behind it.
      raise ValueError(f"{name} = {value}: {gin_messages.OPEN}") from None
  else:
    if isinstance(literal, int | float) and name.endswith(_TEXTS):
      value = repr(value)  # a folder may be called 7
  return f"{name} = {value}"


def call(function: Callable) -> Any:
  """Calls a function with the parameters that gin binds.

  Raises:
    ValueError: something that it needs has no value.
  """
  try:
    configured = gin.get_configurable(function)
  except ValueError as error:  # no file mentions it
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    raise ValueError(
      f"None of the gin files sets up {name}. The --help of this command has "
      "an example with one that does."
    ) from error
  try:
    return configured()
  except TypeError as error:
    text = str(error)
    macro_name = re.search(r"'macro' .* in scope '(\w+)'", text, re.DOTALL)
    missing = re.search(r"missing \d+ required .*?arguments?: (.*)", text)
    if macro_name and text.startswith("macro()"):
      raise ValueError(
        f"{macro_name[1]} has no value. Set it with "
        f"--gin.{macro_name[1]}=…{files_that_set(macro_name[1])}."
      ) from error
    if missing and "In call to configurable" in text:
      raise ValueError(
        f"Nothing sets {missing[1]} of {text.partition('(')[0]}. Add the gin "
        "file of a model, a prompt or a run that does."
      ) from error
    raise


def join_processes(command: str, *, is_possible: bool) -> None:
  """Joins the processes of a run as its macros say, if there are several.

  Args:
    command: for messages.
    is_possible: whether several processes can do it together.

  Raises:
    ValueError: a macro is wrong, the command is for one process, or they have
      other settings. Names of folders are each one's own.
  """
  names = ("COORDINATOR", "PROCESS_ID", "NUM_PROCESSES")
  given = [macro(name) for name in names]
  if not is_possible:
    if given[0] is not None:
      raise ValueError(
        f"COORDINATOR={given[0]!r} joins several processes, and {command} is "
        "done by one. Leave it out, with PROCESS_ID and NUM_PROCESSES."
      )
    return
  # Not called by gin, which would write them down: the saved configuration
  # repeats the run in one process.
  processes.join(*given)
  forget(*names)
  processes.check_same("other settings", _FOLDERS.sub("", gin.config_str()))
  if not processes.is_first():
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, until the end


def save(path: pathlib.Path, *, operative: bool) -> None:
  """Writes the configuration as a gin file that repeats the run.

  Args:
    path: the file.
    operative: write what was used, defaults included (known after the run)
      instead of what was set.
  """
  text = gin.operative_config_str() if operative else gin.config_str()
  storage.write_text(path, text)
