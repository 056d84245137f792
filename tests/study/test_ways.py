"""What the studies' tasks ask, and what a way does with them."""

import pytest
import small_microworld

from prompt_tuning.data import scoring, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.study import tuned
from prompt_tuning.study.trials import Trial, grid
from prompt_tuning.tasks.microworld import examples as microworld_examples


@pytest.fixture(scope="module", autouse=True)
def small_splits():
  with small_microworld.splits(small_microworld.SMALL):
    yield


def test_ensembles_have_prompts_of_their_own():
  one, two = grid(task=("a",), seed=(0, 1), members=(3,))
  assert tuned.seeds_of(one) == [0, 1, 2] and tuned.seeds_of(two) == [3, 4, 5]


def test_a_run_may_be_scored_on_the_beginning_of_a_split():
  whole = tuned.examples("microworld_boolq", "test", Trial("a"))
  part = tuned.examples("microworld_boolq", "test", Trial("a", scored=5))
  assert len(part) == 5 and len(whole) == small_microworld.SMALL["test"]
  assert part.input_texts() == whole.input_texts()[:5]
  assert part.target_texts() == whole.target_texts()[:5]
  for n in range(5):
    for one, other in (
      (part.inputs, whole.inputs),
      (part.targets, whole.targets),
    ):
      assert (ids(one, n) == ids(other, n)).all()


def ids(rows, n):
  return rows.ids[rows.starts[n] : rows.starts[n + 1]]


def test_labels_are_said_in_the_words_of_the_first_task():
  assert microworld_examples.label_map("microworld_qqp_to_mrpc") == {
    "not_equivalent": "not_duplicate",
    "equivalent": "duplicate",
  }
  assert microworld_examples.label_map("microworld_mrpc_to_qqp") == {
    "not_duplicate": "not_equivalent",
    "duplicate": "equivalent",
  }


def test_a_transfer_trains_on_one_task_and_tests_on_the_other():
  name = "microworld_qqp_to_mrpc"
  first = microworld_examples.examples("microworld_qqp", "train")
  assert microworld_examples.transferred(name, "train") == first
  tested = microworld_examples.transferred(name, "test")
  second = microworld_examples.examples("microworld_mrpc", "test")
  assert [r["inputs"] for r in tested] == [r["inputs"] for r in second]
  assert [r["label"] for r in tested] == [r["label"] for r in second]
  assert {(r["targets"], r["label"]) for r in tested} == {
    ("duplicate", 1),
    ("not_duplicate", 0),
  }
  examples = splits.load(name, "test", tuned.LENGTHS)
  right = scoring.metrics(examples, examples.target_texts())
  assert right == {"accuracy": 100.0, "f1": 100.0}
  swapped = {"duplicate": "not_duplicate", "not_duplicate": "duplicate"}
  wrong = scoring.metrics(
    examples, [swapped[t] for t in examples.target_texts()]
  )
  assert wrong == {"accuracy": 0.0, "f1": 0.0}


def test_a_sentinel_stands_in_front_of_the_targets_and_of_ranked_labels():
  vocabulary = pretrained.shipped_vocabulary()
  plain = splits.load("microworld_boolq", "test", tuned.LENGTHS)
  marked = splits.load("microworld_boolq_sentinel", "test", tuned.LENGTHS)
  first = vocabulary.sentinel(0)
  for n in range(3):
    ids = plain.targets.ids[
      plain.targets.starts[n] : plain.targets.starts[n + 1]
    ]
    at = marked.targets.starts[n]
    assert marked.targets.ids[at] == first
    assert (
      marked.targets.ids[at + 1 : at + 1 + len(ids)].tolist() == ids.tolist()
    )
  model = pretrained.load(pretrained.SHIPPED)
  decoding = tuned.decoding(Trial("microworld_boolq_sentinel"), model)
  assert decoding.strategy.prefix == (first,)
  assert tuned.decoding(Trial("microworld_boolq"), model).strategy.prefix == ()
  # Written freely, the sentinel stands in front.
  written = vocabulary.decode([first, *vocabulary.encode("True")])
  assert scoring.postprocess(
    marked, [written] * len(marked), is_target=False
  ) == [1] * len(marked)
