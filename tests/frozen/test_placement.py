"""Several devices compute what one does; each holds its part of the weights."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import places
import pytest
import tiny_t5

from prompt_tuning.frozen import placement

ALONE = {"data": 1}
SHORT = [({"data": 4, "model": 2}, "groups", False, None)]
LONG = [
  ({"data": 8}, "padded", False, None),
  ({"data": 2, "model": 4}, "packed", True, None),
  ({"model": 8}, "groups", False, None),
  ({"data": 4, "model": 2}, "groups", True, "int8"),
  ({"data": 2, "model": 4}, "groups", True, "int4"),
]


@pytest.mark.parametrize(
  "asked", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)]
)
def test_eight_devices_train_and_predict_as_one_does(asked):
  one = [(ALONE, chosen, False, dtype) for _, chosen, _, dtype in asked]
  done = subprocess.run(
    [
      *(sys.executable, str(places.ROOT / "tests" / "eight_devices.py")),
      json.dumps([*one, *asked]),
    ],
    env={**os.environ, "PYTHONPATH": str(places.ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = [json.loads(line) for line in done.stdout.splitlines()]
  for (mesh, *_), alone, several in zip(
    asked, found[: len(one)], found[len(one) :], strict=True
  ):
    assert alone["held"] == 1
    parts = mesh.get("model", 1)
    assert 1 / parts <= several["held"] < (1.5 / parts if parts < 8 else 1)
    np.testing.assert_allclose(several["losses"], alone["losses"], rtol=1e-5)
    np.testing.assert_allclose(several["rows"], alone["rows"], atol=1e-5)
    assert several["predictions"] == alone["predictions"]


@pytest.mark.parametrize(
  "mesh, message",
  [
    ({"batch": 2}, "'batch' must be one of the axes 'data' and 'model'"),
    ({"data": 0}, "'data' must be one of the axes"),
    ({"model": True}, "'model' must be one of the axes"),
    ({"data": 64}, "asks for 64 devices, and this machine has"),
  ],
)
def test_a_mesh_that_cannot_be_is_refused(mesh, message):
  with pytest.raises(ValueError, match=message):
    placement.devices_of(mesh, tiny_t5.config())


def test_one_device_needs_no_mesh():
  assert placement.devices_of({"data": 1}, tiny_t5.config()) is None
  if jax.local_device_count() == 1:
    assert placement.devices_of(None, tiny_t5.config()) is None
