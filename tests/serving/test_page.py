"""The page in a real browser, driven by WebDriver's own protocol."""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time

import asking
import conftest
import pytest

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


@pytest.fixture(scope="module")
def browser():
  if not (CHROMIUM and DRIVER):
    pytest.skip(
      "chromium and chromedriver are not installed: apt-get install chromium "
      "chromium-driver"
    )
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


@pytest.mark.usefixtures("server")
def test_prompts_are_asked_side_by_side_by_keyboard_alone(browser, server, ask):
  browser.open(server.url)
  # Without a key nothing is listed, and the field for it stands open.
  browser.wait("document.getElementById('status').textContent.includes('key')")
  assert browser.run("return document.querySelector('details').open")

  # By Tab to the field of the key; the prompts appear.
  def tab_to(name: str) -> None:
    for _ in range(80):
      if browser.focus() == name:
        return
      browser.press(TAB)
    raise AssertionError(f"Tab does not lead to {name}")

  tab_to("key")
  browser.press(*conftest.KEY, TAB)
  count = "document.querySelectorAll('#prompts input').length"
  browser.wait(f"{count} > 50")
  assert browser.run("return document.getElementById('own').textContent") == (
    "toy"
  )
  # The first prompt is chosen, and its record says the form of an input.
  form = browser.run("return document.getElementById('form').textContent")
  assert form == "Form: cat: {cat}"

  # The second is chosen by Space, a text typed, and asked by Enter.
  browser.run("document.querySelectorAll('#prompts input')[0].focus()")
  browser.press(TAB, SPACE)
  tab_to("text")
  browser.press(*"the cat sat")
  tab_to("send")
  browser.press(ENTER)
  cards = "document.querySelectorAll('.answer .text')"
  done = "document.getElementById('status').textContent == '2 answers.'"
  browser.wait(done)
  answers = browser.run(f"return [...{cards}].map(c => c.textContent)")
  names = browser.run(
    "return [...document.querySelectorAll('.answer h2')]"
    ".map(c => c.textContent)"
  )

  # The first has labels, so theirs are the probabilities; the second writes.
  ranked = ask.classify(names[0], "the cat sat").json["data"][0]
  (written,) = ask.complete(names[1], "the cat sat").json["choices"]
  assert answers[0] == ranked["label"]
  shown = browser.run(
    "return [...document.querySelectorAll('.answer')[0]"
    ".querySelectorAll('tr')].map(r => r.textContent)"
  )
  best = max(ranked["probs"])
  assert shown[0] == f"{ranked['label']}{100 * best:.1f} %"
  assert len(shown) == len(asking.LABELS)
  assert answers[1].strip() == written["text"].strip()
  times = browser.run(
    "return [...document.querySelectorAll('.answer .hint')]"
    ".map(c => c.textContent)"
  )
  assert all(one.endswith(" ms") for one in times)
  expected = [one for one in browser.complaints() if "401" not in one]
  assert not expected, expected


@pytest.mark.usefixtures("server")
def test_every_field_of_the_page_has_a_label(browser, server):
  browser.open(server.url)
  nameless = browser.run(
    "return [...document.querySelectorAll('input, textarea, button')]"
    ".filter(e => !(e.labels && e.labels.length) && !e.textContent.trim())"
    ".map(e => e.outerHTML)"
  )
  assert nameless == []
