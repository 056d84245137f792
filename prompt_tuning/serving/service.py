"""A service: the model, its prompts and its engine, without any HTTP.

    named prompts, Settings -> Service -> prepare -> rows are taken
                                  ^ load, unload: another bank

Nothing is read from a path that a client named: what may be loaded while it
runs is in the folder that it was started with.
"""

from collections.abc import Mapping, Sequence
import json
import logging
import os
import pathlib
import threading
import time
import weakref

import jax
import numpy as np

from prompt_tuning.prompts import checkpoints
from prompt_tuning.prompts.inner import tensors
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
    read = {}
    for name, path in prompts.items():
      shelves.check_name(name)
      read[name] = self._read(path)
    for name, path in (self._shelf.paths() if self._shelf else {}).items():
      if name not in read:
        try:
          read[name] = self._read(path)
        except (ValueError, OSError) as error:
          _log.warning("%s is not served: %s", name, error)
    for name, (_, stamp) in read.items():
      self._served(name, stamp)
    saved = {name: one for name, (one, _) in read.items()}
    room = settings.room([*saved.values()])
    own = own_name(settings.model.source)
    self.bank = banks.empty(settings.model, own, room).changed(saved)
    self.since[own] = int(time.time())
    self.sizes = settings.sizes(room)
    self._programs = Programs(settings.model, self.sizes)
    self._engine: Engine | None = None
    self._changing = threading.Lock()
    self._is_counting = False
    self.compilations = 0

  def _read(self, path) -> tuple[checkpoints.SavedPrompt, tuple]:
    """The prompt at a path, and the stamp of its files."""
    stamp = shelves.stamp(path)
    saved = checkpoints.load_prompt(
      path,
      self.settings.model,
      allow_other_model=self.settings.allow_other_model,
    )
    json.dumps(saved.record, ensure_ascii=False).encode()  # as it will be sent
    return saved, stamp

  def _served(self, name: str, stamp: tuple) -> None:
    """Notes what is served from now on under a name."""
    self._stamps[name], self.since[name] = stamp, int(time.time())

  # The engine.

  def prepare(self) -> int:
    """Compiles all programs, and starts; returns how many there are."""
    self._programs.compile(self.bank.prompted)
    self._engine = Engine(self._programs, self.settings.most_waiting)
    self._is_counting = True
    _listen(self)
    return len(self._programs)

  def give_up(self) -> None:
    """Lets `prepare` end with `GivenUp` after the program that it is at."""
    self._programs.is_given_up = True

  def heard(self, event: str) -> None:
    """Counts what JAX tells of."""
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

  def load(self, name: str) -> tuple[checkpoints.SavedPrompt, bool]:
    """Loads a prompt of the folder, or loads it again.

    Returns:
      It, and whether it is another than before.

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
      saved, stamp = self._read(self._shelf.path(name))
      changed = self.bank.changed({name: saved})
      self._serve(changed)
      self._served(name, stamp)
    return saved, (
      before is None
      or before.record != saved.record
      or not _are_equal(before, saved)
    )

  def _serve(self, bank: banks.Bank) -> None:
    """Serves another bank, once there are its programs."""
    if self._engine is not None:
      self._programs.add_bank(bank.prompted)
    self.bank = bank

  def unload(self, name: str) -> None:
    """Forgets a prompt; requests that have begun are answered.

    Raises:
      KeyError: it is not loaded.
    """
    with self._changing:
      self._serve(self.bank.changed({name: None}))
      self._stamps.pop(name, None)
      self.since.pop(name, None)

  def is_changed(self, name: str, saved: checkpoints.SavedPrompt) -> bool:
    """Whether the files of a prompt that was loaded are others now."""
    try:
      return shelves.stamp(saved.path) != self._stamps.get(name)
    except OSError:
      return True

  def loadable(self) -> list[str]:
    """Names in the folder."""
    return sorted(self._shelf.paths()) if self._shelf else []


def _are_equal(one: checkpoints.SavedPrompt, other) -> bool:
  """Whether two prompts have the same numbers."""
  first, second = (
    each.tensors or {tensors.ROWS: each.values} for each in (one, other)
  )
  return first.keys() == second.keys() and all(
    np.array_equal(array, second[name]) for name, array in first.items()
  )


def _listen(service: Service) -> None:
  """Tells a service what JAX does; JAX keeps what listens for ever."""
  known = weakref.ref(service)  # a service that is closed takes its model along

  def heard(event: str, duration_secs: float, **_: str | int) -> None:
    del duration_secs
    if (still := known()) is not None:
      still.heard(event)

  jax.monitoring.register_event_duration_secs_listener(heard)


def own_name(source: str) -> str:
  """What the frozen model is called: its folder's name, or as on the hub."""
  path = pathlib.Path(source)
  return path.resolve().name if path.exists() else source
