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
single words give nothing away. Level 1 is short, level 3 is the hardest. Here
is what all of them make; the first three are in `passages`, the others in
`sentences`.
"""

import dataclasses
import random


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


def coin(rng: random.Random, chance: float = 0.5) -> bool:
  """True with a chance, half the time by default."""
  return rng.random() < chance
