"""Tasks that this project reads itself, and that seqio has as well."""

import itertools

from fresh import printed_by
import numpy as np
import pytest
import seqio

from prompt_tuning.data import registry
from prompt_tuning.tasks import answers, features, microworld, own_data
from prompt_tuning.tasks.rows import text_to_text

ROWS = [
  {"inputs": "is  it\ttrue ?", "targets": "yes", "idx": 4, "answers": ["a b"]},
  {"inputs": "<extra_id_0> ", "targets": "no", "idx": 7, "answers": ["é", "x"]},
]


def plain(value):
  """A field without numpy and bytes."""
  if isinstance(value, list | np.ndarray):
    return [plain(each) for each in value]
  if isinstance(value, str | bytes):
    return answers.text_of(value)
  return int(value)


def of_seqio(name: str, split: str) -> list[dict]:
  """What seqio makes of a split with the microworld's vocabulary."""
  with features.using(microworld.shipped_vocabulary()):
    rows = seqio.get_mixture_or_task(name).get_dataset(
      sequence_length=None, split=split, shuffle=False, num_epochs=1
    )
  return [
    {key: plain(value) for key, value in row.items()}
    for row in itertools.islice(rows.as_numpy_iterator(), 50)
  ]


def of_ours(name: str, split: str) -> list[dict]:
  """What this project makes of it."""
  vocabulary = microworld.shipped_vocabulary()
  rows = registry.rows(registry.find(name), split, vocabulary)
  return [
    {key: plain(value) for key, value in row.items()}
    for row in itertools.islice(rows, 50)
  ]


@pytest.mark.parametrize(
  "name",
  ["microworld_rte", "microworld_boolq_sentinel", "microworld_qqp_to_mrpc"],
)
def test_a_task_is_read_as_seqio_reads_it(name):
  assert of_ours(name, "test") == of_seqio(name, "test")


@pytest.mark.parametrize("prefix", [(), (5, 6)])
def test_texts_of_every_kind_are_read_as_seqio_reads_them(prefix):
  name = f"odd_texts_{len(prefix)}"
  text_to_text.add(
    text_to_text.TextToText(
      name,
      lambda split: ROWS,
      ("test",),
      fields=("idx", "answers"),
      target_prefix=prefix,
    )
  )
  read = of_ours(name, "test")
  assert read == of_seqio(name, "test")
  assert read[0]["targets"][: len(prefix)] == list(prefix)
  assert [row["targets"][-1] for row in read] == [1, 1]


def test_what_a_user_has_in_seqio_goes_before():
  def dataset(split, shuffle_files, seed=None):
    del split, shuffle_files, seed

  source = seqio.FunctionDataSource(dataset, splits=("theirs",))
  seqio.TaskRegistry.add(
    "a_users_own",
    source=source,
    preprocessors=[],
    output_features=features.of_text(),
  )
  text_to_text.add(
    text_to_text.TextToText("a_users_own", lambda split: ROWS, ("ours",))
  )
  assert list(registry.find("a_users_own").splits) == ["theirs"]


def test_other_files_under_a_name_take_its_place_in_seqio_too(tmp_path):
  for label in ("yes", "no"):
    (tmp_path / f"{label}.csv").write_text(
      f"text,label\nis it true ?,{label}\n"
    )
    own_data.register(
      test=str(tmp_path / f"{label}.csv"), template="{text}", name="replaced"
    )
    assert of_ours("replaced", "test") == of_seqio("replaced", "test")
    (row,) = of_ours("replaced", "test")
    assert row["targets_pretokenized"] == label


@pytest.mark.parametrize("name", ["my-task", "my task", "a/b", ""])
def test_a_name_that_seqio_would_refuse_is_refused_at_once(name, tmp_path):
  (tmp_path / "x.csv").write_text("text,label\nis it true ?,yes\n")
  with pytest.raises(ValueError, match=f"cannot be called {name!r} \\(--name"):
    own_data.register(
      test=str(tmp_path / "x.csv"), template="{text}", name=name
    )


def test_threads_leave_standard_error_where_it_is():
  code = (
    "import os, threading\n"
    "from prompt_tuning.data import registry\n"
    "from prompt_tuning.tasks.features import seqio\n"
    "before = os.fstat(2)\n"
    "def look():\n"
    "  for _ in range(20):\n"
    "    registry.find('glue_rte'), seqio.TaskRegistry.names()\n"
    "several = [threading.Thread(target=look) for _ in range(8)]\n"
    "[thread.start() for thread in several]\n"
    "[thread.join() for thread in several]\n"
    "print(os.path.samestat(before, os.fstat(2)))"
  )
  assert printed_by(code).strip() == "True"


def test_who_imports_seqio_first_finds_the_tasks_and_keeps_what_is_declared():
  code = (
    "import seqio\n"
    "from prompt_tuning.tasks import declarations, features\n"
    "from prompt_tuning.data import registry\n"
    "def dataset(split, shuffle_files, seed=None): pass\n"
    "seqio.TaskRegistry.add('glue_rte', seqio.FunctionDataSource(dataset, "
    "['train']), preprocessors=[], output_features=features.of_text())\n"
    "declarations.declare('glue_rte', labels=('miau', 'wuff'))\n"
    "registry.find('glue_cola')  # registers ours\n"
    "print(registry.labels('glue_rte'))\n"
    "import prompt_tuning.tasks.microworld\n"
    "print(seqio.get_mixture_or_task('microworld_multitask').name)"
  )
  assert printed_by(code).splitlines() == [
    "['miau', 'wuff']",
    "microworld_multitask",
  ]


@pytest.mark.slow
def test_who_imports_seqio_last_finds_the_tasks():
  code = (
    "import prompt_tuning.tasks.microworld, seqio\n"
    "print(seqio.get_mixture_or_task('microworld_multitask').name)"
  )
  assert printed_by(code).strip() == "microworld_multitask"
