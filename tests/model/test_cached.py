"""Cached decoding of examples that stand at places of their own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_t5gemma
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import t5

CONFIGS = {"T5": tiny_t5.config(), "T5Gemma": test_t5gemma.CONFIG}
LENGTH = 6
TEXT = tiny_t5.tokens(3, 5, rows=40)
TARGETS = tiny_t5.tokens(3, LENGTH, rows=40, seed=1)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kept", [4, 32])  # all are read, some are copied
def test_each_example_writes_its_place_among_what_is_kept(family, kept):
  network, tree = t5.T5(CONFIGS[family]), tiny_t5.weights(CONFIGS[family])
  variables = {"params": tree}
  source = tiny_t5.jitted(network, "read")(variables, TEXT)
  source = tiny_t5.jitted(network, "remembered")(variables, source)
  before = t5.history(jnp.asarray(TARGETS))
  want = tiny_t5.jitted(network)(variables, TEXT, before)
  write = functools.partial(
    network.apply, cache_length=LENGTH, mutable=["cache"], method="write"
  )
  _, cache = jax.eval_shape(write, variables, source, before)
  flat = {
    path: jnp.full((kept, *leaf.shape[1:]), 7.0) if leaf.ndim else leaf
    for path, leaf in storage.flatten(cache).items()
  }

  # Each begins a step behind the one before it.
  rows, step = np.arange(3), jax.jit(write)
  for at in range(LENGTH + 2):
    place = np.clip(at - rows, 0, LENGTH - 1)
    flat |= {k: jnp.asarray(place) for k in flat if k.endswith("index")}
    found, cache = step(
      {**variables, **storage.unflatten(flat)},
      source,
      before[rows, place][:, None],
    )
    flat = storage.flatten(cache)
    np.testing.assert_allclose(found[:, 0], want[rows, place], atol=2e-5)
  for path, leaf in flat.items():
    assert path.endswith("index") or (np.asarray(leaf)[3:] == 7).all(), path
