"""Evaluation and inference of what was trained: scores and predictions files.

frozen model + saved prompts + task split -> metrics.json, predictions/
frozen model + saved prompts + lines of text -> predictions.jsonl
"""

from collections.abc import Mapping, Sequence
import os
import pathlib

from prompt_tuning import run_folder, storage
from prompt_tuning.data import registry, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import evaluate, infer, prompted_model
from prompt_tuning.prompts import checkpoints, prompted

Paths = str | os.PathLike | Sequence[str | os.PathLike] | None


def prompts_of(paths: Paths, model, allow_other_model):
  """The saved prompts of one or several paths."""
  if paths is None:
    return []
  if isinstance(paths, str | os.PathLike):
    paths = [paths]
  return [
    checkpoints.load_prompt(path, model, allow_other_model=allow_other_model)
    for path in paths
  ]


def pairs_of(names: Sequence[str], prompts) -> list[tuple[str, int]]:
  """(task, prompt) pairs: one by one, or one task with every prompt."""
  count = max(len(prompts), 1)
  if len(names) == 1:
    return [(names[0], n) for n in range(count)]
  if count == 1:
    return [(name, 0) for name in names]
  if len(names) != count:
    raise ValueError(
      f"There are {len(names)} tasks in MIXTURE_OR_TASK_NAME and {count} "
      "prompts in PROMPT_PATH. Give one task, one prompt, or as many of both."
    )
  return list(zip(names, range(count), strict=True))


def evaluate_prompts(
  *,
  eval_output_dir: str | os.PathLike,
  model: pretrained.FrozenModel,
  mixture_or_task_name: str | Sequence[str],
  task_feature_lengths: Mapping[str, int],
  prompt_path: Paths = None,
  split: str = "validation",
  decoding: infer.Decoding | None = None,
  allow_other_model: bool = False,
) -> list[evaluate.Result]:
  """Scores saved prompts (or a model without one) on a split of tasks.

  Writes `metrics.json` and `predictions/<task>-<split>.jsonl`.

  Raises:
    ValueError: a prompt, a task or the folder is not usable.
  """
  folder = run_folder.RunFolder(eval_output_dir, setting="EVAL_OUTPUT_DIR")
  prompts = prompts_of(prompt_path, model, allow_other_model)
  pairs = pairs_of(registry.task_names(mixture_or_task_name), prompts)

  # Each split is read once, however many prompts answer it.
  read = {
    name: splits.load(
      name, split, task_feature_lengths, vocabulary=model.vocabulary
    )
    for name in dict.fromkeys(name for name, _ in pairs)
  }

  # All prompts answer in one program, each the task that it is paired with.
  evaluator = evaluate.Evaluator(
    prompted.with_prompts(model, [saved.values for saved in prompts]),
    [read[name] for name, _ in pairs],
    [n for _, n in pairs],
    decoding=decoding or infer.decoding_for(task_feature_lengths),
  )
  results = evaluator(show_progress=True)

  # A file of predictions for each pair, and the scores of all in one.
  rows = []
  for (name, n), result in zip(pairs, results, strict=True):
    label = name if len(read) == len(pairs) else f"{name}-prompt{n}"
    storage.write_jsonl(
      folder.path / "predictions" / f"{label}-{split}.jsonl",
      evaluate.prediction_rows(read[name], result),
    )
    rows.append(
      {
        "task": name,
        "split": split,
        "prompt": prompts[n].path if prompts else None,
        "examples": len(read[name]),
        "truncated": read[name].truncated,
        **result.metrics,
      }
    )
  storage.write_json(folder.path / "metrics.json", rows)
  return results


def infer_lines(
  *,
  infer_output_dir: str | os.PathLike,
  model: pretrained.FrozenModel,
  input_file: str | os.PathLike,
  task_feature_lengths: Mapping[str, int],
  prompt_path: Paths = None,
  decoding: infer.Decoding | None = None,
  allow_other_model: bool = False,
) -> pathlib.Path:
  """Predicts every line of a text file; writes predictions.jsonl.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is empty or no UTF-8; or a line is empty or too long,
      and the message has its number.
  """
  source = pathlib.Path(input_file)
  texts = _lines(source)
  folder = run_folder.RunFolder(infer_output_dir, setting="INFER_OUTPUT_DIR")
  limit = task_feature_lengths["inputs"]
  for i, text in enumerate(texts, 1):
    tokens = len(model.require_vocabulary().encode(text)) + 1
    if tokens == 1:
      raise ValueError(f"{source}, line {i} is empty.")
    if tokens > limit:
      raise ValueError(
        f"{source}, line {i} has {tokens} tokens, more than "
        f"TASK_FEATURE_LENGTHS['inputs']={limit}. Raise it or shorten the line."
      )
  prompts = prompts_of(prompt_path, model, allow_other_model)
  if len(prompts) > 1:
    raise ValueError(
      f"PROMPT_PATH names {len(prompts)} prompts, and the lines of a file are "
      "predicted with one. Name one of them."
    )
  decoding = decoding or infer.decoding_for(task_feature_lengths)
  predicting = prompted_model.PromptedModel(model, prompts, decoding)
  answers = predicting.answers(texts)
  rows = []
  for text, answer in zip(texts, answers, strict=True):
    rows.append({"input": text, "prediction": answer.text})
    if answer.probabilities:
      rows[-1]["probabilities"] = answer.probabilities
  return storage.write_jsonl(folder.path / "predictions.jsonl", rows)


def _lines(source: pathlib.Path) -> list[str]:
  """The lines of a text file; only a line break ends a line."""
  if not source.is_file():
    raise FileNotFoundError(f"INPUT_FILE={source} is no file.")
  try:
    text = source.read_text(encoding="utf-8-sig")
  except UnicodeDecodeError as error:
    raise ValueError(f"INPUT_FILE={source} is not UTF-8 ({error}).") from error
  if not text:
    raise ValueError(f"INPUT_FILE={source} is empty.")
  return text.removesuffix("\n").split("\n")
