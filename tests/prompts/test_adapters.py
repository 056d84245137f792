"""PEFT's adapters: the same prompt here, there and back again."""

import json
import shutil

import numpy as np
import places
import pytest
import safetensors.numpy
import tiny_t5
import toy_tasks

from prompt_tuning.cli import inspection
from prompt_tuning.frozen import pretrained
from prompt_tuning.model import inject, t5
from prompt_tuning.prompts import adapters, checkpoints, conversion, prompted

BASE = places.GOLDEN / "huggingface" / "t5_1_1"


@pytest.fixture
def one(tmp_path):
  return shutil.copytree(places.GOLDEN / "peft" / "one", tmp_path / "one")


def logits(values, given):
  """What the frozen model says with a prompt in front."""
  model = pretrained.load(BASE, vocabulary=tiny_t5.vocabulary())
  one = prompted.with_prompts(model, [values])
  reserved = inject.reserve(
    given["inputs"], np.zeros(len(given["inputs"]), np.int32), len(values)
  )
  before = t5.shift_right(given["targets"])
  answer = tiny_t5.jitted(one.network)
  return np.asarray(answer({"params": one.params}, reserved, before))


def close(found, want):
  np.testing.assert_allclose(
    found, want, rtol=0, atol=1e-5 * np.abs(want).max()
  )


@pytest.mark.parametrize("name", ["one", "two"])
def test_an_imported_adapter_says_what_peft_says(name):
  folder = places.GOLDEN / "peft" / name
  given = safetensors.numpy.load_file(folder / "expected.safetensors")
  saved = checkpoints.load_prompt(folder, pretrained.load(BASE))
  assert saved.format == "PEFT"
  assert saved.record["model"]["source"] == "t5_1_1"
  close(logits(saved.values, given), given["logits"])


def test_an_adapter_of_several_tasks_is_a_prompt_for_each():
  folder = places.GOLDEN / "peft" / "tasks"
  given = safetensors.numpy.load_file(folder / "expected.safetensors")
  prompts = checkpoints.load_prompts(folder)
  assert [one.record["peft_task_id"] for one in prompts] == [0, 1, 2]
  for one, want in zip(prompts, given["logits"], strict=True):
    close(logits(one.values, given), want)
  with pytest.raises(ValueError, match="holds prompts of 3 tasks.*convert"):
    checkpoints.load_prompt(folder)


def test_a_task_is_the_shared_prompt_times_its_factors(tmp_path):
  """By hand: two positions, two tasks, rank 1."""
  folder = shutil.copytree(places.GOLDEN / "peft" / "tasks", tmp_path / "a")
  settings(folder, num_virtual_tokens=2, num_transformer_submodules=1)
  shared = np.float32([[1, 2], [3, 4]])
  columns = np.float32([[[1], [2]], [[0], [-1]]])
  rows = np.float32([[[1, 10]], [[5, 1]]])
  tensors = {
    adapters.KEY: shared,
    adapters.COLUMNS: columns,
    adapters.ROWS: rows,
  }
  rewritten(folder, tensors)
  found, _ = adapters.read_all(folder)
  assert found[0].tolist() == [[1, 20], [6, 80]]
  assert found[1].tolist() == [[0, 0], [-15, -4]]
  rewritten(folder, {**tensors, adapters.ROWS: rows[:1]})
  with pytest.raises(ValueError, match="are no factors of prompt_embeddings"):
    adapters.read_all(folder)
  rewritten(folder, {adapters.KEY: shared})
  with pytest.raises(ValueError, match="no tensor prefix_task_cols"):
    adapters.read_all(folder)


def test_an_adapter_of_several_tasks_is_converted_to_a_folder_each(tmp_path):
  folder = places.GOLDEN / "peft" / "tasks"
  assert "prompts of 3 tasks" in inspection.inspect(folder)["what"]
  inspection.convert(folder, tmp_path / "a", "prompt-tuning")
  inspection.convert(folder, tmp_path / "b", "numpy")
  for k, one in enumerate(checkpoints.load_prompts(folder)):
    for path in (
      tmp_path / "a" / f"task_{k}",
      tmp_path / "b" / f"task_{k}.npy",
    ):
      saved = checkpoints.load_prompt(path)
      np.testing.assert_array_equal(saved.values, one.values)


def test_the_half_that_peft_never_uses_is_left_out_with_a_notice(caplog):
  folder = places.GOLDEN / "peft" / "two"
  values, _ = adapters.read(folder)
  whole = safetensors.numpy.load_file(folder / adapters.WEIGHTS)[adapters.KEY]
  np.testing.assert_array_equal(values, whole[:4])
  assert len(whole) == 8
  assert "never uses" in caplog.text


def test_an_exported_prompt_comes_back_bit_for_bit_with_its_record(tmp_path):
  values = tiny_t5.rows(5, 16) * 300
  record = {"task": "rte", "model": {"source": "toy", "hash": "0123"}}
  checkpoints.save_prompt(tmp_path / "prompt", values, record)
  saved = checkpoints.load_prompt(tmp_path / "prompt")
  conversion.convert(saved, tmp_path / "adapter", "peft", "some/base")
  again = checkpoints.load_prompt(tmp_path / "adapter")
  np.testing.assert_array_equal(again.values, values)
  assert again.record["task"] == "rte"
  assert again.record["model"] == record["model"]
  settings = json.loads((tmp_path / "adapter" / adapters.CONFIG).read_text())
  assert settings["base_model_name_or_path"] == "some/base"
  with pytest.raises(ValueError, match="was trained for the frozen weights"):
    checkpoints.load_prompt(tmp_path / "adapter", toy_tasks.model())


def test_the_formats_of_a_prompt_go_round(tmp_path):
  values = tiny_t5.rows(5, 16)
  np.save(tmp_path / "a.npy", values)
  path = tmp_path / "a.npy"
  for i, to in enumerate(("prompt-tuning", "peft", "numpy", "prompt-tuning")):
    target = tmp_path / f"{i}.npy"
    saved = checkpoints.load_prompt(path)
    path = conversion.convert(saved, target, to, "base")
    np.testing.assert_array_equal(
      checkpoints.load_prompt(path).values, values, to
    )


def test_the_numpy_file_of_the_original_code_is_a_prompt(tmp_path):
  folder = tmp_path / "numpy_checkpoints" / "checkpoint_1"
  folder.mkdir(parents=True)
  with open(folder / checkpoints.UPSTREAM, "wb") as file:
    np.save(file, tiny_t5.rows(5, 16).astype(np.float64))
  for path in (folder, folder / checkpoints.UPSTREAM):
    assert checkpoints.is_prompt(path)
    saved = checkpoints.load_prompt(path)
    assert saved.values.dtype == np.float32
    np.testing.assert_array_equal(saved.values, tiny_t5.rows(5, 16))


SHARED = places.SHARED / "data" / "prompts"


@pytest.mark.skipif(
  not SHARED.is_dir(),
  reason="the released prompts do not lie beside this checkout; "
  "test_the_numpy_file_of_the_original_code_is_a_prompt writes its own",
)
@pytest.mark.parametrize("name", ["sst2", "mrpc", "rte"])
def test_released_prompts_with_large_numbers_are_read(name):
  saved = checkpoints.load_prompt(SHARED / f"{name}.npy")
  assert saved.values.shape == (100, 768)
  assert 30 < saved.values.std() < 55


# What is no prompt.


def settings(folder, **changes):
  path = folder / adapters.CONFIG
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
  "kind, reason",
  [
    ("PREFIX_TUNING", "keys and values for every layer"),
    ("CARTRIDGE", "cache"),
    ("CPT", "its examples"),
    ("LORA", "changes the frozen weights"),
    ("OFT", "no prompt tuning"),
  ],
)
def test_other_adapters_are_refused_with_the_reason(one, kind, reason):
  settings(one, peft_type=kind)
  with pytest.raises(ValueError, match=f"{kind}.*{reason}"):
    checkpoints.load_prompt(one)


def test_p_tuning_holds_the_same_tensor(one):
  settings(one, peft_type="P_TUNING")
  assert checkpoints.load_prompt(one).values.shape == (4, 16)


def rewritten(folder, tensors):
  safetensors.numpy.save_file(tensors, folder / adapters.WEIGHTS)


@pytest.mark.parametrize(
  "tensors, message",
  [
    ({"embedding.weight": np.ones((4, 16))}, "no tensor .* embedding.weight"),
    ({adapters.KEY: np.ones((5, 16))}, r"\(5, 16\).*num_virtual_tokens=4"),
    ({adapters.KEY: np.ones((8, 16))}, r"\(8, 16\).*submodules=1"),
    ({adapters.KEY: np.full((4, 16), np.nan)}, "NaN or infinity in row 0, 1"),
  ],
  ids=["key", "length", "submodules", "nan"],
)
def test_a_tensor_that_does_not_fit_is_refused(one, tensors, message):
  rewritten(one, tensors)
  with pytest.raises(ValueError, match=message):
    checkpoints.load_prompt(one)


def test_another_width_than_the_models_is_refused(one):
  other = pretrained.random(tiny_t5.config(emb_dim=32))
  with pytest.raises(ValueError, match="width is 16; .* needs 32"):
    checkpoints.load_prompt(one, other)


def test_a_damaged_or_missing_file_is_named(one):
  path = one / adapters.WEIGHTS
  path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(ValueError, match="adapter_model.safetensors.*truncated"):
    checkpoints.load_prompt(one)
  path.unlink()
  with pytest.raises(FileNotFoundError, match="no adapter_model.safetensors"):
    checkpoints.load_prompt(one)
  (one / adapters.PICKLED).write_bytes(b"x")
  with pytest.raises(FileNotFoundError, match="pickle, which is never loaded"):
    checkpoints.load_prompt(one)


def test_an_adapter_needs_a_base_model(tmp_path):
  saved = checkpoints.SavedPrompt(tiny_t5.rows(2, 16), {}, "x")
  with pytest.raises(ValueError, match="Give --base_model"):
    conversion.convert(saved, tmp_path / "x", "peft")
  with pytest.raises(ValueError, match="'lora'.*prompt-tuning, peft, numpy"):
    conversion.convert(saved, tmp_path / "x", "lora")


@pytest.mark.torch
@pytest.mark.parametrize("submodules", [1, None])
def test_peft_itself_agrees_both_ways(tmp_path, submodules):
  """Its adapter here, and our adapter there."""
  reason = "pip install torch transformers peft to compare live; golden/peft "
  reason += "stands in, made by them (test_an_imported_adapter_says_what_peft_"
  reason += "says)"
  for name in ("torch", "transformers"):
    pytest.importorskip(name, reason=reason)
  peft = pytest.importorskip("peft", reason=reason)
  from golden import make_peft as peer

  model, given = peer.adapted(submodules, seed=5), peer.batch(seed=5)
  model.save_pretrained(tmp_path / "theirs")
  saved = checkpoints.load_prompt(tmp_path / "theirs")
  want = peer.logits(model, given)
  close(logits(saved.values, given), want)
  conversion.convert(saved, tmp_path / "ours", "peft", str(BASE))
  there = peft.PeftModel.from_pretrained(peer.frozen(), tmp_path / "ours")
  np.testing.assert_array_equal(
    there.prompt_encoder["default"].embedding.weight.detach().numpy(),
    saved.values,
  )
  close(peer.logits(there.eval(), given), want)
