"""Measures every microworld task four ways.

    python benchmarks/microworld.py            (about 45 minutes on 2 cores)
    python benchmarks/microworld.py --tasks microworld_boolq --seeds 1

For each task: chance, no prompt, the best of five hand-written prompts, the
best hand-written prompt in the corpus' own words (all by rank), prompt tuning
and model tuning (greedy; mean and spread over seeds). A finished task is kept
in RUNS/results.json and skipped when the command is run again. With --ship the
results become those that the package carries and the demo quotes.
"""

import argparse
import json
import pathlib
import platform
import shutil
import time

import numpy as np

from prompt_tuning import storage
from prompt_tuning.cli import demo
from prompt_tuning.data import splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import prompt_design
from prompt_tuning.tasks.microworld import LABELS
from prompt_tuning.tasks.microworld import prompts as microworld_prompts
from prompt_tuning.training import loop, train


def measure(model, task, runs, *, seeds, model_seeds, steps) -> dict:
  """All figures of one task."""
  test = splits.load(task, "test", demo.LENGTHS)
  no_prompt, by_hand = demo.designed(model, test)
  corpus = microworld_prompts.CORPUS_PROMPTS[task]
  classes = [LABELS[task].index(text) for text in test.target_texts()]
  (in_corpus_words,) = prompt_design.accuracies(
    model,
    [[corpus(text) for text in test.input_texts()]],
    classes,
    corpus.answers,
  )
  begin = time.monotonic()
  tuned = train.train(
    model_dir=runs / task / "prompt_tuning",
    model=model,
    tasks=demo.tasks(task, seeds=tuple(range(seeds))),
    tuning=demo.prompt_tuning(steps),
    plan=loop.Plan(steps, eval_every=100),
  )
  prompts = [demo.accuracy(results) for results in tuned.results]
  seconds = (time.monotonic() - begin) / seeds
  models = [
    demo.model_tuning(
      model,
      task,
      runs / task / f"model_tuning_{seed}",
      steps=steps,
      seed=seed,
    )
    for seed in range(model_seeds)
  ]
  return {
    "chance": 50.0,
    "no_prompt": no_prompt,
    "by_hand": by_hand,
    "in_corpus_words": in_corpus_words,
    "prompt_tuning": float(np.mean(prompts)),
    "prompt_tuning_seeds": prompts,
    "model_tuning": float(np.mean(models)),
    "model_tuning_seeds": models,
    "seconds_per_prompt": round(seconds, 1),
  }


def table(results: dict) -> str:
  """The results as Markdown."""
  columns = (
    "no_prompt",
    "by_hand",
    "in_corpus_words",
    "prompt_tuning",
    "model_tuning",
  )
  lines = [
    "| test accuracy, % | " + " | ".join(c.replace("_", " ") for c in columns),
    "|---" * (len(columns) + 1) + "|",
  ]
  for task, row in results.items():
    cells = [f"{row[column]:.1f}" for column in columns]
    spread = row["prompt_tuning_seeds"]
    cells[3] += f" ({min(spread):.1f} to {max(spread):.1f})"
    lines.append(f"| {task} | " + " | ".join(cells) + " |")
  lines[0] += " |"
  return "\n".join(lines)


def main() -> None:
  """Runs what the command line asks for."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--tasks", nargs="*", default=list(LABELS))
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--model_tuning_seeds", type=int, default=1)
  parser.add_argument("--steps", type=int, default=1000)
  parser.add_argument("--model", default=pretrained.SHIPPED)
  parser.add_argument("--runs", type=pathlib.Path, default="runs/microworld")
  parser.add_argument(
    "--ship", action="store_true", help="write them into the package"
  )
  flags = parser.parse_args()
  model = pretrained.load(flags.model)
  settings = {
    "model": model.stored_hash,
    "steps": flags.steps,
    "seeds": flags.seeds,
    "model_tuning_seeds": flags.model_tuning_seeds,
    "machine": f"{platform.machine()}, CPU",
  }
  output = flags.runs / demo.RESULTS
  kept = json.loads(output.read_text()) if output.is_file() else {**settings}
  results = kept.pop("tasks", {})
  if kept != settings:
    parser.error(f"{output} is of {kept}, not of {settings}; name other --runs")
  for task in flags.tasks:
    if task in results:
      continue
    results[task] = measure(
      model,
      task,
      flags.runs,
      seeds=flags.seeds,
      model_seeds=flags.model_tuning_seeds,
      steps=flags.steps,
    )
    storage.write_json(output, {**settings, "tasks": results})
    print(table({task: results[task]}).splitlines()[-1], flush=True)
  print(table(results))
  if flags.ship:
    shutil.copy(output, pretrained.shipped_folder() / demo.RESULTS)


if __name__ == "__main__":
  main()
