import numpy as np
import pytest
import toy_tasks

from prompt_tuning.inference import infer
from prompt_tuning.inference.prompted_model import PromptedModel
from prompt_tuning.model import decode
from prompt_tuning.prompts import prompted


def test_ranking_without_labels_is_refused():
  with pytest.raises(ValueError, match="decode.Rank.labels"):
    PromptedModel(toy_tasks.model(), (), infer.Decoding(decode.Rank()))


@pytest.mark.parametrize(
  "setting, name",
  [("max_length", "TARGET_LENGTH"), ("batch_size", "EVAL_BATCH_SIZE")],
)
def test_a_decoding_without_sense_is_refused_by_name(setting, name):
  with pytest.raises(ValueError, match=rf"{name}\) must be at least 1, got 0"):
    infer.Decoding(**{setting: 0})


def test_predictions_are_as_long_as_targets():
  assert infer.target_length({"inputs": 9, "targets": 8}) == 16
  assert infer.target_length({"inputs": 9, "targets": 62}) == 62
  assert infer.target_length({"inputs": 9, "targets": 62}, 5) == 5
  with pytest.raises(ValueError, match="TARGET_LENGTH=True must be a whole"):
    infer.target_length({"inputs": 9, "targets": 8}, True)


def test_rows_of_every_length_are_answered_in_their_order():
  """Batches are of like length; the answers stand where their rows stood."""
  model = toy_tasks.model()
  together = prompted.without_prompts(model)
  rng = np.random.default_rng(0)
  rows = [
    [*rng.integers(3, 50, length).tolist(), 1]
    for length in rng.integers(1, 40, 23)
  ]
  zeros = np.zeros(len(rows), np.int32)

  def predictor(size):
    decoding = infer.Decoding(max_length=6, batch_size=size)
    return infer.Predictor(together, decoding)

  alone = [predictor(1)([row], zeros[:1])[0] for row in rows]
  assert len(set(alone)) > 3
  assert predictor(4)(rows, zeros) == alone
  widths = {batch.tokens.shape for batch in predictor(4)._batches(rows, zeros)}
  assert 1 < len(widths) <= 8 and {shape[0] for shape in widths} == {4}
