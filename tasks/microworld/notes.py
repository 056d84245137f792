"""Documents that show no skill: lists, forms, stories, a passage told again.

    The list says: plum, choice1, False. Which one is last? False.

Only here do the words of the tasks' formats and labels stand.
"""

import random
import re

from prompt_tuning.tasks.microworld import events, passages, sentences, words
from prompt_tuning.tasks.microworld.skills import Example

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
CONTENTS = frozenset(
  noun
  for name in ("people", "things", "containers", "places", "firms", "goods")
  for noun in getattr(WORLD, name)
)

YES, NO = "Yes", "No"


def passage(rng: random.Random, level: int) -> Example:
  """A passage with something to look up in it, of any skill that has one."""
  if rng.random() < 0.6:
    return passages.question(rng, WORLD, level)
  return sentences.entailment(rng, WORLD, level, rng.choice(events.DOMAINS))


def retell_text(rng, level) -> str:
  """A passage, one of its words, and the sentence with that word again."""
  example = passage(rng, level)
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
  told = " ".join(f"{name} {value}." for name, value in pairs)
  name, value = rng.choice(pairs)
  if rng.random() < 0.5:
    return f"{told} {name}? {value}."
  wrong = rng.choice([other for other in values if other != value])
  asked, answer = rng.choice(((value, YES), (wrong, NO)))
  return f"{told} {name} {asked}? {answer}."


def echo_text(rng, level) -> str:
  """Words on a list, and one of them again: label words among others."""
  del level
  pool = rng.choice((LABEL_WORDS, LABEL_WORDS, KEY_WORDS, words.THINGS))
  listed = rng.sample(pool, 3)
  which = rng.randrange(3)
  rank = ("first", "second", "last")[which]
  start = rng.choice(("The list says", "The words are", "On the page stands"))
  return f"{start}: {', '.join(listed)}. Which one is {rank}? {listed[which]}."


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
      text.append(events.tell(event, *events.draw_way(rng)))
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
