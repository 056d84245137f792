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
from prompt_tuning.prompts.inner import tensors
from prompt_tuning.serving.sizes import Room
from prompt_tuning.shapes import EOS, PAD, Int, power_of_two

LEAST = 16
"""How many prompts a bank has room for at least; it doubles when it is full."""


@dataclasses.dataclass(frozen=True)
class Bank:
  """Prompts by name, and the network with all of them.

  Attributes:
    model: the frozen model.
    own: its name, by which it answers without a prompt.
    room: what a prompt may have.
    named: the prompts.
    places: where each stands in the network's bank. Nobody stands at 0: what
      fills the room there makes the bank's shape that of any other.
    size: how many places there are.
    prompted: the network.
  """

  model: pretrained.FrozenModel
  own: str
  room: Room
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
    return row[row != PAD]  # none is needed in front, and no text has any

  def beside(self, name: str) -> int:
    """How many of the tokens of a prompt's input are none of the text's."""
    if name == self.own:
      return 0
    return self.room.mark + len(self.named[name].values)

  def before(self, name: str) -> int:
    """How many rows a prompt has in front of an answer."""
    if name == self.own:
      return 0
    return tensors.lengths_of([self.named[name].tensors], tensors.DECODER_ROWS)[
      0
    ]

  def changed(
    self, changes: Mapping[str, checkpoints.SavedPrompt | None]
  ) -> "Bank":
    """The bank with other prompts under these names; None for no prompt.

    Raises:
      ValueError: a prompt is more than there is room for, or has the frozen
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
    return _made(self, named, places, size)

  def _check(self, name: str, saved: checkpoints.SavedPrompt) -> None:
    if name == self.own:
      raise ValueError(
        f"A prompt cannot be called {name!r}: so is the frozen model alone."
      )
    room, length = self.room, len(saved.values)
    if length > room.rows:
      raise ValueError(
        f"The prompt {name!r} ({saved.path}) has {length} positions, and the "
        f"server was started for {room.rows} at most. Start it with "
        f"--gin.LONGEST_PROMPT={length}."
      )
    again = (
      "Start it again with this prompt among those that it serves, "
      "or train a prompt in front of the input (methods/deep.gin, or none)."
    )
    (before,) = tensors.lengths_of([saved.tensors], tensors.DECODER_ROWS)
    if before > room.before:
      raise ValueError(
        f"The prompt {name!r} ({saved.path}) has {before} rows in front of "
        "the answer (methods/decoder.gin), and the server was started for "
        f"{room.before or 'none'}{' at most' if room.before else ''}. {again}"
      )
    if tensors.has_vectors(saved.tensors) and not room.vectors:
      raise ValueError(
        f"The prompt {name!r} ({saved.path}) has vectors in every layer "
        "(methods/ia3.gin), and the server was started without any such. "
        f"{again}"
      )


def empty(model: pretrained.FrozenModel, own: str, room: Room) -> Bank:
  """A bank of no prompts."""
  nothing = Bank(model, own, room, {}, {}, 0, prompted.without_prompts(model))
  return _made(nothing, {}, {}, LEAST)


def _made(
  bank: Bank,
  named: Mapping[str, checkpoints.SavedPrompt],
  places: Mapping[str, int],
  size: int,
) -> Bank:
  """A bank with the room of another, and these prompts."""
  model, room = bank.model, bank.room
  every: list[tensors.Tensors] = [_rows(model, 0)] * size
  every[0] = _rows(model, room.rows)
  if room.vectors:
    shapes = tensors.vector_shapes(model.config)
    ones = {name: np.ones(own, np.float32) for name, own in shapes.items()}
    every[0] = {**every[0], **ones}
  placings = [inject.Placing()] * size
  for name, saved in named.items():
    at = places[name]
    every[at] = saved.tensors or {tensors.ROWS: saved.values}
    placings[at] = saved.placing
  if room.before:
    every = [_with_before(model, room.before, one) for one in every]
  made = prompted.with_prompts(model, every, placings)
  on_device = jax.device_put(made.params[prompt.NAME])
  params = {**made.params, prompt.NAME: on_device}
  made = dataclasses.replace(made, params=params)
  return Bank(model, bank.own, room, named, places, size, made)


def _rows(model: pretrained.FrozenModel, count: int) -> dict[str, np.ndarray]:
  """A plain prompt of zeros."""
  return {tensors.ROWS: np.zeros((count, model.config.emb_dim), np.float32)}


def _with_before(
  model: pretrained.FrozenModel, count: int, one: tensors.Tensors
) -> dict[str, np.ndarray]:
  """A prompt with `count` rows for the decoder, zeros behind its own.

  An answer begins behind its prompt's own and overwrites the zeros, so the
  bank's shape does not depend on how many each prompt has.
  """
  width = model.config.widths("decoder").emb_dim
  own = one.get(tensors.DECODER_ROWS, np.zeros((0, width), np.float32))
  filled = np.pad(np.float32(own), [(0, count - len(own)), (0, 0)])
  return {**one, tensors.DECODER_ROWS: filled}
