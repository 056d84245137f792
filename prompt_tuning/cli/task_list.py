"""What `prompt-tuning tasks` shows: the tasks, and one of them in full.

Nothing is read for it but the texts of a microworld task: the form of a task of
a benchmark is its cast of a row of blanks.
"""

import itertools
from typing import Any
import warnings

from prompt_tuning import tasks
from prompt_tuning.data import registry, scoring, splits
from prompt_tuning.tasks import benchmark, casts, microworld
from prompt_tuning.tasks.rows import sources

_CARVED = (sources.TRAIN_PART, sources.HELD_OUT)
_LENGTHS = {"inputs": 4096, "targets": 4096}


class _Blank(dict):
  """A row that has every field."""

  def __missing__(self, name: str) -> str:
    return "…"


_BLANK = _Blank(
  label=0,
  idx=dict.fromkeys(("paragraph", "question", "answer", "passage", "query"), 0),
  answers=["…"],
  entities=["…", "…"],
  candidates=["…", "…"],
  sentence="… it …",
  pronoun="it",
  text="… it …",
  span2_text="it",
  span2_index=1,
)


def summary() -> list[str]:
  """One line per task: name, metrics, splits; then the mixtures."""
  tasks.register_all()
  forms = [n for n in benchmark.registered if not n.endswith(benchmark.T5_FORM)]
  lines = []
  for name in (*microworld.LABELS, *forms):
    shown = [split for split in _splits(name) if split not in _CARVED]
    lines.append((name, ", ".join(_metrics(name)) or "-", ", ".join(shown)))
  first, second, _ = (
    max(map(len, cells)) for cells in zip(*lines, strict=True)
  )
  return [
    *(f"{n:<{first}}  {metrics:<{second}}  {s}" for n, metrics, s in lines),
    "",
    f"Mixtures: {', '.join(registry.mixtures())}",
    f"Where a benchmark has train, there are also {' and '.join(_CARVED)}.",
    "A name with _t5 behind it is T5's own form of a task, with the task word.",
    "prompt-tuning tasks NAME shows one of them.",
  ]


def describe(name: str) -> dict[str, Any]:
  """The facts of one task or mixture.

  Raises:
    ValueError: there is no such task; the message has the closest names.
  """
  parts = registry.tasks_of(name)
  if len(parts) > 1:
    return {"mixture": name, "rates": dict(parts)}
  task, example = benchmark.registered.get(name), _example(name)
  return {
    "task": name,
    **({"source": f"TFDS {task.source.name}"} if task else {}),
    "splits": ", ".join(_splits(name)),
    "metrics": ", ".join(_metrics(name)) or "none: no public answers",
    "input": example["inputs"],
    "target": example["targets"],
  }


def _splits(name: str) -> list[str]:
  return list(registry.find(name).splits)


def _example(name: str) -> dict[str, Any]:
  task = benchmark.registered.get(name)
  if task is None:
    examples = splits.load(name, _splits(name)[-1], _LENGTHS)
    return {
      "inputs": examples.input_texts()[0],
      "targets": examples.target_texts()[0],
    }
  cast = task.cast
  if task.has_task_word and not name.endswith(benchmark.T5_FORM):
    cast = casts.without_task_word(cast)
  return cast(_BLANK)[0]


def _metrics(name: str) -> list[str]:
  """The metrics' names, found by scoring an example with itself."""
  task: Any = registry.find(name)
  if name not in benchmark.registered:
    return [function.__name__ for function in task.predict_metric_fns]
  example = _example(name)
  row = {**example, "targets_pretokenized": example["targets"]}
  both = [
    [task.postprocess_fn(example["targets"], example=row, is_target=side)] * 2
    for side in (True, False)
  ]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # one class makes no correlation
    scores = [function(*both) for function in task.predict_metric_fns]
  names = itertools.chain.from_iterable(scores)
  return [name for name in names if name != scoring.INVALID]
