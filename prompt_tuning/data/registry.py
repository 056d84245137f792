"""Which tasks there are, and what they say of themselves.

name -> task or mixture -> its tasks with their rates, labels, metrics, rows
"""

from collections.abc import Callable, Iterator, Sequence
import difflib
import functools
import importlib
import pathlib
import sys
from typing import Any

from prompt_tuning import tasks
from prompt_tuning.tasks import answers, declarations, features
from prompt_tuning.tasks.features import seqio
from prompt_tuning.tasks.rows import text_to_text
from prompt_tuning.vocabulary import Vocabulary


def _registered() -> list[str]:
  """The names of all tasks and mixtures; seqio's too if it is imported."""
  own = text_to_text.names()
  if "seqio" not in sys.modules:
    return own
  theirs = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
  return list(dict.fromkeys([*own, *theirs]))


def find(name: str) -> Any:
  """A task or mixture: registered in seqio by a user, or one of this project's.

  Those of this project are `text_to_text`'s, and the others seqio's own.

  Raises:
    ValueError: there is none; the message has the closest names.
  """
  if name not in _registered():
    tasks.register_all()
  names = _registered()
  if name not in names:
    close = difflib.get_close_matches(name, names, 3, 0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(
      f"{name!r} is no registered seqio task or mixture. {hint}`prompt-tuning "
      "tasks` lists them. A task of your own files needs --data and its flags "
      "in every command, own_data.register in Python; a module of yours that "
      "registers one is named by MIXTURE_OR_TASK_MODULE (for an ensemble by "
      "--task_module), and imported in Python."
    )
  return text_to_text.find(name) or seqio.get_mixture_or_task(name)


def import_modules(modules: str | Sequence[str], setting: str) -> None:
  """Imports the modules that register a user's tasks.

  Args:
    modules: their names, with commas between them, or a list.
    setting: what the user calls them, for the message.

  Raises:
    ValueError: there is no such module.
  """
  if str(pathlib.Path()) not in sys.path and "" not in sys.path:
    sys.path.insert(0, "")  # a module in the current folder, as python -m
  names = modules.split(",") if isinstance(modules, str) else modules
  if any(not name.strip().startswith("prompt_tuning.") for name in names):
    _ = seqio.TaskRegistry  # quietly, before a user's module does
  for module in names:
    try:
      importlib.import_module(module.strip())
    except ModuleNotFoundError as error:
      raise ValueError(
        f"{setting}={module!r} cannot be imported ({error}). Run the "
        "command from the folder of the module, or put it on PYTHONPATH."
      ) from error


def mixtures() -> list[str]:
  """The names of all registered mixtures."""
  theirs = seqio.MixtureRegistry.names() if "seqio" in sys.modules else ()
  return sorted({*text_to_text.names(text_to_text.Mixture), *theirs})


def tasks_of(name: str) -> list[tuple[str, float]]:
  """The tasks of a mixture with their rates; a task alone has rate 1."""
  mixture = find(name)
  if isinstance(mixture, text_to_text.Mixture):
    return [(task, float(rate)) for task, rate in mixture.rates.items()]
  if hasattr(mixture, "get_rate"):
    return [(t.name, float(mixture.get_rate(t))) for t in mixture.tasks]
  return [(name, 1.0)]


def task_names(names: str | Sequence[str]) -> list[str]:
  """The tasks of MIXTURE_OR_TASK_NAME, with mixtures taken apart."""
  listed = [names] if isinstance(names, str) else names
  return [task for name in listed for task, _ in tasks_of(name)]


def check_vocabulary(name: str, vocabulary: Vocabulary | None) -> None:
  """Compares a task's vocabulary with the frozen model's.

  Raises:
    ValueError: they differ, so the model would read other words.
  """
  if vocabulary is None:
    return
  for theirs in _vocabularies(find(name)):
    size = getattr(theirs, "size", None) or theirs.vocab_size
    probe = "the frozen model reads 1 prompt."
    if size != vocabulary.size or list(
      theirs.encode(probe)
    ) != vocabulary.encode(probe):
      raise ValueError(
        f"The vocabulary of {name} ({_describe(theirs)}, "
        f"{size} ids) is not that of the frozen model "
        f"({vocabulary.path}, {vocabulary.size} ids). Register the task with "
        "the model's vocabulary."
      )


def _vocabularies(task) -> list[Any]:
  """Those that a task brings; none if it takes the model's."""
  if isinstance(task, text_to_text.TextToText):
    return [task.vocabulary] if task.vocabulary else []
  brought = [f.vocabulary for f in task.output_features.values()]
  return [v for v in brought if not isinstance(v, features.ModelVocabulary)]


def _describe(vocabulary) -> str:
  path = getattr(vocabulary, "path", None)
  path = path or getattr(vocabulary, "sentencepiece_model_file", None)
  return str(path or type(vocabulary).__name__)


def rows(
  task: Any, split: str, vocabulary: Vocabulary | None
) -> Iterator[dict[str, Any]]:
  """The ids `inputs` and `targets` of a split's examples, and their fields.

  Args:
    task: of `find`.
    split: one of its splits.
    vocabulary: the frozen model's; None for the one that tasks have without
      a model (see `tasks.features`).
  """
  if isinstance(task, text_to_text.TextToText):
    reader = task.vocabulary or vocabulary
    if reader is not None:
      yield from task.rows(split, reader)
      return
    task = seqio.get_mixture_or_task(task.name)
  with features.using(vocabulary):
    dataset = task.get_dataset(
      sequence_length=None, split=split, shuffle=False, num_epochs=1
    )
  for row in dataset.as_numpy_iterator():
    ids = {name: row[name].tolist() for name in ("inputs", "targets")}
    yield {**row, **ids}


def labels(
  task: str, vocabulary: Vocabulary | None = None, at_most: int = 50
) -> list[str]:
  """The labels of a classification task, sorted.

  A task that declares labels (one of this project, one of `--data` with
  `--labels`, see `tasks.declarations`) has those; any other has the distinct
  targets of its training split. The answers of a split that is scored are never
  looked at: they would say what to choose from.

  Args:
    task: its name.
    vocabulary: the frozen model's, for reading the task.
    at_most: more are no classification.

  Raises:
    ValueError: there are too many, or there is no training split to tell.
  """
  found = find(task)  # registers it, and its labels
  if known := declarations.declared(task).labels:
    return sorted(known)
  if "train" not in found.splits:
    raise ValueError(
      f"{task} names no labels and has no split 'train' to tell them by. "
      "Name them: --labels for your own files, decode.Rank.labels for a task."
    )
  return list(_training_targets(found, vocabulary, at_most))


@functools.lru_cache(64)
def _training_targets(
  task: Any, vocabulary: Vocabulary | None, at_most: int
) -> tuple[str, ...]:
  targets: set[str] = set()
  for row in rows(task, "train", vocabulary):
    targets.add(answers.text_of(row["targets_pretokenized"]))
    if len(targets) > at_most:
      raise ValueError(
        f"{task.name} has more than {at_most} different targets, too many for "
        "class labels. Decode greedily instead of by rank, or name the labels "
        "in decode.Rank.labels."
      )
  return tuple(sorted(targets))


def metric_functions(task: str) -> list[Callable]:
  """The functions that score a task's predictions."""
  return find(task).predict_metric_fns


def metric_names(task: str) -> list[str]:
  """Their names."""
  functions = metric_functions(task)
  return [getattr(f, "__qualname__", type(f).__name__) for f in functions]
