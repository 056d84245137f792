"""gin: from files and flags to a checked configuration.

    --gin_file=…  --gin.NAME=value  --gin_search_paths=…   (t5x's flags)

gin accepts a misspelt macro in silence; here every macro that is set must be
one that some file uses, and of the kind that the files give it. Macros have
t5x's names.
"""

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
import contextlib
import difflib
import importlib
import logging
import pathlib
import re
import sys
from typing import Any

import gin
from gin import config as gin_config

import prompt_tuning
from prompt_tuning import gin_messages, storage

USED = re.compile(r"%([A-Za-z]\w*)\b")
DEFINED = re.compile(r"^([A-Za-z]\w*)\s*=", re.MULTILINE)
_VALUE = re.compile(r"^([A-Z][A-Z0-9_]*)\s*=\s*(.+)$", re.MULTILINE)
_IMPORT = re.compile(r"^(?:from|import) .+$", re.MULTILINE)
_INCLUDE = re.compile(r'^include\s+[\'"]([^\'"]+)[\'"]', re.MULTILINE)
_KINDS = {
  bool: (bool, "True or False"),
  int: (int, "a whole number"),
  float: ((int, float), "a number"),
  dict: (dict, 'lengths by name, for example {"inputs": 128, "targets": 8}'),
  tuple: ((tuple, list, str, int), "a list, for example (1, 2)"),
}
"""What a macro must be whose value in a file is of the first type."""
_TEXTS = ("_DIR", "_FILE", "_NAME", "_PATH")
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
    ValueError: a macro that nothing uses or of another kind than in its file,
      or what gin refuses.
  """
  folders = [*map(pathlib.Path, search_paths), pathlib.Path(), gin_folder()]
  paths = [_find(name, folders) for name in files]
  bindings = [_binding(binding) for binding in bindings]
  texts = _texts(paths, folders)
  given = "\n".join(bindings)
  check_macros(defined(texts), used([*texts, given, *own_texts()]))
  check_flags(defined([given]), used([*texts, given]))
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
  _check_kinds(texts)
  named = macro(TASK_MODULES)
  if named is not None:
    import_tasks(named, TASK_MODULES)


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
  close = difflib.get_close_matches(name, have, 1, 0.5)
  hint = (
    f"Did you mean {close[0]}?"
    if close
    else "It is looked for in the folders of --gin_search_paths, in the "
    f"current one and in {gin_folder()}."
  )
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


def defined(texts: Iterable[str]) -> list[str]:
  """The macros that texts of gin give a value."""
  return [name for text in texts for name in DEFINED.findall(text)]


def used(texts: Iterable[str]) -> set[str]:
  """The macros that texts of gin refer to, and the one that is used always."""
  return {TASK_MODULES, *(n for text in texts for n in USED.findall(text))}


def own_texts() -> list[str]:
  """The package's gin files."""
  return [
    path.read_text(encoding="utf-8")
    for path in sorted(gin_folder().rglob("*.gin"))
  ]


def check_macros(names: Iterable[str], known: Iterable[str]) -> None:
  """Refuses a macro that nothing uses.

  Raises:
    ValueError: with the closest name that is used.
  """
  known = sorted(known)
  for name in names:
    if name not in known:
      close = difflib.get_close_matches(name.upper(), known, 1, 0.6)
      hint = (
        f"Did you mean {close[0]}?"
        if close
        else f"Names in use: {', '.join(known)}."
      )
      raise ValueError(f"{name} is set, but nothing uses it. {hint}")


def check_flags(names: Iterable[str], known: Collection[str]) -> None:
  """Refuses a macro of the command line that the run's own files do not use.

  A file may set what another run uses: one file can serve several runs.

  Raises:
    ValueError: with the files that would use it, or the closest name.
  """
  unused = [name for name in names if name not in known]
  elsewhere = {name: _files_that(USED, name) for name in unused}
  check_macros((name for name in unused if not elsewhere[name]), known)
  for name in unused:
    close = difflib.get_close_matches(name, sorted(known), 1, 0.6)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(
      f"{name} is set, but nothing in this run uses it; "
      f"{', '.join(elsewhere[name][:3])} would. Leave it out, or add the file."
      f"{hint}"
    )


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


def _check_kinds(texts: Iterable[str]) -> None:
  """Compares numbers, truth values, lists and references with the files'.

  Raises:
    ValueError: text where a file has a number, for example.
  """
  for name, written in _VALUE.findall("\n".join(texts)):
    _check_reference(name, written)
    try:
      needed = _KINDS.get(type(ast.literal_eval(written)))
    except (ValueError, SyntaxError):
      continue  # it refers to something, or goes on in the next line
    value = macro(name)
    if needed is None or isinstance(value, gin_config.ConfigurableReference):
      continue
    kinds, description = needed
    wrong_truth = isinstance(value, bool) and kinds is not bool
    if wrong_truth or not isinstance(value, kinds):
      raise ValueError(f"{name}={value!r} must be {description}.")


def _check_reference(name: str, written: str) -> None:
  """Refuses a text, or what is not called, where a file calls something."""
  if not re.match(r"@[\w./]+\(\)", written):
    return
  value = macro(name)
  is_called = getattr(value, "evaluate", True)  # of gin's references
  if isinstance(value, str | int | float) or not is_called:
    text = str(value).removeprefix("@").removesuffix("()")
    example = f"@{text}()" if not is_called else written.partition(" ")[0]
    raise ValueError(
      f"{name}={str(value)!r} must be a call, in quotes for the shell: "
      f"'--gin.{name}={example}'."
    )


def import_tasks(named: str | Sequence[str], setting: str) -> None:
  """Imports the modules that register a user's tasks.

  Args:
    named: their names, with commas between them, or a list.
    setting: what the user calls them, for the message.

  Raises:
    ValueError: there is no such module.
  """
  if str(pathlib.Path()) not in sys.path and "" not in sys.path:
    sys.path.insert(0, "")  # a module in the current folder, as python -m
  modules = named.split(",") if isinstance(named, str) else named
  for module in modules:
    try:
      importlib.import_module(module.strip())
    except ModuleNotFoundError as error:
      raise ValueError(
        f"{setting}={module!r} cannot be imported ({error}). Run the "
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
        f"--gin.{macro_name[1]}=…{_files_that_set(macro_name[1])}."
      ) from error
    if missing and "In call to configurable" in text:
      raise ValueError(
        f"Nothing sets {missing[1]} of {text.partition('(')[0]}. Add the gin "
        "file of a model, a prompt or a run that does."
      ) from error
    raise


def _files_that_set(name: str) -> str:
  """Models and prompts of the package that give a macro its value."""
  have = [
    file
    for file in _files_that(DEFINED, name)
    if file.startswith(("models/", "prompts/"))
  ]
  return f", or add a gin file that does, such as {have[0]}" if have else ""


def _files_that(pattern: re.Pattern, name: str) -> list[str]:
  """The package's gin files that use or set a macro; t5x's come last."""
  files = [
    str(path.relative_to(gin_folder()))
    for path in gin_folder().rglob("*.gin")
    if name in pattern.findall(path.read_text(encoding="utf-8"))
  ]
  return sorted(files, key=lambda file: (file.startswith("t5x/"), file))


def save(path: pathlib.Path, *, operative: bool) -> None:
  """Writes the configuration as a gin file that repeats the run.

  Args:
    path: the file.
    operative: write what was used, defaults included (known after the run)
      instead of what was set.
  """
  text = gin.operative_config_str() if operative else gin.config_str()
  storage.write_text(path, text)
