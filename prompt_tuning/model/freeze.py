"""One mask: which leaves of the parameter tree train, all others are frozen.

    params --mask--> trained (holes where frozen) + frozen (holes where trained)

The mask comes from regexes over parameter paths. A hole is optax's MaskedNode,
which is no leaf: gradients, optimizer state, updates and checkpoints of the
trained part cover the trained leaves and nothing else.
"""

from collections.abc import Sequence
import re

import jax
import optax

from prompt_tuning import storage
from prompt_tuning.shapes import PyTree

PROMPT = (r"(.*/)?prompt/.*",)
"""Prompt tuning: only the prompt trains."""

EVERYTHING_ELSE = (r"(?!(.*/)?prompt/).*",)
"""Model tuning: all of the network trains, a prompt (if any) does not."""

_HOLE = optax.MaskedNode()


def mask(params: PyTree, trainable: Sequence[str]) -> PyTree:
  """A tree of booleans: True where a path fully matches one of `trainable`.

  Raises:
    ValueError: a pattern matches no path; the message lists the paths.
  """
  if isinstance(trainable, str):
    raise ValueError(
      f"TRAINABLE={trainable!r} is no list of patterns. Write "
      f"TRAINABLE=({trainable!r},)."
    )
  paths = list(storage.flatten(params))
  patterns = [_compiled(pattern) for pattern in trainable]
  if not patterns:
    raise ValueError(
      "TRAINABLE is empty, so nothing would train. Give regular expressions of "
      f"parameter paths, for example {PROMPT!r}."
    )
  for pattern in patterns:
    if not any(pattern.fullmatch(path) for path in paths):
      listing = "\n  ".join(paths)
      raise ValueError(
        f"The pattern {pattern.pattern!r} of the trainable parameters matches "
        f"none of the {len(paths)} parameter paths. Write a regular "
        f"expression for a whole path; the paths are:\n  {listing}"
      )
  return storage.unflatten(
    {p: any(pattern.fullmatch(p) for pattern in patterns) for p in paths}
  )


def _compiled(pattern: str) -> re.Pattern:
  try:
    return re.compile(pattern)
  except (re.error, TypeError) as error:
    raise ValueError(
      f"TRAINABLE has {pattern!r}, which is no regular expression ({error})."
    ) from error


def split(params: PyTree, trains: PyTree) -> tuple[PyTree, PyTree]:
  """The trained and the frozen part of `params`, with holes for each other."""
  trained = jax.tree.map(lambda p, m: p if m else _HOLE, params, trains)
  frozen = jax.tree.map(lambda p, m: _HOLE if m else p, params, trains)
  return trained, frozen


def merge(trained: PyTree, frozen: PyTree) -> PyTree:
  """The whole tree again; the inverse of `split`."""

  def is_hole(node):
    return isinstance(node, optax.MaskedNode)

  return jax.tree.map(
    lambda t, f: f if is_hole(t) else t, trained, frozen, is_leaf=is_hole
  )


def count(tree: PyTree) -> int:
  """How many numbers the leaves of a tree hold."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
