"""Several processes compute what one does; one writes; they end together."""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import places
import pytest
import several_processes

from prompt_tuning import processes
from prompt_tuning.run_folder import RunFolder, checkpoints, spread

SCRIPT = str(places.TESTS / "several_processes.py")


def free_port() -> int:
  """A port that nothing listens on."""
  with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    return listening.getsockname()[1]


class Together:
  """The processes of a run; each but the first is told of another folder.

  Unless all `share` the first one's.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    count: int = 2,
    *,
    of_one=None,
    share: bool = False,
    **asked,
  ):
    address = f"127.0.0.1:{free_port()}"
    self.folder, self.go = folder, folder.with_name("go")
    self.go.unlink(missing_ok=True)
    self.others = [folder.with_name(f"{folder.name}-{n}") for n in range(count)]
    self.all = [
      subprocess.Popen(
        [
          *(sys.executable, SCRIPT),
          json.dumps(
            {
              "folder": str(
                self.others[number] if number and not share else folder
              ),
              "number": number,
              "count": count,
              "coordinator": address,
              "go": str(self.go),
              **asked,
              **(of_one or {}).get(number, {}),
            }
          ),
        ],
        env={**os.environ, "PYTHONPATH": str(places.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      for number in range(count)
    ]

  def wait_for_step(self, step: int) -> None:
    """Until there is a checkpoint of a step."""
    while step not in self.steps():
      assert all(each.poll() is None for each in self.all), self.ends()
      time.sleep(0.02)

  def steps(self) -> list[int]:
    """The checkpoints."""
    return [*checkpoints.of_steps(self.folder / "checkpoints")]

  def ends(self) -> list[tuple[int, str]]:
    """The exit codes and what was said; the others' folders are not there."""
    said = [each.communicate(timeout=400)[1] for each in self.all]
    assert not any(path.exists() for path in self.others)
    return [(e.returncode, s) for e, s in zip(self.all, said, strict=True)]

  def found(self) -> list[dict]:
    """What each prints."""
    printed = [each.communicate(timeout=400) for each in self.all]
    for each, (_, errors) in zip(self.all, printed, strict=True):
      assert each.returncode == 0, errors[:3000]
    assert not any(path.exists() for path in self.others)
    return [json.loads(out.splitlines()[-1]) for out, _ in printed]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
  """What a process alone comes to."""
  return several_processes.outcome(
    tmp_path_factory.mktemp("alone"), mesh={"data": 1}
  )


def assert_equal(run: Together, alone: dict) -> None:
  """The run comes to what a process alone does, and its first one writes."""
  first, *others = run.found()
  np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
  for found in (first, *others):
    np.testing.assert_allclose(found["rows"], alone["rows"], atol=1e-5)
    assert found["predictions"] == alone["predictions"]
    assert found["best"] == alone["best"]
  assert first["written"]
  assert not any(other["written"] for other in others)
  assert run.steps()[-1] == several_processes.PLAN.steps


@pytest.mark.slow
@pytest.mark.parametrize(
  "count, chosen, mesh",
  [
    (2, "groups", None),
    (2, "padded", {"model": 2}),
    (4, "packed", None),
    (4, "groups", {"data": 2, "model": 2}),
  ],
)
def test_several_processes_compute_what_one_does_and_one_writes(
  count, chosen, mesh, tmp_path, alone
):
  run = Together(tmp_path / "run", count, chosen=chosen, mesh=mesh)
  assert_equal(run, alone)


def test_two_processes_are_stopped_and_come_to_what_one_does(tmp_path, alone):
  run = Together(tmp_path / "run", waits_at=8)
  run.wait_for_step(5)
  run.all[1].send_signal(signal.SIGTERM)
  run.go.touch()
  ends = run.ends()
  stopped = run.steps()[-1]
  for code, said in ends:
    assert code == 128 + signal.SIGTERM, said
    assert f"Stopped at step {stopped}, which is saved in" in said
  assert 5 <= stopped <= 9
  assert_equal(Together(tmp_path / "run"), alone)


def assert_tuned_alike(found: dict, alone: dict) -> None:
  np.testing.assert_allclose(found["losses"], alone["losses"], rtol=1e-5)
  for name in ("last", "kept"):
    np.testing.assert_allclose(found[name], alone[name], rtol=1e-4)
  assert found["best"] == alone["best"]


def test_a_network_that_lies_across_processes_is_saved_by_all_of_them(tmp_path):
  """And a process alone goes on from it; none has held the whole."""
  alone = several_processes.tuned(tmp_path / "alone", mesh={"data": 1})
  run = Together(tmp_path / "run", mesh={"model": 2}, tunes=True, share=True)
  for found in (founds := run.found()):
    assert found["holds"] < 0.7 * alone["holds"]
  assert founds[0]["last"] == founds[1]["last"]
  assert_tuned_alike(founds[0], alone)
  assert run.steps() == [15, 20]

  folder = run.folder / "checkpoints"
  assert all((folder / f"step_000000{n}").is_dir() for n in run.steps())
  shutil.rmtree(folder / "step_00000020")
  resumed = several_processes.tuned(run.folder, mesh={"data": 1})
  assert_tuned_alike(resumed, alone)
  assert (folder / "step_00000020.safetensors").is_file()

  # Of a folder and a file of one step the later one is left.
  names = sorted(path.name for path in folder.iterdir())
  assert names == ["step_00000015", "step_00000020.safetensors"]

  # A byte is another one; then a part of the arrays is lost.
  (folder / "step_00000020.safetensors").unlink()
  arrays = [*(folder / "step_00000015" / "arrays").rglob("d/*")]
  largest = max(arrays, key=lambda file: file.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 64
  largest.write_bytes(content)
  with pytest.raises(ValueError, match=r"step_00000015 .*damaged.*Remove it"):
    several_processes.tuned(run.folder, mesh={"data": 1})
  for file in arrays:
    file.unlink()
  before = (run.folder / "metrics.jsonl").read_bytes()
  with pytest.raises(ValueError, match=r"step_00000015 cannot be read.*Remove"):
    several_processes.tuned(run.folder, mesh={"data": 1})
  assert (run.folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_four_processes_go_on_from_what_two_saved(tmp_path):
  alone = several_processes.tuned(tmp_path / "alone", mesh={"data": 1})
  mesh = {"data": 2, "model": 2}
  asked = {"tunes": True, "share": True}
  two = Together(tmp_path / "run", mesh={"model": 2}, **asked)
  two.found()
  shutil.rmtree(two.folder / "checkpoints" / "step_00000020")
  unfinished = two.folder / "checkpoints" / "step_00000020.orbax-checkpoint-tmp"
  unfinished.mkdir()
  four = Together(two.folder, 4, mesh=mesh, **asked)
  assert_tuned_alike(four.found()[0], alone)
  assert four.steps() == [15, 20] and not unfinished.exists()


@pytest.mark.slow
def test_what_all_write_needs_a_folder_that_all_see(tmp_path):
  run = Together(tmp_path / "run", mesh={"model": 2}, tunes=True)
  for code, said in run.ends():
    assert code, said
  assert "is not the same folder in all processes" in said


def test_without_orbax_it_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
  with pytest.raises(ValueError, match="pip install orbax-checkpoint"):
    spread.check(tmp_path)


@pytest.mark.slow
def test_one_that_is_killed_ends_the_other_which_says_so(tmp_path, alone):
  run = Together(tmp_path / "run", waits_at=12)
  run.wait_for_step(10)
  run.all[1].kill()
  run.go.touch()
  (code, said), _ = run.ends()
  assert code in (2, processes.LOST), said
  assert "another process of this run is lost" in said
  assert "The same command in all 2 of them starts it again" in said
  assert_equal(Together(tmp_path / "run"), alone)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_process_killed_at_any_moment_is_no_loss(seed, tmp_path, alone):
  rng = random.Random(seed)
  waits_at = rng.randrange(1, 20)
  run = Together(tmp_path / "run", waits_at=waits_at)
  if seed % 2 and waits_at > 6:
    run.wait_for_step(5)
  time.sleep(rng.uniform(0, 6))
  killed = rng.randrange(2)
  run.all[killed].kill()
  run.go.touch()
  code, said = run.ends()[1 - killed]
  assert code in (2, processes.LOST), said
  assert "lost" in said or "did not come together" in said
  assert "same command" in said
  assert_equal(Together(tmp_path / "run"), alone)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_an_error_of_one_process_is_known_to_all(number, tmp_path):
  run = Together(tmp_path / "run", of_one={number: {"fails_at": 7}})
  ends = run.ends()
  assert "the batch fell off the table" in ends[number][1]
  code, said = ends[1 - number]
  assert code in (2, processes.LOST)
  assert f"process {number}, which said: the batch fell off the table" in said


LATE = """
import sys, time
from prompt_tuning import processes

number = int(sys.argv[2])
processes.join(sys.argv[1], number, 2)
time.sleep(40 * number)  # one reads its settings slowly, the other a model
processes.check_same("other settings", "the same")
time.sleep(40 * (1 - number))
assert processes.agreed(number) == 1
"""


@pytest.mark.slow
def test_one_that_comes_late_is_waited_for():
  """Gloo alone waits for 30 seconds."""
  address = f"127.0.0.1:{free_port()}"
  both = [
    subprocess.Popen(
      [sys.executable, "-c", LATE, address, str(number)],
      env={**os.environ, "PYTHONPATH": str(places.ROOT)},
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  said = [each.communicate(timeout=400)[1] for each in both]
  assert [each.returncode for each in both] == [0, 0], said


@pytest.mark.parametrize(
  "given, message",
  [
    (("here:1", 0, None), "'here:1', PROCESS_ID=0 without NUM_PROCESSES"),
    ((None, None, 2), "NUM_PROCESSES=2 without COORDINATOR and PROCESS_ID"),
    (("here:1", 2, 2), "numbered from 0 to 1"),
    (("here:1", -1, 2), "PROCESS_ID=-1 must be a whole number of 0 or more"),
    (("here:1", 0, True), "NUM_PROCESSES=True must be a whole number of 1"),
    (("here", 0, 2), "'here' must be the host of process 0 and a free port"),
  ],
)
def test_what_cannot_be_joined_is_refused(given, message):
  with pytest.raises(ValueError, match=message):
    processes.join(*given)


def test_a_process_alone_joins_nothing(monkeypatch, tmp_path):
  monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
  processes.join()
  processes.join(num_processes=1)
  assert (processes.count(), processes.number()) == (1, 0)
  assert RunFolder(tmp_path / "run").writes
  assert processes.told(lambda: b"this") == b"this"
  assert processes.agreed(7) == 7


@pytest.mark.parametrize(
  "variable", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"]
)
def test_a_cluster_that_started_several_is_asked(variable, monkeypatch):
  asked = []
  monkeypatch.setenv(variable, "2")
  monkeypatch.setattr(
    "jax.distributed.initialize", lambda **given: asked.append(given)
  )
  monkeypatch.setattr("jax.config.update", lambda *_: None)
  processes.join()
  assert asked and "coordinator_address" not in asked[0]
