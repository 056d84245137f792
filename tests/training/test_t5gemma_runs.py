"""A T5Gemma is trained, served and spread over devices as a T5 is."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import places
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.inference import infer
from prompt_tuning.inference.prompted_model import PromptedModel
from prompt_tuning.prompts import checkpoints
from prompt_tuning.serving import bank as banks
from prompt_tuning.serving import engine, programs, rows, sizes
from prompt_tuning.training import optimizers

CONFIG = tiny_t5.gemma()
TEXTS = ["the cat sat", "a dog ran to the red house", "mat"]


@pytest.fixture(scope="module")
def model():
  return toy_tasks.model(config=CONFIG)


def test_two_tasks_train_a_bank_and_its_prompts_answer(tmp_path, model):
  tuned = toy_tasks.tuning(optimizer=optimizers.adafactor(0.01))
  toy_tasks.run(
    tmp_path,
    (toy_tasks.CAT, toy_tasks.DOG),
    model=model,
    steps=4,
    tuned=tuned,
  )
  losses = [
    row["loss"]
    for row in map(json.loads, (tmp_path / "metrics.jsonl").open())
    if "loss" in row
  ]
  assert losses and np.isfinite(losses).all()
  saved = [
    checkpoints.load_prompt(folder, model)
    for folder in sorted((tmp_path / "prompts").iterdir())
  ]
  assert [one.values.shape for one in saved] == [(4, 16)] * 2
  together = PromptedModel(model, saved, infer.Decoding(max_length=4))
  said = together.predict(TEXTS * 2, [0] * 3 + [1] * 3)
  for n, one in enumerate(saved):
    alone = PromptedModel(model, one, infer.Decoding(max_length=4))
    assert alone.predict(TEXTS) == said[3 * n :][:3]


def test_the_server_says_what_predictions_say(model):
  values = [3 * tiny_t5.rows(length, 16, seed=length) for length in (4, 2)]
  prompts = [checkpoints.SavedPrompt(v, {}, "p") for v in values]
  bank = banks.empty(model, "toy", sizes.Room(4)).changed(
    {f"p{n}": one for n, one in enumerate(prompts)}
  )
  made = programs.Programs(
    model, sizes.Sizes(rows=2, inputs=24, targets=4, encoded=32)
  )
  made.compile(bank.prompted)
  ended, left = threading.Event(), [len(TEXTS) * 2]

  def told(row):
    left[0] -= row.ending is not None
    if not left[0]:
      ended.set()

  asked = [
    rows.Row(
      bank.prompted, bank.tokens(f"p{n}", text), rows.Writing(4), told=told
    )
    for n in range(2)
    for text in TEXTS
  ]
  running = engine.Engine(made, most_waiting=20)
  running.submit(asked)
  assert ended.wait(120)
  running.close()
  want = PromptedModel(model, prompts, infer.Decoding(max_length=4)).predict(
    TEXTS * 2, [0] * 3 + [1] * 3
  )
  assert [tiny_t5.vocabulary().decode(row.ids) for row in asked] == want


@pytest.mark.slow
def test_eight_devices_train_and_predict_as_one_does():
  asked = [
    ({"data": 1}, "groups", False),
    ({"data": 4, "model": 2}, "packed", True),
  ]
  done = subprocess.run(
    [
      *(sys.executable, str(places.ROOT / "tests" / "eight_devices.py")),
      *(json.dumps(asked), "t5gemma"),
    ],
    env={**os.environ, "PYTHONPATH": str(places.ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  alone, several = map(json.loads, done.stdout.splitlines())
  assert alone["held"] == 1
  assert 0.5 <= several["held"] < 0.75
  np.testing.assert_allclose(several["losses"], alone["losses"], rtol=1e-5)
  np.testing.assert_allclose(several["rows"], alone["rows"], atol=1e-5)
  assert several["predictions"] == alone["predictions"]
