"""The trained thing: a prompt [P, E], or a bank of N prompts [N, P, E].

    rows to start from -> first_parameters -> training -> module() -> rows

What trains is a module that returns rows, and everything behind it knows the
rows alone. `Prompt` is the plain one: its parameter is the rows themselves,
`prompt/embedding` in the network's tree. `reparameterised` and `multitask` have
others. All of them are float32 whatever the network's dtype, because they are
all that an optimizer updates.

The name of a parameter says what it belongs to: `fixed_…` does not train, is in
no file and is computed again from seed and model; `shared_…` belongs to all
prompts of a bank and has no leading N. Every other has one: it is one prompt's.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple, Protocol

from flax import linen as nn
from flax.linen import partitioning
import jax
import jax.numpy as jnp

from prompt_tuning import storage
from prompt_tuning.shapes import Array, Float, PyTree

FIXED, SHARED = "fixed_", "shared_"
"""How the names of parameters begin that do not train, and that are of all
prompts of a bank."""

NAME = "prompt"
"""What the module is called in the network, so that its parameters are under
`prompt/`."""

PARAMETER = f"{NAME}/embedding"
"""The path of a plain prompt's rows."""

AXES = ("prompt", "prompt_embed")
"""Logical axes of [P, E]; a bank puts 'prompts' in front. No rule maps them,
so a prompt is replicated on every device."""


class Given(NamedTuple):
  """What a module may need besides rows to start from.

  Attributes:
    seeds: one for each prompt; () for 0.
    words: the frozen embedding [W, E] of the vocabulary's pieces, without PAD,
      EOS, UNK and sentinels; None where there is no frozen model.
    model: the hash of the frozen weights; "" where nobody knows it.
  """

  seeds: Sequence[int] = ()
  words: Float[Array, "W E"] | None = None
  model: str = ""


ROWS_ALONE = Given()
"""Nothing besides."""


class Rows(Protocol):
  """What the trainer asks of a module that trains.

  Its other fields are its settings: numbers and texts, which a prompt's record
  holds and a run that goes on must agree with.

  Attributes:
    length: P, how many places each prompt takes; 0 where it has other parts
      (see `deep`).
    num_prompts: N.
  """

  length: int
  num_prompts: int | None

  def __call__(self) -> Float[Array, "*N P E"]:
    """The rows; to collapse to them after training, too."""
    ...

  def first_parameters(
    self, rows: Float[Array, "*N P E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """The module's parameters with which it starts nearest to these rows.

    Raises:
      ValueError: a setting does not go with P, E, N or what is given.
    """
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

  def first_parameters(
    self, rows: Float[Array, "*N P E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """The rows themselves."""
    del given
    return {"embedding": rows}


def collapsed(module: nn.Module, params: PyTree) -> Float[Array, "*N P E"]:
  """The rows that a trained module has come to.

  Args:
    module: what trained, `Prompt` for example.
    params: the parameters of the whole network.
  """
  return module.apply({"params": params[NAME]})  # pyright: ignore


def tensors(module: nn.Module, params: PyTree) -> dict[str, Array]:
  """What a trained module has that does not collapse to rows, with the rows.

  Args:
    module: what trained; the plain ones have nothing.
    params: the parameters of the whole network.
  """
  if not hasattr(module, "tensors"):
    return {}
  return module.apply({"params": params[NAME]}, method="tensors")  # pyright: ignore


def for_network(module: Any, config: Any) -> Any:
  """The module with the network's configuration, if it asks for one."""
  return module.clone(config=config) if hasattr(module, "config") else module


def is_all_that_trains(trained: PyTree) -> bool:
  """Whether every leaf of a trained part (see `freeze`) is a prompt's."""
  paths = storage.flatten(trained)
  return all(
    path.split("/")[0] == NAME or not hasattr(leaf, "shape")
    for path, leaf in paths.items()
  )


def trainable(mask: PyTree) -> PyTree:
  """A mask of what trains (see `freeze`) without what a module keeps fixed.

  Raises:
    ValueError: nothing is left that trains.
  """
  flat = storage.flatten(mask)
  left = {path: value and not is_fixed(path) for path, value in flat.items()}
  if not any(left.values()):
    fixed = ", ".join(path for path, value in flat.items() if value)
    raise ValueError(
      f"TRAINABLE names only what PROMPT keeps as it is ({fixed}), so nothing "
      "would train. Name other parameters, or leave TRAINABLE out."
    )
  return storage.unflatten(left)


def is_fixed(path: str) -> bool:
  """Whether a parameter is one that a module keeps fixed."""
  return _is(path, FIXED)


def shared(trained: PyTree) -> PyTree:
  """Booleans in place of the leaves: which ones all prompts of a bank share."""

  def is_shared(path, _):
    return _is(jax.tree_util.keystr(path, simple=True, separator="/"), SHARED)

  return jax.tree_util.tree_map_with_path(is_shared, trained)


def _is(path: str, kind: str) -> bool:
  parts = path.split("/")
  return parts[0] == NAME and parts[-1].startswith(kind)


def method_of(module: nn.Module | None) -> dict[str, Any] | None:
  """The name and the settings of a module; None for a plain prompt or none."""
  if module is None or isinstance(module, Prompt):
    return None
  places = {"length", "emb_dim", "num_prompts", "config", "parent", "name"}
  settings = {
    field.name: getattr(module, field.name)
    for field in dataclasses.fields(module)
    if field.name not in places
  }
  return {"name": type(module).__name__, **settings}
