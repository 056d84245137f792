"""What a task says of itself beside what seqio knows of it.

    declare("my_task", labels=("no", "yes")) -> declared("my_task").labels

The tasks of this project are declared when they are registered; a task that a
user registers in seqio may be declared by its own module, and need not be.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Declaration:
  """What is known of a task.

  Attributes:
    labels: the words of its classes; () for a task without classes.
    is_hidden: whether a postprocessed target is that of a row without a public
      answer, which no score counts; None where every row has one.
    benchmark: whose mean score it is a part of, "glue" for example.
    counts_as: the task that it shares its part of the mean with, as the two
      test sets of MNLI do; "" for a part of its own.
    template: the form of its inputs, "premise: {premise} …"; "" for none known.
  """

  labels: tuple[str, ...] = ()
  is_hidden: Callable[[Any], bool] | None = None
  benchmark: str = ""
  counts_as: str = ""
  template: str = ""


_declared: dict[str, Declaration] = {}


def declare(
  task: str,
  *,
  labels: Sequence[str] = (),
  is_hidden: Callable[[Any], bool] | None = None,
  benchmark: str = "",
  counts_as: str = "",
  template: str = "",
) -> None:
  """Says what a task is, see `Declaration`; a second call takes its place.

  Args:
    task: its name in seqio's registry, where it need not be yet.
    labels: the words of its classes.
    is_hidden: tells the targets that have no public answer.
    benchmark: whose mean it is a part of.
    counts_as: the task that it shares its part with.
    template: the form of its inputs.

  Raises:
    ValueError: the labels are one text instead of a list, or not all texts.
  """
  if isinstance(labels, str) or not all(isinstance(x, str) for x in labels):
    raise ValueError(
      f"The labels of {task!r} must be a list of texts, got {labels!r}. Write "
      'for example labels=("no", "yes").'
    )
  _declared[task] = Declaration(
    tuple(labels), is_hidden, benchmark, counts_as, template
  )


def declared(task: str) -> Declaration:
  """What a task said of itself; an empty declaration for one that did not."""
  return _declared.get(task, Declaration())
