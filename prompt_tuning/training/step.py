"""One jitted training step on explicit state, and several of them a dispatch.

    state, frozen, batch -> loss per prompt -> gradient of the trained leaves
                         -> optax update -> state

The gradient is taken of the trained part alone; the frozen part is an argument
that comes back to nobody.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prompt_tuning.model import freeze, losses, t5
from prompt_tuning.shapes import PyTree


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


@dataclasses.dataclass(frozen=True)
class Problem:
  """What is optimised, and how.

  Attributes:
    network: a T5, with a prompt module if one is to be injected.
    optimizer: an optax transformation of the trained leaves.
    num_prompts: N of the bank; 1 when the network itself trains.
    z_loss: weight of log(Z)^2 in the loss, 1e-4 as T5 was trained.
    seed: of the dropout keys (used when the network's dropout_rate is not 0).
  """

  network: t5.T5
  optimizer: optax.GradientTransformation
  num_prompts: int = 1
  z_loss: float = 1e-4
  seed: int = 0


def initial_state(problem: Problem, trained: PyTree) -> TrainState:
  """The state before the first step."""
  return TrainState(
    jnp.zeros((), jnp.int32), trained, problem.optimizer.init(trained)
  )


def make_step(problem: Problem) -> Callable:
  """A pure function (state, frozen, batch) -> (state, metrics).

  The batch holds `inputs` [B, P + T], `targets` [B, L] and `prompt_id` [B];
  the metrics `loss` [N] (mean nats per target token, z-loss included) and
  `token_accuracy` [N].
  """
  dropout = problem.network.config.dropout_rate > 0

  def loss_of(trained, frozen, batch, step):
    key = jax.random.fold_in(jax.random.key(problem.seed), step)
    logits: Any = problem.network.apply(
      {"params": freeze.merge(trained, frozen)},
      batch["inputs"],
      t5.shift_right(batch["targets"]),
      rngs={"dropout": key} if dropout else {},
    )
    loss, accuracy = losses.per_prompt(
      logits,
      batch["targets"],
      batch["prompt_id"],
      num_prompts=problem.num_prompts,
      z_loss=problem.z_loss,
    )
    return loss.sum(), {"loss": loss, "token_accuracy": accuracy}

  def step(state, frozen, batch):
    gradient, metrics = jax.grad(loss_of, has_aux=True)(
      state.trained, frozen, batch, state.step
    )
    updates, opt_state = problem.optimizer.update(
      gradient, state.opt_state, state.trained
    )
    trained = optax.apply_updates(state.trained, updates)
    return TrainState(state.step + 1, trained, opt_state), metrics

  return step


def make_steps(problem: Problem) -> Callable:
  """Like `make_step` over stacked batches [S, …], jitted: S steps a dispatch.

  The metrics come back stacked as well, [S, N]. The state is donated.
  """
  step = make_step(problem)

  def steps(state, frozen, batches):
    return jax.lax.scan(
      lambda carry, batch: step(carry, frozen, batch), state, batches
    )

  return jax.jit(steps, donate_argnums=0)
