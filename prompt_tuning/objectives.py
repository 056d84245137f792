"""Pre-training objectives on token sequences: span corruption and prefix LM.

    text              a b c d e f
    span corruption   a <0> d <1>  ->  <0> b c <1> e f
    prefix LM         a b          ->  c d e f

Both end inputs and targets with EOS. Randomness comes from a numpy generator,
so an example is a function of the text and the seed.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from prompt_tuning.vocabulary import EOS

Pair = tuple[list[int], list[int]]


@dataclasses.dataclass(frozen=True)
class SpanCorruption:
  """T5's objective: spans of the text are to be restored.

  Attributes:
    noise_density: the part of the tokens that is hidden.
    mean_span_length: of the hidden spans.
  """

  noise_density: float = 0.15
  mean_span_length: float = 3.0

  def __call__(
    self, tokens: Sequence[int], rng: np.random.Generator, sentinel
  ) -> Pair:
    """(inputs, targets) of one text; `sentinel(i)` is the id of `<i>`."""
    length = len(tokens)
    noise = min(max(round(length * self.noise_density), 1), length - 1)
    if length < 2:
      return [*tokens, EOS], [EOS]
    spans = max(round(noise / self.mean_span_length), 1)
    spans = min(spans, length - noise)
    hidden = _partition(noise, spans, rng)
    shown = _partition(length - noise, spans, rng)
    inputs, targets, at = [], [], 0
    for i in range(spans):
      inputs += [*tokens[at : at + shown[i]], sentinel(i)]
      at += shown[i]
      targets += [sentinel(i), *tokens[at : at + hidden[i]]]
      at += hidden[i]
    return [*inputs, EOS], [*targets, EOS]


@dataclasses.dataclass(frozen=True)
class PrefixLM:
  """LM adaptation: the rest of a text from its beginning.

  The place of the split is uniform in [1, length - 1]. With
  `sentence_rate` above 0 that part of the examples is split in front of the
  last sentence instead, where `sentence_ends` (ids of '.', '?', …) tell.
  """

  sentence_rate: float = 0.0
  sentence_ends: tuple[int, ...] = ()

  def __call__(
    self, tokens: Sequence[int], rng: np.random.Generator, sentinel=None
  ) -> Pair:
    """(inputs, targets) of one text."""
    tokens = list(tokens)
    if len(tokens) < 2:
      return [EOS], [*tokens, EOS]
    at = int(rng.integers(1, len(tokens)))
    if self.sentence_rate and rng.random() < self.sentence_rate:
      ends = [
        i + 1 for i, t in enumerate(tokens[:-1]) if t in self.sentence_ends
      ]
      at = ends[-1] if ends else at
    return [*tokens[:at], EOS], [*tokens[at:], EOS]


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A choice among objectives for each example.

  Attributes:
    parts: (objective, rate) pairs; rates need not add up to 1.
  """

  parts: tuple[tuple, ...]

  def __call__(
    self, tokens: Sequence[int], rng: np.random.Generator, sentinel
  ) -> Pair:
    """(inputs, targets) of one text by an objective drawn by its rate."""
    rates = np.array([rate for _, rate in self.parts], float)
    index = rng.choice(len(self.parts), p=rates / rates.sum())
    return self.parts[index][0](tokens, rng, sentinel)


def _partition(total: int, parts: int, rng: np.random.Generator) -> list[int]:
  """`parts` positive numbers of sum `total`, all ways equally likely."""
  cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
  return np.diff([0, *cuts.tolist(), total]).tolist()
