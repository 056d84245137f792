"""Beam search over cached decoding: the best targets of each example.

logits of K targets -> 2 K candidates -> those that end, and K that go on
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from prompt_tuning.model.cached import Steps
from prompt_tuning.shapes import EOS, Array, Float, Int, PyTree

NEVER = -1e9
"""The log-probability of what is left out; a target's own is far above."""


class _Beams(NamedTuple):
  place: Array
  ids: Array  # [B, K, L], the beams that go on
  last: Array  # [B, K]
  log_p: Array  # [B, K]
  ended: Array  # [B, K, L], the best targets that have ended
  scores: Array  # [B, K], theirs
  cache: PyTree  # leaves [B * K, …]


def search(
  single: Steps, beams: int, alpha: float, count: int = 1
) -> tuple[Int[Array, "B count L"], Float[Array, "B count"]]:
  """The best targets with their log-probabilities, best first.

  2 K candidates a place, so that K of them can go on. A candidate ends if it is
  among the best K, and an example is done when K have ended; one beam is
  therefore greedy decoding.

  Args:
    single: the examples, each once.
    beams: K.
    alpha: the score is log p / ((5 + length) / 6)^alpha, and orders.
    count: targets that are returned, K at most. Where there are no more, ids
      are PAD and the log-probability is `NEVER` or less.
  """
  batch, length = single.batch, single.max_length
  steps = single.repeated(beams)

  def penalty(size):
    return ((5.0 + size) / 6.0) ** alpha

  def take(array, index):
    """Rows `index` [B, K'] of array [B, K, …]."""
    return jax.vmap(lambda rows, chosen: rows[chosen])(array, index)

  def full(state: _Beams):
    """Which examples have K ended targets, [B]."""
    return state.scores[:, -1] > NEVER

  def body(state: _Beams) -> _Beams:
    logits, cache = steps(state.cache, state.last.reshape(-1))
    log_p = jax.nn.log_softmax(logits).reshape(batch, beams, -1)
    log_p = log_p + state.log_p[..., None]
    rows = log_p.shape[-1]
    best, index = lax.top_k(log_p.reshape(batch, -1), 2 * beams)
    parent, chosen = index // rows, (index % rows).astype(jnp.int32)
    ids = lax.dynamic_update_slice_in_dim(
      take(state.ids, parent), chosen[..., None], state.place, axis=2
    )
    ends = chosen == EOS
    alive = best > NEVER / 2
    counts = ends & alive & (jnp.arange(2 * beams) < beams)
    counts &= ~full(state)[:, None]
    scores = jnp.where(counts, best / penalty(state.place + 1), NEVER)
    scores = jnp.concatenate([state.scores, scores], axis=1)
    scores, keep = lax.top_k(scores, beams)
    ended = take(jnp.concatenate([state.ended, ids], axis=1), keep)
    # The best of the others go on.
    log_p, keep = lax.top_k(jnp.where(ends, NEVER, best), beams)
    parent = take(parent, keep)

    def follow(leaf):
      wide = leaf.reshape(batch, beams, *leaf.shape[1:])
      return take(wide, parent).reshape(leaf.shape)

    return _Beams(
      state.place + 1,
      take(ids, keep),
      take(chosen, keep),
      log_p,
      ended,
      scores,
      steps.map(follow, cache),
    )

  def more(state: _Beams):
    return (state.place < length) & ~full(state).all()

  ids = jnp.zeros((batch, beams, length), jnp.int32)
  first = jnp.where(jnp.arange(beams) == 0, 0.0, NEVER)
  state = _Beams(
    jnp.int32(0),
    ids,
    jnp.zeros((batch, beams), jnp.int32),
    jnp.broadcast_to(first, (batch, beams)),
    ids,
    jnp.full((batch, beams), NEVER),
    steps.first_cache(),
  )
  state = lax.while_loop(more, body, state)
  # Where fewer than K ended, a beam counts with the length that it has.
  going = state.log_p / penalty(length)
  going = jnp.where(full(state)[:, None], NEVER, going)
  scores = jnp.concatenate([state.scores, going], axis=1)
  targets = jnp.concatenate([state.ended, state.ids], axis=1)
  sizes = jnp.argmax(state.ended == EOS, axis=2) + 1
  log_p = jnp.concatenate([state.scores * penalty(sizes), state.log_p], axis=1)
  _, best = lax.top_k(scores, count)
  return take(targets, best), take(log_p, best)
