"""A fresh interpreter, which has imported nothing yet."""

import subprocess
import sys


def printed_by(code: str, *args: str) -> str:
  """What a fresh interpreter, started outside the checkout, prints."""
  done = subprocess.run(
    [sys.executable, "-c", code, *args],
    cwd="/",
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout
