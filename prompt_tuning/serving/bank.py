"""The prompts that are served: names, their places in one bank, their text.

    name, text -> ids with the prompt's places -> a row of the engine

A `Bank` never changes: prompts that come and go make another one. A request
keeps the bank that it was read with, so what it asked for is what answers.
"""

from collections.abc import Mapping
import dataclasses

import jax
import numpy as np

from prompt_tuning.frozen import pretrained
from prompt_tuning.model import inject
from prompt_tuning.prompts import checkpoints, prompt, prompted
from prompt_tuning.shapes import EOS, PAD, Int, power_of_two

LEAST = 16
"""How many prompts a bank has room for at least; it doubles when it is full."""


@dataclasses.dataclass(frozen=True)
class Bank:
  """Prompts by name, and the network with all of them.

  Attributes:
    model: the frozen model.
    own: its name, by which it answers without a prompt.
    longest: positions of a prompt at most.
    named: the prompts.
    places: where each stands in the network's bank. Nobody stands at 0: zeros
      of `longest` positions make the bank's shape that of any other.
    size: how many places there are.
    prompted: the network.
  """

  model: pretrained.FrozenModel
  own: str
  longest: int
  named: Mapping[str, checkpoints.SavedPrompt]
  places: Mapping[str, int]
  size: int
  prompted: prompted.Prompted

  def __contains__(self, name: str) -> bool:
    return name == self.own or name in self.named

  @property
  def names(self) -> list[str]:
    """Every name, the frozen model's last."""
    return [*self.named, self.own]

  def tokens(self, name: str, text: str) -> Int[np.ndarray, "T"]:
    """The ids of an input behind the places of a prompt, EOS at its end."""
    ids = [*self.prompted.vocabulary.encode(text), EOS]
    whole = np.array([ids], np.int32)
    if name == self.own:
      return whole[0]
    place = np.array([self.places[name]], np.int32)
    row = self.prompted.reserve(whole, place)[0]
    return row[np.argmax(row != PAD) :]  # no padding in front

  def changed(
    self, changes: Mapping[str, checkpoints.SavedPrompt | None]
  ) -> "Bank":
    """The bank with other prompts under these names; None for no prompt.

    Raises:
      ValueError: a prompt is too long, has more than rows, or has the frozen
        model's name.
    """
    named, places = dict(self.named), dict(self.places)
    for name, saved in changes.items():
      if saved is None:
        del named[name], places[name]
        continue
      self._check(name, saved)
      named[name] = saved
      taken = {0, *places.values()}
      free = (n for n in range(len(taken) + 1) if n not in taken)
      places.setdefault(name, next(free))
    size = power_of_two(max(self.size, 1 + max(places.values(), default=0)))
    return _made(self.model, self.own, self.longest, named, places, size)

  def _check(self, name: str, saved: checkpoints.SavedPrompt) -> None:
    if name == self.own:
      raise ValueError(
        f"A prompt cannot be called {name!r}: so is the frozen model alone."
      )
    if len(saved.plain("a server")) > self.longest:
      raise ValueError(
        f"The prompt {name!r} has {len(saved.values)} positions, and the "
        f"server was started for {self.longest} at most. Start it with "
        f"--gin.LONGEST_PROMPT={len(saved.values)}."
      )


def empty(model: pretrained.FrozenModel, own: str, longest: int) -> Bank:
  """A bank of no prompts."""
  return _made(model, own, longest, {}, {}, LEAST)


def _made(model, own, longest, named, places, size) -> Bank:
  width = model.config.emb_dim
  rows = [np.zeros((0, width), np.float32)] * size
  rows[0] = np.zeros((longest, width), np.float32)
  placings = [inject.Placing()] * size
  for name, saved in named.items():
    rows[places[name]], placings[places[name]] = saved.values, saved.placing
  made = prompted.with_prompts(model, rows, placings)
  on_device = jax.device_put(made.params[prompt.NAME])
  params = {**made.params, prompt.NAME: on_device}
  made = dataclasses.replace(made, params=params)
  return Bank(model, own, longest, named, places, size, made)
