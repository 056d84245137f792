"""What each device holds for a step of t5x's trainer: compiled, not run.

    PYTHONPATH=…t5x:…airio:…jestimator python benchmarks/t5x_memory.py
      [--runs xl:2x4:2 xxl:1x8:4 …] [--dtype float32]

A run is a size, data x model partitions, and microbatches. The step of prompt
tuning is compiled for forced CPU devices, from shapes alone, for the paper's
batch of 32, T = 512, P = 100. "arguments" are what stays from step to step and
the batch, exact on any hardware; "temporary" are XLA's buffers on the CPU,
which computes bfloat16 in float32 and knows none of the constraints that t5x
puts on activations elsewhere: no less than an accelerator's.
"""

import argparse
import math
import os
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import scaling  # which makes 256 devices
from t5x import partitioning, trainer
from t5x import utils as t5x

from prompt_tuning.frozen import pretrained
from prompt_tuning.model import t5
from prompt_tuning.t5x import t5x_data, t5x_models, t5x_optimizers
from prompt_tuning.training import optimizers

RUNS = "xl:2x4:2 xxl:4x8:2 xxl:4x16:1 xxl:1x8:4".split()
BATCH, P, T, L = 32, 100, 512, 16


def compiled(size: str, mesh: tuple[int, int], microbatches: int, dtype: str):
  """The step for a data x model mesh."""
  config = t5.T5Config(*scaling.SIZES[size], dtype=dtype)
  model = t5x_models.PromptModel(
    t5x_models.t5x_network(config, P),
    t5x_data.vocabulary(pretrained.SHIPPED),
    t5x_optimizers.frozen_but(optimizers.adafactor()),
  )
  devices = np.array(jax.devices()[: math.prod(mesh)]).reshape(mesh)
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  made = jax.sharding.Mesh(devices, ("data", "model"))
  partitioner.__dict__["mesh"] = made  # on a CPU t5x has one of its own
  shapes = {
    "encoder_input_tokens": (BATCH, P + T),
    "decoder_input_tokens": (BATCH, L),
    "decoder_target_tokens": (BATCH, L),
    "decoder_loss_weights": (BATCH, L),
  }
  types = dict.fromkeys(shapes, jnp.int32)
  state = t5x.TrainStateInitializer(
    optimizer_def=model.optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes=shapes,
    input_types=types,
    partitioner=partitioner,
  )
  step = trainer.Trainer(
    model,
    state.global_train_state_shape,
    partitioner,
    eval_names=[],
    summary_dir=None,
    train_state_axes=state.train_state_axes,
    rng=jax.random.PRNGKey(0),
    learning_rate_fn=t5x_optimizers.schedule(0.3),
    num_microbatches=microbatches if microbatches > 1 else None,
  )
  batch = {
    name: jax.ShapeDtypeStruct(shape, jnp.int32)
    for name, shape in shapes.items()
  }
  return partitioner.compile(
    step._partitioned_train_step, state.global_train_state_shape, batch
  )


def main() -> None:
  """Prints a row for each run."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--runs", nargs="+", default=RUNS)
  parser.add_argument("--dtype", default="bfloat16", help="of activations")
  flags = parser.parse_args()
  print("| T5 1.1 | data x model | microbatches | arguments | temporary |")
  print("|---|---|---|---|---|")
  for run in flags.runs:
    size, mesh, parts = run.split(":")
    data, model = map(int, mesh.split("x"))
    begin = time.monotonic()
    made = compiled(size, (data, model), int(parts), flags.dtype)
    memory = made.memory_analysis()
    print(
      f"| {size} | {data} x {model} | {parts} "
      f"| {memory.argument_size_in_bytes / 1e9:.2f} GB "
      f"| {memory.temp_size_in_bytes / 1e9:.2f} GB |",
      f"({time.monotonic() - begin:.0f} s)",
      flush=True,
    )


if __name__ == "__main__":
  main()
