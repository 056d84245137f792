"""t5x as a peer: what tests need to run its launchers."""

import functools
import importlib.util
import json
import os
import pathlib
import socket
import stat
import subprocess
import sys
import tempfile

import gin
import places
import pytest

from prompt_tuning import cli
from prompt_tuning.frozen import pretrained, t5x_checkpoints

TASK = "microworld_boolq"
P = 6


CHOICES = {
  "OPTIMIZER": "@optimizers.adamw()",
  "LEARNING_RATE": "@optimizers.warmup_cosine()",
  "optimizers__warmup_cosine__peak": 0.01,
}
"""Another optimizer and a schedule, as either engine takes them."""

METHOD = {
  "RANK": 3,
  "PROMPT_PLACE": "before_end",
  "PROMPT_ATTENTION": ("prompt_to_prompt_causal", "prompt_to_input"),
  "LEARNING_RATE": 0.003,
}
"""Of methods/ulpt.gin, for a prompt at another place with a mask of its own."""

DEEP = {"DEEP": "replace", "LEARNING_RATE": 0.003}
"""Of methods/deep.gin, for rows that every layer of the encoder has."""

METHODS = {"ulpt": METHOD, "deep": DEEP}
"""By the name of the file in methods/."""

BEAMS = {"DECODE_FN": "@decoding.beam_search", "NUM_DECODES": 4}


def _missing() -> str:
  """The first library that t5x lacks; empty if it can be imported."""
  for name in ("t5x", "airio", "jestimator", "fiddle", "grain"):
    if importlib.util.find_spec(name) is None:
      return name
  return ""


def marks(golden: str) -> list[pytest.MarkDecorator]:
  """The marks of tests that need t5x; without it they are skipped.

  Args:
    golden: the record of t5x that stands in, and the test that compares with it
      always.
  """
  reason = (
    f"{_missing()} is not installed. t5x is not on PyPI: docs/t5x.md says how "
    f"to install it. Without it, {golden} stands in, made by t5x."
  )
  return [pytest.mark.t5x, pytest.mark.skipif(bool(_missing()), reason=reason)]


def needed(golden: str):
  """Marks one test that needs t5x, see `marks`."""

  def marked(test):
    for mark in marks(golden):
      test = mark(test)
    return test

  return marked


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
  return tempfile.TemporaryDirectory()  # goes when the interpreter ends


@functools.cache
def base() -> pathlib.Path:
  """The model that ships, as a checkpoint of t5x; made once."""
  model = pretrained.load("microworld", dtype="float32")
  return t5x_checkpoints.save(
    _folder().name, model.config, model.params, step=1000
  )


def literal(value) -> str:
  """A value as gin reads it."""
  text = str(value) if isinstance(value, pathlib.Path) else value
  if isinstance(text, str) and not text.startswith(("@", "%")):
    return repr(text)
  return str(text)


def _flags(files, bindings) -> list[str]:
  """Gin files and bindings as either engine takes them; `__` is a dot."""
  return [
    *(f"--gin_file={name}" for name in files),
    *(
      f"--gin.{name.replace('__', '.')}={literal(value)}"
      for name, value in bindings.items()
    ),
  ]


def command(script: str, files, **bindings) -> list[str]:
  """A command line of one of t5x's launchers."""
  return [
    *(sys.executable, "-m", f"t5x.{script}"),
    f"--gin_search_paths={places.ROOT / 'gin'}",
    "--gin_file=t5x/models/microworld.gin",
    *_flags(files, bindings),
  ]


def environment(devices: int = 1) -> dict[str, str]:
  """The environment of a launcher with so many devices of the host."""
  path = os.pathsep.join([str(places.ROOT), os.environ.get("PYTHONPATH", "")])
  flags = os.environ.get("XLA_FLAGS", "")
  flags = f"{flags} --xla_force_host_platform_device_count={devices}"
  return {**os.environ, "PYTHONPATH": path, "XLA_FLAGS": flags}


def launch(script: str, files, *, devices: int = 1, fails=False, **bindings):
  """Runs a launcher to its end; what it printed, if it fails as expected."""
  done = subprocess.run(
    command(script, files, **bindings),
    env=environment(devices),
    capture_output=True,
    text=True,
    check=False,
    timeout=800,
  )
  assert bool(done.returncode) == fails, done.stderr[-4000:]
  return done.stderr


TRAIN = ("prompts/class_labels.gin", "t5x/runs/prompt_tuning.gin")


def _settings(folder: pathlib.Path) -> dict:
  return {
    "MIXTURE_OR_TASK_NAME": TASK,
    "INITIAL_CHECKPOINT_PATH": base(),
    "MODEL_DIR": folder,
    "TRAIN_STEPS": 6,
    "EVAL_PERIOD": 3,
    "BATCH_SIZE": 8,
    "VALIDATION_SPLIT": None,
  }


def train(
  folder, *extra_files, files=TRAIN, devices=1, fails=False, **bindings
):
  """`python -m t5x.train` for 6 steps of a prompt of P positions."""
  settings = _settings(folder)
  if files is TRAIN:
    settings["PROMPT_LENGTH"] = P
  settings |= bindings
  return launch(
    "train", (*files, *extra_files), devices=devices, fails=fails, **settings
  )


def by_two_processes(folder: pathlib.Path, **bindings) -> str:
  """The same by two processes of one device each; what the first printed.

  What the second has made is known by its mode: others of its group may write.
  """
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    port = probe.getsockname()[1]
  settings = {**_settings(folder), "PROMPT_LENGTH": P, **bindings}
  logs = [tempfile.TemporaryFile("w+") for _ in range(2)]
  # A pipe that nobody empties would stop a process that another waits for.
  processes = [
    subprocess.Popen(
      [
        *command("train", TRAIN, **settings),
        "--multiprocess_gpu",
        f"--coordinator_address=localhost:{port}",
        "--process_count=2",
        f"--process_index={index}",
      ],
      env=environment(),
      stderr=log,
      umask=0o002 if index else 0o022,
    )
    for index, log in enumerate(logs)
  ]
  try:
    codes = [process.wait(timeout=800) for process in processes]
  finally:
    for process in processes:
      process.kill()
  texts = []
  for log in logs:
    with log:
      log.seek(0)
      texts.append(log.read())
  assert not any(codes), texts[0][-3000:]
  return texts[0]


def of_the_second(folder: pathlib.Path) -> list[str]:
  """What the second of `by_two_processes` has made; no files of data."""
  return sorted(
    str(path.relative_to(folder))
    for path in folder.rglob("*")
    if path.stat().st_mode & stat.S_IWGRP and path.parent.name != "d"
  )


def infer(folder: pathlib.Path, **bindings) -> list[dict]:
  """`python -m t5x.infer` on the test split: its rows."""
  launch(
    "infer",
    ("t5x/runs/infer.gin",),
    MIXTURE_OR_TASK_NAME=TASK,
    INFER_OUTPUT_DIR=folder,
    **bindings,
  )
  (file,) = folder.glob("*-predict.jsonl-00000-of-00001")
  return [json.loads(line) for line in file.read_text().splitlines()]


def embedded(
  folder: pathlib.Path,
  steps: int,
  run="prompt_tuning",
  *extra_files: str,
  **bindings,
) -> pathlib.Path:
  """The run of `train` by `prompt-tuning train`, which needs no t5x."""
  settings = {
    "MIXTURE_OR_TASK_NAME": TASK,
    "MODEL_DIR": folder,
    "TRAIN_STEPS": steps,
    "EVAL_PERIOD": steps,
    "BATCH_SIZE": 8,
    "VALIDATION_SPLIT": None,
    **({"PROMPT_LENGTH": P} if run == "prompt_tuning" else {}),
    **bindings,
  }
  files = ["models/microworld", f"runs/{run}"]
  if run == "prompt_tuning":
    files.insert(1, "prompts/class_labels")
  _in_process("train", [*files, *extra_files], settings)
  return folder


def embedded_predictions(
  prompt_path: pathlib.Path, folder, **bindings
) -> list[dict]:
  """`prompt-tuning eval` of a prompt on the test split: its rows."""
  settings = {
    "MIXTURE_OR_TASK_NAME": TASK,
    "EVAL_OUTPUT_DIR": folder,
    "PROMPT_PATH": prompt_path,
    "SPLIT": "test",
    **bindings,
  }
  _in_process("eval", ["models/microworld", "runs/eval"], settings)
  (file,) = (pathlib.Path(folder) / "predictions").glob("*.jsonl")
  return [json.loads(line) for line in file.read_text().splitlines()]


def _in_process(job: str, files, settings) -> None:
  names = [f"{name}.gin" for name in files]
  status = cli.main([job, *_flags(names, settings)])
  gin.clear_config()
  assert not status
