"""The skills of looking something up: a passage of facts, a question on one.

Anna is in the hall. The lemon is in the box.  Is the lemon in the bag?  no
"""

import random

from prompt_tuning.tasks.microworld import events, words
from prompt_tuning.tasks.microworld.events import World, sentence, the
from prompt_tuning.tasks.microworld.skills import Example, coin

# Facts: kind -> class of the subject | class of the value | telling | asking |
# seeking | short answer.
FACTS = {
  "in": "things|containers|{s} is in {v}|is {s} in {v}|where is {s}|in {v}",
  "at": "people|places|{s} is in {v}|is {s} in {v}|where is {s}|in {v}",
  "has": "people|things|{s} has {v}|does {s} have {v}|who has {v}|{s}",
  "job": "people|jobs|{s} is {v}|is {s} {v}|what is {s}|{v}",
  "colour": "things|colours|{s} is {v}|is {s} {v}|what colour is {s}|{v}",
}


def _value(noun, kind):
  if kind == "job":
    return words.with_article(noun)
  return noun if kind == "colour" else the(noun)


def _pool(world, name):
  return words.COLOURS if name == "colours" else getattr(world, name)


def question(rng: random.Random, world: World, level: int) -> Example:
  """A passage of `level` facts or events, and a yes/no question on one."""
  if coin(rng, 0.35):
    return _event_question(rng, world, level)
  kind = rng.choice(tuple(FACTS))
  subjects, values, telling, asking, seeking, short = FACTS[kind].split("|")
  subjects = rng.sample(_pool(world, subjects), level)
  values = rng.sample(_pool(world, values), level + 1)
  values = [_value(value, kind) for value in values]
  told = [
    {"s": the(subject), "v": value}
    for subject, value in zip(subjects, values[:level], strict=True)
  ]
  fact = told[0]
  label = coin(rng)
  wrong = values[1] if coin(rng, 0.85) else values[-1]
  asked = fact if label else {"s": fact["s"], "v": wrong}
  rng.shuffle(told)
  return Example(
    " ".join(sentence(telling.format(**fact)) for fact in told),
    sentence(asking.format(**asked), "?"),
    label,
    sentence(telling.format(**fact)),
    (sentence(seeking.format(**fact), "?"), sentence(short.format(**fact))),
  )


def _event_question(rng, world, level):
  event, *others = events.happenings(rng, world, min(level, 2))
  label = coin(rng)
  asked = event if label else events.corrupt(event, rng, world, tuple(others))
  wording, synonym = events.draw_way(rng)
  other_wording = wording if level == 1 else rng.randrange(4)
  told = [events.tell(event, wording, synonym)]
  told += [events.tell(other, *events.draw_way(rng)) for other in others]
  rng.shuffle(told)
  return Example(
    " ".join(told),
    events.ask(asked, other_wording, synonym),
    label,
    events.tell(event, other_wording, synonym),
    events.seek(event, rng),
  )


def twofact(rng: random.Random, world: World, level: int) -> Example:
  """Somebody has a thing and is at a place: is the thing at that place?

  Level 1 tells one holder and place, level 2 two places, level 3 two holders.
  """
  things = rng.sample(world.things, 2)
  places = rng.sample(world.places, 3)
  if coin(rng):
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
  label = coin(rng)
  wrong = places[1] if level > 1 and coin(rng, 0.9) else places[2]
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
  label = coin(rng)
  asked = (
    category
    if label
    else events.another(rng, tuple(words.CATEGORIES), category)
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
