"""What t5x made of our gin files, and the embedded engine beside it.

`golden/t5x_runs.npz` and `.json` hold the prompts and predictions of real runs
of t5x (see `golden/make_t5x_runs.py`): one device, partitions, two processes,
a resumed run, both networks, both ways to freeze, another optimizer, beams, and
where the parameters lay; `golden/t5x_methods.npz` a method at another place.
Nothing here needs t5x. The tests that start the launchers again are
test_t5x_launchers and test_t5x_partitioning.
"""

import json
import pathlib

from flax.linen import spmd
import jax
import numpy as np
import places
import pytest
import small_microworld
import t5x_peer
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained
from prompt_tuning.model import t5
from prompt_tuning.prompts import checkpoints
from prompt_tuning.training import optimizers

ARRAYS = dict(np.load(places.GOLDEN / "t5x_runs.npz"))
RECORD = json.loads((places.GOLDEN / "t5x_runs.json").read_text())
SLOW = {"LEARNING_RATE": 0.003}
"""Rounding does not grow; at the paper's 0.3 it does, 20-fold a step."""


def gradients() -> list[np.ndarray]:
  """Five gradients of a prompt [3, 16]."""
  return [tiny_t5.rows(3, 16, seed=seed) for seed in range(5)]


@pytest.fixture(scope="module")
def model() -> pretrained.FrozenModel:
  found = pretrained.load(pretrained.SHIPPED)
  assert found.stored_hash == RECORD["model"], (
    "The model that ships is not the one of the golden runs. Make them again: "
    "python tests/golden/make_t5x_runs.py"
  )
  return found


@pytest.fixture(scope="module")
def embedded(model, tmp_path_factory) -> pathlib.Path:
  """Six steps of the embedded engine."""
  del model
  folder = tmp_path_factory.mktemp("embedded")
  return t5x_peer.embedded(folder / "run", 6, **SLOW)


@pytest.mark.parametrize(
  "name", [name[4:] for name in ARRAYS if name.startswith("run/")]
)
def test_six_steps_give_the_prompt_of_t5x(name, embedded):
  found = checkpoints.load_prompt(embedded).values
  first = ARRAYS["first"]
  assert np.abs(found - first).max() > 0.01
  np.testing.assert_allclose(found, ARRAYS[f"run/{name}"], rtol=0, atol=1e-5)


def test_twenty_steps_give_the_prompt_of_t5x(model, tmp_path):
  del model
  run = t5x_peer.embedded(tmp_path / "run", 20, **SLOW)
  found = checkpoints.load_prompt(run).values
  assert np.abs(found - ARRAYS["first"]).max() > 0.03
  np.testing.assert_allclose(found, ARRAYS["twenty"], rtol=0, atol=1e-5)


def test_the_first_prompt_is_the_one_of_t5x(model, tmp_path):
  del model
  run = t5x_peer.embedded(tmp_path / "run", 1, LEARNING_RATE=1e-9)
  found = checkpoints.load_prompt(run).values
  np.testing.assert_allclose(found, ARRAYS["first"], rtol=2e-5)


@pytest.mark.parametrize("method", t5x_peer.METHODS)
def test_a_method_gives_the_prompt_of_t5x(method, model, tmp_path):
  """ULPT's is at another place and has a mask of its own."""
  del model
  golden = np.load(places.GOLDEN / "t5x_methods.npz")
  run = t5x_peer.embedded(
    *(tmp_path / "run", 6, "prompt_tuning", f"methods/{method}"),
    **t5x_peer.METHODS[method],
  )
  saved = checkpoints.load_prompt(run)
  found = dict(saved.tensors or {"embedding": saved.values})
  wanted = {
    name.rpartition("/")[2]: golden[name]
    for name in golden
    if name.startswith(f"{method}/six/")
  }
  assert found.keys() == wanted.keys()
  for name, values in wanted.items():
    moved = np.abs(values - golden[f"{method}/first/{name}"]).max()
    assert name == "keep" or moved > 0.01
    np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5)


def test_another_optimizer_and_a_schedule_give_the_prompt_of_t5x(
  model, tmp_path
):
  del model
  run = t5x_peer.embedded(tmp_path / "run", 6, **t5x_peer.CHOICES)
  found = checkpoints.load_prompt(run).values
  assert np.abs(found - ARRAYS["first"]).max() > 0.01
  np.testing.assert_allclose(found, ARRAYS["choices"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("launcher", ["infer", "export", "beams"])
def test_a_prompt_predicts_as_under_t5x(launcher, model, tmp_path):
  del model
  checkpoints.save_prompt(tmp_path / "prompt", ARRAYS["twenty"], {})
  wanted = RECORD[launcher][:100]
  assert len(set(wanted)) > 1
  settings = {
    "MIXTURE_OR_TASK_NAME": small_microworld.first_of(
      t5x_peer.TASK, "test", len(wanted)
    )
  }
  if launcher == "beams":
    settings["DECODING"] = "@decode.Beam()"
  found = t5x_peer.embedded_predictions(
    tmp_path / "prompt", tmp_path / "eval", **settings
  )
  assert [row["prediction"] for row in found] == wanted


def test_model_tuning_moves_the_weights_as_under_t5x(model, tmp_path):
  run = t5x_peer.embedded(tmp_path / "run", 6, run="model_tuning")
  found = storage.flatten(pretrained.load(run / "model").params)
  before = storage.flatten(model.params)
  for path, wanted in RECORD["model_tuning"].items():
    moved = np.asarray(found[path], np.float32) - np.asarray(
      before[path], np.float32
    )
    assert np.abs(moved).mean() == pytest.approx(wanted, rel=0.02), path


def test_parameters_lie_where_t5x_laid_them(model):
  """By the names of our axes, and the rules of t5x for a 2-D layout."""
  token = jax.ShapeDtypeStruct((1, 1), np.int32)
  made = jax.eval_shape(
    t5.T5(model.config).init, jax.random.key(0), token, token
  )
  rules = RECORD["partitions"]["rules"]
  found = {
    path.removesuffix("_axes"): str(
      tuple(spmd.logical_to_mesh_axes(leaf.names, rules))
    )
    for path, leaf in storage.flatten(made["params_axes"]).items()
  }
  wanted = {
    path: where
    for path, where in RECORD["partitions"]["specifications"].items()
    if path != "step" and not path.startswith("param_states/")
  }
  assert wanted.pop("prompt/embedding") == "(None, None)"
  assert {"('data', 'model')", "('model', 'data')"} <= {*wanted.values()}
  assert found == wanted


def test_a_second_process_writes_its_parts_of_checkpoints_alone():
  made = RECORD["of_the_second"]
  assert made and all("/state/" in path for path in made)
  assert all("process_1" in path for path in made)


def test_adafactor_is_t5xs():
  optimizer = optimizers.adafactor(0.3, 1e-5)
  prompt = tiny_t5.rows(3, 16, seed=9)
  state = optimizer.init(prompt)
  for gradient in gradients():
    update, state = optimizer.update(gradient, state, prompt)
    prompt = prompt + np.asarray(update)
  np.testing.assert_allclose(prompt, ARRAYS["adafactor"], rtol=1e-6, atol=1e-7)
