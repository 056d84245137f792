"""What an error advises is done once, as it stands there, and helps."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import gin
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import cli
from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts import checkpoints
from prompt_tuning.run_folder import RunFolder

WORDS = ("cat", "dog", "house", "mat", "bird", "tree")


@pytest.fixture(autouse=True)
def clean():
  yield
  gin.clear_config()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  return pretrained.save(tmp_path_factory.mktemp("model"), toy_tasks.model())


class Commands:
  """The commands on the toy model and task; each takes macros and flags."""

  def __init__(self, model: pathlib.Path, folder: pathlib.Path, capsys):
    self.folder, self._capsys = folder, capsys
    self._macros = {
      "INITIAL_CHECKPOINT_PATH": model,
      "MIXTURE_OR_TASK_MODULE": "toy_tasks",
      "MIXTURE_OR_TASK_NAME": toy_tasks.CAT,
      "TASK_FEATURE_LENGTHS": toy_tasks.LENGTHS,
    }

  def _run(self, command: str, files, macros, flags=()) -> str:
    """The error of a command, "" for none."""
    macros = {k: v for k, v in {**self._macros, **macros}.items() if v != ()}
    self._capsys.readouterr()
    code = cli.main(
      [command, "--gin_file=models/microworld.gin"]
      + [f"--gin_file={file}.gin" for file in files]
      + [f"--gin.{name}={value}" for name, value in macros.items()]
      + list(flags)
    )
    error = self._capsys.readouterr().err
    assert (code == 0) == (not error.startswith("prompt-tuning")), error
    return "" if code == 0 else error

  def train(self, *flags: str, prompt="prompts/vocabulary", **macros) -> str:
    files = [prompt, "runs/prompt_tuning"]
    usual = {"PROMPT_LENGTH": 4, "TRAIN_STEPS": 2, "EVAL_PERIOD": 2}
    usual |= {"BATCH_SIZE": 4, "MODEL_DIR": self.folder / "run"}
    return self._run("train", files, {**usual, **macros}, flags)

  def eval(self, **macros) -> str:
    usual = {"EVAL_OUTPUT_DIR": self.folder / "scores"}
    return self._run("eval", ["runs/eval"], {**usual, **macros})

  def infer(self, **macros) -> str:
    usual = {"INFER_OUTPUT_DIR": self.folder / "answers"}
    usual |= {"MIXTURE_OR_TASK_NAME": (), "MIXTURE_OR_TASK_MODULE": ()}
    return self._run("infer", ["runs/infer"], {**usual, **macros})


@pytest.fixture
def commands(model, tmp_path, capsys) -> Commands:
  return Commands(model, tmp_path, capsys)


def advised(error: str, pattern: str) -> str:
  """What stands in an error where the pattern has its group."""
  found = re.search(pattern, error, re.S)
  assert found, f"no {pattern!r} in {error!r}"
  return found[1]


@pytest.mark.parametrize(
  "wrong, pattern, right",
  [
    ({"PROMPT_LENGHT": 3}, r"Did you mean (\w+)\?", None),
    (
      {"MIXTURE_OR_TASK_NAME": "toy_cap"},
      r"Did you mean (\w+)",
      "MIXTURE_OR_TASK_NAME",
    ),
    ({"SELECT_BY": "acuracy"}, r"it has (\w+)", "SELECT_BY"),
    ({"WEIGHTS_DTYPE": "half"}, r"they can be \w+, (\w+)", "WEIGHTS_DTYPE"),
    (
      {"prompt": "prompts/class_labels", "PROMPT_LENGTH": 1},
      r"Set it to (\d+)",
      "PROMPT_LENGTH",
    ),
    (
      {"PROMPT_INITIALIZER": "@initializers.from_vocabulry()"},
      r"Did you mean (\w+)\?",
      "PROMPT_INITIALIZER",
    ),
    ({"OPTIMIZER": "adafactor"}, r"'--gin.OPTIMIZER=(\S+)'", "OPTIMIZER"),
  ],
)
def test_a_name_or_number_that_a_message_gives_is_right(
  wrong, pattern, right, commands
):
  value = advised(commands.train(**wrong), pattern)
  if right is None:  # the name of the macro itself
    ((_, number),) = wrong.items()
    assert commands.train(**{value: number}) == ""
    return
  if wrong[right] != value and str(wrong[right]).startswith("@init"):
    value = f"@initializers.{value}()"
  assert commands.train(**{**wrong, right: value}) == ""


@pytest.mark.parametrize(
  "file, setting, wrong, pattern",
  [
    ("low_rank", "RANK", 9, r"Set RANK to (\d+)"),
    ("superposition", "NUM_WORDS", 999, r"Set NUM_WORDS to (\d+)"),
    ("multi_task", "COMBINE", "prodct", r"Did you mean (\w+)\?"),
  ],
)
def test_a_setting_of_a_method_that_a_message_gives_is_right(
  file, setting, wrong, pattern, commands
):
  method = f"--gin_file=methods/{file}.gin"
  value = advised(commands.train(method, **{setting: wrong}), pattern)
  assert commands.train(method, **{setting: value}) == ""


def test_a_shared_part_has_the_sizes_that_the_message_names(commands):
  method = "--gin_file=methods/multi_task.gin"
  error = commands.train(method, COMBINE="concat", COMBINE_SIZE=4)
  most = advised(error, r"leaves room for 1 to (\d+)")
  assert commands.train(method, COMBINE="concat", COMBINE_SIZE=most) == ""


def test_a_label_is_given_the_length_that_the_message_names(commands, tmp_path):
  rows = tmp_path / "rows.csv"
  texts = [f"{a} {b}" for a in ("the", "a", "red") for b in WORDS]
  lines = [f"{text},{'xy'[i % 2]}" for i, text in enumerate(texts)]
  rows.write_text("\n".join(["a,b", *lines, ""]))
  flags = ("--data", str(rows), "--template", "{a}", "--target", "b")
  flags += ("--labels", "x=the cat,y=the dog sat on the mat")
  own = {"MIXTURE_OR_TASK_NAME": (), "MIXTURE_OR_TASK_MODULE": ()}
  short = {**own, "TASK_FEATURE_LENGTHS": {"inputs": 24, "targets": 4}}
  error = commands.train(*flags, **short)
  length = int(advised(error, r"Set it to (\d+) or more"))
  for targets, message in ((length - 1, "would cut it"), (length, "")):
    given = {"inputs": 24, "targets": targets}
    error = commands.train(*flags, **{**own, "TASK_FEATURE_LENGTHS": given})
    assert message in error and bool(message) == bool(error)


def test_bad_rows_are_left_out_by_the_flag_that_the_message_names(
  commands, tmp_path
):
  rows = tmp_path / "rows.csv"
  texts = [f"{a} {b}" for a in ("the", "a", "red") for b in WORDS]
  rows.write_text("\n".join(["a,b", *(f"{t},x" for t in texts), ",y", ""]))
  flags = ["--data", str(rows), "--template", "{a}", "--target", "b"]
  own = {"MIXTURE_OR_TASK_NAME": (), "MIXTURE_OR_TASK_MODULE": ()}
  error = commands.train(*flags, **own)
  flag = advised(error, r"(--skip\w+)")
  assert commands.train(*flags, flag, **own) == ""


def test_a_folder_with_a_run_of_others_is_left_as_the_message_says(
  commands, tmp_path
):
  assert commands.train() == ""
  error = commands.train(BATCH_SIZE=8)
  macro = advised(error, r"Choose another (\w+), or remove the folder")
  assert commands.train(BATCH_SIZE=8, **{macro: tmp_path / "other"}) == ""
  shutil.rmtree(tmp_path / "run")
  assert commands.train(BATCH_SIZE=8) == ""


HOLD = """
import pathlib, sys
from prompt_tuning import locks
with locks.held(pathlib.Path(sys.argv[1])):
  print("held", flush=True)
  sys.stdin.read()
"""


def test_a_folder_that_is_held_is_free_after_waiting_and_another_is_at_once(
  commands, tmp_path
):
  (tmp_path / "run").mkdir()
  process = subprocess.Popen(
    [sys.executable, "-c", HOLD, tmp_path / "run"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  assert process.stdout.readline() == b"held\n"
  error = commands.train()
  macro = advised(error, r"Wait for its end, or name another .* with (\w+)")
  assert commands.train(**{macro: tmp_path / "other"}) == ""
  process.communicate()
  assert commands.train() == ""


def test_a_damaged_checkpoint_is_removed_and_the_run_goes_on_from_the_step(
  commands, tmp_path
):
  longer = {"TRAIN_STEPS": 6}
  assert commands.train(**longer) == ""
  folder = RunFolder(tmp_path / "run")
  before, last = folder.checkpoint_steps()[-2:]
  whole = checkpoints.load_prompt(tmp_path / "run").values
  file = tmp_path / "run" / "checkpoints" / f"step_{last:08d}.safetensors"
  os.truncate(file, 100)
  error = commands.train(**longer)
  assert advised(error, r"go on from step (\d+)") == str(before)
  pathlib.Path(advised(error, r"(/\S+\.safetensors) ")).unlink()
  assert commands.train(**longer) == ""
  again = checkpoints.load_prompt(tmp_path / "run").values
  np.testing.assert_array_equal(again, whole)


def test_a_prompt_of_other_weights_is_tried_by_the_macro_of_the_message(
  commands, tmp_path
):
  assert commands.train() == ""
  other = pretrained.save(tmp_path / "other", toy_tasks.model(seed=1))
  wrong = {"PROMPT_PATH": tmp_path / "run", "INITIAL_CHECKPOINT_PATH": other}
  macro, value = advised(
    commands.eval(**wrong), r"set (ALLOW_OTHER_MODEL=\w+)"
  ).split("=")
  assert commands.eval(**wrong, **{macro: value}) == ""


def test_a_prompt_of_another_width_is_read_by_the_model_of_its_width(
  commands, tmp_path
):
  np.save(tmp_path / "wide.npy", tiny_t5.rows(4, 32))
  wrong = {"PROMPT_PATH": tmp_path / "wide.npy"}
  error = commands.eval(**wrong)
  width = int(advised(error, r"\b(32)\b"))
  config = tiny_t5.config(emb_dim=width)
  fitting = pretrained.random(config, tiny_t5.vocabulary())
  folder = pretrained.save(tmp_path / "wide", fitting)
  assert commands.eval(**wrong, INITIAL_CHECKPOINT_PATH=folder) == ""


def test_a_run_with_several_prompts_names_one_that_is_read(commands, tmp_path):
  assert commands.train(SEEDS="(0, 1)") == ""
  error = commands.eval(PROMPT_PATH=tmp_path / "run")
  path = advised(error, r"Its prompts are ([^,]+?)[,.] ?")
  assert commands.eval(PROMPT_PATH=path) == ""


def test_a_model_without_vocabulary_gets_it_where_the_message_says(
  commands, model, tmp_path
):
  bare = pretrained.load(model)
  lines = tmp_path / "lines.txt"
  lines.write_text("the cat\n")
  for name in ("vocabulary.model", "spiece.model", "tokenizer.json"):
    for to in ("prompt-tuning", "huggingface"):
      folder = tmp_path / to / name
      pretrained.save(
        folder,
        pretrained.FrozenModel(bare.config, bare.params, None, "bare", ""),
        to,
      )
      wrong = {"INITIAL_CHECKPOINT_PATH": folder, "INPUT_FILE": lines}
      error = commands.infer(**wrong)
      assert name in error and "VOCABULARY_PATH" in error
      vocabulary = pathlib.Path(bare.vocabulary.path)
      if name == "tokenizer.json":
        vocabulary = pathlib.Path(tiny_t5.__file__).parent / "golden"
        vocabulary = vocabulary / "tokenizers" / name
      shutil.copy(vocabulary, folder / name)
      if to == "huggingface":  # as many sentinels as there are rows for
        (folder / "tokenizer_config.json").write_text('{"extra_ids": 10}')
      assert commands.infer(**wrong) == ""


def test_a_line_that_is_too_long_has_room_for_the_tokens_of_the_message(
  commands, tmp_path
):
  lines = tmp_path / "lines.txt"
  lines.write_text("the cat\nthe cat sat on the mat and the dog sat down\n")
  error = commands.infer(INPUT_FILE=lines)
  tokens = int(advised(error, r"has (\d+) tokens"))
  lengths = {**toy_tasks.LENGTHS, "inputs": tokens}
  assert commands.infer(INPUT_FILE=lines, TASK_FEATURE_LENGTHS=lengths) == ""


def test_examples_that_are_too_long_are_cut_by_the_macro_of_the_message(
  commands,
):
  wrong = {
    "TASK_FEATURE_LENGTHS": {"inputs": 6, "targets": 8},
    "TRUNCATE": False,
  }
  macro, value = advised(commands.train(**wrong), r"set (TRUNCATE=\w+)").split(
    "="
  )
  assert commands.train(**{**wrong, macro: value}) == ""
