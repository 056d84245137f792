"""How far do runs of one seed part in banks of other sizes, and is it rounding?

    python benchmarks/rounding.py            in float32, as runs are
    python benchmarks/rounding.py --float64

Trains the prompt of microworld_boolq, seed 0, alone, beside another seed, and
beside another task and both its seeds, and prints how far its rows are from
those of the run alone. A difference of examples, clipping or dropout would be
as large in float64; one of rounding is smaller by the precision.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

BOOLQ, RTE = "microworld_boolq", "microworld_rte"
BANKS = {1: ((BOOLQ,), (0,)), 2: ((BOOLQ,), (0, 1)), 4: ((BOOLQ, RTE), (0, 1))}


def rows(names, seeds, steps: int, *, is_wide: bool) -> list[np.ndarray]:
  """The rows of the first prompt after each step."""
  from prompt_tuning.frozen import pretrained
  from prompt_tuning.prompts import initializers
  from prompt_tuning.tasks.microworld.examples import LENGTHS
  from prompt_tuning.training import optimizers, prepare, step, train

  prepared = prepare.prepare(
    pretrained.load("microworld"),
    train.Tasks(names, LENGTHS, seeds),
    train.Tuning(
      optimizers.falling_adafactor(400),
      prompt_length=20,
      initializer=initializers.from_class_labels(),
    ),
  )
  trained, frozen = prepared.trained, prepared.frozen
  if is_wide:
    config = prepared.problem.network.config
    object.__setattr__(config, "dtype", "float64")  # it refuses it by itself
    trained, frozen = (
      jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), part)
      for part in (trained, frozen)
    )
  state = step.initial_state(prepared.problem, trained)
  run, found = step.make_steps(prepared.problem), []
  for at in range(steps):
    state, _ = run(state, frozen, [prepared.batches(at)])
    found.append(np.asarray(state.trained["prompt"]["embedding"][0]))
  return found


def main() -> None:
  """Prints the relative distances, step by step."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--float64", action="store_true")
  parser.add_argument("--steps", type=int, default=20)
  flags = parser.parse_args()
  if flags.float64:
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64  # wherever the network asks for it
  found = {
    n: rows(*bank, flags.steps, is_wide=flags.float64)
    for n, bank in BANKS.items()
  }
  print("step  bank of 2  bank of 4")
  for at in range(flags.steps):
    alone = found[1][at]
    far = [
      np.linalg.norm(found[n][at] - alone) / np.linalg.norm(alone)
      for n in (2, 4)
    ]
    print(f"{at + 1:4}  {far[0]:9.0e}  {far[1]:9.0e}")


if __name__ == "__main__":
  main()
