"""The microworld's task examples: casts, labels and splits, without seqio.

A split has its own people, things, places, opinion words … (`World.part`), so
no content of a test example stands in any training example; `overlap`
measures it.
"""

from collections.abc import Callable
import dataclasses
import functools
import random
import re

from prompt_tuning.tasks.microworld import skills, words
from prompt_tuning.tasks.microworld.events import World

SPLITS = {"train": 3000, "validation": 500, "test": 1000}
WHOLE = World()


@dataclasses.dataclass(frozen=True)
class Task:
  """How a skill becomes a task.

  Attributes:
    skill: makes an example of a random state, a world and a level.
    cast: the text format, filled from the example's fields.
    labels: the label of class 0 and of class 1.
    truth: the class of a true example.
    levels: the skill's levels that the task mixes.
    contents: the classes of the world whose words are the content.
  """

  skill: Callable
  cast: str
  labels: tuple[str, str]
  truth: int
  levels: tuple[int, ...]
  contents: tuple[str, ...]


_BOOLEAN = ("False", "True")
_PASSAGE = "passage: {e.context} question: {e.query}"
_HOME = ("people", "things", "containers", "places", "jobs")
_REVIEW = ("positive", "negative", "reviewed", "people")

TASKS = {
  "microworld_boolq": Task(
    skills.question, _PASSAGE, _BOOLEAN, 1, (2, 3), _HOME
  ),
  "microworld_twofact": Task(
    skills.twofact, _PASSAGE, _BOOLEAN, 1, (2,), _HOME
  ),
  "microworld_isa": Task(
    skills.isa,
    "question: {e.context} {e.query}",
    _BOOLEAN,
    1,
    (2,),
    ("things", "people"),
  ),
  "microworld_rte": Task(
    skills.entailment,
    "hypothesis: {e.query} premise: {e.context}",
    ("entailment", "not_entailment"),
    0,
    (2,),
    _HOME,
  ),
  "microworld_mrpc": Task(
    skills.paraphrase,
    "sentence1: {e.context} sentence2: {e.query}",
    ("not_equivalent", "equivalent"),
    1,
    (2,),
    _HOME,
  ),
  "microworld_qqp": Task(
    skills.same_question,
    "question1: {e.context} question2: {e.query}",
    ("not_duplicate", "duplicate"),
    1,
    (2,),
    ("firms", "goods", "jobs"),
  ),
  "microworld_wic": Task(
    skills.wic,
    "sentence1: {e.context} sentence2: {e.query} word: {e.word}",
    _BOOLEAN,
    1,
    (1,),
    ("ambiguous", "people"),
  ),
  "microworld_sst2": Task(
    skills.sentiment,
    "sentence: {e.context}",
    ("negative", "positive"),
    1,
    (1,),
    _REVIEW,
  ),
  "microworld_plum": Task(
    skills.sentiment,
    "sentence: {e.context}",
    ("plum", "violin"),
    1,
    (1,),
    _REVIEW,
  ),
  "microworld_cola": Task(
    skills.acceptability,
    "sentence: {e.context}",
    ("unacceptable", "acceptable"),
    1,
    (1,),
    ("jobs", "places"),
  ),
  "microworld_copa": Task(
    skills.cause,
    "choice1: {e.choices[0]} choice2: {e.choices[1]} premise: {e.context} "
    "question: {e.word}",
    ("choice1", "choice2"),
    0,
    (1,),
    ("causes", "people"),
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
    for member in getattr(WHOLE, name):
      if name == "causes":
        continue
      surfaces[member] = member
      if name == "jobs":
        surfaces[words.plural(member)] = member
  return surfaces


@functools.cache
def _cause_patterns() -> tuple[tuple[str, re.Pattern], ...]:
  return tuple(
    (
      pair[0],
      re.compile(
        "|".join(re.escape(text).replace(r"\{n\}", r"\w+") for text in pair)
      ),
    )
    for pair in WHOLE.causes
  )


def content_key(name: str, inputs: str) -> frozenset[str]:
  """The contents that a task's input is about: its words of open classes."""
  task = TASKS[name]
  surfaces = _surfaces(task.contents)
  found = {
    surfaces[word] for word in re.findall(r"\w+", inputs) if word in surfaces
  }
  if "causes" in task.contents:
    found |= {
      cause for cause, pattern in _cause_patterns() if pattern.search(inputs)
    }
  return frozenset(found)


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
  found = {}
  for one, other in (
    ("test", "train"),
    ("validation", "train"),
    ("test", "validation"),
  ):
    known = frozenset().union(*contents[other])
    found[f"{one} in {other}"] = {
      "inputs": len(inputs[one] & inputs[other]),
      "contents": sum(bool(key & known) for key in contents[one]),
    }
  return found
