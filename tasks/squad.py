"""SQuAD 1.1: `squad`. There is no task word, so the task has one form.

Importing registers it. Rajpurkar et al. 2016; the cast is T5's.
"""

from prompt_tuning.tasks import answers, casts, metrics
from prompt_tuning.tasks.benchmark import Task, register
from prompt_tuning.tasks.rows.sources import Source

SOURCE = Source(
  "squad/v1.1:3.0.0",
  {"train": "train", "validation": "validation"},
  "context",
  87599,
)


def task(name: str, source: Source, **changes) -> Task:
  """A task of question, context and answers."""
  return Task(
    name,
    source,
    casts.question,
    answers.answers,
    (metrics.squad,),
    ("id", "answers"),
    has_task_word=False,
    **changes,
  )


register([task("squad", SOURCE)])
