"""Disks that are small, full or read-only, and files that cannot grow."""

from collections.abc import Iterator
import contextlib
import pathlib
import resource
import subprocess

import pytest


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
  """No file can grow beyond `size` bytes: the system refuses the write."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def disk(
  path: pathlib.Path, options: str, instead: str
) -> Iterator[pathlib.Path]:
  """A disk of its own, such as `size=64k` or `ro`; skips without the right.

  Args:
    path: where it is mounted.
    options: of the mount.
    instead: the test that stands in, and always runs.
  """
  path.mkdir(exist_ok=True)
  mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
  try:
    subprocess.run(mount, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip(f"to mount a disk takes root on Linux; {instead} stands in")
  try:
    yield path
  finally:
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(folder: pathlib.Path) -> pathlib.Path:
  """Fills a disk to its last byte; the file that does it."""
  filler = folder / "filler"
  with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
    while True:
      file.write(b"x" * 4096)
  return filler
