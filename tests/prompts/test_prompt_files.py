"""Prompts in files of other programs; nothing is unpickled."""

import io
import json
import logging
import pickle
import zipfile

from killing import Killing
import numpy as np
import pytest
import safetensors.numpy
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.prompts import checkpoints, prompt_files

ROWS = tiny_t5.rows(3, 16)


def test_the_one_matrix_of_an_archive_is_read(tmp_path):
  np.savez(tmp_path / "soft.npz", prompt=ROWS)
  tensors = tmp_path / "soft.safetensors"
  safetensors.numpy.save_file({"prompt_embeddings": ROWS}, tensors)
  for path in (tmp_path / "soft.npz", tensors):
    assert checkpoints.is_prompt(path)
    np.testing.assert_array_equal(checkpoints.load_prompt(path).values, ROWS)


@pytest.mark.parametrize("arrays", [{"a": ROWS, "b": ROWS}, {"a": ROWS[0]}, {}])
def test_an_archive_without_one_matrix_is_refused_with_what_it_holds(
  tmp_path, arrays
):
  path = tmp_path / "soft.npz"
  np.savez(path, **arrays)
  want = "a .*" if arrays else "nothing"
  with pytest.raises(ValueError, match=rf"must hold one matrix.*holds {want}"):
    checkpoints.load_prompt(path)


def test_a_file_of_torch_says_how_to_convert_it(tmp_path):
  content = io.BytesIO()
  with zipfile.ZipFile(content, "w") as archive:
    archive.writestr("archive/data.pkl", pickle.dumps({}))
  for name in ("soft.pt", "soft.npy"):
    (tmp_path / name).write_bytes(content.getvalue())
    with pytest.raises(ValueError, match="numpy.save.*weights_only=True"):
      checkpoints.load_prompt(tmp_path / name)


def test_what_an_archive_holds_beside_arrays_is_no_matrix(tmp_path):
  path = tmp_path / "soft.npz"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("prompt", b"")
  with pytest.raises(ValueError, match=r"must hold one matrix.*holds prompt"):
    checkpoints.load_prompt(path)


@pytest.mark.parametrize("name", ["soft.npy", "soft.npz"])
@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps([1, 2])])
def test_what_is_no_array_is_refused_without_advice_to_unpickle(
  tmp_path, name, content
):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match="cannot be read as a numpy array") as e:
    prompt_files.read_array(tmp_path / name)
  assert "pickle" not in str(e.value)


def test_a_prompt_and_its_record_change_together(tmp_path):
  """Killed at any file operation, the earlier pair or the new one is there."""
  old = {"task": "old"}
  new = {"task": "new"}
  left = 0
  for killing in Killing.everywhere():
    folder = tmp_path / str(killing.at)
    checkpoints.save_prompt(folder, ROWS, old)
    with killing:
      checkpoints.save_prompt(folder, ROWS + 1, new)
    saved = checkpoints.load_prompt(folder)
    assert saved.record["task"] in ("old", "new")
    moved = saved.record["task"] == "new"
    np.testing.assert_array_equal(saved.values, ROWS + moved)
    left += moved
    checkpoints.save_prompt(folder, ROWS + 2, {"task": "next"})
    assert checkpoints.load_prompt(folder).record["task"] == "next"
    storage.remove_unfinished(folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["prompt.json", "prompt.npy"]
  assert killing.at > 15 and left > 2


def test_a_prompt_that_lost_its_record_is_said_to(tmp_path, caplog):
  checkpoints.save_prompt(tmp_path, ROWS, {"task": "boolq"})
  record = tmp_path / checkpoints.RECORD
  content = json.loads(record.read_text())
  with caplog.at_level(logging.WARNING):
    assert checkpoints.load_prompt(tmp_path).name == "boolq"
  assert not caplog.messages
  record.write_text(json.dumps({**content, "task": "rte"}))
  assert checkpoints.load_prompt(tmp_path).name == "rte"
  assert "was changed after it was written" in caplog.messages[-1]
  record.unlink()
  checkpoints.load_prompt(tmp_path)
  assert "no prompt.json beside it" in caplog.messages[-1]
  for damaged in ("", "[]", '{"model": 3}', "[" * 3000):
    record.write_text(damaged)
    with pytest.raises(ValueError, match="prompt.json"):
      checkpoints.load_prompt(tmp_path)
