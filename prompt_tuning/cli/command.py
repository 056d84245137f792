"""What a command is: its name, its help, its flags, what it runs."""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import textwrap

Settings = Sequence[str]
"""What is left of the arguments: gin settings, or nothing."""


@dataclasses.dataclass(frozen=True)
class Command:
  """One command of `prompt-tuning`.

  Attributes:
    name: what the user types.
    summary: a line, for the list of commands.
    run: what it does, from its flags and the gin settings behind them.
    flags: adds its flags to a parser.
    description: more than the summary, for its own --help.
    examples: command lines, the end of its --help.
    takes_settings: whether it takes --gin.NAME=value.
    resumes: whether the same command goes on where it was interrupted.
  """

  name: str
  summary: str
  run: Callable[[argparse.Namespace, Settings], None]
  flags: Callable[[argparse.ArgumentParser], None]
  description: str = ""
  examples: str = ""
  takes_settings: bool = False
  resumes: bool = False

  def add_to(self, commands) -> None:
    """Adds the command to the subparsers of `prompt-tuning`."""
    whole = f"{self.summary[0].upper()}{self.summary[1:]}."
    parser = commands.add_parser(
      self.name,
      help=self.summary,
      # The examples keep their lines; so the description is broken here.
      description=textwrap.fill(self.description or whole, 78),
      epilog=self.examples,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      # --gin.N is no short form of --gin.NAME.
      allow_abbrev=not self.takes_settings,
    )
    self.flags(parser)
    parser.add_argument(
      "--debug", action="store_true", help="show the traceback of an error"
    )
    parser.add_argument(
      "--no_compilation_cache",
      dest="compilation_cache",
      action="store_false",
      help="do not keep compiled programs for the next start (they are in the "
      "user's cache folder, or where JAX_COMPILATION_CACHE_DIR says)",
    )
    parser.set_defaults(of=self)
