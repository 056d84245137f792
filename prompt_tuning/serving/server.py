"""The server: a service behind HTTP, in this thread or in one of its own.

    Settings, prompts -> Server -> listens -> compiles -> ready -> … -> closes

It listens before it has compiled, so that /v2/health/live answers at once and
/v2/health/ready when requests are taken. When it closes it answers whatever it
has accepted.
"""

from collections.abc import Callable, Mapping
import contextlib
import os
import pathlib
import socket
import threading
import time

import uvicorn

from prompt_tuning.serving.programs import GivenUp
from prompt_tuning.serving.service import Service
from prompt_tuning.serving.settings import Settings
from prompt_tuning.serving.web import app

_IDLE = 30  # seconds that a connection is kept without a request


class Server:
  """One frozen model with named prompts, over HTTP.

  Args:
    settings: model, shapes and limits; or the frozen model, with usual ones.
    prompts: paths by name, of prompts for this model.
    folder: a folder of prompts, see `Service`.
    host: the address to listen at.
    port: 0 for a free one.
    keys: of which a request has to bring one; () for anybody.

  Raises:
    ValueError: a prompt cannot be served.
    OSError: nothing can listen there.

  Example:
    settings = Settings(model, {"inputs": 64})
    with Server(settings, {"boolq": "runs/boolq"}) as server:
      requests.post(f"{server.url}/v1/completions", json={…})
  """

  def __init__(
    self,
    settings: Settings,
    prompts: Mapping[str, str | os.PathLike] | None = None,
    *,
    folder: str | os.PathLike | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    keys: tuple[str, ...] = (),
  ):
    self._socket = _listening(host, port)
    try:
      self.service = Service(settings, prompts or {}, folder)
      config = uvicorn.Config(
        app.make(self.service, keys),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks where a request is from
        timeout_keep_alive=_IDLE,
        h11_max_incomplete_event_size=1 << 16,
      )
    except BaseException:
      self._socket.close()
      raise
    self._host = host
    self._uvicorn = uvicorn.Server(config)
    self._thread: threading.Thread | None = None
    self._failed: list[Exception] = []

  @property
  def url(self) -> str:
    """Where it listens."""
    host = f"[{self._host}]" if ":" in self._host else self._host
    return f"http://{host}:{self._socket.getsockname()[1]}"

  def _prepare(self, told: Callable[[int, float], None]) -> None:
    begin = time.monotonic()
    try:
      told(self.service.prepare(), time.monotonic() - begin)
    except GivenUp:
      pass
    except Exception as error:  # a model that is too large, for example
      self._failed.append(error)
      self._uvicorn.should_exit = True

  def run(self, told: Callable[[int, float], None]) -> None:
    """Serves until SIGINT or SIGTERM, and answers what was accepted.

    Args:
      told: is called when it is ready, with how many programs were compiled in
        how many seconds.
    """
    preparing = threading.Thread(
      target=self._prepare, args=(told,), daemon=True
    )
    try:
      preparing.start()
      # uvicorn raises the signal again when all is done.
      with contextlib.suppress(KeyboardInterrupt):
        self._uvicorn.run([self._socket])
    finally:
      # An interpreter that ends in the middle of a compilation is aborted.
      self.service.give_up()
      if preparing.is_alive():
        preparing.join()
    if self._failed:
      raise self._failed[0]

  def start(self) -> "Server":
    """Serves in a thread, and returns when it is ready."""
    self._thread = threading.Thread(
      target=self._uvicorn.run, args=([self._socket],), daemon=True
    )
    self._thread.start()
    self._prepare(lambda count, seconds: None)
    if self._failed:
      self.close()
      raise self._failed[0]
    while not self._uvicorn.started:
      time.sleep(0.01)
    return self

  def close(self) -> None:
    """Answers what was accepted, and ends."""
    self._uvicorn.should_exit = True
    if self._thread is not None:
      self._thread.join()
    self._socket.close()

  def __enter__(self) -> "Server":
    return self.start()

  def __exit__(self, *error) -> None:
    self.close()


def _listening(host: str, port: int) -> socket.socket:
  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family, backlog=2048)
  except (OSError, OverflowError) as error:
    raise OSError(
      f"Nothing can listen at {host}, port {port} ({error}). Choose others "
      "with --host and --port."
    ) from error


def keys_in(path: str | os.PathLike) -> tuple[str, ...]:
  """The keys in a file, one on a line; # begins a comment.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: there is no key in it, or one is too short.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise FileNotFoundError(f"There is no file {path} (--api_key_file).")
  lines = file.read_text(encoding="utf-8-sig").splitlines()
  keys = [line.strip() for line in lines]
  keys = [key for key in keys if key and not key.startswith("#")]
  if not keys or min(map(len, keys)) < 8:
    raise ValueError(
      f"{path} (--api_key_file) must have keys of 8 letters or more, one on a "
      f"line; it has {len(keys)} keys, the shortest of "
      f"{min(map(len, keys), default=0)} letters."
    )
  return tuple(keys)
