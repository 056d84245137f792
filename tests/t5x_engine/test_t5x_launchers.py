"""`python -m t5x.train | eval | infer | export` with our gin files.

Each is checked by what it leaves in its folder. The frozen model is the one
that ships, as a checkpoint of t5x.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import t5x_peer

from prompt_tuning.frozen import t5x_checkpoints
from prompt_tuning.prompts import checkpoints

pytestmark = t5x_peer.marks("golden/t5x_runs (test_t5x_runs)")
MULTI = "t5x/runs/multi_optimizer.gin"


def tensors(folder) -> dict[str, np.ndarray]:
  """The parameters of a checkpoint, or of a run's last one."""
  found = t5x_checkpoints.find(pathlib.Path(folder))
  assert found is not None
  return {k: v.read() for k, v in t5x_checkpoints.tensors(found).items()}


def prompt(folder, step: int | None = None) -> np.ndarray:
  """The prompt's file of a run, or of one of its checkpoints."""
  place = folder if step is None else folder / "prompts" / str(step)
  return checkpoints.load_prompt(place).values


def losses(log: str) -> dict[int, float]:
  """The training loss by step, from what a launcher printed."""
  pattern = r"\[(\d+)\] collection=train .*?, loss=([\d.e+-]+)"
  return {int(step): float(loss) for step, loss in re.findall(pattern, log)}


def assert_frozen(folder) -> None:
  """Every tensor of the base is in the run's checkpoint, bit by bit."""
  base, tuned = tensors(t5x_peer.base()), tensors(folder)
  assert set(tuned) - set(base) == {"prompt/embedding"}
  for path, values in base.items():
    assert np.array_equal(values.view(np.uint8), tuned[path].view(np.uint8)), (
      path
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> pathlib.Path:
  """A run of 6 steps with checkpoints at 0, 3 and 6."""
  folder = tmp_path_factory.mktemp("tuned") / "run"
  t5x_peer.train(folder)
  return folder


def test_training_moves_the_prompt_and_nothing_else(tuned):
  assert_frozen(tuned)
  assert not np.array_equal(prompt(tuned, 0), prompt(tuned, 6))


def test_the_prompt_is_a_file_at_every_checkpoint(tuned):
  assert {path.name for path in (tuned / "prompts").iterdir()} == {
    *("0", "3", "6")
  }
  np.testing.assert_array_equal(prompt(tuned), prompt(tuned, 6))
  np.testing.assert_array_equal(
    prompt(tuned), tensors(tuned)["prompt/embedding"]
  )
  record = json.loads((tuned / "prompt.json").read_text())
  assert record["task"] == t5x_peer.TASK
  assert record["steps"] == 6
  assert record["initializer"] == "from_class_labels"


def test_the_first_prompt_is_the_embedded_engines(tuned, tmp_path):
  other = t5x_peer.embedded(tmp_path / "embedded", steps=1, LEARNING_RATE=1e-9)
  np.testing.assert_allclose(prompt(tuned, 0), prompt(other), rtol=2e-5)


def test_both_engines_tune_the_same_prompt(tmp_path):
  """Same base, data, order and optimizer. At the paper's learning rate of 0.3
  rounding grows 20-fold a step; here it does not."""
  settings = {"LEARNING_RATE": 0.003}
  other = t5x_peer.embedded(tmp_path / "embedded", steps=20, **settings)
  folder = tmp_path / "t5x"
  t5x_peer.train(folder, TRAIN_STEPS=20, EVAL_PERIOD=20, **settings)
  moved = np.abs(prompt(folder) - prompt(folder, 0)).max()
  difference = np.abs(prompt(folder) - prompt(other)).max()
  assert difference < 1e-5 < 0.03 < moved


@pytest.mark.parametrize("freezing", [(), (MULTI,)], ids=["optax", "multi"])
def test_a_resumed_run_is_an_uninterrupted_one(freezing, tuned, tmp_path):
  whole = tuned
  if freezing:
    whole = tmp_path / "whole"
    t5x_peer.train(whole, *freezing)
    assert_frozen(whole)
  folder = tmp_path / "resumed"
  t5x_peer.train(folder, *freezing, TRAIN_STEPS=3)
  t5x_peer.train(folder, *freezing)
  np.testing.assert_array_equal(prompt(folder), prompt(whole))


def test_both_ways_to_freeze_tune_the_same_prompt(tmp_path):
  for name, freezing in (("optax", ()), ("multi", (MULTI,))):
    t5x_peer.train(tmp_path / name, *freezing, LEARNING_RATE=0.003)
  np.testing.assert_allclose(
    prompt(tmp_path / "optax"), prompt(tmp_path / "multi"), atol=1e-5
  )


def test_our_network_takes_the_place_of_t5xs(tmp_path):
  for name in ("t5x_network", "own_network"):
    t5x_peer.train(
      tmp_path / name,
      NETWORK=f"@t5x_models.{name}()",
      LEARNING_RATE=0.003,
    )
  assert_frozen(tmp_path / "own_network")
  np.testing.assert_allclose(
    prompt(tmp_path / "t5x_network"),
    prompt(tmp_path / "own_network"),
    atol=1e-5,
  )


def by(name: str, folder: pathlib.Path, **settings) -> str:
  """6 steps of a method under t5x; what was printed."""
  settings = {**t5x_peer.METHODS[name], **settings}
  return t5x_peer.train(folder, f"methods/{name}.gin", **settings)


def whole(folder, step: int | None = None) -> dict[str, np.ndarray]:
  """The tensors of a prompt's file; the rows of a plain one."""
  place = folder if step is None else folder / "prompts" / str(step)
  found = checkpoints.load_prompt(place)
  return dict(found.tensors or {"embedding": found.values})


PARAMETERS = {
  "ulpt": {"codes", "fixed_projection", "scale", "shift"},
  "deep": {"embedding", "deep"},
}
"""What each has in a checkpoint."""


@pytest.fixture(scope="module", params=t5x_peer.METHODS)
def method(request) -> str:
  """The name of a method."""
  return request.param


@pytest.fixture(scope="module")
def by_a_method(method, tmp_path_factory) -> pathlib.Path:
  """6 steps of it: ulpt is at another place and has a mask of its own."""
  folder = tmp_path_factory.mktemp("method") / "run"
  by(method, folder)
  return folder


def test_both_engines_tune_the_same_prompt_by_a_method(
  method, by_a_method, tmp_path
):
  other = t5x_peer.embedded(
    *(tmp_path / "embedded", 6, "prompt_tuning", f"methods/{method}"),
    **t5x_peer.METHODS[method],
  )
  first, there, here = whole(by_a_method, 0), whole(by_a_method), whole(other)
  assert first.keys() == there.keys() == here.keys()
  for name in there.keys() - {"keep"}:
    moved = np.abs(there[name] - first[name]).max()
    assert np.abs(there[name] - here[name]).max() < 1e-5 < moved
  records = [
    checkpoints.load_prompt(folder).record for folder in (by_a_method, other)
  ]
  for entry in ("method", "place", "attention", "task", "seed"):
    there, here = (record.get(entry) for record in records)
    assert there == here


def test_a_method_trains_its_parameters_and_nothing_else(method, by_a_method):
  base, tuned = tensors(t5x_peer.base()), tensors(by_a_method)
  assert set(tuned) - set(base) == {
    f"prompt/{name}" for name in PARAMETERS[method]
  }
  for path, values in base.items():
    np.testing.assert_array_equal(values, tuned[path])


def test_a_resumed_run_of_a_method_is_an_uninterrupted_one(
  method, by_a_method, tmp_path
):
  by(method, tmp_path / "run", TRAIN_STEPS=3)
  was, asked = t5x_peer.METHODS[method].get("PROMPT_PLACE"), "after_end"
  log = by(method, tmp_path / "run", fails=True, PROMPT_PLACE=asked)
  assert f"has PROMPT_PLACE={was!r}, this one PROMPT_PLACE={asked!r}" in log
  by(method, tmp_path / "run")
  here, there = whole(tmp_path / "run"), whole(by_a_method)
  for name, values in there.items():
    np.testing.assert_array_equal(here[name], values)


def test_a_method_predicts_from_checkpoint_and_file_in_both_engines(
  by_a_method, tmp_path
):
  step = by_a_method / "checkpoint_6"
  from_checkpoint = t5x_peer.infer(tmp_path / "one", CHECKPOINT_PATH=step)
  from_file = t5x_peer.infer(
    tmp_path / "other",
    INITIAL_CHECKPOINT_PATH=t5x_peer.base(),
    PROMPT_PATH=by_a_method,
  )
  assert from_file == from_checkpoint
  here = t5x_peer.embedded_predictions(step, tmp_path / "here")
  assert [row["prediction"] for row in here] == [
    row["prediction"] for row in from_file
  ]


def test_an_export_of_a_method_predicts_from_text(by_a_method, tmp_path):
  needs_serving()
  step = by_a_method / "checkpoint_6"
  rows = t5x_peer.infer(tmp_path / "one", CHECKPOINT_PATH=step)[:20]
  texts = [row["inputs"]["inputs_pretokenized"] for row in rows]
  found = exported(tmp_path / "model", texts, CHECKPOINT_PATH=step)
  assert found == [row["prediction"] for row in rows]


def test_packed_examples_train(tuned, tmp_path):
  t5x_peer.train(tmp_path / "run", PACK=True)
  assert_frozen(tmp_path / "run")
  assert np.isfinite(prompt(tmp_path / "run")).all()
  # More examples than rows: another run than the one that is not packed.
  moved = np.abs(prompt(tmp_path / "run") - prompt(tuned))
  assert moved.max() > 1e-3


def test_choices_are_made_on_the_command_line(tmp_path):
  t5x_peer.train(tmp_path / "run", **t5x_peer.CHOICES)
  assert_frozen(tmp_path / "run")
  # AdamW moves by the rate about; Adafactor at 0.3 would have moved by 1.
  moved = np.abs(prompt(tmp_path / "run") - prompt(tmp_path / "run", 0)).max()
  assert 0.01 < moved < 0.05


def test_model_tuning_moves_every_matrix(tmp_path):
  t5x_peer.train(tmp_path / "run", files=("t5x/runs/model_tuning.gin",))
  base, after = tensors(t5x_peer.base()), tensors(tmp_path / "run")
  assert set(after) == set(base)
  for path, values in base.items():
    assert not np.array_equal(values, after[path]), path
  assert not (tmp_path / "run" / "prompt.npy").exists()


@pytest.fixture(params=["tuned checkpoint", "base and prompt file"])
def either(request, tuned) -> dict:
  """What names a tuned model in two ways."""
  if request.param == "tuned checkpoint":
    return {"CHECKPOINT_PATH": tuned / "checkpoint_6"}
  return {"INITIAL_CHECKPOINT_PATH": t5x_peer.base(), "PROMPT_PATH": tuned}


@pytest.fixture(scope="module")
def expected(tuned, tmp_path_factory) -> list[dict]:
  """What the tuned checkpoint predicts."""
  return t5x_peer.infer(
    tmp_path_factory.mktemp("infer"), CHECKPOINT_PATH=tuned / "checkpoint_6"
  )


def test_inference_is_the_same_from_checkpoint_and_file(
  tuned, expected, tmp_path
):
  found = t5x_peer.infer(
    tmp_path, INITIAL_CHECKPOINT_PATH=t5x_peer.base(), PROMPT_PATH=tuned
  )
  assert len(expected) > 100
  assert found == expected


def test_evaluation_scores_either(either, expected, tmp_path):
  t5x_peer.launch(
    "eval",
    ("t5x/runs/eval.gin",),
    MIXTURE_OR_TASK_NAME=t5x_peer.TASK,
    EVAL_OUTPUT_DIR=tmp_path,
    SPLIT="test",
    **either,
  )
  files = tmp_path.glob(f"inference_eval/{t5x_peer.TASK}-0*.jsonl")
  (rows,) = [file.read_text().splitlines() for file in files]
  found = [json.loads(row)["output"] for row in rows]
  assert found == [row["prediction"] for row in expected]


def test_beams_predict(tuned, expected, tmp_path):
  found = t5x_peer.infer(
    tmp_path,
    CHECKPOINT_PATH=tuned / "checkpoint_6",
    **t5x_peer.BEAMS,
  )
  assert [row["inputs"] for row in found] == [row["inputs"] for row in expected]
  assert all(isinstance(row["prediction"], str) for row in found)


@pytest.mark.parametrize(
  "script, flags, message",
  [
    (
      *("eval", {"PROMPT_FILE": "p.npy"}),
      "PROMPT_FILE is set, but nothing in.*Set PROMPT_PATH to the prompt",
    ),
    ("export", {"PROMPT_PAHT": "p"}, "PROMPT_PAHT is set.*mean PROMPT_PATH"),
  ],
)
def test_a_macro_that_would_be_ignored_ends_the_run(
  script, flags, message, tmp_path
):
  outputs = {"eval": "EVAL_OUTPUT_DIR", "export": "MODEL_OUTPUT_DIR"}
  task = {"eval": {"MIXTURE_OR_TASK_NAME": t5x_peer.TASK}, "export": {}}
  log = t5x_peer.launch(
    script,
    (f"t5x/runs/{script}.gin",),
    fails=True,
    INITIAL_CHECKPOINT_PATH=t5x_peer.base(),
    **{outputs[script]: tmp_path / "out"},
    **task[script],
    **flags,
  )
  assert re.search(f"ValueError: {message}", log), log[-2000:]


USE = """
import json, sys
import tensorflow as tf
import tensorflow_text
texts = json.loads(sys.argv[2])
model = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
found = [v for v in model(tf.constant(texts)).values() if v.dtype == tf.string]
print(json.dumps([text.decode() for text in found[0].numpy().reshape(-1)]))
"""


def needs_serving() -> None:
  """Skips where t5x cannot export."""
  pytest.importorskip(
    "tensorflow_serving",
    reason="t5x.export needs tensorflow-serving-api (pip install it); "
    "golden/t5x_runs.json, what an export predicted, stands in: test_t5x_runs",
  )


def exported(folder: pathlib.Path, texts: list[str], **bindings) -> list[str]:
  """What a SavedModel of `python -m t5x.export` predicts from text."""
  t5x_peer.launch(
    "export", ("t5x/runs/export.gin",), MODEL_OUTPUT_DIR=folder, **bindings
  )
  done = subprocess.run(
    [sys.executable, "-c", USE, folder, json.dumps(texts)],
    capture_output=True,
    text=True,
    check=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def test_an_export_predicts_from_text(either, expected, tmp_path):
  needs_serving()
  texts = [row["inputs"]["inputs_pretokenized"] for row in expected[:20]]
  found = exported(tmp_path / "model", texts, **either)
  assert found == [row["prediction"] for row in expected[:20]]


WRONG = {
  "a model of another size": (
    {"t5__T5Config__mlp_dim": 128},
    "mlp/wi_0/kernel has shape .128, 256.* needs .128, 128",
  ),
  "a model with more layers": (
    {"t5__T5Config__num_encoder_layers": 4},
    "has no parameter encoder/layers_3/attention/key/kernel",
  ),
  "dropout": ({"DROPOUT_RATE": 0.1}, "DROPOUT_RATE=0.1: a frozen model"),
  "another vocabulary": ({"EXTRA_IDS": 8}, "vocabularies do not match"),
  "a vocabulary without room": ({"EXTRA_IDS": 999}, "Set VOCABULARY_PATH"),
  "a macro": ({"PROMPT_LENGHT": 5}, "Did you mean PROMPT_LENGTH"),
  "a macro of another run": (
    {"PROMPT_PATH": "p"},
    "PROMPT_PATH is set, but nothing in this run uses it",
  ),
  "a method by its name": (
    {"PROMPT": "residual"},
    "PROMPT='residual' is no me",
  ),
  "weights in bfloat16": (
    {"WEIGHTS_DTYPE": "bfloat16"},
    "t5x trains with weights in float32",
  ),
  "several seeds": ({"SEEDS": (0, 1)}, "names 2 seeds"),
  "nothing trains": ({"TRAINABLE": ("promt/.*",)}, "matches none of the"),
  "no checkpoint": (
    {"INITIAL_CHECKPOINT_PATH": "/nowhere"},
    "There is no checkpoint of t5x at '/nowhere'",
  ),
  "no base": (
    {"INITIAL_CHECKPOINT_PATH": "%gin.REQUIRED"},
    "INITIAL_CHECKPOINT_PATH/macro.value set to `%gin.REQUIRED` but not",
  ),
  "labels without room": (
    {"PROMPT_LENGTH": 1},
    "has no room for 2 class labels",
  ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_ends_the_run_before_its_first_step(mistake, tmp_path):
  bindings, message = WRONG[mistake]
  log = t5x_peer.train(
    tmp_path / "run", fails=True, **{"EVAL_PERIOD": 1, **bindings}
  )
  assert re.search(f"ValueError: .*{message}", log, re.DOTALL), log[-2000:]
  assert not losses(log)
  if "macro" in mistake:  # said before t5x makes the run's folder
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_resumed_with_another_prompt_length(tuned, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(tuned, folder)
  log = t5x_peer.train(
    folder, fails=True, PROMPT_LENGTH=t5x_peer.P + 2, TRAIN_STEPS=9
  )
  wanted = f"Set PROMPT_LENGTH={t5x_peer.P}, or another MODEL_DIR"
  assert f"ValueError: PROMPT_LENGTH={t5x_peer.P + 2}" in log
  assert wanted in log
