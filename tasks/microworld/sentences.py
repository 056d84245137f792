"""The skills of judging sentences: two of them compared, or one alone.

entailment, paraphrase, same_question, wic, cause    two that are compared
sentiment, acceptability                             one alone
"""

import dataclasses
import random

from prompt_tuning.tasks.microworld import events, senses, words
from prompt_tuning.tasks.microworld.events import World, sentence, the
from prompt_tuning.tasks.microworld.skills import Example, coin


def entailment(
  rng: random.Random, world: World, level: int, domain: str = "household"
) -> Example:
  """Does the hypothesis follow from a premise of one or two sentences?

  Level 1 keeps the wording, level 2 changes voice and verb or asks for what
  follows ("Tom has the lemon", "… a fruit"), level 3 has two sentences.
  """
  event, *others = events.happenings(rng, world, 2 if level > 2 else 1, domain)
  label = coin(rng)
  wording, synonym = events.draw_way(rng)
  premise = [events.tell(event, wording, synonym)]
  premise += [events.tell(o, *events.draw_way(rng)) for o in others]
  rng.shuffle(premise)
  seen = event if label else events.corrupt(event, rng, world, tuple(others))
  if level > 1:
    wording, synonym = events.draw_way(rng)
  hypothesis = events.tell(seen, wording, synonym)
  if level > 1 and coin(rng, 0.4):
    consequence = _consequence(rng, world, event, others, label)
    hypothesis = consequence or hypothesis
  return Example(
    " ".join(premise),
    hypothesis,
    label,
    events.tell(event, wording, synonym),
    events.seek(event, rng),
  )


def _consequence(rng, world, event, others, label):
  """What holds after the event, or what does not; "" if nothing is known."""
  if event.kind == "give":
    holder = event.to if label else event.agent
    return sentence(f"{holder} has {event.object}")
  if event.kind == "put":
    where = event.to
    if not label:
      told = [o.to for o in others if o.kind == "put"]
      fresh = [the(c) for c in rng.sample(world.containers, 2)]
      where = next(c for c in told + fresh if c != event.to)
    return sentence(f"{event.object} is in {where}")
  thing = event.object.removeprefix("the ")
  if thing not in words.CATEGORY_OF:
    return ""
  category = words.CATEGORY_OF[thing]
  if not label:
    category = events.another(rng, tuple(words.CATEGORIES), category)
  broad = dataclasses.replace(event, object=words.with_article(category))
  return events.tell(broad, 0, rng.randrange(2))


def paraphrase(
  rng: random.Random, world: World, level: int, domain: str = "household"
) -> Example:
  """Do two sentences tell the same?

  Level 1 keeps the wording, level 2 changes voice and verb, level 3 has a
  second event in one text that the other text may borrow words from.
  """
  event = events.happenings(rng, world, 1, domain)[0]
  label = coin(rng)
  seen = event if label else events.corrupt(event, rng, world)
  wording, synonym = events.draw_way(rng)
  first = events.tell(event, wording, synonym)
  if level > 1:
    wording, synonym = events.draw_way(rng)
  second = events.tell(seen, wording, synonym)
  if coin(rng):
    first, second = second, first
  return Example(first, second, label, "", events.seek(event, rng))


def same_question(rng: random.Random, world: World, level: int) -> Example:
  """Do two questions about the market ask the same?"""
  event = events.happenings(rng, world, 1, "market")[0]
  label = coin(rng)
  ways = rng.sample(("", "Why", "How"), 2)
  asked, ways = event, ways if not label and coin(rng, 0.2) else ways[:1] * 2
  if not label and ways[0] == ways[1]:
    asked = events.corrupt(event, rng, world)
  wording, synonym = events.draw_way(rng)
  first = events.ask(event, wording, synonym, ways[0])
  if level > 1:
    wording, synonym = events.draw_way(rng)
  second = events.ask(asked, wording, synonym, ways[1])
  return Example(first, second, label, "", events.seek(event, rng))


def wic(rng: random.Random, world: World, level: int) -> Example:
  """Does a word have the same sense in two sentences?"""
  del level
  word = rng.choice(world.ambiguous)
  label = coin(rng)
  sense, other = rng.sample(senses.AMBIGUOUS[word], 2)
  if label:
    first, second = rng.sample(senses.SENSE_SENTENCES[sense], 2)
  else:
    first = rng.choice(senses.SENSE_SENTENCES[sense])
    second = rng.choice(senses.SENSE_SENTENCES[other])
  people = rng.sample(world.people, 2)
  return Example(
    first.format(n=people[0], w=word),
    second.format(n=people[1], w=word),
    label,
    word=word,
  )


REVIEWS = (
  "The {x} was {a}.",
  "The {x} was very {a}.",
  "I found the {x} {a}.",
  "{n} called the {x} {a}.",
  "The {x} was {a} and {b}.",
  "The {x} was {a} and the {y} was {b}.",
  "What {a_a} {x}!",
)
TURNED = ("The {x} was not {a}.", "{n} did not find the {x} {a}.")


def sentiment(rng: random.Random, world: World, level: int) -> Example:
  """Is a review positive? From level 2 on a fifth is turned by "not"."""
  label = coin(rng)
  turned = level > 1 and coin(rng, 0.2)
  pool = world.positive if label != turned else world.negative
  a, b = rng.sample(pool, 2)
  x, y = rng.sample(world.reviewed, 2)
  review = rng.choice(TURNED if turned else REVIEWS).format(
    a=a, b=b, x=x, y=y, n=rng.choice(world.people), a_a=words.with_article(a)
  )
  return Example(review, "", label)


def acceptability(rng: random.Random, world: World, level: int) -> Example:
  """Is a sentence well formed, or has it a wrong ending or a wrong order?"""
  del level
  job, place = rng.choice(world.jobs), rng.choice(world.places)
  base, singular, past = rng.choice(words.INTRANSITIVE)
  many, label = coin(rng), coin(rng)
  noun = words.plural(job) if many else job
  fault = (
    "" if label else rng.choice(("ending", "ending", "noun", "verb", "in"))
  )
  plain = base if many != (fault == "ending") else singular
  where = f"the {place} in" if fault == "in" else f"in the {place}"
  if fault != "ending" and coin(rng):
    plain = past
  subject = f"{noun} the" if fault == "noun" else f"the {noun}"
  text = f"{subject} {plain} {where}"
  if fault == "verb":
    text = f"the {plain} {noun} {where}"
  return Example(sentence(text), "", label)


def cause(rng: random.Random, world: World, level: int) -> Example:
  """Which of two events came of, or led to, the one that is told?"""
  del level
  person = rng.choice(world.people)
  pair, other = (
    [text.format(n=person) for text in texts]
    for texts in rng.sample(world.causes, 2)
  )
  asked = rng.randrange(2)  # 0 asks for the cause, 1 for the effect
  label = coin(rng)
  choices = (pair[asked], other[asked])
  return Example(
    pair[1 - asked],
    "",
    label,
    pair[asked],
    word=("cause", "effect")[asked],
    choices=choices if label else choices[::-1],
  )
