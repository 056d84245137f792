"""seqio's registry: which tasks there are, and what they say of themselves.

name -> task or mixture -> its tasks with their rates, labels, metrics
"""

from collections.abc import Sequence
import difflib
import functools

from prompt_tuning import tasks
from prompt_tuning.tasks import answers, declarations, features
from prompt_tuning.tasks.features import seqio
from prompt_tuning.vocabulary import Vocabulary


def _registered() -> list[str]:
  return [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]


def find(name: str):
  """A seqio task or mixture: registered by a user, or one of this project's.

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
      "in every command; a module of yours that registers one is named by "
      "MIXTURE_OR_TASK_MODULE (for an ensemble by --task_module)."
    )
  return seqio.get_mixture_or_task(name)


def mixtures() -> list[str]:
  """The names of all registered mixtures."""
  return sorted(seqio.MixtureRegistry.names())


def tasks_of(name: str) -> list[tuple[str, float]]:
  """The tasks of a mixture with their rates; a task alone has rate 1."""
  mixture = find(name)
  if isinstance(mixture, seqio.Mixture):
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
  for feature in find(name).output_features.values():
    theirs = feature.vocabulary
    if isinstance(theirs, features.ModelVocabulary):
      continue  # `splits.load` gives it the model's
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
  find(task)  # so that it is registered
  if known := declarations.declared(task).labels:
    return sorted(known)
  with features.using(vocabulary):
    return list(_training_targets(seqio.TaskRegistry.get(task), at_most))


@functools.lru_cache(64)
def _training_targets(task: "seqio.Task", at_most: int) -> tuple[str, ...]:
  if "train" not in task.splits:
    raise ValueError(
      f"{task.name} names no labels and has no split 'train' to tell them by. "
      "Name them: --labels for your own files, decode.Rank.labels for a task."
    )
  dataset = task.get_dataset(
    sequence_length=None, split="train", shuffle=False, num_epochs=1
  )
  targets: set[str] = set()
  for row in dataset.as_numpy_iterator():
    targets.add(answers.text_of(row["targets_pretokenized"]))
    if len(targets) > at_most:
      raise ValueError(
        f"{task.name} has more than {at_most} different targets, too many for "
        "class labels. Decode greedily instead of by rank, or name the labels "
        "in decode.Rank.labels."
      )
  return tuple(sorted(targets))


def metric_names(task: str) -> list[str]:
  """The names of the functions that score a task's predictions."""
  functions = seqio.TaskRegistry.get(task).predict_metric_fns
  return [getattr(f, "__qualname__", type(f).__name__) for f in functions]
