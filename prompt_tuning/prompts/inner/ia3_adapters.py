"""The vectors of PEFT's IA3 adapters for a T5, by this project's names.

    behind q or k, [A, 1]               keys
    behind v [A, 1], before o [1, A]    values
    behind wi_1 [F, 1], before wo [1, F]    hidden

PEFT multiplies what comes out of a linear layer, or what goes into it where it
is of `feedforward_modules`; the shape says which. A factor of queries is one of
keys, for only their products count, and one of what goes into o is one of
values, which are summed into it. Where several fall together they multiply.
Anything else changes the network elsewhere, and is refused.
"""

from collections.abc import Mapping
import re

import numpy as np

from prompt_tuning.prompts.inner import tensors

_KEY = re.compile(
  r"base_model\.model\.(encoder|decoder)\.block\.(\d+)\.layer\.\d+\."
  r"(SelfAttention|EncDecAttention|DenseReluDense)\.(\w+)\.ia3_l"
)
_BEHIND = {"q": "keys", "k": "keys", "v": "values", "wi_1": "hidden"}
_BEFORE = {"o": "values", "wo": "hidden"}
_REASONS = {
  "wi": "a factor in front of the activation is none of what comes out of it",
  "wi_0": "a factor in front of the activation is none of what comes out of it",
}


def is_vector(name: str) -> bool:
  """Whether a tensor of an adapter is one of IA3's."""
  return name.endswith(".ia3_l")


def read(found: Mapping[str, np.ndarray], where) -> dict[str, np.ndarray]:
  """The tensors of a prompt, see `tensors`, from an adapter's by their names.

  A layer that the adapter leaves alone has ones.

  Raises:
    ValueError: a factor stands where this project has none.
  """
  # Which vector, of which layer, each factor belongs to.
  factors: dict[str, list[tuple[int, np.ndarray]]] = {}
  depth: dict[str, int] = {}
  for key, factor in sorted(found.items()):
    stack, layer, name = _place(key, factor.shape, where)
    vector = np.asarray(factor, np.float32).ravel()
    factors.setdefault(f"{stack}_{name}", []).append((layer, vector))
    depth[stack] = max(depth.get(stack, 0), layer + 1)

  # One tensor [layers, _] for each.
  made = {}
  for name, layers in factors.items():
    widths = {len(vector) for _, vector in layers}
    if len(widths) > 1:
      raise ValueError(
        f"{where} has factors of {name.replace('_', ' ')} of several widths "
        f"({', '.join(map(str, sorted(widths)))}); in a T5 all layers have "
        "one. The file is damaged, or of another model."
      )
    made[name] = np.ones((depth[name.split("_")[0]], *widths), np.float32)
    for layer, vector in layers:
      made[name][layer] *= vector
  tensors.check(made, where)
  return made


def _place(key: str, shape: tuple[int, ...], where) -> tuple[str, int, str]:
  """Stack, layer and name of the vector that a factor belongs to."""
  match = _KEY.fullmatch(key)
  is_before = len(shape) == 2 and shape[0] == 1
  name = reason = None
  if match and len(shape) == 2 and 1 in shape:
    stack, layer, part, module = match.groups()
    name = (_BEFORE if is_before else _BEHIND).get(module)
    if name:
      cross = "cross_" if part == "EncDecAttention" else ""
      return stack, int(layer), cross + name
    reason = None if is_before else _REASONS.get(module)
  side = "what goes into" if is_before else "what comes out of"
  reason = reason or "there is no such vector in IA3 as published"
  raise ValueError(
    f"{where} has a factor {shape} of {side} {key.removesuffix('.ia3_l')}: "
    f"{reason}, and it would compute something else here. Adapters of a T5 "
    "with target_modules among k, v, q, wi_1 and, as feedforward_modules, wo "
    "and o are read."
  )
