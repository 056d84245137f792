"""The prompt inside t5x: its T5 or ours, as a model for t5x's launchers.

    tokens with placeholders -> PromptedTransformer -> logits
                                  t5x's own Encoder and Decoder, unmodified

A placeholder is a token, so t5x's masks, relative positions, cached decoding
and packed segments are right as they are. The only thing that changes is the
embedding that the encoder is given, and the only new parameter is the prompt.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from t5x import decoding, models
from t5x.examples.t5 import layers, network

from prompt_tuning.model import inject, t5
from prompt_tuning.prompts import prompt
from prompt_tuning.t5x import t5x_features

NO_VALUES = nn.initializers.zeros
"""For a prompt that a checkpoint holds."""


class PromptedTransformer(network.Transformer):
  """t5x's T5 with a prompt among the encoder's input.

  Attributes:
    prompt: a module that returns the prompt's rows [P, E].
    one_hot: embed by a product with one-hot rows, as t5x does, instead of
      reading rows: slower, for a table that is spread over a model axis.
  """

  prompt: nn.Module | None = None
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
    self.encoder = network.Encoder(
      config,
      self.shared_embedding
      if self.prompt is None
      else inject.PromptedEmbedding(self.shared_embedding, self.prompt),
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
  initializer: Callable = NO_VALUES,
  *,
  one_hot: bool = False,
) -> PromptedTransformer:
  """t5x's `examples.t5.network` with a prompt of P positions.

  Args:
    config: the T5's shape.
    prompt_length: P; 0 for no prompt.
    initializer: the prompt's first values, see `t5x_prompts`.
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
  rows = _prompt(prompt_length, config.emb_dim, initializer)
  return PromptedTransformer(
    network.T5Config(**shared), prompt=rows, one_hot=one_hot
  )


def own_network(
  config: t5.T5Config,
  prompt_length: int = 0,
  initializer: Callable = NO_VALUES,
) -> t5.T5:
  """This package's T5, which has the same parameters."""
  return t5.T5(config, _prompt(prompt_length, config.emb_dim, initializer))


def _prompt(length: int, width: int, initializer) -> prompt.Prompt | None:
  if length < 0:
    raise ValueError(
      f"PROMPT_LENGTH={length}; give 0 for no prompt, or a positive number."
    )
  if not length:
    return None
  return prompt.Prompt(length, width, initializer=initializer)


class PromptModel(models.EncoderDecoderModel):
  """t5x's encoder-decoder model for a network with a prompt.

  Args:
    module: `t5x_network()` or `own_network()`; another network may have a field
      `prompt` as they do.
    vocabulary: a seqio vocabulary, of inputs and targets.
    optimizer_def: see `t5x_optimizers`.
    decode_fn: one of `t5x.decoding`.
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
    decode_fn: Callable = decoding.temperature_sample,
    *,
    allow_dropout: bool = False,
    **options,
  ):
    config: Any = getattr(module, "config", None)
    t5x_features.check_vocabulary(vocabulary, config.vocab_size)
    if module_prompt(module) is not None and not allow_dropout:
      t5x_features.check_dropout(config.dropout_rate)
    super().__init__(
      module,
      vocabulary,
      vocabulary,
      optimizer_def,
      decode_fn,
      feature_converter_cls=functools.partial(feature_converter, module),
      **options,
    )

  def get_initial_variables(
    self, rng, input_shapes: Mapping, input_types: Mapping | None = None
  ):
    """As t5x's; tokens are integers even where a launcher gives no types."""
    types = dict.fromkeys(input_shapes, jnp.int32)
    return super().get_initial_variables(rng, input_shapes, types)


def module_prompt(module: nn.Module) -> prompt.Prompt | None:
  """The prompt of a network, if it has one."""
  return getattr(module, "prompt", None)


def feature_converter(
  module: nn.Module, pack: bool, use_custom_packing_ops: bool = False
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
  )
