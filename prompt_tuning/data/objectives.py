"""Pre-training objectives on token sequences.

    text              a b c d e f
    span corruption   a <0> d <1>  ->  <0> b c <1> e f
    prefix LM         a b          ->  c d e f
    token deletion    a c d f      ->  a b c d e f
    text infilling    a <0> d <0>  ->  a b c d e f

All end inputs and targets with EOS. Randomness comes from a numpy generator,
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
    if len(tokens) < 2:
      return [*tokens, EOS], [EOS]
    is_hidden = _hidden_spans(self, len(tokens), rng)
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
class TokenDeletion:
  """The whole text is to be restored from what is left of it.

  Unlike under a sentinel, nothing shows where a token is missing (BART, Lewis
  et al. 2020).

  Attributes:
    noise_density: the part of the tokens that is deleted, each as likely.
  """

  noise_density: float = 0.15

  def __post_init__(self):
    _check_density(self)

  def __call__(
    self, tokens: Sequence[int], rng: np.random.Generator, sentinel=None
  ) -> Pair:
    """(inputs, targets) of one text."""
    deleted: set[int] = set()
    if len(tokens) > 1:
      noise = _num_hidden(self, len(tokens))
      deleted = {*rng.choice(len(tokens), noise, replace=False).tolist()}
    left = [token for i, token in enumerate(tokens) if i not in deleted]
    return [*left, EOS], [*tokens, EOS]


@dataclasses.dataclass(frozen=True)
class TextInfilling:
  """The whole text is to be restored, where a sentinel stands for each span.

  It is `<0>` for all of them, so how many there are and how long is not shown
  (BART, where 30 % of the tokens are hidden). The spans are those of
  `SpanCorruption`, none of them empty.

  Attributes:
    noise_density: the part of the tokens that is hidden.
    mean_span_length: of the hidden spans.
    random_roll: as of `SpanCorruption`.
  """

  noise_density: float = 0.15
  mean_span_length: float = 3.0
  random_roll: bool = False

  def __post_init__(self):
    _check_density(self)

  def __call__(
    self, tokens: Sequence[int], rng: np.random.Generator, sentinel
  ) -> Pair:
    """(inputs, targets) of one text; `sentinel(i)` is the id of `<i>`."""
    if len(tokens) < 2:
      return [*tokens, EOS], [*tokens, EOS]
    is_hidden = _hidden_spans(self, len(tokens), rng)
    inputs = []
    for i, token in enumerate(tokens):
      if not is_hidden[i]:
        inputs.append(token)
      elif i == 0 or not is_hidden[i - 1]:
        inputs.append(sentinel(0))
    return [*inputs, EOS], [*tokens, EOS]


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


def longest_text(objective, lengths: tuple[int, int]) -> int:
  """Tokens of the longest text whose example fits into (T, L).

  T where inputs and targets share the text; where the target is all of it, EOS
  needs a place as well.
  """
  parts = [objective]
  if isinstance(objective, Mixture):
    parts = [part for part, _ in objective.parts]
  if any(isinstance(part, TokenDeletion | TextInfilling) for part in parts):
    return max(min(lengths) - 1, 1)
  return lengths[0]


def _check_density(objective) -> None:
  if not 0 < objective.noise_density < 1:
    name = type(objective).__name__
    raise ValueError(
      f"{name}.noise_density={objective.noise_density}; give the part of the "
      "tokens that is to be restored, a number between 0 and 1."
    )


def _num_hidden(objective, length: int) -> int:
  """Of so many tokens, one at least and all but one at most."""
  return min(max(round(length * objective.noise_density), 1), length - 1)


def _hidden_spans(
  objective, length: int, rng: np.random.Generator
) -> np.ndarray:
  """Which of two or more tokens are hidden, in spans apart from each other."""
  noise = _num_hidden(objective, length)
  spans = max(round(noise / objective.mean_span_length), 1)
  spans = min(spans, length - noise)
  hidden = _partition(noise, spans, rng)
  shown = _partition(length - noise, spans, rng)
  lengths = np.stack([shown, hidden], axis=1).ravel()
  is_hidden = np.repeat(np.arange(2 * spans) % 2 == 1, lengths)
  if objective.random_roll:
    is_hidden = np.roll(is_hidden, rng.integers(length))
  return is_hidden


def _partition(total: int, parts: int, rng: np.random.Generator) -> list[int]:
  """`parts` positive numbers of sum `total`, all ways equally likely."""
  cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
  return np.diff([0, *cuts.tolist(), total]).tolist()
