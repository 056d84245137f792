"""A split of a seqio task in memory, read once.

    task, split -> ids and fields of every example -> batches (see `batches`)

Nothing is cut in silence: `Examples.truncated` counts.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import hashlib
import logging
from typing import Any

import numpy as np

from prompt_tuning.data import registry
from prompt_tuning.shapes import Int
from prompt_tuning.tasks import answers, declarations
from prompt_tuning.vocabulary import EOS, PAD, UNK, Vocabulary


@dataclasses.dataclass(frozen=True)
class Sequences:
  """Sequences of ids of different lengths, one behind the other.

  Attributes:
    ids: all ids.
    starts: where each sequence begins, and the end of the last.
  """

  ids: np.ndarray
  starts: np.ndarray

  @classmethod
  def of(cls, sequences: Sequence[Sequence[int]]) -> "Sequences":
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

  def split(self) -> list[Int[np.ndarray, "_"]]:
    """The sequences one by one."""
    return np.split(self.ids, self.starts[1:-1])

  def padded(
    self, index: Int[np.ndarray, "B"], length: int
  ) -> Int[np.ndarray, "B T"]:
    """The sequences of `index`, padded to `length`."""
    at = self.starts[index][:, None] + np.arange(length)
    inside = at < self.starts[index + 1][:, None]
    safe = np.minimum(at, max(len(self.ids) - 1, 0))
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
    said: by its place, a target's text as the vocabulary gives it back, where
      that is another (double spaces, ligatures).
  """

  task: str
  split: str
  inputs: Sequences
  targets: Sequences
  fields: list[dict[str, Any]]
  truncated: dict[str, int]
  said: dict[int, str] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.inputs)

  def input_rows(self) -> list[Int[np.ndarray, "_"]]:
    """The ids of each input, EOS included."""
    return self.inputs.split()

  def input_texts(self) -> list[str]:
    """The inputs as text."""
    return self._texts("inputs_pretokenized")

  def target_texts(self) -> list[str]:
    """The targets as text."""
    return self._texts("targets_pretokenized")

  def _texts(self, field: str) -> list[str]:
    return [answers.text_of(row[field]) for row in self.fields]


def check_lengths(lengths: Mapping[str, int]) -> None:
  """Refuses TASK_FEATURE_LENGTHS without a positive length for each feature."""
  for feature in ("inputs", "targets"):
    length = lengths.get(feature)
    if type(length) is not int or length < 2:
      raise ValueError(
        f"TASK_FEATURE_LENGTHS={dict(lengths)} has no length for {feature!r}, "
        "or none above 1, which EOS alone takes. Set for example "
        '{"inputs": 128, "targets": 8}.'
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
  # What cannot work is refused before anything is read.
  registry.check_vocabulary(name, vocabulary)
  task = registry.find(name)
  splits = list(task.splits)
  if split not in splits:
    raise ValueError(
      f"{name} has no split {split!r}; its splits are {', '.join(splits)}."
    )
  check_lengths(lengths)
  if vocabulary is not None:
    _check_labels(name, vocabulary, lengths["targets"])

  # The ids come whole, so that what is cut can be counted.
  columns: dict[str, list] = {"inputs": [], "targets": []}
  truncated = {"inputs": 0, "targets": 0}
  fields = []
  for i, row in enumerate(registry.rows(task, split, vocabulary)):
    for feature, column in columns.items():
      ids = row.pop(feature)
      where = f"example {i} of {name}, split {split}"
      column.append(_fitted(ids, lengths[feature], feature, where, truncate))
      truncated[feature] += len(ids) > lengths[feature]
    fields.append(row)
  if not fields:
    raise ValueError(
      f"The split {split!r} of {name} is empty. Check the source of the task."
    )
  examples = Examples(
    name,
    split,
    Sequences.of(columns["inputs"]),
    Sequences.of(columns["targets"]),
    fields,
    truncated,
  )
  if vocabulary is not None:
    examples.said.update(_said(examples, vocabulary))
  _warn_of_losses(examples, lengths)
  return examples


def _said(examples: Examples, vocabulary: Vocabulary) -> dict[int, str]:
  """See `Examples.said`; what cannot be written at all is told elsewhere."""
  changed: dict[str, str] = {}
  for text in set(texts := examples.target_texts()):
    ids = vocabulary.encode(text)
    written = vocabulary.decode(ids)
    if written != text and UNK not in ids:
      changed[text] = written
  return {i: changed[t] for i, t in enumerate(texts) if t in changed}


def _warn_of_losses(examples: Examples, lengths: Mapping[str, int]) -> None:
  """Says what of a split the model will not see, or cannot say."""
  log, count = logging.getLogger(__name__), len(examples)
  where = f"{examples.task}, split {examples.split}"
  for feature, cut in examples.truncated.items():
    if cut:
      log.warning(
        "%s: %d of %d %s were longer than %d tokens and were cut.",
        *(where, cut, count, feature, lengths[feature]),
      )
  for feature, sequences, so in (
    ("targets", examples.targets, "no prediction will equal them"),
    ("inputs", examples.inputs, "the model sees that something stands there"),
  ):
    unknown = sum(UNK in ids for ids in sequences.split())
    if unknown:
      log.warning(
        "%s: %d of %d %s have characters that the vocabulary cannot write; %s.",
        *(where, unknown, count, feature, so),
      )
  if examples.said:
    at, said = next(iter(examples.said.items()))
    log.warning(
      "%s: %d of %d targets are written otherwise by the vocabulary, the first "
      "%r as %r; a prediction of that form counts as the target.",
      *(where, len(examples.said), count, examples.target_texts()[at], said),
    )


def _check_labels(name: str, vocabulary: Vocabulary, length: int) -> None:
  """Refuses labels that no prediction could ever be."""
  labels = declarations.declared(name).labels
  encoded = dict(zip(labels, vocabulary.encode_all(labels), strict=True))
  longest = max(encoded, key=lambda label: len(encoded[label]), default="")
  needed = len(encoded.get(longest, ())) + 1
  if needed > length:
    raise ValueError(
      f"The label {longest!r} of {name} has {needed} tokens with its end, and "
      f"TASK_FEATURE_LENGTHS['targets']={length} would cut it. Set it to "
      f"{needed} or more, or let the model say a shorter word; for your own "
      "files: --labels 'value=word,…'."
    )
  for label, ids in encoded.items():
    written = vocabulary.decode(ids)
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
