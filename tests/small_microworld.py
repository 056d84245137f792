"""The microworld with smaller splits, of the same parts of the world."""

from collections.abc import Iterator
import contextlib

from prompt_tuning.study import ways
from prompt_tuning.tasks.microworld import examples as microworld_examples

SMALL = {"train": 64, "validation": 32, "test": 32}


@contextlib.contextmanager
def splits(sizes) -> Iterator[None]:
  """Splits of other sizes, until the end of the block."""
  before = dict(microworld_examples.SPLITS)

  def set_to(new):
    microworld_examples.SPLITS.update(new)
    microworld_examples.examples.cache_clear()
    ways.whole.cache_clear()

  set_to(sizes)
  try:
    yield
  finally:
    set_to(before)
