"""The trained thing: a prompt [P, E], or a bank of N prompts [N, P, E].

    rows to start from -> first_parameters -> training -> module() -> rows

What trains is a module that returns rows, and everything behind it knows the
rows alone. `Prompt` is the plain one: its parameter is the rows themselves,
`prompt/embedding` in the network's tree. It is float32 whatever the network's
dtype, because it is all that an optimizer updates.
"""

from collections.abc import Callable
from typing import Protocol

from flax import linen as nn
from flax.linen import partitioning
import jax.numpy as jnp

from prompt_tuning import storage
from prompt_tuning.shapes import Array, Float, PyTree

NAME = "prompt"
"""What the module is called in the network, so that its parameters are under
`prompt/`."""

PARAMETER = f"{NAME}/embedding"
"""The path of a plain prompt's rows."""

AXES = ("prompt", "prompt_embed")
"""Logical axes of [P, E]; a bank puts 'prompts' in front. No rule maps them,
so a prompt is replicated on every device."""


class Rows(Protocol):
  """What the trainer asks of a module that trains.

  Attributes:
    length: P, how many places each prompt takes.
    num_prompts: N.
  """

  length: int
  num_prompts: int | None

  def __call__(self) -> Float[Array, "*N P E"]:
    """The rows; to collapse to them after training, too."""
    ...

  def first_parameters(self, rows: Float[Array, "*N P E"]) -> PyTree:
    """The module's parameters with which it starts at these rows."""
    ...


class Prompt(nn.Module):
  """P learned vectors of width E; a bank of them with `num_prompts`.

  Attributes:
    length: P.
    emb_dim: E, the width of the network's embedding.
    num_prompts: None for one prompt [P, E], N for a bank [N, P, E].
    initializer: what Flax's `init` fills it with, a function of (key, shape,
      dtype) such as those of `flax.linen.initializers`. Training starts from
      `first_parameters` instead, by the functions of
      `prompt_tuning.prompts.initializers`.
  """

  length: int
  emb_dim: int
  num_prompts: int | None = None
  initializer: Callable = nn.initializers.uniform(1.0)

  @nn.compact
  def __call__(self) -> Float[Array, "*N P E"]:
    shape, axes = (self.length, self.emb_dim), AXES
    if self.num_prompts is not None:
      shape, axes = (self.num_prompts, *shape), ("prompts", *axes)
    return partitioning.param_with_axes(
      "embedding", self.initializer, shape, jnp.float32, axes=axes
    )

  def first_parameters(self, rows: Float[Array, "*N P E"]) -> PyTree:
    """The rows themselves."""
    return {"embedding": rows}


def collapsed(module: nn.Module, params: PyTree) -> Float[Array, "*N P E"]:
  """The rows that a trained module has come to.

  Args:
    module: what trained, `Prompt` for example.
    params: the parameters of the whole network.
  """
  return module.apply({"params": params[NAME]})  # pyright: ignore


def is_all_that_trains(trained: PyTree) -> bool:
  """Whether every leaf of a trained part (see `freeze`) is a prompt's."""
  paths = storage.flatten(trained)
  return all(
    path.split("/")[0] == NAME or not hasattr(leaf, "shape")
    for path, leaf in paths.items()
  )
