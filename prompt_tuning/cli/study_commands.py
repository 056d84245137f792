"""The commands of the paper's questions: they take flags and no gin files.

study     one of the paper's questions in miniature: runs, table, figure
ensemble  the vote of prompts that were trained earlier
"""

import argparse

from prompt_tuning.cli import data_flags
from prompt_tuning.cli.command import Command, Settings


def _study_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("name", nargs="?", metavar="NAME", help="of the study")
  parser.add_argument(
    "--dry_run",
    action="store_true",
    help="say what would be done and how long it takes, and stop",
  )
  parser.add_argument(
    "--reduced",
    action="store_true",
    help="a grid of a minute, under FOLDER/reduced, to see that all works",
  )
  parser.add_argument(
    "--pretrain",
    action="store_true",
    help="first pre-train the study's own models, where they are lacking",
  )
  parser.add_argument(
    "--model",
    default="microworld",
    metavar="PATH",
    help="a frozen model with the microworld's vocabulary, in place of the one "
    "that ships",
  )
  parser.add_argument(
    "--weights_dtype",
    metavar="TYPE",
    help="of the frozen weights, int8 for example; under FOLDER/TYPE",
  )
  parser.add_argument(
    "--output",
    default="runs/studies",
    metavar="FOLDER",
    help="of all studies and their models (default: %(default)s)",
  )


def _run_study(flags: argparse.Namespace, _: Settings) -> None:
  from prompt_tuning.study import study

  if flags.name is None:
    print(study.listing())
    return
  study.run(
    flags.name,
    flags.output,
    model=flags.model,
    weights_dtype=flags.weights_dtype,
    dry_run=flags.dry_run,
    is_reduced=flags.reduced,
    with_pretraining=flags.pretrain,
  )


def _ensemble_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--prompts",
    nargs="+",
    required=True,
    metavar="PATH",
    help="two or more prompts of one task",
  )
  parser.add_argument(
    "--model",
    metavar="PATH",
    help="the frozen model (default: the one that the prompts were trained on)",
  )
  parser.add_argument(
    "--task",
    metavar="NAME",
    help="a seqio task (default: the one that the prompts were trained on)",
  )
  parser.add_argument(
    "--task_module",
    metavar="MODULE",
    help="the Python module that registers a task of your own",
  )
  parser.add_argument(
    "--decoding",
    choices=("greedy", "rank"),
    default="greedy",
    help="the prompts vote on what they write, or on the labels of the task, "
    "ranked by their probability (default: %(default)s, as prompt-tuning eval)",
  )
  parser.add_argument(
    "--allow_other_model",
    action="store_true",
    help="take prompts that were trained for other weights",
  )
  parser.add_argument(
    "--split", default="validation", help="to score (default: %(default)s)"
  )
  parser.add_argument(
    "--lengths",
    nargs=2,
    type=_positive,
    default=(512, 16),
    metavar=("INPUTS", "TARGETS"),
    help="tokens at most (default: 512 16)",
  )
  parser.add_argument(
    "--output",
    metavar="FOLDER",
    help="writes metrics.json and predictions/ there",
  )
  data_flags.add(parser, "ensemble")


def _positive(text: str) -> int:
  if not text.isdigit() or not int(text):
    raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
  return int(text)


def _run_ensemble(flags: argparse.Namespace, _: Settings) -> None:
  from prompt_tuning import run_folder
  from prompt_tuning.data import registry
  from prompt_tuning.inference import ensemble, saved_ensemble

  if flags.output:  # before the work, not after it
    run_folder.RunFolder(flags.output, setting="--output")
  if flags.task_module:
    registry.import_modules(flags.task_module, "--task_module")
  own = data_flags.register(flags)
  if own and flags.task:
    raise ValueError(
      f"--data and its flags make the task themselves, and --task={flags.task} "
      "names another. Leave one of them out."
    )
  votes = saved_ensemble.score(
    flags.prompts,
    flags.model,
    own or flags.task,
    split=flags.split,
    lengths=tuple(flags.lengths),
    strategy=flags.decoding,
    allow_other_model=flags.allow_other_model,
  )
  print(ensemble.table(votes))
  if flags.output:
    print(f"Written: {saved_ensemble.write(votes, flags.output)}")


ALL = (
  Command(
    "study",
    "one of the paper's questions in miniature: runs, table, figure",
    _run_study,
    _study_flags,
    description="Runs a study on the microworld and writes results.jsonl, "
    "results.md and figure.png. The same command again goes on where it "
    "stopped. Without NAME it lists the studies.",
    examples="examples:\n  prompt-tuning study\n"
    "  prompt-tuning study length --dry_run\n"
    "  prompt-tuning study size --pretrain",
    resumes=True,
  ),
  Command(
    "ensemble",
    "the vote of prompts that were trained earlier",
    _run_ensemble,
    _ensemble_flags,
    description="Runs prompts of one task as one batch on their frozen model, "
    "and shows the average prompt, the best one (on the split that is scored) "
    "and their majority vote; by rank the average of their probabilities, too.",
    examples="example:\n"
    "  prompt-tuning train --gin_file=demo/prompt_tuning.gin "
    "\\\n    --gin.MIXTURE_OR_TASK_NAME=microworld_boolq --gin.MODEL_DIR=runs/"
    "five \\\n    --gin.SEEDS='(0, 1, 2, 3, 4)'\n"
    "  prompt-tuning ensemble --prompts runs/five/prompts/*",
  ),
)
"""The commands of the paper's questions."""
