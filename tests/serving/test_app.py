import concurrent.futures
import json
import random
import re
import string
import time

import asking
import conftest
import pytest

PATHS = ("/v1/completions", "/v1/classify", "/v1/prompts")


def test_who_has_no_key_gets_nothing(server):
  for key in ("", "a-key-of-the-test", "a-key-of-the-tests2", "é"):
    client = asking.Client(server.url)
    client.headers = {"Authorization": f"Bearer {key}".encode("latin-1")}
    for path in ("/v1/models", "/v1/prompts", *PATHS):
      answer = client(path, {} if path in PATHS else None)
      assert answer.status == 401, path
      assert answer.json["error"]["code"] == "invalid_api_key"
  assert asking.Client(server.url)("/v2/health/ready").status == 200


def test_the_models_are_the_prompts_and_the_frozen_one(ask):
  answer = ask("/v1/models").json
  assert answer["object"] == "list"
  by_name = {one["id"]: one for one in answer["data"]}
  names = {f"p{n}" for n in range(conftest.COUNT)}
  assert names <= {*by_name} and by_name["toy"]["parent"] is None
  first = by_name["p0"]
  assert first["object"] == "model" and first["parent"] == "toy"
  assert first["labels"] == asking.LABELS and first["template"] == "cat: {cat}"
  assert ask("/v1/models/p0").json == first
  assert ask("/v1/models/nobody").json["error"]["code"] == "model_not_found"


def test_health_is_said_to_anybody(server):
  client = asking.Client(server.url)
  assert client("/v2/health/live").json == {"live": True}
  assert client("/v2/health/ready").json == {"ready": True}


def metrics(client) -> dict[str, float]:
  lines = client("/metrics").text.splitlines()
  pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
  return {name: float(value) for name, value in pairs}


def test_what_is_done_is_counted(ask):
  before = metrics(ask)
  ask.complete("p4", ["mat", "the cat sat"], max_tokens=4)
  ask.complete("nobody", "mat")
  after = metrics(ask)

  def more(name):
    return after.get(name, 0) - before.get(name, 0)

  requests = 'prompt_tuning_requests_total{model="%s",route="%s",status="%d"}'
  assert more(requests % ("p4", PATHS[0], 200)) == 1
  assert more(requests % ("", PATHS[0], 404)) == 1
  assert 2 <= more('prompt_tuning_generated_tokens_total{model="p4"}') <= 8
  assert more("prompt_tuning_request_seconds_count") == 2
  assert more("prompt_tuning_first_token_seconds_count") == 2
  assert (
    1
    <= more("prompt_tuning_steps_total")
    <= more("prompt_tuning_step_rows_total")
  )
  assert after["prompt_tuning_rows_running"] == 0
  assert after["prompt_tuning_prompts_loaded"] >= conftest.COUNT
  assert after["prompt_tuning_ready"] == 1


@pytest.mark.parametrize(
  "body, headers, status, message",
  [
    (b"{", {}, 400, "The body is no JSON"),
    (b"\xff\xfe", {}, 400, "The body is no JSON"),
    (b"[" * 9000, {}, 400, "nested too deeply"),
    (b"[1]", {}, 400, "a JSON object, got list"),
    (b'{"model": ' + b"9" * 5000 + b"}", {}, 400, "no JSON"),
    (b" " * 20_001, {}, 413, "larger than 20,000 bytes .MOST_BYTES."),
    (b"{}", {"Content-Type": "text/plain"}, 415, "got 'text/plain'"),
  ],
)
def test_a_body_that_is_none_is_refused(ask, body, headers, status, message):
  answer = ask(PATHS[0], body, **headers)
  assert answer.status == status
  assert re.search(message, answer.message)


def test_an_unknown_route_is_an_error_of_the_same_form(ask):
  answer = ask("/v1/chat/completions", {})
  assert answer.status == 404 and "no POST /v1/chat" in answer.message
  answer = ask(PATHS[0], method="PUT")
  assert answer.status == 405 and answer.headers["allow"] == "POST"


def test_the_page_comes_with_what_it_needs(server):
  client = asking.Client(server.url)
  page = client("/")
  assert page.headers["content-security-policy"].startswith(
    "default-src 'none'"
  )
  for name in ("page.css", "page.js"):
    assert name in page.text and client(f"/{name}").status == 200
  assert "http://" not in page.text and "https://" not in page.text


# Faults.


def fuzzed(rng: random.Random, path: str) -> bytes:
  """A body that is wrong somewhere, or not at all."""

  def value(depth=0):
    kinds = [
      lambda: rng.choice(["mat", "p1", "nobody", "", "\x00", "é\u2028"]),
      lambda: rng.choice([0, 1, -1, 3, 1 << 40, -(1 << 70), 10**400]),
      lambda: rng.choice([0.5, 1e308, float("inf"), float("nan"), -0.0]),
      lambda: rng.choice([True, False, None]),
      lambda: "".join(rng.choices(string.printable, k=rng.randrange(30))),
    ]
    if depth < 3:
      kinds += [
        lambda: [value(depth + 1) for _ in range(rng.randrange(5))],
        lambda: {
          rng.choice("abc"): value(depth + 1) for _ in range(rng.randrange(4))
        },
      ]
    return rng.choice(kinds)()

  completions = (
    *("model", "prompt", "max_tokens", "n", "best_of", "temperature", "top_p"),
    *("stop", "seed", "logprobs", "stream", "stream_options", "echo", "user"),
  )
  names, read = {
    PATHS[0]: (completions, {"prompt": "mat", "max_tokens": 2}),
    PATHS[1]: (("model", "labels"), {"input": "mat", "labels": ["a", "b"]}),
    PATHS[2]: (("name",), {"name": "nobody"}),
  }[path]
  if path != PATHS[2]:
    read["model"] = rng.choice(["p1", "p2", "nobody"])
  names = (*names, *read, "extra")
  for name in rng.sample(names, rng.randrange(min(5, len(names)))):
    read[name] = value()
  try:
    content = json.dumps(read).encode()
  except ValueError:  # a number of too many digits
    content = b'{"n": 1' + b"0" * 5000 + b"}"
  if rng.random() < 0.2:
    content = bytearray(content)
    for _ in range(rng.randrange(1, 6)):
      content[rng.randrange(len(content))] = rng.randrange(256)
  if rng.random() < 0.1:
    content = content[: rng.randrange(len(content))]
  return bytes(content)


@pytest.mark.parametrize(
  "count", [150, pytest.param(1000, marks=pytest.mark.slow)]
)
def test_malformed_requests_are_errors_of_the_user(ask, count):
  rng = random.Random(0)
  seen = set()
  for _ in range(count):
    path = rng.choice(PATHS)
    body = fuzzed(rng, path)
    answer = ask(path, body)
    assert answer.status < 500, (body, answer.text)
    if answer.status != 200:
      assert answer.message
    seen.add(answer.status)
  assert {200, 400, 404} <= seen
  idle(ask)
  assert ask.complete("p0", "mat").status == 200


def idle(client, seconds: float = 20) -> None:
  """Waits until nothing runs any more."""
  end = time.monotonic() + seconds
  names = [f"prompt_tuning_rows_{what}" for what in ("running", "waiting")]
  while any(metrics(client)[name] for name in names):
    assert time.monotonic() < end, "rows are left"
    time.sleep(0.02)


def request(body: bytes, *, length: int | None = None) -> bytes:
  length = len(body) if length is None else length
  return (
    "POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
    f"Authorization: Bearer {conftest.KEY}\r\n"
    f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
  ).encode() + body


def test_cut_connections_leave_nothing_behind(ask):
  many = {"model": "p0", "prompt": ["mat"] * 100, "max_tokens": 8}
  for stream in (False, True):
    whole = request(json.dumps({**many, "stream": stream}).encode())
    for cut in (10, 60, len(whole) - 20, len(whole)):
      with ask.raw() as connection:
        connection.sendall(whole[:cut])
        if stream and cut == len(whole):
          connection.recv(10)
  idle(ask)
  assert ask.complete("p0", "mat").status == 200


def test_a_client_that_goes_away_frees_its_rows(ask):
  text = "the cat sat on the mat"
  body = {"model": "p0", "prompt": [text] * 250, "max_tokens": 8}
  before = metrics(ask)["prompt_tuning_step_rows_total"]
  with ask.raw() as connection:
    connection.sendall(request(json.dumps(body).encode()))
    while not metrics(ask)["prompt_tuning_rows_waiting"]:
      time.sleep(0.001)
  idle(ask)
  done = metrics(ask)["prompt_tuning_step_rows_total"] - before
  one = len(
    ask.complete("p0", text, max_tokens=8, logprobs=0).json["choices"][0][
      "logprobs"
    ]["tokens"]
  )
  assert done < 250 * one


def test_half_a_body_holds_up_nobody(ask):
  with ask.raw() as slow:
    slow.sendall(request(b'{"model": ', length=5000))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      clients = [asking.Client(ask_url(ask), conftest.KEY) for _ in range(4)]
      answers = pool.map(lambda client: client.complete("p0", "mat"), clients)
      assert [answer.status for answer in answers] == [200] * 4


def ask_url(client) -> str:
  return client.address.geturl()


def test_a_body_that_does_not_come_is_given_up(ask, monkeypatch):
  from prompt_tuning.serving.web import asked

  monkeypatch.setattr(asked, "_BODY_SECONDS", 0.2)
  with ask.raw() as slow:
    slow.sendall(request(b'{"model": ', length=5000))
    assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_half_a_letter_in_the_name_of_a_field_is_said_and_not_a_failure(ask):
  body = b'{"model": "p0", "prompt": "mat", "\\ud800": 1}'
  answer = ask(PATHS[0], body)
  assert answer.status == 400 and answer.json["error"]["param"] == r"\ud800"


def test_a_request_that_can_never_be_taken_is_not_told_to_try_again(ask):
  answers = (
    ask.complete("p0", ["mat"] * 151, n=2),
    ask.classify("p0", ["mat"] * 151, labels=["yes", "no"]),
  )
  for answer in answers:
    assert answer.status == 400 and "302 answers" in answer.message
    assert "retry-after" not in answer.headers


def test_a_stream_that_nobody_reads_ends_without_an_error(ask, caplog):
  body = {"model": "p0", "prompt": ["mat"] * 100, "stream": True}
  for _ in range(3):
    with ask.raw() as connection:
      connection.sendall(request(json.dumps(body).encode()))
      connection.recv(10)
  idle(ask)
  assert not [r for r in caplog.records if r.levelname == "ERROR"]
