"""Optimizers: Adafactor with the paper's numbers, AdamW, schedules.

Adafactor, as the paper runs it (section 3 and appendix): at update t = 0, 1, …
with gradient g of one prompt,

    b2 = 1 - (t + 1 + step_offset)^-0.8
    v  = b2 v + (1 - b2) (g^2 + 1e-30)
    u  = g / sqrt(v),  divided by max(1, RMS(u))
    p  = p - 0.3 u - 1e-5 p

The weight decay is not multiplied by the learning rate, and there is no
scaling by the parameter's size.
"""

import math

import jax
import jax.numpy as jnp
import optax

from prompt_tuning.shapes import PyTree, remembered


@remembered
def adafactor(
  learning_rate: optax.ScalarOrSchedule = 0.3,
  weight_decay: float = 1e-5,
  *,
  step_offset: int = 0,
  decay_rate: float = 0.8,
  factored: bool = False,
  parameter_scaling: bool = False,
) -> optax.GradientTransformation:
  """Adafactor with the paper's numbers as defaults.

  Args:
    learning_rate: constant, or a function of the step.
    weight_decay: the part of a parameter that each step removes.
    step_offset: steps that the decay of the second moment counts as already
      done. 0 starts anew; the original runs inherited the 1,100,000 steps of
      the LM-adapted checkpoint, which makes the second moment nearly constant
      from the start.
    decay_rate: the exponent of the second moment's decay.
    factored: keep row and column means of the second moment instead of all of
      it, for matrices with both sides of 128 or more. False for prompts, so
      that a prompt of 150 positions trains as one of 100 does; model tuning
      wants it for its memory.
    parameter_scaling: multiply the update by the parameter's RMS (model tuning
      of T5; off for prompts).
  """
  _check_rate(learning_rate)
  for name, value in {
    "WEIGHT_DECAY": weight_decay,
    "STEP_OFFSET": step_offset,
  }.items():
    if not 0 <= value < math.inf:
      raise ValueError(f"{name}={value}; give 0 or a positive number.")
  return optax.adafactor(
    learning_rate=learning_rate,
    decay_rate=decay_rate,
    decay_offset=-step_offset,
    multiply_by_parameter_scale=parameter_scaling,
    clipping_threshold=1.0,
    momentum=None,
    weight_decay_rate=weight_decay or None,
    factored=factored,
    min_dim_size_to_factor=128,
  )


def fingerprint(optimizer: optax.GradientTransformation) -> list[float]:
  """How large an optimizer's updates of one example are at a few steps.

  Optimizers that differ in a number or a schedule differ here: the gradient
  shrinks, so that moments count, and the parameters are large, so that their
  decay does.
  """
  directions = jnp.linspace(-1.0, 2.0, 6).reshape(2, 3)
  params, sizes = 1000 * directions, []
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)

  def at(step: int):
    def moved(path, leaf):
      counts = jax.tree_util.keystr(path).endswith("count")
      return jnp.asarray(step, leaf.dtype) if counts else leaf

    return jax.tree_util.tree_map_with_path(moved, state)

  for step in (0, 1, 10, 100, 1000, 10000):
    gradient = jnp.cos(3 * directions) / (1 + len(sizes))
    updates, state = update(gradient, at(step), params)
    sizes.append(float(f"{jnp.linalg.norm(updates):.4g}"))
  return sizes


def _check_rate(learning_rate: optax.ScalarOrSchedule) -> None:
  if not callable(learning_rate) and not 0 <= learning_rate < math.inf:
    raise ValueError(
      f"LEARNING_RATE={learning_rate}; give 0 or a positive number, for "
      "example 0.3 (prompt tuning) or 0.001 (model tuning)."
    )


@remembered
def adamw(
  learning_rate: optax.ScalarOrSchedule = 1e-3,
  weight_decay: float = 0.0,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """AdamW, with the gradient clipped to a global norm if `clip_norm` is set."""
  _check_rate(learning_rate)
  tx = optax.adamw(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)
  return (
    tx
    if clip_norm is None
    else optax.chain(optax.clip_by_global_norm(clip_norm), tx)
  )


@remembered
def warmup_cosine(
  peak: float, steps: int, *, warmup: int = 100, floor: float = 0.05
) -> optax.Schedule:
  """Linear warm-up to `peak`, then a cosine down to `floor` * peak."""
  return optax.warmup_cosine_decay_schedule(
    0.0, peak, min(warmup, steps // 2), steps, end_value=floor * peak
  )


@remembered
def falling_adafactor(
  steps: int, peak: float = 0.3
) -> optax.GradientTransformation:
  """Adafactor for prompts that train briefly, as in `demo/prompt_tuning.gin`.

  The paper's constant learning rate of 0.3 is made for 30,000 steps; to be done
  in a few hundred it falls from there along a cosine.
  """
  return adafactor(warmup_cosine(peak, steps, warmup=1))


@remembered
def falling_adamw(
  steps: int, peak: float = 3e-4
) -> optax.GradientTransformation:
  """AdamW for small models, as in `demo/model_tuning.gin`.

  At a constant rate their scores jump from one evaluation to the next.
  """
  return adamw(warmup_cosine(peak, steps, warmup=20))


@remembered
def per_prompt(
  tx: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Runs `tx` on each prompt of a bank by itself.

  The leaves have a leading axis of N. Clipping by RMS or norm then looks at one
  prompt only, so N prompts trained together equal N trained alone.
  """

  def update(
    updates: PyTree, state: PyTree, params: PyTree | None = None
  ) -> tuple[PyTree, PyTree]:
    return jax.vmap(tx.update)(updates, state, params)

  return optax.GradientTransformation(jax.vmap(tx.init), update)


def of_bank(
  tx: optax.GradientTransformation, is_shared: PyTree
) -> optax.GradientTransformation:
  """Runs `tx` on each prompt of a bank, and on what its prompts share.

  Args:
    tx: a transformation of one prompt's leaves.
    is_shared: a tree of booleans, True for leaves without an axis of N.
  """
  if not any(jax.tree.leaves(is_shared)):
    return per_prompt(tx)
  return optax.partition({True: tx, False: per_prompt(tx)}, is_shared)
