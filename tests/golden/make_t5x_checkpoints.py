"""Makes tests/golden/t5x_checkpoints.zip: what t5x's own writers write.

    python tests/golden/make_t5x_checkpoints.py

Needs t5x (made at cc342d4), see docs/t5x.md. A tiny T5 with a prompt, after 7
steps, natively and by Orbax; weights and prompt are those of
tests/frozen/test_t5x_checkpoints.py.
"""

import pathlib
import shutil
import sys
import tempfile

import jax

HERE = pathlib.Path(__file__).parent
TESTS = HERE.parent
sys.path[:0] = map(str, (TESTS, TESTS / "frozen", TESTS / "t5x_engine"))

from t5x import checkpoints, partitioning, train_state  # noqa: E402
import test_t5x_checkpoints as cases  # noqa: E402
import test_t5x_models as models  # noqa: E402


def tuned() -> tuple[train_state.TrainState, partitioning.BasePartitioner]:
  """The state of a run, and how it is partitioned."""
  model = models.model(models.network("own_network", config=cases.CONFIG))
  shapes = {"encoder_input_tokens": (2, 9), "decoder_input_tokens": (2, 5)}
  made = model.get_initial_variables(jax.random.PRNGKey(0), shapes)
  state = train_state.FlaxOptimTrainState.create(
    model.optimizer_def, {**made, "params": cases.tuned_weights()}
  )
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  partitioner.get_mesh_axes(state)
  return state.replace_step(jax.numpy.int32(7)), partitioner


def main() -> None:
  """Writes the file."""
  folder = pathlib.Path(tempfile.mkdtemp())
  (folder / "orbax").mkdir()  # t5x takes the parent of one that is not there
  state, partitioner = tuned()
  checkpoints.Checkpointer(state, partitioner, str(folder / "native")).save(
    state
  )
  orbax = checkpoints.OrbaxCheckpointManagerInterface(
    str(folder / "orbax"), state, partitioner
  )
  orbax.save(state)
  orbax.close()
  shutil.make_archive(str(HERE / "t5x_checkpoints"), "zip", folder)


if __name__ == "__main__":
  main()
