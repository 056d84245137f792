"""gin: from files and flags to a checked configuration.

    --gin_file=…  --gin.NAME=value  --gin_search_paths=…   (t5x's flags)

gin accepts a misspelt macro in silence; here every macro that is set must be
one that some file uses. Macros have t5x's names.
"""

import ast
from collections.abc import Callable, Iterable, Sequence
import difflib
import importlib
import inspect
import logging
import pathlib
import re
import sys
from typing import Any

import gin

import prompt_tuning
from prompt_tuning import storage

_USED = re.compile(r"%([A-Z][A-Z0-9_]*)\b")
_DEFINED = re.compile(r"^([A-Z][A-Z0-9_]*)\s*=", re.MULTILINE)
_IMPORT = re.compile(r"^(?:from|import) .+$", re.MULTILINE)
_INCLUDE = re.compile(r'^include\s+[\'"]([^\'"]+)[\'"]', re.MULTILINE)
TASK_MODULES = "MIXTURE_OR_TASK_MODULE"


def gin_folder() -> pathlib.Path:
  """Where the package's gin files are: inside a wheel, or in the checkout."""
  package = pathlib.Path(prompt_tuning.__file__).parent
  inside = package / "gin"
  return inside if inside.is_dir() else package.parent / "gin"


def configure(
  files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str]
) -> None:
  """Parses gin files and bindings into gin's configuration.

  Args:
    files: gin files, found in the search paths and in the package's gin/.
    bindings: `NAME=value` or `module.function.parameter=value`; a value that
      is no gin literal is taken as text.
    search_paths: folders to look into first.

  Raises:
    FileNotFoundError: a file is in none of the folders.
    ValueError: a macro that nothing uses, or what gin refuses.
  """
  folders = [*map(pathlib.Path, search_paths), pathlib.Path(), gin_folder()]
  paths = [_find(name, folders) for name in files]
  bindings = [_binding(binding) for binding in bindings]
  texts = _texts(paths, folders)
  check_macros(_defined([*texts, "\n".join(bindings)]), _known(texts))
  gin.clear_config()
  for folder in reversed(folders[:-2] + [folders[-1]]):
    gin.add_config_file_search_path(str(folder))
  logging.disable(logging.ERROR)  # gin reports each folder without the file
  try:
    gin.parse_config_files_and_bindings(
      [str(path) for path in paths],
      # A flag may refer to whatever the files have imported.
      [*_imports(texts), *bindings],
      finalize_config=False,
      print_includes_and_imports=False,
    )
  except (SyntaxError, TypeError, NameError) as error:
    raise ValueError(str(error)) from error
  except ValueError as error:
    raise _with_parameters(error) from error
  finally:
    logging.disable(logging.NOTSET)
  _import_tasks()


def _find(name: str, folders: Iterable[pathlib.Path]) -> pathlib.Path:
  for folder in folders:
    if (folder / name).is_file():
      return folder / name
  have = [
    str(path.relative_to(folder))
    for folder in folders
    for path in folder.glob("*/*.gin")
  ]
  close = difflib.get_close_matches(name, have, 1, 0.5)
  hint = f" Did you mean {close[0]}?" if close else ""
  raise FileNotFoundError(f"There is no gin file {name!r}.{hint}")


def _texts(paths, folders) -> list[str]:
  """The texts of files and of what they include."""
  texts, queue = [], list(paths)
  while queue:
    text = queue.pop().read_text(encoding="utf-8")
    texts.append(text)
    queue += [_find(name, folders) for name in _INCLUDE.findall(text)]
  return texts


def _imports(texts: Iterable[str]) -> list[str]:
  """The import lines of the files; gin's own comes first."""
  lines = {line for text in texts for line in _IMPORT.findall(text)}
  return sorted(lines, key=lambda line: ("__gin__" not in line, line))


def _defined(texts: Iterable[str]) -> list[str]:
  return [name for text in texts for name in _DEFINED.findall(text)]


def _known(texts: Iterable[str]) -> set[str]:
  """Every macro that these files or the package's own files use."""
  own = [
    path.read_text(encoding="utf-8") for path in gin_folder().rglob("*.gin")
  ]
  return {name for text in [*texts, *own] for name in _USED.findall(text)} | {
    TASK_MODULES
  }


def check_macros(defined: Iterable[str], known: Iterable[str]) -> None:
  """Refuses a macro that nothing uses.

  Raises:
    ValueError: with the closest name that is used.
  """
  known = sorted(known)
  for name in defined:
    if name not in known:
      close = difflib.get_close_matches(name, known, 1, 0.6)
      hint = (
        f"Did you mean {close[0]}?"
        if close
        else f"Names in use: {', '.join(known)}."
      )
      raise ValueError(f"{name} is set, but nothing uses it. {hint}")


def _binding(binding: str) -> str:
  """A binding with its value as gin reads it; bare text gets its quotes."""
  name, equals, value = binding.partition("=")
  if not equals:
    raise ValueError(
      f"--gin.{binding} has no value; write --gin.{binding}=value."
    )
  try:
    ast.literal_eval(value)
  except (ValueError, SyntaxError):
    if not value.startswith(("@", "%", "[", "(", "{")):
      value = repr(value)
  return f"{name} = {value}"


def _with_parameters(error: ValueError) -> ValueError:
  """Adds the closest parameter to gin's message of an unknown one."""
  text = str(error)
  found = re.match(
    r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", text
  )
  if found is None:
    return error
  name, parameter = found.groups()
  module, _, attribute = name.rpartition(".")
  try:
    owner = importlib.import_module(f"prompt_tuning.{module}")
  except ModuleNotFoundError:
    return error
  have = list(inspect.signature(getattr(owner, attribute)).parameters)
  close = difflib.get_close_matches(parameter, have, 1, 0.5)
  hint = f"Did you mean {close[0]}?" if close else f"It has {', '.join(have)}."
  return ValueError(f"{name} has no parameter {parameter!r}. {hint}")


def _import_tasks() -> None:
  """Imports the modules that register the tasks."""
  named = macro(TASK_MODULES)
  if named is None:
    return
  if str(pathlib.Path()) not in sys.path and "" not in sys.path:
    sys.path.insert(0, "")  # a module in the current folder, as python -m
  modules = named.split(",") if isinstance(named, str) else named
  for module in modules:
    try:
      importlib.import_module(module.strip())
    except ModuleNotFoundError as error:
      raise ValueError(
        f"{TASK_MODULES}={module!r} cannot be imported ({error}). Run the "
        "command from the folder of the module, or put it on PYTHONPATH."
      ) from error


def macro(name: str, default: Any = None) -> Any:
  """The value of a macro, or `default` if it is not set."""
  try:
    return gin.query_parameter(f"%{name}")
  except ValueError:
    return default


def call(function: Callable) -> Any:
  """Calls a function with the parameters that gin binds.

  Raises:
    ValueError: something that it needs has no value.
  """
  try:
    return gin.get_configurable(function)()
  except TypeError as error:
    text = str(error)
    macro_name = re.search(r"'macro' .* in scope '(\w+)'", text, re.DOTALL)
    missing = re.search(r"missing \d+ required .*?arguments?: (.*)", text)
    if macro_name and text.startswith("macro()"):
      raise ValueError(
        f"{macro_name[1]} has no value. Set it with "
        f"--gin.{macro_name[1]}=…, or add a gin file that sets it."
      ) from error
    if missing and "In call to configurable" in text:
      raise ValueError(
        f"Nothing sets {missing[1]} of {text.partition('(')[0]}. Add the gin "
        "file of a model, a prompt or a run that does."
      ) from error
    raise


def save(path: pathlib.Path, *, operative: bool) -> None:
  """Writes the configuration as a gin file that repeats the run.

  Args:
    path: the file.
    operative: write what was used, defaults included (known after the run)
      instead of what was set.
  """
  text = gin.operative_config_str() if operative else gin.config_str()
  storage.write_text(path, text)
