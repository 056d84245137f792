"""Which runs train together, and how long they take."""

import dataclasses

import jax
import numpy as np

from prompt_tuning.frozen import pretrained
from prompt_tuning.model import t5
from prompt_tuning.study import schedule, studies, trials
from prompt_tuning.study.trials import Trial, grid
from prompt_tuning.tasks import microworld


def test_prompts_of_one_length_train_as_one_program():
  for name, prompts, programs in (
    ("length", 30, 5),
    ("initialization", 18, 2),  # 9 prompts of each task
    ("transfer", 10, 1),
    ("transfer_spot", 18, 3),
  ):
    tuned = [r for r in studies.STUDIES[name].trials if r.way == trials.PROMPT]
    found = schedule.programs(tuned)
    assert (len(tuned), len(found)) == (prompts, programs)
    assert sorted(map(repr, tuned)) == sorted(
      repr(trial) for program in found for trial in program
    )


def test_a_program_is_a_full_product_of_at_most_16_prompts():
  tuned = grid(task=("a", "b"), seed=(0, 1), initializer=("x", "y", "z"))
  assert schedule.programs(tuned) == [list(tuned)]
  # One trial is done: the other task still trains as one program.
  parts = schedule.programs(tuned[1:])
  assert [trial.task for trial in parts[-1]] == ["b"] * 6
  assert sum(map(len, parts)) == 11
  voting = grid(task=("a",), seed=(0, 1, 2, 3), way=(trials.ENSEMBLE,))
  voting = [dataclasses.replace(trial, members=5) for trial in voting]
  assert [len(p) for p in schedule.programs(voting)] == [2, 2]
  many = grid(task=tuple("abcdef"), seed=(0, 1, 2))
  assert [len(p) for p in schedule.programs(many)] == [9, 9]


def test_tasks_with_a_source_of_their_own_do_not_train_together():
  spot = [
    trial for trial in studies.FROM_SOURCES.trials if trial.way == trials.SOURCE
  ]
  found = schedule.programs(spot)
  assert [(len(p), len({t.task for t in p})) for p in found] == [(3, 1)] * 6


def test_what_is_not_a_bank_of_prompts_trains_alone():
  tuned = trials.tuned_models(task=("a",), seed=(0, 1), way=(trials.MODEL,))
  assert schedule.programs(tuned) == [[tuned[0]], [tuned[1]]]
  other = grid(task=("a", "a" + microworld.SENTINEL))
  assert len(schedule.programs(other)) == 2


def test_longer_and_more_takes_longer():
  one = Trial("a")
  for changes in ({"prompt_length": 100}, {"steps": 1200}, {"members": 5}):
    more = dataclasses.replace(one, **changes)
    assert schedule.estimate([more], 10**6) > schedule.estimate([one], 10**6)
  assert schedule.estimate([one], 10**7) > schedule.estimate([one], 10**6)


def test_the_models_of_studies_have_the_parameters_they_say():
  shipped = pretrained.load(pretrained.SHIPPED)
  for model in studies.PRETRAININGS:
    assert model.parameters == shipped.num_parameters
  for model in studies.SIZES:
    given = dict(binding.split("=") for binding in model.bindings)
    layers = int(given["NUM_LAYERS"])
    config = dataclasses.replace(
      shipped.config,
      emb_dim=int(given["EMB_DIM"]),
      num_heads=int(given["NUM_HEADS"]),
      head_dim=int(given["HEAD_DIM"]),
      mlp_dim=int(given["MLP_DIM"]),
      num_encoder_layers=layers,
      num_decoder_layers=layers,
    )
    tokens = np.ones((1, 4), np.int32)
    params = jax.eval_shape(
      t5.T5(config).init, jax.random.key(0), tokens, tokens
    )
    assert model.parameters == sum(x.size for x in jax.tree.leaves(params))


def test_every_study_has_three_seeds_and_the_papers_lengths():
  for one in studies.STUDIES.values():
    assert len({trial.seed for trial in one.trials}) >= 3
    assert len(set(one.trials)) == len(one.trials)
  lengths = {trial.prompt_length for trial in studies.LENGTH.trials}
  assert lengths == {1, 5, 20, 100, 150}
