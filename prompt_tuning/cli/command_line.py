"""The command line: arguments -> a `Command` -> its function -> an exit code.

A mistake of the user ends in one clear line and exit code 2; `--debug` shows
the traceback as well.
"""

import argparse
from collections.abc import Sequence
import logging
import os
import re
import signal
import sys
import threading

import prompt_tuning
from prompt_tuning import spelling
from prompt_tuning.cli import (
  commands,
  compilations,
  gin_commands,
  study_commands,
)
from prompt_tuning.cli.command import Command

COMMANDS = (*gin_commands.ALL, *commands.ALL, *study_commands.ALL)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  parse = parser()
  known, rest = parse.parse_known_args(arguments)
  command = known.of
  logging.basicConfig(
    level=logging.WARNING, format="%(message)s", stream=sys.stderr
  )
  # Read when the first library that logs as TensorFlow does is loaded.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  before = _on_termination(_terminate)
  try:
    compilations.keep(known.compilation_cache)
    for flag in rest:
      if flag.startswith("--") and not flag.startswith("--gin."):
        parse.error(_unknown(flag, command))
    if rest and not command.takes_settings:
      parse.error(_unknown(rest[0], command))
    if command.takes_settings and known.literally is not None:
      rest.append(f"--gin.NAME={known.literally}")
    command.run(known, bindings_of(rest, parse))
    return 0
  except BrokenPipeError:  # `… | head` has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (ValueError, OSError, MemoryError, RuntimeError) as error:
    if known.debug or not _is_for_users(error):
      raise
    print(f"prompt-tuning {command.name}: {_plain(error)}", file=sys.stderr)
    joined = sys.modules.get("prompt_tuning.processes")  # slow to import
    return joined.leave(2) if joined else 2
  except KeyboardInterrupt as stopped:
    hint = "Stopped."
    if command.resumes:
      hint += " The same command goes on from the last checkpoint, if any."
    print(str(stopped) or hint, file=sys.stderr)
    return 128 + getattr(stopped, "number", signal.SIGINT)
  finally:
    _on_termination(before)


def _terminate(number: int, frame) -> None:
  """A batch system's signal ends a command as Ctrl-C does."""
  del frame
  stopped = KeyboardInterrupt()
  stopped.number = number  # pyright: ignore[reportAttributeAccessIssue]
  raise stopped


def _on_termination(handler):
  """Installs a handler of SIGTERM, where signals can be handled at all."""
  if threading.current_thread() is threading.main_thread():
    return signal.signal(signal.SIGTERM, handler)
  return None


def parser() -> argparse.ArgumentParser:
  """The parser of all commands; `of` in what it finds is the `Command`."""
  whole = argparse.ArgumentParser(
    prog="prompt-tuning",
    description="Prompt tuning of a frozen T5 (Lester et al. 2021).",
  )
  whole.add_argument(
    "--version", action="version", version=prompt_tuning.__version__
  )
  subparsers = whole.add_subparsers(dest="command", required=True)
  for command in COMMANDS:
    command.add_to(subparsers)
  return whole


def _unknown(flag: str, command: Command) -> str:
  """The message for an argument that a command does not have."""
  own = argparse.ArgumentParser(add_help=False)
  command.flags(own)
  known = [name for action in own._actions for name in action.option_strings]
  hint = spelling.hint(flag.partition("=")[0], known, alike=0.7)
  settings = "settings are --gin.NAME=value. " * command.takes_settings
  return f"unknown argument {flag}; {settings}{hint}".rstrip(" ;")


def bindings_of(
  rest: Sequence[str], parse: argparse.ArgumentParser
) -> list[str]:
  """`--gin.NAME=value` and `--gin.NAME value` as gin bindings."""
  bindings, queue = [], list(rest)
  while queue:
    flag = queue.pop(0)
    if not flag.startswith("--gin."):
      parse.error(f"unknown argument {flag}; settings are --gin.NAME=value")
    binding = flag.removeprefix("--gin.")
    if "=" not in binding and queue and not queue[0].startswith("--"):
      binding += "=" + queue.pop(0)
    bindings.append(binding)
  return bindings


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


def _plain(error: Exception) -> str:
  """The message without what gin adds of calls and files."""
  return re.split(r"\n\s+In (call|file|bindings)", str(error))[0].strip()
