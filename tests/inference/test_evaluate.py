import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.data import splits
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.model import decode
from prompt_tuning.prompts import prompted


def evaluator(sets, decoding, bank):
  several = prompted.with_prompts(toy_tasks.model(), list(bank))
  return evaluate.Evaluator(several, sets, decoding=decoding)()


@pytest.mark.parametrize("strategy", [decode.Greedy(), decode.Rank()])
def test_a_bank_is_scored_as_its_prompts_are_alone(strategy):
  decoding = infer.Decoding(strategy, max_length=6)
  bank = 3 * tiny_t5.rows(3, 4, 16)
  sets = [
    splits.load(name, split, toy_tasks.LENGTHS)
    for name, split in (
      (toy_tasks.CAT, "validation"),
      (toy_tasks.DOG, "test"),
      (toy_tasks.CAT, "test"),
    )
  ]
  together = evaluator(sets, decoding, bank)
  for n, (examples, result) in enumerate(zip(sets, together, strict=True)):
    (alone,) = evaluator([examples], decoding, bank[n : n + 1])
    assert alone == result
    assert (result.task, result.split) == (examples.task, examples.split)
    hits = [
      a == b
      for a, b in zip(examples.target_texts(), result.predictions, strict=True)
    ]
    assert result.metrics == {"accuracy": 100 * sum(hits) / len(hits)}


def test_ranking_answers_with_the_tasks_labels():
  examples = splits.load(toy_tasks.CAT, "test", toy_tasks.LENGTHS)
  decoding = infer.Decoding(decode.Rank())
  (result,) = evaluator([examples], decoding, tiny_t5.rows(1, 4, 16))
  assert set(result.predictions) <= {"yes", "no"}
  rows = evaluate.prediction_rows(examples, result)
  for row in rows:
    shares = row["probabilities"]
    assert shares.keys() == {"yes", "no"}
    assert sum(shares.values()) == pytest.approx(1)
    assert row["prediction"] == max(shares, key=shares.get)
