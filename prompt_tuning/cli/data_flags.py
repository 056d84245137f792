"""The flags `--data`, `--template` … of a user's own files, as gin settings.

    --data train.jsonl --template "…" -> data/own_data.gin, DATA=…, TEMPLATE=…
    --data SuperGLUE/BoolQ            -> data/official.gin, DATA=…

A flag sets the macro of its gin file, so what was typed stands in config.gin.
"""

import argparse
import pathlib

_OFFICIAL = "data/official.gin"
_FLAGS = {
  "data": (
    "DATA",
    "the training rows: jsonl, csv, tsv or txt, also .gz, .bz2 or .xz; or the "
    "unzipped download folder of GLUE or SuperGLUE, or of one of their tasks",
  ),
  "validation": (
    "VALIDATION_DATA",
    "the rows to choose the best prompt by; without them a tenth of the "
    "training rows",
  ),
  "test": ("TEST_DATA", "the rows to score at the end"),
  "template": (
    "TEMPLATE",
    'the input: "premise: {premise} hypothesis: {hypothesis}", the fields in '
    "braces",
  ),
  "target": ("TARGET", 'the field of the answer (default: "label")'),
  "labels": (
    "LABELS",
    "the answers that there are, A,B,C, or value=word for another word to "
    "say: 0=no,1=yes; without it any text",
  ),
  "metric": (
    "METRIC",
    "accuracy, f1 (of the second label), macro_f1, matthews, pearson, "
    "spearman or squad; several with commas (default: accuracy)",
  ),
  "name": ("TASK_NAME", 'the name of the task (default: "own_data")'),
}


def add(parser: argparse.ArgumentParser) -> None:
  """Adds the flags to a command."""
  group = parser.add_argument_group("your own data")
  for flag, (macro, text) in _FLAGS.items():
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

  # A folder is a benchmark's own: its task is known, so nothing else is set.
  is_folder = "DATA" in typed and pathlib.Path(typed["DATA"]).is_dir()
  if flags.command == "infer" and not (is_folder and flags.submission):
    raise ValueError(
      "infer takes --data only with --submission, for the download folder of "
      "GLUE or SuperGLUE. It predicts the lines of --gin.INPUT_FILE=…; the "
      "predictions of your own rows are written by prompt-tuning eval."
    )
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
  if "DATA" not in typed and flags.command == "train":
    raise ValueError("Your own data needs --data, the rows to train on.")

  # What each command would have to be told besides, which the files tell.
  bindings = [f"{macro}={value!r}" for macro, value in typed.items()]
  if flags.skip_bad_rows:
    bindings.append("SKIP_BAD_ROWS=True")
  if "TEST_DATA" in typed and flags.command == "train":
    bindings.append('TEST_SPLITS=("test",)')
  if flags.command == "eval" and not {"DATA", "VALIDATION_DATA"} & set(typed):
    bindings.append("SPLIT='test'")
  return ["data/own_data.gin"], bindings


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
