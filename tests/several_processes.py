"""One of several processes that train and predict; prints what came out.

python several_processes.py '{"folder": …, "count": 2, "number": 0, …}'
"""

import json
import os
import pathlib
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import tiny_t5

from prompt_tuning import processes
from prompt_tuning.data import layout
from prompt_tuning.frozen import placement
from prompt_tuning.inference import infer
from prompt_tuning.model import forms, freeze, t5
from prompt_tuning.processes import joining
from prompt_tuning.prompts.prompted import Prompted
from prompt_tuning.run_folder import RunFolder
from prompt_tuning.training import interruption, loop, optimizers, step

CONFIG = tiny_t5.config(num_heads=4)
P = 3
NETWORK = tiny_t5.prompted(CONFIG, P, 2)
ROWS = [tiny_t5.tokens(1, 3 + i % 5, seed=i)[0] for i in range(11)]
PLAN = loop.Plan(
  20, eval_every=10, checkpoint_every=5, log_every=5, steps_per_dispatch=1
)


def batch(at: int) -> dict[str, np.ndarray]:
  return tiny_t5.batch_of_two(at, P)


def tuned(folder, *, mesh: dict[str, int] | None = None) -> dict:
  """Model tuning, which trains the whole network.

  Returns:
    Losses; of the leaves that were trained last and that were kept, sums of
    their absolute numbers; how many numbers of them this process holds itself.
  """
  devices = placement.devices_of(mesh, CONFIG)
  put = devices.put if devices else forms.on_device
  leaves = tiny_t5.storage.flatten(tiny_t5.weights(CONFIG))
  params = {path: put(path, leaf) for path, leaf in leaves.items()}
  params = tiny_t5.storage.unflatten(params)
  arranged = layout.Layout("padded").arrange(
    lambda at: {**batch(at), "inputs": batch(at)["inputs"][:, P:]},
    num_prompts=1,
    emb_dim=CONFIG.emb_dim,
    devices=devices.data if devices else 1,
  )

  def evaluate(params):
    mean = processes.on_host(params["token_embedder"]["embedding"]).mean()
    score = float(np.sin(1e4 * mean))
    return [score], [{"score": score}]

  def batches(at: int) -> dict[str, np.ndarray]:
    return {**arranged(at), "prompt_id": np.zeros(6, np.int32)}

  with RunFolder(folder, {"TASK": "a"}).alone() as run:
    fitted = loop.fit(
      step.Problem(
        t5.T5(CONFIG), optimizers.adafactor(0.01), 1, devices=devices
      ),
      freeze.split(params, jax.tree.map(lambda _: True, params)),
      batches,
      plan=PLAN,
      folder=run,
      names=("",),
      evaluate=evaluate,
    )
    lines = run.metrics() if run.writes else []

  def sums(tree) -> list[float]:
    leaves = jax.tree.leaves(processes.on_host(tree))
    return [float(np.abs(leaf).sum(dtype=np.float64)) for leaf in leaves]

  own = jax.tree.leaves(processes.own_parts(fitted.last))
  return {
    "last": sums(fitted.last),
    "kept": sums(fitted.trained),
    "best": fitted.best.steps if fitted.best else None,
    "losses": [line["loss"] for line in lines if "loss" in line],
    "holds": sum(np.size(leaf) for leaf in own),
  }


def outcome(
  folder,
  *,
  chosen: str = "groups",
  mesh: dict[str, int] | None = None,
  go: str = "",
  waits_at: int = -1,
  fails_at: int = -1,
) -> dict:
  """Prompts and losses of 20 steps, and predictions.

  Args:
    folder: of the run.
    chosen: the layout.
    mesh: MESH.
    go: a file, see `waits_at`.
    waits_at: the step whose batch is made when there is a file `go`.
    fails_at: the step whose batch cannot be made.
  """
  devices = placement.devices_of(mesh, CONFIG)
  put = devices.put if devices else forms.on_device
  leaves = tiny_t5.storage.flatten(tiny_t5.weights(CONFIG))
  model = {path: put(path, leaf) for path, leaf in leaves.items()}
  model = tiny_t5.storage.unflatten(model)
  params = {**model, "prompt": {"embedding": tiny_t5.rows(2, P, 16)}}

  arranged = layout.Layout(chosen).arrange(
    batch,
    num_prompts=2,
    emb_dim=CONFIG.emb_dim,
    devices=devices.data if devices else 1,
  )

  def batches(at: int) -> layout.Batch | layout.Parts:
    if at == fails_at:
      raise ValueError("the batch fell off the table")
    while at == waits_at and not pathlib.Path(go).exists():
      time.sleep(0.02)
    return arranged(at)

  def predictions(trained) -> list[str]:
    made = {**model, "prompt": trained["prompt"]}
    together = Prompted(
      *(NETWORK, made, tiny_t5.vocabulary(), (P, P)), devices=devices
    )
    predictor = infer.Predictor(together, infer.Decoding(max_length=6))
    return predictor(ROWS, [i % 2 for i in range(11)])

  def evaluate(params):
    lengths = [len(text) for text in predictions(params)]
    rows = processes.on_host(params["prompt"]["embedding"])
    scores = [float(np.sin(40 * rows[n].mean())) for n in range(2)]
    return scores, [{"length": float(sum(lengths[n::2]))} for n in range(2)]

  with RunFolder(folder).alone() as run:
    fitted = loop.fit(
      step.Problem(
        NETWORK,
        optimizers.per_prompt(optimizers.adafactor(0.01)),
        2,
        devices=devices,
      ),
      freeze.split(params, freeze.mask(params, freeze.PROMPT)),
      batches,
      plan=PLAN,
      folder=run,
      names=("a", "b"),
      evaluate=evaluate,
    )
    lines = run.metrics() if run.writes else []
  return {
    "rows": processes.on_host(fitted.last["prompt"]["embedding"]).tolist(),
    "best": fitted.best.steps if fitted.best else None,
    "losses": [line["loss"] for line in lines if "loss" in line],
    "predictions": predictions(fitted.last),
  }


def writes() -> list[str]:
  """What is written from now on, as Python knows it."""
  found: list[str] = []

  def note(event: str, arguments) -> None:
    if event == "open":
      path, mode, flags = arguments
      if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or "w" in (mode or ""):
        found.append(str(path))
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.truncate"):
      found.append(str(arguments[0]))

  sys.addaudithook(note)
  return found


def main(asked: dict) -> int:
  """Joins the others, and prints the outcome."""
  number, count = asked.pop("number"), asked.pop("count")
  joining._WAIT = 60  # seconds for one of them to come
  processes.join(asked.pop("coordinator"), number, count)
  tiny_t5.vocabulary()  # which it makes, in a folder of its own
  written, folder = writes(), asked.pop("folder")
  try:
    with processes.together():
      tunes = asked.pop("tunes", False)
      if tunes:
        found = tuned(folder, mesh=asked["mesh"])
      else:
        found = outcome(folder, **asked)
  except interruption.Stopped as stopped:
    print(stopped, file=sys.stderr)
    return 128 + stopped.number
  except (ValueError, OSError) as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return processes.leave(2)
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    written = [path for path in written if not path.startswith(cache)]
  print(json.dumps({**found, "written": written}), flush=True)
  return 0


if __name__ == "__main__":
  jax.config.update("jax_platforms", "cpu")
  sys.exit(main(json.loads(sys.argv[1])))
