"""Ambiguous words with their two senses, and causes with their effects.

A sense is known by its company: each kind of sense has sentences that fit
every word used in that sense. In `{n}` goes a person, in `{w}` the word.
"""

SENSE_SENTENCES = {
  "animal": (
    "{n} fed the {w}.",
    "The {w} slept near its nest.",
    "A wild {w} ran from the hunter.",
    "The hungry {w} ate a worm.",
    "{n} heard the {w} breathe.",
  ),
  "tool": (
    "{n} fastened it with the {w}.",
    "The {w} was made of steel.",
    "{n} oiled the rusty {w}.",
    "{n} kept the {w} beside the spanner.",
    "The workman used the {w}.",
  ),
  "place": (
    "{n} walked to the {w} at noon.",
    "The {w} opens at nine.",
    "Many people stood outside the {w}.",
    "{n} lives opposite the {w}.",
    "The road leads to the {w}.",
  ),
  "body": (
    "{n} hurt his {w} badly.",
    "The doctor examined her {w}.",
    "{n} felt pain in the {w}.",
    "The nurse bandaged the {w}.",
    "His {w} was swollen.",
  ),
  "paper": (
    "{n} signed the {w} in ink.",
    "The clerk read the {w} aloud.",
    "{n} printed the {w} twice.",
    "The {w} had two pages.",
    "{n} wrote the {w} neatly.",
  ),
  "person": (
    "The {w} spoke to {n} politely.",
    "{n} married the {w}.",
    "The old {w} told a joke.",
    "The {w} was born in Spain.",
    "{n} thanked the {w} for his advice.",
  ),
  "sound": (
    "{n} heard a loud {w}.",
    "The {w} echoed all night.",
    "A sudden {w} broke the silence.",
    "The {w} was too noisy.",
    "{n} was woken by the {w}.",
  ),
  "sport": (
    "{n} won the {w} by a goal.",
    "The {w} ended in overtime.",
    "The fans cheered during the {w}.",
    "{n} trained hard for the {w}.",
    "Both teams lost the {w}.",
  ),
  "food": (
    "{n} ate the {w} with a spoon.",
    "The {w} tasted sweet.",
    "{n} spread butter on the {w}.",
    "The cook served the {w} warm.",
    "{n} swallowed the {w}.",
  ),
  "plant": (
    "The {w} grew in the soil.",
    "{n} watered the {w}.",
    "The {w} has green leaves.",
    "The {w} blossomed early.",
    "{n} planted the {w} in autumn.",
  ),
  "clothes": (
    "{n} wore the {w} to the ball.",
    "The {w} was too tight.",
    "{n} washed and ironed the {w}.",
    "The {w} matched her shoes.",
    "{n} sewed a button on the {w}.",
  ),
  "water": (
    "The boat drifted along the {w}.",
    "{n} fished beside the {w}.",
    "The {w} was deep and cold.",
    "The {w} flooded after the rain.",
    "{n} rowed across the {w}.",
  ),
}

# word: its two senses
AMBIGUOUS = {
  entry.split()[0]: tuple(entry.split()[1:])
  for entry in (
    "bat animal tool, bank place water, bark plant sound, crane animal tool, "
    "seal animal paper, pitcher person food, palm plant body, nail tool body, "
    "spring water tool, ring clothes sound, match sport tool, "
    "date food paper, club place tool, organ body sound, "
    "horn body sound, drill tool sport, file tool paper, note paper sound, "
    "pen tool place, pupil person body, plane tool place, ruler person tool, "
    "jam food sound, bow clothes tool, bass animal sound, sole animal clothes, "
    "perch animal place, cricket animal sport, crown clothes body, "
    "mint plant place, iron tool clothes, mole animal body, duck animal food, "
    "cape clothes place, tie clothes sport, pipe tool sound, bulb plant tool, "
    "cell place body, court place sport, key tool sound, lock tool water, "
    "press tool person, pool water sport, port place food, race sport person, "
    "racket tool sound, scale body tool, stamp paper tool, "
    "star person plant, toast food sound, tip paper body, bill animal paper, "
    "root plant body, chest body tool, trunk plant clothes, calf animal body, "
    "hood clothes person, draft paper sound, "
    "turkey animal food, squash food sport, column paper place, "
    "current water person, bolt tool sound, chip food tool, stool tool plant, "
    "fan person tool, poker sport tool, mouth body water, hand body person, "
    "vessel water body, model person paper, pad paper animal"
  ).split(", ")
}

# What happened, and what came of it.
CAUSES = tuple(
  tuple(entry.split(" / "))
  for entry in (
    "{n} dropped the mirror. / The mirror shattered.",
    "{n} skipped lunch. / {n} became hungry.",
    "{n} overslept. / {n} missed the bus.",
    "{n} forgot the umbrella. / {n} got wet.",
    "{n} studied all week. / {n} passed the exam.",
    "{n} ran ten miles. / {n} became tired.",
    "{n} told a joke. / Everybody laughed.",
    "{n} watered the seeds. / The seeds sprouted.",
    "{n} touched the stove. / {n} burned a finger.",
    "{n} heard sad news. / {n} cried.",
    "{n} drove too fast. / The police stopped {n}.",
    "{n} left the window open. / The room became cold.",
    "{n} ate too many sweets. / {n} had a toothache.",
    "{n} lit a candle. / The dark hall brightened.",
    "{n} struck the bell. / The bell rang.",
    "{n} kicked the ball. / The ball flew away.",
    "{n} teased the bear. / The bear growled.",
    "{n} pulled the plug. / The lamp went out.",
    "{n} boiled the kettle. / Steam rose.",
    "{n} slipped on the ice. / {n} broke a leg.",
    "{n} saved every coin. / {n} grew rich.",
    "{n} stayed in the sun. / {n} got sunburned.",
    "{n} caught a cold. / {n} sneezed.",
    "{n} dialled the number. / The telephone rang.",
    "{n} baked bread. / The house smelled nice.",
    "{n} cut the rope. / The swing fell.",
    "{n} pricked the bubble. / The bubble burst.",
    "{n} melted the snowman. / A puddle appeared.",
    "{n} practised daily. / {n} became a champion.",
    "{n} robbed a bank. / {n} went to jail.",
    "{n} tore the sleeve. / {n} needed a needle.",
    "{n} cheated in class. / The headmaster punished {n}.",
    "{n} rescued a child. / {n} received a medal.",
    "{n} drank poison. / {n} fell ill.",
    "{n} lost the keys. / {n} could not get in.",
    "{n} trained the parrot. / The parrot talked.",
    "{n} rocked the cradle. / The baby fell asleep.",
    "{n} forgot the cheese. / The cheese went mouldy.",
    "{n} threw a stone. / The windowpane cracked.",
    "{n} pushed the cart. / The cart rolled off.",
    "{n} opened the cage. / The finch flew off.",
    "{n} chopped the oak. / The oak came down.",
    "{n} spilled the ink. / The carpet was stained.",
    "{n} pumped the tyre. / The tyre filled up.",
    "{n} invented a machine. / {n} became famous.",
    "{n} wound the clock. / The clock ticked.",
    "{n} lent out money. / {n} was owed a debt.",
    "{n} climbed the peak. / {n} saw the valley below.",
    "{n} sharpened the blade. / The blade cut well.",
    "{n} shook the branch. / Acorns dropped.",
  )
)
