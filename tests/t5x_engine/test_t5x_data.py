"""The training data of a run under t5x: how it ends."""

import os
import subprocess
import sys

import places

RUN = """
import functools, sys, time, types

# All that the data asks t5x for: the step of the run's last checkpoint.
checkpoints = types.SimpleNamespace(latest_step=lambda model_dir: None)
sys.modules["t5x"] = types.SimpleNamespace(checkpoints=checkpoints)

from prompt_tuning.t5x import t5x_data, t5x_features

asked = types.SimpleNamespace(
  mixture_or_task_name="microworld_boolq",
  module="prompt_tuning.tasks.microworld",
  task_feature_lengths={"inputs": 64, "targets": 8},
  split="train",
  batch_size=32,
  seed=0,
  pack=False,
  use_custom_packing_ops=False,
)

rows = t5x_data._rows

def slowly(*given):
  for row in rows(*given):
    time.sleep(0.005)  # so that the end comes while a thread is in here
    yield row

t5x_data._rows = slowly
converter = functools.partial(t5x_features.PromptConverter, prompt_length=3)

def train():
  batches = iter(t5x_data.get_dataset(asked, 0, 1, converter, model_dir=""))
  next(batches)
  raise ValueError("the first step fails")

train()
"""


def test_a_run_that_fails_beside_its_data_ends():
  """Threads of TensorFlow that wait for Python must not outlive it."""
  done = subprocess.run(
    [sys.executable, "-c", RUN],
    env={**os.environ, "PYTHONPATH": str(places.ROOT)},
    stderr=subprocess.PIPE,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 1, done.stderr[-3000:]
  assert done.stderr.rstrip().endswith("ValueError: the first step fails")
