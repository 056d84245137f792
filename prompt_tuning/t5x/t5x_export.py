"""A SavedModel that brings its prompt: text in, text out.

t5x tokenises the text inside the SavedModel and knows no placeholders there;
they get their places here.
"""

from collections.abc import Mapping

from t5x import export_lib
import tensorflow as tf

from prompt_tuning.model import inject
from prompt_tuning.t5x import t5x_features


def create_preprocessor(
  batch_size: int | None,
  output_features: Mapping,
  task_feature_lengths: Mapping[str, int],
  tokenized_inputs: bool = False,
  *,
  prompt_length: int,
  placing: inject.Placing = inject.IN_FRONT,
):
  """t5x's preprocessor of an export, with P places in each input.

  Args:
    batch_size: of the SavedModel; None for any.
    output_features: seqio features of inputs and targets.
    task_feature_lengths: TASK_FEATURE_LENGTHS, the text alone.
    tokenized_inputs: the input is ids instead of text.
    prompt_length: P.
    placing: where the prompt stands.
  """
  preprocess, signature = export_lib.create_preprocessor(
    batch_size, output_features, task_feature_lengths, tokenized_inputs
  )

  def with_places(texts: tf.Tensor) -> dict[str, tf.Tensor]:
    features = dict(preprocess(texts))
    features["encoder_input_tokens"] = t5x_features.reserve(
      features["encoder_input_tokens"], prompt_length, placing.place
    )
    return features

  return with_places, signature
