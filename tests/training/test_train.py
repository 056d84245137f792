import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import storage
from prompt_tuning.data import layout
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer
from prompt_tuning.model import decode, freeze, t5
from prompt_tuning.prompts import (
  checkpoints,
  initializers,
  prompted,
  reparameterised,
)
from prompt_tuning.run_folder import RunFolder
from prompt_tuning.training import loop, optimizers, prepare, train


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_moves_the_prompt_and_nothing_else(tmp_path):
  model = toy_tasks.model()
  before = storage.tree_hash(model.params)
  trained = toy_tasks.run(tmp_path, model=model, steps=8)
  start = initializers.from_vocabulary()
  assert trained.frozen_unchanged
  assert storage.tree_hash(model.params) == before
  frozen = {k: v for k, v in trained.params.items() if k != "prompt"}
  assert storage.tree_hash(frozen) == before
  (first,) = [
    toy_tasks.run(
      tmp_path / "one",
      model=model,
      tuned=toy_tasks.tuning(initializer=start),
      plan=loop.Plan(1, eval_every=1),
    ).bank
  ]
  assert (first != trained.bank[0]).any()


def test_the_training_loss_falls(tmp_path):
  toy_tasks.run(tmp_path, steps=60, plan=loop.Plan(60, eval_every=30))
  losses = [r["loss"] for r in lines(tmp_path / "metrics.jsonl") if "loss" in r]
  assert losses[-1] < 0.9 * losses[0]


def test_the_folder_holds_what_the_readme_promises(tmp_path):
  trained = toy_tasks.run(tmp_path, test_splits=("test",))
  best = trained.best.steps[0]
  assert {p.name for p in tmp_path.iterdir() if p.name[:6] != "events"} == {
    "checkpoints",
    "curves.png",
    "metrics.jsonl",
    "predictions",
    "prompt.json",
    "prompt.npy",
    "settings.json",
  }
  assert any(p.name.startswith("events.out") for p in tmp_path.iterdir())
  rows = lines(tmp_path / "predictions" / f"toy_cat-test-{best}.jsonl")
  assert len(rows) == toy_tasks.SIZES["test"]
  assert rows[0].keys() == {"input", "target", "prediction"}
  hits = [row["target"] == row["prediction"] for row in rows]
  record = json.loads((tmp_path / "prompt.json").read_text())
  assert record["scores"]["test"] == {"accuracy": 100 * sum(hits) / len(hits)}
  assert record["model"]["hash"] == toy_tasks.model().stored_hash
  assert record["best_step"] == best and record["steps"] == 12
  assert record["initializer"] == "from_vocabulary"
  assert record["truncated"] == {"toy_cat": {"inputs": 0, "targets": 0}}


def test_the_prompt_of_the_best_validation_is_the_one_that_is_kept(tmp_path):
  trained = toy_tasks.run(tmp_path, steps=40, plan=loop.Plan(40, eval_every=4))
  rows = [r for r in lines(tmp_path / "metrics.jsonl") if "accuracy" in r]
  best = max(rows, key=lambda row: row["accuracy"])
  assert trained.best.steps == [best["step"]]
  assert trained.best.scores == [best["accuracy"]]
  again = toy_tasks.run(
    tmp_path / "until_best",
    steps=best["step"],
    plan=loop.Plan(best["step"], eval_every=4),
  )
  np.testing.assert_array_equal(trained.bank, again.bank)


def test_prompts_trained_together_equal_single_runs(tmp_path):
  together = toy_tasks.run(
    tmp_path / "all", [toy_tasks.CAT, toy_tasks.DOG], seeds=(0, 3), steps=8
  )
  members = [
    (toy_tasks.CAT, 0),
    (toy_tasks.CAT, 3),
    (toy_tasks.DOG, 0),
    (toy_tasks.DOG, 3),
  ]
  for n, (name, seed) in enumerate(members):
    alone = toy_tasks.run(tmp_path / f"{n}", name, seeds=(seed,), steps=8)
    np.testing.assert_allclose(
      together.bank[n], alone.bank[0], rtol=2e-4, atol=2e-5
    )
    assert together.best.steps[n] == alone.best.steps[0]
    saved = checkpoints.load_prompt(
      tmp_path / "all" / "prompts" / f"{name}-seed{seed}", toy_tasks.model()
    )
    np.testing.assert_array_equal(saved.values, together.bank[n])


def test_prompts_are_pulled_to_texts_of_their_own_as_alone(tmp_path):
  """The text of one task, and a run that is resumed."""
  settings = {"wayward_text": "the {task}", "wayward_gamma": 0.5}
  tuned = toy_tasks.tuning(**settings, prompt_length=10)
  names = [toy_tasks.CAT, toy_tasks.DOG]
  together = toy_tasks.run(tmp_path / "all", names, tuned=tuned, steps=4)
  free = toy_tasks.tuning(prompt_length=10)
  plain = toy_tasks.run(tmp_path / "plain", toy_tasks.DOG, tuned=free, steps=4)
  alone = toy_tasks.run(tmp_path / "n", toy_tasks.DOG, tuned=tuned, steps=4)
  np.testing.assert_allclose(
    together.bank[1], alone.bank[0], rtol=2e-4, atol=2e-5
  )
  assert np.abs(plain.bank[0] - alone.bank[0]).max() > 0.01
  saved = checkpoints.load_prompt(tmp_path / "n")
  assert saved.record["wayward"] == {"text": "the toy_dog", "gamma": 0.5}
  assert "wayward" not in checkpoints.load_prompt(tmp_path / "plain").record
  rows = RunFolder(tmp_path / "all").metrics()
  assert all(row["wayward"] > 0 for row in rows if "loss" in row)
  other = dataclasses.replace(tuned, wayward_gamma=0.1)
  with pytest.raises(ValueError, match="WAYWARD_GAMMA=0.5, this one has .*0.1"):
    toy_tasks.run(tmp_path / "n", toy_tasks.DOG, tuned=other, steps=6)


def test_initialisers_train_together_as_alone(tmp_path):
  starts = [initializers.random_uniform(), initializers.from_vocabulary()]
  together = toy_tasks.run(
    tmp_path / "all",
    tuned=toy_tasks.tuning(initializer=starts),
    seeds=(0, 3),
    steps=8,
  )
  members = [(seed, n) for seed in (0, 3) for n in (0, 1)]
  for row, (seed, n) in enumerate(members):
    alone = toy_tasks.run(
      tmp_path / f"{row}",
      tuned=toy_tasks.tuning(initializer=starts[n]),
      seeds=(seed,),
      steps=8,
    )
    np.testing.assert_allclose(
      together.bank[row], alone.bank[0], rtol=2e-4, atol=2e-5
    )
    kind = ("random_uniform", "from_vocabulary")[n]
    saved = checkpoints.load_prompt(
      tmp_path / "all" / "prompts" / f"{toy_tasks.CAT}-{kind}-seed{seed}"
    )
    assert saved.record["initializer"] == kind
    np.testing.assert_array_equal(saved.values, together.bank[row])


def test_initialisers_of_one_kind_get_folders_of_their_own(tmp_path):
  starts = [initializers.random_uniform(scale) for scale in (0.1, 0.5)]
  toy_tasks.run(
    tmp_path, tuned=toy_tasks.tuning(initializer=starts), seeds=(0, 1), steps=2
  )
  assert len(list((tmp_path / "prompts").iterdir())) == 4


def test_running_it_again_goes_on_where_it_stopped(tmp_path):
  whole = toy_tasks.run(tmp_path / "whole", steps=12)
  toy_tasks.run(tmp_path / "parts", steps=8)
  parts = toy_tasks.run(tmp_path / "parts", steps=12)
  np.testing.assert_array_equal(whole.bank, parts.bank)
  assert parts.frozen_unchanged
  assert lines(tmp_path / "whole" / "metrics.jsonl") == lines(
    tmp_path / "parts" / "metrics.jsonl"
  )


@pytest.mark.parametrize(
  "chosen",
  [
    layout.Layout("groups", num_microbatches=3),
    pytest.param(
      layout.Layout("packed", microbatch_tokens=32), marks=pytest.mark.slow
    ),
  ],
  ids=lambda chosen: chosen.layout,
)
def test_two_tasks_in_parts_with_dropout_go_on_bit_for_bit(tmp_path, chosen):
  names = (toy_tasks.CAT, toy_tasks.DOG)
  settings = {"tuned": toy_tasks.tuning(dropout_rate=0.2), "layout": chosen}
  whole = toy_tasks.run(tmp_path / "whole", names, steps=8, **settings)
  toy_tasks.run(tmp_path / "parts", names, steps=4, **settings)
  parts = toy_tasks.run(tmp_path / "parts", names, steps=8, **settings)
  np.testing.assert_array_equal(whole.bank, parts.bank)
  assert lines(tmp_path / "whole" / "metrics.jsonl") == lines(
    tmp_path / "parts" / "metrics.jsonl"
  )


def test_a_folder_of_another_run_is_refused_and_kept(tmp_path):
  first = toy_tasks.run(tmp_path, steps=4)
  with pytest.raises(
    ValueError, match="BATCH_SIZE=8, this one has BATCH_SIZE=4"
  ):
    toy_tasks.run(tmp_path, steps=8, batch_size=4)
  saved = checkpoints.load_prompt(tmp_path, toy_tasks.model())
  np.testing.assert_array_equal(saved.values, first.bank[0])


def test_model_tuning_trains_everything_and_writes_a_model(tmp_path):
  tuned = toy_tasks.tuning(
    trainable=freeze.EVERYTHING_ELSE,
    prompt_length=0,
    optimizer=optimizers.adamw(1e-2),
  )
  trained = toy_tasks.run(tmp_path, tuned=tuned, steps=12)
  assert trained.bank is None
  before = storage.flatten(toy_tasks.model().params)
  after = storage.flatten(trained.params)
  assert all((before[path] != after[path]).any() for path in before)
  saved = pretrained.load(tmp_path / "model")
  for path, leaf in storage.flatten(saved.params).items():
    np.testing.assert_array_equal(leaf, after[path])
  assert not (tmp_path / "prompt.npy").exists()


def test_a_mixture_trains_one_prompt(tmp_path):
  trained = toy_tasks.run(
    tmp_path, "toy_animals", validation_split=None, steps=4
  )
  assert trained.bank.shape == (1, 4, 16) and trained.best is None


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"names": "toy_cap"}, "Did you mean toy_cat"),
    ({"names": "toy_animals"}, "is a mixture of 2 tasks"),
    ({"names": toy_tasks.BROKEN}, "inputs of example 3 of toy_broken"),
    (
      {"tuned": toy_tasks.tuning(wayward_text="the {label}")},
      "WAYWARD_TEXT=.* has the field 'label'. Did you mean labels",
    ),
    (
      {"tuned": toy_tasks.tuning(wayward_text="the cat sat on the mat")},
      "tokens, and each of them pulls a position of PROMPT_LENGTH=4",
    ),
    (
      {
        "tuned": toy_tasks.tuning(
          wayward_text="the", trainable=freeze.EVERYTHING_ELSE
        )
      },
      "WAYWARD_TEXT pulls the prompt .* TRAINABLE leaves",
    ),
    (
      {"train_examples": 49},
      "=49 are more than the 48 of toy_cat, split train",
    ),
    ({"train_split": "nothing"}, "'nothing' of toy_cat is empty"),
    (
      {
        "names": [toy_tasks.CAT, toy_tasks.DOG],
        "tuned": toy_tasks.tuning(trainable=(".*",), prompt_length=0),
      },
      "can share one frozen model only if",
    ),
    (
      {"tuned": toy_tasks.tuning(trainable=("promt/.*",))},
      "'promt/.*' of the trainable parameters matches none",
    ),
    (
      {
        "tuned": toy_tasks.tuning(
          initializer=initializers.from_string("the " * 9)
        )
      },
      "PROMPT_LENGTH=4 has no room",
    ),
    (
      {"tuned": toy_tasks.tuning(select_by="f1")},
      "SELECT_BY='f1' is no metric",
    ),
    (
      {
        "tuned": toy_tasks.tuning(
          optimizer=optimizers.adamw(lambda _: float("nan"))
        )
      },
      "The loss.* is not finite",
    ),
  ],
)
def test_a_mistake_is_named(tmp_path, changes, message):
  names = changes.pop("names", toy_tasks.CAT)
  with pytest.raises(ValueError, match=message):
    toy_tasks.run(tmp_path, names, **changes)


@pytest.mark.parametrize(
  "setting, message",
  [
    (
      {"initializer": initializers.random_uniform()},
      "PROMPT_INITIALIZER=.*random_uniform",
    ),
    (
      {"optimizer": optimizers.adafactor(0.2)},
      "updates by OPTIMIZER and LEARNING_RATE=",
    ),
    (
      {"initializer": initializers.from_vocabulary(20)},
      "start by PROMPT_INITIALIZER=None, this one .*'most_common': 20",
    ),
    ({"dropout_rate": 0.5}, "DROPOUT_RATE=0.0, this one has DROPOUT_RATE=0.5"),
    ({"select_by": "accuracy"}, "SELECT_BY=None, this one has"),
  ],
)
def test_a_run_of_another_tuning_is_not_gone_on_with(
  tmp_path, setting, message
):
  toy_tasks.run(tmp_path, steps=4)
  with pytest.raises(ValueError, match=message):
    toy_tasks.run(tmp_path, steps=8, tuned=toy_tasks.tuning(**setting))


def test_a_run_of_more_examples_is_not_gone_on_with(tmp_path):
  toy_tasks.run(tmp_path, steps=4, train_examples=8)
  with pytest.raises(ValueError, match="TRAIN_EXAMPLES=8, this one has .*None"):
    toy_tasks.run(tmp_path, steps=8)


def test_a_run_on_other_rows_is_not_gone_on_with(tmp_path, monkeypatch):
  toy_tasks.run(tmp_path, steps=4)
  monkeypatch.setitem(toy_tasks.SIZES, "train", 47)
  with pytest.raises(ValueError, match="a run with training data of hash="):
    toy_tasks.run(tmp_path, steps=8)


@pytest.mark.parametrize(
  "settings, message",
  [
    ({"validation": 11}, "a run with validation data of hash="),
    ({"test": 11}, None),  # nothing is chosen on it
  ],
)
def test_a_prompt_is_not_chosen_by_scores_of_two_files(
  tmp_path, monkeypatch, settings, message
):
  toy_tasks.run(tmp_path, steps=4, test_splits=("test",))
  for split, size in settings.items():
    monkeypatch.setitem(toy_tasks.SIZES, split, size)
  again = functools.partial(
    toy_tasks.run, tmp_path, steps=8, test_splits=("test",)
  )
  if message is None:
    assert again().step == 8
    return
  with pytest.raises(ValueError, match=message):
    again()


def test_a_prompt_is_not_chosen_by_scores_of_two_decodings(tmp_path):
  toy_tasks.run(tmp_path, steps=4)
  ranked = infer.Decoding(decode.Rank())
  with pytest.raises(ValueError, match="DECODING='Greedy.*Rank"):
    toy_tasks.run(tmp_path, steps=8, decoding=ranked)
  slower = infer.Decoding(max_length=16, batch_size=2)
  assert toy_tasks.run(tmp_path, steps=8, decoding=slower).step == 8


def test_a_test_split_that_is_not_there_is_named_before_training(tmp_path):
  with pytest.raises(ValueError, match="has no split 'tset'"):
    toy_tasks.run(tmp_path, test_splits=("tset",))
  assert not (tmp_path / "metrics.jsonl").exists()


def test_a_narrow_model_is_tuned_in_float32(tmp_path):
  params = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), toy_tasks.model().params
  )
  narrow = dataclasses.replace(toy_tasks.model(), params=params)
  tuned = toy_tasks.tuning(trainable=(".*",), prompt_length=0)
  trained = toy_tasks.run(tmp_path, model=narrow, tuned=tuned, steps=4)
  assert {leaf.dtype for leaf in jax.tree.leaves(trained.params)} == {
    np.dtype("float32")
  }


def test_a_prompt_tuned_with_its_model_is_for_that_model(tmp_path):
  trained = toy_tasks.run(
    tmp_path, tuned=toy_tasks.tuning(trainable=(".*",)), steps=4
  )
  tuned = pretrained.load(tmp_path / "model")
  saved = checkpoints.load_prompt(tmp_path, tuned)
  np.testing.assert_array_equal(saved.values, trained.bank[0])
  with pytest.raises(ValueError, match="was trained for the frozen weights"):
    checkpoints.load_prompt(tmp_path, toy_tasks.model())


def test_a_run_is_not_cut_short_afterwards(tmp_path):
  toy_tasks.run(tmp_path, steps=4)
  with pytest.raises(ValueError, match="has done 4 steps, more than TRAIN_ST"):
    toy_tasks.run(tmp_path, steps=2)


def test_a_model_without_vocabulary_is_refused(tmp_path):
  bare = dataclasses.replace(toy_tasks.model(), vocabulary=None)
  with pytest.raises(ValueError, match="has no vocabulary"):
    toy_tasks.run(tmp_path, model=bare)


def test_no_prompt_positions_is_the_plain_model(tmp_path):
  bare = prompted.with_prompts(toy_tasks.model(), [])
  tokens = tiny_t5.tokens(3, 5)
  np.testing.assert_array_equal(
    bare.reserve(tokens, tiny_t5.ids(0, 0, 0)), tokens
  )
  np.testing.assert_array_equal(
    tiny_t5.jitted(bare.network)({"params": bare.params}, tokens, tokens),
    tiny_t5.jitted(t5.T5(tiny_t5.config()))(
      {"params": toy_tasks.model().params}, tokens, tokens
    ),
  )


def at_chance(caplog) -> list[str]:
  """What was said of prompts that are at chance."""
  return [text for text in caplog.messages if "most frequent answer" in text]


def test_a_prompt_at_chance_after_a_tenth_is_said_once_with_what_to_try(
  tmp_path, caplog
):
  still = toy_tasks.tuning(optimizer=optimizers.adafactor(0.0))
  plan = loop.Plan(20, eval_every=1, steps_per_dispatch=2)
  trained = toy_tasks.run(tmp_path, tuned=still, plan=plan)
  score = trained.results[0][0].metrics["accuracy"]
  (said,) = at_chance(caplog)
  assert said.startswith("After 2 of 20 steps")
  assert f"toy_cat: {score:.1f} (chance " in said
  for advice in ("SEEDS", "LEARNING_RATE", "methods/low_rank.gin"):
    assert advice in said


def test_a_prompt_above_chance_is_not_said_to_be_there(caplog):
  """Two prompts, of which one answers most examples."""
  prepared = prepare.prepare(
    toy_tasks.model(), toy_tasks.tasks(seeds=(0, 1)), toy_tasks.tuning()
  )
  watch = train.watch_for_chance(prepared, loop.Plan(100, eval_every=4))
  watch(8, [0.0, 0.0])  # before a tenth
  watch(16, [0.0, 0.0])  # after the first look behind it
  assert not at_chance(caplog)
  watch(12, [99.0, 50.0])
  (said,) = at_chance(caplog)
  assert "toy_cat-seed1: 50.0" in said and "seed0" not in said
  whole = toy_tasks.tuning(trainable=(".*",), prompt_length=0)
  tuned = prepare.prepare(toy_tasks.model(), toy_tasks.tasks(), whole)
  assert train.watch_for_chance(tuned, loop.Plan(100)) is None


def test_what_has_been_done_is_no_advice(caplog):
  tuned = toy_tasks.tuning(
    initializer=initializers.from_class_labels(),
    module=reparameterised.low_rank(2),
  )
  prepared = prepare.prepare(toy_tasks.model(), toy_tasks.tasks(), tuned)
  watch = train.watch_for_chance(prepared, loop.Plan(100, eval_every=4))
  watch(12, [0.0])
  (said,) = at_chance(caplog)
  assert "LEARNING_RATE, or start from the prompt of a related task" in said
  assert "class_labels.gin" not in said and "methods/" not in said


@pytest.mark.parametrize(
  "dtype", ["int8", pytest.param("int4", marks=pytest.mark.slow)]
)
def test_prompts_train_beside_quantised_weights(tmp_path, dtype):
  plain = toy_tasks.model()
  model = dataclasses.replace(plain, params=toy_tasks.held(plain.params, dtype))
  before = storage.tree_hash(model.params)
  trained = toy_tasks.run(
    tmp_path, (toy_tasks.CAT, toy_tasks.DOG), model=model, steps=8
  )
  assert trained.frozen_unchanged
  assert storage.tree_hash(model.params) == before
  record = json.loads(
    (tmp_path / "prompts" / toy_tasks.CAT / "prompt.json").read_text()
  )
  assert record["model"]["hash"] == plain.stored_hash
  assert record["model"]["weights_dtype"] == dtype
  settings = json.loads((tmp_path / "settings.json").read_text())
  assert settings["WEIGHTS_DTYPE"] == dtype
  names = (toy_tasks.CAT, toy_tasks.DOG)
  with pytest.raises(ValueError, match=f"WEIGHTS_DTYPE='{dtype}', this"):
    toy_tasks.run(tmp_path, names, model=plain, steps=8)


def test_quantised_weights_do_not_train(tmp_path):
  plain = toy_tasks.model()
  model = dataclasses.replace(
    plain, params=toy_tasks.held(plain.params, "int8")
  )
  with pytest.raises(ValueError, match=r"TRAINABLE=\('.*',\) trains weights"):
    toy_tasks.run(
      tmp_path,
      model=model,
      tuned=toy_tasks.tuning(trainable=(".*",), prompt_length=0),
    )


def test_one_call_tunes_a_prompt_that_predicts(tmp_path):
  model = toy_tasks.model()
  prompted = train.tune(
    model,
    toy_tasks.CAT,
    tmp_path,
    steps=6,
    prompt_length=4,
    lengths=toy_tasks.LENGTHS,
  )
  saved = checkpoints.load_prompt(tmp_path, model)
  assert saved.record["steps"] == 6 and saved.values.shape == (4, 16)
  (shared,) = prompted.prompts
  assert (shared.values == saved.values).all()
  assert len(prompted.predict(["the cat sat", "a dog"])) == 2
