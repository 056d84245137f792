"""From a prompted input to text ids: greedy, sampling, beams, and ranking.

    tokens [B, T] -> the most likely, drawn or searched (`beams`) ids [B, L]

A strategy is a small dataclass. `make_decoder` turns it into one jitted
function, `make_scored_decoder` into one of several targets and their
log-probabilities; `make_ranker` scores given labels instead of writing freely.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from prompt_tuning.model import beams, losses, t5
from prompt_tuning.model.cached import Steps
from prompt_tuning.shapes import Array, Bool, Float, Int, PyTree, remembered
from prompt_tuning.vocabulary import EOS, PAD


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


@remembered
def make_decoder(
  network: t5.T5, strategy: Writer, max_length: int
) -> Callable[..., Int[Array, "B L"]]:
  """A jitted function (params, tokens [B, T], key, first) -> ids [B, L].

  The ids end with EOS where the target is shorter than L = `max_length`, and
  PAD follows. `Sample` uses the key: example i draws by the key and the number
  `first + i`, or `first[i]` where first is [B], whatever the batch.
  """

  def decoder(
    params: PyTree,
    tokens: Int[Array, "B T"],
    key: Array,
    first: Int[Array, "*numbers"] | int = 0,
  ):
    steps = Steps(network, params, tokens, max_length)
    if isinstance(strategy, Beam):
      ids, _ = beams.search(steps, strategy.num_beams, strategy.alpha)
      return ids[:, 0]
    keys = _keys(strategy, key, first, steps.batch, 1)
    return _one_by_one(steps, strategy, keys, is_scored=False)[0]

  return jax.jit(decoder)


Targets = tuple[Int[Array, "B K L"], Float[Array, "B K"]]
"""Several targets of each example, and their log-probabilities in nats."""


@remembered
def make_scored_decoder(
  network: t5.T5, strategy: Writer, max_length: int, count: int = 1
) -> Callable[..., Targets]:
  """The decoder of `count` targets with their log-probabilities, best first.

  The log-probability is the sum over a target's tokens, EOS included, in nats;
  it is the network's own, so a sample's knows no temperature, top_k or top_p.
  Samples stand in its order, beams in that of their scores. There may be equal
  samples, and beams that are none (`is_target`).

  Raises:
    ValueError: the strategy has not so many targets.
  """
  check_count(strategy, count)

  def decoder(
    params: PyTree,
    tokens: Int[Array, "B T"],
    key: Array,
    first: Int[Array, "*numbers"] | int = 0,
  ):
    steps = Steps(network, params, tokens, max_length)
    if isinstance(strategy, Beam):
      return beams.search(steps, strategy.num_beams, strategy.alpha, count)
    keys = _keys(strategy, key, first, steps.batch, count)
    several = steps.repeated(count) if count > 1 else steps
    ids, log_p = _one_by_one(several, strategy, keys, is_scored=True)
    log_p = log_p.reshape(-1, count)
    log_p, order = lax.top_k(log_p, count)
    ids = ids.reshape(*log_p.shape, max_length)
    return jnp.take_along_axis(ids, order[..., None], axis=1), log_p

  return jax.jit(decoder)


def is_target(log_p: Float[Array, "*_"]) -> Bool[Array, "*_"]:
  """Which of a scored decoder's targets are some; beams may be too many."""
  return log_p > beams.NEVER / 2


def check_count(strategy: Strategy, count: int) -> None:
  """Refuses more targets (NUM_DECODES) than a strategy has.

  Raises:
    ValueError: with the setting that has as many.
  """
  if isinstance(count, bool) or count < 1:
    raise ValueError(
      f"num_decodes (NUM_DECODES) must be a whole number, at least 1, got "
      f"{count!r}."
    )
  if count > 1 and isinstance(strategy, Greedy | Rank):
    name = type(strategy).__name__
    rank = " Rank gives every label's probability anyway."
    raise ValueError(
      f"NUM_DECODES={count} asks for several answers, and DECODING is {name}, "
      "which has one. Set DECODING to @decode.Beam() or @decode.Sample()."
      f"{rank if name == 'Rank' else ''}"
    )
  if isinstance(strategy, Beam) and count > strategy.num_beams:
    raise ValueError(
      f"NUM_DECODES={count} asks for more answers than there are beams, "
      f"{strategy.num_beams}. Set decode.Beam.num_beams to {count} or more."
    )


@remembered
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
      return _log_probability(network, variables, source, targets)

    return lax.map(score, labels).T

  return jax.jit(ranker)


@remembered
def make_scorer(network: t5.T5) -> Callable[..., Float[Array, "B"]]:
  """A jitted function (params, tokens [B, T], targets [B, L]) -> nats [B].

  The score of an example is the log-probability of its target, EOS included.
  """

  def scorer(
    params: PyTree, tokens: Int[Array, "B T"], targets: Int[Array, "B L"]
  ):
    variables = {"params": params}
    source = network.apply(variables, tokens, method="read")
    return _log_probability(network, variables, source, targets)

  return jax.jit(scorer)


def _log_probability(
  network: t5.T5, variables: PyTree, source, targets: Int[Array, "B L"]
) -> Float[Array, "B"]:
  """That of a target of each example, EOS included, in nats."""
  written = targets
  if source.before is not None:
    written = jnp.concatenate([source.before, targets], axis=1)
  logits: Any = network.apply(
    variables, source, t5.history(written), method="write"
  )
  logits = logits[:, -targets.shape[1] :]
  return -losses.token_losses(logits, targets).sum(axis=-1)


def _keys(
  strategy: Writer, key: Array, first: Array | int, batch: int, count: int
) -> Array | None:
  """A key for each of `count` samples of each example, [B * count]."""
  if not isinstance(strategy, Sample):
    return None
  many = jax.vmap(jax.random.fold_in, (None, 0))
  numbers = first if jnp.ndim(first) else first + jnp.arange(batch)
  of_examples = many(key, numbers)
  return jax.vmap(many, (0, None))(of_examples, jnp.arange(count)).reshape(-1)


class _Written(NamedTuple):
  place: Array  # how many places are written
  ids: Array  # [B, L]
  last: Array  # [B]
  done: Array  # [B]
  log_p: Array  # [B], of what is written; zeros unless it is asked for
  cache: PyTree


def _one_by_one(
  steps: Steps,
  strategy: Greedy | Sample,
  keys: Array | None,
  *,
  is_scored: bool,
) -> tuple[Int[Array, "B L"], Float[Array, "B"]]:
  """Greedy decoding and sampling: the ids and their log-probabilities."""

  def pick(logits, place):
    if isinstance(strategy, Greedy):
      return jnp.argmax(logits, axis=-1)
    assert keys is not None
    here = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
    return jax.vmap(jax.random.categorical)(here, _restricted(logits, strategy))

  def body(state: _Written) -> _Written:
    logits, cache = steps(state.cache, state.last)
    chosen = pick(logits, state.place).astype(jnp.int32)
    chosen = jnp.where(state.done, PAD, chosen)
    ids = lax.dynamic_update_slice_in_dim(
      state.ids, chosen[:, None], state.place, axis=1
    )
    log_p = state.log_p
    if is_scored:
      every = jax.nn.log_softmax(logits)
      own = jnp.take_along_axis(every, chosen[:, None], axis=1)[:, 0]
      log_p = log_p + jnp.where(state.done, 0.0, own)
    done = state.done | (chosen == EOS)
    return _Written(state.place + 1, ids, chosen, done, log_p, cache)

  def more(state: _Written):
    return (state.place < steps.max_length) & ~state.done.all()

  zeros = jnp.zeros(steps.batch, jnp.int32)
  ids = jnp.zeros((steps.batch, steps.max_length), jnp.int32)
  first = _Written(
    *(jnp.int32(0), ids, zeros, zeros.astype(bool), zeros.astype(jnp.float32)),
    steps.first_cache(),
  )
  last = lax.while_loop(more, body, first)
  return last.ids, last.log_p


def _restricted(
  logits: Float[Array, "B V"], strategy: Sample
) -> Float[Array, "B V"]:
  """Logits at the temperature, with what top_k and top_p exclude at -1e9."""
  logits = logits / strategy.temperature
  if strategy.top_k:
    k = min(strategy.top_k, logits.shape[-1])
    least = lax.top_k(logits, k)[0][:, -1:]
    logits = jnp.where(logits < least, beams.NEVER, logits)
  if strategy.top_p < 1:
    ordered = jnp.sort(logits, axis=-1)[:, ::-1]
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    inside = jnp.where(before < strategy.top_p, ordered, jnp.inf)
    logits = jnp.where(
      logits < inside.min(axis=-1, keepdims=True), beams.NEVER, logits
    )
  return logits
