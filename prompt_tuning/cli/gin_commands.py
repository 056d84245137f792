"""The commands that gin files configure, as t5x's launchers are.

train     tune a prompt (or the model) on seqio tasks
eval      score saved prompts on a split
infer     predict the lines of a text file, or rows of one's own
serve     answer for saved prompts over HTTP
pretrain  pre-train or adapt a T5 on text
"""

import argparse
from collections.abc import Callable
import contextlib
import os

from prompt_tuning.cli import data_flags
from prompt_tuning.cli.command import Command, Settings

_TASK = "MIXTURE_OR_TASK_NAME="


def _run(
  flags: argparse.Namespace,
  bindings: Settings,
  choose: Callable[[], Callable],
  folder: str,
  *,
  reads_tasks: bool = True,
  joins: bool = False,
):
  """Configures by gin, and calls a function that fills a folder.

  Args:
    flags: of the command.
    bindings: gin settings.
    choose: tells what gin configures, when the files are parsed.
    folder: the macro that names the folder.
    reads_tasks: whether the function needs tasks.
    joins: whether several processes can do it together.
  """
  # gin is slow to import
  from prompt_tuning import configuration, processes

  # The files of the run, and what the flags of a user's own data stand for.
  if not flags.gin_file:
    raise ValueError(
      f"Give at least one --gin_file; see prompt-tuning {flags.command} --help."
    )
  files, bindings = [*flags.gin_file], [*bindings]
  if hasattr(flags, "data"):
    more_files, more = data_flags.settings(flags)
    if more_files and any(b.startswith(_TASK) for b in bindings):
      raise ValueError(
        "--data and its flags make the task themselves, and "
        "MIXTURE_OR_TASK_NAME names another. Leave one of them out."
      )
    files, bindings = [*files, *more_files], [*more, *bindings]
  paths = [path for path in flags.gin_search_paths.split(",") if path]
  configuration.configure(files, bindings, paths)
  with processes.together():  # who is refused as it joins tells the others
    configuration.join_processes(flags.command, is_possible=joins)
    return _fill(flags.command, choose, folder, reads_tasks=reads_tasks)


def _fill(
  command: str,
  choose: Callable[[], Callable],
  folder: str,
  *,
  reads_tasks: bool,
):
  """Calls what `_run` has configured; its result, and the folder."""
  from prompt_tuning import configuration, gin_macros, processes, run_folder

  modules = gin_macros.macro(gin_macros.TASK_MODULES)
  if modules is not None and reads_tasks:
    from prompt_tuning.data import registry

    registry.import_modules(modules, gin_macros.TASK_MODULES)
  function = choose()

  # What was set stands in the folder from the beginning, what was used at the
  # end. An evaluation may lie in the folder of the run, whose own file stays.
  where = gin_macros.macro(folder)
  if where is None or not processes.is_first():
    return configuration.call(function), where
  place = run_folder.RunFolder(where, setting=folder)
  trains = folder == "MODEL_DIR"
  config = place.path / f"{'config' if trains else command}.gin"
  with place.alone() if trains else contextlib.nullcontext():
    if not config.exists():  # the run may be refused, and this one is another's
      with place.writing():
        configuration.save(config, operative=False)
    outcome = configuration.call(function)
    with place.writing():
      configuration.save(config, operative=True)
  return outcome, where


def _train(flags: argparse.Namespace, bindings: Settings) -> None:
  from prompt_tuning.training import train

  trained, where = _run(
    flags, bindings, lambda: train.train, "MODEL_DIR", joins=True
  )
  for results in trained.results:
    _print_results(results)
  _print_folder(where)


def _eval(flags: argparse.Namespace, bindings: Settings) -> None:
  from prompt_tuning.inference import jobs

  results, where = _run(
    *(flags, bindings, lambda: jobs.evaluate_prompts, "EVAL_OUTPUT_DIR"),
    joins=True,
  )
  _print_results(results)
  rows = flags.data and not os.path.isdir(flags.data)
  if rows and not (flags.validation or flags.test):
    print("That is the part of --data that is held out; --test scores a file.")
  _print_folder(where)


def _infer(flags: argparse.Namespace, bindings: Settings) -> None:
  from prompt_tuning import processes
  from prompt_tuning.inference import jobs, submission

  def choose():
    if flags.submission:
      return submission.write
    return jobs.infer_rows if _has_rows() else jobs.infer_lines

  written, where = _run(
    *(flags, bindings, choose, "INFER_OUTPUT_DIR"),
    reads_tasks=flags.submission,
    joins=True,
  )
  if isinstance(written, os.PathLike) and processes.is_first():
    with open(written, encoding="utf-8") as file:
      print(f"{sum(1 for _ in file):,} predictions.")
  _print_folder(where)


def _has_rows() -> bool:
  """Whether rows of one's own are to be predicted, or the lines of a file.

  Raises:
    ValueError: both are.
  """
  from prompt_tuning import gin_macros

  rows, lines = map(gin_macros.macro, ("DATA", "INPUT_FILE"))
  if rows and lines:
    raise ValueError(
      f"--data {rows} and INPUT_FILE={lines} both name what to predict. Leave "
      "one of them out."
    )
  return rows is not None


def _serve(flags: argparse.Namespace, bindings: Settings) -> None:
  from prompt_tuning.cli import serving

  settings, _ = _run(
    *(flags, bindings, serving.settings, "SERVE_DIR"), reads_tasks=False
  )
  serving.serve(settings, flags)


def _pretrain(flags: argparse.Namespace, bindings: Settings) -> None:
  from prompt_tuning.training import pretrain

  _, where = _run(flags, bindings, lambda: pretrain.pretrain, "MODEL_DIR")
  _print_folder(where)
  print(f"The model is {where}/model: --gin.INITIAL_CHECKPOINT_PATH takes it.")


def _print_folder(where: str | None) -> None:
  if where is not None:
    print(f"Everything is in {where}.")


def _print_results(results) -> None:
  """The scores of each task, then the means of benchmarks."""
  from prompt_tuning.data import scoring
  from prompt_tuning.inference import evaluate

  for result in results:
    values = [
      f"{name} {value:.0f} of {len(result.predictions)}"
      if name == scoring.INVALID
      else f"{name} {value:.2f}"
      for name, value in result.metrics.items()
    ]
    shown = ", ".join(values) or "no public answers"
    print(f"{result.task} ({result.split}): {shown}")
  for name, value in evaluate.averages(results).items():
    print(f"{name}: {value:.2f}")


def _gin_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--gin_file",
    action="append",
    default=[],
    metavar="FILE",
    help="a gin file, from the package (models/…, prompts/…, runs/…) or a "
    "path; repeat it to compose a run, later files override earlier ones",
  )
  parser.add_argument(
    "--gin_search_paths",
    default="",
    metavar="A,B",
    help="folders that gin files are looked for in first",
  )
  parser.add_argument(
    "--gin.NAME",
    dest="literally",
    metavar="VALUE",
    help="sets a macro or parameter, for example --gin.PROMPT_LENGTH=20",
  )


def _train_flags(parser: argparse.ArgumentParser) -> None:
  _gin_flags(parser)
  data_flags.add(parser, "train")


def _eval_flags(parser: argparse.ArgumentParser) -> None:
  _gin_flags(parser)
  data_flags.add(parser, "eval")


def _serve_flags(parser: argparse.ArgumentParser) -> None:
  from prompt_tuning.cli import serving

  _gin_flags(parser)
  serving.add_flags(parser)


def _infer_flags(parser: argparse.ArgumentParser) -> None:
  _gin_flags(parser)
  data_flags.add(parser, "infer")
  parser.add_argument(
    "--submission",
    action="store_true",
    help="predict the hidden test split of MIXTURE_OR_TASK_NAME instead, into "
    "the files that GLUE and SuperGLUE take",
  )


ALL = (
  Command(
    "train",
    "tune a prompt (or the model) on seqio tasks",
    _train,
    _train_flags,
    takes_settings=True,
    resumes=True,
    examples="""\
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
    --labels entailment=yes,neutral=maybe,contradiction=no --metric accuracy

Running the same command again goes on from the last checkpoint.""",
  ),
  Command(
    "eval",
    "score saved prompts on a split of a task",
    _eval,
    _eval_flags,
    takes_settings=True,
    examples="""\
example:
  prompt-tuning eval --gin_file=models/microworld.gin \\
    --gin_file=runs/eval.gin --gin.SPLIT=test \\
    --gin.MIXTURE_OR_TASK_NAME=microworld_boolq --gin.PROMPT_PATH=runs/boolq \\
    --gin.EVAL_OUTPUT_DIR=runs/boolq/test""",
  ),
  Command(
    "infer",
    "predict the lines of a text file, or rows of your own",
    _infer,
    _infer_flags,
    takes_settings=True,
    examples="""\
examples:
  prompt-tuning infer --gin_file=models/microworld.gin \\
    --gin_file=runs/infer.gin --gin.PROMPT_PATH=runs/boolq \\
    --gin.INPUT_FILE=questions.txt --gin.INFER_OUTPUT_DIR=runs/boolq/answers

  prompt-tuning infer --gin_file=models/microworld.gin \\
    --gin_file=runs/infer.gin --gin.PROMPT_PATH=runs/mine \\
    --data new.csv --template "premise: {premise} hypothesis: {hypothesis}" \\
    --gin.SCORES=True --gin.INFER_OUTPUT_DIR=runs/mine/new

  prompt-tuning infer --submission --data SuperGLUE/BoolQ \\
    --gin_file=models/t5_1_1_base.gin --gin_file=runs/infer.gin \\
    --gin.INITIAL_CHECKPOINT_PATH=google/t5-base-lm-adapt \\
    --gin.PROMPT_PATH=runs/boolq --gin.INFER_OUTPUT_DIR=runs/boolq/hand_in""",
  ),
  Command(
    "serve",
    "answer for saved prompts over HTTP, as OpenAI's API does",
    _serve,
    _serve_flags,
    takes_settings=True,
    examples="""\
examples:
  prompt-tuning serve --gin_file=models/microworld.gin \\
    --gin_file=runs/serve.gin --prompts runs

  prompt-tuning serve --gin_file=models/microworld.gin \\
    --gin_file=runs/serve.gin --prompt boolq=runs/boolq \\
    --prompt rte=runs/rte --host 0.0.0.0 --api_key_file keys.txt

SIGTERM and Ctrl-C answer what was accepted, and end.""",
  ),
  Command(
    "pretrain",
    "pre-train or adapt a T5 on text",
    _pretrain,
    _gin_flags,
    takes_settings=True,
    resumes=True,
    examples="""\
example (makes the model that ships again):
  prompt-tuning pretrain --gin_file=demo/pretrain_microworld.gin \\
    --gin.MODEL_DIR=runs/microworld""",
  ),
)
"""The commands that gin files configure."""
