"""A macro is one that something uses, of the kind that the files give it."""

import gin
import pytest

from prompt_tuning import configuration, spelling
from prompt_tuning.training import loop

pytestmark = pytest.mark.usefixtures("clean_gin")


def configure(files, *bindings, search_paths=()):
  configuration.configure(files, bindings, search_paths)


def test_the_closest_name_is_asked_after_and_else_what_there_is():
  assert (
    spelling.hint("acuracy", ["f1", "accuracy"]) == "Did you mean accuracy?"
  )
  assert spelling.hint("zzz", ["f1"], "There is f1.") == "There is f1."
  assert spelling.hint("accurate", ["accuracy"], alike=0.9) == ""


def test_lengths_are_given_by_name():
  with pytest.raises(ValueError, match='TASK_FEATURE_LENGTHS=64 .*"inputs"'):
    configure(
      ["models/microworld.gin", "runs/eval.gin"], "TASK_FEATURE_LENGTHS=64"
    )


@pytest.mark.parametrize(
  "binding", ["BATCH_SIZE=%TRAIN_STEPS", "LEARNING_RATE=1", "SEEDS=3"]
)
def test_a_value_of_another_kind_may_mean_the_same(binding):
  configure(["runs/prompt_tuning.gin"], binding)


@pytest.mark.parametrize(
  "binding, message",
  [
    ("PROMPT_FILE=a.npy", "is what training starts from. Set PROMPT_PATH to"),
    ("TRAIN_STEPS=3", r"nothing in this run uses it; runs/.* would. Leave it"),
  ],
)
def test_a_flag_of_another_run_is_named(binding, message):
  with pytest.raises(ValueError, match=message):
    configure(["models/microworld.gin", "runs/eval.gin"], binding)


def test_steps_of_a_prompt_are_no_steps_of_pretraining():
  with pytest.raises(ValueError, match="steps for each of its STAGES"):
    configure(["demo/pretrain_sizes.gin"], "TRAIN_STEPS=3")


def test_a_run_has_one_method():
  files = ["runs/prompt_tuning.gin", "methods/ia3.gin", "methods/deep.gin"]
  with pytest.raises(ValueError, match=r"ia3.gin and methods/deep.gin each"):
    configure(files)


def test_a_file_may_set_what_another_run_uses(tmp_path):
  (tmp_path / "mine.gin").write_text("TRAIN_STEPS = 5\nBATCH_SIZE = 3\n")
  configure(
    ["models/microworld.gin", "runs/eval.gin", str(tmp_path / "mine.gin")]
  )


def test_a_misspelt_macro_in_a_users_file_is_named(tmp_path):
  (tmp_path / "mine.gin").write_text("TRIAN_STEPS = 5\n")
  with pytest.raises(ValueError, match="Did you mean TRAIN_STEPS"):
    configure(["runs/prompt_tuning.gin", str(tmp_path / "mine.gin")])


def test_a_users_file_may_use_macros_of_its_own(tmp_path):
  (tmp_path / "mine.gin").write_text("MY_STEPS = 5\nTRAIN_STEPS = %MY_STEPS\n")
  configure(
    ["runs/prompt_tuning.gin", "mine.gin"], search_paths=[str(tmp_path)]
  )
  assert gin.get_configurable(loop.Plan)().steps == 5
