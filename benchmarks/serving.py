"""Measures the server on the loopback: throughput, fairness, memory, peers.

    python benchmarks/serving.py
    python benchmarks/serving.py --requests 100000 --only memory
    python benchmarks/serving.py --size small --count 64 --only throughput
    python benchmarks/serving.py --peft /tmp/peft/bin/python

A server of the model that ships, with 50 prompts of words' rows, runs in a
process of its own; the clients are threads of this one. With --size it is a T5
1.1 of that size and of random weights, whose answers have no end but their
limit. Cases:

    throughput  the same requests one after another and by 64 clients
    fairness    how long a short request takes alone, and while long ones run
    memory      of the server's process after 1,000, 10,000 … requests
    peft        the same prompts by transformers with PEFT (`serving_peft`),
                beside the 64 clients, in turns

Whatever else the machine does meets the clients as well: nothing should run
meanwhile. The time of the processor that the server has used is beside each
rate, and depends less on that.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from peers import SIZES, VOCABULARY
from serving_peft import LONGEST, TURNS, beside, spread
from serving_peft import TOGETHER as CLIENTS

PROMPTS, POSITIONS, ROWS, MOST = 50, 20, 64, 64
CASES = ("throughput", "fairness", "memory")


def texts(count: int) -> list[str]:
  """Inputs of microworld_boolq."""
  from prompt_tuning.tasks.microworld import examples

  rows = examples.examples("microworld_boolq", "validation")
  return [rows[n % len(rows)]["inputs"] for n in range(count)]


def write_model(folder: pathlib.Path, size: str) -> str:
  """A T5 1.1 of random weights, which reads the microworld's words."""
  from prompt_tuning.frozen import pretrained
  from prompt_tuning.model import t5

  width, heads, hidden, layers = SIZES[size]
  shape = (VOCABULARY, width, heads, 64, hidden, layers, layers)
  words = pretrained.shipped_vocabulary()
  model = pretrained.random(t5.T5Config(*shape), vocabulary=words)
  pretrained.save(folder, model)
  return str(folder)


def write_prompts(folder: pathlib.Path, place: str) -> None:
  """Rows drawn among the words' spread, for the model at a place."""
  from prompt_tuning.frozen import pretrained
  from prompt_tuning.prompts import checkpoints

  model = pretrained.load(place)
  words = model.embedding
  about = {"source": model.source, "hash": model.stored_hash}
  for n in range(PROMPTS):
    rng = np.random.default_rng(n)
    rows = words[rng.integers(3, len(words), POSITIONS)]
    record = {"task": f"random{n}", "model": about}
    checkpoints.save_prompt(folder / f"p{n}", rows, record)


class Server:
  """The command, in a process of its own."""

  def __init__(self, folder: pathlib.Path, place: str, longest: int):
    self._process = subprocess.Popen(
      [
        *(sys.executable, "-m", "prompt_tuning.cli", "serve"),
        *("--gin_file=models/pretrained.gin", "--gin_file=runs/serve.gin"),
        f"--gin.INITIAL_CHECKPOINT_PATH={place}",
        '--gin.TASK_FEATURE_LENGTHS={"inputs": 64, "targets": 8}',
        *(f"--gin.EVAL_BATCH_SIZE={ROWS}", f"--gin.TARGET_LENGTH={longest}"),
        *("--prompts", str(folder), "--port=0"),
      ],
      stdout=subprocess.PIPE,
      text=True,
    )
    out = self._process.stdout
    assert out is not None
    found = re.search(r"http://([\d.]+):(\d+)", out.readline())
    assert found, "the server did not start"
    self.address = (found[1], int(found[2]))
    print(out.readline()[:60].strip(), "…")

  @property
  def processor(self) -> float:
    """Milliseconds of the processor that its process has used."""
    about = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text()
    user, system = about.rpartition(")")[2].split()[11:13]
    return 1e3 * (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

  @property
  def memory(self) -> float:
    """MiB that its process holds."""
    status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

  def metric(self, name: str) -> float:
    connection = http.client.HTTPConnection(*self.address)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return float(re.search(rf"^prompt_tuning_{name} (\S+)", text, re.M)[1])

  def stop(self) -> int:
    self._process.send_signal(signal.SIGTERM)
    return self._process.wait(60)


class Clients:
  """Threads that keep their connections."""

  def __init__(self, server: Server):
    self._server, self._own = server, threading.local()

  def ask(self, body: dict) -> tuple[float, dict]:
    """Seconds, and the answer."""
    if not hasattr(self._own, "connection"):
      self._own.connection = http.client.HTTPConnection(*self._server.address)
    connection = self._own.connection
    begin = time.perf_counter()
    connection.request(
      *("POST", "/v1/completions", json.dumps(body)),
      {"Content-Type": "application/json"},
    )
    response = connection.getresponse()
    read = json.loads(response.read())
    assert response.status == 200, read
    return time.perf_counter() - begin, read

  def all(self, bodies: list[dict], clients: int) -> tuple[float, list]:
    """Seconds for all, and what each took and said."""
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
      said = list(pool.map(self.ask, bodies))
    return time.perf_counter() - begin, said


def requests(count: int, tokens: int = LONGEST) -> list[dict]:
  """Requests of all prompts, mixed."""
  rng = np.random.default_rng(0)
  names = rng.integers(0, PROMPTS, count)
  return [
    {"model": f"p{n}", "prompt": text, "max_tokens": tokens}
    for n, text in zip(names, texts(count), strict=True)
  ]


def answers(said: list) -> list[str]:
  return [read["choices"][0]["text"] for _, read in said]


def long_requests(clients: Clients, count: int) -> list[dict]:
  """Requests whose answers are long: samples, which their seed repeats."""
  bodies = [
    {**body, "temperature": 2, "seed": n}
    for n, body in enumerate(requests(400))
  ]
  _, said = clients.all(bodies, CLIENTS)
  long = [
    body
    for body, (_, read) in zip(bodies, said, strict=True)
    if read["usage"]["completion_tokens"] > LONGEST // 2
  ]
  return [long[n % len(long)] for n in range(count)]


def throughput(
  server: Server, clients: Clients, count: int, is_random: bool
) -> None:
  """One after another, and by 64 clients; the answers have to be the same."""
  if is_random:
    cases = (requests(count, tokens) for tokens in (1, 8, MOST))
  else:
    limits = (requests(count, 1), requests(count))
    cases = (*limits, long_requests(clients, count))
  for bodies in cases:
    rates, ratios, used, different = [], [], [], 0
    for _ in range(TURNS):
      begin = server.processor
      alone, first = clients.all(bodies, 1)
      middle = server.processor
      together, second = clients.all(bodies, CLIENTS)
      end = server.processor
      used.append(((middle - begin) / count, (end - middle) / count))
      pairs = zip(answers(first), answers(second), strict=True)
      different += sum(a != b for a, b in pairs)
      ratios.append(alone / together)
      rates.append((count / alone, count / together))
    written = [r["usage"]["completion_tokens"] for _, r in first]
    one, many = map(statistics.median, zip(*rates, strict=True))
    own, shared = map(statistics.median, zip(*used, strict=True))
    print(
      f"answers of {statistics.mean(written):.1f} tokens: {one:.0f} requests/s "
      f"one after another, {many:.0f} by {CLIENTS} clients: {spread(ratios)}; "
      f"{own:.2f} and {shared:.2f} ms of the server's processor a request; "
      f"{different} answers differ",
      flush=True,
    )


def fairness(clients: Clients, count: int) -> None:
  """Short requests alone, and while eight clients want long answers."""
  short = requests(count, 2)
  long = long_requests(clients, 64)
  done = threading.Event()

  def keep_asking(n: int) -> int:
    at = n
    while not done.is_set():
      clients.ask(long[at % len(long)])
      at += 8
    return at // 8

  _, alone = clients.all(short, 1)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    running = [pool.submit(keep_asking, n) for n in range(8)]
    time.sleep(0.5)
    _, beside = clients.all(short, 1)
    done.set()
    asked = sum(one.result() for one in running)
  for name, said in (("alone", alone), (f"beside {asked} long ones", beside)):
    seconds = np.array([taken for taken, _ in said]) * 1e3
    median, worst = np.percentile(seconds, [50, 99])
    print(
      f"a short request {name}: p50 {median:.1f} ms, p99 {worst:.1f} ms "
      f"({worst / median:.1f} x)",
      flush=True,
    )


def memory(server: Server, clients: Clients, count: int) -> None:
  """The process after 1,000 requests, after 10,000 and so on, and after all."""
  bodies = requests(1000, 1)
  first, begin = 0.0, time.perf_counter()
  for done in range(1000, count + 1, 1000):
    clients.all(bodies, CLIENTS)
    first = first or server.memory
    if done in (1000, 10_000, 50_000) or done + 1000 > count:
      now, taken = server.memory, time.perf_counter() - begin
      print(
        f"memory after {done:,} requests ({taken:.0f} s): {now:.0f} MiB "
        f"({100 * (now / first - 1):+.1f} %)",
        flush=True,
      )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--requests", type=int, default=20_000, help="for memory")
  parser.add_argument("--count", type=int, default=512, help="for throughput")
  parser.add_argument("--peft", help="a python with torch and peft")
  parser.add_argument("--only", choices=CASES)
  parser.add_argument("--size", choices=SIZES, help="of a T5 1.1 instead")
  flags = parser.parse_args()
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name) / "prompts"
    place, longest = "microworld", LONGEST
    if flags.size:
      longest = MOST
      place = write_model(pathlib.Path(name) / "model", flags.size)
    write_prompts(folder, place)
    server = Server(folder, place, longest)
    try:
      clients = Clients(server)
      clients.all(requests(256), CLIENTS)  # connections, caches
      if flags.only in (None, "throughput"):
        throughput(server, clients, flags.count, bool(flags.size))
      if flags.only in (None, "fairness"):
        fairness(clients, flags.count)
      if flags.peft:
        bodies = requests(512)
        beside(lambda: clients.all(bodies, CLIENTS), bodies, flags.peft, folder)
      if flags.only in (None, "memory"):
        memory(server, clients, flags.requests)
      compiled = server.metric("compilations_after_ready_total")
      size = server.metric("step_rows_total") / server.metric("steps_total")
      print(f"{compiled:.0f} compilations after ready; {size:.1f} rows a step")
    finally:
      code = server.stop()
    print(f"SIGTERM: exit code {code}")


if __name__ == "__main__":
  main()
