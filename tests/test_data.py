import numpy as np
import pytest
import toy

from prompt_tuning import data
from prompt_tuning.vocabulary import EOS, Vocabulary


def load(name=toy.CAT, split="train", lengths=toy.LENGTHS, **options):
  return data.load(name, split, lengths, **options)


def test_an_example_is_the_tasks_text_with_eos():
  examples = load()
  vocabulary = toy.model().vocabulary
  assert len(examples) == toy.SIZES["train"]
  for i, text in enumerate(data.input_texts(examples)):
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
    ({"name": toy.BROKEN}, "inputs of example 3 of toy_broken, split train"),
    ({"lengths": {"inputs": 8}}, "has no length for 'targets'"),
  ],
)
def test_bad_input_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    load(**options)


def test_a_task_with_another_vocabulary_is_refused():
  size = toy.model().vocabulary.size
  data.check_vocabulary(toy.CAT, toy.model().vocabulary)
  other = Vocabulary(toy.model().vocabulary.path, extra_ids=3)
  with pytest.raises(ValueError, match=f"{size} ids.*{size - 7} ids"):
    data.check_vocabulary(toy.CAT, other)


def test_labels_are_the_distinct_targets_of_the_training_split():
  assert data.labels(toy.CAT) == ["no", "yes"]
  with pytest.raises(ValueError, match="more than 1 different targets"):
    data.labels(toy.CAT, at_most=1)


def test_labels_are_those_that_a_task_names():
  assert data.labels("super_glue_cb") == [
    "contradiction",
    "entailment",
    "neutral",
  ]


def test_metrics_are_the_tasks():
  examples = load(split="test")
  right = examples.target_texts()
  assert data.metrics(examples, right) == {"accuracy": 100.0}
  wrong = ["neither", *right[1:]]
  assert data.metrics(examples, wrong)["accuracy"] == pytest.approx(
    100 * 11 / 12
  )


def _row(examples, i):
  rows = examples.inputs
  return rows.ids[rows.starts[i] : rows.starts[i + 1]].tolist()
