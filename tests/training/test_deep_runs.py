"""Runs of prompts that reach into the network: files, resume, banks."""

import json

from killing import Killing
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import configuration, storage
from prompt_tuning.data import layout
from prompt_tuning.frozen import pretrained, stored_model
from prompt_tuning.inference import infer, prompted_model
from prompt_tuning.model import forms, t5
from prompt_tuning.prompts import checkpoints, prompt, prompted
from prompt_tuning.prompts.inner import deep
from prompt_tuning.training import loop, optimizers

METHODS = {
  "deep": (deep.deep("replace"), 4),
  "ia3": (deep.ia3(), 0),
  "decoder": (deep.decoder(3), 4),
}
NAMES = pytest.mark.parametrize("name", METHODS)
BOTH = [toy_tasks.CAT, toy_tasks.DOG]
CONFIG = tiny_t5.config(num_encoder_layers=2)


def model(*, stacked: bool = False) -> pretrained.FrozenModel:
  """The toy model with a second layer in its encoder."""
  params = tiny_t5.weights(CONFIG)
  stored = stored_model.weights_hash(params)
  params = forms.stacked(params) if stacked else params
  return pretrained.FrozenModel(
    CONFIG, params, tiny_t5.vocabulary(), "toy", stored
  )


def run(folder, name, names=BOTH, *, steps=4, **changes):
  method, length = METHODS[name]
  tuned = toy_tasks.tuning(
    module=method,
    prompt_length=length,
    optimizer=optimizers.adafactor(0.1),
    **changes.pop("tuned", {}),
  )
  return toy_tasks.run(
    folder,
    names,
    tuned=tuned,
    plan=loop.Plan(steps, eval_every=2, steps_per_dispatch=2),
    model=changes.pop("frozen", model()),
    **changes,
  )


def hashes(folder) -> dict[str, str]:
  """Of all tensors in a run's folder."""
  return {
    str(path.relative_to(folder)): storage.tree_hash(
      {k: t.read() for k, t in storage.open_tensors(path)[0].items()}
    )
    for path in sorted(folder.rglob("*.safetensors"))
  }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """From the name of a method to a run of two tasks and its folder."""
  return toy_tasks.once(tmp_path_factory, run)


@NAMES
def test_a_run_trains_all_of_it_and_leaves_tensors(whole, name):
  trained, folder = whole(name)
  assert trained.frozen_unchanged
  module = prompt.for_network(METHODS[name][0](METHODS[name][1], 16, 2), CONFIG)
  for n, task in enumerate(BOTH):
    home = folder / "prompts" / task
    assert not (home / "prompt.npy").exists()
    saved = checkpoints.load_prompt(home, model())
    assert saved.tensors.keys() == trained.tensors.keys()
    for key, tensor in saved.tensors.items():
      np.testing.assert_array_equal(tensor, trained.tensors[key][n])
    assert saved.record["method"] == prompt.method_of(module)
  first, last = (
    storage.flatten(storage.load_tree(path)[0])
    for path in sorted((folder / "checkpoints").iterdir())
  )
  moved = [path for path in last if "/trained/" in path]
  assert {path.split("/")[-1] for path in moved} == {
    *trained.tensors.keys() - {"keep"}
  }
  assert all((first[path] != last[path]).any() for path in moved)


@NAMES
def test_the_file_predicts_what_the_trained_network_predicted(whole, name):
  trained, folder = whole(name)
  saved = [
    checkpoints.load_prompt(folder / "prompts" / task).whole for task in BOTH
  ]
  module = prompt.for_network(METHODS[name][0](METHODS[name][1], 16, 2), CONFIG)
  training = prompted.Prompted(
    t5.T5(CONFIG, prompt=module),
    trained.params,
    tiny_t5.vocabulary(),
    (module.length,) * 2,
  )
  rows, ids = list(tiny_t5.tokens(4, 6)), [0, 1, 1, 0]
  answers = list(tiny_t5.tokens(4, 3))
  expected, found = (
    infer.Predictor(one, infer.Decoding()).log_probabilities(rows, ids, answers)
    for one in (training, prompted.with_prompts(model(), saved))
  )
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@NAMES
def test_the_file_answers_as_the_run_did(whole, name):
  trained, folder = whole(name)
  one = prompted_model.PromptedModel(
    model(),
    [folder / "prompts" / task for task in BOTH],
    infer.decoding_for(toy_tasks.LENGTHS),
  )
  for n, task in enumerate(BOTH):
    at = trained.best.steps[n]
    file = folder / "predictions" / f"{task}-validation-{at}.jsonl"
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    texts = one.predict([a["input"] for a in answers], [n] * len(answers))
    assert texts == [a["prediction"] for a in answers]


def near(one, other, n=slice(None)):
  for name, tensor in one.tensors.items():
    np.testing.assert_allclose(
      tensor, other.tensors[name][n], rtol=3e-4, atol=3e-5, err_msg=name
    )


@pytest.mark.parametrize(
  "name",
  [
    "deep",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("ia3", "decoder")),
  ],
)
def test_a_bank_trains_as_each_of_its_prompts_alone(tmp_path, whole, name):
  for n, task in enumerate(BOTH):
    alone = run(tmp_path / task, name, task)
    near(alone, whole(name)[0], slice(n, n + 1))


@NAMES
def test_a_run_that_goes_on_is_the_same_bit_for_bit(tmp_path, whole, name):
  run(tmp_path, name, steps=2)
  run(tmp_path, name)
  found = hashes(tmp_path)
  assert found == hashes(whole(name)[1])
  assert "checkpoints/step_00000004.safetensors" in found


def test_a_run_killed_anywhere_goes_on_bit_for_bit(tmp_path, whole):
  name, ended = "decoder", 0
  for killing in Killing.everywhere(step=89):
    folder = tmp_path / f"{killing.at}"
    with killing:
      run(folder, name)
    run(folder, name)
    assert hashes(folder) == hashes(whole(name)[1]), killing.at
    ended += killing.killed
  assert ended > 1


def test_stacked_layers_packed_rows_and_remat_train_the_same(tmp_path, whole):
  """In parts of packed rows, by a scan over layers that are computed again."""
  name = "ia3"
  found = run(
    tmp_path,
    name,
    frozen=model(stacked=True),
    layout=layout.Layout("packed", num_microbatches=2),
    tuned={"remat": True},
  )
  near(found, whole(name)[0])


def test_a_part_of_it_may_stay_as_it_is(tmp_path):
  patterns = ("prompt/encoder_.*",)
  found = run(
    tmp_path, "ia3", toy_tasks.CAT, tuned={"trainable": patterns}
  ).tensors
  assert (found["decoder_keys"] == 1).all()
  assert (found["encoder_keys"] != 1).any()


# The gin files.


@pytest.mark.usefixtures("clean_gin")
@pytest.mark.parametrize(
  "name, length, expected",
  [
    ("deep", 20, {"name": "Deep", "combine": "add"}),
    ("ia3", 0, {"name": "IA3"}),
    ("decoder", 20, {"name": "Decoder", "decoder_length": 20}),
  ],
)
def test_a_gin_file_chooses_its_method(name, length, expected):
  import gin

  from prompt_tuning.training import train

  configuration.configure(
    ["demo/prompt_tuning.gin", f"methods/{name}.gin"], (), ()
  )
  tuning = gin.get_configurable(train.Tuning)()
  assert prompt.method_of(tuning.module(20, 128, 2)) == expected
  assert tuning.prompt_length == length
