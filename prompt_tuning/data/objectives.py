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
    random_roll: turn the hidden places by a random number of tokens. Without
      it a text begins with a shown token and ends with a hidden one, as in T5;
      in a text so short that it has one span, that would always be its end.
  """

  noise_density: float = 0.15
  mean_span_length: float = 3.0
  random_roll: bool = False

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
    lengths = np.stack([shown, hidden], axis=1).ravel()
    is_hidden = np.repeat(np.arange(2 * spans) % 2 == 1, lengths)
    if self.random_roll:
      is_hidden = np.roll(is_hidden, rng.integers(length))
    inputs, targets, spans = [], [], 0
    for i, token in enumerate(tokens):
      if not is_hidden[i]:
        inputs.append(token)
        continue
      if i == 0 or not is_hidden[i - 1]:
        inputs.append(sentinel(spans))
        targets.append(sentinel(spans))
        spans += 1
      targets.append(token)
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
