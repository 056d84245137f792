"""Where the command line keeps compiled programs, and where it cannot."""

import os
import pathlib
import subprocess
import sys
import zlib

import disks
import numpy as np
import pytest

from prompt_tuning.cli import compilations

NAME = "JAX_COMPILATION_CACHE_DIR"


def kept(monkeypatch, wanted: bool = True, **variables: str) -> str | None:
  """The folder that JAX is told of, by a home and variables."""
  for name in (NAME, "XDG_CACHE_HOME"):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
  compilations.keep(wanted)
  return os.environ.get(NAME)


def test_in_the_users_cache_or_where_jax_is_told(monkeypatch, tmp_path):
  home = kept(monkeypatch, HOME=str(tmp_path))
  assert home is not None and pathlib.Path(home).is_dir()
  assert home.startswith(str(tmp_path / ".cache" / "prompt_tuning"))
  told = str(tmp_path / "told")
  assert kept(monkeypatch, HOME=str(tmp_path), **{NAME: told}) == told
  assert kept(monkeypatch, **{NAME: "gs://bucket/cache"}) == "gs://bucket/cache"
  assert kept(monkeypatch, False, **{NAME: told}) is None


@pytest.mark.parametrize("told", [True, False])
def test_nowhere_in_a_folder_that_cannot_be_written(
  monkeypatch, tmp_path, told
):
  variables = {NAME: str(tmp_path)} if told else {"HOME": str(tmp_path)}
  monkeypatch.setattr(os, "access", lambda path, mode: False)
  assert kept(monkeypatch, **variables) is None


def test_nowhere_below_a_file(monkeypatch, tmp_path):
  file = tmp_path / "file"
  file.write_text("no folder")
  assert kept(monkeypatch, XDG_CACHE_HOME=str(file)) is None
  assert kept(monkeypatch, **{NAME: str(file)}) is None


def test_a_read_only_disk_breaks_nothing_and_says_nothing(tmp_path):
  stands_in = "test_nowhere_in_a_folder_that_cannot_be_written"
  np.save(tmp_path / "prompt.npy", np.ones((2, 128), np.float32))
  (tmp_path / "lines.txt").write_text("passage: a question: b\n")
  settings = {
    "PROMPT_PATH": tmp_path / "prompt.npy",
    "INPUT_FILE": tmp_path / "lines.txt",
    "INFER_OUTPUT_DIR": tmp_path / "out",
  }
  command = [sys.executable, "-m", "prompt_tuning.cli", "infer"]
  command += ["--gin_file=models/microworld.gin", "--gin_file=runs/infer.gin"]
  command += [f"--gin.{name}={value}" for name, value in settings.items()]
  with disks.disk(tmp_path / "ro", "ro", stands_in) as folder:
    done = subprocess.run(
      command,
      env={**os.environ, NAME: str(folder)},
      capture_output=True,
      text=True,
      check=False,
    )
  assert done.returncode == 0, done.stderr
  assert "cache" not in done.stderr


def test_an_entry_that_was_cut_short_is_compiled_anew_once(
  monkeypatch, tmp_path
):
  """As a kill leaves it; JAX would warn of it at every start."""
  whole = zlib.compress(b"a program" * 99)
  entries = {
    "jit_whole-1-cache": whole,
    "jit_cut-2-cache": whole[:-5],
    "jit_empty-3-cache": b"",
    "jit_other-4-cache": b"packed by another library",
    "no entry": b"",
  }
  for name, content in entries.items():
    (tmp_path / name).write_bytes(content)
  kept(monkeypatch, **{NAME: str(tmp_path)})
  left = {path.name for path in tmp_path.iterdir()}
  gone = {"jit_cut-2-cache", "jit_empty-3-cache"}
  assert left == {*entries, ".checked"} - gone


def test_what_was_read_through_is_not_read_again(monkeypatch, tmp_path):
  old = tmp_path / "jit_old-1-cache"
  old.write_bytes(b"")
  os.utime(old, (1, 1))
  (tmp_path / ".checked").touch()
  kept(monkeypatch, **{NAME: str(tmp_path)})
  assert old.exists()
