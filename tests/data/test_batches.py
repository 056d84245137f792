import numpy as np
import toy_tasks

from prompt_tuning.data import batches, registry, splits
from prompt_tuning.model import inject


def load(name=toy_tasks.CAT) -> splits.Examples:
  return splits.load(name, "train", toy_tasks.LENGTHS)


def source(
  names=(toy_tasks.CAT,), seeds=(0,), batch_size=8, prompt_length=3, few=0
):
  sets = [
    [(load(member), rate) for member, rate in registry.tasks_of(name)]
    for name in names
  ]
  return batches.TaskBatches(
    sets, seeds, batch_size=batch_size, prompt_length=prompt_length, few=few
  )


def test_a_batch_is_a_function_of_its_step():
  one, other = source(), source()
  for step in (7, 0, 3, 7):
    a, b = one(step), other(step)
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])


def test_an_epoch_has_every_example_once_and_the_next_is_shuffled_anew():
  batch = source(prompt_length=0)
  steps = toy_tasks.SIZES["train"] // 8

  def epoch(n):
    rows = [batch(n * steps + i)["inputs"] for i in range(steps)]
    return [tuple(row) for row in np.concatenate(rows)]

  want = load().inputs.padded(np.arange(48), batch(0)["inputs"].shape[1])
  assert sorted(epoch(0)) == sorted(epoch(1)) == sorted(map(tuple, want))
  assert epoch(0) != epoch(1)


def test_of_few_examples_each_epoch_has_every_one_once():
  def epochs(few, seed):
    batch = source(batch_size=4, prompt_length=0, few=few, seeds=(seed,))
    rows = [batch(step)["inputs"] for step in range(2 * few // 4)]
    rows = [tuple(row) for row in np.concatenate(rows)]
    return rows[:few], rows[few:]

  first, second = epochs(12, 0)
  assert sorted(first) == sorted(second) and len({*first}) == 12
  assert first != second
  assert {*first} < {*epochs(24, 0)[0]}  # more examples are these and others
  assert {*first} != {*epochs(12, 1)[0]}  # a seed has examples of its own


def test_places_for_the_prompt_stand_in_front():
  batch = source(prompt_length=3)(0)
  places = batch["inputs"][:, :3]
  np.testing.assert_array_equal(
    places, np.tile(inject.PLACEHOLDER + np.arange(3), (8, 1))
  )
  assert (batch["inputs"][:, 3:] < inject.PLACEHOLDER).all()


def test_prompts_together_see_what_each_would_see_alone():
  names, seeds = (toy_tasks.CAT, toy_tasks.DOG, toy_tasks.CAT), (0, 0, 5)
  together = source(names, seeds)(4)
  assert together["prompt_id"].tolist() == [0] * 8 + [1] * 8 + [2] * 8
  for n, (name, seed) in enumerate(zip(names, seeds, strict=True)):
    alone = source((name,), (seed,))(4)
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
  order = batches.Order([48, 48], [3.0, 1.0], seed=0)
  tasks, index = order.places(0, 20_000)
  assert abs(np.mean(tasks == 0) - 0.75) < 0.02
  later = batches.Order([48, 48], [3.0, 1.0], seed=0).places(15_000, 50)
  np.testing.assert_array_equal(
    later, [tasks[15_000:15_050], index[15_000:15_050]]
  )
  assert sorted(index[tasks == 1][:48]) == list(range(48))
