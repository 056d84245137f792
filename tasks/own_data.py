"""A user's own files as a task: a template, a target field, labels, metrics.

    train.jsonl, dev.jsonl + "premise: {premise} hypothesis: {hypothesis}"
        -> `rows.own_files`: examples -> a task -> its name
    rows.jsonl without answers -> `to_predict` -> `inference.jobs.infer_rows`

Nothing is written in Python for it: `prompt-tuning train --data …` and
`data/own_data.gin` call `register`. A folder instead of a file is the unzipped
download of GLUE or SuperGLUE, whose own task is used (`official_task`).
"""

from collections.abc import Callable, Sequence
import functools
import os

from prompt_tuning.tasks import (
  answers,
  benchmark,
  declarations,
  metrics,
  register_all,
)
from prompt_tuning.tasks.rows import sources, text_to_text
from prompt_tuning.tasks.rows.own_files import (
  METRICS,
  OF_NUMBERS,
  OwnData,
  labelled,
  listed,
)

_known: dict[str, OwnData] = {}


def register(
  *,
  train: str | None = None,
  validation: str | None = None,
  test: str | None = None,
  template: str = "",
  target: str = "label",
  labels: Sequence[str] | str = (),
  metric: Sequence[str] | str = ("accuracy",),
  skip_bad_rows: bool = False,
  name: str = "own_data",
) -> str:
  """Registers a task of one's own files; see `OwnData` for the arguments.

  Returns:
    The name of the task: `name`. The same files are registered once, and others
    under the same name take its place.

  Raises:
    ValueError: a setting is not usable.
  """
  own = OwnData(
    train,
    validation,
    test,
    template,
    target,
    labelled(labels),
    listed(metric),
    skip_bad_rows,
  )
  if _known.get(name) == own:
    return name
  if name != "own_data":
    register_all()  # so that their names are taken
  if name not in _known and text_to_text.is_taken(name):
    raise ValueError(
      f"There is already a task {name!r}; name yours with --name."
    )
  text_to_text.add(
    text_to_text.TextToText(
      name,
      own.examples,
      own.splits,
      fields=("answers",),
      postprocess=_postprocess(own),
      scores=[
        *(METRICS[name](len(own.classes)) for name in own.metric),
        metrics.invalid,
      ],
    )
  )
  declarations.declare(name, labels=own.classes, template=own.template)
  _known[name] = own
  return name


def to_predict(
  *,
  data: str,
  template: str,
  labels: Sequence[str] | str = (),
  skip_bad_rows: bool = False,
) -> OwnData:
  """A file of rows to predict, with answers or without; see `OwnData`.

  Raises:
    ValueError: a setting is not usable.
  """
  return OwnData(
    *(None, None, data, template, ""),
    labels=labelled(labels),
    skip_bad_rows=skip_bad_rows,
  )


def _postprocess(own: OwnData) -> Callable:
  if OF_NUMBERS.intersection(own.metric):
    return answers.number
  return answers.class_of(own.classes) if own.labels else answers.answers


@functools.cache
def official_task(folder: str | os.PathLike, task: str | None = None) -> str:
  """The task of a download folder of GLUE or SuperGLUE.

  Args:
    folder: that of one task (`SuperGLUE/BoolQ`) or of the whole benchmark.
    task: which of them, or the mixture of all (`super_glue`); needed when
      there are several.

  Raises:
    ValueError: the folder is none of theirs, or holds several tasks.
  """
  here = sources.use_folder(folder)
  known = {*here, *(name.rpartition("_")[0] for name in here)}
  if task is not None:
    if task.removesuffix(benchmark.T5_FORM) not in known:
      raise ValueError(
        f"OFFICIAL_TASK={task!r} is not in {folder}; it holds "
        f"{', '.join(here)}."
      )
    return task
  of_mnli = ("glue_mnli", "glue_ax")  # the four that the folder MNLI may hold
  if len(here) > 1 and not all(name.startswith(of_mnli) for name in here):
    raise ValueError(
      f"{folder} holds {', '.join(here)}. Choose one of them with "
      "--gin.OFFICIAL_TASK=…, or give its own folder."
    )
  return here[0]
