"""T5 in Flax: one network for T5 1.0, 1.1, mT5, UMT5 and ByT5.

    tokens [B, T] -> read -> Source -> write -> logits [B, L, V]

Parameter paths and logical axes are those of t5x's `examples.t5.network`, so
that checkpoints and partitioning rules fit both, and `encode`, `decode` and
`__call__` take what t5x gives.

The network knows nothing of prompts: `T5(config, prompt=module)` hands the
encoder an embedding that swaps the prompt in (see `inject`).
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model import attention, forms, inject
from prompt_tuning.model.attention import Source
from prompt_tuning.model.layers import (
  Dense,
  Embed,
  Mlp,
  T5Config,
  dropout,
  norm,
)
from prompt_tuning.shapes import PAD, Array, Bool, Float, Int


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each normed before and added after."""

  config: T5Config

  def setup(self):
    self.pre_attention_layer_norm = norm(self.config)
    self.attention = attention.Attention(self.config)
    self.pre_mlp_layer_norm = norm(self.config)
    self.mlp = Mlp(self.config)
    if self.config.relpos_per_layer:
      self.relpos_bias = attention.RelativeBias(self.config, bidirectional=True)

  def __call__(
    self, x: Float[Array, "B T E"], bias: Float[Array, "B #H T T"]
  ) -> Float[Array, "B T E"]:
    if self.config.relpos_per_layer:
      bias = self.relpos_bias(x.shape[1], x.shape[1]) + bias
    y = self.pre_attention_layer_norm(x)
    y = self.attention(y, y, bias)
    x = x + dropout(self, y)
    y = self.mlp(self.pre_mlp_layer_norm(x))
    return x + dropout(self, y)


class DecoderLayer(nn.Module):
  """Causal self-attention, cross-attention and feed-forward."""

  config: T5Config

  def setup(self):
    self.pre_self_attention_layer_norm = norm(self.config)
    self.self_attention = attention.Attention(self.config)
    self.pre_cross_attention_layer_norm = norm(self.config)
    self.encoder_decoder_attention = attention.Attention(self.config)
    self.pre_mlp_layer_norm = norm(self.config)
    self.mlp = Mlp(self.config)
    if self.config.relpos_per_layer:
      self.relpos_bias = attention.RelativeBias(
        self.config, bidirectional=False
      )

  def __call__(
    self,
    x: Float[Array, "B L E"],
    source: Float[Array, "B S E"] | attention.KeysValues,
    biases: tuple[Float[Array, "#B #H span span"], Float[Array, "B 1 L S"]],
    *,
    is_cached: bool,
  ) -> Float[Array, "B L E"]:
    self_bias, cross_bias = biases
    if self.config.relpos_per_layer:
      span = self_bias.shape[-1]
      self_bias = self.relpos_bias(span, span) + self_bias
    own = y = self.pre_self_attention_layer_norm(x)
    if is_cached:
      own, self_bias = self.self_attention.remember(
        self.self_attention.keys_values(y), self_bias
      )
    y = self.self_attention(y, own, self_bias)
    x = x + dropout(self, y)
    y = self.pre_cross_attention_layer_norm(x)
    y = self.encoder_decoder_attention(y, source, cross_bias)
    x = x + dropout(self, y)
    y = self.mlp(self.pre_mlp_layer_norm(x))
    return x + dropout(self, y)


class Encoder(nn.Module):
  """Embedded inputs -> encoded inputs."""

  config: T5Config
  remat: bool = False

  def setup(self):
    config = self.config
    if not config.relpos_per_layer:
      self.relpos_bias = attention.RelativeBias(config, bidirectional=True)
    self.layers = forms.layers_of(self, EncoderLayer, config.num_encoder_layers)
    self.encoder_norm = norm(config)

  def __call__(
    self, x: Float[Array, "B T E"], mask: Bool[Array, "B 1 T T"]
  ) -> Float[Array, "B T E"]:
    bias = attention.mask_bias(mask, x.dtype)
    if not self.config.relpos_per_layer:
      bias = self.relpos_bias(x.shape[1], x.shape[1]) + bias
    x = dropout(self, x)
    x = forms.through(
      self.layers,
      x,
      None,
      lambda layer, x, _: layer(x, bias),
      count=self.config.num_encoder_layers,
      remat=self.remat,
    )
    return dropout(self, self.encoder_norm(x))


class Decoder(nn.Module):
  """Embedded target history -> decoded targets."""

  config: T5Config
  remat: bool = False

  def setup(self):
    config = self.config
    if not config.relpos_per_layer:
      self.relpos_bias = attention.RelativeBias(config, bidirectional=False)
    self.layers = forms.layers_of(self, DecoderLayer, config.num_decoder_layers)
    self.decoder_norm = norm(config)
    if not config.logits_via_embedding:
      self.logits_dense = Dense(
        config.vocab_size, ("embed", "vocab"), jnp.float32
      )

  def keys_values(self, encoded: Float[Array, "B T E"]) -> attention.OfLayers:
    """Cross-attention keys and values of every layer."""
    return forms.of_each(
      self.layers,
      lambda layer: layer.encoder_decoder_attention.keys_values(encoded),
      count=self.config.num_decoder_layers,
    )

  def __call__(
    self,
    x: Float[Array, "B L E"],
    source: Source,
    masks: tuple[Bool[Array, "#B 1 span span"], Bool[Array, "B 1 L T"]],
    *,
    is_cached: bool,
  ) -> Float[Array, "B L E"]:
    self_bias, cross_bias = (
      attention.mask_bias(mask, x.dtype) for mask in masks
    )
    if not self.config.relpos_per_layer:
      span = self_bias.shape[-1]
      self_bias = self.relpos_bias(span, span) + self_bias
    biases = (self_bias, cross_bias)
    x = dropout(self, x)

    def call(layer, x, keys_values):
      attended = source.encoded if keys_values is None else keys_values
      return layer(x, attended, biases, is_cached=is_cached)

    x = forms.through(
      self.layers,
      x,
      source.keys_values,
      call,
      count=self.config.num_decoder_layers,
      remat=self.remat and not is_cached,
    )
    return dropout(self, self.decoder_norm(x))


class T5(nn.Module):
  """T5 with separate `read` and `write`; `prompt` joins the encoder's input.

  Dropout is on where `apply` is given a key for it, rngs={"dropout": key}.

  Attributes:
    config: the network's shape.
    prompt: None, or a module that returns prompt rows [..., E]; placeholder
      ids among the encoder's tokens are replaced by its rows (see `inject`).
    remat: whether layers are computed again for the gradient (see `forms`).
  """

  config: T5Config
  prompt: nn.Module | None = None
  remat: bool = False

  def setup(self):
    config = self.config
    self.token_embedder = Embed(config.vocab_size, config.emb_dim, config.dtype)
    self.encoder_embedder = (
      self.token_embedder
      if self.prompt is None
      else inject.PromptedEmbedding(self.token_embedder, self.prompt)
    )
    self.encoder = Encoder(config, self.remat)
    self.decoder = Decoder(config, self.remat)

  def read(
    self,
    tokens: Int[Array, "B T"],
    segments: Int[Array, "B T"] | None = None,
  ) -> Source:
    """Encodes the inputs; padding (id 0) is attended to by nothing."""
    real = tokens > PAD
    mask = attention.pair_mask(
      real, real, None if segments is None else (segments, segments)
    )
    encoded = self.encoder(self.encoder_embedder(tokens), mask)
    return Source(encoded, real, segments)

  def remembered(self, source: Source) -> Source:
    """The source with the keys and values of every layer, computed once."""
    keys_values = self.decoder.keys_values(source.encoded)
    return source._replace(keys_values=keys_values)

  def write(
    self,
    source: Source,
    tokens: Int[Array, "B L"],
    segments: Int[Array, "B L"] | None = None,
    *,
    cache_length: int = 0,
  ) -> Float[Array, "B L V"]:
    """Float32 logits of the next target token at each position.

    Args:
      source: of `read`.
      tokens: the targets so far, behind id 0.
      segments: which example each target belongs to, in packed rows.
      cache_length: not 0 to decode one position [B, 1] at a time beside a
        `cache` collection of so many; a first call with [B, cache_length]
        tokens lays the cache out.
    """
    config = self.config
    span = cache_length or tokens.shape[1]
    everywhere = jnp.ones_like(tokens, bool)
    own = np.tril(np.ones((1, 1, span, span), bool))
    if segments is not None and not cache_length:
      own = own & attention.pair_mask(
        everywhere, everywhere, (segments, segments)
      )
    pairs = None
    if segments is not None and source.segments is not None:
      pairs = (segments, source.segments)
    cross = attention.pair_mask(everywhere, source.real, pairs)
    x = self.token_embedder(tokens)
    x = self.decoder(x, source, (own, cross), is_cached=cache_length > 0)
    if config.scale_logits:
      x = x / np.sqrt(config.emb_dim).astype(x.dtype)
    if config.logits_via_embedding:
      return self.token_embedder.attend(x).astype(jnp.float32)
    return self.decoder.logits_dense(x)

  # As t5x calls it.

  def encode(
    self,
    encoder_input_tokens: Int[Array, "B T"],
    encoder_segment_ids: Int[Array, "B T"] | None = None,
    enable_dropout: bool | None = None,
  ) -> Float[Array, "B T E"]:
    """The encoder's output."""
    self._check_dropout(enable_dropout)
    return self.read(encoder_input_tokens, encoder_segment_ids).encoded

  def decode(
    self,
    encoded: Float[Array, "B T E"],
    encoder_input_tokens: Int[Array, "B T"],
    decoder_input_tokens: Int[Array, "B L"],
    decoder_target_tokens: Int[Array, "B L"] | None = None,
    encoder_segment_ids: Int[Array, "B T"] | None = None,
    decoder_segment_ids: Int[Array, "B L"] | None = None,
    **options,
  ) -> Float[Array, "B L V"]:
    """`write` to these parts; `decode` and `max_decode_length` are options."""
    self._check_dropout(options.get("enable_dropout"))
    length = options.get("max_decode_length") or decoder_input_tokens.shape[1]
    return self.write(
      Source(encoded, encoder_input_tokens > PAD, encoder_segment_ids),
      decoder_input_tokens,
      decoder_segment_ids,
      cache_length=length if options.get("decode") else 0,
    )

  def __call__(
    self,
    encoder_input_tokens: Int[Array, "B T"],
    decoder_input_tokens: Int[Array, "B L"],
    decoder_target_tokens: Int[Array, "B L"] | None = None,
    encoder_segment_ids: Int[Array, "B T"] | None = None,
    decoder_segment_ids: Int[Array, "B L"] | None = None,
    **options,
  ) -> Float[Array, "B L V"]:
    """Teacher-forced logits: `write` to what is `read`.

    The options are `decode`'s, and positions of packed rows, which are not
    needed: relative positions do not tell where in a row a segment stands.
    """
    return self.decode(
      self.encode(encoder_input_tokens, encoder_segment_ids),
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      encoder_segment_ids,
      decoder_segment_ids,
      **options,
    )

  def _check_dropout(self, enable_dropout: bool | None) -> None:
    """A key that is given is used, so the two must not contradict."""
    has_key = self.has_rng("dropout")
    if enable_dropout is None or not self.config.dropout_rate:
      return
    if enable_dropout != has_key:
      raise ValueError(
        f"enable_dropout={enable_dropout}, but rngs has "
        f"{'a' if has_key else 'no'} key 'dropout'. Give rngs={{'dropout': "
        "key}} to switch dropout on, and leave it out to switch it off."
      )


def abstract_parameters(config: T5Config):
  """The parameter tree of `T5(config)` as shapes, without computing it."""
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  variables = jax.eval_shape(T5(config).init, jax.random.key(0), tokens, tokens)
  return variables["params"]


def shift_right(targets: Int[Array, "B L"]) -> Int[Array, "B L"]:
  """The decoder's input: the targets one place later, behind id 0."""
  return jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
