"""T5 in Flax: one network for T5 1.0, 1.1, mT5, UMT5, ByT5 and T5Gemma.

    tokens [B, T] -> read -> Source -> write -> logits [B, L, V]

What its configuration is says of which parts it is made: `stacks` has those of
a T5, `t5gemma` those of a T5Gemma. All else is the same for both.

Parameter paths and logical axes are those of t5x's `examples.t5.network`, so
that checkpoints and partitioning rules fit both, and `encode`, `decode` and
`__call__` take what t5x gives.

The network knows nothing of prompts: `T5(config, prompt=module)` hands the
encoder an embedding that swaps the prompt in (see `inject`), and the stacks
what else the module has for them (see `inside`).
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model import attention, inject, inside, stacks, t5gemma
from prompt_tuning.model.attention import Source
from prompt_tuning.model.layers import T5Config
from prompt_tuning.model.t5gemma import T5GemmaConfig
from prompt_tuning.shapes import PAD, Array, Float, Int

Config = T5Config | T5GemmaConfig
"""What a network may be made of."""


class T5(nn.Module):
  """T5 with separate `read` and `write`; `prompt` joins the encoder's input.

  Dropout is on where `apply` is given a key for it, rngs={"dropout": key}.

  Attributes:
    config: the network's shape.
    prompt: None, or a module that returns prompt rows [..., E]; placeholder
      ids among the encoder's tokens are replaced by its rows (see `inject`).
    remat: whether layers are computed again for the gradient (see `forms`).
    attends: from the encoder's tokens [B, T] to what may attend to what in it,
      [B, T, T], besides padding and segments; None for everything.
  """

  config: Config
  prompt: nn.Module | None = None
  remat: bool = False
  attends: Callable[[Array], Array] | None = None

  def setup(self):
    config = self.config
    parts: Any = t5gemma if isinstance(config, T5GemmaConfig) else stacks
    self.token_embedder = parts.embedder(config)
    self.target_embedder = parts.target_embedder(config) or self.token_embedder
    self.encoder_embedder = (
      self.token_embedder
      if self.prompt is None
      else inject.PromptedEmbedding(self.token_embedder, self.prompt)
    )
    self.encoder = parts.Encoder(config, self.remat)
    self.decoder = parts.Decoder(config, self.remat)

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
    if self.attends is not None:
      mask &= self.attends(tokens)[:, None]
    prompts = inside.of(self.prompt)
    prompt_id = inside.marked(tokens, segments) if prompts.is_marked else None
    own = inside.OfStack(prompts.encoder, tokens, prompt_id)
    encoded = self.encoder(self.encoder_embedder(tokens), mask, own)
    before = None  # packed rows have their places among the targets
    if segments is None:
      before = inside.places(prompts, prompt_id, len(tokens))
    return Source(encoded, real, segments, None, prompt_id, before)

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
      tokens: the targets so far, behind id 0, and behind the places of a prompt
        for the decoder (`Source.before`).
      segments: which example each target belongs to, in packed rows.
      cache_length: not 0 to decode one position [B, 1] at a time beside a
        `cache` collection of so many; a first call with [B, cache_length]
        tokens lays the cache out. Several at once may come first.
    """
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
    x = self.target_embedder(tokens)
    prompts, prompt_id = inside.of(self.prompt), source.prompt_id
    if prompts.rows is not None:
      x = inject.swap(x, tokens, prompts.rows)
      seen = source.before if cache_length else tokens
      own = own & inside.filled(prompts, seen, span)
    if pairs is not None and prompt_id is not None:
      prompt_id = inside.of_targets(prompt_id, pairs)
    x = self.decoder(
      *(x, source, (own, cross)),
      inside.OfStack(prompts.decoder, None, prompt_id),
      is_cached=cache_length > 0,
    )
    return self.decoder.logits(x, self.target_embedder)

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
    prompt_id = None
    if inside.of(self.prompt).is_marked:
      prompt_id = inside.marked(encoder_input_tokens, encoder_segment_ids)
    return self.write(
      Source(
        encoded,
        encoder_input_tokens > PAD,
        encoder_segment_ids,
        prompt_id=prompt_id,
      ),
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


def abstract_parameters(config: Config):
  """The parameter tree of `T5(config)` as shapes, without computing it."""
  return jax.tree.map(lambda leaf: leaf, _abstract_parameters(config))


@functools.lru_cache(16)
def _abstract_parameters(config: Config):
  """Traced once: loading a model asks for them again and again."""
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  variables = jax.eval_shape(T5(config).init, jax.random.key(0), tokens, tokens)
  return variables["params"]


def history(
  targets: Int[Array, "B L"], segments: Int[Array, "B L"] | None = None
) -> Int[Array, "B L"]:
  """The decoder's input for targets: each target one place later, behind id 0.

  The places of a prompt for the decoder stand in front of a target, and stay
  there; in packed rows every segment begins anew.
  """
  before = shift_right(targets)
  starts = ~inject.is_word(before)
  if segments is not None:
    starts |= segments != shift_right(segments)
  before = jnp.where(starts, PAD, before)
  return jnp.where(inject.is_word(targets), before, targets)


def shift_right(targets: Int[Array, "B L"]) -> Int[Array, "B L"]:
  """The decoder's input: the targets one place later, behind id 0."""
  return jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
