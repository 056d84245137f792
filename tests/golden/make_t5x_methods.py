"""Makes tests/golden/t5x_methods.npz: what t5x's launchers make of a method.

    python tests/golden/make_t5x_methods.py      (a minute)

Needs t5x (made at cc342d4), see docs/t5x.md. Six steps of methods/ulpt.gin at
another place and with a mask of its own, on the model that ships: the rows that
it starts from, and those that it has come to.
"""

import pathlib
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
TESTS = HERE.parent
sys.path[:0] = map(str, (TESTS, TESTS / "t5x_engine"))

import t5x_peer  # noqa: E402
import test_t5x_launchers as launchers  # noqa: E402


def main() -> None:
  """Writes the file."""
  folder = pathlib.Path(tempfile.mkdtemp()) / "run"
  t5x_peer.train(folder, launchers.ULPT, **t5x_peer.METHOD)
  np.savez_compressed(
    HERE / "t5x_methods.npz",
    first=launchers.prompt(folder, 0),
    six=launchers.prompt(folder),
  )


if __name__ == "__main__":
  main()
