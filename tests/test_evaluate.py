import pytest
import tiny
import toy

from prompt_tuning import data, decode, evaluate, infer


def evaluator(sets, decoding, bank):
  network, params = infer.with_prompts(toy.model(), bank)
  scorer = evaluate.Evaluator(
    network,
    tiny.vocabulary(),
    sets,
    decoding=decoding,
    prompt_length=bank.shape[1],
  )
  return scorer(params)


@pytest.mark.parametrize("strategy", [decode.Greedy(), decode.Rank()])
def test_a_bank_is_scored_as_its_prompts_are_alone(strategy):
  decoding = infer.Decoding(strategy, max_length=6)
  bank = 3 * tiny.rows(3, 4, 16)
  sets = [
    data.load(name, split, toy.LENGTHS)
    for name, split in (
      (toy.CAT, "validation"),
      (toy.DOG, "test"),
      (toy.CAT, "test"),
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
  examples = data.load(toy.CAT, "test", toy.LENGTHS)
  decoding = infer.Decoding(decode.Rank())
  (result,) = evaluator([examples], decoding, tiny.rows(1, 4, 16))
  assert set(result.predictions) <= {"yes", "no"}


def test_the_score_is_the_mean_of_the_metrics_or_the_one_that_is_named():
  metrics = {"f1": 80.0, "accuracy": 90.0}
  assert evaluate.score(metrics, None) == 85.0
  assert evaluate.score(metrics, "f1") == 80.0
  with pytest.raises(ValueError, match="SELECT_BY='em' .* it has f1, accuracy"):
    evaluate.score(metrics, "em")
