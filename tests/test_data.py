import numpy as np
import pytest
import toy

from prompt_tuning import data, inject
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


def test_labels_are_the_distinct_targets():
  assert data.labels(load()) == ["no", "yes"]
  with pytest.raises(ValueError, match="2 different targets"):
    data.labels(load(), at_most=1)


def batches(names=(toy.CAT,), seeds=(0,), batch_size=8, prompt_length=3):
  sets = [
    [(load(member), rate) for member, rate in data.members(name)]
    for name in names
  ]
  return data.TaskBatches(
    sets, seeds, batch_size=batch_size, prompt_length=prompt_length
  )


def test_a_batch_is_a_function_of_its_step():
  one, other = batches(), batches()
  for step in (7, 0, 3, 7):
    a, b = one(step), other(step)
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])


def test_an_epoch_has_every_example_once_and_the_next_is_shuffled_anew():
  source = batches(prompt_length=0)
  steps = toy.SIZES["train"] // 8

  def epoch(n):
    rows = [source(n * steps + i)["inputs"] for i in range(steps)]
    return [tuple(row) for row in np.concatenate(rows)]

  want = load().inputs.padded(np.arange(48), source(0)["inputs"].shape[1])
  assert sorted(epoch(0)) == sorted(epoch(1)) == sorted(map(tuple, want))
  assert epoch(0) != epoch(1)


def test_places_for_the_prompt_stand_in_front():
  batch = batches(prompt_length=3)(0)
  places = batch["inputs"][:, :3]
  np.testing.assert_array_equal(
    places, np.tile(inject.PLACEHOLDER + np.arange(3), (8, 1))
  )
  assert (batch["inputs"][:, 3:] < inject.PLACEHOLDER).all()


def test_prompts_together_see_what_each_would_see_alone():
  names, seeds = (toy.CAT, toy.DOG, toy.CAT), (0, 0, 5)
  together = batches(names, seeds)(4)
  assert together["prompt_id"].tolist() == [0] * 8 + [1] * 8 + [2] * 8
  for n, (name, seed) in enumerate(zip(names, seeds, strict=True)):
    alone = batches((name,), (seed,))(4)
    mine = together["prompt_id"] == n
    width = alone["inputs"].shape[1]
    np.testing.assert_array_equal(
      together["inputs"][mine][:, 3:width], alone["inputs"][:, 3:]
    )
    np.testing.assert_array_equal(
      together["targets"][mine][:, : alone["targets"].shape[1]],
      alone["targets"],
    )


def test_a_mixture_follows_its_rates_and_starts_anywhere():
  order = data._Order([48, 48], [3.0, 1.0], seed=0)
  places = order.places(0, 20_000)
  share = np.mean([task == 0 for task, _ in places])
  assert abs(share - 0.75) < 0.02
  later = data._Order([48, 48], [3.0, 1.0], seed=0).places(15_000, 50)
  assert later == places[15_000:15_050]
  first = [index for task, index in places if task == 1][:48]
  assert sorted(first) == list(range(48))


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
