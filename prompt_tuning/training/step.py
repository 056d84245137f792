"""One jitted training step on explicit state, and several of them a dispatch.

    state, frozen, batch -> loss per prompt -> gradient of the trained leaves
                         -> optax update -> state

The gradient is taken of the trained part alone; the frozen part is an argument
that comes back to nobody.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_tuning.data import layout
from prompt_tuning.frozen import placement
from prompt_tuning.model import freeze, inject, losses, t5
from prompt_tuning.prompts import prompt, wayward
from prompt_tuning.shapes import PAD, Float, PyTree, remembered
from prompt_tuning.training.prefetch import Dispatch


class TrainState(NamedTuple):
  """All that training changes.

  Attributes:
    step: int32 scalar, the number of updates done.
    trained: the parameter tree with holes for the frozen leaves.
    opt_state: the optimizer's state over `trained`.
  """

  step: jax.Array
  trained: PyTree
  opt_state: PyTree


class Teacher(NamedTuple):
  """Prompts whose answers those that train are to give (distillation).

  Attributes:
    network: like the problem's, with plain prompts.
    rows: a teacher for each prompt.
    weight: of the mean KL of the teacher's answer and the prompt's.
  """

  network: t5.T5
  rows: Float[np.ndarray, "N P E"]
  weight: float


DISTILLED = "distillation"
"""What the KL is called in metrics.jsonl."""


@dataclasses.dataclass(frozen=True)
class Problem:
  """What is optimised, and how.

  Attributes:
    network: a T5, with a prompt module if one is to be injected.
    optimizer: an optax transformation of the trained leaves.
    num_prompts: N of the bank; 1 when the network itself trains.
    z_loss: weight of log(Z)^2 in the loss, 1e-4 as T5 was trained.
    seed: of the dropout keys (used when the network's dropout_rate is not 0).
    pull: a term of the loss that looks at the rows of the prompts alone, once a
      step; None for none.
    devices: that the frozen part lies on, if they are several.
    teacher: of the prompts; None for examples alone.
  """

  network: t5.T5
  optimizer: optax.GradientTransformation
  num_prompts: int = 1
  z_loss: float = 1e-4
  seed: int = 0
  pull: wayward.Pull | None = None
  devices: placement.Devices | None = None
  teacher: Teacher | None = None


def initial_state(problem: Problem, trained: PyTree) -> TrainState:
  """The state before the first step."""
  state = TrainState(
    jnp.zeros((), jnp.int32), trained, problem.optimizer.init(trained)
  )
  return problem.devices.put_whole(state) if problem.devices else state


def placed(problem: Problem, batches: Dispatch) -> Any:
  """The batches of a dispatch on several devices, each with some rows."""
  devices = problem.devices
  if devices is None:
    return batches
  if isinstance(batches, Mapping):
    return {k: devices.put_rows(v, axis=1) for k, v in batches.items()}

  def put(name: str, value: np.ndarray) -> jax.Array:
    is_whole = name == layout.TOKENS
    return devices.put_whole(value) if is_whole else devices.put_rows(value)

  return [
    [{k: put(k, v) for k, v in part.items()} for part in parts]
    for parts in batches
  ]


def make_step(problem: Problem) -> Callable:
  """A pure function (state, frozen, batch) -> (state, metrics).

  The batch holds `inputs` [B, P + T], `targets` [B, L] and `prompt_id` [B];
  the metrics `loss` [N] (mean nats per target token, z-loss included),
  `token_accuracy` [N] and, beside the loss, the term of a pull [N] and the KL
  from a teacher [N].
  """
  gradient_of = _make_gradient(problem)

  def step(state, frozen, batch):
    found = gradient_of(state.trained, frozen, batch, (state.step,))
    return _updated(problem, state, frozen, found)

  return step


def _make_gradient(problem: Problem) -> Callable:
  """A function (trained, frozen, batch, counts) -> (gradient, metrics).

  The batch may be a part of a step's (see `make_step_of_parts`), and its rows
  packed, with `input_segments` and `target_segments`. `counts` tell the dropout
  of this call from others'.
  """
  has_dropout = problem.network.config.dropout_rate > 0

  def loss_of(trained, frozen, batch, counts):
    rngs = {}
    if has_dropout:
      key = jax.random.key(problem.seed)
      for count in counts:
        key = jax.random.fold_in(key, count)
      rngs = {"dropout": key}
    params = freeze.merge(trained, frozen)
    logits = _logits(problem.network, params, batch, rngs)
    targets = batch["targets"]
    words = jnp.where(inject.is_word(targets), targets, PAD)
    which = {"num_prompts": problem.num_prompts, "tokens": batch.get("tokens")}
    loss, accuracy = losses.per_prompt(
      *(logits, words, batch["prompt_id"]), **which, z_loss=problem.z_loss
    )
    metrics = {"loss": loss, "token_accuracy": accuracy}
    if problem.teacher is None:
      return loss.sum(), metrics
    network, rows, weight = problem.teacher
    taught = _logits(
      network, {**params, prompt.NAME: {"embedding": rows}}, batch
    )
    apart = losses.divergence_per_prompt(
      *(taught, logits, words, batch["prompt_id"]), **which
    )
    return (loss + weight * apart).sum(), {**metrics, DISTILLED: apart}

  return jax.grad(loss_of, has_aux=True)


def _logits(network: t5.T5, params: PyTree, batch, rngs=None) -> Any:
  """Teacher-forced logits of a batch, [B, L, V]."""
  own = batch.get("target_segments")
  return network.apply(
    {"params": params},
    batch["inputs"],
    t5.history(batch["targets"], own),
    encoder_segment_ids=batch.get("input_segments"),
    decoder_segment_ids=own,
    rngs=rngs or {},
  )


def _updated(
  problem: Problem, state: TrainState, frozen: PyTree, found
) -> tuple[TrainState, dict]:
  """The next state and the metrics, of a step's gradient and metrics."""
  gradient, metrics = found
  if problem.pull is not None:
    pulled, term = _pulled(problem, problem.pull, state.trained, frozen)
    gradient = jax.tree.map(jnp.add, gradient, pulled)
    metrics = {**metrics, wayward.METRIC: term}
  updates, opt_state = problem.optimizer.update(
    gradient, state.opt_state, state.trained
  )
  trained = optax.apply_updates(state.trained, updates)
  return TrainState(state.step + 1, trained, opt_state), metrics


def _pulled(
  problem: Problem, pull: wayward.Pull, trained: PyTree, frozen: PyTree
):
  """The gradient of the prompts' own term of the loss, and the term, [N]."""

  def term_of(trained):
    params = freeze.merge(trained, frozen)
    module: Any = problem.network.prompt
    term = pull(prompt.collapsed(module, params))
    return term.sum(), term

  return jax.grad(term_of, has_aux=True)(trained)


def make_steps(problem: Problem, like: TrainState | None = None) -> Callable:
  """A function (state, frozen, batches) -> (state, metrics) of several steps.

  The batches are stacked, [S, …], and S steps run as one program; or they are
  a list with the parts of each step (see `layout`), which add up to the same
  update. The metrics come back stacked as well, [S, N]. The state is donated;
  on several devices it stays where the state `like` lies.
  """
  stays = jax.tree.map(lambda leaf: leaf.sharding, like)
  return _steps(problem, stays)


@remembered
def _steps(problem: Problem, stays: Any) -> Callable:
  step = make_step(problem)

  def scanned(state, frozen, batches):
    return jax.lax.scan(
      lambda carry, batch: step(carry, frozen, batch), state, batches
    )

  whole = jax.jit(
    scanned, donate_argnums=0, out_shardings=(stays, _whole(problem))
  )
  divided = make_step_of_parts(problem, stays)

  def steps(state, frozen, batches):
    if isinstance(batches, Mapping):
      return whole(state, frozen, batches)
    metrics = []
    for parts in batches:
      state, of_step = divided(state, frozen, parts)
      metrics.append(of_step)
    return state, jax.tree.map(lambda *each: jnp.stack(each), *metrics)

  return steps


def _whole(problem: Problem) -> Any:
  """Where metrics lie: on every device, so that each process has them."""
  return problem.devices.whole if problem.devices else None


def make_step_of_parts(problem: Problem, stays: Any = None) -> Callable:
  """Like `make_step`, of a step whose batch comes in parts.

  Each part has besides `tokens` [N], the target tokens of each prompt in the
  whole step, so that the parts' gradients add up to the step's.
  """

  first = jax.jit(_make_gradient(problem))

  @functools.partial(jax.jit, donate_argnums=0)
  def further(sums, trained, frozen, part, counts):
    return jax.tree.map(jnp.add, sums, first(trained, frozen, part, counts))

  @functools.partial(
    jax.jit, donate_argnums=0, out_shardings=(stays, _whole(problem))
  )
  def update(state, frozen, found):
    return _updated(problem, state, frozen, found)

  def step(state, frozen, parts):
    sums: Any = None
    for count, part in enumerate(parts):
      counts = (state.step, np.int32(count))
      if sums is None:
        sums = first(state.trained, frozen, part, counts)
      else:
        sums = further(sums, state.trained, frozen, part, counts)
    return update(state, frozen, sums)

  return step
