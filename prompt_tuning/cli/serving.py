"""`prompt-tuning serve`: its flags, and what it says while it runs."""

import argparse
import gc
import importlib.util
import sys
from typing import Any

_NEEDED = ("prometheus_client", "starlette", "uvicorn")

_SWITCH = 5e-4
"""Seconds after which a thread lets another run: the engine's thread and that
of the connections take turns several times a step, and each waits so long."""


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds what gin files do not say."""
  parser.add_argument(
    "--prompts",
    metavar="FOLDER",
    help="a folder of runs: every prompt in it is served by its folder's name, "
    "and with --api_key_file prompts are loaded from it while the server runs",
  )
  parser.add_argument(
    "--prompt",
    action="append",
    default=[],
    metavar="NAME=PATH",
    help="a prompt by another name or from elsewhere; may be repeated",
  )
  parser.add_argument(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="to listen at; 0.0.0.0 for other machines (default: %(default)s)",
  )
  parser.add_argument(
    "--port",
    type=int,
    default=8000,
    metavar="N",
    help="to listen at; 0 for a free one (default: %(default)s)",
  )
  parser.add_argument(
    "--api_key_file",
    metavar="FILE",
    help="keys, one on a line, of which every request has to bring one",
  )


def settings() -> Any:
  """What gin configures.

  Raises:
    ValueError: a library is not installed.
  """
  missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
  if missing:
    raise ValueError(
      f"The server needs {', '.join(missing)}. Install the extra: pip install "
      "'prompt-tuning-jax[serve]'."
    )
  from prompt_tuning.serving import settings as of_server

  return of_server.Settings


def serve(chosen: Any, flags: argparse.Namespace) -> None:
  """Serves until a signal.

  Raises:
    ValueError: a flag or a prompt is not usable.
    OSError: nothing can listen there.
  """
  from prompt_tuning.serving import server

  sys.setswitchinterval(_SWITCH)
  if flags.prompts is None and not flags.prompt:
    raise ValueError(
      "Name what to serve: --prompts FOLDER, or --prompt NAME=PATH."
    )
  keys = server.keys_in(flags.api_key_file) if flags.api_key_file else ()
  running = server.Server(
    chosen,
    _named(flags.prompt),
    folder=flags.prompts,
    host=flags.host,
    port=flags.port,
    keys=keys,
  )
  served = running.service
  names = ", ".join(served.bank.names)
  print(f"Listening at {running.url}, compiling.", flush=True)

  def told(count: int, seconds: float) -> None:
    # What is there stays: looking through all of it would stop every request.
    gc.collect()
    gc.freeze()
    print(
      f"Ready after {seconds:.1f} s ({count} programs): {names}", flush=True
    )

  running.run(told)
  print("Stopped; what was accepted is answered.", flush=True)


def _named(pairs: list[str]) -> dict[str, str]:
  """The paths of --prompt by their names.

  Raises:
    ValueError: one is no pair, or a name stands twice.
  """
  named: dict[str, str] = {}
  for pair in pairs:
    name, equals, path = pair.partition("=")
    if not equals or not name.strip() or not path:
      raise ValueError(
        f"--prompt {pair!r} must be NAME=PATH, for example boolq=runs/boolq."
      )
    if name in named:
      raise ValueError(f"--prompt names {name!r} twice.")
    named[name] = path
  return named
