"""The microworld's task examples: casts, labels and splits, without seqio.

A split has its own people, things, places, opinion words … (`World.part`), so
no content of a test example stands in any training example; `overlap`
measures it.
"""

from collections.abc import Callable
import dataclasses
import functools
import itertools
import random
import re

from prompt_tuning.tasks.microworld import passages, sentences, words
from prompt_tuning.tasks.microworld.events import World

SPLITS = {"train": 3000, "validation": 500, "test": 1000}
LENGTHS = {"inputs": 64, "targets": 8}
"""Tokens that hold every example of every task, EOS included."""
WHOLE = World()


@dataclasses.dataclass(frozen=True)
class Task:
  """How a skill becomes a task.

  Attributes:
    skill: makes an example of a random state, a world and a level.
    cast: the text format, filled from the example's fields.
    labels: the label of class 0 and of class 1.
    contents: the classes of the world whose words are the content.
    levels: the skill's levels that the task mixes.
    truth: the class of a true example.
  """

  skill: Callable
  cast: str
  labels: tuple[str, str]
  contents: tuple[str, ...]
  levels: tuple[int, ...] = (2,)
  truth: int = 1


_BOOLEAN = ("False", "True")
_PASSAGE = "passage: {e.context} question: {e.query}"
_SENTENCE = "sentence: {e.context}"
_HOME = ("people", "things", "containers", "places", "jobs")
_REVIEW = ("positive", "negative", "reviewed", "people")

TASKS = {
  "microworld_boolq": Task(
    passages.question, _PASSAGE, _BOOLEAN, _HOME, levels=(2, 3)
  ),
  "microworld_twofact": Task(passages.twofact, _PASSAGE, _BOOLEAN, _HOME),
  "microworld_isa": Task(
    passages.isa,
    "question: {e.context} {e.query}",
    _BOOLEAN,
    ("things", "people"),
  ),
  "microworld_rte": Task(
    sentences.entailment,
    "hypothesis: {e.query} premise: {e.context}",
    ("entailment", "not_entailment"),
    _HOME,
    truth=0,
  ),
  "microworld_mrpc": Task(
    sentences.paraphrase,
    "sentence1: {e.context} sentence2: {e.query}",
    ("not_equivalent", "equivalent"),
    _HOME,
  ),
  "microworld_qqp": Task(
    sentences.same_question,
    "question1: {e.context} question2: {e.query}",
    ("not_duplicate", "duplicate"),
    ("firms", "goods", "jobs"),
  ),
  "microworld_wic": Task(
    sentences.wic,
    "sentence1: {e.context} sentence2: {e.query} word: {e.word}",
    _BOOLEAN,
    ("ambiguous", "people"),
    levels=(1,),
  ),
  "microworld_sst2": Task(
    sentences.sentiment, _SENTENCE, ("negative", "positive"), _REVIEW, (1,)
  ),
  "microworld_plum": Task(
    sentences.sentiment, _SENTENCE, ("plum", "violin"), _REVIEW, (1,)
  ),
  "microworld_cola": Task(
    sentences.acceptability,
    _SENTENCE,
    ("unacceptable", "acceptable"),
    ("jobs", "places"),
    levels=(1,),
  ),
  "microworld_copa": Task(
    sentences.cause,
    "choice1: {e.choices[0]} choice2: {e.choices[1]} premise: {e.context} "
    "question: {e.word}",
    ("choice1", "choice2"),
    ("causes", "people"),
    levels=(1,),
    truth=0,
  ),
}

LABELS = {name: task.labels for name, task in TASKS.items()}

# Trained on the first task, tested on the second: the household's sentences and
# the market's questions, as MRPC and QQP (Lester et al. 2021, section 5).
TRANSFERS = {
  "microworld_mrpc_to_qqp": ("microworld_mrpc", "microworld_qqp"),
  "microworld_qqp_to_mrpc": ("microworld_qqp", "microworld_mrpc"),
}


def label_map(name: str) -> dict[str, str]:
  """The labels of a transfer's second task in the words of its first."""
  first, second = TRANSFERS[name]
  return dict(zip(LABELS[second], LABELS[first], strict=True))


def transferred(name: str, split: str) -> tuple[dict, ...]:
  """A transfer's examples: those of the first task, `test` of the second."""
  first, second = TRANSFERS[name]
  if split != "test":
    return examples(first, split)
  words = label_map(name)
  return tuple(
    {**record, "targets": words[record["targets"]]}
    for record in examples(second, split)
  )


@functools.cache
def examples(name: str, split: str) -> tuple[dict, ...]:
  """The examples of a task's split: `inputs`, `targets`, `label`, `idx`.

  Half of them have each label, no two have the same inputs.

  Raises:
    ValueError: the split's part of the world has too few examples.
  """
  task, count = TASKS[name], SPLITS[split]
  world = WHOLE.part(split)
  rng = random.Random(f"{name} {split}")
  kept, seen, lacking = [], set(), [count // 2, count - count // 2]
  for _ in range(100 * count):
    if not any(lacking):
      break
    example = task.skill(rng, world, rng.choice(task.levels))
    label = task.truth if example.label else 1 - task.truth
    inputs = " ".join(task.cast.format(e=example).split())
    if lacking[label] and inputs not in seen:
      seen.add(inputs)
      lacking[label] -= 1
      kept.append(
        {"inputs": inputs, "targets": task.labels[label], "label": label}
      )
  else:
    raise ValueError(f"{name} has no {count} different {split} examples.")
  rng.shuffle(kept)
  return tuple({**record, "idx": i} for i, record in enumerate(kept))


@functools.cache
def _surfaces(classes: tuple[str, ...]) -> dict[str, str]:
  """Every word that shows a content of the classes -> that content."""
  surfaces = {}
  for name in classes:
    if name == "causes":
      continue
    for member in getattr(WHOLE, name):
      surfaces[member] = member
      if name == "jobs":
        surfaces[words.plural(member)] = member
  return surfaces


@functools.cache
def _cause_patterns() -> dict[str, re.Pattern]:
  """What shows each cause, by the cause itself."""
  return {
    pair[0]: re.compile(
      "|".join(map(re.escape, pair)).replace(r"\{n\}", r"\w+")
    )
    for pair in WHOLE.causes
  }


def content_key(name: str, inputs: str) -> frozenset[str]:
  """The contents that a task's input is about: its words of open classes."""
  task = TASKS[name]
  surfaces = _surfaces(task.contents)
  contents = {surfaces.get(word, "") for word in re.findall(r"\w+", inputs)}
  if "causes" in task.contents:
    patterns = _cause_patterns().items()
    contents |= {cause for cause, shown in patterns if shown.search(inputs)}
  return frozenset(contents - {""})


def overlap(name: str) -> dict[str, dict[str, int]]:
  """How many inputs and contents of one split stand in another.

  Returns:
    For each pair of splits ("test in train", …): the examples of the first
    with an input of the second, and those with any content of the second.
  """
  inputs, contents = {}, {}
  for split in SPLITS:
    texts = [record["inputs"] for record in examples(name, split)]
    inputs[split] = set(texts)
    contents[split] = [content_key(name, text) for text in texts]
  shared = {}
  for first, second in itertools.combinations(
    ("test", "validation", "train"), 2
  ):
    known = frozenset().union(*contents[second])
    shared[f"{first} in {second}"] = {
      "inputs": len(inputs[first] & inputs[second]),
      "contents": sum(bool(key & known) for key in contents[first]),
    }
  return shared
