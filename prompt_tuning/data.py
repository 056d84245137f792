"""seqio tasks as arrays: load a split once, then batches by step.

    task -> Examples (ids and fields, in memory) -> batch(step): [N * B, P + T]

Only this module and `tasks/` import seqio. The order of the examples is a
function of seed and step, so a resumed run sees the examples that it would have
seen. Nothing is cut in silence: `Examples.truncated` counts.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import functools
import importlib
import itertools
import logging
from typing import Any

import numpy as np
import seqio

from prompt_tuning import inject
from prompt_tuning.shapes import Int
from prompt_tuning.tasks import BENCHMARKS, benchmark
from prompt_tuning.tasks import vocabulary as task_vocabulary
from prompt_tuning.tasks.answers import is_hidden
from prompt_tuning.vocabulary import EOS, PAD, Vocabulary

INVALID = "invalid"
"""The metric that counts predictions which are no valid answer; no score."""

_BLOCK = 8192  # places of a mixture's schedule that are drawn together


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
    hint = (
      f"Did you mean {' or '.join(close)}?"
      if close
      else f"Known are: {', '.join(sorted(names)) or 'none'}."
    )
    raise ValueError(
      f"MIXTURE_OR_TASK_NAME={name!r} is no registered seqio task or "
      f"mixture. {hint} A task of your own is registered by the module that "
      "MIXTURE_OR_TASK_MODULE names."
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
  for feature in ("inputs", "targets"):
    if feature not in lengths:
      raise ValueError(
        f"TASK_FEATURE_LENGTHS={dict(lengths)} has no length for {feature!r}. "
        'Set for example {"inputs": 128, "targets": 8}.'
      )
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
  return Examples(
    name,
    split,
    Rows.of(columns["inputs"]),
    Rows.of(columns["targets"]),
    fields,
    truncated,
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


def labels(examples: Examples, at_most: int = 50) -> list[str]:
  """The labels of a classification task, sorted: its distinct target texts.

  A task of this project names its own, so that rows with hidden answers have
  them too.

  Raises:
    ValueError: there are more than `at_most`, so it is no classification.
  """
  own = benchmark.registered.get(examples.task)
  if own is not None and own.labels:
    return sorted(own.labels)
  found = sorted(set(examples.target_texts()))
  if len(found) > at_most:
    raise ValueError(
      f"{examples.task} has {len(found)} different targets, too many for "
      "class labels. Use another initialiser, or set CLASS_LABELS."
    )
  return found


def width(sets: Sequence[Rows]) -> int:
  """The padded length that holds all sequences: a multiple of 8."""
  return -(-max(rows.longest for rows in sets) // 8) * 8


class TaskBatches:
  """Batches of one or several prompts, each with its own task and seed.

  Called with a step it returns `inputs` [N * B, P + T], `targets` [N * B, L]
  and `prompt_id` [N * B]: B examples for each of the N prompts. Prompt n gets
  what it would get alone with its seed.

  Args:
    sets: for each prompt its tasks with their rates; most have one task.
    seeds: for each prompt the seed of its order.
    batch_size: B, examples per prompt.
    prompt_length: P.
  """

  def __init__(
    self,
    sets: Sequence[Sequence[tuple[Examples, float]]],
    seeds: Sequence[int],
    *,
    batch_size: int,
    prompt_length: int,
  ):
    self._orders = [
      _Order([len(e) for e, _ in parts], [r for _, r in parts], seed)
      for parts, seed in zip(sets, seeds, strict=True)
    ]
    self._sets = [[examples for examples, _ in parts] for parts in sets]
    every = [examples for parts in self._sets for examples in parts]
    self._widths = (
      width([examples.inputs for examples in every]),
      width([examples.targets for examples in every]),
    )
    self._batch_size = batch_size
    self._prompt_length = prompt_length

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of a step."""
    first = step * self._batch_size
    inputs, targets = [], []
    for order, parts in zip(self._orders, self._sets, strict=True):
      for task, index in order.places(first, self._batch_size):
        one = np.array([index])
        inputs.append(parts[task].inputs.padded(one, self._widths[0]))
        targets.append(parts[task].targets.padded(one, self._widths[1]))
    prompt_id = np.repeat(
      np.arange(len(self._sets), dtype=np.int32), self._batch_size
    )
    return {
      "inputs": inject.reserve(
        np.concatenate(inputs), prompt_id, self._prompt_length
      ),
      "targets": np.concatenate(targets),
      "prompt_id": prompt_id,
    }


class _Order:
  """Which example stands at each place of an endless, shuffled sequence.

  Every task is gone through in a fresh permutation per epoch; a mixture's
  rates decide which task each place takes.
  """

  def __init__(self, sizes: Sequence[int], rates: Sequence[float], seed: int):
    self._sizes, self._seed = sizes, seed
    self._rates = np.array(rates) / np.sum(rates)
    self._before = [np.zeros(len(sizes), np.int64)]
    self._permutation = functools.lru_cache(2 * len(sizes))(self._shuffle)

  def _shuffle(self, task: int, epoch: int) -> np.ndarray:
    rng = np.random.default_rng([self._seed, 1, task, epoch])
    return rng.permutation(self._sizes[task])

  def _tasks(self, block: int) -> np.ndarray:
    rng = np.random.default_rng([self._seed, 2, block])
    return rng.choice(len(self._sizes), _BLOCK, p=self._rates)

  def _counts_before(self, block: int) -> np.ndarray:
    while len(self._before) <= block:
      drawn = self._tasks(len(self._before) - 1)
      counts = np.bincount(drawn, minlength=len(self._sizes))
      self._before.append(self._before[-1] + counts)
    return self._before[block]

  def places(self, first: int, count: int) -> list[tuple[int, int]]:
    """(task, index of the example) at `count` places from `first` on."""
    if len(self._sizes) == 1:
      return [(0, self._example(0, i)) for i in range(first, first + count)]
    found = []
    for place in range(first, first + count):
      block, inside = divmod(place, _BLOCK)
      tasks = self._block(block)
      task = int(tasks[inside])
      earlier = int((tasks[:inside] == task).sum())
      rank = int(self._counts_before(block)[task]) + earlier
      found.append((task, self._example(task, rank)))
    return found

  @functools.cached_property
  def _block(self):
    return functools.lru_cache(2)(self._tasks)

  def _example(self, task: int, rank: int) -> int:
    epoch, place = divmod(rank, self._sizes[task])
    return int(self._permutation(task, epoch)[place])


def postprocess(
  examples: Examples, texts: Sequence[str], *, is_target: bool
) -> list[Any]:
  """What the task's metrics are computed on, from predictions or targets."""
  task = seqio.TaskRegistry.get(examples.task)
  return [
    task.postprocess_fn(text, example=row, is_target=is_target)
    for text, row in zip(texts, examples.fields, strict=True)
  ]


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
