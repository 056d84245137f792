"""An ensemble of prompts that were trained earlier: `prompt-tuning ensemble`.

prompts, their model, their task -> one batch of N copies -> the report
"""

from collections.abc import Sequence
import importlib
import os
import pathlib

from prompt_tuning import (
  checkpoints,
  data,
  decode,
  ensemble,
  evaluate,
  infer,
  pretrained,
  run_folder,
  storage,
)

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
  task_module: str | None = None,
  split: str = "validation",
  lengths: tuple[int, int] = (512, 16),
  strategy: str = "greedy",
  allow_other_model: bool = False,
) -> ensemble.Report:
  """Scores prompts together and alone.

  Args:
    prompts: their paths.
    model: the frozen model; by default the one they were trained on.
    task: a seqio task; by default the one they were trained on.
    task_module: the module that registers it, if it is the user's own.
    split: what they are scored on.
    lengths: tokens of inputs and targets at most.
    strategy: one of `STRATEGIES`; `rank` is for tasks with labels.
    allow_other_model: accept prompts that were trained for other weights.

  Raises:
    ValueError: there are fewer than two prompts, they name no single model or
      task, the task is a mixture or has no labels to rank, or the module cannot
      be imported.
  """
  saved = [checkpoints.load_prompt(path) for path in prompts]
  _check(saved)
  frozen = pretrained.load(model or _common(saved, "model"))
  saved = [
    checkpoints.load_prompt(path, frozen, allow_other_model=allow_other_model)
    for path in prompts
  ]
  if task_module:
    _import(task_module)
  task = task or _common(saved, "task")
  members = [name for name, _ in data.members(task)]
  if len(members) > 1:
    raise ValueError(
      f"{task} is a mixture, and an ensemble answers one task. Name one of "
      f"{', '.join(members)} with --task."
    )
  examples = data.load(
    task,
    split,
    {"inputs": lengths[0], "targets": lengths[1]},
    vocabulary=frozen.vocabulary,
  )
  bank, prompt_lengths = infer.bank_of(saved)
  network, params = infer.with_prompts(frozen, bank)
  return ensemble.evaluate_together(
    network,
    params,
    frozen.vocabulary,
    examples,
    infer.Decoding(STRATEGIES[strategy], max_length=lengths[1]),
    prompt_length=prompt_lengths,
  )


def _check(saved: Sequence[checkpoints.SavedPrompt]) -> None:
  if len(saved) < 2:
    raise ValueError(
      f"An ensemble takes two or more prompts, got {len(saved)}. Give several "
      "paths after --prompts; SEEDS=(0, 1, 2) trains three prompts of a task."
    )
  places = [pathlib.Path(one.path).resolve() for one in saved]
  if twice := [place for place in places if places.count(place) > 1]:
    raise ValueError(f"{twice[0]} is given twice, and would have two votes.")


def _common(saved: Sequence[checkpoints.SavedPrompt], what: str) -> str:
  """The task or the model that all prompts say they were trained for."""
  named = {str(one.path): one.record.get(what) for one in saved}
  if unknown := [path for path, value in named.items() if value is None]:
    raise ValueError(
      f"{unknown[0]} does not say which {what} it is for. Name it with "
      f"--{what}."
    )
  found = sorted(
    {
      str(value.get("source") if isinstance(value, dict) else value)
      for value in named.values()
    }
  )
  if len(found) > 1:
    raise ValueError(
      f"The prompts were trained for more than one {what}: "
      f"{', '.join(found)}. Give prompts of one {what}, or name it with "
      f"--{what}."
    )
  return found[0]


def _import(module: str) -> None:
  try:
    importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise ValueError(
      f"--task_module={module} cannot be imported ({error}). Run the command "
      "from the folder of the module, or put it on PYTHONPATH."
    ) from error


def write(report: ensemble.Report, folder: str | os.PathLike) -> pathlib.Path:
  """Writes metrics.json and the vote's answers; returns the folder."""
  place = run_folder.RunFolder(folder, setting="--output").path
  examples = report.examples
  storage.write_json(
    place / "metrics.json",
    {
      "task": examples.task,
      "split": examples.split,
      "examples": len(examples),
      "decoding": report.decoding,
      "prompts": report.singles,
      **report.summary(),
    },
  )
  result = evaluate.Result(
    examples.task, examples.split, report.vote, report.answers
  )
  infer.write_predictions(
    place / "predictions" / f"{examples.task}-{examples.split}.jsonl",
    evaluate.prediction_rows(examples, result),
  )
  return place
