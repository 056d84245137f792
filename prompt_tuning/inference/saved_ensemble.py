"""An ensemble of prompts that were trained earlier: `prompt-tuning ensemble`.

prompts, their model, their task -> one batch of N copies -> their votes
"""

from collections.abc import Sequence
import os
import pathlib

from prompt_tuning import run_folder, storage
from prompt_tuning.data import registry, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import ensemble, evaluate, infer
from prompt_tuning.model import decode
from prompt_tuning.prompts import checkpoints, prompted

STRATEGIES: dict[str, decode.Strategy] = {
  "greedy": decode.Greedy(),
  "rank": decode.Rank(),
}
"""What the prompts vote on: what they write, or the task's labels."""


def score(
  prompts: Sequence[str | os.PathLike],
  model: str | os.PathLike | None = None,
  task: str | None = None,
  *,
  split: str = "validation",
  lengths: tuple[int, int] = (512, 16),
  strategy: str = "greedy",
  allow_other_model: bool = False,
) -> ensemble.Votes:
  """Scores prompts together and alone.

  Args:
    prompts: their paths.
    model: the frozen model; by default the one they were trained on.
    task: a seqio task; by default the one they were trained on.
    split: what they are scored on.
    lengths: tokens of inputs and targets at most.
    strategy: one of `STRATEGIES`; `rank` is for tasks with labels.
    allow_other_model: accept prompts that were trained for other weights.

  Raises:
    ValueError: there are fewer than two prompts, they name no single model or
      task, or the task is a mixture or has no labels to rank.
  """
  saved = [checkpoints.load_prompt(path) for path in prompts]
  _check(saved)
  frozen = pretrained.load(model or _common(saved, "model"))
  saved = [
    checkpoints.load_prompt(path, frozen, allow_other_model=allow_other_model)
    for path in prompts
  ]
  task = task or _common(saved, "task")
  parts = [name for name, _ in registry.tasks_of(task)]
  if len(parts) > 1:
    raise ValueError(
      f"{task} is a mixture, and an ensemble answers one task. Name one of "
      f"{', '.join(parts)} with --task."
    )
  examples = splits.load(
    task,
    split,
    {"inputs": lengths[0], "targets": lengths[1]},
    vocabulary=frozen.vocabulary,
  )
  return ensemble.evaluate_together(
    prompted.with_saved(frozen, saved),
    examples,
    infer.Decoding(STRATEGIES[strategy], max_length=lengths[1]),
  )


def _check(saved: Sequence[checkpoints.SavedPrompt]) -> None:
  if len(saved) < 2:
    raise ValueError(
      f"An ensemble takes two or more prompts, got {len(saved)}. Give several "
      "paths after --prompts; SEEDS=(0, 1, 2) trains three prompts of a task."
    )
  paths = [pathlib.Path(prompt.path).resolve() for prompt in saved]
  if twice := [path for path in paths if paths.count(path) > 1]:
    raise ValueError(f"{twice[0]} is given twice, and would have two votes.")


def _common(saved: Sequence[checkpoints.SavedPrompt], what: str) -> str:
  """The task or the model that all prompts say they were trained for."""
  names = set()
  for prompt in saved:
    value = prompt.record.get(what)
    if value is None:
      raise ValueError(
        f"{prompt.path} does not say which {what} it is for. Name it with "
        f"--{what}."
      )
    names.add(str(value.get("source") if isinstance(value, dict) else value))
  if len(names) > 1:
    raise ValueError(
      f"The prompts were trained for more than one {what}: "
      f"{', '.join(sorted(names))}. Give prompts of one {what}, or name it "
      f"with --{what}."
    )
  return names.pop()


def write(votes: ensemble.Votes, folder: str | os.PathLike) -> pathlib.Path:
  """Writes metrics.json and the vote's answers; returns the folder."""
  output = run_folder.RunFolder(folder, setting="--output").path
  examples = votes.examples
  storage.write_json(
    output / "metrics.json",
    {
      "task": examples.task,
      "split": examples.split,
      "examples": len(examples),
      "decoding": votes.decoding,
      "prompts": votes.singles,
      **votes.summary(),
    },
  )
  result = evaluate.Result(
    examples.task, examples.split, votes.vote, votes.answers
  )
  storage.write_jsonl(
    output / "predictions" / f"{examples.task}-{examples.split}.jsonl",
    evaluate.prediction_rows(examples, result),
  )
  return output
