"""Makes tests/golden/t5x_runs.npz and .json: what t5x's launchers do.

    python tests/golden/make_t5x_runs.py      (about 12 minutes on 2 cores)

Needs t5x (made at cc342d4) with tensorflow-serving-api, see docs/t5x.md. Runs
`python -m t5x.train`, `infer` and `export` with the gin files of this project
on the model that ships; tests/t5x_engine/test_t5x_runs.py says what is
compared.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
TESTS = HERE.parent
sys.path[:0] = map(str, (TESTS, TESTS / "t5x_engine"))

from t5x import partitioning as partitioning_of_t5x  # noqa: E402
import t5x_peer  # noqa: E402
import test_t5x_launchers as launchers  # noqa: E402
import test_t5x_partitioning as partitioning  # noqa: E402
import tiny_t5  # noqa: E402

from prompt_tuning.frozen import pretrained  # noqa: E402
from prompt_tuning.t5x import t5x_optimizers  # noqa: E402

SLOW = {"LEARNING_RATE": 0.003}
EXPORTED = 20


def prompts(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The prompt of every run, and the first and twentieth values."""
  runs = {
    "own network": {"NETWORK": "@t5x_models.own_network()"},
    **{
      name: {"devices": devices, **bindings}
      for name, (devices, bindings) in partitioning.LAYOUTS.items()
    },
  }
  t5x_peer.train(folder / "one device", **SLOW)
  t5x_peer.train(folder / "MultiOptimizer", launchers.MULTI, **SLOW)
  t5x_peer.train(folder / "resumed", TRAIN_STEPS=3, **SLOW)
  t5x_peer.train(folder / "resumed", **SLOW)
  t5x_peer.by_two_processes(folder / "two processes", **SLOW)
  for name, bindings in runs.items():
    t5x_peer.train(folder / name, **SLOW, **bindings)
  found = {
    f"run/{path.name}": launchers.prompt(path)
    for path in sorted(folder.iterdir())
  }
  found["first"] = launchers.prompt(folder / "one device", 0)
  t5x_peer.train(folder / "twenty", TRAIN_STEPS=20, EVAL_PERIOD=20, **SLOW)
  found["twenty"] = launchers.prompt(folder / "twenty")
  t5x_peer.train(folder / "choices", **t5x_peer.CHOICES)
  found["choices"] = launchers.prompt(folder / "choices")
  return found


def partitions(run: pathlib.Path) -> dict:
  """How a run of the 2-D layout spread its parameters, and by which rules."""
  return {
    "rules": partitioning_of_t5x.standard_logical_axis_rules(1, 2),
    "specifications": partitioning.specifications(run),
  }


def adafactor() -> np.ndarray:
  """t5x's own Adafactor on five gradients of a prompt [3, 16]."""
  optimizer = t5x_optimizers.multi_optimizer(1e-5).create(
    {"prompt": {"embedding": tiny_t5.rows(3, 16, seed=9)}}
  )
  for seed in range(5):
    gradient = {"prompt": {"embedding": tiny_t5.rows(3, 16, seed=seed)}}
    optimizer = optimizer.apply_gradient(gradient, learning_rate=0.3)
  return np.asarray(optimizer.target["prompt"]["embedding"])


def model_tuning(folder: pathlib.Path) -> dict[str, float]:
  """How far six steps of model tuning move each parameter, on average."""
  t5x_peer.train(folder, files=("t5x/runs/model_tuning.gin",))
  before, after = (
    launchers.tensors(place) for place in (t5x_peer.base(), folder)
  )
  return {
    path: float(np.abs(after[path] - before[path]).mean()) for path in before
  }


def main() -> None:
  """Writes the files."""
  folder = pathlib.Path(tempfile.mkdtemp())
  arrays = prompts(folder / "runs") | {"adafactor": adafactor()}
  tuned = {
    "INITIAL_CHECKPOINT_PATH": t5x_peer.base(),
    "PROMPT_PATH": folder / "runs" / "twenty",
  }
  rows = t5x_peer.infer(folder / "infer", **tuned)
  texts = [row["inputs"]["inputs_pretokenized"] for row in rows[:EXPORTED]]
  record = {
    "model": pretrained.load(pretrained.SHIPPED).stored_hash,
    "model_tuning": model_tuning(folder / "model_tuning"),
    "infer": [row["prediction"] for row in rows],
    "export": launchers.exported(folder / "export", texts, **tuned),
    "beams": [
      row["prediction"]
      for row in t5x_peer.infer(folder / "beams", **tuned, **t5x_peer.BEAMS)
    ],
    "partitions": partitions(folder / "runs" / partitioning.TWO_DIMENSIONAL),
    "of_the_second": t5x_peer.of_the_second(folder / "runs" / "two processes"),
  }
  np.savez_compressed(HERE / "t5x_runs.npz", **arrays)
  (HERE / "t5x_runs.json").write_text(
    json.dumps(record, indent=1) + "\n", encoding="utf-8"
  )


if __name__ == "__main__":
  main()
