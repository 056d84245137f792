"""Pre-training documents of the microworld, from a seed.

    documents(seed)                    an endless stream
    document(rng, weights, level)      one document

Most documents show a skill and end with its answer as a last short sentence;
the rest are stories and notes (`notes`). The tasks' formats and label words are
no skill's wording or answer here: the words stand in notes only, so that a
prompt can call them up without the text having taught the task.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
import random

from prompt_tuning.tasks.microworld import events, notes, passages, sentences
from prompt_tuning.tasks.microworld.events import inner
from prompt_tuning.tasks.microworld.notes import NO, WORLD, YES, passage

# The keys of the documents, none of which a task has.
KEYS = ("Report", "Claim", "Note", "Text", "First", "Second", "Story", "Line")


def _answer(rng, example) -> str:
  """Yes or no, now and then with the whole truth behind it."""
  short = YES if example.label else NO
  if example.truth and rng.random() < 0.25:
    return f"{short}, {inner(example.truth)}."
  return f"{short}."


def _asked(rng, text, asking) -> str:
  """`asking` behind the text or in front of it, where a prompt stands."""
  parts = (text, asking) if rng.random() < 0.5 else (asking, text)
  return " ".join(" ".join(parts).split())


def _pair(rng, first, second, asking) -> str:
  """Two texts in either order, bare or behind keys, and `asking`."""
  way = rng.randrange(4)
  if way > 1:
    keys = rng.sample(KEYS, 2)
    first, second = f"{keys[0]}: {first}", f"{keys[1]}: {second}"
  if way in (1, 3):
    first, second = second, first
  return _asked(rng, f"{first} {second}", asking)


def _compared(rng, example, asking) -> str:
  """The two texts of an example, `asking`, and the answer."""
  text = _pair(rng, example.context, example.query, asking)
  return f"{text} {_answer(rng, example)}"


def lookup_text(rng, level, skill=None) -> str:
  """A passage, a question after one part of it, and that part."""
  example = skill(rng, WORLD, level) if skill else passage(rng, level)
  return " ".join([example.context, *example.seek]).strip()


def question_text(rng, level, skill=passages.question) -> str:
  """A passage, a question that is answered by yes or no, in either order."""
  example = skill(rng, WORLD, level)
  answer = _answer(rng, example)
  if not example.context:
    return f"{example.query} {answer}"
  return f"{_pair(rng, example.context, example.query, '')} {answer}"


FOLLOWS = ("Does it follow?", "Is that so?", "Is it right?")
SAME = ("Do both say the same?", "Is it the same?", "Same?")
SENSE = ("Is it the same {w}?", "Same {w}?")


def entailment_text(rng, level) -> str:
  """Two sentences, and whether one follows from the other."""
  domain = rng.choice(events.DOMAINS)
  example = sentences.entailment(rng, WORLD, level, domain)
  return _compared(rng, example, rng.choice(FOLLOWS))


def paraphrase_text(rng, level) -> str:
  """Two sentences or questions, and whether they say the same."""
  if rng.random() < 0.3:
    example = sentences.same_question(rng, WORLD, level)
  else:
    domain = rng.choice(events.DOMAINS)
    example = sentences.paraphrase(rng, WORLD, level, domain)
  return _compared(rng, example, rng.choice(SAME))


def wic_text(rng, level) -> str:
  """A word in two sentences, and whether it means the same."""
  example = sentences.wic(rng, WORLD, level)
  return _compared(rng, example, rng.choice(SENSE).format(w=example.word))


def sentiment_text(rng, level) -> str:
  """A line of a review, and whether it is good."""
  example = sentences.sentiment(rng, WORLD, level)
  good = "good" if example.label else "bad"
  if rng.random() < 0.3:
    closing = rng.choice((f"In short: {good}.", f"It was {good}."))
    return f"{example.context} {closing}"
  was_it = ("Was it good?", YES if example.label else NO)
  asking, answer = rng.choice((("Good or bad?", good.capitalize()), was_it))
  return f"{_asked(rng, example.context, asking)} {answer}."


def acceptability_text(rng, level) -> str:
  """A sentence, and whether it is good English."""
  example = sentences.acceptability(rng, WORLD, level)
  asking = rng.choice(("Is it good English?", "Is it well said?"))
  return f"{_asked(rng, example.context, asking)} {_answer(rng, example)}"


def cause_text(rng, level) -> str:
  """What came of something, or why, between two choices."""
  example = sentences.cause(rng, WORLD, level)
  first, second = example.choices
  asking = "Why?" if example.word == "cause" else "What came of it?"
  asked = _asked(rng, example.context, asking)
  way = rng.randrange(4)
  if way == 0:
    return f"{asked} {example.truth}"
  if way == 1:
    return f"{asked} {first} Or: {second} {example.truth}"
  pick = "The first." if example.label else "The second."
  parts = [f"First: {first} Second: {second}", asked]
  return " ".join((*parts[:: 1 if way == 2 else -1], pick))


_KINDS = {
  "telegram": (notes.telegram_text, 0.5),
  "lookup": (lookup_text, 1),
  "lookup_isa": (functools.partial(lookup_text, skill=passages.isa), 1),
  "retell": (notes.retell_text, 0.3),
  "question": (question_text, 3),
  "twofact": (functools.partial(question_text, skill=passages.twofact), 1.5),
  "isa": (functools.partial(question_text, skill=passages.isa), 1.5),
  "entailment": (entailment_text, 3.5),
  "paraphrase": (paraphrase_text, 3),
  "wic": (wic_text, 1.2),
  "sentiment": (sentiment_text, 1.5),
  "acceptability": (acceptability_text, 1.2),
  "cause": (cause_text, 1.5),
  "echo": (notes.echo_text, 1),
  "key": (notes.key_text, 0.5),
  "story": (notes.story_text, 0.7),
}
KINDS = {kind: make for kind, (make, _) in _KINDS.items()}
WEIGHTS = {kind: weight for kind, (_, weight) in _KINDS.items()}


def document(
  rng: random.Random,
  weights: Mapping[str, int | float] = WEIGHTS,
  levels: Sequence[int | float] = (2, 3, 0.7),
) -> str:
  """One document; `weights` mix the kinds, `levels` the levels 1, 2, 3."""
  kind = rng.choices(tuple(weights), tuple(weights.values()))[0]
  level = rng.choices((1, 2, 3), levels)[0]
  return KINDS[kind](rng, level)


def documents(seed: int, **mix) -> Iterator[str]:
  """An endless stream of documents; the same seed gives the same stream."""
  rng = random.Random(seed)
  while True:
    yield document(rng, **mix)


PROBED = (
  *("question", "twofact", "entailment", "paraphrase", "isa", "wic"),
  *("sentiment", "acceptability", "cause", "echo", "lookup"),
)


def probes(
  levels: Sequence[int] = (1, 2),
) -> dict[str, Callable[[int], Iterator[str]]]:
  """A source of documents for each skill and level, to measure it by."""

  def of_kind(kind: str, level: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    while True:
      yield KINDS[kind](rng, level)

  return {
    f"{kind} {level}": functools.partial(of_kind, kind, level)
    for kind in PROBED
    for level in levels
  }
