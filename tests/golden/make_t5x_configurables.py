"""Makes tests/golden/t5x_configurables.json: what of t5x this project names.

    python tests/golden/make_t5x_configurables.py

Needs t5x, see docs/t5x.md. For each name that the gin files bind or the package
uses: whether it is a class or a function, and its parameters.
"""

import ast
import importlib
import inspect
import json
import pathlib
import re

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
IMPORT = re.compile(
  r"^(?:from (t5x[\w.]*) import (\w+)|import __main__ as (\w+))"
)
LAUNCHERS = {
  "train_script": "t5x.train",
  "eval_script": "t5x.eval",
  "infer_script": "t5x.infer",
}


def names_in_gin() -> set[tuple[str, str]]:
  """(module, name) of t5x in the gin files."""
  found = set()
  for path in sorted((ROOT / "gin" / "t5x").rglob("*.gin")):
    text = path.read_text(encoding="utf-8")
    modules = {}
    for line in text.splitlines():
      if match := IMPORT.match(line):
        package, module, script = match.groups()
        modules[script or module] = (
          LAUNCHERS[script] if script else f"{package}.{module}"
        )
    for short, module in modules.items():
      for name in re.findall(rf"(?<![\w.]){short}\.(\w+)", text):
        found.add((module, name))
  return found


def names_in_code() -> set[tuple[str, str]]:
  """(module, name) of t5x in the package."""
  found = set()
  for path in sorted((ROOT / "prompt_tuning" / "t5x").glob("*.py")):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {}
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom) and node.module:
        if node.module.split(".")[0] == "t5x":
          for alias in node.names:
            modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id in modules:
          found.add((modules[node.value.id], node.attr))
  return found


def described(module: str, name: str) -> dict:
  """What a name of t5x is."""
  thing = getattr(importlib.import_module(module), name)
  return {
    "kind": "class" if inspect.isclass(thing) else "function",
    "parameters": list(inspect.signature(thing).parameters),
  }


def main() -> None:
  """Writes the file."""
  found: dict = {}
  for module, name in sorted(names_in_gin() | names_in_code()):
    found.setdefault(module, {})[name] = described(module, name)
  path = HERE / "t5x_configurables.json"
  path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
