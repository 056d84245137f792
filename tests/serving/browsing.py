"""A real browser, driven by WebDriver's own protocol."""

from collections.abc import Iterator
import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
TAB, ENTER, SPACE, CONTROL = "\ue004", "\ue007", " ", "\ue009"


class Browser:
  """A headless Chromium."""

  def __init__(self, port: int):
    self._port, self._session = port, ""
    options = {
      "binary": CHROMIUM,
      "args": [
        *("--headless=new", "--no-sandbox", "--disable-gpu"),
        "--disable-dev-shm-usage",
      ],
    }
    wanted = {"browserName": "chrome", "goog:chromeOptions": options}
    wanted["goog:loggingPrefs"] = {"browser": "ALL"}
    made = self._call("", {"capabilities": {"alwaysMatch": wanted}})
    self._session = f"/{made['sessionId']}"

  def _call(self, path: str, body=None, method: str = "POST"):
    connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
    content = json.dumps({} if body is None else body)
    connection.request(
      *(method, f"/session{self._session}{path}"),
      content if method == "POST" else None,
    )
    said = json.loads(connection.getresponse().read())["value"]
    assert not (isinstance(said, dict) and "error" in said), said
    return said

  def open(self, url: str) -> None:
    self._call("/url", {"url": url})

  def run(self, script: str, *arguments):
    return self._call(
      "/execute/sync", {"script": script, "args": list(arguments)}
    )

  def wait(self, script: str, seconds: float = 30):
    end = time.monotonic() + seconds
    while not (value := self.run(f"return {script}")):
      assert time.monotonic() < end, script
      time.sleep(0.05)
    return value

  def press(self, *keys: str) -> None:
    """Keys as a user presses them, into whatever has the focus."""
    actions = [
      {"type": kind, "value": key}
      for key in keys
      for kind in ("keyDown", "keyUp")
    ]
    self._call(
      "/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]}
    )

  def focus(self) -> str:
    return self.run("return document.activeElement.id")

  def complaints(self) -> list[str]:
    log = self._call("/se/log", {"type": "browser"})
    return [one["message"] for one in log if one["level"] == "SEVERE"]

  def close(self) -> None:
    self._call("", method="DELETE")


def free_port() -> int:
  with socket.create_server(("127.0.0.1", 0)) as found:
    return found.getsockname()[1]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
  """A browser, as long as it is used."""
  port = free_port()
  process = subprocess.Popen(
    [DRIVER, f"--port={port}"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    end = time.monotonic() + 30
    while time.monotonic() < end:
      with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        break
      time.sleep(0.05)
    driven = Browser(port)
    yield driven
    driven.close()
  finally:
    process.terminate()
    process.wait()
