"""The programs of a server, compiled ahead: what was not compiled cannot run.

    every (rows, width) of `Sizes` -> encode, step; every rows -> copy, draw

A program is for fixed shapes and never compiles when it is called. How many
prompts there are is a shape too, of the encoder alone: a bank that grows gets
its programs (`add_bank`) while those of the smaller one run on.
"""

from collections.abc import Callable, Iterator
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts.prompted import Prompted
from prompt_tuning.serving import picking
from prompt_tuning.serving.sizes import Sizes
from prompt_tuning.serving.slots import Rows, Slots
from prompt_tuning.shapes import Int


class GivenUp(Exception):
  """The server ends before all programs are compiled."""


class Programs:
  """Calls the functions of `slots` and `picking`.

  Args:
    model: the frozen model.
    sizes: all shapes.

  Attributes:
    sizes: all shapes.
    is_given_up: whether to compile no more.
  """

  def __init__(self, model: pretrained.FrozenModel, sizes: Sizes):
    self.sizes = sizes
    self._params = model.params
    self._rows = Rows(model.config, model.params, sizes)
    self._vocab = model.config.vocab_size
    self._compiled: dict[tuple, Any] = {}
    self.is_given_up = False

  def __len__(self) -> int:
    """How many there are."""
    return len(self._compiled)

  def compile(self, prompted: Prompted) -> None:
    """Makes all of them; shows how far it is."""
    programs = [*self._of_rows(), *self._of_bank(prompted)]
    for program in tqdm.tqdm(programs, desc="compile", disable=None):
      self._add(*program)

  def add_bank(self, prompted: Prompted) -> None:
    """Makes the encoder's programs for a bank of this size, if it is new."""
    for program in self._of_bank(prompted):
      self._add(*program)

  def _add(self, key: tuple, function: Callable, shapes, donated=(0,)) -> None:
    if self.is_given_up:
      raise GivenUp()
    if key not in self._compiled:
      jitted = jax.jit(function, donate_argnums=donated)
      self._compiled[key] = jitted.lower(*shapes).compile()

  def _of_rows(self) -> Iterator[tuple]:
    """What `_add` is given, for all but the encoder's."""
    rows, slots = self._rows, self._rows.slots
    yield ("empty",), rows.empty, (), ()
    for count in self.sizes.counts:
      ids = jax.ShapeDtypeStruct((count,), jnp.int32)
      yield ("copy", count), rows.copy, (slots, ids, ids)
      for width in sorted(
        {self.sizes.read(count, w) for w in self.sizes.widths}
      ):
        step = functools.partial(rows.step, width)
        yield ("step", count, width), step, (slots, self._params, ids, ids, ids)
      logits = jax.ShapeDtypeStruct((count, self._vocab), jnp.float32)
      draws = jax.tree.map(_shape, draws_of(count))
      yield ("drawn", count), picking.drawn, (logits, ids, draws), ()

  def _of_bank(self, prompted: Prompted) -> Iterator[tuple]:
    """The same of the encoder's."""
    function = functools.partial(self._rows.encode, prompted.network)
    for width in self.sizes.widths:
      most = self.sizes.together(width)
      for count in self.sizes.counts:
        if count > most:
          break
        tokens = jax.ShapeDtypeStruct((count, width), jnp.int32)
        places = jax.ShapeDtypeStruct((count,), jnp.int32)
        yield (
          ("encode", count, width, prompted.network),
          function,
          (self._rows.slots, prompted.params, tokens, places),
        )

  def empty(self) -> Slots:
    """Slots that hold nothing."""
    return self._compiled["empty",]()

  def encode(
    self,
    slots: Slots,
    prompted: Prompted,
    tokens: Int[np.ndarray, "B T"],
    places: Int[np.ndarray, "B"],
  ) -> Slots:
    """`Rows.encode`; the slots that are given are used up."""
    key = ("encode", *tokens.shape, prompted.network)
    return self._compiled[key](slots, prompted.params, tokens, places)

  def copy(
    self, slots: Slots, origin: Int[np.ndarray, "B"], to: Int[np.ndarray, "B"]
  ) -> Slots:
    """`Rows.copy`; the slots that are given are used up."""
    return self._compiled["copy", len(origin)](slots, origin, to)

  def step(
    self,
    slots: Slots,
    width: int,
    last: Int[np.ndarray, "B"],
    place: Int[np.ndarray, "B"],
    given: Int[np.ndarray, "B"],
    draws: picking.Draws | None = None,
  ) -> tuple[Slots, picking.Picked]:
    """`Rows.step` and the tokens of its place, on the host.

    The slots that are given are used up. The tokens are the likeliest, in the
    same program, or `picking.drawn`.
    """
    key = ("step", len(last), self.sizes.read(len(last), width))
    slots, logits, picked = self._compiled[key](
      slots, self._params, last, place, given
    )
    if draws is not None:
      picked = self._compiled["drawn", len(given)](logits, given, draws)
    return slots, jax.device_get(picked)


def draws_of(count: int) -> picking.Draws:
  """Settings of rows of which none draws."""
  kinds = (np.float32, np.float32, np.uint32, *(np.int32,) * 3)
  values = (0, 1, 0, 0, 0, 0)
  return picking.Draws(
    *(np.full(count, v, k) for v, k in zip(values, kinds, strict=True))
  )


def _shape(array: np.ndarray) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(array.shape, array.dtype)
