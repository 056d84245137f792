"""The flags `--data`, `--template` … of a user's own files, as gin settings.

    --data train.jsonl --template "…" -> data/own_data.gin, DATA=…, TEMPLATE=…
    --data SuperGLUE/BoolQ            -> data/official.gin, DATA=…

A flag sets the macro of its gin file, so what was typed stands in config.gin.
"""

import argparse
import pathlib

_OFFICIAL = "data/official.gin"
_FILES = "jsonl, json, csv, tsv or txt, also .gz, .bz2 or .xz"
_FOLDER = "the unzipped download folder of GLUE or SuperGLUE, or of one task"
_ANSWERS = (
  "the answers that there are, A,B,C, or value=word for another word to say: "
  "0=no,1=yes; without it any text"
)

# Each flag: its macro, and what it says under a command, or under all.
_FLAGS: dict[str, tuple[str, dict[str, str] | str]] = {
  "data": (
    "DATA",
    {
      "train": f"the rows to train on: {_FILES}; or {_FOLDER}",
      "infer": f"the rows to predict: {_FILES}; with --submission {_FOLDER}",
      "": f"the rows that were trained on: {_FILES}. The tenth that was held "
      f"out of them is scored, unless another split is named; or {_FOLDER}",
    },
  ),
  "validation": (
    "VALIDATION_DATA",
    {
      "train": "the rows to choose the best prompt by; without them a tenth "
      "of the training rows",
      "": "the rows to score, as the split validation",
    },
  ),
  "test": (
    "TEST_DATA",
    {
      "train": "the rows to score at the end",
      "eval": "the rows to score, as the split test; where --data or "
      "--validation is given too, add --gin.SPLIT=test",
      "": "the rows to score, with --split test",
    },
  ),
  "template": (
    "TEMPLATE",
    {
      "train": 'the input: "premise: {premise} hypothesis: {hypothesis}", the '
      "fields in braces",
      "": "the input, as the prompt was trained on it: "
      '"premise: {premise} hypothesis: {hypothesis}", the fields in braces',
    },
  ),
  "target": ("TARGET", 'the field of the answer (default: "label")'),
  "labels": (
    "LABELS",
    {
      "infer": "the answers that decode.Rank() chooses among, A,B,C, or "
      "value=word to write a value where the model says a word: 0=no,1=yes",
      "": _ANSWERS,
    },
  ),
  "metric": (
    "METRIC",
    "accuracy, f1 (of the second label), macro_f1, matthews, pearson, "
    "spearman or squad; several with commas (default: accuracy)",
  ),
  "name": ("TASK_NAME", 'the name of the task (default: "own_data")'),
}

_OF_INFER = {"DATA", "TEMPLATE", "LABELS"}


def add(parser: argparse.ArgumentParser, command: str) -> None:
  """Adds the flags to a command, with what they mean there.

  What `infer` has no use for is taken by it to be refused by name.
  """
  group = parser.add_argument_group("your own data")
  for flag, (macro, texts) in _FLAGS.items():
    text = texts if isinstance(texts, str) else texts.get(command, texts[""])
    if command == "infer" and macro not in _OF_INFER:
      text = argparse.SUPPRESS
    group.add_argument(f"--{flag}", metavar=macro, help=text)
  group.add_argument(
    "--skip_bad_rows",
    action="store_true",
    help="leave rows out that cannot be used, and count them",
  )


def settings(flags: argparse.Namespace) -> tuple[list[str], list[str]]:
  """The gin files and bindings that the flags stand for.

  Raises:
    ValueError: a flag that needs another one.
  """
  typed = {
    macro: getattr(flags, flag)
    for flag, (macro, _) in _FLAGS.items()
    if getattr(flags, flag) is not None
  }
  if not typed and not flags.skip_bad_rows:
    return [], []

  if not typed.get("DATA", "a file"):
    raise ValueError("--data is empty; give a file, or a folder of GLUE.")

  # A folder is a benchmark's own: its task is known, so nothing else is set.
  is_folder = "DATA" in typed and pathlib.Path(typed["DATA"]).is_dir()
  if flags.command == "infer":
    _check_for_infer(typed, is_folder, flags.submission)
  if is_folder:
    others = [
      f"--{flag}"
      for flag, (macro, _) in _FLAGS.items()
      if macro in typed and macro != "DATA"
    ]
    if others or flags.skip_bad_rows:
      raise ValueError(
        f"--data {typed['DATA']} is a folder, so its task is that of GLUE or "
        f"SuperGLUE, and {', '.join(others or ['--skip_bad_rows'])} cannot be "
        "set. Give a file for a task of your own."
      )
    return [_OFFICIAL], [f"DATA={typed['DATA']!r}"]

  # Files make a task of their own, which needs to be told how it reads them.
  if "TEMPLATE" not in typed:
    raise ValueError(
      "Your own data needs a --template that makes the input of a row's "
      'fields, for example --template "premise: {premise} hypothesis: '
      '{hypothesis}".'
    )
  needs = {"train": "to train on", "infer": "to predict"}
  if "DATA" not in typed and flags.command in needs:
    raise ValueError(
      f"Your own data needs --data, the rows {needs[flags.command]}."
    )

  # What each command would have to be told besides, which the files tell.
  bindings = [f"{macro}={value!r}" for macro, value in typed.items()]
  if flags.skip_bad_rows:
    bindings.append("SKIP_BAD_ROWS=True")
  if "TEST_DATA" in typed and flags.command == "train":
    bindings.append('TEST_SPLITS=("test",)')
  if flags.command == "eval" and not {"DATA", "VALIDATION_DATA"} & set(typed):
    bindings.append("SPLIT='test'")
  return ["data/own_data.gin"], bindings


def _check_for_infer(
  typed: dict[str, str], is_folder: bool, is_submission: bool
) -> None:
  """Refuses what a prediction has no use for."""
  if is_folder != is_submission and "DATA" in typed:
    raise ValueError(
      f"--data {typed['DATA']} is a "
      + (
        "folder, and infer takes one with --submission only. Name the file of "
        "your own rows, or add --submission for the hidden test splits of "
        "GLUE and SuperGLUE."
        if is_folder
        else "file, and --submission takes the folder of GLUE or SuperGLUE. "
        "Leave --submission out to predict your own rows."
      )
    )
  unused = [
    f"--{flag}"
    for flag, (macro, _) in _FLAGS.items()
    if macro in typed and macro not in _OF_INFER
  ]
  if unused:
    raise ValueError(
      "infer predicts the rows of --data by --template, whether they have "
      f"answers or not, and makes no use of {', '.join(unused)}. Leave that "
      "out; prompt-tuning eval scores rows with answers."
    )


def register(flags: argparse.Namespace) -> str | None:
  """Registers the task that the flags stand for, for a command without gin.

  Returns:
    The task's name; None without such flags.

  Raises:
    ValueError: a flag that needs another one, or one that cannot be used.
  """
  files, bindings = settings(flags)
  if not files:
    return None
  from prompt_tuning import configuration
  from prompt_tuning.tasks import own_data

  is_folder = files == [_OFFICIAL]
  configuration.configure(files, bindings, ())
  return configuration.call(
    own_data.official_task if is_folder else own_data.register
  )
