"""gin's macros, checked: gin accepts a misspelt one in silence.

    PROMPT_LENGHT = 6 -> "PROMPT_LENGHT is set, but nothing uses it. Did you …"

Every macro that is set must be one that some file uses, and of the kind that
the files give it.
"""

import ast
from collections.abc import Collection, Iterable
import pathlib
import re
from typing import Any

import gin
from gin import config as gin_config

import prompt_tuning
from prompt_tuning import spelling

USED = re.compile(r"%([A-Za-z]\w*)\b")
DEFINED = re.compile(r"^([A-Za-z]\w*)\s*=", re.MULTILINE)
_VALUE = re.compile(r"^([A-Z][A-Z0-9_]*)\s*=\s*(.+)$", re.MULTILINE)
_KINDS = {
  bool: (bool, "True or False"),
  int: (int, "a whole number"),
  float: ((int, float), "a number"),
  dict: (dict, 'lengths by name, for example {"inputs": 128, "targets": 8}'),
  tuple: ((tuple, list, str, int), "a list, for example (1, 2)"),
}
"""What a macro must be whose value in a file is of the first type."""
_TEXT = (str,), "a text in quotes"
_TEXTS = (str, tuple, list), "a text in quotes, or a list of texts"
_OF_TEXT = {
  **dict.fromkeys(
    "COMBINE DATA DEEP EVAL_OUTPUT_DIR INFER_OUTPUT_DIR INPUT_FILE LAYOUT "
    "MODEL_DIR PROMPT_FILE SELECT_BY SHARED_FROM SPLIT TARGET TASK_NAME "
    "TEACHERS TEMPLATE TEST_DATA TEXT_FILE TRAIN_SPLIT VALIDATION_DATA "
    "VALIDATION_SPLIT WAYWARD_TEXT".split(),
    _TEXT,
  ),
  **dict.fromkeys(
    "CLASS_LABELS METRIC MIXTURE_OR_TASK_NAME PROMPT_ATTENTION PROMPT_PATH "
    "PROMPT_PLACE TEST_SPLITS TRAINABLE".split(),
    _TEXTS,
  ),
  "LABELS": ((str, tuple, list, dict), "texts, or words by value"),
}
"""What a macro of texts must be; a file may have None for nothing."""
_MAY_BE_NONE = {"VALIDATION_SPLIT"}
_MEANT = {
  "PROMPT_FILE": (
    "PROMPT_PATH",
    "it is what training starts from. Set PROMPT_PATH to the prompt that is to "
    "be used.",
  ),
  "TRAIN_STEPS": (
    "STAGES",
    "it is how long a prompt trains. Pre-training has steps for each of its "
    "STAGES, which their gin file names: --gin.<stage>/pretrain.Stage.steps=N.",
  ),
}
"""What takes the place of a macro where a run has the other only, and why."""
TASK_MODULES = "MIXTURE_OR_TASK_MODULE"


def gin_folder() -> pathlib.Path:
  """Where the package's gin files are: inside a wheel, or in the checkout."""
  package = pathlib.Path(prompt_tuning.__file__).parent
  inside = package / "gin"
  return inside if inside.is_dir() else package.parent / "gin"


def macro(name: str, default: Any = None) -> Any:
  """The value of a macro, or `default` if it is not set."""
  try:
    return gin.query_parameter(f"%{name}")
  except ValueError:
    return default


def forget(*names: str) -> None:
  """Sets macros to None again."""
  for name in names:
    gin.bind_parameter(f"{name}/macro.value", None)


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
      names_in_use = f"Names in use: {', '.join(known)}."
      hint = spelling.hint(name.upper(), known, names_in_use, alike=0.6)
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
    hint = spelling.hint(name, sorted(known), alike=0.6)
    files = elsewhere[name][:3]
    meant, why = _MEANT.get(name, ("", ""))
    if meant in known:
      raise ValueError(f"{name} is set, but nothing in this run uses it: {why}")
    advice = "Leave it out, or add the file."
    if all(file.startswith("t5x/") for file in files):
      advice = "They are for t5x's launchers. Leave it out."
    raise ValueError(
      f"{name} is set, but nothing in this run uses it; {', '.join(files)} "
      f"would. {advice} {hint}".rstrip()
    )


def check_kinds(texts: Iterable[str]) -> None:
  """Compares numbers, truth values, lists and references with the files'.

  Raises:
    ValueError: text where a file has a number, for example.
  """
  may_be_none = set(_MAY_BE_NONE)
  for name, written in _VALUE.findall("\n".join(texts)):
    _check_reference(name, written)
    try:
      in_file = ast.literal_eval(written)
    except (ValueError, SyntaxError):
      continue  # it refers to something, or goes on in the next line
    if in_file is None:
      may_be_none.add(name)
    if name not in _OF_TEXT:
      _check_kind(name, macro(name), _KINDS.get(type(in_file)))
  for name, needed in _OF_TEXT.items():
    value = macro(name, default="")
    if value is not None or name not in may_be_none:
      _check_kind(name, value, needed)


def _check_kind(name: str, value: Any, needed: tuple | None) -> None:
  """Refuses the value of a macro that is of another kind.

  Raises:
    ValueError: with what it must be.
  """
  if needed is None or isinstance(value, gin_config.ConfigurableReference):
    return
  kinds, description = needed
  wrong = isinstance(value, bool) and kinds is not bool
  if needed is _TEXTS and isinstance(value, tuple | list):
    wrong = not all(isinstance(part, str) for part in value)
  if wrong or not isinstance(value, kinds):
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


def files_that_set(name: str) -> str:
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
