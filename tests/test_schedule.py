"""Which runs train together, and how long they take."""

import dataclasses

from prompt_tuning import runs, schedule, studies
from prompt_tuning.runs import Run, grid
from prompt_tuning.tasks import microworld


def test_prompts_of_one_length_train_as_one_program():
  for name, prompts, programs in (
    ("length", 30, 5),
    ("initialization", 18, 2),  # 9 prompts of each task
    ("transfer", 6, 1),
  ):
    tuned = [r for r in studies.STUDIES[name].runs if r.way == runs.PROMPT]
    found = schedule.programs(tuned)
    assert (len(tuned), len(found)) == (prompts, programs)
    assert sorted(map(repr, tuned)) == sorted(
      repr(run) for program in found for run in program
    )


def test_a_program_is_a_full_product_of_at_most_16_prompts():
  tuned = grid(task=("a", "b"), seed=(0, 1), initializer=("x", "y", "z"))
  assert schedule.programs(tuned) == [list(tuned)]
  # One run is done: the other task still trains as one program.
  parts = schedule.programs(tuned[1:])
  assert [run.task for run in parts[-1]] == ["b"] * 6
  assert sum(map(len, parts)) == 11
  voting = grid(task=("a",), seed=(0, 1, 2, 3), way=(runs.ENSEMBLE,))
  voting = [dataclasses.replace(run, members=5) for run in voting]
  assert [len(p) for p in schedule.programs(voting)] == [2, 2]
  many = grid(task=tuple("abcdef"), seed=(0, 1, 2))
  assert [len(p) for p in schedule.programs(many)] == [9, 9]


def test_what_is_not_a_bank_of_prompts_trains_alone():
  tuned = runs.tuned_models(task=("a",), seed=(0, 1), way=(runs.MODEL,))
  assert schedule.programs(tuned) == [[tuned[0]], [tuned[1]]]
  other = grid(task=("a", "a" + microworld.SENTINEL))
  assert len(schedule.programs(other)) == 2


def test_longer_and_more_takes_longer():
  one = Run("a")
  for changes in ({"prompt_length": 100}, {"steps": 1200}, {"members": 5}):
    more = dataclasses.replace(one, **changes)
    assert schedule.estimate([more], 10**6) > schedule.estimate([one], 10**6)
  assert schedule.estimate([one], 10**7) > schedule.estimate([one], 10**6)


def test_every_study_has_three_seeds_and_the_papers_lengths():
  for one in studies.STUDIES.values():
    assert len({run.seed for run in one.runs}) >= 3
    assert len(set(one.runs)) == len(one.runs)
  lengths = {run.prompt_length for run in studies.LENGTH.runs}
  assert lengths == {1, 5, 20, 100, 150}
