"""Freezing under t5x: an optimizer for the leaves that train, none for others.

    frozen_but        optax, by masking           (state: the trained leaves)
    multi_optimizer   t5x's MultiOptimizer with t5x's Adafactor
    schedule          the learning rate that t5x's Trainer logs and passes on

Which leaves train is said by regexes over parameter paths, see `freeze`.
"""

from collections.abc import Callable, Sequence
import functools
import re

from flax import core, traverse_util
import jax
import jax.numpy as jnp
import optax
from t5x import adafactor, optimizers

from prompt_tuning.model import freeze
from prompt_tuning.prompts import prompt
from prompt_tuning.shapes import PyTree

_RULES = optimizers.OptaxStatePartitionRules


class FreezingWrapper(optimizers.OptaxWrapper):
  """t5x's OptaxWrapper for optax states that t5x has no rule for, too.

  Every device has all of such a state. A prompt's is small, and of a matrix
  that Adafactor factors it is a row and a column; of other optimizers that t5x
  does not know, model tuning keeps a copy on each device.
  """

  def derive_logical_axes(self, optimizer, param_logical_axes):
    """As t5x's, after the rules that lack are added."""
    _add_rules(optimizer.state.param_states)
    return super().derive_logical_axes(optimizer, param_logical_axes)


def _add_rules(state) -> None:
  for part in jax.tree.leaves(state, is_leaf=_RULES._is_optax_state):
    if _RULES._is_optax_state(part):
      _RULES._RULES.setdefault(type(part), _replicated)
      _add_rules(tuple(part))


def _replicated(state, params_axes):
  del params_axes
  return jax.tree.map(lambda _: None, state)


def schedule(learning_rate: float | optax.Schedule) -> Callable:
  """LEARNING_RATE, a number or a schedule, as t5x's Trainer asks for it."""

  def at(step):
    found = learning_rate(step) if callable(learning_rate) else learning_rate
    return jnp.asarray(found, jnp.float32)

  return at


def frozen_but(
  optimizer: optax.GradientTransformation,
  trainable: Sequence[str] = freeze.PROMPT,
) -> FreezingWrapper:
  """An optax optimizer for the trainable leaves; the others never move.

  Args:
    optimizer: any optax transformation, see `prompt_tuning.optimizers`.
    trainable: regexes over parameter paths.
  """

  def labels(params):
    mask = _trains(params, trainable)
    named = jax.tree.map(lambda m: "trained" if m else "frozen", mask)
    frozen = isinstance(params, core.FrozenDict)
    return core.freeze(named) if frozen else named

  return FreezingWrapper(
    optax.multi_transform(
      {"trained": optimizer, "frozen": optax.set_to_zero()}, labels
    )
  )


def _trains(params: PyTree, trainable: Sequence[str]) -> PyTree:
  """Booleans in place of the leaves: which ones train."""
  return prompt.trainable(freeze.mask(core.unfreeze(params), trainable))


def multi_optimizer(
  weight_decay: float = 1e-5,
  trainable: Sequence[str] = freeze.PROMPT,
  *,
  step_offset: int = 0,
  factored: bool = False,
  parameter_scaling: bool = False,
) -> "ResumableMultiOptimizer":
  """t5x's Adafactor for the trainable leaves, by t5x's MultiOptimizer.

  The learning rate is that of t5x's Trainer. The numbers mean what they mean in
  `prompt_tuning.optimizers.adafactor`.
  """
  return ResumableMultiOptimizer(
    trainable,
    adafactor.Adafactor(
      factored=factored,
      multiply_by_parameter_scale=parameter_scaling,
      decay_rate=0.8,
      step_offset=-step_offset,
      clipping_threshold=1.0,
      weight_decay_rate=weight_decay or None,
    ),
  )


class ResumableMultiOptimizer(optimizers.MultiOptimizer):
  """t5x's MultiOptimizer with one optimizer, whose checkpoints can be resumed.

  t5x keeps None where nothing trains, saves no such leaf, and then misses it.
  Here what is saved has the trained leaves alone.
  """

  def __init__(
    self, trainable: Sequence[str], optimizer: optimizers.OptimizerDef
  ):
    patterns = [re.compile(pattern) for pattern in trainable]
    self._trains = functools.partial(_matches, patterns)
    self._trainable = trainable
    chosen = traverse_util.ModelParamTraversal(
      lambda path, _: self._trains(path.lstrip("/"))
    )
    super().__init__([(chosen, optimizer)])

  def init_state(self, params):
    """As t5x's, of patterns that each match something."""
    _trains(params, self._trainable)
    return super().init_state(params)

  def state_dict(self, target, state):
    """What is saved."""
    saved = super().state_dict(target, state)
    flat = traverse_util.flatten_dict(
      saved["state"]["param_states"], keep_empty_nodes=True, sep="/"
    )
    kept = {
      path: leaf
      for path, leaf in flat.items()
      if self._trains(path) or self._trains(path.rpartition("/")[0])
    }
    saved["state"]["param_states"] = traverse_util.unflatten_dict(kept, sep="/")
    return saved

  def restore_state(self, opt_target, opt_state, state_dict):
    """The inverse of `state_dict`: None again where nothing trains."""
    whole = super().state_dict(opt_target, opt_state)["state"]["param_states"]
    flat = traverse_util.flatten_dict(whole, keep_empty_nodes=True, sep="/")
    flat |= traverse_util.flatten_dict(
      state_dict["state"]["param_states"], keep_empty_nodes=True, sep="/"
    )
    state = dict(state_dict["state"])
    state["param_states"] = traverse_util.unflatten_dict(flat, sep="/")
    return super().restore_state(
      opt_target, opt_state, {**state_dict, "state": state}
    )


def _matches(patterns: Sequence[re.Pattern], path: str) -> bool:
  found = any(pattern.fullmatch(path) for pattern in patterns)
  return found and not prompt.is_fixed(path)
