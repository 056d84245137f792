"""What is checked and written around a t5x run; none of it needs t5x."""

import importlib
import json
import sys
import types
import zipfile

import jax
import numpy as np
import places
import pytest
import seqio
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.frozen import t5x_checkpoints
from prompt_tuning.model import inject
from prompt_tuning.prompts import (
  checkpoints,
  initializers,
  multitask,
  reparameterised,
)
from prompt_tuning.prompts.prompt import Given, Prompt
from prompt_tuning.t5x import t5x_data, t5x_features, t5x_prompts, t5x_restore
from prompt_tuning.tasks import features as task_features

P = 3
GOLDEN = places.GOLDEN / "t5x_checkpoints.zip"


def test_dropout_beside_a_prompt_is_refused():
  t5x_features.check_dropout(0.0)
  with pytest.raises(ValueError, match="DROPOUT_RATE=0.1: a frozen model"):
    t5x_features.check_dropout(0.1)


def test_a_vocabulary_larger_than_the_embedding_is_refused():
  vocabulary = seqio.SentencePieceVocabulary(tiny_t5.vocabulary().path, 10)
  t5x_features.check_vocabulary(vocabulary, vocabulary.vocab_size)
  with pytest.raises(ValueError, match="ids, the embedding .* has 40 rows"):
    t5x_features.check_vocabulary(vocabulary, 40)


PLACING = inject.Placing("after_end", ("prompt_to_input",))


def saved_state(values, step: int) -> dict:
  """What t5x hands to the functions that it calls when it saves.

  Args:
    values: the rows of a plain prompt, or the parameters of another.
    step: when.
  """
  given = values if isinstance(values, dict) else {"embedding": values}
  return {
    "target": {
      "prompt": jax.tree.map(jax.numpy.asarray, given),
      "token_embedder": {},
    },
    "state": {"step": jax.numpy.asarray(step)},
  }


@pytest.mark.parametrize("place", ["folder", "ram://bucket/run"])
def test_the_prompt_is_written_and_read_in_folders_and_buckets(place, tmp_path):
  in_bucket = "://" in place
  place = place if in_bucket else str(tmp_path / place)
  about = {"task": "a_task", **PLACING.record()}
  save = t5x_prompts.save_at_checkpoints(place, about)
  # TensorFlow's ram:// appends where a disk or a bucket overwrites.
  for step in (3,) if in_bucket else (3, 6):
    values = tiny_t5.rows(P, 16, seed=step)
    state = saved_state(values, step)
    assert save(state, "infos") == (state, "infos")
    for folder in (place, f"{place}/prompts/{step}"):
      found = t5x_prompts.from_file(folder)(Prompt(P, 16))
      np.testing.assert_array_equal(found["embedding"], values)
      assert t5x_prompts.length(folder, "") == P
      assert t5x_prompts.placing(folder) == PLACING
  if in_bucket:
    beside = t5x_prompts.source(None, f"{place}/checkpoint_3")
    assert beside == f"{place}/prompts/3"
    assert t5x_prompts.source(None, f"{place}/checkpoint_4") is None
    assert t5x_prompts.source("given", f"{place}/checkpoint_3") == "given"


def test_a_prompt_of_another_length_is_refused(tmp_path):
  save = t5x_prompts.save_at_checkpoints(tmp_path)
  save(saved_state(tiny_t5.rows(P, 16), 1), None)
  with pytest.raises(ValueError, match=f"Set PROMPT_LENGTH={P}"):
    t5x_prompts.from_file(tmp_path)(Prompt(P + 1, 16))


def test_without_a_prompt_nothing_is_written(tmp_path):
  save = t5x_prompts.save_at_checkpoints(tmp_path)
  state = {"target": {"token_embedder": {}}, "state": {}}
  assert save(state, None) == (state, None)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["folder", "ram://bucket/method"])
def test_a_method_is_written_as_the_rows_that_it_has_come_to(place, tmp_path):
  place = place if "://" in place else str(tmp_path / place)
  method = reparameterised.low_rank(2)
  module = method(P, 16, None)
  params = module.first_parameters(tiny_t5.rows(P, 16))
  about = t5x_prompts.record("a_task", "base", None, 0, method=method)
  save = t5x_prompts.save_at_checkpoints(
    place, about, types.SimpleNamespace(prompt=module)
  )
  save(saved_state(params, 3), None)
  found = t5x_prompts.saved(f"{place}/prompts/3")
  np.testing.assert_allclose(
    found.values, params["left"] @ params["right"], rtol=1e-6, atol=1e-6
  )
  assert found.record["method"] == {"name": "LowRank", "rank": 2}


def test_the_shared_part_of_tasks_is_written_for_the_next(tmp_path):
  module = multitask.multi_task()(P, 16, None)
  params = module.first_parameters(tiny_t5.rows(P, 16))
  save = t5x_prompts.save_at_checkpoints(
    tmp_path, None, types.SimpleNamespace(prompt=module)
  )
  save(saved_state(params, 3), None)
  later = multitask.multi_task(start_from=tmp_path)(P, 16, None)
  for name, found in later.first_parameters(tiny_t5.rows(P, 16, 1)[0]).items():
    np.testing.assert_array_equal(found, params[name])


def extracted(folder):
  with zipfile.ZipFile(GOLDEN) as archive:
    archive.extractall(folder)
  return t5x_checkpoints.find(folder / "orbax")


@pytest.mark.parametrize(
  "method",
  [
    reparameterised.residual(4),
    reparameterised.low_rank(2),
    reparameterised.ulpt(3),
    reparameterised.superposition(5),
  ],
)
def test_a_method_starts_where_it_does_in_the_embedded_engine(method, tmp_path):
  base = extracted(tmp_path)
  vocabulary = seqio.SentencePieceVocabulary(tiny_t5.vocabulary().path, 10)
  table = t5x_prompts.read_table(base)
  width = table.shape[1]
  first = t5x_prompts.first_values(
    initializers.random_uniform(), base, vocabulary, seed=3
  )(method(P, width, None))
  pieces = vocabulary.vocab_size - 10
  rows = initializers.random_uniform()(
    jax.random.key(3), P, initializers.Source(table, vocabulary.encode, pieces)
  )
  bank = method(P, width, 1).first_parameters(
    np.asarray(rows)[None], Given([3], table[initializers.SPECIAL : pieces])
  )
  assert first.keys() == bank.keys()
  for name, values in bank.items():
    np.testing.assert_array_equal(first[name], values[0])


def test_a_checkpoint_of_a_method_needs_the_prompt_beside_it(
  tmp_path, monkeypatch
):
  base = extracted(tmp_path)
  assert t5x_prompts.source(None, base) is None
  assert t5x_prompts.source(None, tmp_path / "nowhere") is None
  shape = types.SimpleNamespace(shape=(P, 2))
  monkeypatch.setattr(
    t5x_checkpoints, "tensors", lambda _: {"prompt/left": shape}
  )
  with pytest.raises(ValueError, match="by a method of methods/ .prompt/left"):
    t5x_prompts.source(None, base)
  beside = checkpoints.beside(base)
  checkpoints.save_prompt(beside, tiny_t5.rows(P, 16), {})
  assert t5x_prompts.source(None, base) == beside
  assert checkpoints.load_prompt(base).format == "t5x"


HAVE = {"target/a/kernel": (2, 3), "target/b/scale": (4,), "state/step": ()}


def restored(missing=(), want=(), **options):
  """What `Restore` takes of a checkpoint with the names of HAVE."""
  restore = t5x_restore.Restore(
    "gs://somewhere", **{"new_prompt": True, "keep_step": False, **options}
  )
  have = {k: np.zeros(v) for k, v in HAVE.items() if k not in missing}
  have["state/param_states/a"] = np.zeros(1)
  wanted = {**HAVE, **dict(want), "state/param_states/c": (1,)}
  shapes = {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in wanted.items()}
  return set(
    storage.flatten(restore(storage.unflatten(have), storage.unflatten(shapes)))
  )


NEW = {"target/prompt/embedding": (P, 16)}.items()


def test_of_a_base_checkpoint_the_network_alone_is_taken():
  network_alone = {"target/a/kernel", "target/b/scale"}
  assert restored(want=NEW) == network_alone
  assert restored(keep_step=True) == network_alone | {"state/step"}


def test_nothing_but_the_prompt_may_be_new():
  with pytest.raises(ValueError, match="no parameter b/scale .1 of 2"):
    restored(missing=["target/b/scale"], want=NEW)
  with pytest.raises(ValueError, match="holds no prompt. Set PROMPT_PATH"):
    restored(want=NEW, new_prompt=False)
  with pytest.raises(ValueError, match=r"shape \(4,\).* needs \(5,\)"):
    restored(want={"target/b/scale": (5,)}.items())


def test_a_run_is_not_resumed_with_another_prompt_length(tmp_path):
  t5x_prompts.save_at_checkpoints(tmp_path)(
    saved_state(tiny_t5.rows(P, 16), 1), None
  )
  restore = t5x_restore.Restore("gs://somewhere", model_dir=tmp_path)

  def resumed(length):
    state = {"target": {"prompt": {"embedding": np.zeros((length, 16))}}}
    return restore(state, state, is_resuming=True)

  resumed(P)
  with pytest.raises(ValueError, match=f"Set PROMPT_LENGTH={P}, or another"):
    resumed(P + 2)


def test_a_run_is_not_resumed_with_another_method_or_place(tmp_path):
  method = reparameterised.low_rank(2)
  module = method(P, 16, None)

  def about(method=method, placing=PLACING):
    return t5x_prompts.record(
      "a_task", "base", None, 0, method=method, placing=placing
    )

  t5x_prompts.save_at_checkpoints(
    tmp_path, about(), types.SimpleNamespace(prompt=module)
  )(saved_state(module.first_parameters(tiny_t5.rows(P, 16)), 1), None)
  state = {"target": {"prompt": {"left": np.zeros((P, 2))}}}

  def resumed(record):
    restore = t5x_restore.Restore("gs://a", model_dir=tmp_path, record=record)
    return restore(state, state, is_resuming=True)

  resumed(about())
  with pytest.raises(
    ValueError, match="has PROMPT={.*2}, this one PROMPT={.*3"
  ):
    resumed(about(reparameterised.low_rank(3)))
  with pytest.raises(
    ValueError, match="PROMPT_PLACE='after_end', this one .*="
  ):
    resumed(about(placing=inject.IN_FRONT))


def test_a_run_is_not_resumed_with_another_model():
  restore = t5x_restore.Restore("gs://somewhere", model_dir="gs://run")

  def resumed(have, want):
    state = {"target": {"a": {"kernel": np.zeros(have)}}}
    target = {"target": {"a": {"kernel": np.zeros(want)}}}
    return restore(state, target, is_resuming=True)

  resumed((2, 3), (2, 3))
  with pytest.raises(
    ValueError, match=r"a/kernel has shape \(2, 3\).*gs://run"
  ):
    resumed((2, 3), (2, 4))


def test_a_tuned_checkpoint_is_not_scored_without_its_prompt():
  restore = t5x_restore.Restore("gs://a", new_prompt=False, keep_step=True)
  network = {"a": {"kernel": np.zeros(2)}}
  prompt = {"embedding": np.zeros((P, 16))}
  state = {"target": {**network, "prompt": prompt}, "state": {"step": 3}}
  with pytest.raises(ValueError, match="was tuned with a prompt.*PROMPT_PATH"):
    restore(state, {"target": network})
  assert restore(state, {"target": {**network, "prompt": prompt}})


def test_a_prompt_is_not_scored_at_another_length():
  restore = t5x_restore.Restore("gs://a", new_prompt=False, keep_step=True)

  def asked(rows):
    return {"target": {"prompt": {"embedding": np.zeros(rows)}}}

  state = {**asked((P, 16)), "state": {"step": 3}}
  assert restore(state, asked((P, 16)))
  with pytest.raises(
    ValueError, match=f"LENGTH={P + 1}, but .* {P} positions. Leave PROMPT_LEN"
  ):
    restore(state, asked((P + 1, 16)))
  with pytest.raises(ValueError, match="Use the gin file of the model"):
    restore(state, asked((P, 8)))


@pytest.mark.parametrize(
  "model_dir, dtype, message",
  [
    ("runs/a", None, "MODEL_DIR='runs/a' is relative.* Give '/.*runs/a'"),
    ("/runs/a", "bfloat16", "WEIGHTS_DTYPE='bfloat16', but t5x trains"),
  ],
)
def test_what_t5x_would_fail_on_late_is_refused(model_dir, dtype, message):
  with pytest.raises(ValueError, match=message):
    t5x_restore.for_training("gs://a", model_dir, dtype)


def test_a_numpy_file_in_a_bucket_is_a_prompt(tmp_path):
  values = tiny_t5.rows(P, 16)
  np.save(tmp_path / "upstream.npy", values)
  place = f"file://{tmp_path}/upstream.npy"
  np.testing.assert_array_equal(t5x_prompts.read(place).values, values)


def test_a_deep_prompt_has_a_module_of_its_own_shapes(tmp_path):
  rows = tiny_t5.rows(P, 16)
  own = {"embedding": rows, "deep": rows[None], "keep": np.ones(1, np.float32)}
  place = checkpoints.save_prompt(tmp_path / "prompts" / "6", own, {})
  beside = t5x_prompts.source(None, f"file://{tmp_path}/checkpoint_6")
  assert beside == f"file://{place}"
  assert t5x_prompts.length(beside, "") == P
  method = t5x_prompts.saved_method(beside)
  module = method(P, 16, None)
  first = t5x_prompts.from_file(beside)(module)
  shapes = jax.eval_shape(module.init, jax.random.key(0))["params"]
  assert {k: v.shape for k, v in first.items()} == {
    k: v.shape for k, v in shapes.items()
  }
  np.testing.assert_array_equal(first["deep"][0], own["deep"])
  plain = checkpoints.save_prompt(tmp_path / "plain", rows, {})
  assert t5x_prompts.saved_method(plain) is None is t5x_prompts.saved_method("")


def test_a_prompt_that_t5x_has_no_place_for_is_refused(tmp_path):
  own = {"decoder_embedding": tiny_t5.rows(P, 16)}
  place = checkpoints.save_prompt(tmp_path, own, {})
  with pytest.raises(ValueError, match="and t5x's network has rows alone"):
    t5x_prompts.saved_method(place)


def test_the_table_of_an_orbax_base_in_a_bucket_is_read(tmp_path):
  """Of the checkpoint that t5x wrote, see golden/make_t5x_checkpoints.py."""
  here = extracted(tmp_path)
  expected = t5x_prompts.read_table(here)
  found = t5x_prompts.read_table(f"file://{here}")
  np.testing.assert_array_equal(found, expected)
  with pytest.raises(ValueError, match="There is no checkpoint of t5x at file"):
    t5x_prompts.read_table(f"file://{tmp_path}/nothing")


def test_predictions_are_as_long_as_in_the_embedded_engine():
  lengths = {"inputs": 64, "targets": 8}
  assert t5x_data.prediction_lengths(lengths) == {**lengths, "targets": 16}
  assert t5x_data.prediction_lengths(lengths, 9)["targets"] == 9
  validation = t5x_data.validation_set(
    mixture_or_task_name="a",
    task_feature_lengths=lengths,
    split=None,
    batch_size=2,
  )
  assert validation is None


def test_the_models_vocabulary_is_that_of_the_benchmark_tasks(monkeypatch):
  monkeypatch.setattr(task_features, "_for_good", [])
  model = t5x_data.vocabulary(tiny_t5.vocabulary().path, 0)
  tasks = task_features.of_text()["inputs"].vocabulary
  assert tasks == model and model.extra_ids == 0
  assert tasks.encode("the cat") == model.encode("the cat")
  assert repr(tasks).startswith("ModelVocabulary(")


@pytest.mark.parametrize("job", ["training", "inference"])
def test_a_missing_checkpoint_is_named(job, tmp_path):
  restore = getattr(t5x_restore, f"for_{job}")
  with pytest.raises(ValueError, match="no checkpoint of t5x at '.*nowhere'"):
    restore(tmp_path / "nowhere", str(tmp_path))


@pytest.mark.parametrize("prompt", [None, "run"])
def test_predictions_need_a_checkpoint(prompt):
  source = t5x_prompts.source(prompt, None)
  assert source == prompt
  with pytest.raises(ValueError, match="Set INITIAL_CHECKPOINT_PATH to the"):
    t5x_restore.for_inference(None, source)


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_weights_are_float32_by_default(dtype, monkeypatch):
  """What t5x is told, by the names that golden/t5x_configurables.json has."""
  golden = places.GOLDEN / "t5x_configurables.json"
  about = json.loads(golden.read_text())["t5x.utils"]["RestoreCheckpointConfig"]

  def told(**settings):
    assert settings.keys() <= {*about["parameters"]}
    return settings

  utils = types.SimpleNamespace(RestoreCheckpointConfig=told)
  monkeypatch.setitem(sys.modules, "t5x", types.SimpleNamespace(utils=utils))
  settings = t5x_restore.for_inference("gs://a", None, dtype)
  assert settings["dtype"] == (dtype or "float32")
  assert settings["path"] == "gs://a" and settings["mode"] == "specific"


def test_a_seed_is_one():
  assert t5x_data.one_seed(3) == t5x_data.one_seed((3,)) == 3
  with pytest.raises(ValueError, match="names 2 seeds"):
    t5x_data.one_seed((0, 1))


def macros_of(monkeypatch, said: str, files=()):
  """The module, in a run of t5x with this configuration and these files."""
  name = "prompt_tuning.t5x.t5x_macros"
  utils = types.SimpleNamespace(get_gin_config_str=lambda: said)
  monkeypatch.setitem(
    sys.modules, "t5x", types.SimpleNamespace(gin_utils=utils)
  )
  monkeypatch.delitem(sys.modules, name, raising=False)
  macros = importlib.import_module(name)
  monkeypatch.setitem(sys.modules, name, macros)  # and away with it afterwards
  given = {"gin_file": types.SimpleNamespace(value=list(files))}
  monkeypatch.setattr(macros.flags, "FLAGS", given)
  return macros


def test_a_method_that_a_later_file_takes_back_is_said(monkeypatch):
  macros = macros_of(monkeypatch, "train.Tuning.module = %PROMPT")
  with pytest.raises(
    ValueError, match="methods/ stands in front of the model's"
  ):
    macros.checked("the model")
  assert macros_of(monkeypatch, "").checked("the model") == "the model"


def test_two_methods_are_refused(monkeypatch):
  files = ["t5x/models/microworld.gin", "methods/low_rank.gin"]
  assert macros_of(monkeypatch, "", files).checked("the model") == "the model"
  macros = macros_of(monkeypatch, "", [*files, "methods/residual.gin"])
  with pytest.raises(
    ValueError, match=r"low_rank.gin and methods/residual.gin"
  ):
    macros.checked("the model")
