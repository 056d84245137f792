"""Predictions of hidden test sets as the files that the leaderboards take.

    saved prompts + test splits -> CoLA.tsv … or BoolQ.jsonl … -> a zip

GLUE wants tab-separated files with `index` and `prediction`, SuperGLUE one JSON
object per line with `idx` and `label`; both zipped, under names of their own. A
prediction that is no label still needs a line: it gets the first label, and is
counted.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import os
import pathlib
from typing import Any, TypeVar
import zipfile

from prompt_tuning import run_folder, storage
from prompt_tuning.data import registry, scoring, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer, jobs
from prompt_tuning.prompts import prompted
from prompt_tuning.tasks.answers import is_invalid

T = TypeVar("T")
_DIGITS = (0, 1)
_TRUTH = ("false", "true")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")


@dataclasses.dataclass(frozen=True)
class Format:
  """How the answers of one test split are handed in.

  Attributes:
    file: the name of the file.
    labels: what is written for each class; () where the answer is no class.
    split: the split with the hidden answers.
  """

  file: str
  labels: Sequence[Any] = ()
  split: str = "test"


FORMATS: dict[str, tuple[Format, ...]] = {
  "glue_cola": (Format("CoLA.tsv", _DIGITS),),
  "glue_sst2": (Format("SST-2.tsv", _DIGITS),),
  "glue_mrpc": (Format("MRPC.tsv", _DIGITS),),
  "glue_qqp": (Format("QQP.tsv", _DIGITS),),
  "glue_stsb": (Format("STS-B.tsv"),),
  "glue_mnli": (
    Format("MNLI-m.tsv", _NLI),
    Format("MNLI-mm.tsv", _NLI, "test_mismatched"),
  ),
  "glue_mnli_matched": (Format("MNLI-m.tsv", _NLI),),
  "glue_mnli_mismatched": (Format("MNLI-mm.tsv", _NLI),),
  "glue_ax": (Format("AX.tsv", _NLI),),
  "glue_qnli": (Format("QNLI.tsv", _ENTAILMENT),),
  "glue_rte": (Format("RTE.tsv", _ENTAILMENT),),
  "glue_wnli": (Format("WNLI.tsv", _DIGITS),),
  "super_glue_boolq": (Format("BoolQ.jsonl", _TRUTH),),
  "super_glue_cb": (
    Format("CB.jsonl", ("entailment", "contradiction", "neutral")),
  ),
  "super_glue_copa": (Format("COPA.jsonl", _DIGITS),),
  "super_glue_multirc": (Format("MultiRC.jsonl", _DIGITS),),
  "super_glue_record": (Format("ReCoRD.jsonl"),),
  "super_glue_rte": (Format("RTE.jsonl", _ENTAILMENT),),
  "super_glue_wic": (Format("WiC.jsonl", _TRUTH),),
  "super_glue_wsc": (Format("WSC.jsonl", ("False", "True")),),
  "super_glue_axb": (Format("AX-b.jsonl", _ENTAILMENT),),
  "super_glue_axg": (Format("AX-g.jsonl", _ENTAILMENT),),
}


def formats(task: str) -> tuple[Format, ...]:
  """The files that a task is handed in as.

  Raises:
    ValueError: the task is of no leaderboard.
  """
  name = task.removesuffix("_t5")
  if name not in FORMATS:
    raise ValueError(
      f"{task} has no submission file; those of GLUE and SuperGLUE have: "
      f"{', '.join(FORMATS)}."
    )
  return FORMATS[name]


def contents(
  form: Format, examples: splits.Examples, predictions: Sequence[str]
) -> tuple[str, int]:
  """The text of a submission file, and how many predictions were invalid."""
  answers = scoring.postprocess(examples, predictions, is_target=False)
  if form.file == "STS-B.tsv":
    values = [f"{min(max(value, 0.0), 5.0):.3f}" for value in answers]
    return _tsv(examples, values), _invalid(answers)
  if form.file == "ReCoRD.jsonl":
    return _record(examples, predictions, answers)
  if form.file == "MultiRC.jsonl":
    classes = [answer["value"] for answer in answers]
    return _multirc(examples, classes), _invalid(classes)
  labels = [form.labels[max(answer, 0)] for answer in answers]
  if form.file.endswith(".tsv"):
    return _tsv(examples, labels), _invalid(answers)
  pairs = _by_index(examples, labels)
  rows = [{"idx": i, "label": label} for i, label in pairs]
  return storage.jsonl(rows), _invalid(answers)


def _invalid(values: Sequence[float | int]) -> int:
  return sum(map(is_invalid, values))


def _by_index(examples, values: Sequence[T]) -> list[tuple[int, T]]:
  """(idx, value) of every row in the order of idx.

  Raises:
    ValueError: two rows have the same idx, and a leaderboard takes one line.
  """
  by_index: dict[int, T] = {}
  for row, value in zip(examples.fields, values, strict=True):
    i = int(row["idx"])
    if i in by_index:
      raise ValueError(
        f"Two rows of {examples.task}, split {examples.split}, have the idx "
        f"{i}, so a leaderboard could not tell them apart. Use the split as it "
        "was published."
      )
    by_index[i] = value
  return sorted(by_index.items(), key=lambda pair: pair[0])


def _tsv(examples: splits.Examples, values: Sequence[Any]) -> str:
  pairs = _by_index(examples, values)
  lines = ["index\tprediction", *(f"{i}\t{value}" for i, value in pairs)]
  return "\n".join(lines) + "\n"


def _record(examples, predictions, answers) -> tuple[str, int]:
  """One line per query; a row may stand there once for each of its answers."""
  first: dict[int, tuple[str, bool]] = {}
  lines = zip(examples.fields, predictions, answers, strict=True)
  for row, text, answer in lines:
    first.setdefault(int(row["idx/query"]), (text, answer["valid"]))
  rows = [{"idx": i, "label": text} for i, (text, _) in sorted(first.items())]
  return storage.jsonl(rows), sum(not valid for _, valid in first.values())


def _multirc(examples, classes) -> str:
  """One line per passage, with its questions and their answers inside."""
  passages: dict[int, dict[int, list]] = {}
  for row, label in zip(examples.fields, classes, strict=True):
    passage, question, answer = (
      int(row[f"idx/{part}"]) for part in ("paragraph", "question", "answer")
    )
    answers = passages.setdefault(passage, {}).setdefault(question, [])
    answers.append({"idx": answer, "label": max(label, 0)})
  rows = []
  for passage, by_question in sorted(passages.items()):
    questions = [
      {"idx": i, "answers": sorted(answers, key=lambda answer: answer["idx"])}
      for i, answers in sorted(by_question.items())
    ]
    rows.append({"idx": passage, "passage": {"questions": questions}})
  return storage.jsonl(rows)


def write(
  *,
  infer_output_dir: str | os.PathLike,
  model: pretrained.FrozenModel,
  mixture_or_task_name: str | Sequence[str],
  task_feature_lengths: Mapping[str, int],
  prompt_path: jobs.Paths = None,
  decoding: infer.Decoding | None = None,
  allow_other_model: bool = False,
) -> list[pathlib.Path]:
  """Predicts the hidden test splits of tasks and writes the files and zips.

  `infer_output_dir` gets every file, a zip per benchmark, and `submission.json`
  with the number of examples and of invalid predictions of each file.

  Args:
    infer_output_dir: the folder.
    model: the frozen model.
    mixture_or_task_name: tasks of GLUE or SuperGLUE, or a mixture of them.
    task_feature_lengths: tokens of inputs and targets.
    prompt_path: one prompt for all tasks, or one for each.
    decoding: greedy by default.
    allow_other_model: use prompts of another frozen model.

  Returns:
    The zips; none in a process that does not write.

  Raises:
    ValueError: a task is of no leaderboard, or a prompt is not usable.
  """
  names = registry.task_names(mixture_or_task_name)
  wanted = {name: formats(name) for name in names}
  _check_files([form.file for name in names for form in wanted[name]])
  folder = run_folder.RunFolder(infer_output_dir, setting="INFER_OUTPUT_DIR")
  prompts = jobs.prompts_of(prompt_path, model, allow_other_model)
  pairs = jobs.pairs_of(names, prompts)
  if len(pairs) > len(names):
    raise ValueError(
      f"{names[0]} can be handed in once, and PROMPT_PATH names {len(pairs)} "
      "prompts. Give one."
    )
  predictor = infer.Predictor(
    prompted.with_saved(model, prompts),
    decoding or infer.decoding_for(task_feature_lengths),
  )

  # One file for each hidden split, and what its predictions were.
  summary: dict[str, dict[str, Any]] = {}
  by_benchmark: dict[str, list[str]] = {}
  for name, n in pairs:
    for form in wanted[name]:
      examples = splits.load(
        name, form.split, task_feature_lengths, vocabulary=model.vocabulary
      )
      prompt_id = [n] * len(examples)
      texts = predictor(examples.input_rows(), prompt_id, show_progress=True)
      text, invalid = contents(form, examples, texts)
      if folder.writes:
        storage.write_text(folder.path / form.file, text)
      benchmark = "glue" if form.file.endswith(".tsv") else "super_glue"
      by_benchmark.setdefault(benchmark, []).append(form.file)
      summary[form.file] = {
        "task": name,
        "examples": len(examples),
        "invalid": invalid,
        "truncated": examples.truncated,
      }
  if not folder.writes:
    return []
  storage.write_json(folder.path / "submission.json", summary)

  # A zip for each benchmark; one that lacks a task is said to.
  for benchmark, files in by_benchmark.items():
    if lacking := absent(benchmark, files):
      logging.warning(
        "%s_submission.zip lacks %s; the leaderboard wants the files of all "
        "its tasks in one zip.",
        benchmark,
        ", ".join(lacking),
      )
  return [
    _zip(folder.path, f"{benchmark}_submission.zip", files)
    for benchmark, files in by_benchmark.items()
  ]


def _check_files(files: Sequence[str]) -> None:
  twice = [file for i, file in enumerate(files) if file in files[:i]]
  if twice:
    raise ValueError(
      f"MIXTURE_OR_TASK_NAME names tasks that would write {twice[0]} twice. "
      "Name each test set once."
    )


def absent(benchmark: str, files: Sequence[str]) -> list[str]:
  """The files of a leaderboard that are not among those given."""
  every = {
    form.file
    for task, forms in FORMATS.items()
    for form in forms
    if task.startswith(f"{benchmark}_")
  }
  return sorted(every - set(files))


def _zip(folder: pathlib.Path, name: str, files: Sequence[str]) -> pathlib.Path:
  def pack(target: str) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
      for file in files:
        archive.write(folder / file, file)

  return storage.write_atomically(folder / name, pack)
