"""seqio tasks as arrays: a split is read once, and scored by its metrics.

    task -> Examples (ids and fields, in memory) -> batches (see `batches`)
    predictions -> postprocessing -> metrics

Nothing is cut in silence: `Examples.truncated` counts.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import difflib
import functools
import hashlib
import importlib
import itertools
import logging
from typing import Any

import numpy as np
import seqio

from prompt_tuning.shapes import Int
from prompt_tuning.tasks import BENCHMARKS, benchmark
from prompt_tuning.tasks import vocabulary as task_vocabulary
from prompt_tuning.tasks.answers import is_hidden
from prompt_tuning.vocabulary import EOS, PAD, UNK, Vocabulary

INVALID = "invalid"
"""The metric that counts predictions which are no valid answer; no score."""


@dataclasses.dataclass(frozen=True)
class Rows:
  """Sequences of ids of different lengths, one behind the other.

  Attributes:
    ids: all ids.
    starts: where each sequence begins, and the end of the last.
  """

  ids: np.ndarray
  starts: np.ndarray

  @classmethod
  def of(cls, sequences: Sequence[Sequence[int]]) -> "Rows":
    """Packs a list of sequences."""
    lengths = [len(sequence) for sequence in sequences]
    ids = np.fromiter(
      (i for sequence in sequences for i in sequence), np.int32, sum(lengths)
    )
    return cls(ids, np.cumsum([0, *lengths]))

  def __len__(self) -> int:
    return len(self.starts) - 1

  @property
  def longest(self) -> int:
    """The length of the longest sequence."""
    return int(np.diff(self.starts).max(initial=0))

  def padded(
    self, index: Int[np.ndarray, "B"], length: int
  ) -> Int[np.ndarray, "B T"]:
    """The sequences of `index`, padded to `length`."""
    place = self.starts[index][:, None] + np.arange(length)
    inside = place < self.starts[index + 1][:, None]
    safe = np.minimum(place, max(len(self.ids) - 1, 0))
    return np.where(inside, self.ids[safe], PAD).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Examples:
  """One split of one task in memory.

  Attributes:
    task: the seqio task's name.
    split: the split's name.
    inputs: ids of the inputs, EOS included.
    targets: ids of the targets, EOS included.
    fields: all other features of each example, for postprocessing.
    truncated: how many inputs and targets were cut, by feature.
  """

  task: str
  split: str
  inputs: Rows
  targets: Rows
  fields: list[dict[str, Any]]
  truncated: dict[str, int]

  def __len__(self) -> int:
    return len(self.inputs)

  def target_texts(self) -> list[str]:
    """The targets as text."""
    return [_text(row["targets_pretokenized"]) for row in self.fields]


def register_benchmarks() -> None:
  """Registers the tasks that this project brings."""
  for module in BENCHMARKS:
    importlib.import_module(f"prompt_tuning.tasks.{module}")


def _registered() -> list[str]:
  return [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]


def find(name: str):
  """A seqio task or mixture: registered by a user, or one of this project's.

  Raises:
    ValueError: there is none; the message has the closest names.
  """
  if name not in _registered():
    register_benchmarks()
  names = _registered()
  if name not in names:
    close = difflib.get_close_matches(name, names, 3, 0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(
      f"{name!r} is no registered seqio task or mixture. {hint}`prompt-tuning "
      "tasks` lists them. A task of your own files needs --data and its flags "
      "in every command; a module of yours that registers one is named by "
      "MIXTURE_OR_TASK_MODULE (for an ensemble by --task_module)."
    )
  return seqio.get_mixture_or_task(name)


def mixtures() -> list[str]:
  """The names of all registered mixtures."""
  return sorted(seqio.MixtureRegistry.names())


def members(name: str) -> list[tuple[str, float]]:
  """The tasks of a mixture with their rates; a task alone has rate 1."""
  found = find(name)
  if isinstance(found, seqio.Mixture):
    return [(t.name, float(found.get_rate(t))) for t in found.tasks]
  return [(name, 1.0)]


def check_vocabulary(name: str, vocabulary: Vocabulary | None) -> None:
  """Compares a task's vocabulary with the frozen model's.

  Raises:
    ValueError: they differ, so the model would read other words.
  """
  if vocabulary is None:
    return
  for feature in find(name).output_features.values():
    theirs = feature.vocabulary
    if isinstance(theirs, task_vocabulary.ModelVocabulary):
      continue  # `load` gives it the model's
    probe = "the frozen model reads 1 prompt."
    if theirs.vocab_size != vocabulary.size or list(
      theirs.encode(probe)
    ) != vocabulary.encode(probe):
      raise ValueError(
        f"The vocabulary of {name} ({_describe(theirs)}, "
        f"{theirs.vocab_size} ids) is not that of the frozen model "
        f"({vocabulary.path}, {vocabulary.size} ids). Register the task with "
        "the model's vocabulary."
      )


def _describe(vocabulary) -> str:
  path = getattr(vocabulary, "sentencepiece_model_file", None)
  return str(path or type(vocabulary).__name__)


def check_lengths(lengths: Mapping[str, int]) -> None:
  """Refuses TASK_FEATURE_LENGTHS without a positive length for each feature."""
  for feature in ("inputs", "targets"):
    length = lengths.get(feature)
    if not isinstance(length, int) or length < 1:
      raise ValueError(
        f"TASK_FEATURE_LENGTHS={dict(lengths)} has no length for {feature!r}, "
        'or none above 0. Set for example {"inputs": 128, "targets": 8}.'
      )


def content_hash(sets: Iterable[Examples]) -> str:
  """A hash of the ids of examples, in their order."""
  digest = hashlib.sha256()
  for examples in sets:
    for rows in (examples.inputs, examples.targets):
      for values in (rows.ids, rows.starts):
        digest.update(np.ascontiguousarray(values).tobytes())
  return digest.hexdigest()[:16]


def load(
  name: str,
  split: str,
  lengths: Mapping[str, int],
  truncate: bool = True,
  *,
  vocabulary: Vocabulary | None = None,
) -> Examples:
  """Loads one split of one task.

  Args:
    name: a seqio task.
    split: one of its splits.
    lengths: TASK_FEATURE_LENGTHS, tokens of `inputs` and `targets` with EOS.
    truncate: cut what is longer, and count it; otherwise refuse it.
    vocabulary: the frozen model's. A task of this project takes it; one that
      brings another is refused.

  Raises:
    ValueError: an unknown split, an empty split, an example without inputs or
      targets, one that is too long, or another vocabulary.
  """
  check_vocabulary(name, vocabulary)
  task = find(name)
  splits = list(task.splits)
  if split not in splits:
    raise ValueError(
      f"{name} has no split {split!r}; its splits are {', '.join(splits)}."
    )
  check_lengths(lengths)
  if vocabulary is not None:
    _check_labels(name, vocabulary)
  with task_vocabulary.using(vocabulary):
    dataset = task.get_dataset(
      sequence_length=None, split=split, shuffle=False, num_epochs=1
    )
  columns: dict[str, list] = {"inputs": [], "targets": []}
  truncated = {"inputs": 0, "targets": 0}
  fields = []
  for i, row in enumerate(dataset.as_numpy_iterator()):
    for feature, column in columns.items():
      ids = row.pop(feature).tolist()
      where = f"example {i} of {name}, split {split}"
      column.append(_fitted(ids, lengths[feature], feature, where, truncate))
      truncated[feature] += len(ids) > lengths[feature]
    fields.append(row)
  if not fields:
    raise ValueError(
      f"The split {split!r} of {name} is empty. Check the source of the task."
    )
  for feature, count in truncated.items():
    if count:
      logging.getLogger(__name__).warning(
        "%s, split %s: %d of %d %s were longer than %d tokens and were cut.",
        *(name, split, count, len(fields), feature, lengths[feature]),
      )
  unknown = sum(UNK in ids for ids in columns["targets"])
  if unknown:
    logging.getLogger(__name__).warning(
      "%s, split %s: %d of %d targets have characters that the vocabulary "
      "cannot write; no prediction will equal them.",
      *(name, split, unknown, len(fields)),
    )
  return Examples(
    name,
    split,
    Rows.of(columns["inputs"]),
    Rows.of(columns["targets"]),
    fields,
    truncated,
  )


def _check_labels(name: str, vocabulary: Vocabulary) -> None:
  """Refuses labels that no prediction could ever be."""
  for label in benchmark.classes.get(name, ()):
    written = vocabulary.decode(vocabulary.encode(label))
    if written != label:
      raise ValueError(
        f"The label {label!r} of {name} cannot be written with the vocabulary "
        f"{vocabulary.path}: it becomes {written!r}. Let the model say another "
        "word; for your own files: --labels 'value=word,…'."
      )


def _fitted(ids, length, feature, where, truncate) -> list[int]:
  """The ids within a length, with EOS at the end if they had it."""
  if not [token for token in ids if token not in (PAD, EOS)]:
    raise ValueError(
      f"The {feature} of {where} are empty. Remove such examples in the "
      "task's preprocessors."
    )
  if len(ids) <= length:
    return ids
  if not truncate:
    raise ValueError(
      f"The {feature} of {where} have {len(ids)} tokens, more than "
      f"TASK_FEATURE_LENGTHS[{feature!r}]={length}. Raise it, or set "
      "TRUNCATE=True to cut."
    )
  return [*ids[: length - 1], EOS] if ids[-1] == EOS else ids[:length]


def labels(
  task: str, vocabulary: Vocabulary | None = None, at_most: int = 50
) -> list[str]:
  """The labels of a classification task, sorted.

  A task of this project and one of `--data` with `--labels` name their own; any
  other has the distinct targets of its training split. The answers of a split
  that is scored are never looked at: they would say what to choose from.

  Args:
    task: its name.
    vocabulary: the frozen model's, for reading the task.
    at_most: more are no classification.

  Raises:
    ValueError: there are too many, or there is no training split to tell.
  """
  find(task)  # so that it is registered
  if benchmark.classes.get(task):
    return sorted(benchmark.classes[task])
  with task_vocabulary.using(vocabulary):
    return list(_training_targets(seqio.TaskRegistry.get(task), at_most))


@functools.lru_cache(64)
def _training_targets(task: seqio.Task, at_most: int) -> tuple[str, ...]:
  if "train" not in task.splits:
    raise ValueError(
      f"{task.name} names no labels and has no split 'train' to tell them by. "
      "Name them: --labels for your own files, decode.Rank.labels for a task."
    )
  dataset = task.get_dataset(
    sequence_length=None, split="train", shuffle=False, num_epochs=1
  )
  found: set[str] = set()
  for row in dataset.as_numpy_iterator():
    found.add(_text(row["targets_pretokenized"]))
    if len(found) > at_most:
      raise ValueError(
        f"{task.name} has more than {at_most} different targets, too many for "
        "class labels. Decode greedily instead of by rank, or name the labels "
        "in decode.Rank.labels."
      )
  return tuple(sorted(found))


def postprocess(
  examples: Examples, texts: Sequence[str], *, is_target: bool
) -> list[Any]:
  """What the task's metrics are computed on, from predictions or targets."""
  task = seqio.TaskRegistry.get(examples.task)
  return [
    task.postprocess_fn(text, example=row, is_target=is_target)
    for text, row in zip(texts, examples.fields, strict=True)
  ]


def metric_names(task: str) -> list[str]:
  """The names of the functions that score a task's predictions."""
  functions = seqio.TaskRegistry.get(task).predict_metric_fns
  return [getattr(f, "__qualname__", type(f).__name__) for f in functions]


def metrics(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
  """The task's metrics of predicted texts.

  Rows of this project's tasks whose answers are not public do not count;
  without any other row there are no metrics.

  Raises:
    ValueError: the task has no metric on predictions.
  """
  functions = seqio.TaskRegistry.get(examples.task).predict_metric_fns
  if not functions:
    raise ValueError(
      f"{examples.task} has no metric on predictions. Give the task a "
      "metric function of (targets, predictions)."
    )
  targets = postprocess(examples, examples.target_texts(), is_target=True)
  answers = postprocess(examples, predictions, is_target=False)
  if examples.task in benchmark.registered:
    known = [not is_hidden(target) for target in targets]
    targets = list(itertools.compress(targets, known))
    answers = list(itertools.compress(answers, known))
  values = {}
  if not targets:
    logging.getLogger(__name__).warning(
      "%s, split %s: the answers are not public, so there is no score.",
      *(examples.task, examples.split),
    )
    return values
  for function in functions:
    for name, value in function(targets, answers).items():
      number: Any = getattr(value, "value", value)
      values[name] = float(number)
  return values


def input_texts(examples: Examples) -> list[str]:
  """The inputs as text."""
  return [_text(row["inputs_pretokenized"]) for row in examples.fields]


def _text(value) -> str:
  return value.decode("utf-8") if isinstance(value, bytes) else str(value)
