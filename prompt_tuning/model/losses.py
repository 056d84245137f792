"""The loss: cross-entropy per target token, then a mean per prompt.

    logits [B, L, V], targets [B, L] -> [B, L] -> [N]

Each prompt of a bank has its own mean over its own examples, so the gradient
of prompt n is what it would be if n were trained alone.
"""

import jax
import jax.numpy as jnp

from prompt_tuning.shapes import PAD, Array, Float, Int


def token_losses(
  logits: Float[Array, "*B L V"],
  targets: Int[Array, "*B L"],
  z_loss: float = 0.0,
) -> Float[Array, "*B L"]:
  """Cross-entropy in nats plus `z_loss` * log(Z)^2; 0 where the target is PAD.

  T5 was trained with z_loss 1e-4, and t5x trains prompts with it.
  """
  log_z = jax.nn.logsumexp(logits, axis=-1)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  losses = log_z - chosen + z_loss * log_z**2
  return jnp.where(targets == PAD, 0.0, losses)


def sum_per_prompt(
  values: Float[Array, "B"], prompt_id: Int[Array, "B"], num_prompts: int
) -> Float[Array, "N"]:
  """Adds up the values of the examples of each prompt."""
  member = prompt_id[None, :] == jnp.arange(num_prompts)[:, None]
  return jnp.sum(jnp.where(member, values[None, :], 0.0), axis=1)


def per_prompt(
  logits: Float[Array, "B L V"],
  targets: Int[Array, "B L"],
  prompt_id: Int[Array, "B"] | Int[Array, "B L"],
  *,
  num_prompts: int,
  z_loss: float,
  tokens: Float[Array, "N"] | None = None,
) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
  """Mean loss and mean token accuracy over the target tokens of each prompt.

  Args:
    logits: of every target.
    targets: padded with 0.
    prompt_id: the prompt of every example or, in packed rows, target.
    num_prompts: N.
    z_loss: see `token_losses`.
    tokens: what the sums are divided by, where the targets are a part of a
      step's; None for the target tokens that are here.
  """
  losses = token_losses(logits, targets, z_loss)
  right = (jnp.argmax(logits, -1) == targets) & (targets != PAD)
  loss, accuracy = (
    _means(values, targets, prompt_id, num_prompts, tokens)
    for values in (losses, right.astype(jnp.float32))
  )
  return loss, accuracy


def divergence_per_prompt(
  teacher: Float[Array, "B L V"],
  logits: Float[Array, "B L V"],
  targets: Int[Array, "B L"],
  prompt_id: Int[Array, "B"] | Int[Array, "B L"],
  *,
  num_prompts: int,
  tokens: Float[Array, "N"] | None = None,
) -> Float[Array, "N"]:
  """Mean KL(teacher, logits) in nats over the target tokens of each prompt.

  Args:
    teacher: the logits that `logits` are to come near.
    logits: of every target.
    targets: as for `per_prompt`, like all that follows.
    prompt_id: of every example or target.
    num_prompts: N.
    tokens: what the sums are divided by.
  """
  log_p = jax.nn.log_softmax(teacher)
  each = jnp.sum(jnp.exp(log_p) * (log_p - jax.nn.log_softmax(logits)), axis=-1)
  each = jnp.where(targets == PAD, 0.0, each)
  return _means(each, targets, prompt_id, num_prompts, tokens)


def _means(values, targets, prompt_id, num_prompts, tokens):
  """Of values [B, L], 0 at PAD, over the targets of each prompt, [N]."""

  def total(values):
    if prompt_id.ndim == 1:
      values = values.sum(axis=-1)
    return sum_per_prompt(values.ravel(), prompt_id.ravel(), num_prompts)

  if tokens is None:
    tokens = jnp.maximum(total((targets != PAD).astype(jnp.float32)), 1.0)
  return total(values) / tokens
