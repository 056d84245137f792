"""What is skipped says why, and what stands in for it always runs."""

import ast
import re

import places
import pytest

TREES = {
  path: ast.parse(path.read_text("utf-8"))
  for path in sorted(places.ROOT.glob("tests/**/*.py"))
}
MARKS = ("skip", "skipif", "importorskip", "xfail")
GIVEN_ON = {"disks.py": ("disk",), "t5x_peer.py": ("marks", "needed")}
"""Functions that skip, and are told by their callers what stands in."""


def defined(tree):
  return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]


LEAVES_OUT = re.compile(r"skip|xfail|mark\.(slow|torch|t5x)|t5x_peer\.|needs_")


def always_runs(test: ast.FunctionDef) -> bool:
  """Whether no mark on a test, and nothing in it, can leave it out.

  Of a parametrised one some cases may be.
  """
  marks = [ast.unparse(mark) for mark in test.decorator_list]
  marks = [mark for mark in marks if "parametrize" not in mark]
  return not LEAVES_OUT.search(" ".join([*marks, *map(ast.unparse, test.body)]))


def is_whole(tree: ast.Module) -> bool:
  """Whether no mark on a file can leave its tests out."""
  marks = [
    ast.unparse(node.value)
    for node in tree.body
    if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node)
  ]
  return not LEAVES_OUT.search(" ".join(marks))


TESTS = {
  test.name: always_runs(test) and is_whole(tree)
  for tree in TREES.values()
  for test in defined(tree)
  if test.name.startswith("test_")
} | {path.stem: is_whole(tree) for path, tree in TREES.items()}
"""Tests and files of tests by name: whether they always run."""


def said(tree, node) -> str:
  """The texts in an expression, and in what its names are set to."""
  names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
  parts = [node]
  for other in ast.walk(tree):
    if isinstance(other, ast.Assign | ast.AugAssign) and other.value:
      targets = getattr(other, "targets", None) or [other.target]
      if names & {t.id for t in targets if isinstance(t, ast.Name)}:
        parts.append(other.value)
  return "".join(
    leaf.value
    for part in parts
    for leaf in ast.walk(part)
    if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
  )


def skips():
  """Every call that leaves a test out: where it stands, and its reason."""
  given_on = [name for names in GIVEN_ON.values() for name in names]
  for path, tree in TREES.items():
    for node in ast.walk(tree):
      if not isinstance(node, ast.Call):
        continue
      name = getattr(node.func, "attr", "")
      if name not in MARKS and name not in given_on:
        continue
      if path.name in GIVEN_ON:
        continue  # whose callers are looked at
      named = {k.arg: k.value for k in node.keywords}
      own = named.get("reason") or (node.args[-1] if node.args else None)
      if name in ("skipif", "importorskip"):
        own = named.get("reason")
      where = f"{path.relative_to(places.ROOT)}:{node.lineno}"
      yield pytest.param(own and said(tree, own), id=where)


SKIPS = [*skips()]


def test_the_skips_are_found():
  assert len(SKIPS) > 25


@pytest.mark.parametrize("reason", SKIPS)
def test_a_skip_has_a_reason_and_names_what_stands_in_and_always_runs(reason):
  assert reason, "why?"
  named = re.findall(r"\btest_\w+", reason)
  assert named, f"which test stands in? {reason}"
  for name in named:
    fits = [runs for test, runs in TESTS.items() if test.startswith(name)]
    assert fits and any(fits), f"{name} is left out too, or is not there"


@pytest.mark.parametrize("reason", SKIPS)
def test_a_golden_record_is_there_with_the_script_that_made_it(reason):
  for name in re.findall(r"golden/(\w+)", reason):
    assert [*places.GOLDEN.glob(f"{name}*")], name
    scripts = [p for p in TREES if p.parent == places.GOLDEN]
    assert any(name in path.read_text("utf-8") for path in scripts), name
