"""The prompts that are served: names, their places in one bank, their text.

    name, text -> ids with the prompt's places -> a row of the engine

A `Bank` never changes: prompts that come and go make another one. A request
keeps the bank it was read with, so what it asked for is what answers.
"""

from collections.abc import Mapping
import dataclasses

import jax
import numpy as np

from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts import checkpoints, prompt, prompted
from prompt_tuning.shapes import EOS, PAD, Int, power_of_two

LEAST = 16
"""Places that a bank has at least: it doubles when they are full."""


@dataclasses.dataclass(frozen=True)
class Bank:
  """Prompts by name, and the network with all of them.

  Attributes:
    prompted: the network.
    named: the prompts.
    places: where each stands in the network's bank.
    own: the name of the frozen model alone.
  """

  prompted: prompted.Prompted
  named: Mapping[str, checkpoints.SavedPrompt]
  places: Mapping[str, int]
  own: str

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


class Prompts:
  """Makes the bank, and the next one when a prompt comes or goes.

  Args:
    model: the frozen model.
    longest: positions of a prompt at most.
    own: the name of the frozen model alone.
  """

  def __init__(self, model: pretrained.FrozenModel, longest: int, own: str):
    self._model, self._longest, self._own = model, longest, own
    self._places: dict[str, int] = {}
    self._named: dict[str, checkpoints.SavedPrompt] = {}
    self._size = LEAST

  def put(self, name: str, saved: checkpoints.SavedPrompt) -> None:
    """Adds a prompt, or takes another one for a name.

    Raises:
      ValueError: it is too long, or has the name of the frozen model.
    """
    if name == self._own:
      raise ValueError(
        f"A prompt cannot be called {name!r}: so is the frozen model alone."
      )
    length = len(saved.values)
    if length > self._longest:
      raise ValueError(
        f"The prompt {name!r} has {length} positions, and the server was "
        f"started for {self._longest} at most. Start it with "
        f"--gin.LONGEST_PROMPT={length}."
      )
    if name not in self._places:
      # Nobody's place is 0: an empty prompt makes the bank as long as it is.
      taken = {0, *self._places.values()}
      place = next(n for n in range(len(taken) + 1) if n not in taken)
      self._places[name] = place
      self._size = power_of_two(max(self._size, place + 1))
    self._named[name] = saved

  def remove(self, name: str) -> None:
    """Forgets a prompt."""
    del self._named[name], self._places[name]

  def bank(self) -> Bank:
    """The bank as it is now."""
    width = self._model.config.emb_dim
    rows = [np.zeros((0, width), np.float32)] * self._size
    rows[0] = np.zeros((self._longest, width), np.float32)
    for name, saved in self._named.items():
      rows[self._places[name]] = saved.values
    made = prompted.with_prompts(self._model, rows)
    on_device = jax.device_put(made.params[prompt.NAME])
    params = {**made.params, prompt.NAME: on_device}
    made = dataclasses.replace(made, params=params)
    return Bank(made, dict(self._named), dict(self._places), self._own)
