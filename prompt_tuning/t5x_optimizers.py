"""Freezing under t5x: an optimizer for the leaves that train, none for others.

    frozen_but        optax, by masking           (state: the trained leaves)
    multi_optimizer   t5x's MultiOptimizer with t5x's Adafactor

Which leaves train is said by regexes over parameter paths, see `freeze`.
"""

from collections.abc import Sequence
import functools
import re

from flax import core, traverse_util
import jax
import optax
from t5x import adafactor, optimizers

from prompt_tuning import freeze


def _replicated(state: optax.FactoredState, params_axes) -> optax.FactoredState:
  del params_axes
  return jax.tree.map(lambda _: None, state)


# t5x knows no rule for the state of optax.adafactor. A prompt's is small, and
# of a factored matrix it is a row and a column: every device has all of it.
optimizers.OptaxStatePartitionRules._RULES.setdefault(
  optax.FactoredState, _replicated
)


def frozen_but(
  optimizer: optax.GradientTransformation,
  trainable: Sequence[str] = freeze.PROMPT,
) -> optimizers.OptaxWrapper:
  """An optax optimizer for the trainable leaves; the others never move.

  Args:
    optimizer: any optax transformation, see `prompt_tuning.optimizers`.
    trainable: regexes over parameter paths.
  """

  def labels(params):
    mask = freeze.mask(core.unfreeze(params), trainable)
    named = jax.tree.map(lambda m: "trained" if m else "frozen", mask)
    frozen = isinstance(params, core.FrozenDict)
    return core.freeze(named) if frozen else named

  return optimizers.OptaxWrapper(
    optax.multi_transform(
      {"trained": optimizer, "frozen": optax.set_to_zero()}, labels
    )
  )


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
    freeze.mask(core.unfreeze(params), self._trainable)
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
  return any(pattern.fullmatch(path) for pattern in patterns)
