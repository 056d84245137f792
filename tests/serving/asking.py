"""A client of a few lines, rows of an engine, a folder of prompts to serve."""

import http.client
import json
import pathlib
import socket
import threading
import urllib.parse

import tiny_t5
import toy_tasks

from prompt_tuning.prompts import checkpoints
from prompt_tuning.serving import rows

TEXTS = (
  "the cat sat",
  "a dog ran to the red house",
  "mat",
  "sat on the mat",
  "we saw a bird",
)
LABELS = ["yes", "no", "red"]


def values(number: int):
  """The rows of the prompt of a number, 1 to 7 of them."""
  return 3 * tiny_t5.rows(1 + number % 7, 16, seed=number)


def save(folder: pathlib.Path, number: int, **record) -> pathlib.Path:
  """Saves a prompt for the toy model."""
  about = {"source": "toy", "hash": toy_tasks.model().stored_hash}
  whole = {"task": f"task{number}", "model": about, **record}
  return checkpoints.save_prompt(folder, values(number), whole)


class Answer:
  """An answer: status, headers, text, and JSON where it is some."""

  def __init__(self, response: http.client.HTTPResponse):
    self.status, self.headers = response.status, response.headers
    self.text = response.read().decode()

  @property
  def json(self):
    return json.loads(self.text)

  @property
  def message(self) -> str:
    return self.json["error"]["message"]

  @property
  def events(self) -> list:
    """What a stream said, without its end."""
    lines = [part.removeprefix("data: ") for part in self.text.split("\n\n")]
    assert lines[-2:] == ["[DONE]", ""]
    return [json.loads(line) for line in lines[:-2]]


class Client:
  """Asks a server, over one connection."""

  def __init__(self, url: str, key: str = ""):
    self.address = urllib.parse.urlsplit(url)
    self.headers = {"Authorization": f"Bearer {key}"} if key else {}
    self.connection = http.client.HTTPConnection(
      self.address.hostname, self.address.port, timeout=60
    )

  def __call__(self, path: str, body=None, *, method="", **headers) -> Answer:
    headers = {**self.headers, **headers}
    if body is not None and not isinstance(body, bytes):
      body = json.dumps(body).encode()
    if body is not None and "content-type" not in headers:
      headers = {"Content-Type": "application/json", **headers}
    method = method or ("GET" if body is None else "POST")
    self.connection.request(method, path, body, headers)
    return Answer(self.connection.getresponse())

  def complete(self, model: str, prompt, **more) -> Answer:
    body = {"model": model, "prompt": prompt, **more}
    return self("/v1/completions", body)

  def classify(self, model: str, given, **more) -> Answer:
    return self("/v1/classify", {"model": model, "input": given, **more})

  def raw(self) -> socket.socket:
    """A connection of its own, for what no client would send."""
    return socket.create_connection(
      (self.address.hostname, self.address.port), timeout=60
    )


class Request:
  """Rows of one request to an engine, and waiting for all of them."""

  def __init__(self, running, bank, asked, **options):
    self._left, self._ended = len(asked), threading.Event()
    self.rows = [
      rows.Row(
        bank.prompted,
        bank.tokens(name, text),
        writing,
        told=self._told,
        before=bank.before(name),
        **options,
      )
      for name, text, writing in asked
    ]
    running.submit(self.rows)

  def _told(self, row):
    self._left -= row.ending is not None
    if not self._left:
      self._ended.set()

  def wait(self):
    assert self._ended.wait(60)
    return self.rows
