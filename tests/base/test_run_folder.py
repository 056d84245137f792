"""A run's folder: checkpoints, metrics, and what a bad disk does to them."""

import json
import os
import re
import shutil
import typing

import disks
import jax.numpy as jnp
from killing import Killing
import numpy as np
import optax
import pytest

from prompt_tuning import storage
from prompt_tuning.run_folder import RunFolder

SETTINGS = {"TRAIN_STEPS": 10, "LEARNING_RATE": 0.3, "SEEDS": (0, 1)}


class State(typing.NamedTuple):
  step: object
  trained: object


def arrays(step=0, length=3):
  """A pytree like a trainer's: a tuple, dictionaries, a hole, a scalar."""
  prompt = jnp.full((length, 2), step, jnp.float32)
  hole = optax.MaskedNode()
  return {
    "state": State(jnp.int32(step), {"prompt": prompt, "frozen": hole}),
    "best": {"prompt": np.zeros((length, 2), np.float32), "frozen": hole},
  }


def saved(path, steps=(5,), settings=SETTINGS) -> RunFolder:
  folder = RunFolder(path, settings)
  for step in steps:
    folder.save(step, arrays(step), {"best": [step, 0.5]})
  return folder


def checkpoints(folder):
  return sorted(os.listdir(folder.path / "checkpoints"))


def test_a_new_folder_has_nothing_to_restore(tmp_path):
  folder = RunFolder(tmp_path / "new" / "run", SETTINGS)
  assert folder.restore(arrays()) is None
  assert folder.checkpoint_steps() == []
  assert folder.metrics() == []
  assert os.listdir(folder.path) == []


def test_the_last_checkpoint_comes_back(tmp_path):
  saved(tmp_path, (5, 10))
  step, back, record = RunFolder(tmp_path, SETTINGS).restore(arrays())
  assert step == 10
  assert record == {"best": [10, 0.5]}
  assert isinstance(back["state"], State)
  assert back["state"].step == 10 and back["state"].step.dtype == np.int32
  np.testing.assert_array_equal(
    back["state"].trained["prompt"], np.full((3, 2), 10, np.float32)
  )
  assert back["state"].trained["frozen"] == optax.MaskedNode()


def test_the_oldest_checkpoints_go(tmp_path):
  folder = saved(tmp_path, (1, 2, 3, 100_000_000))
  assert folder.checkpoint_steps() == [3, 100_000_000]
  assert len(checkpoints(folder)) == 2
  assert folder.restore(arrays())[0] == 100_000_000


def test_other_files_are_no_checkpoints(tmp_path):
  folder = saved(tmp_path)
  for name in (".step_00000009.safetensors.x.tmp", "step_7.safetensors"):
    (folder.path / "checkpoints" / name).write_text("")
  assert folder.checkpoint_steps() == [5]


def test_a_run_removes_what_a_killed_one_left_half_written(tmp_path):
  folder = saved(tmp_path)
  with folder.alone():
    before = {*tmp_path.rglob("*")}
  (tmp_path / ".metrics.jsonl.x1.tmp").write_text("")
  (tmp_path / "checkpoints/.step_00000009.safetensors.x2.tmp").write_text("")
  with folder.alone():
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
  "name, value",
  [("TRAIN_STEPS", 11), ("LEARNING_RATE", 0.1), ("SEEDS", (0, 2)), ("NEW", 1)],
)
def test_a_run_with_other_settings_is_refused_by_name(tmp_path, name, value):
  saved(tmp_path)
  with pytest.raises(ValueError, match=f"{name}=.*{name}=.*MODEL_DIR"):
    RunFolder(tmp_path, {**SETTINGS, name: value}).restore(arrays())


def test_a_setting_that_is_gone_is_refused_by_name(tmp_path):
  saved(tmp_path, settings={**SETTINGS, "OLD": 1})
  with pytest.raises(ValueError, match="OLD=1, this one has OLD=None"):
    RunFolder(tmp_path, SETTINGS).restore(arrays())


def test_a_folder_that_does_not_tell_its_start_is_gone_on_with(tmp_path):
  name, first, other = "start by PROMPT_INITIALIZER", [{"a": 1}], [{"a": 2}]
  saved(tmp_path / "before")
  told = {**SETTINGS, name: first}
  RunFolder(tmp_path / "before", told).restore(arrays())
  saved(tmp_path / "now", settings=told)
  with pytest.raises(ValueError, match="start by PROMPT_INITIALIZER"):
    RunFolder(tmp_path / "now", {**SETTINGS, name: other}).restore(arrays())


def test_a_truncated_checkpoint_is_refused_with_the_way_on(tmp_path):
  folder = saved(tmp_path, (5, 10))
  last = folder.path / "checkpoints" / checkpoints(folder)[-1]
  last.write_bytes(last.read_bytes()[:-5])
  with pytest.raises(ValueError, match=f"{last.name}.*go on from step 5"):
    folder.restore(arrays())
  last.unlink()
  assert folder.restore(arrays())[0] == 5


def test_a_flipped_bit_in_a_checkpoint_is_refused_with_the_tensors_name(
  tmp_path,
):
  folder = saved(tmp_path)
  path = folder.path / "checkpoints" / checkpoints(folder)[0]
  prompt = np.asarray(arrays(5)["state"].trained["prompt"])
  broken = prompt.copy()
  broken.view(np.uint32)[1, 1] ^= 1
  path.write_bytes(
    path.read_bytes().replace(prompt.tobytes(), broken.tobytes())
  )
  with pytest.raises(ValueError, match="state/trained/prompt.*start anew"):
    folder.restore(arrays())


def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path):
  folder = RunFolder(tmp_path)
  storage.save_tree(tmp_path / "checkpoints/step_00000007.safetensors", {})
  with pytest.raises(ValueError, match="7.safetensors is no checkpoint"):
    folder.restore(arrays())


def test_a_checkpoint_of_other_tensors_is_refused_by_name(tmp_path):
  saved(tmp_path)
  like = arrays()
  like["best"]["extra"] = np.zeros(2, np.float32)
  with pytest.raises(ValueError, match="best/extra"):
    RunFolder(tmp_path, SETTINGS).restore(like)
  with pytest.raises(ValueError, match="state/"):
    RunFolder(tmp_path, SETTINGS).restore({"best": arrays()["best"]})


def test_a_checkpoint_of_another_shape_is_refused_with_both(tmp_path):
  saved(tmp_path)
  with pytest.raises(ValueError, match=re.escape("(3, 2)")) as caught:
    RunFolder(tmp_path, SETTINGS).restore(arrays(length=4))
  assert "best/prompt" in str(caught.value)
  assert "(4, 2)" in str(caught.value)


# Metrics.


def test_metrics_come_back_in_order(tmp_path):
  folder = RunFolder(tmp_path)
  rows = [
    {"step": 1, "prompt": "ü", "loss": 0.1},
    {"step": 2, "prompt": "", "loss": float("inf"), "accuracy": 1 / 3},
  ]
  for row in rows:
    values = {k: v for k, v in row.items() if k not in ("step", "prompt")}
    folder.log(row["step"], row["prompt"], values)
  folder.close()
  assert RunFolder(tmp_path).metrics() == rows


def test_a_half_written_last_line_is_left_out(tmp_path):
  folder = RunFolder(tmp_path)
  folder.log(1, "", {"loss": 0.1})
  folder.log(2, "", {"loss": 0.2})
  whole = folder.metrics_file.read_bytes()
  for cut in range(1, 10):
    folder.metrics_file.write_bytes(whole[: -cut - 1])
    assert [row["step"] for row in folder.metrics()] == [1]


def test_restoring_drops_the_metrics_behind_the_checkpoint(tmp_path):
  folder = saved(tmp_path, (5,))
  for step in (4, 5, 6):
    folder.log(step, "", {"loss": 0.1 * step})
  before = folder.metrics_file.read_text().splitlines(keepends=True)
  with open(folder.metrics_file, "a") as file:
    file.write('{"step": 7, "pro')
  RunFolder(tmp_path, SETTINGS).restore(arrays())
  assert folder.metrics_file.read_text() == "".join(before[:2])


def test_starting_anew_drops_what_a_run_without_checkpoint_logged(tmp_path):
  folder = RunFolder(tmp_path)
  folder.log(1, "", {"loss": 0.1})
  assert RunFolder(tmp_path).restore(arrays()) is None
  assert folder.metrics() == []


def test_tensorboard_gets_the_same_numbers(tmp_path):
  folder = RunFolder(tmp_path)
  folder.log(3, "", {"loss": 0.25})
  folder.log(4, "sst2", {"loss": 0.5, "accuracy": 75.0})
  have = events(tmp_path)
  assert have == [
    (3, "loss", 0.25),
    (4, "loss/sst2", 0.5),
    (4, "accuracy/sst2", 75.0),
  ]
  folder.close()
  assert events(tmp_path) == have


def records(tmp_path) -> list:
  """The events of all files in the folder, in the order of the files."""
  from tensorboardX.proto import event_pb2

  found = []
  for path in sorted(tmp_path.glob("events.out.tfevents.*")):
    data = path.read_bytes()
    while data:
      size = int.from_bytes(data[:8], "little")
      found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
      data = data[16 + size :]
  return found


def events(tmp_path) -> list[tuple[int, str, float]]:
  return [
    (event.step, value.tag, value.simple_value)
    for event in records(tmp_path)
    for value in event.summary.value
  ]


def test_tensorboard_is_told_where_a_run_begins_again(tmp_path):
  folder = RunFolder(tmp_path)
  folder.log(7, "", {"loss": 0.25})
  starts = [e.step for e in records(tmp_path) if e.HasField("session_log")]
  assert starts == [7]


# Disks.


def test_a_path_that_is_no_folder_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(ValueError, match="MODEL_DIR=.*file.*cannot be created"):
    RunFolder(tmp_path / "file" / "run")
  with pytest.raises(ValueError, match="EVAL_OUTPUT_DIR=.*cannot be created"):
    RunFolder(tmp_path / "file", setting="EVAL_OUTPUT_DIR")
  with pytest.raises(ValueError, match="exists.. Name another folder with --o"):
    RunFolder(tmp_path / "file", setting="--output")


def test_a_folder_that_takes_no_file_is_refused_at_once(tmp_path):
  with disks.files_up_to(0):
    with pytest.raises(ValueError, match="MODEL_DIR=.*cannot be written to"):
      RunFolder(tmp_path)
  assert not [*tmp_path.iterdir()]


NO_FILE = "test_a_folder_that_takes_no_file_is_refused_at_once"


def test_a_read_only_folder_is_refused_at_once(tmp_path):
  with disks.disk(tmp_path / "disk", "ro", NO_FILE) as folder:
    with pytest.raises(ValueError, match="cannot be created.*[Rr]ead-only"):
      RunFolder(folder / "run")
    with pytest.raises(ValueError, match="cannot be written to.*[Rr]ead-only"):
      RunFolder(folder)


def test_a_folder_without_the_right_to_write_is_refused_at_once(tmp_path):
  tmp_path.chmod(0o500)
  if os.access(tmp_path, os.W_OK):
    pytest.skip("this user may write everywhere; stands in: " + NO_FILE)
  with pytest.raises(ValueError, match="MODEL_DIR=.*cannot be written to"):
    RunFolder(tmp_path)


def test_a_refused_checkpoint_keeps_the_one_before(tmp_path):
  folder = saved(tmp_path)
  large = {"x": np.zeros(10_000, np.float32)}
  with (
    disks.files_up_to(20_000),
    pytest.raises(ValueError, match="MODEL_DIR=.*too large.*go on from"),
  ):
    folder.save(6, large, {})
  assert checkpoints(folder) == ["step_00000005.safetensors"]
  assert folder.restore(arrays())[0] == 5


def test_a_full_disk_keeps_what_was_written_and_says_so(tmp_path):
  """The error comes from the metrics, the events or the checkpoint."""
  instead = "test_a_refused_checkpoint_keeps_the_one_before"
  with disks.disk(tmp_path / "disk", "size=128k", instead) as path:
    folder = saved(path)
    folder.log(5, "", {"loss": 0.1})
    filler = disks.fill(path)
    message = "MODEL_DIR=.*cannot be written to.*No space left.*go on from"
    with pytest.raises(ValueError, match=message):
      RunFolder(path, SETTINGS)
    with pytest.raises(ValueError, match=message):
      folder.save(6, arrays(6), {})
    with pytest.raises(ValueError, match=message):
      for step in range(6, 1000):
        folder.log(step, "", {"loss": 0.1})
    kept = folder.metrics()
    assert kept[0] == {"step": 5, "prompt": "", "loss": 0.1}
    filler.unlink()
    again = RunFolder(path, SETTINGS)
    assert again.restore(arrays())[0] == 5
    assert again.metrics() == kept[:1]
    again.log(6, "", {"loss": 0.2})
    assert [json.loads(x)["step"] for x in open(again.metrics_file)] == [5, 6]


def test_a_checkpoint_is_whole_or_the_one_before_wherever_a_write_ends(
  tmp_path,
):
  """Killed at any file operation of a run's folder; then the run goes on."""

  def tree(step):
    return {"rows": np.full((3, 4), step, np.float32)}

  def run(path, steps):
    with RunFolder(path, SETTINGS, keep=2).alone() as folder:
      found = folder.restore(tree(0))
      done = found[0] if found else 0
      if found:
        np.testing.assert_array_equal(found[1]["rows"], tree(done)["rows"])
        assert found[2] == {"done": done}
      for step in range(done + 1, steps + 1):
        folder.log(step, "a", {"loss": 1 / step})
        folder.save(step, tree(step), {"done": step})
    return done

  def left(path):
    folder = RunFolder(path, SETTINGS)
    names = sorted(
      str(file.relative_to(path))
      for file in path.rglob("*")
      if file.is_file() and not file.name.startswith("events")
    )
    return names, folder.metrics()

  run(tmp_path / "whole", 4)
  seen = set()
  for killing in Killing.everywhere():
    path = tmp_path / str(killing.at)
    run(path, 2)
    with killing:
      run(path, 4)
    seen.add(run(path, 4))
    assert left(path) == left(tmp_path / "whole"), killing.at
    shutil.rmtree(path)
  assert seen == {2, 3, 4} and killing.at > 15
