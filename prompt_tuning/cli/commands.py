"""The commands that take flags and no gin files.

demo     the whole job in minutes, on the model that ships
tasks    the tasks that there are, or one of them
inspect  what a path is: format, shapes, hash, nearest words
convert  a prompt or a model in another format
similar  which saved prompts are like another one
"""

import argparse
import pathlib

from prompt_tuning.cli.command import Command, Settings


def _demo_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--output",
    default="runs/demo",
    metavar="FOLDER",
    help="where prompts, scores and pictures go (default: %(default)s)",
  )
  parser.add_argument(
    "--model_tuning",
    action="store_true",
    help="run model tuning too instead of quoting the shipped results",
  )


def _run_demo(flags: argparse.Namespace, _: Settings) -> None:
  from prompt_tuning.cli import demo

  demo.demo(pathlib.Path(flags.output), with_model_tuning=flags.model_tuning)


def _tasks_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("name", nargs="?", help="a task or a mixture")


def _run_tasks(flags: argparse.Namespace, _: Settings) -> None:
  from prompt_tuning.cli import task_list

  if flags.name:
    _print_facts(task_list.describe(flags.name))
  else:
    print("\n".join(task_list.summary()))


def _inspect_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("path", help="a file, a folder or a name")
  parser.add_argument(
    "--model",
    metavar="PATH",
    help="the frozen model of a prompt: shows the pieces of its vocabulary "
    "nearest to each position, and their clusters",
  )
  parser.add_argument(
    "--neighbors",
    type=int,
    default=5,
    metavar="N",
    help="pieces shown for each position (default: %(default)s)",
  )


def _run_inspect(flags: argparse.Namespace, _: Settings) -> None:
  from prompt_tuning.cli import inspection

  _print_facts(inspection.inspect(flags.path, flags.model, flags.neighbors))


def _print_facts(facts, indent: str = "") -> None:
  width = max((len(str(name)) for name in facts), default=0)
  for name, value in facts.items():
    if isinstance(value, dict) and value:
      print(f"{indent}{name}")
      _print_facts(value, f"{indent}  ")
    else:
      shown = "" if value in ({}, None) else value
      print(f"{indent}{name:<{width}}  {shown}".rstrip())


def _convert_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("source", help="a prompt or a model of any format")
  parser.add_argument("target", help="the folder (or numpy file) to write")
  parser.add_argument("--to", required=True, metavar="FORMAT", help="see above")
  parser.add_argument(
    "--dtype",
    choices=("float32", "bfloat16", "float16"),
    help="of a model's weights (default: as they are stored)",
  )
  parser.add_argument(
    "--base_model",
    default="",
    metavar="NAME",
    help="for peft: the frozen model, a folder or a name on the hub",
  )


def _run_convert(flags: argparse.Namespace, _: Settings) -> None:
  from prompt_tuning.cli import inspection

  target = inspection.convert(
    flags.source,
    flags.target,
    flags.to,
    dtype=flags.dtype,
    base_model=flags.base_model,
  )
  print(f"Written: {target}")


def _similar_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("prompt", help="a prompt: a run's folder, a file …")
  parser.add_argument(
    "sources",
    nargs="+",
    help="prompts of other tasks, or folders with them at any depth",
  )
  parser.add_argument(
    "--allow_other_model",
    action="store_true",
    help="take prompts that were trained for other weights",
  )
  parser.add_argument(
    "--output", metavar="FILE", help="writes the table there, as jsonl"
  )


def _run_similar(flags: argparse.Namespace, _: Settings) -> None:
  from prompt_tuning import storage
  from prompt_tuning.prompts import similarity

  ranked = similarity.rank(
    flags.prompt, flags.sources, allow_other_model=flags.allow_other_model
  )
  print(similarity.table(ranked))
  start = similarity.start_from(ranked[0].prompt)
  print(f"\nTo start from the first of them:\n{start}")
  if flags.output:
    storage.write_jsonl(flags.output, [one.row for one in ranked])


ALL = (
  Command(
    "demo",
    "the whole job in minutes, on the model that ships",
    _run_demo,
    _demo_flags,
    description="Prompt-tunes the frozen model that ships, on the CPU, and "
    "shows what came of it.",
    resumes=True,
  ),
  Command(
    "tasks",
    "the tasks that there are, or one of them in full",
    _run_tasks,
    _tasks_flags,
    description="Lists the tasks with their metrics and splits; with a name, "
    "shows where its rows come from, and the form of an example.",
    examples="examples:\n  prompt-tuning tasks\n"
    "  prompt-tuning tasks super_glue_record",
  ),
  Command(
    "inspect",
    "what a path is: a prompt or a model, its format, shapes, hash",
    _run_inspect,
    _inspect_flags,
    description="Says what is at a path. Known are prompts of this project, "
    "numpy files and PEFT's adapters; models of this project, of Hugging Face "
    "and of t5x (native or Orbax), here, under gs:// or on the hub.",
    examples="examples:\n  prompt-tuning inspect microworld\n"
    "  prompt-tuning inspect runs/boolq --model microworld",
  ),
  Command(
    "convert",
    "a prompt or a model in another format",
    _run_convert,
    _convert_flags,
    description="Writes what is at SOURCE in another format. A prompt can be "
    "written as prompt-tuning (a folder), peft (an adapter) or numpy (a file); "
    "a model as prompt-tuning, huggingface or t5x (a native checkpoint).",
    examples="examples:\n"
    "  prompt-tuning convert runs/boolq boolq_adapter --to peft \\\n"
    "    --base_model google/t5-base-lm-adapt\n"
    "  prompt-tuning convert adapter prompts/boolq --to prompt-tuning\n"
    "  prompt-tuning convert google/t5-small-lm-adapt t5_small --to t5x",
  ),
  Command(
    "similar",
    "which saved prompts are like another one: where to start from",
    _run_similar,
    _similar_flags,
    description="Ranks saved prompts by the cosine of their mean rows with "
    "those of PROMPT. Trained briefly on a new task, PROMPT is most like the "
    "prompts of tasks that help it, and training starts from the best of them "
    "(SPoT).",
    examples="example:\n"
    "  prompt-tuning train --gin_file=demo/prompt_tuning.gin \\\n"
    "    --gin.MIXTURE_OR_TASK_NAME=microworld_mrpc --gin.TRAIN_STEPS=50 \\\n"
    "    --gin.MODEL_DIR=runs/brief\n"
    "  prompt-tuning similar runs/brief runs/sources",
  ),
)
"""The commands that take paths or nothing."""
