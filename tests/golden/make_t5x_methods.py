"""Makes tests/golden/t5x_methods.npz: what t5x's launchers make of methods.

    python tests/golden/make_t5x_methods.py      (2 minutes)

Needs t5x (made at cc342d4), see docs/t5x.md. Six steps on the model that ships
of methods/ulpt.gin, at another place and with a mask of its own, and of
methods/deep.gin: the tensors that each starts from, and those that it has come
to.
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
  found = {}
  for method in t5x_peer.METHODS:
    folder = pathlib.Path(tempfile.mkdtemp()) / "run"
    launchers.by(method, folder)
    for name, first in launchers.whole(folder, 0).items():
      found[f"{method}/first/{name}"] = first
    for name, six in launchers.whole(folder).items():
      found[f"{method}/six/{name}"] = six
  np.savez_compressed(HERE / "t5x_methods.npz", **found)


if __name__ == "__main__":
  main()
