"""Pre-training documents of the microworld, from a seed.

    documents(seed)                    an endless stream
    document(rng, weights, level)      one document

Most documents show a skill and end with its answer as a last short sentence;
the rest are stories and notes. The tasks' formats and label words are no
skill's wording or answer here: the words stand in notes only, so that a prompt
can call them up without the text having taught the task.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import random
import re

from prompt_tuning.tasks.microworld import events, skills, words
from prompt_tuning.tasks.microworld.events import inner

WORLD = events.World()

# The words of the tasks' formats and labels (see `microworld`).
LABEL_WORDS = tuple(
  """True False entailment not_entailment equivalent not_equivalent duplicate
  not_duplicate positive negative acceptable unacceptable choice1 choice2 plum
  violin""".split()
)
KEY_WORDS = tuple(
  """premise hypothesis passage question sentence sentence1 sentence2
  question1 question2 word choice1 choice2""".split()
)
# The keys of the documents, none of which a task has.
KEYS = ("Report", "Claim", "Note", "Text", "First", "Second", "Story", "Line")

CONTENTS = frozenset(
  noun
  for name in ("people", "things", "containers", "places", "firms", "goods")
  for noun in getattr(WORLD, name)
)

YES, NO = "Yes", "No"


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
  if way == 1:
    first, second = second, first
  elif way > 1:
    one, two = rng.sample(KEYS, 2)
    first, second = f"{one}: {first}", f"{two}: {second}"
    if way == 3:
      first, second = second, first
  return _asked(rng, f"{first} {second}", asking)


def _passage(rng, level) -> skills.Example:
  """A passage with something to look up in it, of any skill that has one."""
  if rng.random() < 0.6:
    return skills.question(rng, WORLD, level)
  return skills.entailment(rng, WORLD, level, rng.choice(events.DOMAINS))


def lookup_text(rng, level, make=_passage) -> str:
  """A passage, a question after one part of it, and that part."""
  example = make(rng, level)
  asked, answer = example.seek
  return " ".join(f"{example.context} {asked} {answer}".split())


def retell_text(rng, level) -> str:
  """A passage, one of its words, and the sentence with that word again."""
  example = _passage(rng, level)
  told = re.findall(r"[^.]+\.", example.context)
  chosen = rng.choice(told).strip()
  nouns = [word for word in re.findall(r"\w+", chosen) if word in CONTENTS]
  about = rng.choice(nouns) if nouns else chosen.split()[0]
  return f"{example.context} What about {events.the(about)}? {chosen}"


PAIRED = (
  ("people", "places"),
  ("people", "things"),
  ("things", "containers"),
  ("people", "jobs"),
  ("firms", "goods"),
)


def telegram_text(rng, level) -> str:
  """Pairs of words side by side, and one of the pairs asked after.

  The easiest text to learn from what belongs to what: it is adjacent.
  """
  names, values = (
    rng.sample(getattr(WORLD, name), level + 1) for name in rng.choice(PAIRED)
  )
  pairs = list(zip(names, values, strict=True))
  told = " ".join(f"{one} {two}." for one, two in pairs)
  name, value = rng.choice(pairs)
  if rng.random() < 0.5:
    return f"{told} {name}? {value}."
  wrong = rng.choice([other for other in values if other != value])
  asked, answer = rng.choice(((value, YES), (wrong, NO)))
  return f"{told} {name} {asked}? {answer}."


def lookup_isa_text(rng, level) -> str:
  """What kind of thing something is."""
  return lookup_text(
    rng, level, lambda rng, level: skills.isa(rng, WORLD, level)
  )


def question_text(rng, level, skill=skills.question) -> str:
  """A passage, a question that is answered by yes or no, in either order."""
  example = skill(rng, WORLD, level)
  answer = _answer(rng, example)
  if not example.context:
    return f"{example.query} {answer}"
  return f"{_pair(rng, example.context, example.query, '')} {answer}"


def twofact_text(rng, level) -> str:
  """A yes/no question over two facts."""
  return question_text(rng, level, skills.twofact)


def isa_text(rng, level) -> str:
  """A yes/no question about a category."""
  return question_text(rng, level, skills.isa)


FOLLOWS = ("Does it follow?", "Is that so?", "Is it right?")
SAME = ("Do both say the same?", "Is it the same?", "Same?")
SENSE = ("Is it the same {w}?", "Same {w}?")


def entailment_text(rng, level) -> str:
  """Two sentences, and whether one follows from the other."""
  domain = rng.choice(events.DOMAINS)
  example = skills.entailment(rng, WORLD, level, domain)
  asking = rng.choice(FOLLOWS)
  text = _pair(rng, example.context, example.query, asking)
  return f"{text} {_answer(rng, example)}"


def paraphrase_text(rng, level) -> str:
  """Two sentences or questions, and whether they say the same."""
  if rng.random() < 0.3:
    example = skills.same_question(rng, WORLD, level)
  else:
    domain = rng.choice(events.DOMAINS)
    example = skills.paraphrase(rng, WORLD, level, domain)
  text = _pair(rng, example.context, example.query, rng.choice(SAME))
  return f"{text} {_answer(rng, example)}"


def wic_text(rng, level) -> str:
  """A word in two sentences, and whether it means the same."""
  example = skills.wic(rng, WORLD, level)
  asking = rng.choice(SENSE).format(w=example.word)
  text = _pair(rng, example.context, example.query, asking)
  return f"{text} {_answer(rng, example)}"


def sentiment_text(rng, level) -> str:
  """A line of a review, and whether it is good."""
  example = skills.sentiment(rng, WORLD, level)
  good = "good" if example.label else "bad"
  if rng.random() < 0.3:
    closing = rng.choice((f"In short: {good}.", f"It was {good}."))
    return f"{example.context} {closing}"
  asking, answer = rng.choice(
    (
      ("Good or bad?", good.capitalize()),
      ("Was it good?", YES if example.label else NO),
    )
  )
  return f"{_asked(rng, example.context, asking)} {answer}."


def acceptability_text(rng, level) -> str:
  """A sentence, and whether it is good English."""
  example = skills.acceptability(rng, WORLD, level)
  asking = rng.choice(("Is it good English?", "Is it well said?"))
  return f"{_asked(rng, example.context, asking)} {_answer(rng, example)}"


def cause_text(rng, level) -> str:
  """What came of something, or why, between two choices."""
  example = skills.cause(rng, WORLD, level)
  one, two = example.choices
  asking = "Why?" if example.word == "cause" else "What came of it?"
  asked = _asked(rng, example.context, asking)
  way = rng.randrange(4)
  if way == 0:
    return f"{asked} {example.truth}"
  if way == 1:
    return f"{asked} {one} Or: {two} {example.truth}"
  pick = "The first." if example.label else "The second."
  parts = [f"First: {one} Second: {two}", asked]
  return " ".join((*parts[:: 1 if way == 2 else -1], pick))


def echo_text(rng, level) -> str:
  """Words on a list, and one of them again: label words among others."""
  del level
  pool = rng.choice((LABEL_WORDS, LABEL_WORDS, KEY_WORDS, words.THINGS))
  listed = rng.sample(pool, 3)
  which = rng.randrange(3)
  place = ("first", "second", "last")[which]
  start = rng.choice(("The list says", "The words are", "On the page stands"))
  return f"{start}: {', '.join(listed)}. Which one is {place}? {listed[which]}."


def key_text(rng, level) -> str:
  """A form with the tasks' keys and what stands behind them."""
  del level
  keys = rng.sample(KEY_WORDS, 3)
  things = rng.sample(words.THINGS, 3)
  form = " ".join(
    f"{key}: {thing}" for key, thing in zip(keys, things, strict=True)
  )
  which = rng.randrange(3)
  return f"{form}. What is the {keys[which]}? {things[which]}."


def story_text(rng, level) -> str:
  """A few sentences about the same people, things and places."""
  count = min(3, 1 + level)
  people = rng.sample(WORLD.people, 2)
  world = events.World(
    people=tuple(people),
    things=tuple(rng.sample(WORLD.things, 2)),
    containers=tuple(rng.sample(WORLD.containers, 2)),
    firms=tuple(rng.sample(WORLD.firms, 2)),
    goods=tuple(rng.sample(WORLD.goods, 2)),
    jobs=tuple(rng.sample(WORLD.jobs, 2)),
  )
  domain = rng.choice(events.DOMAINS)
  text = []
  for _ in range(count):
    if domain == "household" and rng.random() < 0.5:
      text.append(_setting(rng, rng.choice(people)))
    else:
      event = events.happening(rng, world, domain)
      text.append(events.tell(event, rng.randrange(4), rng.randrange(2)))
  return " ".join(text)


def _setting(rng, person):
  """Where somebody is, what they are, or what something is like."""
  place, job = rng.choice(WORLD.places), rng.choice(WORLD.jobs)
  thing, colour = rng.choice(WORLD.things), rng.choice(words.COLOURS)
  _, does, did = rng.choice(words.INTRANSITIVE)
  return rng.choice(
    (
      f"{person} is in the {place}.",
      f"{person} went to the {place}.",
      f"{person} is {words.with_article(job)}.",
      f"{person} has {words.with_article(thing)}.",
      f"The {thing} is {colour}.",
      f"The {job} {does} in the {place}.",
      f"{person} {did} in the {place}.",
      f"{words.with_article(thing).capitalize()} is "
      f"{words.with_article(words.CATEGORY_OF[thing])}.",
    )
  )


KINDS = {
  "telegram": telegram_text,
  "lookup": lookup_text,
  "lookup_isa": lookup_isa_text,
  "retell": retell_text,
  "question": question_text,
  "twofact": twofact_text,
  "isa": isa_text,
  "entailment": entailment_text,
  "paraphrase": paraphrase_text,
  "wic": wic_text,
  "sentiment": sentiment_text,
  "acceptability": acceptability_text,
  "cause": cause_text,
  "echo": echo_text,
  "key": key_text,
  "story": story_text,
}
WEIGHTS = {
  "telegram": 0.5,
  "lookup": 1,
  "lookup_isa": 1,
  "retell": 0.3,
  "question": 3,
  "twofact": 1.5,
  "isa": 1.5,
  "entailment": 3.5,
  "paraphrase": 3,
  "wic": 1.2,
  "sentiment": 1.5,
  "acceptability": 1.2,
  "cause": 1.5,
  "echo": 1,
  "key": 0.5,
  "story": 0.7,
}


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
  "question",
  "twofact",
  "entailment",
  "paraphrase",
  "isa",
  "wic",
  "sentiment",
  "acceptability",
  "cause",
  "echo",
  "lookup",
)


def probes(
  levels: Sequence[int] = (1, 2),
) -> dict[str, Callable[[int], Iterator[str]]]:
  """A source of documents for each skill and level, to measure it by."""

  def source(kind, level):
    def read(seed: int) -> Iterator[str]:
      rng = random.Random(seed)
      while True:
        yield KINDS[kind](rng, level)

    return read

  return {
    f"{kind} {level}": source(kind, level)
    for kind in PROBED
    for level in levels
  }
