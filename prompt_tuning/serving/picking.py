"""Which token stands next: the likeliest, one that is drawn, or a given one.

logits [B, V] -> tokens [B], their log-probabilities, the likeliest five

Every row has settings of its own. A draw depends on the row's seed, its numbers
and its place, and on nothing else of the batch; with equal seeds it is the draw
of `decode.Sample`.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from prompt_tuning.shapes import Array, Float, Int

MOST_LIKELY = 5
"""How many of the likeliest tokens there are."""

FREE = -1
"""No token is given."""

_NEVER = -1.0e9


class Draws(NamedTuple):
  """How the tokens of B rows are drawn.

  Attributes:
    temperature: divides the logits; 0 for the likeliest token.
    top_p: draw from the smallest set of tokens whose probabilities reach it.
    seed: of the request.
    text: number of the input in its request.
    choice: number of the answer to that input.
    place: how many tokens stand before.
  """

  temperature: Float[Array, "B"]
  top_p: Float[Array, "B"]
  seed: Int[Array, "B"]
  text: Int[Array, "B"]
  choice: Int[Array, "B"]
  place: Int[Array, "B"]


class Picked(NamedTuple):
  """The next token of B rows.

  Attributes:
    token: it.
    log_p: its log-probability in nats, the network's own: of no temperature.
    likely: the likeliest tokens, best first; None where nobody asked.
    likely_log_p: their log-probabilities.
  """

  token: Int[Array, "B"]
  log_p: Float[Array, "B"]
  likely: Int[Array, "B most"] | None = None
  likely_log_p: Float[Array, "B most"] | None = None


def likeliest(logits: Float[Array, "B V"], given: Int[Array, "B"]) -> Picked:
  """The likeliest tokens, or those that are given (not `FREE`)."""
  return _picked(logits, jnp.argmax(logits, axis=-1), given)


def drawn(
  logits: Float[Array, "B V"], given: Int[Array, "B"], draws: Draws
) -> Picked:
  """Tokens that are drawn where a row's temperature says so."""
  keys = jax.vmap(_key)(draws.seed, draws.text, draws.choice, draws.place)
  restricted = _restricted(logits, draws)
  token = jax.vmap(jax.random.categorical)(keys, restricted)
  token = jnp.where(draws.temperature > 0, token, jnp.argmax(logits, axis=-1))
  picked = _picked(logits, token, given)
  values, likely = lax.top_k(logits, min(MOST_LIKELY, logits.shape[-1]))
  log_p = values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  return picked._replace(likely=likely, likely_log_p=log_p)


def _picked(logits, token, given) -> Picked:
  token = jnp.where(given == FREE, token.astype(jnp.int32), given)
  own = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
  return Picked(token, own - jax.nn.logsumexp(logits, axis=-1))


def _key(seed, text, choice, place):
  key = jax.random.key(seed)
  for number in (text, choice, place):
    key = jax.random.fold_in(key, number)
  return key


def _restricted(
  logits: Float[Array, "B V"], draws: Draws
) -> Float[Array, "B V"]:
  """Logits at each temperature, without what top_p excludes."""
  temperature = jnp.where(draws.temperature > 0, draws.temperature, 1)
  logits = logits / temperature[:, None]
  # Sorting costs more than the rest together.
  excludes = (draws.top_p < 1).any()
  return lax.cond(excludes, _likely, lambda logits, _: logits, logits, draws)


def _likely(logits: Float[Array, "B V"], draws: Draws) -> Float[Array, "B V"]:
  """Logits without those that no draw with top_p may have."""
  ordered = jnp.sort(logits, axis=-1)[:, ::-1]
  probabilities = jax.nn.softmax(ordered, axis=-1)
  before = jnp.cumsum(probabilities, axis=-1) - probabilities
  inside = jnp.where(before < draws.top_p[:, None], ordered, jnp.inf)
  least = inside.min(axis=-1, keepdims=True)
  excluded = (logits < least) & (draws.top_p < 1)[:, None]
  return jnp.where(excluded, _NEVER, logits)
