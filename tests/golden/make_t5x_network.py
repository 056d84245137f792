"""Makes tests/golden/t5x_network.npz: what t5x's network says.

    python tests/golden/make_t5x_network.py

Needs t5x (made at cc342d4), see docs/t5x.md. Cases, weights and inputs are
those of tests/t5x_engine/test_t5x_network.py.
"""

import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
TESTS = HERE.parent
sys.path[:0] = map(str, (TESTS, TESTS / "t5x_engine"))

from t5x.examples.t5 import network  # noqa: E402
import test_t5x_network as cases  # noqa: E402


def main() -> None:
  """Writes the file."""
  found = {}
  for name, config in cases.CASES.items():
    fields = network.T5Config.__dataclass_fields__
    shared = {k: getattr(config, k) for k in fields if hasattr(config, k)}
    model = network.Transformer(network.T5Config(**shared))
    for key, value in cases.outputs(model, name).items():
      found[f"{name}/{key}"] = value
  np.savez_compressed(HERE / "t5x_network.npz", **found)


if __name__ == "__main__":
  main()
