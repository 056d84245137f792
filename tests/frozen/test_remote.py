"""Models elsewhere: a bucket and the hub, both played by this machine."""

import contextlib
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import urllib.parse

import places
import pytest
import tiny_t5

from prompt_tuning.frozen import pretrained, remote, t5x_checkpoints

GOLDEN = places.GOLDEN / "huggingface"
CONFIG = tiny_t5.config()


@contextlib.contextmanager
def bucket(root: pathlib.Path):
  """Serves the files of a folder as the objects of a public bucket."""
  asked = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      url = urllib.parse.urlparse(self.path)
      query = urllib.parse.parse_qs(url.query)
      place = urllib.parse.unquote(url.path)
      assert "Authorization" not in self.headers
      status, body = 404, b""
      if place.endswith("/o"):
        low = query.get("startOffset", [""])[0]
        high = query.get("endOffset", ["\U0010ffff"])[0]
        files = (p for p in root.rglob("*") if p.is_file())
        names = sorted(str(p.relative_to(root)) for p in files)
        items = [
          {"name": name, "generation": "1", "size": "1"}
          for name in names
          if low <= name < high
        ]
        status, body = 200, json.dumps({"items": items}).encode()
      else:
        file = root / place.partition("/o/")[2]
        if file.is_file():
          asked.append(file.name)
          status, body = 200, file.read_bytes()
      self.send_response(status)
      self.send_header("Content-Length", str(len(body)))
      self.send_header("x-goog-generation", "1")
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, *arguments):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield f"http://127.0.0.1:{server.server_port}", asked
  finally:
    server.shutdown()


def elsewhere(code: str, **variables):
  """Runs Python in a process that starts with other variables."""
  return subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, "JAX_PLATFORMS": "cpu", **variables},
    capture_output=True,
    text=True,
  )


HASH = """
from prompt_tuning.frozen import pretrained
print("hash", pretrained.load(%r).stored_hash)
"""


def test_a_folder_of_a_bucket_is_fetched_once(tmp_path):
  objects = tmp_path / "objects"
  checkpoint = t5x_checkpoints.save(
    objects / "t5", CONFIG, tiny_t5.weights(CONFIG), step=5
  )
  state = checkpoint / "state.param_states.big"
  state.write_bytes(b"of the optimizer")
  shutil.copytree(GOLDEN / "t5_1_1", objects / "hf")
  with bucket(objects) as (url, asked):
    variables = {
      "TENSORSTORE_GCS_HTTP_URL": url,
      remote.CACHE: str(tmp_path / "cache"),
    }
    path = "gs://public/t5/checkpoint_5"
    first = elsewhere(HASH % path, **variables)
    want = pretrained.load(checkpoint).stored_hash
    assert f"hash {want}" in first.stdout, first.stderr[-500:]
    assert "checkpoint" == asked[-1] and state.name not in asked
    asked.clear()
    again = elsewhere(HASH % path, **variables)
    assert f"hash {want}" in again.stdout and not asked
    other = elsewhere(HASH % "gs://public/hf/", **variables)
    want = pretrained.load(GOLDEN / "t5_1_1").stored_hash
    assert f"hash {want}" in other.stdout, other.stderr[-500:]
    nothing = elsewhere(HASH % "gs://public/nothing", **variables)
    assert "There is nothing at gs://public/nothing" in nothing.stderr


def test_a_name_on_the_hub_is_read_from_its_cache(tmp_path):
  snapshot = tmp_path / "models--owner--small" / "snapshots" / ("a" * 40)
  shutil.copytree(GOLDEN / "t5_1_1", snapshot)
  refs = tmp_path / "models--owner--small" / "refs"
  refs.mkdir()
  (refs / "main").write_text("a" * 40)
  found = elsewhere(
    HASH % "owner/small", HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1"
  )
  want = pretrained.load(GOLDEN / "t5_1_1").stored_hash
  assert f"hash {want}" in found.stdout, found.stderr[-500:]


def test_a_name_that_cannot_be_fetched_says_what_to_do(tmp_path):
  found = elsewhere(
    HASH % "owner/other", HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1"
  )
  last = found.stderr.strip().splitlines()[-1]
  assert last.startswith("ValueError: There is no folder 'owner/other' here")
  assert "give the path of the folder" in last


@pytest.mark.parametrize("path", ["/no/such/model", "./none", "a/b/c", "none"])
def test_a_missing_path_is_a_missing_path_and_says_nothing_of_hubs(path):
  with pytest.raises(FileNotFoundError, match="There is no model at") as caught:
    remote.local(path)
  assert "hub" not in str(caught.value)
