"""A large model of random weights: load, two steps, save, predict.

    python benchmarks/xl_memory.py [--size xxl] [--dtype int8] [--layers 24]
                                   [--folder runs/xl] [--apart]

Writes the model once in bfloat16, as a Hugging Face folder in shards (5.7 GB of
disk, XXL 22 GB, T5Gemma 2B-2B 11 GB), a shard at a time; its numbers are taken
from a pool of drawn ones. Then it prints memory and time of each stage, with
the layers under a scan and computed again for the gradient, or with --apart as
a smaller model computes. Memory is what the process holds itself (RssAnon); at
the end stands the largest of all (VmHWM), with pages of the weight files that
the system keeps cached.
"""

import argparse
import dataclasses
import pathlib
import threading
import time
import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import (
  huggingface,
  huggingface_config,
  pretrained,
  weight_files,
)
from prompt_tuning.frozen import t5gemma as stored_t5gemma
from prompt_tuning.model import decode, freeze, inject, t5, t5gemma
from prompt_tuning.prompts import checkpoints, prompt
from prompt_tuning.training import optimizers, step

P, B, T, L = 20, 1, 64, 4
GIB = 1 << 30


_STACK = t5gemma.Stack(2304, 8, 4, 256, 9216, 26)
SIZES: dict[str, t5.Config] = {
  "xl": t5.T5Config(32128, 2048, 32, 64, 5120, 24, 24),
  "xxl": t5.T5Config(32128, 4096, 64, 64, 10240, 24, 24),
  "t5gemma_2b_2b": t5gemma.T5GemmaConfig(256000, _STACK, _STACK),
}


def shortened(config: t5.Config, layers: int) -> t5.Config:
  """The model with so many layers in each of its stacks."""
  if isinstance(config, t5.T5Config):
    of_stack = dict.fromkeys(
      ("num_encoder_layers", "num_decoder_layers"), layers
    )
    return dataclasses.replace(config, **of_stack)
  stack = dataclasses.replace(_STACK, num_layers=layers, layer_types=())
  return dataclasses.replace(config, encoder=stack, decoder=stack)


def write(folder: pathlib.Path, config: t5.Config) -> None:
  """Random weights of these sizes."""
  of_gemma = isinstance(config, t5gemma.T5GemmaConfig)
  abstract = storage.flatten(t5.abstract_parameters(config))
  names = huggingface.tensor_names(config)
  paths = {names[path]: path for path in abstract}
  pool = np.random.default_rng(0).standard_normal(1 << 24, np.float32)

  def tensor(name: str) -> np.ndarray:
    path = paths[name]
    shape, scale = abstract[path].shape, 1.0
    if path.endswith("scale"):
      return np.full(shape, not of_gemma, ml_dtypes.bfloat16)
    if of_gemma and path.endswith("embedding"):
      scale = shape[1] ** -0.5
    if path.endswith("kernel"):
      scale = shape[0] ** -0.5
      if "query" in path and not of_gemma:
        scale /= 8
    values = (pool * np.float32(scale)).astype(ml_dtypes.bfloat16)
    start = zlib.crc32(name.encode()) % values.size
    drawn = np.resize(np.roll(values, start), shape)
    return drawn.T if path.endswith(("kernel", "rel_embedding")) else drawn

  sizes = {names[path]: 2 * leaf.size for path, leaf in abstract.items()}
  weight_files.write(folder, sizes, tensor, weight_files.SHARD_BYTES)
  if isinstance(config, t5gemma.T5GemmaConfig):
    settings = stored_t5gemma.settings_of(config, "bfloat16")
  else:
    settings = huggingface_config.settings_of(config, "bfloat16")
  storage.write_json(folder / huggingface.CONFIG, settings)


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


def held(kind: str = "RssAnon") -> int:
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(kind):
      return int(line.split()[1]) * 1024
  raise RuntimeError(f"/proc/self/status has no {kind}")


def check_room(config: t5.Config, dtype: str | None) -> None:
  """Ends before the machine would be short of memory."""
  size = sum(
    leaf.size for leaf in jax.tree.leaves(t5.abstract_parameters(config))
  )
  each = {"int8": 1.0, "int4": 0.6, "float32": 4.0}.get(dtype or "", 2.0)
  # A stack twice while it is put onto the device, a step's buffers, libraries.
  needed = 1.15 * each * size + 2.5 * GIB
  for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
    if line.startswith("MemAvailable"):
      there = int(line.split()[1]) * 1024
      if there < needed:
        raise SystemExit(
          f"{needed / GIB:.1f} GiB are needed, {there / GIB:.1f} are available."
        )


def main() -> None:
  parser = argparse.ArgumentParser(description="Memory of a large model.")
  parser.add_argument("--size", default="xl", choices=SIZES)
  parser.add_argument("--dtype", help="WEIGHTS_DTYPE; bfloat16 by default")
  parser.add_argument("--folder", type=pathlib.Path, help="default: runs/SIZE")
  parser.add_argument("--layers", type=int, help="default: all of them")
  parser.add_argument(
    "--apart", action="store_true", help="STACK_LAYERS=False, REMAT=False"
  )
  flags = parser.parse_args()
  config = SIZES[flags.size]
  if flags.layers:
    config = shortened(config, flags.layers)
  flags.folder = flags.folder or pathlib.Path("runs") / flags.size
  model_folder = flags.folder / "model"
  if not (model_folder / huggingface.CONFIG).is_file():
    print("Writing the model …", flush=True)
    write(model_folder, config)
    print("Written. Run the same command again to measure.")
    return
  check_room(config, flags.dtype)
  peak, begin = Peak(), time.time()

  def report(stage: str) -> None:
    print(
      f"{stage:<28} holds {held() / GIB:5.2f} GiB, peak so far "
      f"{peak.bytes / GIB:5.2f} GiB, {time.time() - begin:6.1f} s",
      flush=True,
    )

  report("start")
  model = pretrained.load(
    model_folder, config, flags.dtype, stack_layers=not flags.apart
  )
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
  read = jnp.asarray(checkpoints.load_prompt(folder, model).values)[None]
  whole = {**model.params, prompt.NAME: module.first_parameters(read)}
  decoder = decode.make_decoder(network, decode.Greedy(), L)
  ids = decoder(whole, batch["inputs"], jax.random.key(0))
  assert ids.shape == (B, L) and (np.asarray(ids) >= 0).all()
  report(f"predicted {np.asarray(ids)[0].tolist()}")
  print(f"VmHWM {held('VmHWM') / GIB:.2f} GiB")


if __name__ == "__main__":
  main()
