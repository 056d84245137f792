"""seqio features with places for a prompt, packed or not.

    inputs           [t1 t2 EOS]  [s1 EOS]
    unpacked         [p0 p1 t1 t2 EOS 0 0]
    packed           [p0 p1 t1 t2 EOS p0 p1 s1 EOS 0 0 0]
    segments         [ 1  1  1  1   1  2  2  2   2 0 0 0]

Every packed segment brings its own placeholders, so it is to the network what
it is alone. They stand in front, or where PROMPT_PLACE says.
"""

from collections.abc import Mapping

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.model import inject
from prompt_tuning.shapes import EOS, PAD


class PromptConverter(seqio.EncDecFeatureConverter):
  """seqio's encoder-decoder features, with `prompt_length` placeholders.

  TASK_FEATURE_LENGTHS counts the text alone: a row has P places more. A packed
  row holds as many segments, each with its P places, as fit into that.
  """

  def __init__(
    self, *, prompt_length: int, place: str = inject.FRONT, **options
  ):
    super().__init__(**options)
    self._prompt_length, self._place = prompt_length, place

  def _lengths(self, task_feature_lengths: Mapping[str, int]) -> dict:
    room = task_feature_lengths["inputs"] + self._prompt_length
    return {**task_feature_lengths, "inputs": room}

  def _convert_features(self, ds, task_feature_lengths):
    def with_places(row):
      tokens = reserve(row["inputs"][None], self._prompt_length, self._place)
      return {**row, "inputs": tokens[0]}

    return super()._convert_features(
      ds.map(with_places), self._lengths(task_feature_lengths)
    )

  def get_model_feature_lengths(self, task_feature_lengths):
    return super().get_model_feature_lengths(
      self._lengths(task_feature_lengths)
    )


def reserve(
  tokens: tf.Tensor, length: int, place: str = inject.FRONT
) -> tf.Tensor:
  """`inject.reserve` of one prompt, by TensorFlow: [B, P + T].

  Args:
    tokens: [B, T], padded with 0.
    length: P.
    place: one of `inject.PLACES`.
  """
  places = inject.PLACEHOLDER + np.arange(length, dtype=np.int32)
  rows = tf.repeat(tf.constant(places[None]), tf.shape(tokens)[0], axis=0)
  whole = tf.concat([rows, tokens], axis=1)
  if place == inject.FRONT:
    return whole
  column = tf.range(tf.shape(tokens)[1])
  count = tf.reduce_max(tf.where(tokens != PAD, 1 + column, 0), axis=1)
  count = count[:, None]
  ends = tf.reduce_any((tokens == EOS) & (column == count - 1), 1)[:, None]
  at = {
    "after_first": tf.minimum(1, count),
    "before_end": count - tf.cast(ends, tf.int32),
    "after_end": count,
  }[place]
  # The text up to the places, the places, the rest of the text.
  column = tf.range(tf.shape(whole)[1])[None]
  source = tf.where(column < length + at, column - at, column)
  source = tf.where(column < at, length + column, source)
  return tf.gather(whole, source, axis=1, batch_dims=1)


def check_vocabulary(vocabulary, rows: int) -> None:
  """Compares a vocabulary with the rows of the embedding.

  Raises:
    ValueError: there are more ids than rows, and they would be cut in silence.
  """
  if vocabulary.vocab_size > rows:
    raise ValueError(
      f"The vocabulary {vocabulary} has {vocabulary.vocab_size} ids, the "
      f"embedding of the model has {rows} rows. Set VOCABULARY_PATH and "
      "EXTRA_IDS to those that the model was trained with."
    )


def check_dropout(rate: float) -> None:
  """Refuses dropout beside a prompt, which t5x's own files leave on.

  Raises:
    ValueError: the rate is not 0.
  """
  if rate:
    raise ValueError(
      f"DROPOUT_RATE={rate}: a frozen model is prompted without dropout (the "
      "paper, section 3). Set DROPOUT_RATE=0.0, or "
      "t5x_models.PromptModel.allow_dropout=True if it is meant."
    )
