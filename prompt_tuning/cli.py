"""The command `prompt-tuning`.

    train     tune a prompt (or the model) on seqio tasks
    eval      score saved prompts on a split
    infer     predict the lines of a text file
    pretrain  pre-train or adapt a T5 on text
    demo, tasks, inspect, convert  see `commands`
    study, ensemble                see `study_commands`

A mistake of the user ends in one clear line and exit code 2; `--debug` shows
the traceback as well.
"""

import argparse
from collections.abc import Sequence
import importlib
import logging
import os
import re
import sys

import prompt_tuning
from prompt_tuning import commands as plain_commands
from prompt_tuning import data_flags

_EXAMPLES = {
  "train": """\
examples:
  prompt-tuning train --gin_file=demo/prompt_tuning.gin \\
    --gin.MIXTURE_OR_TASK_NAME=microworld_boolq --gin.MODEL_DIR=runs/boolq

  prompt-tuning train --gin_file=models/microworld.gin \\
    --gin_file=prompts/class_labels.gin --gin_file=runs/prompt_tuning.gin \\
    --gin.MIXTURE_OR_TASK_NAME=microworld_boolq --gin.MODEL_DIR=runs/boolq \\
    --gin.TRAIN_STEPS=300 --gin.EVAL_PERIOD=100

  prompt-tuning train --gin_file=models/microworld.gin \\
    --gin_file=prompts/class_labels.gin --gin_file=runs/prompt_tuning.gin \\
    --gin.MODEL_DIR=runs/mine --data train.jsonl --validation dev.jsonl \\
    --template "premise: {premise} hypothesis: {hypothesis}" \\
    --labels entailment,neutral,contradiction --metric accuracy

Running the same command again goes on from the last checkpoint.""",
  "eval": """\
example:
  prompt-tuning eval --gin_file=models/microworld.gin \\
    --gin_file=runs/eval.gin --gin.SPLIT=test \\
    --gin.MIXTURE_OR_TASK_NAME=microworld_boolq --gin.PROMPT_PATH=runs/boolq \\
    --gin.EVAL_OUTPUT_DIR=runs/boolq/test""",
  "infer": """\
example:
  prompt-tuning infer --gin_file=models/microworld.gin \\
    --gin_file=runs/infer.gin --gin.PROMPT_PATH=runs/boolq \\
    --gin.INPUT_FILE=questions.txt --gin.INFER_OUTPUT_DIR=runs/boolq/answers

  prompt-tuning infer --submission --data SuperGLUE/BoolQ \\
    --gin_file=models/t5_1_1_base.gin --gin_file=runs/infer.gin \\
    --gin.INITIAL_CHECKPOINT_PATH=google/t5-base-lm-adapt \\
    --gin.PROMPT_PATH=runs/boolq --gin.INFER_OUTPUT_DIR=runs/boolq/hand_in""",
  "pretrain": """\
example (makes the model that ships again):
  prompt-tuning pretrain --gin_file=demo/pretrain_microworld.gin \\
    --gin.MODEL_DIR=runs/microworld""",
}
_TASK = "MIXTURE_OR_TASK_NAME="
_RESUMES = ("train", "pretrain", "demo", "study")
_SUMMARIES = {
  "train": "tune a prompt (or the model) on seqio tasks",
  "eval": "score saved prompts on a split of a task",
  "infer": "predict the lines of a text file",
  "pretrain": "pre-train or adapt a T5 on text",
}


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  parser = _parser()
  known, rest = parser.parse_known_args(arguments)
  logging.basicConfig(
    level=logging.WARNING, format="%(message)s", stream=sys.stderr
  )
  import_quietly()
  try:
    if hasattr(known, "run"):
      if rest:
        parser.error(f"unknown argument {rest[0]}")
      known.run(known)
      return 0
    if known.literally is not None:
      rest.append(f"--gin.NAME={known.literally}")
    return _run(known, _bindings(rest, parser))
  except BrokenPipeError:  # `… | head` has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (ValueError, OSError, MemoryError, RuntimeError) as error:
    if known.debug or not _is_for_users(error):
      raise
    print(f"prompt-tuning {known.command}: {_plain(error)}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    resumes = known.command in _RESUMES
    hint = " The same command goes on where it was." if resumes else ""
    print(f"Stopped.{hint}", file=sys.stderr)
    return 130


def _is_for_users(error: Exception) -> bool:
  """Whether a message says it all: bad input, or too little memory."""
  full = "RESOURCE_EXHAUSTED" in str(error) or isinstance(error, MemoryError)
  if full:
    error.args = (
      f"The memory is full ({str(error).splitlines()[0][:200]}). Lower "
      "BATCH_SIZE, EVAL_BATCH_SIZE, TASK_FEATURE_LENGTHS or PROMPT_LENGTH, or "
      "load the frozen weights with WEIGHTS_DTYPE=bfloat16.",
    )
  return full or isinstance(error, ValueError | OSError)


def import_quietly() -> None:
  """Imports TensorFlow behind seqio, which greets on file descriptor 2."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  terminal = os.dup(2)
  with open(os.devnull, "wb") as nowhere:
    os.dup2(nowhere.fileno(), 2)
    try:
      importlib.import_module("prompt_tuning.data")
    finally:
      os.dup2(terminal, 2)
      os.close(terminal)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning",
    description="Prompt tuning of a frozen T5 (Lester et al. 2021).",
  )
  parser.add_argument(
    "--version", action="version", version=prompt_tuning.__version__
  )
  commands = parser.add_subparsers(dest="command", required=True)
  for name, summary in _SUMMARIES.items():
    command = commands.add_parser(
      name,
      help=summary,
      description=f"{summary[0].upper()}{summary[1:]}.",
      epilog=_EXAMPLES[name],
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,  # --gin.N is no short form of the --gin.NAME below
    )
    command.add_argument(
      "--gin_file",
      action="append",
      default=[],
      metavar="FILE",
      help="a gin file, from the package (models/…, prompts/…, runs/…) or a "
      "path; repeat it to compose a run, later files override earlier ones",
    )
    command.add_argument(
      "--gin_search_paths",
      default="",
      metavar="A,B",
      help="folders that gin files are looked for in first",
    )
    command.add_argument(
      "--gin.NAME",
      dest="literally",
      metavar="VALUE",
      help="sets a macro or parameter, for example --gin.PROMPT_LENGTH=20",
    )
    plain_commands.add_debug(command)
    if name in ("train", "eval", "infer"):
      data_flags.add(command)
    if name == "infer":
      command.add_argument(
        "--submission",
        action="store_true",
        help="predict the hidden test split of MIXTURE_OR_TASK_NAME instead, "
        "into the files that GLUE and SuperGLUE take",
      )
  plain_commands.add(commands)
  return parser


def _bindings(rest: Sequence[str], parser) -> list[str]:
  """`--gin.NAME=value` and `--gin.NAME value` as gin bindings."""
  bindings, queue = [], list(rest)
  while queue:
    flag = queue.pop(0)
    if not flag.startswith("--gin."):
      parser.error(f"unknown argument {flag}; settings are --gin.NAME=value")
    binding = flag.removeprefix("--gin.")
    if "=" not in binding and queue and not queue[0].startswith("--"):
      binding += "=" + queue.pop(0)
    bindings.append(binding)
  return bindings


def _run(known: argparse.Namespace, bindings: Sequence[str]) -> int:
  """Configures by gin and calls the command's function."""
  from prompt_tuning import (
    configuration,
    jobs,
    pretrain,
    run_folder,
    submission,
    train,
  )

  if not known.gin_file:
    raise ValueError(
      f"Give at least one --gin_file; see prompt-tuning {known.command} --help."
    )
  paths = [path for path in known.gin_search_paths.split(",") if path]
  files = known.gin_file
  if known.command in ("train", "eval", "infer"):
    more_files, more = data_flags.settings(known)
    if more_files and any(b.startswith(_TASK) for b in bindings):
      raise ValueError(
        "--data and its flags make the task themselves, and "
        "MIXTURE_OR_TASK_NAME names another. Leave one of them out."
      )
    files, bindings = [*files, *more_files], [*more, *bindings]
  configuration.configure(files, bindings, paths)
  function, folder = {
    "train": (train.train, "MODEL_DIR"),
    "eval": (jobs.evaluate_prompts, "EVAL_OUTPUT_DIR"),
    "infer": (jobs.infer_lines, "INFER_OUTPUT_DIR"),
    "pretrain": (pretrain.pretrain, "MODEL_DIR"),
  }[known.command]
  if known.command == "infer" and known.submission:
    function = submission.write
  where = configuration.macro(folder)
  config = None
  if where is not None:
    place = run_folder.RunFolder(where, setting=folder).path
    # An evaluation may lie in the folder of the run, whose own file stays.
    name = "config" if folder == "MODEL_DIR" else known.command
    config = place / f"{name}.gin"
    if not config.exists():  # the run may be refused, and this one is another's
      configuration.save(config, operative=False)
  outcome = configuration.call(function)
  if config is not None:
    configuration.save(config, operative=True)
  if known.command == "train":
    for results in outcome.results:
      _print_results(results)
  elif known.command == "eval":
    _print_results(outcome)
  if where is not None:
    print(f"Everything is in {where}.")
  return 0


def _print_results(results) -> None:
  from prompt_tuning import data, evaluate

  for result in results:
    values = [
      f"{name} {value:.0f} of {len(result.predictions)}"
      if name == data.INVALID
      else f"{name} {value:.2f}"
      for name, value in result.metrics.items()
    ]
    found = ", ".join(values) or "no public answers"
    print(f"{result.task} ({result.split}): {found}")
  for name, value in evaluate.averages(results).items():
    print(f"{name}: {value:.2f}")


def _plain(error: Exception) -> str:
  """The message without what gin adds of calls and files."""
  text = re.split(r"\n\s+In (call|file|bindings)", str(error))[0].strip()
  return text


if __name__ == "__main__":
  sys.exit(main())
