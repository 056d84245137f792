"""The sizes of a T5Gemma by the shapes of its leaves, and the published ones.

A checkpoint of the library gemma has no configuration. Shapes tell every size;
how far layers see, the caps, the base of the rotations and what the decoder
starts from they do not. All published T5Gemmas have the same numbers there, so
these are taken where a model has published sizes, and asked for elsewhere.
"""

from collections.abc import Mapping
import dataclasses
import re

from prompt_tuning.frozen.t5gemma.flax_tree import (
  STACKS,
  TABLE,
  Layout,
  Shape,
)
from prompt_tuning.model.t5gemma import Stack, T5GemmaConfig

PUBLISHED = {
  "s": Stack(512, 8, 8, 64, 1024, 8),
  "b": Stack(768, 12, 12, 64, 2048, 12),
  "l": Stack(1024, 16, 16, 64, 2816, 24),
  "ml": Stack(1152, 4, 4, 256, 6912, 26),
  "xl": Stack(2048, 32, 32, 64, 5120, 24),
  "2b": Stack(2304, 8, 4, 256, 9216, 26),
  "9b": Stack(3584, 16, 8, 256, 14336, 42),
}
"""The stacks of the published T5Gemmas, by the names in gin/models/."""

STORED_ROWS, ROWS = 256_128, 256_000
"""Rows of a published table as gemma stores it, and those that have a word."""

_SIZES = (
  "emb_dim",
  "num_heads",
  "num_kv_heads",
  "head_dim",
  "mlp_dim",
  "num_layers",
)
_UNTOLD = "how far layers see, the caps of scores and logits, the rotations"


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What shapes tell.

  Attributes:
    rows: of either table, as they are stored.
    encoder: the one stack, with the numbers that published ones have.
    decoder: the other.
    layouts: how the leaves of both lie.
  """

  rows: int
  encoder: Stack
  decoder: Stack
  layouts: dict[str, Layout]

  def config(self) -> T5GemmaConfig:
    """A model of these sizes with the numbers that published ones have."""
    rows = ROWS if self.rows == STORED_ROWS else self.rows
    return T5GemmaConfig(rows, self.encoder, self.decoder)


def sizes_of(shapes: Mapping[str, Shape], where: str) -> Sizes:
  """The sizes of a model by the shapes of its leaves.

  Raises:
    ValueError: a leaf is missing without which there is no T5Gemma, or has
      another number of axes.
  """

  def axes(name: str, count: int) -> Shape:
    if name not in shapes:
      raise ValueError(
        f"{where} has no tensor {name}, so it is no whole T5Gemma. Restore the "
        "checkpoint from a copy."
      )
    if len(shapes[name]) != count:
      raise ValueError(
        f"{where}: the tensor {name} has the shape {shapes[name]}; a T5Gemma's "
        f"has {count} axes. The checkpoint is damaged, or of another library."
      )
    return shapes[name]

  stacks, layouts = {}, {}
  for stack in STACKS:
    first = f"{stack}/layer_0"
    heads, size, width = axes(f"{first}/attn/attn_vec_einsum", 3)
    joined = f"{first}/attn/qkv_einsum" in shapes
    keys = heads if joined else axes(f"{first}/attn/kv_einsum", 4)[1]
    mlp = axes(f"{first}/mlp/linear", 2)[0]
    if mlp == width:
      raise ValueError(
        f"{where}: the {stack}'s feed-forward part is as wide as the stack "
        f"({width}), so the shape of {first}/mlp/gating_einsum does not tell "
        "which axis is which. Convert the model to Hugging Face."
      )
    gate = axes(f"{first}/mlp/gating_einsum", 3)
    layouts[stack] = Layout(joined, gate[1:] == (mlp, width))
    number = re.compile(rf"{stack}/layer_(\d+)/")
    layers = {int(n[1]) for name in shapes if (n := number.match(name))}
    try:
      stacks[stack] = Stack(width, heads, keys, size, mlp, 1 + max(layers))
    except ValueError as error:
      raise ValueError(f"{where}, the {stack}: {error}") from error
  rows = axes(f"{STACKS[0]}/{TABLE}", 2)[0]
  return Sizes(rows, stacks["encoder"], stacks["decoder"], layouts)


def config_of(
  sizes: Sizes, expected: T5GemmaConfig | None, where: str
) -> T5GemmaConfig:
  """The shape of a model that has no configuration beside it.

  Args:
    sizes: what shapes tell.
    expected: what shapes do not tell; None for a published model.
    where: the checkpoint, for messages.

  Raises:
    ValueError: nothing is expected and no published model has these sizes.
  """
  config = sizes.config()
  if expected is not None:
    stacks = {
      stack: _with_untold(getattr(config, stack), getattr(expected, stack))
      for stack in STACKS
    }
    return dataclasses.replace(
      config,
      **stacks,
      logits_cap=expected.logits_cap,
      start_id=expected.start_id,
      dropout_rate=expected.dropout_rate,
      dtype=expected.dtype,
    )
  other = [
    f"{stack}: {_shown(getattr(config, stack))}"
    for stack in STACKS
    if getattr(config, stack) not in PUBLISHED.values()
  ]
  if other:
    raise ValueError(
      f"{where} holds a T5Gemma of sizes that no published one has "
      f"({'; '.join(other)}), and shapes do not tell {_UNTOLD}. Put the "
      "config.json of the same model in Hugging Face's format (model_type "
      "t5gemma) beside it, or set NETWORK to its T5GemmaConfig as "
      "models/t5gemma_2b_2b.gin does."
    )
  return config


def _with_untold(told: Stack, expected: Stack) -> Stack:
  """A stack of the told sizes, and what shapes do not tell of another."""
  if told.num_layers != expected.num_layers:
    return told  # which load refuses, for what was expected is another model
  sizes = {name: getattr(told, name) for name in _SIZES}
  return dataclasses.replace(expected, **sizes)


def check_sizes(sizes: Sizes, config: T5GemmaConfig, where: str) -> None:
  """Refuses a configuration of another model than the shapes are of.

  Args:
    sizes: what shapes tell.
    config: what the file beside them says.
    where: that file.

  Raises:
    ValueError: the message names every size that differs.
  """
  told = sizes.config()
  other = [
    f"{stack} {name} {getattr(said, name)}, the weights {getattr(have, name)}"
    for stack in STACKS
    for said, have in [(getattr(config, stack), getattr(told, stack))]
    for name in _SIZES
    if getattr(said, name) != getattr(have, name)
  ]
  if config.vocab_size not in (told.vocab_size, sizes.rows):
    other.append(f"vocab_size {config.vocab_size}, the weights {sizes.rows}")
  if other:
    raise ValueError(
      f"{where} describes another model than the weights beside it: "
      f"{'; '.join(other)}. Put the file of this model there."
    )


def _shown(stack: Stack) -> str:
  return (
    f"width {stack.emb_dim}, {stack.num_heads} heads of {stack.head_dim} with "
    f"{stack.num_kv_heads} keys, feed-forward {stack.mlp_dim} and "
    f"{stack.num_layers} layers"
  )
