"""The demo in fewer steps, and what the model that ships can do."""

import contextlib
import io
import json

import pytest
import small_microworld

from prompt_tuning.cli import demo
from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts import checkpoints
from prompt_tuning.tasks.microworld import examples

SHIPPED_SPLITS = dict(examples.SPLITS)


@pytest.fixture(scope="module", autouse=True)
def fewer_examples():
  with small_microworld.splits({"train": 300, "validation": 32, "test": 64}):
    yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
  """A demo of two steps: its folder, its rows and what it printed."""
  folder = tmp_path_factory.mktemp("demo")
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    rows = demo.demo(folder, steps=2)
  return folder, rows, printed.getvalue()


def test_the_model_ships_in_less_than_8_megabytes():
  folder = pretrained.shipped_folder()
  assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
  assert 1e6 < pretrained.load(pretrained.SHIPPED).num_parameters < 4e6


@pytest.mark.slow
def test_in_600_steps_every_task_reaches_85_percent(tmp_path):
  with small_microworld.splits(SHIPPED_SPLITS):
    rows = demo.demo(tmp_path, steps=600)
  for row in rows:
    assert row.prompt_tuning >= row.by_hand + 10
    assert row.prompt_tuning >= 85


def test_the_frozen_weights_are_shown_to_be_unchanged(ran):
  assert "bit-identical" in ran[2] and "CHANGED" not in ran[2]


def test_every_task_leaves_a_prompt_of_kilobytes(ran):
  folder, rows, _ = ran
  model = pretrained.load(pretrained.SHIPPED)
  for row in rows:
    path = folder / "prompt_tuning" / "prompts" / row.task
    saved = checkpoints.load_prompt(path, model)
    assert saved.values.shape == (20, model.config.emb_dim)
    scores = saved.record["scores"]["test"]
    assert scores["accuracy"] == row.prompt_tuning
    assert (path / "prompt.npy").stat().st_size < 12_000


def test_the_demo_shows_a_mixed_batch_words_and_what_to_try_next(ran):
  folder, rows, printed = ran
  for row in rows:
    assert printed.count(f"[{row.task}]") == 2
  assert "Nearest words of the prompt" in printed
  assert printed.count("\n  prompt-tuning ") == 3
  scores = json.loads((folder / "scores.json").read_text())
  assert [score["task"] for score in scores] == [row.task for row in rows]
  for name in ("scores.png", "prompt_tuning/curves.png"):
    assert (folder / name).stat().st_size > 5_000


def test_results_that_ship_are_of_the_model_that_ships():
  results = demo.shipped_results()
  model = pretrained.load(pretrained.SHIPPED)
  assert results["model"] == model.stored_hash
  assert results["steps"] >= demo.STEPS
  assert set(demo.TASKS) <= set(results["tasks"])
