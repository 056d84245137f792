"""Signals: a run stops after its step, with a checkpoint; it goes on there."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import places
import pytest
import test_loop
from test_loop import PLAN, batch, fit, left

from prompt_tuning.run_folder import RunFolder
from prompt_tuning.training import interruption


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  path = tmp_path_factory.mktemp("whole")
  return left(path, fit(path))


@pytest.fixture(autouse=True)
def in_the_main_thread():
  """Where signals can be handled; else they would end the test's process."""
  assert threading.current_thread() is threading.main_thread()


def signalling(at: int, number: int):
  """Batches, before one of which a signal comes."""
  sent = []

  def batches(step: int):
    if step == at and not sent:
      sent.append(os.kill(os.getpid(), number))
    return batch(step)

  return batches


@pytest.mark.parametrize("number", interruption.SIGNALS)
@pytest.mark.parametrize("at", [0, 5, 7, 11])
def test_a_run_stopped_by_a_signal_and_started_again_is_the_same(
  at, number, tmp_path, uninterrupted, capfd
):
  with pytest.raises(interruption.Stopped, match="which is saved in") as caught:
    fit(tmp_path, batches=signalling(at, number))
  assert caught.value.number == number
  assert "A second signal ends at once" in capfd.readouterr().err
  # The batches of the next dispatch are made while one is computed.
  (*_, saved) = RunFolder(tmp_path).checkpoint_steps()
  assert at - 2 < saved <= at + 2 and f"at step {saved}," in str(caught.value)
  again = left(tmp_path, fit(tmp_path))
  assert again | {"checkpoints": 0} == uninterrupted | {"checkpoints": 0}
  assert again["checkpoints"][-1] == uninterrupted["checkpoints"][-1]


def test_a_run_stopped_in_an_evaluation_takes_it_up_again(
  tmp_path, uninterrupted
):
  sent = []

  def evaluate(params):
    if len(sent) < 1:
      sent.append(os.kill(os.getpid(), signal.SIGTERM))
      time.sleep(60)
      raise AssertionError("the signal did not come")
    return test_loop.evaluate(params)

  with pytest.raises(interruption.Stopped, match="Stopped at step 4,"):
    fit(tmp_path, evaluate=evaluate)
  assert RunFolder(tmp_path).checkpoint_steps() == [3, 4]
  assert left(tmp_path, fit(tmp_path)) == uninterrupted


def test_a_signal_is_its_owners_again_after_the_run(tmp_path):
  before = [signal.getsignal(number) for number in interruption.SIGNALS]
  fit(tmp_path)
  assert before == [signal.getsignal(n) for n in interruption.SIGNALS]


def slow(path: str) -> None:
  """A run whose dispatches take long, in another process."""

  def batches(at: int):
    if at:
      pathlib.Path(path, "running").touch()
      time.sleep(30)
    return batch(at)

  fit(pathlib.Path(path), batches=batches, plan=PLAN)


def test_a_second_signal_ends_at_once(tmp_path):
  code = f"import test_interruption as t; t.slow({str(tmp_path)!r})"
  folders = [places.TESTS, pathlib.Path(__file__).parent]
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
    stderr=subprocess.PIPE,
  )
  while not (tmp_path / "running").exists():
    assert process.poll() is None, process.stderr.read().decode()
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  time.sleep(0.2)
  begin = time.monotonic()
  process.send_signal(signal.SIGTERM)
  _, errors = process.communicate()
  assert time.monotonic() - begin < 10
  assert process.returncode == 128 + signal.SIGTERM
  assert b"Stopping after this step" in errors
