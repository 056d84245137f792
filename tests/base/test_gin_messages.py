"""What gin refuses, as a user reads it."""

import importlib.util

import pytest

from prompt_tuning import configuration

pytestmark = pytest.mark.usefixtures("clean_gin")


@pytest.mark.parametrize(
  "binding, message",
  [
    (
      "train.Tasks.bach_size=3",
      "train.Tasks.bach_size = 3: train.Tasks has no parameter 'bach_size'. "
      "Did you mean batch_size?",
    ),
    (
      "DECODING=@decode.Gredy()",
      "DECODING = @decode.Gredy(): prompt_tuning.model.decode has no 'Gredy'. "
      "Did you mean Greedy?",
    ),
    (
      "OPTIMIZER=@optimisers.adamw()",
      "OPTIMIZER = @optimisers.adamw(): There is no module 'optimisers' here. "
      "Did you mean optimizers?",
    ),
    (
      "OPTIMIZER=@zzz.here()",
      "OPTIMIZER = @zzz.here(): There is no module 'zzz' here. "
      "Known: decode, infer, inject, layout, loop, optimizers, train.",
    ),
    ("TRAIN_STEPS=@", "TRAIN_STEPS = @: Unexpected token."),
    (
      "SEEDS=(0, 1",
      "SEEDS = (0, 1: A bracket or a quote is opened and never closed.",
    ),
    (
      "TASK_FEATURE_LENGTHS=(a) b",
      "TASK_FEATURE_LENGTHS = (a) b: This is no value. Put a text into quotes.",
    ),
  ],
)
def test_a_flag_stands_in_front_of_what_is_wrong_with_it(binding, message):
  with pytest.raises(ValueError) as caught:
    bindings = [binding, "MODEL_DIR=run"]
    configuration.configure(["runs/prompt_tuning.gin"], bindings, ())
  assert str(caught.value) == message


@pytest.mark.parametrize(
  "text, message",
  [
    ("import no_such_package", "No module named 'no_such_package'"),
    pytest.param(
      "from t5x import utils",
      "No module named 't5x'. The files in t5x/ are for t5x's launchers, see "
      "docs/t5x.md; for prompt-tuning there are others of the same names.",
      marks=pytest.mark.skipif(
        importlib.util.find_spec("t5x") is not None,
        reason="t5x is installed, so nothing is wrong; the other cases of "
        "test_a_file_is_named_with_its_line have a module that is nowhere",
      ),
    ),
    ("TRAIN_STEPS = hello", "This is no value. Put a text into quotes."),
    ("TRAIN_STEPS = 3 4", "Expected newline."),
  ],
)
def test_a_file_is_named_with_its_line(tmp_path, text, message):
  file = tmp_path / "mine.gin"
  file.write_text(f"# A comment.\n{text}\n")
  with pytest.raises(ValueError) as caught:
    configuration.configure(["runs/prompt_tuning.gin", str(file)], [], ())
  assert str(caught.value).endswith(f"mine.gin, line 2: {message}")


@pytest.mark.parametrize(
  "old, new",
  [
    (
      "from prompt_tuning import train",
      "from prompt_tuning.training import train",
    ),
    (
      "from prompt_tuning import t5x_models",
      "from prompt_tuning.t5x import t5x_models",
    ),
    (
      "from prompt_tuning.tasks import microworld_text",
      "from prompt_tuning.tasks.microworld import text as microworld_text",
    ),
  ],
)
def test_an_import_of_before_the_folders_is_told_the_new_one(
  old, new, tmp_path
):
  file = tmp_path / "mine.gin"
  file.write_text(f"from __gin__ import dynamic_registration\n{old}\n")
  with pytest.raises(ValueError) as caught:
    configuration.configure([str(file)], (), ())
  assert f"instead of `{old}` write `{new}`" in str(caught.value)
