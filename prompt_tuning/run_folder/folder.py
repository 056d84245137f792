"""One run's folder, as the run knows it."""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import errno
import json
import logging
import os
import pathlib
import time
from typing import Any

from prompt_tuning import json_files, locks, processes, storage
from prompt_tuning.run_folder import checkpoints, spread
from prompt_tuning.shapes import PyTree

SETTINGS = "settings.json"
_NO_PLACE = (
  *(errno.EEXIST, errno.ENOTDIR, errno.ENOENT),
  *(errno.EACCES, errno.EPERM, errno.EROFS),
)
"""Errors of a place that no run can be written to, however much is freed."""


class RunFolder:
  """Reads and writes one run's folder.

  Args:
    path: the folder; it is made if it is missing.
    settings: what the run depends on (JSON values). A checkpoint of a run with
      other settings is refused.
    keep: how many checkpoints are kept.
    setting: what the user calls the folder.

  Attributes:
    writes: whether this process reads and writes it.

  Raises:
    ValueError: the folder cannot be written to.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    settings: Mapping[str, Any] | None = None,
    keep: int = 2,
    *,
    setting: str = "MODEL_DIR",
  ):
    if not str(path).strip():
      raise ValueError(f"{setting} is empty; give the path of a folder.")
    self.path = pathlib.Path(path)
    self.settings = json.loads(json.dumps(dict(settings or {})))
    self.keep = keep
    self.writes = processes.is_first()
    self._setting = setting
    self._events: Any = None
    if not self.writes:
      return
    with self.writing("be created"):
      self.path.mkdir(parents=True, exist_ok=True)
    with self.writing():
      storage.write_text(self._probe, "probe")
      self._probe.unlink()

  @property
  def _probe(self) -> pathlib.Path:
    return self.path / ".writable"

  @property
  def metrics_file(self) -> pathlib.Path:
    """metrics.jsonl."""
    return self.path / "metrics.jsonl"

  @contextlib.contextmanager
  def writing(self, verb: str = "be written to") -> Iterator[None]:
    """Inside, an error of the disk names the folder, and says what to do.

    Raises:
      ValueError: instead of the OSError.
    """
    try:
      yield
    except OSError as error:
      advice = (
        f"Name another folder with {self._setting}."
        if error.errno in _NO_PLACE
        else "Everything written there before is kept. Free some space, then "
        "run the same command again to go on from the last checkpoint."
      )
      raise ValueError(
        f"The folder {self._setting}={self.path} cannot {verb} "
        f"({error.strerror or error}). {advice}"
      ) from error

  @contextlib.contextmanager
  def alone(self) -> Iterator["RunFolder"]:
    """Inside, no other process trains into the folder.

    What a killed process left half-written is removed first.

    Raises:
      ValueError: another process does, or the folder is that of a run with
        other settings.
    """
    if not self.writes:
      yield self
      return
    with contextlib.ExitStack() as stack:
      try:
        stack.enter_context(locks.held(self.path))
      except locks.Busy as error:
        raise ValueError(
          f"Another run is in {self._setting}={self.path} ({error.strerror}). "
          f"Wait for its end, or name another folder with {self._setting}."
        ) from error
      for part in ("", "checkpoints", "model", "predictions", "prompts/*"):
        for folder in self.path.glob(part) if part else [self.path]:
          storage.remove_unfinished(folder)
      checkpoints.remove_unfinished(self._checkpoints)
      self._drop_oldest()
      if self.settings:
        self._check_settings()
      yield self

  def _check_settings(self) -> None:
    """Compares with the settings in the folder, or writes them there."""
    file = self.path / SETTINGS
    if file.is_file():
      self._compare(json_files.read_object(file), file)
    elif not self.checkpoint_steps():
      with self.writing():
        storage.write_json(file, self.settings)

  # Checkpoints.

  def checkpoint_steps(self) -> list[int]:
    """The steps that have a checkpoint, oldest first."""
    return [*checkpoints.of_steps(self._checkpoints)]

  @property
  def _checkpoints(self) -> pathlib.Path:
    return self.path / "checkpoints"

  def save(self, step: int, arrays: PyTree, record: Mapping[str, Any]) -> None:
    """Writes a checkpoint atomically, then removes the oldest ones.

    Args:
      step: updates done.
      arrays: a pytree of arrays.
      record: JSON values that travel with it.
    """
    about = {"settings": self.settings, "record": dict(record)}
    with self.writing():
      checkpoints.save(self._checkpoints, step, arrays, about)  # by all
    if self.writes:
      self._drop_oldest()

  def _drop_oldest(self) -> None:
    found = checkpoints.of_steps(self._checkpoints)
    for old in list(found)[: -self.keep]:
      checkpoints.remove(found[old])

  def restore(self, like: PyTree) -> tuple[int, PyTree, dict] | None:
    """The last checkpoint as (step, arrays, record); None if there is none.

    Args:
      like: a pytree of the structure that was saved.

    Raises:
      ValueError: it is damaged, or belongs to a run with other settings; or
        what lies across processes has no folder that all of them see.
    """
    if processes.is_spread(like):
      try:
        spread.check(self.path)
      except ValueError:
        if self.writes and not self.checkpoint_steps():
          (self.path / SETTINGS).unlink(missing_ok=True)  # of no step
        raise
    known = json.loads(
      processes.told(lambda: json.dumps(self._known()).encode())
    )
    if known and known[-1][2]:
      return self._read(known, like)  # by all
    return processes.known(lambda: self._read(known, like), like)

  def _known(self) -> list[tuple[int, str, bool]]:
    """Of each checkpoint: step, name, and whether all processes read it."""
    found = checkpoints.of_steps(self._checkpoints)
    return [(step, path.name, path.is_dir()) for step, path in found.items()]

  def _read(self, known, like: PyTree) -> tuple[int, PyTree, dict] | None:
    steps = [step for step, *_ in known]
    last = steps[-1] if steps else 0
    record: dict = {}
    if steps:
      path = self._checkpoints / known[-1][1]
      older = (
        f"to go on from step {steps[-2]}" if steps[1:] else "to start anew"
      )
      like, about = checkpoints.load(path, like, self._compare, older)
      record = about["record"]
    if self.writes:
      self._drop_metrics_after(last)
    return (last, like, record) if steps else None

  def _compare(self, found: Mapping[str, Any], path) -> None:
    # Folders of before do not tell what a start was built with.
    later = {"start by PROMPT_INITIALIZER"} - found.keys()
    for name in sorted({*found, *self.settings} - later):
      if found.get(name) != self.settings.get(name):
        raise ValueError(
          f"{path} belongs to a run with {name}={found.get(name)!r}, this "
          f"one has {name}={self.settings.get(name)!r}. {_why(name)}Choose "
          "another MODEL_DIR, or remove the folder to start anew."
        )

  # Metrics.

  def log(self, step: int, prompt: str, values: Mapping[str, float]) -> None:
    """Appends one line to metrics.jsonl and the values to TensorBoard."""
    if not self.writes:
      return
    line = json.dumps({"step": step, "prompt": prompt, **values})
    with self.writing():
      with open(self.metrics_file, "a", encoding="utf-8") as file:
        file.write(line + "\n")
      self._add_events(step, prompt, values)

  def _add_events(self, step, prompt, values) -> None:
    """Writes events at once: on a full disk, SummaryWriter's thread hangs."""
    # Here, because most uses of this module never log.
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2 as protos

    event_pb2: Any = protos  # its classes are made at run time

    def add(**content):
      event = event_pb2.Event(step=step, wall_time=time.time(), **content)
      self._events.write_event(event)

    if self._events is None:
      self._events = event_file_writer.EventsWriter(str(self.path / "events"))
      # TensorBoard then forgets what an interrupted run logged from here on.
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      add(session_log=start)
    for name, value in values.items():
      tag = f"{name}/{prompt}" if prompt else name
      add(summary=summary.scalar(tag, value))
    self._events.flush()

  def metrics(self) -> list[dict]:
    """The lines of metrics.jsonl.

    A half-written last line is left out; so is any other that cannot be read,
    and a warning says how many.
    """
    if not self.metrics_file.is_file():
      return []
    rows, bad = [], []
    lines = self.metrics_file.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
      row = _metrics_row(line)
      rows.append(row) if row else bad.append(number)
    if bad and bad != [len(lines)]:
      logging.getLogger(__name__).warning(
        "%s: %d lines cannot be read and are left out, the first is line %d.",
        *(self.metrics_file, len(bad), bad[0]),
      )
    return [row for row in rows if row]

  def _drop_metrics_after(self, step: int) -> None:
    if not self.metrics_file.exists():
      return
    rows = [row for row in self.metrics() if row["step"] <= step]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with self.writing():
      storage.write_text(self.metrics_file, text)

  def write_jsonl(self, name: str, rows: Iterable[Mapping]) -> pathlib.Path:
    """Writes a file of the folder, one JSON object per line; its path."""
    if self.writes:
      storage.write_jsonl(self.path / name, rows)
    return self.path / name

  def close(self) -> None:
    """Closes the TensorBoard events."""
    if self._events is not None:
      self._events.close()
      self._events: Any = None


def _why(setting: str) -> str:
  """What a setting that is a hash stands for."""
  rows = (
    "The rows are others, or what makes texts of them (--template, --labels, "
    "TASK_FEATURE_LENGTHS, the vocabulary); config.gin has what it was. "
  )
  return rows if setting.endswith("data of hash") else ""


def _metrics_row(line: bytes) -> dict | None:
  """A line of metrics.jsonl; None for one that is none."""
  try:
    row = json.loads(line)
  except (ValueError, RecursionError):
    return None
  is_row = isinstance(row, dict) and isinstance(row.get("prompt"), str)
  step = row.get("step") if is_row else None
  return row if isinstance(step, int) and not isinstance(step, bool) else None
