import numpy as np
import pytest
import toy_tasks

from prompt_tuning.data import registry, scoring, splits
from prompt_tuning.vocabulary import EOS, Vocabulary


def load(
  name=toy_tasks.CAT, split="train", lengths=toy_tasks.LENGTHS, **options
):
  return splits.load(name, split, lengths, **options)


def test_an_example_is_the_tasks_text_with_eos():
  examples = load()
  vocabulary = toy_tasks.model().vocabulary
  assert len(examples) == toy_tasks.SIZES["train"]
  for i, text in enumerate(examples.input_texts()):
    row = examples.inputs.padded(np.array([i]), 32)[0]
    ids = vocabulary.encode(text)
    assert row[: len(ids) + 1].tolist() == [*ids, EOS]
    assert not row[len(ids) + 1 :].any()


def test_what_is_too_long_is_cut_before_eos_and_counted():
  short = {"inputs": 9, "targets": 8}
  whole, cut = load(), load(lengths=short)
  long = [i for i in range(len(whole)) if len(_row(whole, i)) > 9]
  assert 0 < len(long) == cut.truncated["inputs"]
  assert whole.truncated == {"inputs": 0, "targets": 0}
  for i in long:
    assert _row(cut, i) == [*_row(whole, i)[:8], EOS]


def test_what_is_too_long_is_refused_if_asked():
  with pytest.raises(ValueError, match="more than TASK_FEATURE_LENGTHS"):
    load(lengths={"inputs": 9, "targets": 8}, truncate=False)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"name": "toy_cap"}, "Did you mean toy_cat"),
    ({"split": "tset"}, "its splits are train, validation, test, nothing"),
    ({"split": "nothing"}, "split 'nothing' of toy_cat is empty"),
    (
      {"name": toy_tasks.BROKEN},
      "inputs of example 3 of toy_broken, split train",
    ),
    ({"lengths": {"inputs": 8}}, "has no length for 'targets'"),
  ],
)
def test_bad_input_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    load(**options)


def test_a_task_with_another_vocabulary_is_refused():
  size = toy_tasks.model().vocabulary.size
  registry.check_vocabulary(toy_tasks.CAT, toy_tasks.model().vocabulary)
  other = Vocabulary(toy_tasks.model().vocabulary.path, extra_ids=3)
  with pytest.raises(ValueError, match=f"{size} ids.*{size - 7} ids"):
    registry.check_vocabulary(toy_tasks.CAT, other)


def test_labels_are_the_distinct_targets_of_the_training_split():
  assert registry.labels(toy_tasks.CAT) == ["no", "yes"]
  with pytest.raises(ValueError, match="more than 1 different targets"):
    registry.labels(toy_tasks.CAT, at_most=1)


def test_labels_are_those_that_a_task_names():
  assert registry.labels("super_glue_cb") == [
    "contradiction",
    "entailment",
    "neutral",
  ]


def test_metrics_are_the_tasks():
  examples = load(split="test")
  right = examples.target_texts()
  assert scoring.metrics(examples, right) == {"accuracy": 100.0}
  wrong = ["neither", *right[1:]]
  assert scoring.metrics(examples, wrong)["accuracy"] == pytest.approx(
    100 * 11 / 12
  )


def _row(examples, i):
  rows = examples.inputs
  return rows.ids[rows.starts[i] : rows.starts[i + 1]].tolist()
