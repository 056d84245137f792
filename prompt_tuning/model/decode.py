"""From a prompted input to text ids: greedy, sampling, beams, and ranking.

    encode once -> keys and values of every layer once -> one position at a time

A strategy is a small dataclass. `make_decoder` turns it into one jitted
function; `make_ranker` scores given labels instead of writing freely.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from prompt_tuning.model import losses, t5
from prompt_tuning.shapes import Array, Float, Int, PyTree
from prompt_tuning.vocabulary import EOS, PAD

_NEVER = -1e9


@dataclasses.dataclass(frozen=True)
class Greedy:
  """The most likely token at each place."""


@dataclasses.dataclass(frozen=True)
class Sample:
  """A token drawn at each place.

  Attributes:
    temperature: divides the logits.
    top_k: draw from the k most likely tokens only; 0 from all.
    top_p: draw from the smallest set of tokens whose probabilities reach p.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if self.temperature <= 0:
      raise ValueError(
        f"temperature must be above 0, got {self.temperature}. Use Greedy for "
        "the most likely token."
      )
    if self.top_k < 0 or not 0 < self.top_p <= 1:
      raise ValueError(
        f"top_k must be 0 or more and top_p in (0, 1], got {self.top_k} and "
        f"{self.top_p}."
      )


@dataclasses.dataclass(frozen=True)
class Beam:
  """Beam search; the score is log p(target) / ((5 + length) / 6)^alpha.

  Attributes:
    num_beams: K.
    alpha: 0 does not mind the length; larger values favour long targets. 0.6
      is t5x's default.
  """

  num_beams: int = 4
  alpha: float = 0.6

  def __post_init__(self):
    if self.num_beams < 1:
      raise ValueError(f"num_beams must be at least 1, got {self.num_beams}.")


@dataclasses.dataclass(frozen=True)
class Rank:
  """The most likely of given labels (rank classification).

  Attributes:
    labels: the labels as text; by default those of the task, see
      `registry.labels`.
    prefix: ids in front of every label: T5's first sentinel, for a model that
      was pre-trained on span corruption only.
  """

  labels: tuple[str, ...] = ()
  prefix: tuple[int, ...] = ()


Writer = Greedy | Sample | Beam
Strategy = Writer | Rank


def make_decoder(
  network: t5.T5, strategy: Writer, max_length: int
) -> Callable[..., Int[Array, "B L"]]:
  """A jitted function (params, tokens [B, T], key) -> ids [B, max_length].

  The ids end with EOS where the target is shorter, and PAD follows. The key is
  used by `Sample` only.
  """

  def decoder(params: PyTree, tokens: Int[Array, "B T"], key: Array):
    steps = _Steps(network, params, tokens, max_length)
    if isinstance(strategy, Beam):
      return _beam(steps, strategy)
    return _one_by_one(steps, strategy, key)

  return jax.jit(decoder)


def make_ranker(network: t5.T5) -> Callable[..., Float[Array, "B C"]]:
  """A jitted function (params, tokens [B, T], labels [C, L]) -> [B, C].

  The score of a label is the log-probability of its tokens, EOS included, in
  nats. The input is encoded once for all labels.
  """

  def ranker(
    params: PyTree, tokens: Int[Array, "B T"], labels: Int[Array, "C L"]
  ):
    variables = {"params": params}
    source = network.apply(variables, tokens, method="read")

    def score(label):
      targets = jnp.broadcast_to(label, (tokens.shape[0], label.shape[0]))
      logits: Any = network.apply(
        variables, source, t5.shift_right(targets), method="write"
      )
      return -losses.token_losses(logits, targets).sum(axis=-1)

    return lax.map(score, labels).T

  return jax.jit(ranker)


class _Steps:
  """Cached decoding of a batch: `logits` of the next place, `cache` updated."""

  def __init__(self, network, params, tokens, max_length):
    self.network, self.max_length = network, max_length
    self.variables = {"params": params}
    source = network.apply(self.variables, tokens, method="read")
    self.source = network.apply(self.variables, source, method="remembered")
    self.batch = tokens.shape[0]

  def repeated(self, copies: int) -> "_Steps":
    """The same with each example `copies` times, one behind the other."""
    other = object.__new__(_Steps)
    other.__dict__.update(self.__dict__)
    other.batch = self.batch * copies
    other.source = jax.tree.map(
      lambda x: jnp.repeat(x, copies, axis=0), self.source
    )
    return other

  def _decode(self, cache, ids):
    return self.network.apply(
      {**self.variables, **cache},
      self.source,
      ids,
      cache_length=self.max_length,
      mutable=["cache"],
      method="write",
    )

  def empty_cache(self) -> PyTree:
    """A cache for `max_length` places, filled with zeros."""
    ids = jnp.zeros((self.batch, self.max_length), jnp.int32)
    _, shapes = jax.eval_shape(self._decode, {}, ids)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def __call__(self, cache, last: Int[Array, "B"]):
    """Logits [B, V] of the place after `last`, and the cache with it."""
    logits, cache = self._decode(cache, last[:, None])
    return logits[:, 0], cache


class _Written(NamedTuple):
  place: Array  # how many places are written
  ids: Array  # [B, L]
  last: Array  # [B]
  done: Array  # [B]
  cache: PyTree


def _one_by_one(steps: _Steps, strategy, key) -> Int[Array, "B L"]:
  """Greedy decoding and sampling."""

  def pick(logits, place):
    if isinstance(strategy, Greedy):
      return jnp.argmax(logits, axis=-1)
    return jax.random.categorical(
      jax.random.fold_in(key, place), _restricted(logits, strategy)
    )

  def body(state: _Written) -> _Written:
    logits, cache = steps(state.cache, state.last)
    chosen = pick(logits, state.place).astype(jnp.int32)
    chosen = jnp.where(state.done, PAD, chosen)
    ids = lax.dynamic_update_slice_in_dim(
      state.ids, chosen[:, None], state.place, axis=1
    )
    return _Written(
      state.place + 1, ids, chosen, state.done | (chosen == EOS), cache
    )

  def more(state: _Written):
    return (state.place < steps.max_length) & ~state.done.all()

  zeros = jnp.zeros(steps.batch, jnp.int32)
  ids = jnp.zeros((steps.batch, steps.max_length), jnp.int32)
  first = _Written(
    jnp.int32(0), ids, zeros, zeros.astype(bool), steps.empty_cache()
  )
  return lax.while_loop(more, body, first).ids


def _restricted(
  logits: Float[Array, "B V"], strategy: Sample
) -> Float[Array, "B V"]:
  """Logits at the temperature, with what top_k and top_p exclude at -1e9."""
  logits = logits / strategy.temperature
  if strategy.top_k:
    k = min(strategy.top_k, logits.shape[-1])
    least = lax.top_k(logits, k)[0][:, -1:]
    logits = jnp.where(logits < least, _NEVER, logits)
  if strategy.top_p < 1:
    ordered = jnp.sort(logits, axis=-1)[:, ::-1]
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    inside = jnp.where(before < strategy.top_p, ordered, jnp.inf)
    logits = jnp.where(
      logits < inside.min(axis=-1, keepdims=True), _NEVER, logits
    )
  return logits


class _Beams(NamedTuple):
  place: Array
  ids: Array  # [B, K, L], the beams that go on
  last: Array  # [B, K]
  log_p: Array  # [B, K]
  ended: Array  # [B, K, L], the best targets that have ended
  scores: Array  # [B, K], theirs
  cache: PyTree  # leaves [B * K, …]


def _beam(single: _Steps, strategy: Beam) -> Int[Array, "B L"]:
  """Beam search: 2 K candidates a place, so that K of them can go on.

  A candidate ends if it is among the best K, and an example is done when K
  have ended; one beam is therefore greedy decoding.
  """
  beams, batch, length = strategy.num_beams, single.batch, single.max_length
  steps = single.repeated(beams)

  def penalty(size):
    return ((5.0 + size) / 6.0) ** strategy.alpha

  def take(array, index):
    """Rows `index` [B, K'] of array [B, K, …]."""
    return jax.vmap(lambda rows, chosen: rows[chosen])(array, index)

  def full(state: _Beams):
    """Which examples have K ended targets, [B]."""
    return state.scores[:, -1] > _NEVER

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
    alive = best > _NEVER / 2
    counts = ends & alive & (jnp.arange(2 * beams) < beams)
    counts &= ~full(state)[:, None]
    scores = jnp.where(counts, best / penalty(state.place + 1), _NEVER)
    scores = jnp.concatenate([state.scores, scores], axis=1)
    scores, keep = lax.top_k(scores, beams)
    ended = take(jnp.concatenate([state.ended, ids], axis=1), keep)
    # The best of the others go on.
    log_p, keep = lax.top_k(jnp.where(ends, _NEVER, best), beams)
    parent = take(parent, keep)

    def follow(leaf):
      if not leaf.ndim:
        return leaf
      wide = leaf.reshape(batch, beams, *leaf.shape[1:])
      return take(wide, parent).reshape(leaf.shape)

    return _Beams(
      state.place + 1,
      take(ids, keep),
      take(chosen, keep),
      log_p,
      ended,
      scores,
      jax.tree.map(follow, cache),
    )

  def more(state: _Beams):
    return (state.place < length) & ~full(state).all()

  ids = jnp.zeros((batch, beams, length), jnp.int32)
  first = jnp.where(jnp.arange(beams) == 0, 0.0, _NEVER)
  state = _Beams(
    jnp.int32(0),
    ids,
    jnp.zeros((batch, beams), jnp.int32),
    jnp.broadcast_to(first, (batch, beams)),
    ids,
    jnp.full((batch, beams), _NEVER),
    steps.empty_cache(),
  )
  state = lax.while_loop(more, body, state)
  # Where fewer than K ended, a beam counts with the length that it has.
  going = state.log_p / penalty(length)
  going = jnp.where(full(state)[:, None], _NEVER, going)
  scores = jnp.concatenate([state.scores, going], axis=1)
  targets = jnp.concatenate([state.ended, state.ids], axis=1)
  return take(targets, jnp.argmax(scores, axis=1)[:, None])[:, 0]
