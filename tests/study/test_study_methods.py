"""The study of methods: what each of them trains, and which course it took."""

import dataclasses

import pytest

from prompt_tuning import storage
from prompt_tuning.study import methods, report, results, studies, trials
from prompt_tuning.study.trials import Trial


def test_most_of_a_score_is_there_at_the_first_evaluation_within_5_percent():
  rows = [
    {"step": 10, "loss": 1.0},
    {"step": 10, "accuracy": 50.0},
    {"step": 20, "accuracy": 85.5},
    {"step": 30, "accuracy": 90.0},
    {"step": 40, "accuracy": 84.0},
  ]
  assert methods.steps_to_most(rows) == 20
  assert methods.steps_to_most(rows[:2]) == 10
  assert methods.steps_to_most(rows[:1]) is None


def row(trial: Trial, accuracy: float, steps: int | None) -> dict:
  return {
    "run": dataclasses.asdict(trial),
    "scores": {trial.task: {"accuracy": accuracy}},
    "course": {
      "steps_to_most": steps,
      "trained_numbers": 2560,
      "step_seconds": 0.02 + accuracy / 1e5,
    },
  }


def test_the_table_has_interval_worst_seed_and_steps_of_each_method():
  """By hand: mean 92, spread 2, and Student's t of 4 degrees is 2.776."""
  seeds = [t for t in studies.OTHERS.trials if t.method == methods.PLAIN]
  scores = (90.0, 90.0, 92.0, 94.0, 94.0)
  rows = [
    row(trial, score, 40 + trial.seed)
    for trial, score in zip(seeds, scores, strict=True)
  ]
  lines = report.courses(rows).splitlines()
  assert lines[0].startswith("| way | task | mean, 95 % interval | worst seed")
  assert lines[2] == (
    "| prompt tuning | boolq | 92.0 ± 2.5 | 90.0 | 2,560 | 42 (40 to 44) "
    "| 0.021 |"
  )
  assert "| – |" in report.courses([row(seeds[0], 90.0, None)])
  assert report.courses([{"scores": {}}]) == ""


def test_every_method_is_compared_over_five_seeds_beside_model_tuning():
  seeds: dict[str, list[int]] = {}
  for trial in studies.OTHERS.trials:
    seeds.setdefault(trial.title, []).append(trial.seed)
  assert seeds.keys() == {*methods.MODULES, trials.MODEL}
  assert all(found == [*studies.FIVE] for found in seeds.values())


def test_a_row_without_its_course_is_refused(tmp_path):
  trial = studies.OTHERS.trials[0]
  whole = {
    **row(trial, 90.0, 10),
    "parameters": 1,
    "model_hash": "a",
    "machine": "b",
    "seconds": 1.0,
  }
  file = tmp_path / "results.jsonl"
  storage.write_jsonl(file, [whole])
  assert results.trial_of(results.load(file)[0]) == trial
  storage.write_jsonl(file, [{**whole, "course": {}}])
  with pytest.raises(ValueError, match="line 1.*trained_numbers"):
    results.load(file)
