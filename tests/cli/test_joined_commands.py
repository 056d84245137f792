"""train, eval and infer of two processes: one folder, the files of one."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import places
import pytest

from prompt_tuning import cli

MODEL = "--gin_file=models/microworld.gin"
TASK = "--gin.MIXTURE_OR_TASK_NAME=microworld_boolq"
TRAIN = (
  *("train", "--gin_file=demo/prompt_tuning.gin", TASK),
  *("--gin.TRAIN_STEPS=20", "--gin.EVAL_PERIOD=20"),
  "--gin.optimizers.warmup_cosine.peak=0.001",
)


def joined(*arguments: str, of_second=()) -> list[tuple[int, str, str]]:
  """Two processes of a command: exit code, output and errors of each."""
  with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
  started = [
    subprocess.Popen(
      [
        *(sys.executable, "-m", "prompt_tuning.cli", *arguments),
        *(of_second if number else ()),
        f"--gin.COORDINATOR=127.0.0.1:{port}",
        f"--gin.PROCESS_ID={number}",
        "--gin.NUM_PROCESSES=2",
      ],
      env={**os.environ, "PYTHONPATH": str(places.ROOT)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  said = [each.communicate(timeout=500) for each in started]
  return [(e.returncode, *s) for e, s in zip(started, said, strict=True)]


def predictions(folder: pathlib.Path) -> list[str]:
  """Of the one file of predictions in a folder."""
  (file,) = folder.rglob("*.jsonl")
  lines = file.read_text().splitlines()
  return [json.loads(line)["prediction"] for line in lines]


@pytest.mark.slow
@pytest.mark.usefixtures("clean_gin")
def test_two_processes_train_score_and_predict_as_one(tmp_path):
  one, two, other = (tmp_path / name for name in ("one", "two", "other"))
  assert cli.main([*TRAIN, f"--gin.MODEL_DIR={one}"]) == 0
  (first, second) = joined(
    *TRAIN, f"--gin.MODEL_DIR={two}", of_second=[f"--gin.MODEL_DIR={other}"]
  )
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert first[2].startswith("2 processes, 2 devices (cpu): batches over 2")
  assert "microworld_boolq (validation)" in first[1]
  assert not second[2] and "microworld" not in second[1]
  assert not other.exists()
  rows = [np.load(folder / "prompt.npy") for folder in (one, two)]
  np.testing.assert_allclose(*rows, atol=1e-5)
  assert "NUM_PROCESSES = 2" not in (two / "config.gin").read_text()

  lines = tmp_path / "lines.txt"
  lines.write_text("is the sky blue ?\nthe cat sat\nhello\n")
  for command, folder, more in (
    ("eval", "EVAL_OUTPUT_DIR", [TASK]),
    ("infer", "INFER_OUTPUT_DIR", [f"--gin.INPUT_FILE={lines}"]),
  ):
    asked = [command, MODEL, f"--gin_file=runs/{command}.gin", *more]
    asked += [f"--gin.PROMPT_PATH={one}"]
    alone, together = (tmp_path / f"{command}{n}" for n in (1, 2))
    assert cli.main([*asked, f"--gin.{folder}={alone}"]) == 0
    ends = joined(*asked, f"--gin.{folder}={together}")
    assert [code for code, *_ in ends] == [0, 0], ends
    assert predictions(together) == predictions(alone)


@pytest.mark.slow
def test_processes_of_different_commands_are_no_run(tmp_path):
  first, second = joined(
    *TRAIN,
    f"--gin.MODEL_DIR={tmp_path / 'run'}",
    of_second=["--gin.BATCH_SIZE=8"],
  )
  assert second[0] == 2, second[2] + first[2]
  assert "Process 1 has other settings than process 0" in second[2]
  assert first[0] and "ends with process 1, which said: Process 1" in first[2]


def test_one_process_serves(tmp_path, capsys, clean_gin):
  code = cli.main(
    [
      *("serve", MODEL, "--gin_file=runs/serve.gin", f"--prompts={tmp_path}"),
      "--gin.COORDINATOR=localhost:1",
    ]
  )
  assert code == 2
  assert "and serve is done by one" in capsys.readouterr().err
