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
  real = (targets != PAD).astype(jnp.float32)
  right = (jnp.argmax(logits, -1) == targets) * real

  def total(values):
    if prompt_id.ndim == 1:
      values = values.sum(axis=-1)
    return sum_per_prompt(values.ravel(), prompt_id.ravel(), num_prompts)

  if tokens is None:
    tokens = jnp.maximum(total(real), 1.0)
  return total(losses) / tokens, total(right) / tokens
