"""T5Gemma: the stacks of two Gemma 2, and attention from one to the other.

    config    the sizes of both, which may differ (9B-2B)
    grouped   attention whose heads share keys and turn with their places
    stacks    rows [B, T, E] -> encoded [B, T, E], decoded [B, L, E] -> logits

`t5.T5` is made of these where its configuration is a `T5GemmaConfig`; prompts,
masks and decoding are its own, so they are the same for both. Encoder and
decoder have a table of words each.

A prompt's row is one of the encoder's table: the factor sqrt(E) is that of all
that goes into a stack. So a prompt that is the embeddings of words equals these
words, and prompts of PEFT, whose rows go in at the same place, are what they
are there.
"""

from prompt_tuning.model.t5gemma.config import Stack, T5GemmaConfig
from prompt_tuning.model.t5gemma.stacks import (
  Decoder,
  Encoder,
  embedder,
  target_embedder,
)

__all__ = [
  "Decoder",
  "Encoder",
  "Stack",
  "T5GemmaConfig",
  "embedder",
  "target_embedder",
]
