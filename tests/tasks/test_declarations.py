"""What a task says of itself, and who listens: ranking, scoring, reading."""

import inspect

import pytest
import seqio
import tiny_t5
import toy_tasks

from prompt_tuning.data import registry, splits
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.model import decode
from prompt_tuning.prompts import prompted
from prompt_tuning.tasks import declarations


@pytest.fixture
def task():
  """A task of a user's own: the toy task under another name, undeclared."""
  name, given = "toy_own", seqio.TaskRegistry.get(toy_tasks.CAT)
  seqio.TaskRegistry.add(
    name,
    source=given.source,
    preprocessors=given.preprocessors,
    output_features=given.output_features,
    metric_fns=[toy_tasks.accuracy],
  )
  yield name
  seqio.TaskRegistry.remove(name)
  declarations.declare(name)


def test_what_is_declared_comes_back(task):
  def is_hidden(target):
    return target == "?"

  declarations.declare(
    task, labels=["no", "yes"], is_hidden=is_hidden, benchmark="toys"
  )
  assert declarations.declared(task) == declarations.Declaration(
    ("no", "yes"), is_hidden, "toys", ""
  )


def test_a_task_need_not_declare_anything(task):
  assert declarations.declared(task) == declarations.Declaration()
  assert registry.labels(task) == ["no", "yes"]  # those of its training split


def test_a_task_may_be_declared_before_it_is_registered():
  declarations.declare("toy_of_tomorrow", labels=("a",))
  assert declarations.declared("toy_of_tomorrow").labels == ("a",)
  assert "toy_of_tomorrow" not in seqio.TaskRegistry.names()
  declarations.declare("toy_of_tomorrow")


def test_a_second_declaration_takes_the_place_of_the_first(task):
  declarations.declare(task, labels=("a", "b"), benchmark="toys")
  declarations.declare(task, labels=("c",))
  assert declarations.declared(task) == declarations.Declaration(("c",))


@pytest.mark.parametrize("labels", ["yes", (0, 1), ("no", None), [b"no"]])
def test_labels_that_are_no_list_of_texts_are_refused(task, labels):
  declarations.declare(task, labels=("no", "yes"))
  # Users run without the checker of annotations, which would be the first.
  declare = inspect.unwrap(declarations.declare)
  with pytest.raises(ValueError, match="labels of 'toy_own' must be a list of"):
    declare(task, labels=labels)
  assert declarations.declared(task).labels == ("no", "yes")


def test_rank_classification_chooses_among_the_declared_labels(task):
  """Not among the words of its training split, which are "yes" and "no"."""
  labels = ("mat", "ran", "sat")
  declarations.declare(task, labels=labels)
  examples = splits.load(task, "test", toy_tasks.LENGTHS)
  prompts = [3 * tiny_t5.rows(4, 16, seed=n) for n in range(3)]
  bank = prompted.with_prompts(toy_tasks.model(), prompts)

  def answers(strategy):
    decoding = infer.Decoding(strategy)
    scored = evaluate.Evaluator(bank, [examples] * 3, decoding=decoding)()
    return [text for result in scored for text in result.predictions]

  assert answers(decode.Rank()) == answers(decode.Rank(labels))
  assert 1 < len(set(answers(decode.Rank()))) <= len(labels)
  assert set(answers(decode.Rank())) <= set(labels)


def test_a_declared_label_that_the_model_cannot_write_is_refused(task):
  declarations.declare(task, labels=("yes", "日本"))
  with pytest.raises(ValueError, match="'日本' of toy_own cannot be written"):
    splits.load(
      task, "test", toy_tasks.LENGTHS, vocabulary=tiny_t5.vocabulary()
    )


def test_the_mean_of_a_benchmark_is_over_the_tasks_that_declare_it(task):
  def result(name, accuracy):
    return evaluate.Result(name, "test", {"accuracy": accuracy}, [])

  results = [result(task, 80.0), result(toy_tasks.DOG, 60.0)]
  assert evaluate.averages(results) == {}
  declarations.declare(task, benchmark="toys")
  assert evaluate.averages(results) == {}  # one task is no mean
  try:
    declarations.declare(toy_tasks.DOG, benchmark="toys")
    assert evaluate.averages([*results, result(toy_tasks.CAT, 0.0)]) == {
      "toys, mean of 2 tasks": 70.0
    }
  finally:
    declarations.declare(toy_tasks.DOG)
