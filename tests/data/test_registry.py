"""What seqio's registry has: names, parts of mixtures, labels, vocabularies."""

import pytest
import seqio
import toy_tasks

from prompt_tuning.data import registry
from prompt_tuning.vocabulary import Vocabulary


def test_a_task_or_mixture_is_found_by_its_name():
  assert registry.find(toy_tasks.CAT).name == toy_tasks.CAT
  assert isinstance(registry.find("toy_animals"), seqio.Mixture)
  boolq = registry.find("super_glue_boolq")  # which this registers
  assert boolq.splits == seqio.TaskRegistry.get("super_glue_boolq").splits


@pytest.mark.parametrize(
  "name, hint",
  [
    ("toy_cap", "Did you mean toy_cat"),
    ("super_glue_bolq", "Did you mean super_glue_boolq"),
    ("qqqq", r"or mixture\. `prompt-tuning tasks` lists them"),
  ],
)
def test_an_unknown_name_gets_the_closest_ones(name, hint):
  with pytest.raises(ValueError, match=f"{name!r} is no registered .*{hint}"):
    registry.find(name)


def test_a_mixture_is_its_tasks_with_their_rates():
  assert registry.tasks_of("toy_animals") == [
    (toy_tasks.CAT, 3.0),
    (toy_tasks.DOG, 1.0),
  ]
  assert registry.tasks_of(toy_tasks.DOG) == [(toy_tasks.DOG, 1.0)]
  assert "toy_animals" in registry.mixtures()
  assert toy_tasks.CAT not in registry.mixtures()


def test_mixtures_among_several_names_are_taken_apart():
  found = registry.task_names([toy_tasks.DOG, "toy_animals"])
  assert found == [toy_tasks.DOG, toy_tasks.CAT, toy_tasks.DOG]
  assert registry.task_names(toy_tasks.CAT) == [toy_tasks.CAT]


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


def test_metrics_have_the_names_of_their_functions():
  assert registry.metric_names(toy_tasks.CAT) == ["accuracy"]


def test_a_module_that_is_not_there_is_named():
  with pytest.raises(ValueError, match=r"--x='no\.such' cannot be imported"):
    registry.import_modules("no.such", "--x")
