"""A T5 1.1 XL of random weights in bfloat16: load, one step, save the prompt.

    python benchmarks/xl_memory.py [--folder runs/xl] [--layers 24] [--apart]

Writes the model once, as a Hugging Face folder in shards (5.7 GB of disk), then
prints memory and time of each stage, with the layers under a scan and computed
again for the gradient, or with --apart as a smaller model computes. Memory is
what the process holds itself (RssAnon); pages of the weight files that the
system keeps cached are not in it.
"""

import argparse
import pathlib
import threading
import time

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import huggingface, pretrained
from prompt_tuning.model import freeze, inject, t5
from prompt_tuning.prompts import checkpoints, prompt
from prompt_tuning.training import optimizers, step

P, B, T, L = 20, 1, 64, 4
GIB = 1 << 30


def xl(layers: int) -> t5.T5Config:
  return t5.T5Config(32128, 2048, 32, 64, 5120, layers, layers)


def write(folder: pathlib.Path, config: t5.T5Config) -> None:
  """Random weights of T5's sizes, drawn tensor by tensor."""
  rng, flat = np.random.default_rng(0), {}
  for path, leaf in storage.flatten(t5.abstract_parameters(config)).items():
    scale = 1.0
    if path.endswith("kernel"):
      scale = leaf.shape[0] ** -0.5 * (0.125 if "query" in path else 1)
    drawn = rng.standard_normal(leaf.shape, np.float32) * np.float32(scale)
    if path.endswith("scale"):
      drawn = np.ones(leaf.shape, np.float32)
    flat[path] = drawn.astype(ml_dtypes.bfloat16)
  huggingface.save(folder, config, storage.unflatten(flat))


class Peak(threading.Thread):
  """The largest memory that the process held, sampled every 20 ms."""

  def __init__(self):
    super().__init__(daemon=True)
    self.bytes = 0
    self.start()

  def run(self):
    while True:
      self.bytes = max(self.bytes, held())
      time.sleep(0.02)


def held() -> int:
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("RssAnon"):
      return int(line.split()[1]) * 1024
  raise RuntimeError("/proc/self/status has no RssAnon")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--folder", default="runs/xl", type=pathlib.Path)
  parser.add_argument("--layers", default=24, type=int)
  parser.add_argument(
    "--apart", action="store_true", help="STACK_LAYERS=False, REMAT=False"
  )
  flags = parser.parse_args()
  config = xl(flags.layers)
  model_folder = flags.folder / "model"
  if not (model_folder / huggingface.CONFIG).is_file():
    print("Writing the model …", flush=True)
    write(model_folder, config)
    print("Written. Run the same command again to measure.")
    return
  peak, begin = Peak(), time.time()

  def report(stage: str) -> None:
    print(
      f"{stage:<28} holds {held() / GIB:5.2f} GiB, peak so far "
      f"{peak.bytes / GIB:5.2f} GiB, {time.time() - begin:6.1f} s",
      flush=True,
    )

  report("start")
  model = pretrained.load(model_folder, config, stack_layers=not flags.apart)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
  largest = max(leaf.nbytes for leaf in jax.tree.leaves(model.params))
  print(
    f"{model.num_parameters:,} parameters, {size / GIB:.2f} GiB, the largest "
    f"tensor {largest / GIB:.2f} GiB"
  )
  report("loaded")
  bank = np.full((1, P, config.emb_dim), 0.1, np.float32)
  module = prompt.Prompt(P, config.emb_dim, 1)
  first = module.first_parameters(jnp.asarray(bank))
  params = {**model.params, prompt.NAME: first}
  trained, frozen = freeze.split(params, freeze.mask(params, freeze.PROMPT))
  network = t5.T5(config, module, remat=not flags.apart)
  problem = step.Problem(network, optimizers.per_prompt(optimizers.adafactor()))
  state = step.initial_state(problem, trained)
  rng = np.random.default_rng(1)
  text = rng.integers(2, 32000, (B, T)).astype(np.int32)
  batch = {
    "inputs": inject.reserve(text, np.zeros(B, np.int32), P),
    "targets": rng.integers(2, 32000, (B, L)).astype(np.int32),
    "prompt_id": np.zeros(B, np.int32),
  }
  run = jax.jit(step.make_step(problem))
  for name in ("first step (compiles)", "second step"):
    state, metrics = run(state, frozen, batch)
    loss = float(metrics["loss"][0])
    report(f"{name}, loss {loss:.2f}")
  values = np.asarray(prompt.collapsed(module, state.trained)[0])
  assert np.abs(values - bank[0]).max() > 0
  folder = checkpoints.save_prompt(
    flags.folder / "prompt", values, {"model": {"hash": model.stored_hash}}
  )
  report(f"saved {folder.name}")


if __name__ == "__main__":
  main()
