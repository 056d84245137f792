"""Records what the page asks and shows in a browser: tests/golden/page.json.

    python tests/golden/make_page.py

Needs Debian's chromium and chromium-driver (made with 156). A server of a few
lines hands out the page, and answers it with what stands in ANSWERS.
"""

import hashlib
import http.server
import json
import pathlib
import sys
import threading

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "serving"), str(HERE.parents[1])]

import browsing  # noqa: E402

from prompt_tuning.serving.web import app  # noqa: E402

FILE = HERE / "page.json"
MODEL = {"object": "model", "created": 1, "owned_by": "me"}
ANSWERS = {
  "/v1/models": {
    "object": "list",
    "data": [
      {"id": "toy", **MODEL},
      {
        "id": "p0",
        "parent": "toy",
        "task": "task0",
        "labels": ["yes", "no", "red"],
        "template": "cat: {cat}",
        **MODEL,
      },
      {"id": "p1", "parent": "toy", "task": "task1", **MODEL},
    ],
  },
  "/v1/classify": {
    "data": [{"index": 0, "label": "no", "probs": [0.25, 0.5, 0.25]}],
    "labels": ["yes", "no", "red"],
  },
  "/v1/completions": {
    "choices": [{"text": "sat", "logprobs": {"token_logprobs": [-0.5, -0.1]}}]
  },
}
seen: list[dict] = []


class Recorder(http.server.BaseHTTPRequestHandler):
  def answer(self):
    if self.path in app.PAGE:
      content, kind = app.page_file(self.path)
    else:
      length = int(self.headers.get("content-length", 0))
      body = json.loads(self.rfile.read(length)) if length else None
      key = self.headers.get("authorization")
      if key and self.path in ANSWERS:
        seen.append({"method": self.command, "path": self.path, "body": body})
      known = ANSWERS.get(self.path) if key else None
      content, kind = json.dumps(known or {}).encode(), "application/json"
      if not known:
        content = b'{"error": {"message": "Give a key."}}'
    self.send_response(401 if content.startswith(b'{"error"') else 200)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    self.wfile.write(content)

  do_GET = do_POST = answer

  def log_message(self, *_):
    pass


def shown(url: str) -> list[list[str]]:
  """The text of every answer, its name and probabilities, in the browser."""
  with browsing.browser() as browser:
    browser.open(url)
    browser.wait("document.querySelector('details').open")
    browser.run("document.getElementById('key').focus()")
    browser.press(*"KEY", browsing.TAB)
    browser.wait("document.querySelectorAll('#prompts input').length == 3")
    for number in (0, 1, 2):
      browser.run(
        f"const b = document.querySelectorAll('#prompts input')[{number}];"
        f"if (b.checked != {json.dumps(number > 0)}) b.click()"
      )
    browser.run("document.getElementById('text').focus()")
    browser.press(*"the cat sat")
    browser.run("document.getElementById('ask').requestSubmit()")
    browser.wait("document.getElementById('status').textContent[0] == '2'")
    return browser.run(
      "return [...document.querySelectorAll('.answer')].map(a => ["
      "a.querySelector('h2'), a.querySelector('.text'),"
      "...a.querySelectorAll('tr')].map(e => e.textContent))"
    )


def main() -> None:
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  cards = shown(f"http://127.0.0.1:{server.server_port}/")
  record = {
    "page": {
      path: hashlib.sha256(app.page_file(path)[0]).hexdigest()
      for path in app.PAGE
    },
    "answers": ANSWERS,
    "requests": sorted(seen, key=lambda sent: sent["path"]),
    "shown": cards,
  }
  FILE.write_text(json.dumps(record, indent=1) + "\n")
  print(f"{len(seen)} requests; shown: {cards}")


if __name__ == "__main__":
  main()
