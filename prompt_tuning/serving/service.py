"""A service: the model, its prompts and its engine, without any HTTP.

    named prompts, Settings -> Service -> prepare -> rows are taken
                                  ^ load, unload: another bank

Nothing is read from a path that a client named: what may be loaded while it
runs is in the folder that it was started with.
"""

from collections.abc import Mapping, Sequence
import logging
import os
import pathlib
import threading
import time

import jax

from prompt_tuning.prompts import checkpoints
from prompt_tuning.serving import bank as banks
from prompt_tuning.serving import shelf as shelves
from prompt_tuning.serving.engine import Engine
from prompt_tuning.serving.programs import Programs
from prompt_tuning.serving.rows import Row
from prompt_tuning.serving.settings import Settings

_log = logging.getLogger(__name__)


class NotReady(Exception):
  """The programs are still being compiled."""


class Service:
  """Named prompts in front of one frozen model.

  Args:
    settings: model, shapes and limits.
    prompts: paths by name; each has to be a prompt for this model.
    folder: a folder of prompts, those of other models are left out; from there
      prompts can be loaded later.

  Attributes:
    settings: as given.
    bank: the prompts as they are now.
    since: when each name was loaded, seconds of the epoch.
    compilations: programs that JAX has compiled since it was ready.

  Raises:
    ValueError: a prompt cannot be served.
  """

  def __init__(
    self,
    settings: Settings,
    prompts: Mapping[str, str | os.PathLike],
    folder: str | os.PathLike | None = None,
  ):
    self.settings = settings
    self._shelf = None if folder is None else shelves.Shelf(folder)
    self._stamps: dict[str, tuple] = {}
    self.since: dict[str, int] = {}
    saved = {name: self._read(name, path) for name, path in prompts.items()}
    for name, path in (self._shelf.paths() if self._shelf else {}).items():
      if name not in saved:
        try:
          saved[name] = self._read(name, path)
        except (ValueError, OSError) as error:
          _log.warning("%s is not served: %s", name, error)
    lengths = [len(one.values) for one in saved.values()]
    longest, sizes = settings.sizes(lengths)
    own = own_name(settings.model.source)
    self.bank = banks.empty(settings.model, own, longest).changed(saved)
    self.since[own] = int(time.time())
    self.sizes = sizes
    self._programs = Programs(settings.model, sizes)
    self._engine: Engine | None = None
    self._changing = threading.Lock()
    self._is_counting = False
    self.compilations = 0

  def _read(self, name: str, path) -> checkpoints.SavedPrompt:
    stamp = shelves.stamp(path)
    saved = checkpoints.load_prompt(
      path,
      self.settings.model,
      allow_other_model=self.settings.allow_other_model,
    )
    saved.plain("a server")
    self._stamps[name], self.since[name] = stamp, int(time.time())
    return saved

  # The engine.

  def prepare(self) -> int:
    """Compiles all programs, and starts; returns how many there are."""
    self._programs.compile()
    self._programs.add_bank(self.bank.prompted)
    self._engine = Engine(self._programs, self.settings.most_waiting)
    jax.monitoring.register_event_duration_secs_listener(self._heard)
    self._is_counting = True
    return len(self._programs)

  def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
    del duration_secs
    if self._is_counting and event.endswith("backend_compile_duration"):
      self.compilations += 1

  @property
  def engine(self) -> Engine:
    """The engine.

    Raises:
      NotReady: it has not been started.
    """
    if self._engine is None:
      raise NotReady()
    return self._engine

  @property
  def is_ready(self) -> bool:
    """Whether rows are taken."""
    return self._engine is not None and not self._engine.is_closed

  def submit(self, rows: Sequence[Row]) -> None:
    """`Engine.submit`.

    Raises:
      NotReady, Full, Closed: they are not taken.
    """
    self.engine.submit(rows)

  def close(self) -> None:
    """Ends when every row has been answered."""
    self._is_counting = False
    if self._engine is not None:
      self._engine.close()

  # Prompts that come and go.

  def load(self, name: str) -> bool:
    """Loads a prompt of the folder, or loads it again.

    Returns:
      Whether it is another prompt than before.

    Raises:
      ValueError: there is none of this name, or it cannot be served.
    """
    if self._shelf is None:
      raise ValueError(
        "The server was started without --prompts FOLDER, so there is nothing "
        "to load from."
      )
    with self._changing:
      before = self.bank.named.get(name)
      saved = self._read(name, self._shelf.path(name))
      changed = self.bank.changed({name: saved})
      if self._engine is not None:
        self._programs.add_bank(changed.prompted)
      self.bank = changed
    return (
      before is None
      or before.record != saved.record
      or bool(
        (before.values.shape != saved.values.shape)
        or (before.values != saved.values).any()
      )
    )

  def unload(self, name: str) -> None:
    """Forgets a prompt; requests that have begun are answered.

    Raises:
      KeyError: it is not loaded.
    """
    with self._changing:
      self.bank = self.bank.changed({name: None})
      self._stamps.pop(name, None)
      self.since.pop(name, None)

  def is_changed(self, name: str) -> bool:
    """Whether a loaded prompt's files are others now."""
    path = self.bank.named[name].path
    try:
      return shelves.stamp(path) != self._stamps.get(name)
    except OSError:
      return True

  def loadable(self) -> list[str]:
    """Names in the folder."""
    return sorted(self._shelf.paths()) if self._shelf else []


def own_name(source: str) -> str:
  """What the frozen model is called: its folder's name, or as on the hub."""
  path = pathlib.Path(source)
  return path.resolve().name if path.exists() else source
