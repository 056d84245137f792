"""Runs of prompts at other places that attend to other things."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import configuration, storage
from prompt_tuning.data.layout import Layout
from prompt_tuning.inference import ensemble, infer, prompted_model
from prompt_tuning.model import inject
from prompt_tuning.prompts import checkpoints, conversion, prompted
from prompt_tuning.training import loop, optimizers, prepare

PLACINGS = {
  "first": inject.Placing("after_first", ("prompt_to_prompt",)),
  "end": inject.Placing(
    "after_end", ("prompt_to_prompt_causal", "prompt_to_input")
  ),
}


def run(folder, placing, *, steps=4, **changes):
  tuned = toy_tasks.tuning(
    placing=PLACINGS.get(placing, inject.Placing()),
    optimizer=optimizers.adafactor(0.1),
  )
  plan = loop.Plan(steps, eval_every=2, steps_per_dispatch=2)
  return toy_tasks.run(folder, plan=plan, tuned=tuned, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """From the name of a placing to a run and its folder."""
  return toy_tasks.once(tmp_path_factory, run)


@pytest.mark.parametrize("name", PLACINGS)
def test_the_file_says_where_it_stands_and_answers_as_the_run_did(whole, name):
  trained, folder = whole(name)
  assert trained.frozen_unchanged
  saved = checkpoints.load_prompt(folder, toy_tasks.model())
  assert saved.placing == PLACINGS[name]
  one = prompted_model.PromptedModel(
    toy_tasks.model(), folder, infer.decoding_for(toy_tasks.LENGTHS)
  )
  (file,) = (folder / "predictions").iterdir()
  rows = [json.loads(line) for line in file.read_text().splitlines()]
  answers = one.predict([row["input"] for row in rows])
  assert answers == [row["prediction"] for row in rows]


def test_the_file_computes_what_the_trained_network_computed(whole):
  trained, folder = whole("end")
  model = toy_tasks.model()
  prepared = prepare.prepare(
    model, toy_tasks.tasks(), toy_tasks.tuning(placing=PLACINGS["end"])
  )
  saved = prompted.with_saved(model, [checkpoints.load_prompt(folder)])
  batch = prepared.batches(0)
  tokens = batch if isinstance(batch, dict) else batch[0]
  text, ids = tiny_t5.tokens(2, 5), tiny_t5.ids(0, 0)
  reserved = prepared.prompted.reserve(text, ids)
  np.testing.assert_array_equal(reserved, saved.reserve(text, ids))
  targets = tiny_t5.tokens(2, 3)
  np.testing.assert_allclose(
    tiny_t5.jitted(saved.network)({"params": saved.params}, reserved, targets),
    tiny_t5.jitted(prepared.prompted.network)(
      {"params": trained.params}, reserved, targets
    ),
    rtol=1e-6,
    atol=1e-6,
  )
  assert inject.is_placeholder(tokens["inputs"]).sum(1).max() == 4


def test_a_run_that_goes_on_is_the_same_bit_for_bit(tmp_path, whole):
  trained, _ = whole("end")
  run(tmp_path, "end", steps=2)
  np.testing.assert_array_equal(run(tmp_path, "end").bank, trained.bank)


def test_a_bank_trains_as_each_of_its_prompts_alone(tmp_path, whole):
  bank = run(tmp_path, "end", seeds=(3, 0)).bank
  np.testing.assert_allclose(
    whole("end")[0].bank[0], bank[1], rtol=2e-4, atol=2e-5
  )
  assert abs(bank[0] - bank[1]).max() > 0.1


def test_prompts_of_one_run_may_stand_at_other_places(tmp_path, whole):
  """Each trains as alone, and has its own name and record."""
  tuned = toy_tasks.tuning(
    placing=[inject.IN_FRONT, inject.Placing("after_end")],
    optimizer=optimizers.adafactor(0.1),
  )
  plan = loop.Plan(4, eval_every=2, steps_per_dispatch=2)
  both = toy_tasks.run(tmp_path / "both", plan=plan, tuned=tuned).bank
  for name, place in (("front", None), ("after_end",) * 2):
    folder = tmp_path / "both" / "prompts" / f"toy_cat-{name}"
    assert checkpoints.load_prompt(folder).record.get("place") == place
  placed = dataclasses.replace(tuned, placing=tuned.placings[1])
  alone = toy_tasks.run(tmp_path / "alone", plan=plan, tuned=placed).bank
  np.testing.assert_allclose(both[1], alone[0], rtol=2e-4, atol=2e-5)
  others = inject.placings(["front", "after_first"])
  changed = dataclasses.replace(tuned, placing=others)
  with pytest.raises(ValueError, match=r"PROMPT_PLACE=\[None, 'after_end'\]"):
    toy_tasks.run(tmp_path / "both", plan=plan, tuned=changed)
  with pytest.raises(ValueError, match="PROMPT_PLACE=.*twice"):
    toy_tasks.tuning(placing=inject.placings(["front", "front"]))


def test_packed_rows_train_the_same_prompt(tmp_path, whole):
  found = run(tmp_path, "end", layout=Layout("packed")).bank
  np.testing.assert_allclose(found, whole("end")[0].bank, rtol=2e-4, atol=2e-5)


def test_another_place_is_not_gone_on_with(tmp_path):
  run(tmp_path, "front", steps=2)
  for name in ("first", "end"):
    with pytest.raises(ValueError, match="belongs to a run with PROMPT_.*None"):
      run(tmp_path, name)
  settings = json.loads((tmp_path / "settings.json").read_text())
  for name in ("PROMPT_PLACE", "PROMPT_ATTENTION"):
    assert settings.pop(name) is None
  # A run of before there were places goes on.
  storage.write_json(tmp_path / "settings.json", settings)
  assert run(tmp_path, "front", steps=3).step == 3


def test_prompts_of_other_places_vote_together(whole):
  names = ("first", "end")
  model = toy_tasks.model()
  saved = [checkpoints.load_prompt(whole(name)[1]) for name in names]
  prepared = prepare.prepare(model, toy_tasks.tasks(), toy_tasks.tuning())
  (examples,) = prepared.scored_sets["validation"]
  decoding = infer.decoding_for(toy_tasks.LENGTHS)

  def votes(prompts):
    one = prompted.with_saved(model, prompts)
    return ensemble.evaluate_together(one, examples, decoding)

  together = votes(saved)
  for single, one in zip(together.singles, saved, strict=True):
    assert votes([one]).singles == [single]


def test_a_place_without_a_prompt_is_refused():
  with pytest.raises(ValueError, match="PROMPT_PLACE='after_end'.*LENGTH=0"):
    toy_tasks.tuning(placing=PLACINGS["end"], prompt_length=0)


def test_a_place_that_peft_has_not_is_refused(tmp_path, whole, caplog):
  saved = checkpoints.load_prompt(whole("end")[1])
  with pytest.raises(ValueError, match="'place': 'after_end'.*PEFT's prompts"):
    conversion.convert(saved, tmp_path / "peft", "peft", "base")
  assert not (tmp_path / "peft").exists()
  conversion.convert(saved, tmp_path / "rows.npy", "numpy")
  assert "does not say that it has {'place': 'after_end'" in caplog.text
  copy = conversion.convert(saved, tmp_path / "copy", "prompt-tuning")
  assert checkpoints.load_prompt(copy).placing == saved.placing


@pytest.mark.parametrize(
  "entry", [{"place": "nowhere"}, {"place": [1]}, {"attention": 7}]
)
def test_a_record_that_names_no_known_place_is_refused(tmp_path, entry):
  checkpoints.save_prompt(tmp_path, tiny_t5.rows(4, 16), entry)
  with pytest.raises(ValueError, match="The record of .* says place="):
    checkpoints.load_prompt(tmp_path)


@pytest.mark.usefixtures("clean_gin")
def test_macros_choose_place_and_attention():
  import gin

  from prompt_tuning.training import train

  configuration.configure(
    ["demo/prompt_tuning.gin"],
    ["PROMPT_PLACE=after_first", "PROMPT_ATTENTION=('prompt_to_input',)"],
    (),
  )
  (placing,) = gin.get_configurable(train.Tuning)().placings
  assert placing == inject.Placing("after_first", ("prompt_to_input",))
