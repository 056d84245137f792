"""A study runs, goes on where it stopped, and leaves rows, table and figure."""

import dataclasses
import re

import gin
import numpy as np
import pytest
import small_microworld
import tiny_t5

from prompt_tuning import cli, configuration, storage
from prompt_tuning.data import objectives
from prompt_tuning.frozen import pretrained
from prompt_tuning.frozen.model_folder import save as save_model
from prompt_tuning.prompts import checkpoints, initializers
from prompt_tuning.study import (
  results,
  schedule,
  sources,
  studies,
  study,
  trials,
  tuned,
)
from prompt_tuning.study.trials import Pretraining
from prompt_tuning.training import pretrain


@pytest.fixture(scope="module", autouse=True)
def small_splits():
  with small_microworld.splits(small_microworld.SMALL):
    yield
  gin.clear_config()


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
  """Random weights of the smallest T5 that reads the microworld's words."""
  config = tiny_t5.config(vocab_size=1664)
  return save_model(
    tmp_path_factory.mktemp("small"),
    config,
    tiny_t5.weights(config),
    vocabulary=pretrained.shipped_vocabulary(),
  )


def command(name, folder, model, *flags):
  return cli.main(
    ["study", name, "--output", str(folder), "--model", str(model), *flags]
  )


@pytest.fixture(scope="module")
def done(tmp_path_factory, small_model):
  """A reduced study that has run: its folder."""
  folder = tmp_path_factory.mktemp("studies")
  assert command("length", folder, small_model, "--reduced") == 0
  return folder


def test_adaptation_goes_on_from_the_weights_that_it_is_given(
  tmp_path, small_model
):
  adapted = Pretraining(
    "adapted",
    "demo/adapt_microworld.gin",
    (
      f"INITIAL_CHECKPOINT_PATH={small_model}",
      "ADAPTATION_STEPS=2",
      "PROBES=None",
      "BATCH_SIZE=8",
      "SAVE_DTYPE=float32",
    ),
    parameters=0,
    minutes=1,
  )
  where = schedule.folders(tmp_path, "s", "microworld", is_reduced=False)
  study.make_models([adapted], where)
  before, after = (
    storage.flatten(pretrained.load(path).params)
    for path in (small_model, where.model("adapted"))
  )
  moved = [np.abs(after[path] - leaf).max() for path, leaf in before.items()]
  assert 0 < max(moved) < 0.01


def test_span_corruption_is_the_objective_of_every_stage():
  configuration.configure(["demo/pretrain_span_corruption.gin"], [], ())
  stages = gin.query_parameter("%STAGES")
  assert [str(stage).partition("/")[0] for stage in stages] == [
    "@belonging",
    "@comparing",
    "@everything",
  ]
  for name in ("belonging", "comparing", "everything"):
    with gin.config_scope(name):
      stage = gin.get_configurable(pretrain.Stage)()
    assert isinstance(stage.objective, objectives.SpanCorruption)
    assert stage.steps > 100


def rows_of(folder, name="length"):
  return results.load(folder / "reduced" / name / "results.jsonl")


def test_a_study_leaves_rows_a_table_and_a_figure(done):
  rows = rows_of(done)
  assert [results.trial_of(r) for r in rows] == list(
    studies.reduced(studies.LENGTH).trials
  )
  assert {(r["run"]["prompt_length"], r["run"]["seed"]) for r in rows} == {
    (length, seed) for length in (1, 5) for seed in (0, 1)
  }
  for one in rows:
    assert 0 <= one["scores"]["microworld_boolq"]["accuracy"] <= 100
    assert one["seconds"] > 0 and one["machine"] and one["versions"]["jax"]
  place = done / "reduced" / "length"
  text = (place / "results.md").read_text()
  assert "| prompt positions |" in text and "± " in text
  assert "The paper: Figure 3a" in text
  assert (place / "figure.png").stat().st_size > 5_000


def test_a_trial_starts_from_the_source_that_is_most_like_it(
  tmp_path, small_model
):
  """Given sources, of which one is what the brief prompt will be."""
  few = studies.reduced(studies.FROM_SOURCES).trials
  trial = next(one for one in few if one.way == trials.SOURCE)
  trial = dataclasses.replace(trial, seed=3)
  model = pretrained.load(small_model)
  brief = sources.brief_trial(trial)
  ((key, rows),) = tuned.prompts([brief], model, tmp_path / "b").items()
  folder = sources.folder_of(trial, model, tmp_path)
  for n, task in enumerate(sources.SOURCES):
    own = rows if n == 2 else -rows
    checkpoints.save_prompt(folder / "prompts" / task, own, {})
  (started,) = sources.from_best([trial], model, tmp_path / "program")
  assert max(started.cosines, key=started.cosines.get) == sources.SOURCES[2]
  assert started.cosines[sources.SOURCES[2]] == pytest.approx(1, abs=1e-4)
  place = folder / "prompts" / sources.SOURCES[2] / checkpoints.ARRAY
  start = initializers.from_array(place)
  again = tuned.prompts([trial], model, tmp_path / "again", start=start)
  np.testing.assert_array_equal(started.rows, again[key])


def test_what_is_done_is_skipped(done, small_model, capsys):
  before = rows_of(done)
  assert command("length", done, small_model, "--reduced") == 0
  assert "4 done before; 0 to do in 0 programs" in capsys.readouterr().out
  assert rows_of(done) == before


def test_a_run_that_another_study_has_done_is_taken_over(
  done, small_model, tmp_path, capsys
):
  rows = [{**row, "meaning": {}} for row in rows_of(done)]
  storage.write_jsonl(tmp_path / "reduced" / "another" / "results.jsonl", rows)
  study.run("length", tmp_path, model=str(small_model), is_reduced=True)
  assert f"{len(rows)} done before; 0 to do" in capsys.readouterr().out
  assert rows_of(tmp_path) == rows_of(done)


def test_only_what_is_lacking_is_done_again(done, small_model, capsys):
  file = done / "reduced" / "length" / "results.jsonl"
  before = rows_of(done)
  kept = [row for row in before if row["run"]["prompt_length"] == 1]
  storage.write_jsonl(file, kept)
  assert command("length", done, small_model, "--reduced") == 0
  assert "2 done before; 2 to do in 1 program," in capsys.readouterr().out
  again = rows_of(done)
  assert [row for row in again if row in kept] == kept
  assert [r["run"] for r in again] == [r["run"] for r in before]
  assert [r["scores"] for r in again] == [r["scores"] for r in before]


def test_rows_of_other_weights_are_moved_aside(
  done, small_model, tmp_path, capsys
):
  other = tiny_t5.config(vocab_size=1664)
  model = save_model(
    tmp_path / "other",
    other,
    tiny_t5.weights(other, seed=1),
    vocabulary=pretrained.shipped_vocabulary(),
  )
  place = tmp_path / "reduced" / "length"
  storage.write_jsonl(place / "results.jsonl", rows_of(done))
  assert command("length", tmp_path, model, "--reduced", "--dry_run") == 0
  printed = capsys.readouterr().out
  assert "0 done before; 4 to do in 2 programs" in printed
  assert "4 rows are of other settings or other weights" in printed
  assert not (place / "results.old.jsonl").exists()
  assert command("length", tmp_path, model, "--reduced") == 0
  assert results.load(place / "results.old.jsonl") == rows_of(done)
  assert len(rows_of(tmp_path)) == 4


def test_rows_are_moved_aside_once_although_nothing_follows(done, tmp_path):
  where = schedule.folders(tmp_path, "length", "no model", is_reduced=False)
  found = schedule.Work([], rows_of(done), [], [], {}, [])
  storage.write_jsonl(where.rows, found.stale)
  study._run_programs(studies.LENGTH, found, where)
  assert results.load(where.study / "results.old.jsonl") == found.stale
  assert results.load(where.rows) == []


def test_a_study_beside_quantised_weights_takes_no_row_of_floats(
  done, small_model, capsys
):
  asked = ("length", done, small_model, "--reduced", "--dry_run")
  assert command(*asked) == 0
  assert "4 done before" in capsys.readouterr().out
  assert command(*asked, "--weights_dtype", "int8") == 0
  assert "0 done before" in capsys.readouterr().out
  own = schedule.folders(done, "s", "m", is_reduced=False, weights_dtype="int4")
  assert own.study == done / "int4" / "s" and own.models == done / "models"
  assert command(*asked, "--weights_dtype", "int2") == 2
  assert "can be float32" in capsys.readouterr().err


def test_a_dry_run_says_what_and_how_long_and_writes_nothing(tmp_path, capsys):
  for name, one in studies.STUDIES.items():
    flags = ["study", name, "--dry_run", "--output", str(tmp_path / "o")]
    assert cli.main(flags) == 0
    printed = capsys.readouterr().out
    assert one.question in printed and one.paper in printed
    assert f"{len(one.trials)} runs, 0 done before" in printed
    assert re.search(
      r"about [\d.]+ (seconds|minutes|hours) on 2 cores", printed
    )
    for model in one.models:
      assert f"The model {model.name} is not pre-trained yet" in printed
    assert printed.count("--pretrain makes it.") == len(one.models)
    assert cli.main([*flags, "--pretrain"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("it is made first") == len(one.models)
    assert f"0 done before; {len(one.trials)} to do in" in printed
  assert not (tmp_path / "o").exists()


def test_without_a_name_the_studies_are_listed(capsys):
  assert cli.main(["study"]) == 0
  printed = capsys.readouterr().out
  for name, one in studies.STUDIES.items():
    assert name in printed and one.question in printed


def test_a_misspelt_study_gets_the_closest_name(capsys):
  assert cli.main(["study", "lenght"]) == 2
  assert "Did you mean length?" in capsys.readouterr().err


SLOW = ("size", "pretraining", "transfer", "transfer_spot")  # many runs


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
    for name in studies.STUDIES
    if name != "length"
  ],
)
def test_a_study_runs_on_a_reduced_grid(name, tmp_path, small_model):
  flags = ("--reduced", "--pretrain")
  assert command(name, tmp_path, small_model, *flags) == 0
  small = studies.reduced(studies.STUDIES[name])
  rows = rows_of(tmp_path, name)
  assert {results.trial_of(r) for r in rows} == set(small.trials)
  ways_of = {trial.way for trial in studies.STUDIES[name].trials}
  assert {trial.way for trial in small.trials} == ways_of
  text = (tmp_path / "reduced" / name / "results.md").read_text()
  assert studies.STUDIES[name].question in text
  assert (tmp_path / "reduced" / name / "figure.png").stat().st_size > 5_000
