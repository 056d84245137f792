"""Means and spreads of a study's rows, worked out by hand."""

import dataclasses
import json
import math

import pytest

from prompt_tuning import storage
from prompt_tuning.study import report, results, studies
from prompt_tuning.study.trials import DESIGN, Study, Trial, grid

EXAMPLE = Study("example", "?", "!", (), x="prompt_length", kind="lines")


def row(task, seed, accuracy, length=20, **more):
  trial = Trial(task, seed=seed, prompt_length=length)
  return {
    "run": dataclasses.asdict(trial),
    "scores": {task: {"accuracy": accuracy}},
    "parameters": 10,
    "seconds": 6.0,
    "machine": "2 cores of paper",
    "model_hash": "0" * 64,
    "versions": {"jax": "1"},
    **more,
  }


def test_the_mean_over_tasks_comes_before_the_spread_over_seeds():
  rows = [
    row("microworld_a", 0, 80.0),
    row("microworld_b", 0, 60.0),  # seed 0: 70
    row("microworld_a", 1, 84.0),
    row("microworld_b", 1, 64.0),  # seed 1: 74
    row("microworld_a", 2, 82.0),
    row("microworld_b", 2, 74.0),  # seed 2: 78
  ]
  (cells,) = results.lines(EXAMPLE, rows, "accuracy").values()
  assert cells["a"] == results.Cell(82.0, 2.0)
  assert cells["b"].mean == 66.0
  # sqrt(((60 - 66)^2 + (64 - 66)^2 + (74 - 66)^2) / 2) = sqrt(52)
  assert cells["b"].spread == pytest.approx(math.sqrt(52))
  assert cells["mean"] == results.Cell(74.0, 4.0)
  assert str(cells["mean"]) == "74.0 ± 4.0"


def test_a_seed_without_all_tasks_does_not_count_for_the_mean():
  rows = [
    row("microworld_a", 0, 80.0),
    row("microworld_b", 0, 60.0),
    row("microworld_a", 1, 100.0),
  ]
  (cells,) = results.lines(EXAMPLE, rows, "accuracy").values()
  assert cells["mean"].mean == 70.0
  assert cells["a"].mean == 90.0
  assert str(cells["mean"]) == "70.0"  # one seed has no spread


def test_a_line_without_a_task_has_no_mean():
  rows = [
    row("microworld_a", 0, 80.0, length=5),
    row("microworld_b", 0, 60.0, length=5),
    row("microworld_a", 0, 90.0, length=20),
  ]
  short, long = results.lines(EXAMPLE, rows, "accuracy").values()
  assert short["mean"].mean == 70.0
  assert "mean" not in long and long["a"].mean == 90.0
  assert report.table(EXAMPLE, rows).splitlines()[-1] == "| 20 | – | 90.0 | – |"


def test_the_wordings_of_several_models_stand_apart():
  def worded(model, *accuracies):
    trial = Trial("microworld_a", way=DESIGN, model=model)
    found = [{"accuracy": value} for value in accuracies]
    return {"run": dataclasses.asdict(trial), "by_wording": found}

  one, other = worded("microworld", 40.0, 50.0), worded("width_32", 30.0, 35.0)
  assert report.wordings([one]).splitlines()[2:] == [
    "| prompt design | 40.0 to 50.0 |"
  ]
  assert report.wordings([one, other]).splitlines()[2:] == [
    "| prompt design, the model that ships | 40.0 to 50.0 |",
    "| prompt design, width 32 | 30.0 to 35.0 |",
  ]


def test_what_a_study_lacks_is_what_has_no_row():
  study = dataclasses.replace(
    EXAMPLE, trials=grid(task=("a",), seed=(0, 1), model=("one", "two"))
  )
  rows = [{"run": dataclasses.asdict(study.trials[0])}]
  assert {*results.lacking(study, rows)} == {
    Trial("a", seed=1, model="one"),
    Trial("a", seed=0, model="two"),
    Trial("a", seed=1, model="two"),
  }


def test_lines_are_in_the_order_of_the_numbers():
  rows = [row("microworld_a", 0, 50.0, length) for length in (100, 5, 20)]
  found = results.lines(EXAMPLE, rows, "accuracy")
  assert [x for x, _ in found] == [5, 20, 100]
  table = report.table(EXAMPLE, rows).splitlines()
  assert [line.split(" | ")[0] for line in table[2:]] == [
    "| 5",
    "| 20",
    "| 100",
  ]


def test_an_ensembles_row_has_a_line_per_way():
  summary = {
    "average": {"accuracy": 80.0},
    "best": {"accuracy": 82.0},
    "ensemble": {"accuracy": 83.0},
    "probability average": {"accuracy": 84.0},
  }
  rows = [row("microworld_a", 0, 83.0, summary=summary)]
  found = results.lines(studies.VOTE, rows, "accuracy")
  assert [(x, cells["a"].mean) for (x, _), cells in found.items()] == [
    ("average", 80.0),
    ("best", 82.0),
    ("ensemble", 83.0),
    ("probability average", 84.0),
  ]


def test_the_cosine_of_tasks_is_over_prompts_of_other_seeds():
  def mean(task, seed, *values):
    return row(task, seed, 50.0, meaning={"mean": values})

  rows = [
    mean("microworld_a", 0, 1.0, 0.0),
    mean("microworld_a", 1, 0.0, 2.0),
    mean("microworld_b", 0, 3.0, 3.0),
  ]
  names, values = results.cosines(rows)
  assert names == ["a", "b"]
  assert values[0, 0] == pytest.approx(0)  # the two seeds of a
  assert values[0, 1] == pytest.approx(math.sqrt(0.5))  # seed 1 and seed 0
  assert math.isnan(values[1, 1])  # one seed only


def test_a_line_that_is_no_row_is_named(tmp_path):
  file = storage.write_jsonl(
    tmp_path / "rows.jsonl", [row("microworld_a", 0, 50.0)]
  )
  (loaded,) = results.load(file)
  assert loaded == json.loads(json.dumps(row("microworld_a", 0, 50.0)))
  assert results.trial_of(loaded) == Trial("microworld_a")
  file.write_text(file.read_text() + '{"run": {"tusk": 1}}\n')
  with pytest.raises(ValueError, match="line 2 is no row of a study"):
    results.load(file)
  assert results.load(tmp_path / "nothing.jsonl") == []


@pytest.mark.parametrize(
  "change, message",
  [
    ({"run": {"task": "microworld_a", "tests": [], "seed": "0"}}, "seed=.0."),
    ({"run": {"task": "microworld_a", "tests": [], "tusk": 1}}, "tusk"),
    ({"run": 3}, "holds a number, not an object"),
    ({"scores": {"microworld_a": {"accuracy": "50"}}}, 'accuracy="50"'),
    ({"scores": []}, "holds a list, not an object"),
    ({"parameters": None}, "no 'parameters'"),
    ({"model_hash": 7}, "model_hash=7; it must be a text"),
    ({"seconds": "long"}, "seconds"),
  ],
)
def test_a_row_with_a_field_of_another_kind_is_named(change, message, tmp_path):
  bad = row("microworld_a", 0, 50.0) | change
  file = storage.write_jsonl(tmp_path / "rows.jsonl", [bad])
  with pytest.raises(ValueError, match=f"line 1 is no row .*{message}"):
    results.load(file)
