"""Records what the `openai` client sends: tests/golden/openai.json.

    python tests/golden/make_openai.py

Needs openai (made with 3.57.0). A server of a few lines takes its requests down
and answers with what the client has to understand.
"""

import http.server
import json
import pathlib
import threading

import openai

FILE = pathlib.Path(__file__).parent / "openai.json"
KEPT = ("authorization", "content-type", "accept")
ANSWER = {
  "id": "cmpl-1",
  "object": "text_completion",
  "created": 1,
  "model": "p0",
  "choices": [
    {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
  ],
}
MODEL = {"id": "p0", "object": "model", "created": 1, "owned_by": "me"}
seen: list[dict] = []


class Recorder(http.server.BaseHTTPRequestHandler):
  def answer(self):
    length = int(self.headers.get("content-length", 0))
    body = json.loads(self.rfile.read(length)) if length else None
    headers = {k: self.headers[k] for k in KEPT if k in self.headers}
    request = {"method": self.command, "path": self.path}
    seen.append({**request, "headers": headers, "body": body})
    streams = bool(body and body.get("stream"))
    if self.path.endswith("/models"):
      said = json.dumps({"object": "list", "data": [MODEL]})
    elif "/models/" in self.path:
      said = json.dumps(MODEL)
    elif streams:
      said = f"data: {json.dumps(ANSWER)}\n\ndata: [DONE]\n\n"
    else:
      said = json.dumps(ANSWER)
    kind = "text/event-stream" if streams else "application/json"
    self.send_response(200)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(said.encode())))
    self.end_headers()
    self.wfile.write(said.encode())

  do_GET = do_POST = answer

  def log_message(self, *_):
    pass


def requests(client: openai.OpenAI) -> None:
  """One of everything that the server knows."""
  client.models.list()
  client.models.retrieve("p0")
  complete = client.completions.create
  complete(model="p0", prompt="the cat sat")
  complete(model="p0", prompt=["the cat sat", "mat"], max_tokens=4)
  complete(
    model="p0",
    prompt="mat",
    max_tokens=4,
    temperature=0.7,
    top_p=0.9,
    n=2,
    best_of=3,
    seed=5,
    stop=["\n", "x"],
    logprobs=2,
    user="me",
  )
  streamed = complete(
    model="p0",
    prompt="mat",
    max_tokens=4,
    stream=True,
    stream_options={"include_usage": True},
  )
  list(streamed)


def main() -> None:
  server = http.server.HTTPServer(("127.0.0.1", 0), Recorder)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  url = f"http://127.0.0.1:{server.server_port}/v1"
  requests(openai.OpenAI(base_url=url, api_key="KEY"))
  FILE.write_text(json.dumps(seen, indent=1) + "\n")
  print(f"{len(seen)} requests of openai {openai.__version__}")


if __name__ == "__main__":
  main()
