"""The house: which folder may import which, and how large its rooms are."""

import ast
from collections.abc import Iterator
import graphlib
import importlib
import pathlib

from fresh import printed_by
import places
import pytest

# The folders in the order of their imports: a folder imports from the ones
# above it. `base` stands for the files of prompt_tuning/ itself.
FOLDERS = (
  "base",
  "tasks",
  "model",
  "frozen",
  "prompts",
  "data",
  "inference",
  "training",
  "serving",
  "study",
  "t5x",
  "cli",
)
RANK = {name: rank for rank, name in enumerate(FOLDERS)}

# Who may import these libraries at all, at the top or inside a function.
MAY_IMPORT = {
  "gin": {"base"},
  "seqio": {"tasks", "data", "t5x"},
  "t5x": {"t5x"},
  "tensorflow": {"tasks", "data", "t5x"},
  "tensorflow_datasets": {"tasks", "data"},
  "tensorflow_text": {"tasks", "data"},
}

MOST_FILES, MOST_LINES, LONG = 12, 350, 60


def sources() -> list[pathlib.Path]:
  """Every Python file of the package, the doors too."""
  folders = (places.ROOT / "prompt_tuning", places.ROOT / "tasks")
  return sorted(path for top in folders for path in top.rglob("*.py"))


def dotted(path: pathlib.Path) -> str:
  """The name that a file is imported by."""
  parts = path.relative_to(places.ROOT).with_suffix("").parts
  parts = parts if parts[0] == "prompt_tuning" else ("prompt_tuning", *parts)
  return ".".join(parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in sources()}


def folder(module: str) -> str:
  """The folder of a module of the package."""
  first = module.split(".")[1:2]
  return first[0] if first and first[0] in RANK else "base"


def imported(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """Every import in a file, nested ones too: its line and its dotted name."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}:{node.lineno}: a relative import"
      for alias in node.names:
        yield node.lineno, f"{node.module}.{alias.name}"


def own_imports(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """The modules of this package among a file's imports."""
  for line, name in imported(path):
    if name.split(".")[0] != "prompt_tuning":
      continue
    module = name if name in MODULES else name.rpartition(".")[0]
    if name in MODULES or module != "prompt_tuning":
      yield line, module


def test_every_folder_is_in_the_table():
  assert {folder(name) for name in MODULES} == RANK.keys()


def test_imports_go_to_the_folder_itself_or_to_one_above_it():
  offending = [
    f"{path.relative_to(places.ROOT)}:{line} imports {name}"
    for module, path in MODULES.items()
    for line, name in own_imports(path)
    if RANK[folder(name)] > RANK[folder(module)]
  ]
  assert not offending, "\n".join(offending)


def test_a_folder_is_entered_by_its_door():
  """What another folder imports is named in the `__all__` of the door."""
  offending = []
  for module, path in MODULES.items():
    for line, name in own_imports(path):
      home = folder(name)
      if home in ("base", folder(module)) or name == f"prompt_tuning.{home}":
        continue
      door = importlib.import_module(f"prompt_tuning.{home}")
      if name.split(".")[2] not in door.__all__:
        offending.append(
          f"{path.relative_to(places.ROOT)}:{line} imports {name}"
        )
  assert not offending, "\n".join(offending)


@pytest.mark.parametrize("name", FOLDERS[1:])
def test_a_door_says_what_is_behind_it(name):
  door = importlib.import_module(f"prompt_tuning.{name}")
  assert len(door.__doc__.splitlines()) >= 3
  for behind in door.__all__:
    assert hasattr(door, behind) or f"{door.__name__}.{behind}" in MODULES


def test_imports_run_in_no_circle():
  graph = {
    module: {name for _, name in own_imports(path) if name != module}
    for module, path in MODULES.items()
  }
  graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the circle


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_only_its_own_folders_import(library):
  offending = [
    f"{path.relative_to(places.ROOT)}:{line} imports {name}"
    for module, path in MODULES.items()
    if folder(module) not in MAY_IMPORT[library]
    for line, name in imported(path)
    if name.split(".")[0] == library
  ]
  assert not offending, "\n".join(offending)


def test_what_is_above_the_data_loads_no_tensorflow():
  parts = [
    name
    for name in MODULES
    if folder(name) in ("base", "model", "frozen", "prompts")
  ]
  code = (
    "import importlib, sys\n"
    "for name in sys.argv[1:]:\n"
    "  importlib.import_module(name)\n"
    "  for heavy in ('tensorflow', 'seqio', 'tensorflow_datasets'):\n"
    "    assert heavy not in sys.modules, f'{name} loads {heavy}'\n"
  )
  printed_by(code, *parts)


def test_no_folder_has_more_files_than_one_can_see():
  for path in {path.parent for path in MODULES.values()}:
    assert len(list(path.glob("*.py"))) <= MOST_FILES + 1, path  # and the door


def test_no_file_is_longer_than_one_can_read():
  lines = {
    path.relative_to(places.ROOT): len(path.read_text("utf-8").splitlines())
    for path in MODULES.values()
  }
  assert not {path: n for path, n in lines.items() if n > MOST_LINES}


def test_hardly_a_function_is_long():
  """One in a hundred may be longer than 60 lines."""
  sizes = {
    f"{module}.{node.name}": node.end_lineno - node.lineno + 1
    for module, path in MODULES.items()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef)
  }
  long = {name: size for name, size in sizes.items() if size > LONG}
  assert len(long) <= len(sizes) / 100, long


def test_tasks_are_imported_under_one_name():
  """As `tasks.x` a file would run twice and register its tasks twice."""
  offending = [
    f"{path.relative_to(places.ROOT)}:{line} imports {name}"
    for path in [*sources(), *sorted((places.ROOT / "tests").rglob("*.py"))]
    for line, name in imported(path)
    if name.split(".")[0] == "tasks"
  ]
  assert not offending, "\n".join(offending)
