"""The commands, as a user calls them, on a model of random weights."""

import json
import subprocess
import sys

from fresh import printed_by
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import cli
from prompt_tuning.cli import gin_commands
from prompt_tuning.frozen import pretrained
from prompt_tuning.frozen.model_folder import save as save_model
from prompt_tuning.prompts import checkpoints

pytestmark = pytest.mark.usefixtures("clean_gin")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
  model = toy_tasks.model()
  return save_model(
    tmp_path_factory.mktemp("model"),
    model.config,
    model.params,
    vocabulary=tiny_t5.vocabulary(),
  )


def settings(model_folder, **macros):
  """Flags of a run on the toy task."""
  values = {
    "INITIAL_CHECKPOINT_PATH": model_folder,
    "MIXTURE_OR_TASK_MODULE": "toy_tasks",
    "MIXTURE_OR_TASK_NAME": toy_tasks.CAT,
    "TASK_FEATURE_LENGTHS": toy_tasks.LENGTHS,
    **macros,
  }
  return [f"--gin.{name}={value}" for name, value in values.items()]


def train(model_folder, folder, **macros):
  return cli.main(
    [
      "train",
      "--gin_file=models/microworld.gin",
      "--gin_file=prompts/class_labels.gin",
      "--gin_file=runs/prompt_tuning.gin",
      *settings(
        model_folder,
        MODEL_DIR=folder,
        PROMPT_LENGTH=4,
        TRAIN_STEPS=6,
        EVAL_PERIOD=3,
        BATCH_SIZE=8,
        **macros,
      ),
    ]
  )


def test_train_eval_and_infer_work_together(model_folder, tmp_path, capsys):
  run = tmp_path / "run"
  assert train(model_folder, run) == 0
  assert "toy_cat (validation): accuracy" in capsys.readouterr().out
  assert "PROMPT_LENGTH = 4" in (run / "config.gin").read_text()
  model = pretrained.load(model_folder)
  record = checkpoints.load_prompt(run, model).record
  assert record["initializer"] == "from_class_labels"

  scored = tmp_path / "eval"
  code = cli.main(
    [
      "eval",
      "--gin_file=models/microworld.gin",
      "--gin_file=runs/eval.gin",
      *settings(model_folder, PROMPT_PATH=run, EVAL_OUTPUT_DIR=scored),
    ]
  )
  assert code == 0
  (row,) = json.loads((scored / "metrics.json").read_text())
  assert row["accuracy"] == record["scores"]["validation"]["accuracy"]
  assert row["examples"] == toy_tasks.SIZES["validation"]
  best = record["best_step"]
  assert (scored / "predictions" / "toy_cat-validation.jsonl").read_text() == (
    run / "predictions" / f"toy_cat-validation-{best}.jsonl"
  ).read_text()

  lines = tmp_path / "lines.txt"
  lines.write_text("the cat sat\na dog ran\n")
  code = cli.main(
    [
      "infer",
      "--gin_file=models/microworld.gin",
      "--gin_file=runs/infer.gin",
      *settings(
        model_folder,
        PROMPT_PATH=run,
        INPUT_FILE=lines,
        INFER_OUTPUT_DIR=tmp_path / "out",
      ),
    ]
  )
  assert code == 0
  answers = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
  assert [json.loads(a)["input"] for a in answers] == [
    "the cat sat",
    "a dog ran",
  ]


def test_rank_and_beam_are_settings_of_eval(model_folder, tmp_path):
  beams = {"DECODING": "@decode.Beam()", "NUM_DECODES": 2}
  rows = {}
  for name, macros in {"r": {"DECODING": "@decode.Rank()"}, "b": beams}.items():
    code = cli.main(
      [
        "eval",
        "--gin_file=models/microworld.gin",
        "--gin_file=runs/eval.gin",
        *settings(model_folder, EVAL_OUTPUT_DIR=tmp_path / name, **macros),
      ]
    )
    assert code == 0
    file = tmp_path / name / "predictions" / "toy_cat-validation.jsonl"
    rows[name] = [json.loads(line) for line in file.read_text().splitlines()]
  assert {row["prediction"] for row in rows["r"]} <= {"yes", "no"}
  for row in rows["b"]:
    first, second = row["predictions"]
    assert first["prediction"] == row["prediction"]
    assert first["log_probability"] == row["log_probability"]
    assert first["prediction"] != second["prediction"]


def test_the_same_command_again_changes_nothing(model_folder, tmp_path):
  assert train(model_folder, tmp_path) == 0
  first = checkpoints.load_prompt(tmp_path).values
  assert train(model_folder, tmp_path) == 0
  np.testing.assert_array_equal(checkpoints.load_prompt(tmp_path).values, first)


@pytest.mark.parametrize(
  "macros, message",
  [
    ({"PROMPT_LENGHT": 6}, "Did you mean PROMPT_LENGTH?"),
    ({"LEARNING_RATE": "fast"}, "LEARNING_RATE='fast' must be a number."),
    ({"DECODING": "@decode.Gredy()"}, "Did you mean Greedy?"),
    ({"EVAL_BATCH_SIZE": 0}, "(EVAL_BATCH_SIZE) must be at least 1, got 0"),
    ({"PATIENCE": -1}, "(PATIENCE) must be at least 0, got -1"),
    ({"MIXTURE_OR_TASK_NAME": "toy_cap"}, "Did you mean toy_cat"),
    ({"INITIAL_CHECKPOINT_PATH": "/nowhere"}, "no model at '/nowhere'"),
    ({"MIXTURE_OR_TASK_MODULE": "toyy"}, "cannot be imported"),
    ({"VALIDATION_SPLIT": "nothing"}, "split 'nothing' of toy_cat is empty"),
    ({"TASK_FEATURE_LENGTHS": {"inputs": 8}}, "no length for 'targets'"),
    ({"CLASS_LABELS": "('a','b','c','d','e')"}, "no room for 5 class labels"),
    ({"CLASS_LABELS": True}, "CLASS_LABELS=True must be a text in"),
    ({"NAME": 3}, "NAME is set, but nothing uses it"),
    ({"STEP_OFFSET": -1}, "STEP_OFFSET=-1; give 0 or a positive number"),
    ({"WEIGHT_DECAY": -1.0}, "WEIGHT_DECAY=-1.0; give 0 or a positive number"),
    ({"train.Tuning.z_loss": -1.0}, "z_loss=-1.0; give 0 or a positive"),
    ({"WEIGHTS_DTYPE": "bf16"}, "float32, bfloat16, float16"),
    ({"WEIGHTS_DTYPE": "int2"}, "Weights cannot be 'int2' (WEIGHTS_DTYPE)"),
    ({"ACTIVATION_DTYPE": "float16"}, "too large for float16"),
    ({"OPTIMIZER": "adafactor"}, "'--gin.OPTIMIZER=@optimizers.adafactor()'"),
    ({"DECODING": "@decode.Beam"}, "'--gin.DECODING=@decode.Beam()'"),
    ({"MODEL": "microworld"}, "'--gin.MODEL=@pretrained.load()'"),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
  model_folder, tmp_path, capsys, macros, message
):
  assert train(model_folder, tmp_path / "run", **macros) == 2
  error = capsys.readouterr().err
  assert error.startswith("prompt-tuning train: ") and message in error
  assert error.count("\n") == 1 and "Traceback" not in error


def test_a_short_form_of_a_flag_is_a_setting_of_its_own(
  model_folder, tmp_path, capsys
):
  path = tmp_path / "n.gin"
  path.write_text("N = 3\nTRAIN_STEPS = %N\n")
  for n in (2, 4):
    run = tmp_path / f"run{n}"
    flags = settings(
      model_folder, MODEL_DIR=run, PROMPT_LENGTH=4, EVAL_PERIOD=2, N=n
    )
    files = ["models/microworld.gin", "prompts/vocabulary.gin"]
    files += ["runs/prompt_tuning.gin", path]
    assert cli.main(["train", *(f"--gin_file={f}" for f in files), *flags]) == 0
    assert checkpoints.load_prompt(run).record["steps"] == n


def test_without_a_run_file_there_is_no_run():
  # In a process of its own: gin keeps what other tests made known to it.
  shown = subprocess.run(
    [sys.executable, "-m", "prompt_tuning.cli", "train"]
    + ["--gin_file=models/microworld.gin"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert shown.returncode == 2 and shown.stderr.count("\n") == 1
  assert "None of the gin files sets up train.train" in shown.stderr


def test_a_file_that_is_no_text_is_named(tmp_path, capsys):
  path = tmp_path / "bad.gin"
  path.write_bytes(b"\xff\xfe")
  assert cli.main(["train", f"--gin_file={path}"]) == 2
  assert "bad.gin is no gin file: it is not UTF-8" in capsys.readouterr().err


def test_scores_in_the_runs_own_folder_leave_its_configuration(
  model_folder, tmp_path, capsys
):
  assert train(model_folder, tmp_path) == 0
  before = (tmp_path / "config.gin").read_text()
  files = ["--gin_file=models/microworld.gin", "--gin_file=runs/eval.gin"]
  flags = settings(
    model_folder, PROMPT_PATH=tmp_path, EVAL_OUTPUT_DIR=tmp_path, SPLIT="test"
  )
  assert cli.main(["eval", *files, *flags]) == 0
  assert (tmp_path / "config.gin").read_text() == before
  assert "jobs.evaluate_prompts" in (tmp_path / "eval.gin").read_text()


def test_a_folder_that_no_macro_names_is_enough(model_folder, tmp_path, capsys):
  files = ["models/microworld.gin", "prompts/vocabulary.gin"]
  files += ["runs/prompt_tuning.gin"]
  flags = settings(
    model_folder, PROMPT_LENGTH=4, EVAL_PERIOD=2, TRAIN_STEPS=2
  ) + [f"--gin.train.train.model_dir={tmp_path}"]
  assert cli.main(["train", *(f"--gin_file={f}" for f in files), *flags]) == 0
  assert (tmp_path / "prompt.npy").is_file()
  assert "None" not in capsys.readouterr().out


def test_debug_shows_the_traceback(model_folder, tmp_path):
  with pytest.raises(ValueError, match="Did you mean PROMPT_LENGTH"):
    cli.main(
      ["train", "--debug", "--gin_file=runs/prompt_tuning.gin"]
      + settings(model_folder, PROMPT_LENGHT=3, MODEL_DIR=tmp_path)
    )


@pytest.mark.parametrize(
  "arguments", [["train", "--steps=3"], ["tune"], [], ["demo", "--gin.A=1"]]
)
def test_an_unknown_argument_ends_with_exit_code_2(arguments, capsys):
  with pytest.raises(SystemExit) as stop:
    cli.main(arguments)
  assert stop.value.code == 2
  assert "usage: prompt-tuning" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "eval", "infer", "pretrain"])
def test_help_shows_an_example(command, capsys):
  with pytest.raises(SystemExit) as stop:
    cli.main([command, "--help"])
  assert stop.value.code == 0
  assert f"prompt-tuning {command} --gin_file=" in capsys.readouterr().out


@pytest.mark.parametrize(
  "command", ["demo", "tasks", "inspect", "convert", "study", "ensemble"]
)
def test_help_fits_into_a_terminal(command, capsys):
  with pytest.raises(SystemExit):
    cli.main([command, "--help"])
  assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_reader_that_has_seen_enough_is_no_mistake():
  shown = subprocess.run(
    f"{sys.executable} -m prompt_tuning.cli tasks | head -1",
    shell=True,
    capture_output=True,
    text=True,
    check=True,
  )
  assert shown.stdout.startswith("microworld_boolq") and not shown.stderr


def test_a_refused_run_leaves_the_configuration_of_the_other(
  model_folder, tmp_path, capsys
):
  assert train(model_folder, tmp_path) == 0
  before = (tmp_path / "config.gin").read_text()
  assert train(model_folder, tmp_path, LEARNING_RATE=0.001) == 2
  assert "belongs to a run with updates by OPTIMIZER" in capsys.readouterr().err
  assert (tmp_path / "config.gin").read_text() == before


def test_an_empty_folder_name_is_refused(model_folder, capsys):
  assert train(model_folder, "") == 2
  assert "MODEL_DIR is empty" in capsys.readouterr().err


def test_data_and_a_task_are_one_too_many(model_folder, tmp_path, capsys):
  flags = settings(model_folder, MODEL_DIR=tmp_path)
  data = ["--data=a.jsonl", "--template={a}"]
  assert cli.main(["train", "--gin_file=runs/train.gin", *data, *flags]) == 2
  assert "MIXTURE_OR_TASK_NAME names another" in capsys.readouterr().err


def test_too_little_memory_says_what_to_lower(monkeypatch, capsys):
  def full(*_, **__):
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

  monkeypatch.setattr(gin_commands, "_run", full)
  assert cli.main(["train"]) == 2
  assert "The memory is full (RESOURCE_EX" in capsys.readouterr().err


def test_another_error_is_not_hidden(monkeypatch):
  def broken(*_, **__):
    raise RuntimeError("a bug")

  monkeypatch.setattr(gin_commands, "_run", broken)
  with pytest.raises(RuntimeError, match="a bug"):
    cli.main(["train"])


def test_a_prompt_of_another_model_needs_a_flag(model_folder, tmp_path, capsys):
  assert train(model_folder, tmp_path / "run") == 0
  other = toy_tasks.model(seed=1)
  folder = save_model(
    tmp_path / "other",
    other.config,
    other.params,
    vocabulary=tiny_t5.vocabulary(),
  )
  flags = [
    "eval",
    "--gin_file=models/microworld.gin",
    "--gin_file=runs/eval.gin",
    *settings(
      folder, PROMPT_PATH=tmp_path / "run", EVAL_OUTPUT_DIR=tmp_path / "e"
    ),
  ]
  assert cli.main(flags) == 2
  assert "ALLOW_OTHER_MODEL=True" in capsys.readouterr().err
  assert cli.main([*flags, "--gin.ALLOW_OTHER_MODEL=True"]) == 0


def test_lines_that_cannot_be_predicted_are_numbered(
  model_folder, tmp_path, capsys
):
  for text, message in (
    ("the cat\n\nmat\n", "line 2 is empty"),
    ("the cat\n" + "the cat " * 20, "line 2 has 121 tokens, more than"),
  ):
    (tmp_path / "lines.txt").write_text(text)
    code = cli.main(
      [
        "infer",
        "--gin_file=models/microworld.gin",
        "--gin_file=runs/infer.gin",
        *settings(
          model_folder,
          INPUT_FILE=tmp_path / "lines.txt",
          INFER_OUTPUT_DIR=tmp_path / "out",
        ),
      ]
    )
    assert code == 2 and message in capsys.readouterr().err


def test_a_model_that_is_not_the_gin_files_is_refused(
  model_folder, tmp_path, capsys
):
  code = cli.main(
    [
      "train",
      "--gin_file=models/t5_1_1_small.gin",
      "--gin_file=prompts/vocabulary.gin",
      "--gin_file=runs/prompt_tuning.gin",
      *settings(model_folder, MODEL_DIR=tmp_path),
    ]
  )
  assert code == 2
  assert "Use the gin file of this model" in capsys.readouterr().err


def test_a_loaded_model_is_adapted_to_a_text_file(model_folder, tmp_path):
  """`runs/lm_adaptation.gin`: its weights move, and the result loads."""
  text = tmp_path / "text.txt"
  text.write_text("\n".join(tiny_t5.TEXTS * 4))
  code = cli.main(
    [
      "pretrain",
      "--gin_file=models/pretrained.gin",
      "--gin_file=runs/lm_adaptation.gin",
      f"--gin.INITIAL_CHECKPOINT_PATH={model_folder}",
      f"--gin.TEXT_FILE={text}",
      f"--gin.MODEL_DIR={tmp_path / 'adapted'}",
      "--gin.TRAIN_STEPS=3",
      "--gin.BATCH_SIZE=4",
      "--gin.LENGTHS=(32, 32)",
      "--gin.STACK_LAYERS=True",  # what trains has its layers apart
    ]
  )
  assert code == 0
  before = pretrained.load(model_folder)
  after = pretrained.load(tmp_path / "adapted" / "model")
  assert after.config == before.config
  assert after.stored_hash != before.stored_hash
  assert after.vocabulary.encode("the cat") == before.vocabulary.encode(
    "the cat"
  )


def test_what_reads_only_tasks_of_this_project_does_without_tensorflow(
  tmp_path,
):
  checkpoints.save_prompt(tmp_path / "prompt", tiny_t5.rows(3, 128), {})
  (tmp_path / "lines.txt").write_text("is it true ?\n")
  asked = '{"asked": "is it true ?", "label": "yes"}\n'
  (tmp_path / "rows.jsonl").write_text(asked * 8)
  predict = [
    *("infer", "--gin_file=models/microworld.gin", "--gin_file=runs/infer.gin"),
    f"--gin.PROMPT_PATH={tmp_path / 'prompt'}",
    f"--gin.INFER_OUTPUT_DIR={tmp_path / 'out'}",
  ]
  rows = ["--data", str(tmp_path / "rows.jsonl"), "--template", "{asked}"]
  train = [
    *("train", "--gin_file=models/microworld.gin"),
    *("--gin_file=prompts/vocabulary.gin", "--gin_file=runs/prompt_tuning.gin"),
    *("--gin.TRAIN_STEPS=1", "--gin.PROMPT_LENGTH=2", "--gin.BATCH_SIZE=2"),
  ]
  same = ["--validation", str(tmp_path / "rows.jsonl")]
  commands = [
    ["inspect", "microworld"],
    [*predict, f"--gin.INPUT_FILE={tmp_path / 'lines.txt'}"],
    [*predict, *rows],
    [
      *(*train, "--gin.MIXTURE_OR_TASK_NAME=microworld_rte"),
      *("--gin.VALIDATION_SPLIT=None", f"--gin.MODEL_DIR={tmp_path / 'one'}"),
    ],
    [*train, *rows, *same, f"--gin.MODEL_DIR={tmp_path / 'other'}"],
  ]
  code = (
    "import sys\nfrom prompt_tuning import cli\n"
    f"for command in {commands!r}:\n"
    "  assert cli.main(command) == 0, command\n"
    "  loaded = {'tensorflow', 'seqio'} & sys.modules.keys()\n"
    "  assert not loaded, (command, loaded)\n"
  )
  printed_by(code)
