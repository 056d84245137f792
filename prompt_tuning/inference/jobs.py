"""Evaluation and inference of what was trained: scores and predictions files.

frozen model + saved prompts + task split -> metrics.json, predictions/
frozen model + saved prompts + lines of text, or rows of one's own
                                            -> predictions.jsonl
"""

from collections.abc import Mapping, Sequence
import logging
import os
import pathlib

from prompt_tuning import run_folder, storage, tables
from prompt_tuning.data import registry, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.prompts import checkpoints, prompted
from prompt_tuning.shapes import EOS
from prompt_tuning.tasks import declarations
from prompt_tuning.tasks.rows import own_files

_log = logging.getLogger(__name__)

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


def _compare_template(saved: checkpoints.SavedPrompt, template: str) -> None:
  """Says so if a prompt was trained on inputs of another form."""
  trained_on = saved.record.get("template")
  if template and trained_on and template != trained_on:
    _log.warning(
      "%s was trained on inputs of the form %r, and --template is %r. Its "
      "answers to another form may be poor.",
      *(saved.path, trained_on, template),
    )


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

  for name, n in pairs if prompts else ():
    _compare_template(prompts[n], declarations.declared(name).template)

  # Each split is read once, however many prompts answer it.
  read = {
    name: splits.load(
      name, split, task_feature_lengths, vocabulary=model.vocabulary
    )
    for name in dict.fromkeys(name for name, _ in pairs)
  }

  # All prompts answer in one program, each the task that it is paired with.
  evaluator = evaluate.Evaluator(
    prompted.with_saved(model, prompts),
    [read[name] for name, _ in pairs],
    [n for _, n in pairs],
    decoding=decoding or infer.decoding_for(task_feature_lengths),
  )
  results = evaluator(show_progress=True)

  # A file of predictions for each pair, and the scores of all in one.
  rows = []
  for (name, n), result in zip(pairs, results, strict=True):
    label = name if len(read) == len(pairs) else f"{name}-prompt{n}"
    folder.write_jsonl(
      f"predictions/{label}-{split}.jsonl",
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
  if folder.writes:
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
  if source.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl"):
    _log.warning(
      "INPUT_FILE=%s is read as lines of text. Its rows are read with "
      "--data %s --template.",
      *(source, source),
    )
  folder = run_folder.RunFolder(infer_output_dir, setting="INFER_OUTPUT_DIR")
  limit = task_feature_lengths["inputs"]
  ids = []
  for i, text in enumerate(texts, 1):
    try:
      ids.append(_ids(text, model, limit))
    except ValueError as error:
      raise ValueError(f"{source}, line {i} {error}") from error
  decoding = decoding or infer.decoding_for(task_feature_lengths)
  prompts = prompts_of(prompt_path, model, allow_other_model)
  answers = _answers(model, prompts, decoding, ids)
  rows = [
    {"input": text, **answer.row()}
    for text, answer in zip(texts, answers, strict=True)
  ]
  return folder.write_jsonl("predictions.jsonl", rows)


def infer_rows(
  *,
  infer_output_dir: str | os.PathLike,
  model: pretrained.FrozenModel,
  rows: own_files.OwnData,
  task_feature_lengths: Mapping[str, int],
  prompt_path: Paths = None,
  decoding: infer.Decoding | None = None,
  allow_other_model: bool = False,
) -> pathlib.Path:
  """Predicts every row of a file of one's own, with an answer or without.

  Writes predictions.jsonl, a line a row: the row's own fields, and what was
  answered beside them.

  Args:
    infer_output_dir: the folder to write into.
    model: the frozen model.
    rows: the file and how it is read, see `own_data.to_predict`. `Rank` without
      labels chooses among its classes.
    task_feature_lengths: TASK_FEATURE_LENGTHS; a longer input is a bad row.
    prompt_path: the prompt, if there is one.
    decoding: how predictions are made.
    allow_other_model: use a prompt of another frozen model.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a bad row, which the message names, or a setting.
  """
  decoding = decoding or infer.decoding_for(task_feature_lengths)
  if rows.classes and decoding.ranking(lambda: rows.classes) is decoding:
    raise ValueError(
      f"--labels (here the words {rows.classes}) are what Rank chooses from "
      f"if it has no labels of its own, and DECODING is {decoding.strategy}. "
      "Leave --labels out: the answers are then the words that the prompt "
      "learned. Or set --gin.DECODING=@decode.Rank()."
    )
  decoding = decoding.ranking(lambda: rows.classes)
  folder = run_folder.RunFolder(infer_output_dir, setting="INFER_OUTPUT_DIR")
  limit = task_feature_lengths["inputs"]

  # Every row is read, and refused if it must be, before the first is predicted.
  def make(row: tables.Row, text: str) -> tuple[tables.Row, list[int]]:
    taken = [name for name in infer.FIELDS if name in row]
    if taken:
      raise tables.BadRow(
        f"the field {taken[0]!r} has the name of what is predicted. Rename it."
      )
    try:
      return row, _ids(text, model, limit)
    except ValueError as error:
      raise tables.BadRow(f"the input {error}") from error

  read = rows.to_predict(make)
  prompts = prompts_of(prompt_path, model, allow_other_model)
  for saved in prompts:
    _compare_template(saved, rows.template)
  answers = _answers(model, prompts, decoding, [ids for _, ids in read])
  written = [
    {**row, **answer.row()}
    for (row, _), answer in zip(read, answers, strict=True)
  ]
  return folder.write_jsonl("predictions.jsonl", written)


def _ids(text: str, model: pretrained.FrozenModel, limit: int) -> list[int]:
  """The ids of an input, EOS included.

  Raises:
    ValueError: the end of a sentence that begins with the input's place.
  """
  ids = [*model.require_vocabulary().encode(text), EOS]
  if len(ids) == 1:
    raise ValueError("is empty.")
  if len(ids) > limit:
    raise ValueError(
      f"has {len(ids)} tokens, more than TASK_FEATURE_LENGTHS['inputs']="
      f"{limit}. Raise it or shorten the text."
    )
  return ids


def _answers(
  model: pretrained.FrozenModel,
  prompts: Sequence[checkpoints.SavedPrompt],
  decoding: infer.Decoding,
  ids: Sequence[infer.Ids],
) -> list[infer.Answer]:
  """The answers of one prompt, or of the model alone, to rows of ids."""
  if len(prompts) > 1:
    raise ValueError(
      f"PROMPT_PATH names {len(prompts)} prompts, and a file is predicted with "
      "one. Name one of them."
    )
  if not prompts:
    _log.warning("PROMPT_PATH names no prompt: the model predicts alone.")
  predictor = infer.Predictor(prompted.with_saved(model, prompts), decoding)
  return predictor.answers(ids, [0] * len(ids), show_progress=True)


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
