import numpy as np
import pytest
import toy_tasks

from prompt_tuning.data import splits
from prompt_tuning.vocabulary import EOS


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


def test_a_task_of_seqios_own_is_read_as_one_of_this_project():
  ours, theirs = load(), load(toy_tasks.CAT_IN_SEQIO)
  assert theirs.input_texts() == ours.input_texts()
  assert theirs.target_texts() == ours.target_texts()
  for n in range(len(ours)):
    assert _row(theirs, n) == _row(ours, n)


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


def _row(examples, i):
  rows = examples.inputs
  return rows.ids[rows.starts[i] : rows.starts[i + 1]].tolist()
