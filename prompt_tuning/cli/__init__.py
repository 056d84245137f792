"""The command `prompt-tuning`.

    arguments -> command_line -> one `Command` -> its function -> exit code

`gin_commands` has those that gin files configure (train, eval, infer,
pretrain), `commands` and `study_commands` those that flags do.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  from prompt_tuning.cli import command_line  # so that importing is instant

  return command_line.main(arguments)
