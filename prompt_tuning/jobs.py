"""Evaluation and inference of what was trained: scores and predictions files.

frozen model + saved prompts + task split -> metrics.json, predictions/
frozen model + saved prompts + lines of text -> predictions.jsonl
"""

from collections.abc import Mapping, Sequence
import os
import pathlib

from prompt_tuning import (
  checkpoints,
  data,
  evaluate,
  infer,
  pretrained,
  run_folder,
  storage,
)

Paths = str | os.PathLike | Sequence[str | os.PathLike] | None


def prompts_of(paths: Paths, model, allow_other_model):
  """The saved prompts of one or several paths."""
  if paths is None:
    return []
  one = isinstance(paths, str | os.PathLike)
  return [
    checkpoints.load_prompt(path, model, allow_other_model=allow_other_model)
    for path in ([paths] if one else paths)
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
  folder = run_folder.RunFolder(eval_output_dir)
  prompts = prompts_of(prompt_path, model, allow_other_model)
  bank, lengths = infer.bank_of(prompts)
  network, params = infer.with_prompts(model, bank)
  given = mixture_or_task_name
  names = [given] if isinstance(given, str) else list(given)
  names = [member for name in names for member, _ in data.members(name)]
  pairs = pairs_of(names, prompts)
  loaded = {
    name: data.load(
      name, split, task_feature_lengths, vocabulary=model.vocabulary
    )
    for name in names
  }
  decoding = decoding or infer.Decoding(
    max_length=task_feature_lengths["targets"]
  )
  results = []
  for name, n in pairs:
    scorer = evaluate.Evaluator(
      network,
      model.require_vocabulary(),
      [loaded[name]],
      decoding=decoding,
      prompt_length=lengths,
      first_prompt=n,
    )
    (result,) = scorer(params, show_progress=True)
    results.append(result)
    label = name if len(names) == len(pairs) else f"{name}-prompt{n}"
    infer.write_predictions(
      folder.path / "predictions" / f"{label}-{split}.jsonl",
      evaluate.prediction_rows(loaded[name], result),
    )
  storage.write_json(
    folder.path / "metrics.json",
    [
      {
        "task": name,
        "split": split,
        "prompt": prompts[n].path if prompts else None,
        "examples": len(loaded[name]),
        "truncated": loaded[name].truncated,
        **result.metrics,
      }
      for (name, n), result in zip(pairs, results, strict=True)
    ],
  )
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
  folder = run_folder.RunFolder(infer_output_dir)
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
  decoding = decoding or infer.Decoding(
    max_length=task_feature_lengths["targets"]
  )
  prompted = infer.PromptedModel(model, prompts, decoding)
  answers = prompted.predict(texts)
  return infer.write_predictions(
    folder.path / "predictions.jsonl",
    [
      {"input": text, "prediction": answer}
      for text, answer in zip(texts, answers, strict=True)
    ],
  )


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
