"""A frozen network with prompts among its input: `Prompted`.

    FrozenModel, prompts -> network + parameters + vocabulary + the prompts'
                            lengths and placings

Whatever predicts or scores takes one; here is where it is made.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools

from flax import linen as nn
import jax
import numpy as np

from prompt_tuning.frozen import placement, pretrained
from prompt_tuning.model import inject, inside, t5
from prompt_tuning.prompts import checkpoints, prompt
from prompt_tuning.prompts.inner import tensors
from prompt_tuning.shapes import Array, Float, Int, PyTree
from prompt_tuning.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Prompted:
  """A network, its parameters, and what is needed to use them.

  Attributes:
    network: a T5 that swaps a bank of prompts in, or a T5 alone.
    params: its parameters, the bank's among them.
    vocabulary: text to ids and back.
    lengths: the length of every prompt of the bank; () without prompts.
    placings: where every prompt stands and what it attends to.
    devices: those that the parameters lie on, if they are several.
  """

  network: t5.T5
  params: PyTree
  vocabulary: Vocabulary
  lengths: tuple[int, ...] = ()
  placings: tuple[inject.Placing, ...] = ()
  devices: placement.Devices | None = None

  @property
  def places(self) -> int:
    """P: the places in every input, those of the longest prompt."""
    return max(self.lengths, default=0)

  def reserve(
    self, tokens: Int[np.ndarray, "B T"], prompt_id: Int[np.ndarray, "B"]
  ) -> Int[np.ndarray, "B _"]:
    """Puts places for each example's prompt among its tokens.

    And the mark (see `model.inside`), where prompts are told apart by it.
    """
    own = None
    if len(set(self.lengths)) > 1:
      own = np.asarray(self.lengths, np.int32)[prompt_id]
    standing = [placing.place for placing in self.placings]
    at = inject.columns(tokens, standing, prompt_id)
    tokens = inject.reserve(tokens, prompt_id, self.places, own, at=at)
    return inside.mark(tokens, prompt_id) if self._inside[0] else tokens

  def framed(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch to train on that has the prompts' places among its inputs.

    It gets what parts inside the network ask for: marks, and the places of a
    prompt for the decoder in front of the targets.
    """
    framed, (is_marked, length) = dict(batch), self._inside
    if is_marked:
      framed["inputs"] = inside.mark(batch["inputs"], batch["prompt_id"])
    if length:
      framed["targets"] = inject.reserve(
        batch["targets"], batch["prompt_id"], length
      )
    return framed

  @functools.cached_property
  def _inside(self) -> tuple[bool, int]:
    """Whether examples need a mark, and the rows in front of a target."""
    module = self.network.prompt
    if module is None:
      return False, 0
    about = []

    def look(params):
      found = nn.apply(inside.of, module)({"params": params})
      length = 0 if found.rows is None else found.rows.shape[1]
      about.append((found.is_marked, length))

    jax.eval_shape(look, self.params[prompt.NAME])  # computes nothing
    return about[0]

  @property
  def bank(self) -> Float[Array, "N {self.places} E"] | None:
    """The rows of all prompts; None without prompts."""
    module = self.network.prompt
    return None if module is None else prompt.collapsed(module, self.params)


def without_prompts(model: pretrained.FrozenModel) -> Prompted:
  """The frozen model alone."""
  return Prompted(
    t5.T5(model.config),
    model.params,
    model.require_vocabulary(),
    devices=model.devices,
  )


def with_saved(
  model: pretrained.FrozenModel, saved: Sequence[checkpoints.SavedPrompt]
) -> Prompted:
  """The frozen model with saved prompts, each as its record says it stands."""
  return with_prompts(
    model, [one.whole for one in saved], [one.placing for one in saved]
  )


def with_prompts(
  model: pretrained.FrozenModel,
  prompts: Sequence[Float[np.ndarray, "_ E"] | tensors.Tensors],
  placings: Sequence[inject.Placing] | None = None,
) -> Prompted:
  """The frozen model with prompts, each of a kind and length of its own.

  Zeros that no example sees stand in front of the shorter ones.

  Args:
    model: the frozen model.
    prompts: rows [P, E] of each, or the tensors of one that has more.
    placings: of each; by default all of them stand in front.
  """
  if not len(prompts):
    return without_prompts(model)
  every = [
    one if isinstance(one, Mapping) else {tensors.ROWS: one} for one in prompts
  ]
  module, first = tensors.bank(every, model.config)
  if first.keys() == {tensors.ROWS}:
    module = prompt.Prompt(module.length, module.emb_dim, module.num_prompts)
  together = with_module(model, module, first, placings)
  return dataclasses.replace(together, lengths=tensors.lengths_of(every))


def with_module(
  model: pretrained.FrozenModel,
  module: nn.Module,
  first: PyTree,
  placings: Sequence[inject.Placing] | None = None,
) -> Prompted:
  """The frozen model with a module that trains, and its first parameters.

  Args:
    model: the frozen model.
    module: see `prompt.Rows`.
    first: of the module's `first_parameters`.
    placings: of each prompt of the bank; by default all of them stand in front.
  """
  length, count = module.length, module.num_prompts  # pyright: ignore
  placings = tuple(placings or (inject.IN_FRONT,) * count)
  attends = inject.prompt_mask(length, placings)
  return Prompted(
    t5.T5(model.config, prompt=module, attends=attends),
    {**model.params, prompt.NAME: first},
    model.require_vocabulary(),
    (length,) * count,
    placings,
    model.devices,
  )
