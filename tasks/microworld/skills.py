"""The skills: examples with a label, made from a world at a level.

    question      passage of facts      question          yes or no
    twofact       chained facts         question          yes or no
    isa           -                     is a lemon a ...  yes or no
    entailment    premise               hypothesis        follows or not
    paraphrase    sentence              sentence          same or not
    wic           sentence              sentence          same sense or not
    sentiment     review                -                 positive or not
    acceptability sentence              -                 well formed or not
    cause         event                 two choices       the first or not

Labels are balanced, and what is asked is worded alike for both labels, so
single words give nothing away. Level 1 is short, level 3 is the hardest.
"""

import dataclasses
import random

from prompt_tuning.tasks.microworld import senses, words
from prompt_tuning.tasks.microworld.events import (
  Event,
  World,
  ask,
  corrupt,
  happening,
  seek,
  sentence,
  tell,
  the,
)


@dataclasses.dataclass(frozen=True)
class Example:
  """One labelled example of a skill.

  Attributes:
    context: the passage, premise, first sentence or review.
    query: the question, hypothesis or second sentence; "" if there is none.
    label: yes, follows, same, positive, well formed, the first.
    truth: a sentence that corrects or confirms the query; "" if there is none.
    seek: a question after a part of the context, and its short answer.
    word: the ambiguous word of wic; "cause" or "effect" for cause.
    choices: the two choices of cause.
  """

  context: str
  query: str
  label: bool
  truth: str = ""
  seek: tuple[str, str] = ("", "")
  word: str = ""
  choices: tuple[str, str] = ("", "")


def _coin(rng, chance=0.5):
  return rng.random() < chance


# Facts: kind -> (class of the subject, class of the value, telling, asking,
# seeking, short answer).
FACTS = {
  "in": (
    "things",
    "containers",
    "{s} is in {v}",
    "is {s} in {v}",
    "where is {s}",
    "in {v}",
  ),
  "at": (
    "people",
    "places",
    "{s} is in {v}",
    "is {s} in {v}",
    "where is {s}",
    "in {v}",
  ),
  "has": (
    "people",
    "things",
    "{s} has {v}",
    "does {s} have {v}",
    "who has {v}",
    "{s}",
  ),
  "job": (
    "people",
    "jobs",
    "{s} is {v}",
    "is {s} {v}",
    "what is {s}",
    "{v}",
  ),
  "colour": (
    "things",
    "colours",
    "{s} is {v}",
    "is {s} {v}",
    "what colour is {s}",
    "{v}",
  ),
}


def _value(noun, kind):
  if kind == "job":
    return words.with_article(noun)
  return noun if kind == "colour" else the(noun)


def _pool(world, name):
  return words.COLOURS if name == "colours" else getattr(world, name)


def question(rng: random.Random, world: World, level: int) -> Example:
  """A passage of `level` facts or events, and a yes/no question on one."""
  if _coin(rng, 0.35):
    return _event_question(rng, world, level)
  kind = rng.choice(tuple(FACTS))
  subjects, values, telling, asking, seeking, short = FACTS[kind]
  subjects = rng.sample(_pool(world, subjects), level)
  values = rng.sample(_pool(world, values), level + 1)
  values = [_value(value, kind) for value in values]
  told = [
    {"s": the(subject), "v": value}
    for subject, value in zip(subjects, values[:level], strict=True)
  ]
  fact = told[0]
  label = _coin(rng)
  wrong = values[1] if _coin(rng, 0.85) else values[-1]
  asked = fact if label else {"s": fact["s"], "v": wrong}
  rng.shuffle(told)
  return Example(
    " ".join(sentence(telling.format(**fact)) for fact in told),
    sentence(asking.format(**asked), "?"),
    label,
    sentence(telling.format(**fact)),
    (sentence(seeking.format(**fact), "?"), sentence(short.format(**fact))),
  )


def happenings(
  rng: random.Random, world: World, count: int, domain: str = "household"
) -> list[Event]:
  """Events that share no noun."""
  found, seen = [], set()
  while len(found) < count:
    event = happening(rng, world, domain)
    nouns = {event.agent, event.object, event.to, event.time} - {""}
    if not nouns & seen:
      found.append(event)
      seen |= nouns
  return found


def _event_question(rng, world, level):
  events = happenings(rng, world, min(level, 2))
  event, *others = events
  label = _coin(rng)
  asked = event if label else corrupt(event, rng, world, tuple(others))
  wording, synonym = rng.randrange(4), rng.randrange(2)
  other_wording = wording if level == 1 else rng.randrange(4)
  told = [tell(event, wording, synonym)]
  told += [tell(other, rng.randrange(4), rng.randrange(2)) for other in others]
  rng.shuffle(told)
  return Example(
    " ".join(told),
    ask(asked, other_wording, synonym),
    label,
    tell(event, other_wording, synonym),
    seek(event, rng),
  )


def twofact(rng: random.Random, world: World, level: int) -> Example:
  """Somebody has a thing and is at a place: is the thing at that place?

  Level 1 tells one holder and place, level 2 two places, level 3 two holders.
  """
  things = rng.sample(world.things, 2)
  places = rng.sample(world.places, 3)
  if _coin(rng):
    holders, holding = rng.sample(world.people, 2), "{h} has the {t}."
  else:
    holders = [the(noun) for noun in rng.sample(world.containers, 2)]
    holding = "The {t} is in {h}."
  told = [sentence(f"{holders[0]} is in the {places[0]}")]
  told.append(holding.format(h=holders[0], t=things[0]))
  if level > 1:
    told.append(sentence(f"{holders[1]} is in the {places[1]}"))
  if level > 2:
    told.append(holding.format(h=holders[1], t=things[1]))
  rng.shuffle(told)
  label = _coin(rng)
  wrong = places[1] if level > 1 and _coin(rng, 0.9) else places[2]
  return Example(
    " ".join(told),
    f"Is the {things[0]} in the {places[0] if label else wrong}?",
    label,
    f"The {things[0]} is in the {places[0]}.",
    (f"Where is the {things[0]}?", f"In the {places[0]}."),
  )


def isa(rng: random.Random, world: World, level: int) -> Example:
  """Is a thing of a category? From level 2 on, somebody has the thing."""
  thing = rng.choice(world.things)
  category = words.CATEGORY_OF[thing]
  label = _coin(rng)
  asked = (
    category if label else _another(rng, tuple(words.CATEGORIES), category)
  )
  a_thing, a_category, asked = map(words.with_article, (thing, category, asked))
  if level > 1:
    person = rng.choice(world.people)
    return Example(
      f"{person} has {a_thing}.",
      f"Does {person} have {asked}?",
      label,
      f"{person} has {a_category}.",
      (f"What has {person}?", sentence(a_category)),
    )
  return Example(
    "",
    f"Is {a_thing} {asked}?",
    label,
    sentence(f"{a_thing} is {a_category}"),
    (f"What is {a_thing}?", sentence(a_category)),
  )


def _another(rng, members, member):
  while True:
    other = rng.choice(members)
    if other != member:
      return other


def entailment(
  rng: random.Random, world: World, level: int, domain: str = "household"
) -> Example:
  """Does the hypothesis follow from a premise of one or two sentences?

  Level 1 keeps the wording, level 2 changes voice and verb or asks for what
  follows ("Tom has the lemon", "… a fruit"), level 3 has two sentences.
  """
  event, *others = happenings(rng, world, 2 if level > 2 else 1, domain)
  label = _coin(rng)
  wording, synonym = rng.randrange(4), rng.randrange(2)
  premise = [tell(event, wording, synonym)]
  premise += [tell(o, rng.randrange(4), rng.randrange(2)) for o in others]
  rng.shuffle(premise)
  seen = event if label else corrupt(event, rng, world, tuple(others))
  if level > 1:
    wording, synonym = rng.randrange(4), rng.randrange(2)
  hypothesis = tell(seen, wording, synonym)
  if level > 1 and _coin(rng, 0.4):
    consequence = _consequence(rng, world, event, others, label)
    hypothesis = consequence or hypothesis
  return Example(
    " ".join(premise),
    hypothesis,
    label,
    tell(event, wording, synonym),
    seek(event, rng),
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
    category = _another(rng, tuple(words.CATEGORIES), category)
  broad = dataclasses.replace(event, object=words.with_article(category))
  return tell(broad, 0, rng.randrange(2))


def paraphrase(
  rng: random.Random, world: World, level: int, domain: str = "household"
) -> Example:
  """Do two sentences tell the same?

  Level 1 keeps the wording, level 2 changes voice and verb, level 3 has a
  second event in one text that the other text may borrow words from.
  """
  event = happenings(rng, world, 1, domain)[0]
  label = _coin(rng)
  seen = event if label else corrupt(event, rng, world)
  wording, synonym = rng.randrange(4), rng.randrange(2)
  first = tell(event, wording, synonym)
  if level > 1:
    wording, synonym = rng.randrange(4), rng.randrange(2)
  second = tell(seen, wording, synonym)
  if _coin(rng):
    first, second = second, first
  return Example(first, second, label, "", seek(event, rng))


def same_question(rng: random.Random, world: World, level: int) -> Example:
  """Do two questions about the market ask the same?"""
  event = happenings(rng, world, 1, "market")[0]
  label = _coin(rng)
  ways = rng.sample(("", "Why", "How"), 2)
  asked, ways = event, ways if not label and _coin(rng, 0.2) else ways[:1] * 2
  if not label and ways[0] == ways[1]:
    asked = corrupt(event, rng, world)
  wording, synonym = rng.randrange(4), rng.randrange(2)
  first = ask(event, wording, synonym, ways[0])
  if level > 1:
    wording, synonym = rng.randrange(4), rng.randrange(2)
  second = ask(asked, wording, synonym, ways[1])
  return Example(first, second, label, "", seek(event, rng))


def wic(rng: random.Random, world: World, level: int) -> Example:
  """Does a word have the same sense in two sentences?"""
  del level
  word = rng.choice(world.ambiguous)
  label = _coin(rng)
  one, two = rng.sample(senses.AMBIGUOUS[word], 2)
  if label:
    first, second = rng.sample(senses.SENSE_SENTENCES[one], 2)
  else:
    first = rng.choice(senses.SENSE_SENTENCES[one])
    second = rng.choice(senses.SENSE_SENTENCES[two])
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
  label = _coin(rng)
  turned = level > 1 and _coin(rng, 0.2)
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
  many, label = _coin(rng), _coin(rng)
  noun = words.plural(job) if many else job
  fault = (
    "" if label else rng.choice(("ending", "ending", "noun", "verb", "in"))
  )
  plain = base if many != (fault == "ending") else singular
  where = f"the {place} in" if fault == "in" else f"in the {place}"
  if fault != "ending" and _coin(rng):
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
  label = _coin(rng)
  choices = (pair[asked], other[asked])
  return Example(
    pair[1 - asked],
    "",
    label,
    pair[asked],
    word=("cause", "effect")[asked],
    choices=choices if label else choices[::-1],
  )
