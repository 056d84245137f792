"""The microworld with smaller splits, of the same parts of the world."""

from collections.abc import Iterator
import contextlib
import functools

from prompt_tuning.study import tuned
from prompt_tuning.tasks import metrics, microworld
from prompt_tuning.tasks.microworld import examples as microworld_examples
from prompt_tuning.tasks.rows import text_to_text

SMALL = {"train": 64, "validation": 32, "test": 32}


@contextlib.contextmanager
def splits(sizes) -> Iterator[None]:
  """Splits of other sizes, until the end of the block."""
  before = dict(microworld_examples.SPLITS)

  def set_to(new):
    microworld_examples.SPLITS.update(new)
    microworld_examples.examples.cache_clear()
    tuned.whole.cache_clear()

  set_to(sizes)
  try:
    yield
  finally:
    set_to(before)


@functools.cache
def first_of(name: str, split: str, count: int) -> str:
  """Registers a task of the first examples of a split; its name."""
  rows = microworld_examples.examples(name, split)[:count]
  first = f"{name}_first_{len(rows)}"
  text_to_text.add(
    text_to_text.TextToText(
      first,
      lambda _: rows,
      (split,),
      scores=(metrics.accuracy,),
      vocabulary=microworld.shipped_vocabulary(),
    )
  )
  return first
