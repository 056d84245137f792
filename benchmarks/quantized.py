"""What quantised frozen weights cost in score, on the microworld.

    python benchmarks/quantized.py [--steps 300] [--seeds 5] [--tasks mrpc …]
    python benchmarks/quantized.py --sizes small base large

For float32, int8 and int4: trains a prompt for every task and seed, all as one
bank, and scores it on the test split with the weights that it was trained
beside; the prompts of float32 are scored beside the others too, as of somebody
who serves from a smaller card than he trains on. Beside it stands how far the
logits of those prompts' targets are off, as a part of their own deviation. Run
again, it goes on where it stopped. With --sizes it prints how far the logits of
T5 1.1s of random weights are off, for random tokens.
"""

import argparse
import json
import pathlib
from statistics import fmean, stdev
import time

import jax
import numpy as np

from prompt_tuning import storage
from prompt_tuning.cli import demo
from prompt_tuning.data import splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.model import t5
from prompt_tuning.prompts import checkpoints, prompted
from prompt_tuning.tasks.microworld.examples import LENGTHS
from prompt_tuning.training import loop, train

TASKS = ("mrpc", "qqp", "twofact", "rte", "sst2")
DTYPES = ("float32", "int8", "int4")
DECODING = infer.Decoding(max_length=LENGTHS["targets"])
EXAMPLES = 64  # of each task, for the logits
SIZES = {
  "small": (512, 6, 1024, 8),
  "base": (768, 12, 2048, 12),
  "large": (1024, 16, 2816, 24),
}
"""Width, heads, width of the feed-forward part, layers of a stack."""


def trained(model, runs: pathlib.Path, tasks, flags) -> list[float]:
  """Test accuracies of a bank that was trained beside a model."""
  outcome = train.train(
    model_dir=runs / model.weights_dtype,
    model=model,
    tasks=demo.tasks(tasks, tuple(range(flags.seeds))),
    tuning=demo.prompt_tuning(flags.steps),
    plan=loop.Plan(
      flags.steps, eval_every=flags.steps // 2, checkpoint_every=20
    ),
    decoding=DECODING,
  )
  return [demo.accuracy(results) for results in outcome.results]


def saved(runs: pathlib.Path) -> list[checkpoints.SavedPrompt]:
  """The prompts that were trained beside float32, in the order of names."""
  folders = sorted((runs / "float32" / "prompts").iterdir())
  return [checkpoints.load_prompt(folder) for folder in folders]


def served(model, prompts) -> list[float]:
  """Test accuracies of those prompts beside another model."""
  tests = {}
  for one in prompts:
    task = one.record["task"]
    tests[task] = tests.get(task) or splits.load(task, "test", LENGTHS)
  sets = [tests[one.record["task"]] for one in prompts]
  bank = prompted.with_saved(model, prompts)
  evaluator = evaluate.Evaluator(bank, sets, decoding=DECODING)
  return [result.metrics["accuracy"] for result in evaluator()]


def logits(model, prompts) -> np.ndarray:
  """Those of the targets of some examples of each prompt."""
  bank = prompted.with_saved(model, prompts)
  apply = jax.jit(bank.network.apply)
  found = []
  for n, one in enumerate(prompts):
    examples = splits.load(one.record["task"], "test", LENGTHS)
    texts = examples.input_texts()[:EXAMPLES]
    vocabulary = model.require_vocabulary()
    rows, targets = (
      infer.padded([[*vocabulary.encode(t), 1][:length] for t in some], length)
      for some, length in (
        (texts, LENGTHS["inputs"]),
        (examples.target_texts()[:EXAMPLES], LENGTHS["targets"]),
      )
    )
    tokens = bank.reserve(rows, np.full(len(rows), n, np.int32))
    made = apply({"params": bank.params}, tokens, t5.shift_right(targets))
    found.append(np.asarray(made)[targets > 0])
  return np.concatenate(found)


def off_at(size: str) -> dict[str, float]:
  """How far the logits of a T5 1.1 of random weights are off, by type."""
  width, heads, hidden, layers = SIZES[size]
  config = t5.T5Config(32128, width, heads, 64, hidden, layers, layers)
  rng = np.random.default_rng(0)
  tokens = rng.integers(3, 32000, (4, 64)).astype(np.int32)
  targets = t5.shift_right(rng.integers(3, 32000, (4, 8)).astype(np.int32))
  network, found = jax.jit(t5.T5(config).apply), {}
  for dtype in DTYPES:
    model = pretrained.random(config, dtype=dtype)
    found[dtype] = np.asarray(
      network({"params": model.params}, tokens, targets)
    )
  wanted = found.pop("float32")
  return {
    dtype: float(np.sqrt(np.mean((made - wanted) ** 2)) / wanted.std())
    for dtype, made in found.items()
  }


def table(results: dict, tasks) -> str:
  """The results as Markdown."""
  lines = [
    "| weights | " + " | ".join(tasks) + " | mean | off the float logits |",
    "|---" * (len(tasks) + 3) + "|",
  ]
  for name, row in results.items():
    scores = np.reshape(row["accuracy"], (len(tasks), -1))
    cells = [f"{fmean(own):.1f} ± {stdev(own):.1f}" for own in scores]
    off = f"{100 * row['off']:.1f} %" if "off" in row else ""
    cells += [f"{scores.mean():.1f}", off]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def main() -> None:
  """Runs what the command line asks for."""
  parser = argparse.ArgumentParser(description="Quantised weights: scores.")
  parser.add_argument("--tasks", nargs="*", default=list(TASKS))
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--steps", type=int, default=300)
  parser.add_argument("--runs", type=pathlib.Path, default="runs/quantized")
  parser.add_argument(
    "--sizes", nargs="*", choices=SIZES, help="of T5 1.1, for logits alone"
  )
  flags = parser.parse_args()
  if flags.sizes is not None:
    for size in flags.sizes or SIZES:
      made = {k: f"{100 * v:.1f} %" for k, v in off_at(size).items()}
      print(size, made, flush=True)
    return
  tasks = [f"microworld_{name}" for name in flags.tasks]
  file = flags.runs / "results.json"
  results = json.loads(file.read_text()) if file.is_file() else {}

  def keep(name: str, **row) -> None:
    results[name] = row
    storage.write_json(file, results)
    print(table({name: row}, flags.tasks).splitlines()[-1], flush=True)

  base = pretrained.load(pretrained.SHIPPED, dtype="float32")
  if "float32" not in results:
    begin = time.monotonic()
    scores = trained(base, flags.runs, tasks, flags)
    keep("float32", accuracy=scores, seconds=time.monotonic() - begin)
  prompts, wanted = saved(flags.runs), None
  names = [one.record["task"] for one in prompts]
  order = [n for task in tasks for n, own in enumerate(names) if own == task]
  prompts = [prompts[n] for n in order]
  for dtype in DTYPES[1:]:
    name = f"{dtype}, prompts of float32"
    if name in results:
      continue
    model = pretrained.load(pretrained.SHIPPED, dtype=dtype)
    wanted = logits(base, prompts) if wanted is None else wanted
    off = np.sqrt(np.mean((logits(model, prompts) - wanted) ** 2))
    keep(name, accuracy=served(model, prompts), off=float(off / wanted.std()))
  for dtype in DTYPES[1:]:
    if dtype not in results:
      model = pretrained.load(pretrained.SHIPPED, dtype=dtype)
      begin = time.monotonic()
      scores = trained(model, flags.runs, tasks, flags)
      keep(dtype, accuracy=scores, seconds=time.monotonic() - begin)
  print(table(results, flags.tasks))


if __name__ == "__main__":
  main()
