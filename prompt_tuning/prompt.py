"""The trained thing: a prompt [P, E], or a bank of N prompts [N, P, E].

The parameter is `prompt/embedding` in the network's tree. It is float32
whatever the network's dtype, because it is all that an optimizer updates.
"""

from collections.abc import Callable

from flax import linen as nn
from flax.linen import partitioning
import jax.numpy as jnp

from prompt_tuning.shapes import Array, Float

AXES = ("prompt", "prompt_embed")
"""Logical axes of [P, E]; a bank puts 'prompts' in front. No rule maps them,
so a prompt is replicated on every device."""


class Prompt(nn.Module):
  """P learned vectors of width E; a bank of them with `num_prompts`.

  Attributes:
    length: P.
    emb_dim: E, the width of the network's embedding.
    num_prompts: None for one prompt [P, E], N for a bank [N, P, E].
    initializer: a function of (key, shape, dtype), see `initializers`.
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
