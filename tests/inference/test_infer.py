import pytest
import toy_tasks

from prompt_tuning.inference import infer
from prompt_tuning.inference.prompted_model import PromptedModel
from prompt_tuning.model import decode


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
