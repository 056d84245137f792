"""Runs of every method: what is left, resume, banks, the shared part."""

import json

from killing import Killing
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import configuration, storage
from prompt_tuning.inference import infer, prompted_model
from prompt_tuning.model import t5
from prompt_tuning.prompts import (
  checkpoints,
  multitask,
  prompt,
  prompted,
  reparameterised,
)
from prompt_tuning.training import loop, optimizers

ALONE = {
  "residual": reparameterised.residual(4),
  "low_rank": reparameterised.low_rank(2),
  "ulpt": reparameterised.ulpt(3),
  "superposition": reparameterised.superposition(6),
}
TOGETHER = {
  "product": multitask.multi_task(),
  "add": multitask.multi_task("add"),
  "concat": multitask.multi_task("concat", 2),
  "features": multitask.multi_task("features", 5),
  "project": multitask.multi_task("project", 3),
}
METHODS = {**ALONE, **TOGETHER}
BOTH = [toy_tasks.CAT, toy_tasks.DOG]


def run(folder, method, names=toy_tasks.CAT, *, steps=4, **changes):
  tuned = toy_tasks.tuning(module=method, optimizer=optimizers.adafactor(0.1))
  changes.setdefault("tuned", tuned)
  plan = loop.Plan(steps, eval_every=2, steps_per_dispatch=2)
  return toy_tasks.run(folder, names, plan=plan, **changes)


def tensors(folder) -> dict[str, str]:
  """The hashes of all arrays in a run's folder."""
  trees = {
    path: storage.load_tree(path)[0] for path in folder.rglob("*.safetensors")
  } | {path: {"rows": np.load(path)} for path in folder.rglob("*.npy")}
  return {
    str(path.relative_to(folder)): storage.tree_hash(tree)
    for path, tree in sorted(trees.items())
  }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """From the name of a method to a run of two tasks and its folder."""
  return toy_tasks.once(
    tmp_path_factory, lambda folder, name: run(folder, METHODS[name], BOTH)
  )


@pytest.mark.parametrize("name", METHODS)
def test_a_run_trains_and_leaves_plain_prompts(whole, name):
  trained, folder = whole(name)
  assert trained.frozen_unchanged and trained.bank.shape == (2, 4, 16)
  module = METHODS[name](4, 16, 2)
  for n, task in enumerate(BOTH):
    saved = checkpoints.load_prompt(
      folder / "prompts" / task, toy_tasks.model()
    )
    np.testing.assert_array_equal(saved.values, trained.bank[n])
    assert saved.record["method"] == prompt.method_of(module)


@pytest.mark.parametrize("name", METHODS)
def test_the_trained_parameters_move(whole, name):
  _, folder = whole(name)
  first, last = (
    storage.flatten(storage.load_tree(path)[0])
    for path in sorted((folder / "checkpoints").iterdir())
  )
  moved = [path for path in last if "/trained/" in path]
  assert moved and all((first[path] != last[path]).any() for path in moved)


def test_a_plain_prompt_names_no_method(tmp_path):
  toy_tasks.run(tmp_path, steps=1)
  assert "method" not in json.loads((tmp_path / "prompt.json").read_text())


@pytest.mark.parametrize("name", METHODS)
def test_the_file_predicts_what_the_trained_network_predicted(whole, name):
  trained, folder = whole(name)
  model = toy_tasks.model()
  folders = [folder / "prompts" / task for task in BOTH]
  rows = [checkpoints.load_prompt(each).values for each in folders]
  plain = prompted.with_prompts(model, rows)
  network = t5.T5(model.config, prompt=METHODS[name](4, 16, 2))
  tokens = tiny_t5.reserved(tiny_t5.tokens(4, 6), [0, 1, 1, 0], 4)
  targets = tiny_t5.tokens(4, 3)
  found = tiny_t5.jitted(plain.network)(
    {"params": plain.params}, tokens, targets
  )
  expected = tiny_t5.jitted(network)(
    {"params": trained.params}, tokens, targets
  )
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_file_answers_as_the_run_did(whole):
  trained, folder = whole("residual")
  one = prompted_model.PromptedModel(
    toy_tasks.model(),
    [folder / "prompts" / task for task in BOTH],
    infer.decoding_for(toy_tasks.LENGTHS),
  )
  for n, task in enumerate(BOTH):
    name = f"{task}-validation-{trained.best.steps[n]}.jsonl"
    lines = (folder / "predictions" / name).read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    texts = one.predict([a["input"] for a in answers], [n] * len(answers))
    assert texts == [a["prediction"] for a in answers]


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (i > 0))
    for i, name in enumerate(ALONE)
  ],
)
def test_a_bank_trains_as_each_of_its_prompts_alone(tmp_path, name):
  bank = run(tmp_path / "both", ALONE[name], seeds=(0, 3)).bank
  for n, seed in enumerate((0, 3)):
    alone = run(tmp_path / f"{n}", ALONE[name], seeds=(seed,))
    np.testing.assert_allclose(alone.bank[0], bank[n], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in (*TOGETHER,)[2:]))
    for name in METHODS
  ],
)
def test_a_run_that_goes_on_is_the_same_bit_for_bit(tmp_path, whole, name):
  run(tmp_path, METHODS[name], BOTH, steps=2)
  run(tmp_path, METHODS[name], BOTH)
  found = tensors(tmp_path)
  assert found == tensors(whole(name)[1])
  assert "checkpoints/step_00000004.safetensors" in found


def test_a_run_killed_anywhere_goes_on_bit_for_bit(tmp_path, whole):
  name, ended = "product", 0
  for killing in Killing.everywhere(step=53):
    folder = tmp_path / f"{killing.at}"
    with killing:
      run(folder, METHODS[name], BOTH)
    run(folder, METHODS[name], BOTH)
    assert tensors(folder) == tensors(whole(name)[1]), killing.at
    ended += killing.killed
  assert ended > 1


@pytest.mark.parametrize("name", ["ulpt", "superposition"])
def test_what_is_fixed_is_in_no_file(whole, name):
  files = list(whole(name)[1].rglob("*.safetensors"))
  assert files
  for file in files:
    assert not any("fixed" in path for path in storage.open_tensors(file)[0])


def test_another_method_is_not_gone_on_with(tmp_path):
  run(tmp_path, ALONE["low_rank"], steps=4)
  with pytest.raises(ValueError, match="with PROMPT=.*'rank': 2.*'rank': 3"):
    run(tmp_path, reparameterised.low_rank(3), steps=8)
  with pytest.raises(ValueError, match="LowRank.*this one has PROMPT=None"):
    run(tmp_path, prompt.Prompt, steps=8)


# What tasks share.


@pytest.mark.parametrize("name", TOGETHER)
def test_tasks_share_a_part_that_a_new_task_starts_from(tmp_path, whole, name):
  trained, folder = whole(name)
  shared = trained.params["prompt"]["shared_rows"]
  stored, about = storage.load_tree(folder / multitask.FILE)
  np.testing.assert_array_equal(stored["shared_rows"], shared)
  settings = prompt.method_of(METHODS[name](4, 16, 2))
  assert about["method"] == settings
  later = multitask.multi_task(settings["combine"], settings["size"], folder)
  first = later(4, 16, 1).first_parameters(tiny_t5.rows(1, 4, 16))
  np.testing.assert_array_equal(first["shared_rows"], shared)
  if name == "product":
    run(tmp_path, later, steps=2)
    record = checkpoints.load_prompt(tmp_path).record
    assert record["method"]["start_from"] == str(folder)


def test_a_shared_part_of_other_weights_is_refused(whole):
  _, folder = whole("product")
  _, about = storage.load_tree(folder / multitask.FILE)
  model = toy_tasks.model().stored_hash
  assert about["model"] == model
  later = multitask.multi_task(start_from=folder)(4, 16, 1)
  rows = tiny_t5.rows(1, 4, 16)
  assert later.first_parameters(rows, prompt.Given(model=model))
  with pytest.raises(ValueError, match=f"hash {model[:12]}; these have abcd"):
    later.first_parameters(rows, prompt.Given(model="abcd"))


def test_the_shared_part_is_kept_as_it_was_at_one_step(tmp_path):
  trained = run(tmp_path, TOGETHER["add"], BOTH, steps=20)
  assert len(set(trained.best.steps)) == 1
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  means: dict[int, list[float]] = {}
  for row in map(json.loads, lines):
    if "accuracy" in row:
      means.setdefault(row["step"], []).append(row["accuracy"])
  best = max(np.mean(scores) for scores in means.values())
  assert trained.best.scores == [pytest.approx(best)] * 2


def test_the_shared_part_may_stay_as_it_is(tmp_path, whole):
  _, folder = whole("product")
  tuned = toy_tasks.tuning(
    module=multitask.multi_task(start_from=folder),
    trainable=("prompt/(left|right)",),
  )
  found = run(tmp_path, prompt.Prompt, tuned=tuned).params["prompt"]
  stored, _ = storage.load_tree(folder / multitask.FILE)
  np.testing.assert_array_equal(found["shared_rows"], stored["shared_rows"])
  assert (found["left"][0] != stored["left"]).any()


def test_seeds_that_would_share_a_part_are_refused(tmp_path):
  with pytest.raises(
    ValueError, match="make 2 prompts for 1 tasks.* seeds would"
  ):
    run(tmp_path, TOGETHER["add"], seeds=(0, 1))


def test_a_method_without_a_prompt_is_refused():
  with pytest.raises(ValueError, match="PROMPT is set .* PROMPT_LENGTH=0"):
    toy_tasks.tuning(module=ALONE["ulpt"], prompt_length=0)


# The gin files.


@pytest.mark.usefixtures("clean_gin")
@pytest.mark.parametrize(
  "name, expected",
  [
    ("residual", {"name": "Residual", "bottleneck": 64}),
    ("low_rank", {"name": "LowRank", "rank": 10}),
    ("ulpt", {"name": "ULPT", "rank": 64}),
    ("superposition", {"name": "Superposition", "num_words": 128}),
    (
      "multi_task",
      {"name": "MultiTask", "combine": "product", "size": 0, "start_from": ""},
    ),
  ],
)
def test_a_gin_file_chooses_its_method(name, expected):
  import gin

  from prompt_tuning.training import train

  configuration.configure(
    ["demo/prompt_tuning.gin", f"methods/{name}.gin"], (), ()
  )
  module = gin.get_configurable(train.Tuning)().module
  assert prompt.method_of(module(20, 128, 2)) == expected


@pytest.mark.usefixtures("clean_gin")
def test_a_setting_of_a_method_without_its_file_is_named():
  with pytest.raises(ValueError, match="BOTTLENECK is set.* methods/residual"):
    configuration.configure(["demo/prompt_tuning.gin"], ["BOTTLENECK=8"], ())


def test_what_is_fixed_cannot_be_all_that_trains(tmp_path):
  tuned = toy_tasks.tuning(
    module=METHODS["ulpt"], trainable=("prompt/fixed_projection",)
  )
  with pytest.raises(ValueError, match="only what PROMPT keeps as it is"):
    run(tmp_path, METHODS["ulpt"], tuned=tuned)
