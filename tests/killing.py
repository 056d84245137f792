"""The end of a process at any of its file operations, and what it leaves.

    for killing in Killing.everywhere():
      with killing:
        write()          # ends at file operation 0, 1, 2, …
      read()

The process goes on, but nothing is cleaned up: every file operation behind the
fatal one ends the block as well.
"""

from collections.abc import Iterator
import os
import pathlib
import shutil
import tempfile
import traceback

import pytest
import safetensors.numpy

OPERATIONS = (
  *((os, name) for name in ("replace", "fsync", "unlink", "rename", "rmdir")),
  *((os, name) for name in ("chmod", "mkdir")),
  (pathlib.Path, "write_bytes"),
  (shutil, "rmtree"),
  (safetensors.numpy, "save_file"),
  (tempfile, "mkdtemp"),
  (tempfile, "mkstemp"),
)


class Killed(BaseException):
  """Stands for the end of the process."""


class Killing:
  """Ends a block at its file operation number `at`.

  Attributes:
    at: which operation, from 0.
    killed: whether the block had so many.
  """

  def __init__(self, at: int):
    self.at, self.killed, self._done = at, False, 0
    self._patch = pytest.MonkeyPatch()

  @classmethod
  def everywhere(cls, step: int = 1) -> Iterator["Killing"]:
    """One after another, up to one whose block comes to its end."""
    for at in range(0, 100_000, step):
      killing = cls(at)
      yield killing
      if not killing.killed:
        return

  def __enter__(self) -> "Killing":
    for owner, name in OPERATIONS:
      self._patch.setattr(owner, name, self._counted(getattr(owner, name)))
    return self

  def _counted(self, operation):
    def call(*args, **kwargs):
      if self._done == self.at:
        self.killed = True
        raise Killed
      self._done += 1
      return operation(*args, **kwargs)

    return call

  def __exit__(self, kind, error, _) -> bool:
    self._patch.undo()
    if kind is not Killed:
      return False
    # What the process held, locks too, is let go of.
    while error is not None:
      traceback.clear_frames(error.__traceback__)
      error = error.__context__
    return True
