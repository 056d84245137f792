"""A SavedModel that brings its prompt: text in, text out.

t5x tokenises the text inside the SavedModel and knows no placeholders there;
they are put in front here.
"""

from collections.abc import Mapping

import numpy as np
from t5x import export_lib
import tensorflow as tf

from prompt_tuning.model import inject
from prompt_tuning.t5x import t5x_macros


def create_preprocessor(
  batch_size: int | None,
  output_features: Mapping,
  task_feature_lengths: Mapping[str, int],
  tokenized_inputs: bool = False,
  *,
  prompt_length: int,
):
  """t5x's preprocessor of an export, with P places in front of each input.

  Args:
    batch_size: of the SavedModel; None for any.
    output_features: seqio features of inputs and targets.
    task_feature_lengths: TASK_FEATURE_LENGTHS, the text alone.
    tokenized_inputs: the input is ids instead of text.
    prompt_length: P.
  """
  t5x_macros.check()
  preprocess, signature = export_lib.create_preprocessor(
    batch_size, output_features, task_feature_lengths, tokenized_inputs
  )
  places = inject.PLACEHOLDER + np.arange(prompt_length, dtype=np.int32)
  row = tf.constant(places[None])

  def with_places(texts: tf.Tensor) -> dict[str, tf.Tensor]:
    features = dict(preprocess(texts))
    tokens = features["encoder_input_tokens"]
    rows = tf.repeat(row, tf.shape(tokens)[0], axis=0)
    features["encoder_input_tokens"] = tf.concat([rows, tokens], axis=1)
    return features

  return with_places, signature
