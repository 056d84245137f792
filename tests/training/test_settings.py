import pytest
import toy_tasks

from prompt_tuning.model import inject
from prompt_tuning.prompts import initializers
from prompt_tuning.training import optimizers, settings


@pytest.mark.parametrize(
  "make, setting, message",
  [
    (
      toy_tasks.tasks,
      {"batch_size": 0},
      "BATCH_SIZE=0; a batch needs 1 example",
    ),
    (
      toy_tasks.tasks,
      {"train_examples": -1},
      "TRAIN_EXAMPLES=-1; give a whole number of 1",
    ),
    (
      toy_tasks.tasks,
      {"test_splits": "test"},
      r"Write TEST_SPLITS=\('test',\)",
    ),
    (
      toy_tasks.tuning,
      {"prompt_length": -3},
      "PROMPT_LENGTH=-3; give 0 for no",
    ),
    (
      toy_tasks.tuning,
      {"wayward_text": "the", "prompt_length": 0},
      "WAYWARD_TEXT='the' pulls a prompt to a text, and with PROMPT_LENGTH=0",
    ),
    (
      toy_tasks.tuning,
      {"wayward_text": "the", "wayward_gamma": 0.0},
      "WAYWARD_GAMMA=0.0; give a number above 0",
    ),
    (
      toy_tasks.tuning,
      {"dropout_rate": 1.5},
      "DROPOUT_RATE=1.5; give a number from",
    ),
    (toy_tasks.tasks, {"names": []}, "MIXTURE_OR_TASK_NAME names nothing"),
    (toy_tasks.tasks, {"names": ["a", "a"]}, "NAME=.* has 'a' twice"),
    (toy_tasks.tasks, {"seeds": ()}, "SEEDS names nothing"),
    (toy_tasks.tasks, {"seeds": (0, 0)}, "SEEDS=.* has 0 twice"),
    (toy_tasks.tasks, {"seeds": (-1,)}, "SEEDS=.* give whole numbers from 0"),
    (toy_tasks.tasks, {"seeds": (0, 1 << 32)}, "from 0 to 4294967295"),
    (toy_tasks.tasks, {"seeds": (1 << 70,)}, "from 0 to 4294967295"),
    (
      toy_tasks.tasks,
      {"task_feature_lengths": {"inputs": -5, "targets": 8}},
      "no length for 'inputs', or none above 1",
    ),
    (toy_tasks.tasks, {"seeds": (True,)}, "SEEDS=.* give whole numbers"),
    (toy_tasks.tasks, {"test_splits": ("a", "a")}, "names a split twice"),
    (
      toy_tasks.tasks,
      {"task_feature_lengths": {"inputs": 1, "targets": 8}},
      "none above 1, which EOS alone takes",
    ),
    (
      optimizers.adamw,
      {"learning_rate": -1.0},
      "LEARNING_RATE=-1.0; give 0 or",
    ),
    (
      optimizers.adafactor,
      {"learning_rate": float("inf")},
      "LEARNING_RATE=inf",
    ),
  ],
)
def test_a_setting_out_of_bounds_is_named(make, setting, message):
  with pytest.raises(ValueError, match=message):
    make(**setting)


def test_there_is_a_prompt_for_every_task_seed_initialiser_and_place():
  starts = initializers.random_uniform(), initializers.from_vocabulary()
  tasks = toy_tasks.tasks([toy_tasks.CAT, toy_tasks.DOG], seeds=(0, 7))
  places = inject.placings(["front", "after_end"])
  tuning = toy_tasks.tuning(initializer=starts, placing=places)
  assert settings.members_of(tasks, tuning) == [
    (task, seed, start, place)
    for task in (toy_tasks.CAT, toy_tasks.DOG)
    for seed in (0, 7)
    for start in starts
    for place in places
  ]


@pytest.mark.parametrize(
  "seeds, starts, names",
  [
    ((0,), 1, ["toy_cat"]),
    ((0, 7), 1, ["toy_cat-seed0", "toy_cat-seed7"]),
    ((5,), 2, ["toy_cat-random_uniform", "toy_cat-from_vocabulary"]),
  ],
)
def test_a_name_says_what_tells_a_prompt_from_the_others(seeds, starts, names):
  ways = [initializers.random_uniform(), initializers.from_vocabulary()]
  tuning = toy_tasks.tuning(initializer=ways[:starts])
  members = settings.members_of(toy_tasks.tasks(seeds=seeds), tuning)
  assert settings.names_of(members) == names


def test_prompts_that_start_in_one_way_with_other_numbers_are_numbered():
  ways = [initializers.random_uniform(scale) for scale in (0.1, 0.5)]
  members = settings.members_of(
    toy_tasks.tasks(), toy_tasks.tuning(initializer=ways)
  )
  assert settings.names_of(members) == [
    "toy_cat-random_uniform-0",
    "toy_cat-random_uniform-1",
  ]


def test_what_is_said_of_places_is_a_list_where_prompts_differ():
  first, other = (
    inject.Placing(),
    inject.Placing("after_end", "prompt_to_input"),
  )
  tuned = toy_tasks.tuning(placing=[first, other])
  assert tuned.said("place") == [None, "after_end"]
  assert tuned.said("attention") == [None, ["prompt_to_input"]]
  assert toy_tasks.tuning(placing=other).said("place") == "after_end"
  both = inject.placings(("front", "after_end"), "prompt_to_input")
  assert toy_tasks.tuning(placing=both).said("attention") == ["prompt_to_input"]


def test_no_initialiser_is_refused_and_none_is_the_vocabulary():
  tasks = toy_tasks.tasks()
  with pytest.raises(ValueError, match="PROMPT_INITIALIZER names nothing"):
    settings.members_of(tasks, toy_tasks.tuning(initializer=()))
  (one,) = settings.members_of(tasks, toy_tasks.tuning(initializer=None))
  assert settings.initializer_name(one.initializer) == "from_vocabulary"
