"""The closest valid name for a typo: "Did you mean PROMPT_LENGTH?"."""

from collections.abc import Iterable
import difflib


def hint(
  name: str, known: Iterable[str], otherwise: str = "", *, alike: float = 0.5
) -> str:
  """A question after the known name that is most like a misspelt one.

  Args:
    name: what the user typed.
    known: the valid names.
    otherwise: what to say if none of them is like it.
    alike: how much it must be, from 0 to 1.
  """
  close = difflib.get_close_matches(name, list(known), 1, alike)
  return f"Did you mean {close[0]}?" if close else otherwise
