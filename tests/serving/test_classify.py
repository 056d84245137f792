import asking
import pytest
import toy_tasks

from prompt_tuning.inference import infer
from prompt_tuning.inference.prompted_model import PromptedModel
from prompt_tuning.model import decode
from prompt_tuning.prompts import checkpoints


def test_the_probabilities_are_those_of_rank_classification(ask):
  saved = checkpoints.SavedPrompt(asking.values(0), {}, "p0")
  ranking = infer.Decoding(decode.Rank(tuple(asking.LABELS)), max_length=8)
  model = PromptedModel(toy_tasks.model(), saved, ranking)
  texts = list(asking.TEXTS)
  answer = ask.classify("p0", texts).json  # the labels of the prompt's record
  assert answer["labels"] == asking.LABELS
  for index, (one, wanted) in enumerate(
    zip(answer["data"], model.answers(texts), strict=True)
  ):
    assert one["index"] == index and one["num_classes"] == 3
    assert one["label"] == wanted.text
    assert one["probs"] == pytest.approx(
      list(wanted.probabilities.values()), rel=1e-3
    )
  assert answer["usage"]["prompt_tokens"] > 0


def test_labels_of_the_request_come_before_those_of_the_record(ask):
  answer = ask.classify("p0", "mat", labels=["cat", "dog"]).json
  assert answer["labels"] == ["cat", "dog"]
  (one,) = answer["data"]
  assert sum(one["probs"]) == pytest.approx(1) and one["num_classes"] == 2


@pytest.mark.parametrize(
  "model, more, message",
  [
    ("p1", {}, "names no labels. Send them"),
    ("p1", {"labels": ["cat", "cat"]}, "Two labels are the same"),
    ("p1", {"labels": ["cat", ""]}, "from 2 to 8"),
    ("p1", {"labels": ["cat " * 20]}, "from 2 to 8"),
    ("p1", {"labels": ["x"] * 65}, "from 1 to 64 texts"),
    ("p1", {"labels": ["x"], "prompt": "y"}, "argument 'prompt'"),
  ],
)
def test_labels_that_cannot_be_ranked_are_refused(ask, model, more, message):
  answer = ask.classify(model, "mat", **more)
  assert answer.status == 400 and message in answer.message


def test_a_wrong_text_is_said_of_the_field_that_it_came_in(ask):
  for text in ("", "the cat sat on the mat " * 9):
    answer = ask.classify("p0", text)
    assert answer.status == 400 and answer.json["error"]["param"] == "input"
