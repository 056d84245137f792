import json

import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import storage
from prompt_tuning.prompts import checkpoints

VALUES = tiny_t5.rows(4, 16)


@pytest.fixture
def folder(tmp_path):
  model = toy_tasks.model()
  record = {"task": "t", "model": {"hash": model.stored_hash, "source": "toy"}}
  return checkpoints.save_prompt(tmp_path / "p", VALUES, record)


def test_a_saved_prompt_is_read_back_bit_for_bit(folder):
  saved = checkpoints.load_prompt(folder, toy_tasks.model())
  np.testing.assert_array_equal(saved.values, VALUES)
  assert saved.record["task"] == saved.name == "t"
  assert (saved.record["length"], saved.record["width"]) == (4, 16)


def test_other_values_are_saved_with_the_record_of_a_prompt(folder, tmp_path):
  longer = np.concatenate([VALUES, VALUES])
  record = checkpoints.load_prompt(folder).record
  other = checkpoints.save_prompt(tmp_path / "other", longer, record)
  saved = checkpoints.load_prompt(other, toy_tasks.model())
  np.testing.assert_array_equal(saved.values, longer)
  assert saved.record["length"] == 8 and saved.record["task"] == "t"


def test_the_artefact_is_a_plain_numpy_file(folder):
  np.testing.assert_array_equal(np.load(folder / "prompt.npy"), VALUES)
  assert {f.name for f in folder.iterdir()} == {"prompt.npy", "prompt.json"}


def test_a_bare_numpy_file_is_a_prompt(tmp_path):
  np.save(tmp_path / "mrpc.npy", VALUES.astype(np.float64))
  saved = checkpoints.load_prompt(tmp_path / "mrpc.npy", toy_tasks.model())
  assert saved.values.dtype == np.float32 and saved.name == "mrpc"
  np.testing.assert_array_equal(saved.values, VALUES)


def test_a_prompt_for_other_weights_is_refused_unless_allowed(folder):
  other = toy_tasks.model(seed=1)
  with pytest.raises(ValueError, match="was trained for the frozen weights"):
    checkpoints.load_prompt(folder, other)
  saved = checkpoints.load_prompt(folder, other, allow_other_model=True)
  np.testing.assert_array_equal(saved.values, VALUES)


def test_a_changed_number_is_noticed(folder):
  path = folder / "prompt.npy"
  raw = bytearray(path.read_bytes())
  raw[-3] ^= 1
  path.write_bytes(raw)
  with pytest.raises(ValueError, match="hash of the tensor differs"):
    checkpoints.load_prompt(folder)


def test_a_truncated_array_or_record_is_refused(folder):
  record = folder / "prompt.json"
  text = record.read_text()
  record.write_text(text[:-20])
  with pytest.raises(ValueError, match="prompt.json is not valid JSON"):
    checkpoints.load_prompt(folder)
  record.write_text(text)
  array = folder / "prompt.npy"
  array.write_bytes(array.read_bytes()[:100])
  with pytest.raises(ValueError, match="prompt.npy cannot be read"):
    checkpoints.load_prompt(folder)


def test_a_prompt_of_another_width_is_refused(tmp_path):
  np.save(tmp_path / "p.npy", tiny_t5.rows(4, 8))
  with pytest.raises(ValueError, match="its width is 8.*needs 16"):
    checkpoints.load_prompt(tmp_path / "p.npy", toy_tasks.model())


def test_a_prompt_that_is_not_finite_is_neither_written_nor_read(tmp_path):
  bad = VALUES.copy()
  bad[2, 5] = np.inf
  with pytest.raises(ValueError, match=r"infinity in row 2 \(1 of 4 rows\)"):
    checkpoints.save_prompt(tmp_path / "p", bad, {})
  assert not (tmp_path / "p").exists()
  np.save(tmp_path / "p.npy", bad)
  with pytest.raises(ValueError, match="in row 2"):
    checkpoints.load_prompt(tmp_path / "p.npy")


def test_what_is_missing_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="no prompt at .*nowhere"):
    checkpoints.load_prompt(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match="has no prompt.npy"):
    checkpoints.load_prompt(tmp_path)


def test_a_failed_write_keeps_the_old_prompt(folder, monkeypatch):
  def full(*args, **kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "save", full)
  with pytest.raises(OSError, match="No space"):
    checkpoints.save_prompt(folder, VALUES + 1, {})
  saved = checkpoints.load_prompt(folder)
  np.testing.assert_array_equal(saved.values, VALUES)
  assert len(list(folder.iterdir())) == 2
  assert json.loads((folder / "prompt.json").read_text())["task"] == "t"


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_numbers_beyond_float32_are_refused(kind, tmp_path):
  path = tmp_path / f"prompt.{kind}"
  if kind == "npy":
    np.save(path, np.full((2, 4), 1e300))
  else:
    storage.save_tree(path, {"embedding": np.full((2, 4), 1e300)}, {})
  with pytest.raises(ValueError, match="NaN or infinity"):
    checkpoints.load_prompt(path)
