"""The commands that take flags and no gin files.

    demo     the whole job in minutes, on the model that ships
    tasks    the tasks that there are, or one of them
    inspect  what a path is: format, shapes, hash, nearest words
    convert  a prompt or a model in another format
    study, ensemble  see `study_commands`

Each function adds one command to the parser and says what it runs.
"""

import argparse
import pathlib
import textwrap

from prompt_tuning import study_commands


def add(commands) -> None:
  """Adds all of them to the subparsers of `prompt-tuning`."""
  for make in (_demo, _tasks, _inspect, _convert, *study_commands.ALL):
    parser = make(commands)
    # The examples keep their lines; so the description is broken here.
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(parser.description or "", 78)
    add_debug(parser)


def add_debug(parser) -> None:
  """The flag that every command has."""
  parser.add_argument(
    "--debug", action="store_true", help="show the traceback of an error"
  )


def _demo(commands) -> argparse.ArgumentParser:
  parser = commands.add_parser(
    "demo",
    help="the whole job in minutes, on the model that ships",
    description="Prompt-tunes the frozen model that ships, on the CPU, and "
    "shows what came of it.",
  )
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
  parser.set_defaults(run=_run_demo)
  return parser


def _run_demo(flags) -> None:
  from prompt_tuning import demo  # heavy, and only for this command

  demo.demo(pathlib.Path(flags.output), with_model_tuning=flags.model_tuning)


def _tasks(commands) -> argparse.ArgumentParser:
  parser = commands.add_parser(
    "tasks",
    help="the tasks that there are, or one of them in full",
    description="Lists the tasks with their metrics and splits; with a name, "
    "shows where its rows come from, and the form of an example.",
    epilog="examples:\n  prompt-tuning tasks\n"
    "  prompt-tuning tasks super_glue_record",
  )
  parser.add_argument("name", nargs="?", help="a task or a mixture")
  parser.set_defaults(run=_run_tasks)
  return parser


def _run_tasks(flags) -> None:
  from prompt_tuning import task_list

  if flags.name:
    _print_facts(task_list.describe(flags.name))
  else:
    print("\n".join(task_list.summary()))


def _inspect(commands) -> argparse.ArgumentParser:
  parser = commands.add_parser(
    "inspect",
    help="what a path is: a prompt or a model, its format, shapes, hash",
    description="Says what is at a path. Known are prompts of this project, "
    "numpy files and PEFT's adapters; models of this project, of Hugging Face "
    "and of t5x (native or Orbax), here, under gs:// or on the hub.",
    epilog="examples:\n  prompt-tuning inspect microworld\n"
    "  prompt-tuning inspect runs/boolq --model microworld",
  )
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
  parser.set_defaults(run=_run_inspect)
  return parser


def _run_inspect(flags) -> None:
  from prompt_tuning import inspection

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


def _convert(commands) -> argparse.ArgumentParser:
  parser = commands.add_parser(
    "convert",
    help="a prompt or a model in another format",
    description="Writes what is at SOURCE in another format. A prompt can be "
    "written as prompt-tuning (a folder), peft (an adapter) or numpy (a file); "
    "a model as prompt-tuning, huggingface or t5x (a native checkpoint).",
    epilog="examples:\n"
    "  prompt-tuning convert runs/boolq boolq_adapter --to peft \\\n"
    "    --base_model google/t5-base-lm-adapt\n"
    "  prompt-tuning convert adapter prompts/boolq --to prompt-tuning\n"
    "  prompt-tuning convert google/t5-small-lm-adapt t5_small --to t5x",
  )
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
  parser.set_defaults(run=_run_convert)
  return parser


def _run_convert(flags) -> None:
  from prompt_tuning import inspection

  target = inspection.convert(
    flags.source,
    flags.target,
    flags.to,
    dtype=flags.dtype,
    base_model=flags.base_model,
  )
  print(f"Written: {target}")
