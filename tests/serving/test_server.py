import concurrent.futures
import contextlib
import dataclasses
import gc
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import weakref

import asking
import conftest
import places
import pytest
from starlette.requests import Request
import toy_tasks

from prompt_tuning.cli import command_line
from prompt_tuning.frozen import pretrained
from prompt_tuning.serving import server as servers
from prompt_tuning.serving import settings, sizes
from prompt_tuning.serving.service import Service
from prompt_tuning.serving.web.errors import ApiError

# The command, in a process that says whether it has loaded TensorFlow.
COMMAND = """
import sys
from prompt_tuning import cli
code = cli.main(sys.argv[1:])
heavy = {"tensorflow", "seqio"} & {*sys.modules}
print("loaded:", *sorted(heavy))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
  """The toy model and two prompts in folders."""
  place = tmp_path_factory.mktemp("toy")
  pretrained.save(place / "toy", toy_tasks.model())
  for number in (0, 1):
    asking.save(place / "runs" / f"p{number}", number)
  (place / "keys.txt").write_text(f"# of the tests\n{conftest.KEY}\n")
  return place


def test_a_service_that_is_closed_takes_its_model_along():
  lengths = {"inputs": 8, "targets": 2}
  small = settings.Settings(
    toy_tasks.model(), lengths, target_length=2, rows=1, longest_prompt=1
  )
  service = Service(small, {})
  service.prepare()
  service.close()
  known = weakref.ref(service)
  del service
  gc.collect()
  assert known() is None


def test_keys_are_the_bytes_that_a_client_sends(server, tmp_path):
  file = tmp_path / "keys.txt"
  file.write_text("\ufeffsésame-öffne\n", encoding="utf-8")
  sent = "Bearer sésame-öffne".encode()
  running = server._uvicorn.config.app.state.serving
  serving = dataclasses.replace(running, keys=servers.keys_in(file))
  serving.check_key(
    Request({"type": "http", "headers": [(b"authorization", sent)]})
  )
  with pytest.raises(ApiError):
    serving.check_key(
      Request({"type": "http", "headers": [(b"authorization", sent[:-1])]})
    )


def arguments(place, *more):
  return [
    *("serve", "--gin_file=models/pretrained.gin", "--gin_file=runs/serve.gin"),
    f"--gin.INITIAL_CHECKPOINT_PATH={place / 'toy'}",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 25, 'targets': 8}",
    *("--gin.EVAL_BATCH_SIZE=4", "--gin.TARGET_LENGTH=8", "--port=0"),
    *more,
  ]


@contextlib.contextmanager
def serving(toy, *more):
  """The command in a process that lives and is not ready yet, and its URL."""
  process = subprocess.Popen(
    [
      *(sys.executable, "-c", COMMAND),
      *arguments(toy, "--prompts", str(toy / "runs"), *more),
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, "PYTHONPATH": str(places.ROOT)},
  )
  try:
    line = process.stdout.readline()
    found = re.match(r"Listening at (http://\S+:\d+), compiling\.", line)
    assert found, line + process.stdout.read()
    assert asking.Client(found[1])("/v2/health/live").status == 200
    yield process, found[1]
  finally:
    process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_stopped_while_it_compiles_ends_in_order(toy, number):
  with serving(toy) as (process, _):
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
  assert said.startswith("Stopped; what was accepted is answered.\n")
  assert "terminate" not in said and process.returncode == 0


def test_sigterm_under_load_answers_what_was_accepted(toy):
  other = ("--prompt", f"other={toy / 'runs' / 'p1'}")
  with serving(toy, *other) as (process, url):
    line = process.stdout.readline()
    assert re.match(
      r"Ready after .* \(\d+ programs\): other, p0, p1, toy", line
    )
    assert asking.Client(url)("/v2/health/ready").status == 200

    def load(_):
      """Asks until the server closes its door: answers, and refusals."""
      client, good = asking.Client(url), 0
      while True:
        try:
          answer = client.complete("other", ["mat"] * 8, max_tokens=8)
        except (OSError, http.client.HTTPException) as error:
          return good, error
        if answer.status == 503:
          return good, None
        assert answer.status == 200 and len(answer.json["choices"]) == 8
        good += 1

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
      running = pool.map(load, range(6))
      time.sleep(0.5)
      process.send_signal(signal.SIGTERM)
      ended = list(running)
    rest = process.communicate(timeout=60)[0]
  assert process.returncode == 0, rest
  assert "Stopped; what was accepted is answered." in rest
  assert rest.splitlines()[-1] == "loaded:"
  assert sum(good for good, _ in ended) > 6
  # A connection is closed between two requests, never within an answer.
  for _, error in ended:
    assert not isinstance(error, http.client.IncompleteRead), error


@pytest.mark.parametrize(
  "more, message",
  [
    ([], "--prompts FOLDER, or --prompt NAME=PATH"),
    (["--prompt", "boolq"], "must be NAME=PATH"),
    (["--prompt", "a=x", "--prompt", "a=y"], "names 'a' twice"),
    (["--prompts", "{}/nowhere"], "There is no folder .*nowhere"),
    (["--prompt", "a={}/nowhere"], "There is no prompt at .*nowhere"),
    (["--prompt", "toy={}/runs/p1"], "cannot be called 'toy'"),
    (["--prompts", "{}/runs", "--api_key_file", "{}/none"], "no file .*none"),
    (["--prompts", "{}/runs", "--host", "256.0.0.1"], "Nothing can listen"),
    (["--prompts", "{}/runs", "--gin.EVAL_BATCH_SIZE=3"], "the next is 4"),
    (["--prompts", "{}/runs", "--gin.MOST_WAITING=0"], "MOST_WAITING=0"),
    (["--prompts", "{}/runs", "--gin.TEMPERATURE=-1"], "TEMPERATURE=-1"),
  ],
)
@pytest.mark.usefixtures("clean_gin")
def test_what_cannot_be_served_is_said_before_it_is(toy, more, message, capsys):
  more = [one.format(toy) for one in more]
  assert command_line.main(arguments(toy, *more)) == 2
  printed = capsys.readouterr().err
  assert re.search(message, printed), printed


def test_a_port_that_is_taken_is_an_error():
  with socket.create_server(("127.0.0.1", 0)) as taken:
    with pytest.raises(OSError, match="Choose others with --host and --port"):
      servers._listening("127.0.0.1", taken.getsockname()[1])


def test_prompts_of_other_models_are_left_out_of_a_folder(toy, caplog):
  place = toy / "mixed"
  asking.save(place / "mine", 1)
  asking.save(place / "theirs", 2, model={"source": "x", "hash": "2" * 64})
  chosen = settings.Settings(toy_tasks.model(), conftest.LENGTHS, rows=1)
  made = servers.Server(chosen, folder=place)
  assert made.service.bank.names == ["mine", "toy"]
  assert "theirs is not served" in caplog.text
  made.close()


def test_before_it_is_ready_it_says_so(server, ask, monkeypatch):
  monkeypatch.setattr(server.service, "_engine", None)
  assert ask("/v2/health/live").status == 200
  assert ask("/v2/health/ready").status == 503
  answer = ask.complete("p0", "mat")
  assert answer.status == 503 and answer.headers["retry-after"] == "5"
  assert answer.json["error"]["code"] == "not_ready"


@pytest.mark.parametrize(
  "wrong, message",
  [
    ({"rows": 6}, "EVAL_BATCH_SIZE. are a power of two, got 6; the next is 8"),
    ({"longest_prompt": True}, "LONGEST_PROMPT=True must be a whole number"),
    ({"longest_prompt": 0}, "LONGEST_PROMPT=0 must be a whole number"),
    ({"temperature": float("nan")}, "TEMPERATURE=nan must be a number from"),
  ],
)
def test_a_setting_that_is_no_such_number_is_refused(wrong, message):
  with pytest.raises(ValueError, match=message):
    chosen = settings.Settings(toy_tasks.model(), conftest.LENGTHS, **wrong)
    chosen.sizes(sizes.Room(4))
