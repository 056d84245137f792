"""Measures prompt tuning on the device at hand: T5 1.1 base, large and XL.

    python benchmarks/device.py [--peft PYTHON] [--size xl] [--output FILE]

A line of JSON for each size: examples a second, the share of the peak of a
matrix product in the same process (MFU), and the peak of the device's memory;
with --peft also transformers and PEFT in turns with it (see `peers`, which does
the work), in a Python that can import them. Weights are random, bfloat16 on an
accelerator and float32 on a CPU; the shapes are those of a batch of BoolQ.
"""

import argparse
import json
import os
import pathlib
import sys

import jax
import peers

CASE = "boolq"


def parameters(size: str) -> int:
  """Of the layers of a T5 1.1 alone, which every token goes through."""
  width, heads, hidden, layers = peers.SIZES[size]
  attention, feed_forward = 4 * width * heads * 64, 3 * width * hidden
  return layers * (attention + feed_forward)


def main() -> None:
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--peft", help="a Python with torch, transformers, peft")
  parser.add_argument("--size", choices=peers.SIZES, help="one instead of all")
  parser.add_argument("--layout", default="auto", help="LAYOUT of ours")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--output", type=pathlib.Path, help="a file of the lines")
  flags = parser.parse_args()
  # The device belongs to those who are measured.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  pythons = {"ours": sys.executable}
  if flags.peft:
    pythons["peft"] = flags.peft
  lines = []
  for size in [flags.size] if flags.size else ("base", "large", "xl"):
    found = peers.measure(
      CASE, pythons, flags.rounds, flags.layout, size, dtype
    )
    # Forward and the gradient of activations: 4 operations a parameter and
    # token; the encoder's tokens are nearly all there are.
    done = 4 * parameters(size) * found["ours"]["tokens/s"] / 1e9
    share = round(done / found["ours"]["matmul GF/s"], 3)
    lines.append(
      json.dumps({"size": size, "dtype": dtype, "MFU": share, **found})
    )
    print(lines[-1], flush=True)
  if flags.output:
    flags.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
  main()
