"""What happens in the microworld, and the ways to say it.

An `Event` is one happening; `tell` says it in one of several wordings (active,
passive, the receiver's side, synonyms), `ask` asks whether it happened, and
`corrupt` gives a similar event that did not happen.
"""

from collections.abc import Sequence
import dataclasses
import random

from prompt_tuning.tasks.microworld import senses, words

DOMAINS = ("household", "market")


@dataclasses.dataclass(frozen=True)
class World:
  """The open classes that a text may draw from: all, or one split's part."""

  people: tuple = words.PEOPLE
  things: tuple = words.THINGS
  containers: tuple = words.CONTAINERS
  places: tuple = words.PLACES
  jobs: tuple = words.JOBS
  firms: tuple = words.FIRMS
  goods: tuple = words.GOODS
  positive: tuple = words.POSITIVE
  negative: tuple = words.NEGATIVE
  reviewed: tuple = words.REVIEWED
  ambiguous: tuple = tuple(senses.AMBIGUOUS)
  causes: tuple = senses.CAUSES

  def part(self, split: str) -> "World":
    """The members that only `split` may use: 3/5 train, 1/5 each other."""
    turns = {"train": (0, 1, 3), "validation": (2,), "test": (4,)}[split]
    return World(
      **{
        field.name: tuple(
          member
          for turn, member in enumerate(getattr(self, field.name))
          if turn % 5 in turns
        )
        for field in dataclasses.fields(self)
      }
    )


@dataclasses.dataclass(frozen=True)
class Event:
  """Somebody did something: noun phrases in their roles.

  Attributes:
    kind: "give" (agent, object, to), "put" (agent, object, to) or "act"
      (agent, object).
    verbs: the synonyms that say it.
    opposites: the synonyms that say the opposite; empty for give and put.
    time: an adjunct such as "in March", or "".
    classes: the world's class of agent, object and `to`.
  """

  kind: str
  verbs: tuple
  opposites: tuple
  agent: str
  object: str
  to: str = ""
  time: str = ""
  classes: tuple = ()


def the(noun: str) -> str:
  """The noun phrase of a noun: names stand without an article."""
  if noun[0].isupper() or noun in words.GOODS:
    return noun
  return "the " + noun


def household_event(rng: random.Random, world: World) -> Event:
  """People give, put and do things, to things and to each other."""
  kind = rng.choice(("give", "give", "put", "act", "act", "meet"))
  agent, other = rng.sample(world.people, 2)
  thing = the(rng.choice(world.things))
  if kind == "give":
    classes = ("people", "things", "people")
    return Event(kind, words.GIVE, (), agent, thing, other, "", classes)
  if kind == "put":
    classes = ("people", "things", "containers")
    container = the(rng.choice(world.containers))
    return Event(kind, words.PUT, (), agent, thing, container, "", classes)
  pairs, partner, classes = words.PEOPLE_VERBS, other, ("people", "people")
  if kind == "act":
    pairs, partner, classes = words.THING_VERBS, thing, ("people", "things")
  verbs, opposites = _pair(rng, pairs)
  return Event("act", verbs, opposites, agent, partner, classes=classes)


def market_event(rng: random.Random, world: World) -> Event:
  """Firms deal with firms, goods and staff, in some month."""
  firms, goods = (words.FIRM_VERBS, "firms"), (words.GOODS_VERBS, "goods")
  pairs, partner = rng.choice((firms, goods, (words.STAFF_VERBS, "jobs")))
  agent = rng.choice(world.firms)
  verbs, opposites = _pair(rng, pairs)
  return Event(
    "act",
    verbs,
    opposites,
    agent,
    the(another(rng, getattr(world, partner), agent)),
    time="in " + rng.choice(words.MONTHS) if rng.random() < 0.4 else "",
    classes=("firms", partner),
  )


def happening(rng: random.Random, world: World, domain: str) -> Event:
  """An event of a domain, one of `DOMAINS`."""
  make = household_event if domain == "household" else market_event
  return make(rng, world)


def _pair(rng, pairs):
  pair = rng.choice(pairs)
  return pair if rng.random() < 0.5 else pair[::-1]


def another(rng: random.Random, members: Sequence[str], member: str) -> str:
  """One of the members, but not this one."""
  while True:
    other = rng.choice(members)
    if other != member:
      return other


def happenings(
  rng: random.Random, world: World, count: int, domain: str = "household"
) -> list[Event]:
  """Events that share no noun."""
  events, seen = [], set()
  while len(events) < count:
    event = happening(rng, world, domain)
    nouns = {event.agent, event.object, event.to, event.time} - {""}
    if not nouns & seen:
      events.append(event)
      seen |= nouns
  return events


WORDINGS = {"give": 4, "put": 2, "act": 2}


def draw_way(rng: random.Random) -> tuple[int, int]:
  """A wording and a synonym of chance, for `tell` and `ask`."""
  return rng.randrange(4), rng.randrange(2)


def tell(event: Event, wording: int, synonym: int) -> str:
  """The event as a sentence; `wording` and `synonym` count modulo."""
  text = _clause(
    event,
    (wording, synonym),
    active=lambda noun, verb: f"{noun} {verb.past}",
    passive=lambda noun, verb: f"{noun} was {verb.participle}",
  )
  return sentence(f"{text} {event.time}")


def ask(event: Event, wording: int, synonym: int, why: str = "") -> str:
  """Did it happen? With `why` ("Why", "How" …), the question about it."""
  text = _clause(
    event,
    (wording, synonym),
    active=lambda noun, verb: f"did {noun} {verb.base}",
    passive=lambda noun, verb: f"was {noun} {verb.participle}",
  )
  return sentence(f"{why} {text} {event.time}", "?")


def _clause(event: Event, way: tuple[int, int], *, active, passive) -> str:
  """Who did what, in one of the wordings and with one of the verbs."""
  wording, synonym = way[0] % WORDINGS[event.kind], way[1]
  verb = event.verbs[synonym % len(event.verbs)]
  a, o, to = event.agent, event.object, event.to
  if event.kind == "give":
    get = words.GET[synonym % len(words.GET)]
    return (
      f"{active(a, verb)} {to} {o}",
      f"{active(a, verb)} {o} to {to}",
      f"{active(to, get)} {o} from {a}",
      f"{passive(o, verb)} to {to} by {a}",
    )[wording]
  where = f" in {to}" if event.kind == "put" else ""
  return (f"{active(a, verb)} {o}{where}", f"{passive(o, verb)}{where} by {a}")[
    wording
  ]


def seek(event: Event, rng: random.Random) -> tuple[str, str]:
  """A question after one of the event's roles, and its short answer."""
  verb = rng.choice(event.verbs)
  a, o, to = event.agent, event.object, event.to
  who = "whom" if event.classes[1] in ("people", "firms", "jobs") else "what"
  time = f" {event.time}" if event.time else ""
  questions = [(f"who {verb.past} {o}{time}", a)]
  if event.kind == "act":
    questions.append((f"{who} did {a} {verb.base}{time}", o))
  elif event.kind == "give":
    get = rng.choice(words.GET)
    questions = [
      (f"who {verb.past} {to} {o}", a),
      (f"who {get.past} {o} from {a}", to),
      (f"what did {to} {get.base} from {a}", o),
      (f"what did {a} {verb.base} to {to}", o),
    ]
  else:
    questions = [
      (f"who {verb.past} {o} in {to}", a),
      (f"where did {a} {verb.base} {o}", f"in {to}"),
      (f"what did {a} {verb.base} in {to}", o),
    ]
  question, answer = rng.choice(questions)
  return sentence(question, "?"), sentence(answer)


def corrupt(
  event: Event, rng: random.Random, world: World, others: tuple = ()
) -> Event:
  """A similar event: roles swapped, the opposite done, or one part replaced.

  The replacement comes from `others`, the events told beside this one, when
  one of them has a fitting part, so that all its words may stand in the text.
  """
  aspects = ["agent", "object"]
  if event.kind != "act":
    aspects.append("to")
  if event.opposites:
    aspects += ["verb", "verb"]
  if event.time:
    aspects.append("time")
  if event.classes[-1] == event.classes[0]:
    aspects += ["swap", "swap"]
  return corrupt_aspect(event, rng.choice(aspects), rng, world, others)


def corrupt_aspect(event, aspect, rng, world, others=()) -> Event:
  """The event with one aspect changed."""
  if aspect == "swap":
    partner = "to" if event.kind == "give" else "object"
    return dataclasses.replace(
      event, **{"agent": getattr(event, partner), partner: event.agent}
    )
  if aspect == "verb":
    return dataclasses.replace(
      event, verbs=event.opposites, opposites=event.verbs
    )
  if aspect == "time":
    month = another(rng, words.MONTHS, event.time[3:])
    return dataclasses.replace(event, time="in " + month)
  roles = (event.agent, event.object, event.to)
  kind = event.classes[("agent", "object", "to").index(aspect)]
  told = [
    phrase
    for other in others
    for role, phrase in zip(
      other.classes, (other.agent, other.object, other.to), strict=False
    )
    if role == kind and phrase not in roles
  ]
  if told and rng.random() < 0.8:
    return dataclasses.replace(event, **{aspect: rng.choice(told)})
  while True:
    phrase = the(rng.choice(getattr(world, kind)))
    if phrase not in roles:
      return dataclasses.replace(event, **{aspect: phrase})


def sentence(text: str, mark: str = ".") -> str:
  """Squeezes spaces, starts with a capital, ends with a mark."""
  text = " ".join(text.split())
  return text[0].upper() + text[1:] + mark


def inner(text: str) -> str:
  """A sentence as a clause: no mark, a small letter in front of a noun."""
  first, *rest = text[:-1].split(" ")
  if first in ("The", "A", "An", "It", "Everybody", "In", "His", "Both"):
    first = first.lower()
  return " ".join((first, *rest))
