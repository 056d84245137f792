"""The lexicon of the microworld: who and what there is, and what is done.

Open classes (people, things, places, opinion words …) are the *contents*
that the tasks split by; closed classes (verbs, colours, months) are shared by
all splits. `senses` holds the ambiguous words and the causes.
"""

import dataclasses

PEOPLE = tuple(
  """Tom Anna Ben Clara Paul Emma Jack Lucy Peter Maria Sam Julia Adam Nora
  Felix Laura Oscar Helen Victor Alice Simon Ruth Martin Eva David Sarah Leo
  Irene Hugo Diana Frank Grace Henry Flora Ivan Stella Karl Vera Louis Ida
  Max Olga Noah Tina Omar Wendy Philip Zoe Robert Amy Steven Carol Thomas
  Donna Walter Edith Albert Gloria Bruno Hanna Carlos Isabel Daniel Jenny
  Edgar Karen Fred Linda George Monica Harold Nancy Isaac Olivia James Paula
  Kevin Rachel Lukas Sandra Marcus Teresa Nathan Ursula Patrick Violet Ralph
  Yvonne Rudolf Agnes Stefan Bella Tobias Cecil Vincent Doris William Elsa
  Xavier Fiona Arthur Gina Boris Heidi Conrad Iris Dennis Judith Ernest Kate
  Gilbert Lily Herman Mabel""".split()
)

# A thing belongs to one category.
CATEGORIES = {
  name: tuple(members.split())
  for name, members in {
    "fruit": "lemon apple pear cherry grape peach mango banana melon apricot "
    "kiwi plum papaya coconut raspberry pineapple",
    "vegetable": "carrot onion potato cabbage leek turnip spinach radish "
    "celery pumpkin cucumber garlic lettuce tomato pea artichoke",
    "drink": "tea coffee milk juice lemonade cider cocoa beer wine soda "
    "brandy syrup whisky smoothie",
    "dessert": "cake pudding waffle pancake muffin cookie brownie doughnut "
    "pie tart trifle sorbet custard fudge",
    "bird": "sparrow eagle owl pigeon raven parrot robin stork falcon swan "
    "penguin heron pelican magpie",
    "fish": "salmon trout herring tuna carp eel shark mackerel sardine cod "
    "haddock catfish",
    "insect": "bee wasp ant beetle moth butterfly mosquito grasshopper "
    "ladybird termite dragonfly flea",
    "pet": "dog cat rabbit hamster kitten puppy gerbil tortoise goldfish "
    "canary poodle lizard",
    "tool": "hammer saw pliers wrench screwdriver chisel spade rake axe "
    "shovel sickle ladder crowbar trowel",
    "vehicle": "car bus lorry tractor bicycle tram van scooter motorbike "
    "truck taxi wagon",
    "garment": "coat shirt dress skirt jacket scarf sweater glove sock hat "
    "blouse apron vest cardigan",
    "instrument": "piano violin flute guitar drum trumpet cello harp oboe "
    "clarinet banjo trombone tuba accordion",
    "toy": "doll puzzle kite balloon yoyo marble teddy puppet whistle "
    "skateboard rattle dice",
    "jewel": "necklace bracelet brooch earring pendant ruby emerald pearl "
    "sapphire opal locket tiara",
    "flower": "rose tulip daisy lilac orchid poppy sunflower daffodil "
    "marigold lavender carnation peony",
    "dish": "soup stew pizza omelette curry lasagna salad risotto noodle "
    "sandwich dumpling burger pasta sausage",
    "weapon": "sword dagger spear rifle pistol cannon lance crossbow catapult "
    "musket harpoon cutlass",
    "reading": "novel atlas diary dictionary magazine newspaper comic "
    "cookbook brochure manual poem almanac",
  }.items()
}
THINGS = tuple(word for members in CATEGORIES.values() for word in members)
CATEGORY_OF = {
  word: name for name, members in CATEGORIES.items() for word in members
}

CONTAINERS = tuple(
  """box bag basket drawer bucket jar crate sack barrel bowl tin suitcase
  cupboard wardrobe backpack bin hutch envelope purse pocket tray crib tub
  carton locker hamper pouch satchel casket vase""".split()
)
PLACES = tuple(
  """kitchen garden cellar attic bedroom bathroom garage hall library school
  office shop market station church castle museum theatre hospital bakery
  factory farm barn stable forest park harbour airport hotel restaurant cafe
  prison tower palace studio pharmacy gym stadium temple cottage cinema mill
  tunnel valley village meadow orchard vineyard laundry bookshop""".split()
)
JOBS = tuple(
  """baker doctor teacher farmer lawyer painter singer sailor soldier nurse
  tailor butcher plumber pilot dentist gardener waiter librarian carpenter
  engineer journalist judge mechanic miner musician optician poet porter
  priest professor sculptor secretary surgeon tutor vet writer actor barber
  chemist dancer""".split()
)
FIRMS = tuple(
  """Orion Vega Delta Apex Zenith Nova Titan Atlas Boreal Cobalt Condor
  Corona Cygnus Drako Ember Fortis Galaxo Helios Icarus Jupiter Kestrel Lumen
  Magna Nimbus Octavo Pallas Quantum Regal Sirius Tellus Umbra Vulcan Westra
  Xenon Yotta Zephyr Altair Borealis Castor Dynamo""".split()
)
GOODS = tuple(
  """copper wheat steel cotton sugar rubber timber coal silver gold oil corn
  wool cement paper glass leather salt rice silk tobacco plastic zinc nickel
  lead aluminium lithium barley soy uranium""".split()
)

COLOURS = tuple(
  """red blue green yellow brown black white pink purple grey orange
  golden""".split()
)
MONTHS = tuple(
  """January February March April May June July August September October
  November December""".split()
)


@dataclasses.dataclass(frozen=True)
class Verb:
  """A verb: to *buy*, they *bought* it, it was *bought*."""

  base: str
  past: str
  participle: str


def _verbs(text):
  """One group of synonyms: `base past [participle]` between commas."""
  forms = [entry.split() for entry in text.split(",")]
  return tuple(Verb(f[0], f[1], f[-1]) for f in forms)


def _opposites(*pairs):
  return tuple((_verbs(first), _verbs(second)) for first, second in pairs)


GIVE = _verbs("give gave given, hand handed, pass passed, send sent")
GET = _verbs("get got, receive received")
PUT = _verbs("put put, place placed, leave left")

# Pairs of groups: synonyms within a group, opposites across.
THING_VERBS = _opposites(
  ("buy bought, purchase purchased", "sell sold, auction auctioned"),
  ("find found, discover discovered", "lose lost, misplace misplaced"),
  ("break broke broken, damage damaged", "repair repaired, fix fixed"),
  ("like liked, enjoy enjoyed", "hate hated, detest detested"),
  ("want wanted, desire desired", "refuse refused, reject rejected"),
  ("hide hid hidden, cover covered", "show showed shown, display displayed"),
)
PEOPLE_VERBS = _opposites(
  ("help helped, assist assisted", "hinder hindered, obstruct obstructed"),
  ("praise praised, admire admired", "blame blamed, scold scolded"),
  ("call called, phone phoned", "ignore ignored, avoid avoided"),
  ("capture captured, arrest arrested", "release released, free freed"),
  ("trust trusted, believe believed", "doubt doubted, suspect suspected"),
  ("invite invited, welcome welcomed", "dismiss dismissed, expel expelled"),
)
FIRM_VERBS = _opposites(
  (
    "acquire acquired, absorb absorbed",
    "divest divested, relinquish relinquished",
  ),
  ("support supported, back backed", "sue sued, prosecute prosecuted"),
  ("pay paid, reward rewarded", "charge charged, bill billed"),
)
GOODS_VERBS = _opposites(
  ("export exported, ship shipped", "import imported, order ordered"),
  ("produce produced, make made", "consume consumed, use used"),
)
STAFF_VERBS = _opposites(
  ("hire hired, employ employed", "fire fired, sack sacked"),
  (
    "promote promoted, advance advanced",
    "demote demoted, downgrade downgraded",
  ),
)

POSITIVE = tuple(
  """brilliant charming delightful excellent fantastic gorgeous great lovely
  magnificent marvellous perfect pleasant splendid superb terrific wonderful
  amazing awesome beautiful clever enjoyable exciting fabulous fine funny
  glorious graceful impressive inspiring memorable moving outstanding
  refreshing remarkable stunning sublime thrilling touching witty admirable
  captivating elegant exquisite flawless heavenly joyful masterful
  spectacular stellar tasteful""".split()
)
NEGATIVE = tuple(
  """awful boring clumsy disappointing dreadful dull horrible lousy mediocre
  miserable poor terrible tedious ugly unpleasant weak worthless annoying
  appalling atrocious bland careless cheap confusing crude depressing
  disgusting dismal embarrassing exhausting forgettable grim hideous
  irritating lame messy monotonous nasty pathetic pointless predictable
  repulsive ridiculous rotten shabby shallow sloppy stupid tiresome
  unbearable""".split()
)
REVIEWED = tuple(
  """film plot acting cast director ending dialogue music script scene meal
  service food menu room view staff host breakfast lunch dinner show concert
  song album band play story book author chapter trip tour guide hike beach
  exhibition picture lecture speaker""".split()
)

# base, third person, past
INTRANSITIVE = tuple(
  tuple(entry.split())
  for entry in (
    "sleep sleeps slept, sing sings sang, laugh laughs laughed, "
    "wait waits waited, work works worked, run runs ran, "
    "smile smiles smiled, dance dances danced, listen listens listened, "
    "rest rests rested, shout shouts shouted, swim swims swam, "
    "travel travels travelled, argue argues argued"
  ).split(", ")
)


def plural(noun: str) -> str:
  """The plural of a regular noun: baker, bakers; secretary, secretaries."""
  return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"


def with_article(noun: str) -> str:
  """The noun behind "a" or "an"."""
  return ("an " if noun[0] in "aeiou" else "a ") + noun
