"""The prompt inside t5x: its T5 or ours, as a model for t5x's launchers.

    tokens with placeholders -> PromptedTransformer -> logits
                                  t5x's own Encoder and Decoder, unmodified

A placeholder is a token, so t5x's masks, relative positions, cached decoding
and packed segments are right as they are. The only thing that changes is the
embedding that the encoder is given, its mask with PROMPT_ATTENTION and, for a
deep prompt, what goes into its layers; the new parameters are the prompt's.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from flax import core
from flax import linen as nn
import jax
import jax.numpy as jnp
from t5x import decoding, models
from t5x.examples.t5 import layers, network

from prompt_tuning.model import inject, inside, t5
from prompt_tuning.prompts import multitask, prompt, reparameterised
from prompt_tuning.prompts.inner import deep, tensors
from prompt_tuning.shapes import PyTree
from prompt_tuning.t5x import t5x_features, t5x_prompts

First = Callable[[Any], PyTree]
"""From a module that trains to its first parameters, see `t5x_prompts`."""

METHODS = (
  prompt.Prompt,
  reparameterised.Residual,
  reparameterised.LowRank,
  reparameterised.ULPT,
  reparameterised.Superposition,
  multitask.MultiTask,
  deep.Deep,
)
"""What may train here: all that collapses to plain rows, and deep prompts."""


class PromptedEncoder(network.Encoder):
  """t5x's encoder with what a prompt has inside it.

  Attributes:
    attends: a mask more, see `t5.T5.attends`.
    prompt: the prompt's module, whose deep rows go into the layers.
  """

  attends: Callable | None = None
  prompt: nn.Module | None = None

  def __call__(
    self, encoder_input_tokens, encoder_mask=None, deterministic=False
  ):
    mask = encoder_mask
    if self.attends is not None:
      more = self.attends(encoder_input_tokens)[:, None]
      mask = layers.combine_masks(encoder_mask, more, dtype=self.config.dtype)
    own = inside.of(self.prompt).encoder
    stack = inside.OfStack(own, encoder_input_tokens)

    def enter(call, args, kwargs, context):
      """Calls a method of a module below; a layer gets its deep rows first."""
      layer = context.module
      if own and isinstance(layer, network.EncoderLayer):
        number = int(layer.name.removeprefix("layers_"))
        rows = {name: tensor[:, number] for name, tensor in own.items()}
        args = (stack.enter(args[0], rows), *args[1:])
      return call(*args, **kwargs)

    with nn.intercept_methods(enter):
      return super().__call__(encoder_input_tokens, mask, deterministic)


class PromptedTransformer(network.Transformer):
  """t5x's T5 with a prompt among the encoder's input.

  Attributes:
    prompt: a module that returns the prompt's rows [P, E].
    attends: what may attend to what in the encoder, see `t5.T5.attends`.
    one_hot: embed by a product with one-hot rows, as t5x does, instead of
      reading rows: slower, for a table that is spread over a model axis.
  """

  prompt: nn.Module | None = None
  attends: Callable | None = None
  one_hot: bool = False

  def setup(self):
    config = self.config
    self.shared_embedding = layers.Embed(
      num_embeddings=config.vocab_size,
      features=config.emb_dim,
      dtype=config.dtype,
      attend_dtype=jnp.float32,
      embedding_init=nn.initializers.normal(1.0),
      one_hot=self.one_hot,
      name="token_embedder",
    )
    # t5x's own setup cannot be called first: the names would be in use.
    embedding = (
      self.shared_embedding
      if self.prompt is None
      else inject.PromptedEmbedding(self.shared_embedding, self.prompt)
    )
    self.encoder = PromptedEncoder(
      config, embedding, attends=self.attends, prompt=self.prompt
    )
    self.decoder = network.Decoder(config, self.shared_embedding)


PACKING = (PromptedTransformer, t5.T5)
"""Networks that keep packed segments apart: masked by segment, and with
relative positions only."""


_T5X_CONSTANTS = {
  "relpos_buckets": 32,
  "relpos_max_distance": 128,
  "layer_norm_epsilon": 1e-6,
}


def t5x_network(
  config: t5.T5Config,
  prompt_length: int = 0,
  method: reparameterised.Method | None = None,
  *,
  placing: inject.Placing = inject.IN_FRONT,
  one_hot: bool = False,
) -> PromptedTransformer:
  """t5x's `examples.t5.network` with a prompt of P positions.

  Args:
    config: the T5's shape.
    prompt_length: P; 0 for no prompt.
    method: what trains (PROMPT); None for a plain prompt.
    placing: what the prompt attends to.
    one_hot: see `PromptedTransformer`.

  Raises:
    ValueError: a setting that t5x's network has no choice in.
  """
  plain = dataclasses.replace(config, **_T5X_CONSTANTS, scale_logits=None)
  for name in (*_T5X_CONSTANTS, "scale_logits"):
    wanted, has = getattr(config, name), getattr(plain, name)
    if wanted != has:
      raise ValueError(
        f"T5Config.{name}={wanted}, but t5x's network always has {has}. Set "
        "NETWORK=@t5x_models.own_network() for this model."
      )
  shared = {
    name: getattr(config, name)
    for name in network.T5Config.__dataclass_fields__
    if hasattr(config, name)
  }
  return PromptedTransformer(
    network.T5Config(**shared),
    prompt=_prompt(prompt_length, config, method, placing),
    attends=inject.prompt_mask(prompt_length, [placing]),
    one_hot=one_hot,
  )


def own_network(
  config: t5.T5Config,
  prompt_length: int = 0,
  method: reparameterised.Method | None = None,
  *,
  placing: inject.Placing = inject.IN_FRONT,
) -> t5.T5:
  """This package's T5, which has the same parameters."""
  return t5.T5(
    config,
    _prompt(prompt_length, config, method, placing),
    attends=inject.prompt_mask(prompt_length, [placing]),
  )


def _prompt(
  length: int,
  config: t5.T5Config,
  method: reparameterised.Method | None,
  placing: inject.Placing,
) -> Any:
  if length < 0:
    raise ValueError(
      f"PROMPT_LENGTH={length}; give 0 for no prompt, or a positive number."
    )
  if not callable(method or prompt.Prompt):
    raise ValueError(
      f"PROMPT={method!r} is no method. Name a file of methods/ instead, for "
      "example --gin_file=methods/residual.gin."
    )
  made = (method or prompt.Prompt)(length, config.emb_dim, None)
  if isinstance(method, t5x_prompts.Saved):
    tensors.check_fits(method.tensors, config, method.path)
    return made
  made = prompt.for_network(made, config)
  if not isinstance(made, METHODS):
    names = ", ".join(known.__name__ for known in METHODS)
    raise ValueError(
      f"PROMPT={type(made).__name__} does not train under t5x's launchers, "
      f"which have {names}. Run prompt-tuning train, or choose one of them."
    )
  if not length:
    if method is not None or placing != inject.IN_FRONT:
      raise ValueError(
        "PROMPT (by a file of methods/), PROMPT_PLACE or PROMPT_ATTENTION is "
        "set and PROMPT_LENGTH=0, so there is no prompt. Leave them out, or "
        "set PROMPT_LENGTH."
      )
    return None
  if isinstance(made, multitask.MultiTask) and not made.start_from:
    raise ValueError(
      "methods/multi_task.gin trains several tasks together, and a run under "
      "t5x trains one prompt. Train the shared part with prompt-tuning train, "
      "and start here from its folder with SHARED_FROM."
    )
  return made


class PromptModel(models.EncoderDecoderModel):
  """t5x's encoder-decoder model for a network with a prompt.

  Args:
    module: `t5x_network()` or `own_network()`; another network may have a field
      `prompt` as they do.
    vocabulary: a seqio vocabulary, of inputs and targets.
    optimizer_def: see `t5x_optimizers`.
    first: the prompt's first parameters; None for zeros, where a checkpoint has
      the others.
    placing: where the prompt stands.
    allow_dropout: accept dropout beside a prompt.
    options: of `t5x.models.EncoderDecoderModel`.

  Raises:
    ValueError: the vocabulary has no room in the embedding, or dropout was
      left on.
  """

  def __init__(
    self,
    module: nn.Module,
    vocabulary,
    optimizer_def,
    *,
    first: First | None = None,
    placing: inject.Placing = inject.IN_FRONT,
    allow_dropout: bool = False,
    **options,
  ):
    config: Any = getattr(module, "config", None)
    t5x_features.check_vocabulary(vocabulary, config.vocab_size)
    if module_prompt(module) is not None and not allow_dropout:
      t5x_features.check_dropout(config.dropout_rate)
    self._first = first
    convert = functools.partial(feature_converter, module, place=placing.place)
    super().__init__(
      module,
      vocabulary,
      vocabulary,
      optimizer_def,
      feature_converter_cls=convert,
      **{"decode_fn": decoding.temperature_sample, **options},
    )

  def get_initial_variables(
    self, rng, input_shapes: Mapping, input_types: Mapping | None = None
  ):
    """As t5x's, with the prompt's first parameters.

    Tokens are integers even where a launcher gives no types.
    """
    types = dict.fromkeys(input_shapes, jnp.int32)
    made = super().get_initial_variables(rng, input_shapes, types)
    module = module_prompt(self.module)
    if module is None or self._first is None:
      return made
    # t5x asks while it traces; the values are those of this moment.
    with jax.ensure_compile_time_eval():
      values = jax.tree.map(jnp.asarray, self._first(module))
    params = {**core.unfreeze(made["params"]), prompt.NAME: values}
    return made.copy({"params": core.freeze(params)})


def module_prompt(module: nn.Module) -> Any:
  """The prompt of a network, if it has one."""
  return getattr(module, "prompt", None)


def feature_converter(
  module: nn.Module,
  pack: bool,
  use_custom_packing_ops: bool = False,
  *,
  place: str = inject.FRONT,
):
  """What t5x asks a model for: task features to the network's input.

  Raises:
    ValueError: packing, with a network that would mix the segments.
  """
  if pack and not isinstance(module, PACKING):
    raise ValueError(
      f"PACK=True, but {type(module).__name__} is not known to keep packed "
      "segments apart: it needs masks by segment and relative positions. Set "
      "PACK=False, or add it to prompt_tuning.t5x.t5x_models.PACKING."
    )
  found = module_prompt(module)
  return t5x_features.PromptConverter(
    pack=pack,
    use_custom_packing_ops=use_custom_packing_ops,
    prompt_length=0 if found is None else found.length,
    place=place,
  )
