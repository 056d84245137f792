"""What is skipped says why, and what stands in for it exists."""

import ast
import re

import places
import pytest

FILES = sorted(places.ROOT.glob("tests/**/*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}
TESTS = {
  node.name
  for tree in TREES.values()
  for node in ast.walk(tree)
  if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
} | {path.stem for path in FILES}


def skips():
  """Every call that skips a test, or expects it to fail: file and node."""
  for path, tree in TREES.items():
    for node in ast.walk(tree):
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in ("skip", "skipif", "importorskip", "xfail"):
          yield path, node


def test_every_skip_has_its_reason():
  for path, node in skips():
    named = {keyword.arg for keyword in node.keywords} & {"reason"}
    said = node.func.attr == "skip" and node.args
    assert named or said, f"{path}:{node.lineno}"


def texts_of_skips():
  """The texts that say what stands in, with their files."""
  for path, tree in TREES.items():
    for node in ast.walk(tree):
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if re.search(r"stands? in|beside this checkout", node.value):
          yield path, node


def test_what_stands_in_exists():
  found = 0
  for path, node in texts_of_skips():
    where = f"{path}:{node.lineno}"
    for name in re.findall(r"\btest_\w+", node.value):
      found += 1
      assert any(test.startswith(name) for test in TESTS), f"{where}: {name}"
    for name in re.findall(r"golden/(\w+)", node.value):
      found += 1
      assert any(places.GOLDEN.glob(f"{name}*")), f"{where}: {name}"
  assert found > 15


@pytest.mark.parametrize("name", ["t5x_runs", "t5x_network"])
def test_the_records_of_t5x_are_read_by_a_test_that_needs_no_t5x(name):
  text = (places.ROOT / f"tests/t5x_engine/test_{name}.py").read_text("utf-8")
  assert name in text and "t5x_peer.marks" not in text
