"""One process at a time trains into a folder."""

import os
import pathlib
import subprocess
import sys

import pytest

from prompt_tuning import locks
from prompt_tuning.run_folder import RunFolder

HOLD = """
import pathlib, sys
from prompt_tuning import locks
with locks.held(pathlib.Path(sys.argv[1])):
  print("held", flush=True)
  sys.stdin.read()
"""


def holder(path: pathlib.Path) -> subprocess.Popen:
  """Another process that holds a folder until it is told to end."""
  process = subprocess.Popen(
    [sys.executable, "-c", HOLD, path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  assert process.stdout.readline() == b"held\n"
  return process


@pytest.mark.parametrize("way", ["killed", "ended"])
def test_a_lock_ends_with_its_holder_however_that_ends(tmp_path, way):
  process = holder(tmp_path)
  with pytest.raises(locks.Busy, match=f"process {process.pid} on"):
    with locks.held(tmp_path):
      raise AssertionError("two processes hold one folder")
  if way == "killed":
    process.kill()
  process.communicate()
  with locks.held(tmp_path):
    assert (tmp_path / locks.LOCK).exists()
  assert not (tmp_path / locks.LOCK).exists()


def test_a_second_run_is_told_who_is_there(tmp_path):
  process = holder(tmp_path)
  with pytest.raises(ValueError) as caught:
    with RunFolder(tmp_path, {"BATCH_SIZE": 8}).alone():
      raise AssertionError("two runs are in one folder")
  process.communicate()
  assert f"Another run is in MODEL_DIR={tmp_path}" in str(caught.value)
  assert "name another folder with MODEL_DIR" in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_a_process_may_hold_a_folder_several_times_over(tmp_path):
  with locks.held(tmp_path):
    with locks.held(tmp_path / ".." / tmp_path.name):
      pass
    assert (tmp_path / locks.LOCK).exists()
  assert os.listdir(tmp_path) == []


def test_settings_are_compared_before_the_first_checkpoint(tmp_path):
  with RunFolder(tmp_path, {"BATCH_SIZE": 8}).alone():
    pass
  with RunFolder(tmp_path, {"BATCH_SIZE": 8}).alone():
    pass
  with pytest.raises(ValueError, match="settings.json belongs to a run with"):
    with RunFolder(tmp_path, {"BATCH_SIZE": 9}).alone():
      pass


def test_what_a_killed_process_left_half_written_goes(tmp_path):
  for part in ("", "predictions", "checkpoints", "prompts/a"):
    (tmp_path / part).mkdir(parents=True, exist_ok=True)
    (tmp_path / part / ".x.jsonl.abc.tmp").touch()
    (tmp_path / part / "kept.jsonl").touch()
  with RunFolder(tmp_path).alone():
    assert not list(tmp_path.rglob("*.tmp"))
  assert len(list(tmp_path.rglob("kept.jsonl"))) == 4
