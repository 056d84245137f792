"""The package as a whole: what it loads, what it exports, what ships."""

import ast
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import jaxtyping
import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import places
import pytest
import test_house

import prompt_tuning


def test_importing_the_package_loads_no_array_library():
  loaded = json.loads(
    test_house.printed_by(
      "import json, sys, prompt_tuning;"
      "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
  )
  heavy = {"flax", "gin", "jax", "numpy", "optax", "seqio", "tensorflow"}
  assert "prompt_tuning" in loaded
  assert not heavy.intersection(loaded)


def test_importing_the_package_takes_under_a_tenth_of_a_second():
  code = (
    "import time; start = time.perf_counter(); import prompt_tuning;"
    "print(time.perf_counter() - start)"
  )
  assert min(float(test_house.printed_by(code)) for _ in range(5)) < 0.1


def test_the_folder_gin_does_not_shadow_gin_config():
  assert not list((places.ROOT / "gin").rglob("*.py"))
  assert importlib.util.find_spec("gin.config") is not None


@pytest.mark.parametrize("name", prompt_tuning.EXPORTS)
def test_an_exported_name_is_its_modules(name):
  module, _, attribute = prompt_tuning.EXPORTS[name].rpartition(".")
  owner = importlib.import_module(f"prompt_tuning.{module}")
  assert getattr(prompt_tuning, name) is getattr(owner, attribute)
  assert name in dir(prompt_tuning)


def test_a_name_that_is_not_exported_is_an_attribute_error():
  with pytest.raises(AttributeError, match="no attribute 'Promt'"):
    prompt_tuning.Promt  # noqa: B018


def test_a_module_is_found_where_it_was_before_the_folders():
  old = importlib.import_module("prompt_tuning.pretrained")
  new = importlib.import_module("prompt_tuning.frozen.pretrained")
  assert old is new is prompt_tuning.pretrained
  assert new.__spec__.name == new.__name__ == "prompt_tuning.frozen.pretrained"
  data = importlib.import_module("prompt_tuning.data")
  assert data.load is importlib.import_module("prompt_tuning.data.splits").load
  with pytest.raises(ModuleNotFoundError, match="prompt_tuning.pretraned"):
    importlib.import_module("prompt_tuning.pretraned")


def test_shape_annotations_are_enforced_while_tests_run():
  losses = importlib.import_module("prompt_tuning.model.losses")
  logits, targets = np.zeros((2, 3, 5), np.float32), np.zeros((2, 4), np.int32)
  with pytest.raises(jaxtyping.TypeCheckError):
    losses.token_losses(logits, targets)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
  """What a wheel, built from a copy of the sources, puts into site-packages."""
  copy = tmp_path_factory.mktemp("wheel")
  for folder in ("prompt_tuning", "tasks", "gin"):
    shutil.copytree(
      places.ROOT / folder,
      copy / folder,
      ignore=shutil.ignore_patterns("__pycache__"),
    )
  for file in ("setup.py", "pyproject.toml", "LICENSE"):
    shutil.copy(places.ROOT / file, copy / file)
  build = "from setuptools import build_meta as b; print(b.build_wheel('.'))"
  done = subprocess.run(
    [sys.executable, "-c", build],
    cwd=copy,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  with zipfile.ZipFile(next(copy.glob("*.whl"))) as archive:
    archive.extractall(copy / "installed")
  return copy / "installed"


@pytest.fixture(scope="module")
def wheel(installed) -> list[str]:
  """The names in the wheel."""
  return [
    path.relative_to(installed).as_posix()
    for path in installed.rglob("*")
    if path.is_file()
  ]


def test_a_wheel_holds_the_package_its_assets_the_tasks_and_the_gin_files(
  wheel,
):
  patterns = {
    "prompt_tuning": ["**/*.py", "assets/**/*", "serving/web/page/*"],
    "tasks": ["**/*.py"],
    "gin": ["**/*.gin"],
  }
  expected = {
    ("" if folder == "prompt_tuning" else "prompt_tuning/")
    + path.relative_to(places.ROOT).as_posix()
    for folder, globs in patterns.items()
    for pattern in globs
    for path in (places.ROOT / folder).glob(pattern)
    if path.is_file() and "__pycache__" not in path.parts
  }
  shipped = {name for name in wheel if ".dist-info/" not in name}
  assert shipped == expected


DEMO = """
import pathlib, sys
import prompt_tuning
from prompt_tuning import cli
from prompt_tuning.cli import command_line, demo
from prompt_tuning.prompts import checkpoints
from prompt_tuning.tasks.microworld import examples
examples.SPLITS.update(train=300, validation=32, test=64)
assert pathlib.Path(prompt_tuning.__file__).is_relative_to(sys.argv[1])
(row,) = demo.demo(pathlib.Path("out"), names=["microworld_twofact"], steps=30)
assert row.prompt_tuning >= row.by_hand + 10, row
prompt = checkpoints.load_prompt(pathlib.Path("out/prompt_tuning"))
assert prompt.record["scores"]["test"]["accuracy"] == row.prompt_tuning
"""


def test_from_a_wheel_30_steps_of_the_demo_beat_hand_written_prompts(
  installed, tmp_path
):
  done = subprocess.run(
    [sys.executable, "-c", DEMO, installed],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(installed)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert "bit-identical" in done.stdout
  assert list((tmp_path / "out").rglob("prompt.npy"))


def test_a_wheel_holds_the_licence_and_the_command(wheel):
  assert any(name.endswith("/LICENSE") for name in wheel)
  assert any(name.endswith("/entry_points.txt") for name in wheel)


def declared() -> dict[str, list[Requirement]]:
  """The requirements in setup.py, by extra; "" is what always installs."""
  lists = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in ast.parse((places.ROOT / "setup.py").read_text()).body
    if isinstance(node, ast.Assign)
    and node.targets[0].id in ("RUNTIME", "EXTRAS")
  }
  by_extra = {"": lists["RUNTIME"], **lists["EXTRAS"]}
  return {
    extra: [*map(Requirement, names)] for extra, names in by_extra.items()
  }


def test_every_library_that_is_imported_is_declared():
  known = {canonicalize_name(r.name) for rs in declared().values() for r in rs}
  owners = importlib.metadata.packages_distributions()
  tests = sorted((places.ROOT / "tests").rglob("*.py"))
  own = {"prompt_tuning", "golden", *(path.stem for path in tests)}
  # Used where they are; t5x brings absl.
  peers = {"absl", "gemma", "openai", "peft", "t5", "t5x", "transformers"}
  undeclared = []
  for path in [*test_house.sources(), *tests]:
    for line, name in test_house.imported(path):
      top = name.split(".")[0]
      if top in own | peers | sys.stdlib_module_names:
        continue
      if not known & {*map(canonicalize_name, owners.get(top, [top]))}:
        undeclared.append(
          f"{path.relative_to(places.ROOT)}:{line} imports {top}"
        )
  assert not undeclared, "name it in setup.py:\n" + "\n".join(undeclared)


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-3.12.txt"])
def test_every_requirement_of_the_tests_and_the_tools_is_pinned(file):
  """Then a release of next month cannot break `make test`."""
  pins = {
    canonicalize_name(pin.name): pin.specifier
    for line in (places.ROOT / file).read_text().splitlines()
    if not line.startswith("#")
    for pin in [Requirement(line)]
  }
  assert all(re.fullmatch(r"==[\w.]+", str(pin)) for pin in pins.values())
  for extra in ("", "test", "serve", "dev"):
    for requirement in declared()[extra]:
      name = canonicalize_name(requirement.name)
      assert name in pins, f"make constraints: {name} has no pin"
      version = str(pins[name]).removeprefix("==")
      assert requirement.specifier.contains(version), f"{name} {version}"


def test_the_changelog_opens_with_this_version():
  newest = re.search(
    r"^## (\S+)", (places.ROOT / "CHANGELOG.md").read_text(), re.M
  )
  assert newest.group(1) == prompt_tuning.__version__
