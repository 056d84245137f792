import pytest

from prompt_tuning import cli, tasks
from prompt_tuning.cli import task_list
from prompt_tuning.tasks import benchmark


def test_every_task_is_listed_with_its_metrics():
  lines = task_list.summary()
  listed = {line.split()[0]: line for line in lines if line}
  names = {n for n in benchmark.registered if not n.endswith("_t5")}
  assert names <= listed.keys() and "microworld_boolq" in listed
  assert "mean_3class_f1, accuracy" in listed["super_glue_cb"]
  assert "pearson_corrcoef, spearman_corrcoef" in listed["glue_stsb"]


@pytest.mark.parametrize(
  "name, text",
  [
    ("super_glue_record", "query: … entities: …, … passage: …"),
    ("super_glue_multirc_t5", "multirc question: … answer: … paragraph: …"),
    ("glue_stsb", "sentence1: … sentence2: …"),
    ("dpr", "… *it* …"),
    ("squad", "question: … context: …"),
  ],
)
def test_a_task_is_shown_in_its_form(name, text):
  assert task_list.describe(name)["input"] == text


def test_the_command_shows_a_mixture_and_corrects_a_name(capsys):
  assert cli.main(["tasks", "super_glue"]) == 0
  assert "super_glue_record   138854" in capsys.readouterr().out
  assert cli.main(["tasks", "super_glue_bolq"]) == 2
  assert "Did you mean super_glue_boolq" in capsys.readouterr().err


def test_names_say_form_and_benchmark():
  tasks.register_all()
  for name, task in benchmark.registered.items():
    assert name.removesuffix("_t5") == task.name
    dataset = task.source.name.partition("/")[0]
    assert task.name.startswith((dataset, "transfer_", "dpr"))
