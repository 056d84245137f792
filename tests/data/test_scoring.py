"""Scores of predicted texts, and the one that a prompt is chosen by."""

import pytest
import seqio
import tensorflow as tf
import toy_tasks

from prompt_tuning.data import scoring, splits
from prompt_tuning.tasks import declarations


def load(name=toy_tasks.CAT, split="test") -> splits.Examples:
  return splits.load(name, split, toy_tasks.LENGTHS)


@pytest.fixture
def another():
  """Registers the toy task under another name, with changes."""
  name = "toy_cat_changed"

  def register(**changes) -> str:
    given = seqio.TaskRegistry.get(toy_tasks.CAT)
    seqio.TaskRegistry.add(
      name,
      **{
        "source": given.source,
        "preprocessors": given.preprocessors,
        "output_features": given.output_features,
        "metric_fns": [toy_tasks.accuracy],
        **changes,
      },
    )
    return name

  yield register
  seqio.TaskRegistry.remove(name)
  declarations.declare(name)


def test_metrics_are_the_tasks():
  examples = load(split="test")
  right = examples.target_texts()
  assert scoring.metrics(examples, right) == {"accuracy": 100.0}
  wrong = ["neither", *right[1:]]
  assert scoring.metrics(examples, wrong)["accuracy"] == pytest.approx(
    100 * 11 / 12
  )


def test_the_score_is_the_mean_of_the_metrics_or_the_one_that_is_named():
  metrics = {"f1": 80.0, "accuracy": 90.0}
  assert scoring.score(metrics, None) == 85.0
  assert scoring.score(metrics, "f1") == 80.0
  with pytest.raises(ValueError, match="SELECT_BY='em' .* it has f1, accuracy"):
    scoring.score(metrics, "em")


def test_the_metrics_see_what_the_task_makes_of_a_text(another):
  def letters(text, *, is_target=False, example=None):
    return len(text) if is_target else -len(example["inputs_pretokenized"])

  seen = []

  def exact(targets, predictions):
    seen.extend(zip(targets, predictions, strict=True))
    return {"exact": 1.0}

  name = another(postprocess_fn=letters, metric_fns=[exact])
  examples = load(name)
  assert scoring.metrics(examples, ["any"] * len(examples)) == {"exact": 1.0}
  assert seen == [
    (len(target), -len(text.encode()))
    for target, text in zip(
      examples.target_texts(), examples.input_texts(), strict=True
    )
  ]


def test_a_task_without_a_metric_on_predictions_is_named(another):
  examples = load(another(metric_fns=[]))
  with pytest.raises(ValueError, match="toy_cat_changed has no metric on pred"):
    scoring.metrics(examples, ["no"] * len(examples))


def test_the_count_of_invalid_predictions_is_no_score():
  assert scoring.score({"f1": 80.0, "invalid": 3.0}, None) == 80.0
  with pytest.raises(ValueError, match="SELECT_BY='invalid' .* it has f1"):
    scoring.score({"f1": 80.0, "invalid": 3.0}, "invalid")


@pytest.mark.parametrize("metrics", [{}, {"invalid": 0.0}])
def test_without_public_answers_no_prompt_is_better_than_another(metrics):
  with pytest.raises(ValueError, match="Set VALIDATION_SPLIT to a split with"):
    scoring.score(metrics, None)


def test_answers_that_a_task_declares_hidden_do_not_count(another):
  """In the toy task "no" stands for what the public does not know."""
  name = another()
  examples = load(name)
  told = ["yes", *["wrong"] * (len(examples) - 1)]
  right = [t == p for t, p in zip(examples.target_texts(), told, strict=True)]
  everything = scoring.metrics(examples, told)["accuracy"]
  assert everything == pytest.approx(100 * sum(right) / len(right))
  declarations.declare(name, is_hidden=lambda target: target == "no")
  known = [target == "yes" for target in examples.target_texts()]
  assert 0 < sum(known) < len(known)
  assert scoring.metrics(examples, told)["accuracy"] == pytest.approx(
    100 * sum(right) / sum(known)
  )


def test_where_all_answers_are_hidden_there_are_no_metrics(another, caplog):
  name = another()
  declarations.declare(name, is_hidden=lambda target: True)
  examples = load(name)
  assert scoring.metrics(examples, ["yes"] * len(examples)) == {}
  assert f"{name}, split test: the answers are not public" in caplog.text


def test_chance_is_the_most_frequent_answer_to_every_example():
  examples = load()
  texts = examples.target_texts()
  most = max(texts.count("yes"), texts.count("no"))
  found = scoring.chance(examples, None)
  assert found.score == pytest.approx(100 * most / len(texts))
  assert found.margin == pytest.approx(100 / len(texts) ** 0.5)


def test_there_is_no_chance_without_classes(another):
  """Every target another text, as where answers are parts of the input."""

  def numbered(dataset):
    return dataset.enumerate().map(
      lambda n, row: {**row, "targets": tf.strings.as_string(n)}
    )

  steps = [numbered, seqio.preprocessors.tokenize]
  name = another(preprocessors=steps)
  assert scoring.chance(load(name), None) is None
