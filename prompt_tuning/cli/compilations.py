"""Programs that XLA compiles, kept for the next start.

JAX reads the folder's name from the environment when it is imported. It writes
an entry in place and never again: one that a killed process or a full disk has
cut short would be warned of, and compiled anew, at every start from then on. So
entries that are new since the last start are read through at the next.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import zlib

_CHECKED = ".checked"
_ZLIB = b"\x78"  # the first byte; what another library packed is left alone


def keep(wanted: bool) -> None:
  """Programs that XLA compiles are kept for the next start.

  In the user's cache folder, unless JAX is told of another by its environment
  variable JAX_COMPILATION_CACHE_DIR. A program is for one kind of processor,
  and a home may be shared by several. Where nothing can be written every start
  compiles; JAX would say so at each program.
  """
  name = "JAX_COMPILATION_CACHE_DIR"
  folder = os.environ.pop(name, "") or _cache_folder()
  if not wanted or not folder:
    return
  if "://" not in folder:  # a bucket is JAX's to open
    with contextlib.suppress(OSError):
      os.makedirs(folder, exist_ok=True)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
      return
    _remove_damaged(pathlib.Path(folder))
  os.environ[name] = folder
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


def _cache_folder() -> str:
  """Where a user's compiled programs are kept; empty without a home."""
  caches = os.environ.get("XDG_CACHE_HOME", "")
  if not os.path.isabs(caches):  # such a value is to be ignored
    caches = os.path.expanduser("~/.cache")
  if not os.path.isabs(caches):
    return ""
  return os.path.join(caches, "prompt_tuning", "compiled", _processor())


def _processor() -> str:
  """Tells kinds of processors apart."""
  about = platform.processor() + platform.machine()
  with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as file:
    about += str([line for line in file if line.startswith(b"flags")][:1])
  return hashlib.sha256(about.encode()).hexdigest()[:16]


def _remove_damaged(folder: pathlib.Path) -> None:
  """Removes entries that end too early, of those since the last call."""
  with contextlib.suppress(OSError):
    stamp = folder / _CHECKED
    last = stamp.stat().st_mtime_ns if stamp.exists() else 0
    stamp.touch()  # first: what is cut from now on is the next start's
    for path in folder.glob("*-cache"):
      with contextlib.suppress(OSError):  # another start may be at it, too
        if path.stat().st_mtime_ns >= last and not _is_whole(path):
          path.unlink()


def _is_whole(path: pathlib.Path) -> bool:
  """Whether an entry can be unpacked; its checksum stands at its end."""
  packed = path.read_bytes()
  if not packed.startswith(_ZLIB):
    return bool(packed)
  try:
    zlib.decompress(packed)
  except zlib.error:
    return False
  return True
