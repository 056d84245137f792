"""A folder that one process at a time writes to.

The lock is the system's (flock) on a file in the folder, so it ends with the
process that holds it, however that ends. A process may hold a folder several
times over.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import pathlib
import socket
from typing import IO

LOCK = ".lock"
_held: dict[pathlib.Path, tuple[IO[str], int]] = {}


class Busy(OSError):
  """Another process writes to the folder; the message says which."""


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
  """Holds a folder until the end of the block.

  Raises:
    Busy: another process holds it.
  """
  path = folder.resolve() / LOCK
  file, times = _held.get(path, (None, 0))
  while file is None or not _is_there(path, file):
    file, times = _locked(path), 0
  _held[path] = file, times + 1
  try:
    yield
  finally:
    file, times = _held.pop(path)
    if times > 1:
      _held[path] = file, times - 1
    else:
      # Whoever opened the file meanwhile sees that it is gone, and makes anew.
      path.unlink(missing_ok=True)
      file.close()


def _is_there(path: pathlib.Path, file: IO[str]) -> bool:
  """Whether the locked file is still that of the folder."""
  try:
    return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
  except FileNotFoundError:
    return False


def _locked(path: pathlib.Path) -> IO[str]:
  file = open(path, "a+", encoding="utf-8")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    # A file system without locks is used without one.
    if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
      return file
    file.seek(0)
    holder = file.read().strip()
    file.close()
    raise Busy(
      errno.EBUSY, f"{holder or 'another process'} writes to it"
    ) from (error)
  file.truncate(0)
  file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
  file.flush()
  return file
