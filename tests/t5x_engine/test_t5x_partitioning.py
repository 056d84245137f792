"""t5x over several devices and processes: the run of one device, again.

Devices are forced on the host. The learning rate is small enough for rounding
not to grow.
"""

import json
import pathlib

import numpy as np
import places
import pytest
import t5x_peer
from test_t5x_launchers import assert_frozen, losses, prompt

pytestmark = t5x_peer.marks("golden/t5x_runs (test_t5x_runs)")
SETTINGS = {"LEARNING_RATE": 0.003}
SUBMESH = {"MODEL_PARALLEL_SUBMESH": (1, 2), "NUM_PARTITIONS": None}
TWO_DIMENSIONAL = "2 data, 2 model, 2-D parameters"
LAYOUTS = {
  "2 model partitions": (2, {}),
  "4 model partitions": (4, {}),
  "2 data, 2 model": (4, SUBMESH),
  TWO_DIMENSIONAL: (
    4,
    {**SUBMESH, "PARAMETER_PARTITIONING_DIMS": 2},
  ),
}


def specifications(folder: pathlib.Path) -> dict[str, str]:
  """How a run's parameters lie on the devices, by path, as t5x logs it."""
  lines = (folder / "model-info.txt").read_text().splitlines()
  return {
    line.split()[1]: line.partition("partition spec ")[2]
    for line in lines
    if line.startswith("Variable")
  }


def predicted(folder: pathlib.Path) -> str:
  """What a run's last evaluation predicted."""
  (file,) = folder.glob(f"inference_eval/{t5x_peer.TASK}-000006.jsonl")
  return file.read_text()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[pathlib.Path, dict[int, float]]:
  """The run on one device, and its losses."""
  folder = tmp_path_factory.mktemp("alone") / "run"
  log = t5x_peer.train(folder, VALIDATION_SPLIT="validation", **SETTINGS)
  return folder, losses(log)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_partitions_give_the_losses_and_predictions_of_one_device(
  layout, alone, tmp_path
):
  devices, bindings = LAYOUTS[layout]
  folder, expected = alone
  log = t5x_peer.train(
    tmp_path / "run",
    devices=devices,
    VALIDATION_SPLIT="validation",
    **SETTINGS,
    **bindings,
  )
  found = losses(log)
  assert found.keys() == expected.keys() == {3, 6}
  for step, loss in expected.items():
    assert found[step] == pytest.approx(loss, rel=1e-5)
  np.testing.assert_allclose(
    prompt(tmp_path / "run"), prompt(folder), rtol=0, atol=1e-5
  )
  assert predicted(tmp_path / "run") == predicted(folder)
  assert_frozen(tmp_path / "run")


def test_parameters_are_spread_as_the_rules_say(tmp_path):
  devices, bindings = LAYOUTS[TWO_DIMENSIONAL]
  t5x_peer.train(tmp_path / "run", devices=devices, TRAIN_STEPS=3, **bindings)
  spec = specifications(tmp_path / "run")
  assert spec["encoder/layers_0/mlp/wi_0/kernel"] == "('data', 'model')"
  assert spec["token_embedder/embedding"] == "('model', 'data')"
  assert spec["prompt/embedding"] == "(None, None)"


def test_two_processes_write_one_prompt(alone, tmp_path):
  """Each process has one device and reads half of every batch."""
  folder, expected = alone
  found = losses(t5x_peer.by_two_processes(tmp_path / "run", **SETTINGS))
  for step, loss in expected.items():
    assert found[step] == pytest.approx(loss, rel=1e-5)
  np.testing.assert_allclose(
    prompt(tmp_path / "run"), prompt(folder), rtol=0, atol=1e-5
  )
  assert len(list((tmp_path / "run").rglob("prompt.npy"))) == 4
  record = json.loads((places.GOLDEN / "t5x_runs.json").read_text())
  made = t5x_peer.of_the_second(tmp_path / "run")
  assert made == record["of_the_second"]
