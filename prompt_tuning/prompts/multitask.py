"""Prompts of several tasks that train together and share a part.

    product    S * (u v^T)       S [P, E], u [P], v [E]     (MPT)
    add        S + R             S [P, E], R [P, E]
    concat     S over R          S [P - Q, E], R [Q, E]
    features   S beside R        S [P, E - F], R [P, F]
    project    S K + c           S [P, D], K [D, E], c [E]

S is of all tasks, the rest is each task's own. So N prompts together are not N
alone here: that is the method. Each task's prompt collapses to plain rows, and
the shared part goes into a file of its own that a new task starts from.

Sources: Wang et al. 2023, "Multitask prompt tuning" (product); the others are
what the original code offered.
"""

from collections.abc import Callable
import functools
import os
import pathlib
from typing import NamedTuple

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from prompt_tuning import spelling, storage
from prompt_tuning.prompts import prompt
from prompt_tuning.prompts.initializers import is_finite
from prompt_tuning.prompts.prompt import ROWS_ALONE, SHARED, Given
from prompt_tuning.prompts.reparameterised import (
  Method,
  check_size,
  leaf,
  matmul,
  roots,
  zeros,
)
from prompt_tuning.shapes import Array, Float, PyTree

FILE = "shared.safetensors"
"""The shared part in a run's folder, with the mean of what is a task's own."""

_ROWS = f"{SHARED}rows"


class _Combination(NamedTuple):
  """One way to make a task's rows of a shared and an own part.

  Attributes:
    shared: the shape of S, of P, E and the size.
    own: the shapes of a task's own parameters, of P, E and the size.
    rows: from S and the own parameters to rows [*N, P, E].
    start: from rows [N, P, E] and the size to S and the own parameters.
  """

  shared: Callable
  own: Callable
  rows: Callable
  start: Callable


class MultiTask(nn.Module):
  """A bank of prompts with a shared part, see the head of this file.

  Attributes:
    length: P.
    emb_dim: E.
    num_prompts: N, the tasks.
    combine: a name of the table above.
    size: Q, F or D; product and add have none.
    start_from: the folder of a run, or its file, whose shared part is where
      this one starts; '' for rows of this run's own.
  """

  length: int
  emb_dim: int
  num_prompts: int | None = None
  combine: str = "product"
  size: int = 0
  start_from: str = ""

  @property
  def _sizes(self) -> tuple[int, int, int]:
    return self.length, self.emb_dim, self.size

  @nn.compact
  def __call__(self) -> Float[Array, "*N P E"]:
    how = _COMBINATIONS[self.combine]
    shared = zeros(self, _ROWS, *how.shared(*self._sizes))
    shapes = how.own(*self._sizes)
    own = {name: leaf(self, name, *each) for name, each in shapes.items()}
    return how.rows(shared, **own)

  def first_parameters(
    self, rows: Float[Array, "*N P E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """Where the bank starts.

    add starts exactly at the rows; concat and features have the tasks' mean in
    the shared places; product starts every task at their mean; project is the
    nearest to the rows by singular values. With `start_from` every task starts
    from that file instead: its shared part, and the mean of its tasks' own.

    Raises:
      ValueError: the size leaves nothing, or the file is of another prompt or
        of other frozen weights.
    """
    self._check()
    if self.start_from:
      return self._stored(rows.shape[:-2], given.model)
    of_bank = np.reshape(rows, (-1, *rows.shape[-2:])).astype(np.float64)
    shared, own = _COMBINATIONS[self.combine].start(of_bank, self.size)
    shapes = _COMBINATIONS[self.combine].own(*self._sizes)
    return {_ROWS: np.float32(shared)} | {
      name: np.float32(own[name]).reshape(*rows.shape[:-2], *shape)
      for name, shape in shapes.items()
    }

  def _check(self) -> None:
    limits = {
      "concat": (self.length - 1, "PROMPT_LENGTH"),
      "features": (self.emb_dim - 1, "the embedding's width"),
      "project": (min(self.length, self.emb_dim), "PROMPT_LENGTH or the width"),
    }
    if self.combine not in limits:
      return
    most, of_what = limits[self.combine]
    if most < 1:
      raise ValueError(
        f"COMBINE={self.combine!r} divides {of_what} into a shared and an own "
        f"part, and it is {most + 1}. Set it to 2 or more, or choose another "
        "COMBINE."
      )
    if not 1 <= self.size <= most:
      raise ValueError(
        f"COMBINE_SIZE={self.size} does not fit COMBINE={self.combine!r} with "
        f"prompts of {self.length} positions and width {self.emb_dim}: "
        f"{of_what} leaves room for 1 to {most}. Set COMBINE_SIZE to one of "
        "these."
      )

  def _stored(self, bank: tuple[int, ...], model: str) -> PyTree:
    """The parameters of `start_from`, the own ones once for each prompt."""
    path = pathlib.Path(self.start_from)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
      raise FileNotFoundError(
        f"SHARED_FROM={self.start_from} has no shared part: there is no "
        f"{path}. Give the folder of a run of methods/multi_task.gin that has "
        "come to its end."
      )
    stored, about = storage.load_tree(path)
    stored = storage.flatten(stored)
    how = _COMBINATIONS[self.combine]
    needed = {_ROWS: how.shared(*self._sizes), **how.own(*self._sizes)}
    found = {name: np.shape(array) for name, array in stored.items()}
    if found != needed:
      raise ValueError(
        f"{path} was written by {about.get('method')}, with parameters "
        f"{found}; COMBINE={self.combine!r} needs {needed} here. Set COMBINE, "
        "COMBINE_SIZE and PROMPT_LENGTH as they were there, and use the model "
        "that it was trained for."
      )
    for name, array in stored.items():
      is_float = np.issubdtype(array.dtype, np.floating)
      if not is_float or not is_finite(array).all():
        raise ValueError(
          f"{path}: {name} must be floats, without NaN and infinity, and it is "
          f"of type {array.dtype}{' with some' if is_float else ''}. It cannot "
          "be used."
        )
    trained_for = about.get("model") or model
    if model and trained_for != model:
      raise ValueError(
        f"{path} was trained for other frozen weights (hash "
        f"{trained_for[:12]}; these have {model[:12]}). Use the model that it "
        "was trained for, or train the shared part again for this one."
      )
    return {
      name: array
      if name == _ROWS
      else np.broadcast_to(array, (*bank, *array.shape)).copy()
      for name, array in stored.items()
    }


def multi_task(
  combine: str = "product",
  size: int = 0,
  start_from: str | os.PathLike | None = None,
) -> Method:
  """Prompts with a shared part, see `MultiTask`."""
  if combine not in _COMBINATIONS:
    have = ", ".join(_COMBINATIONS)
    hint = spelling.hint(
      str(combine), list(_COMBINATIONS), f"There are {have}."
    )
    raise ValueError(
      f"COMBINE={combine!r} is no way to combine a shared and an own part. "
      f"{hint}"
    )
  if combine in ("product", "add"):
    if size:
      raise ValueError(
        f"COMBINE_SIZE={size!r} is set, and COMBINE={combine!r} has no size. "
        "Leave it out, or set it to 0."
      )
  else:
    check_size("COMBINE_SIZE", size)
  return functools.partial(
    MultiTask, combine=combine, size=size, start_from=str(start_from or "")
  )


def save_shared(
  folder: str | os.PathLike, module: nn.Module, params: PyTree, model: str = ""
) -> None:
  """Writes `FILE`: the shared part, and the mean of the tasks' own.

  Args:
    folder: the run's.
    module: what trained, a bank or one prompt.
    params: its parameters.
    model: the hash of the frozen weights, if it is known.
  """
  alone = module.num_prompts is None  # pyright: ignore
  tree = {
    name: np.asarray(array)
    if alone or name.startswith(SHARED)
    else np.asarray(array).mean(axis=0)
    for name, array in params.items()
  }
  about = {"method": prompt.method_of(module), "model": model}
  storage.save_tree(pathlib.Path(folder) / FILE, tree, about)


# How each combination computes its rows, and where it starts.


def _start_product(rows, size):
  del size
  num, length, width = rows.shape
  return rows.mean(axis=0), {
    "left": np.ones((num, length)),
    "right": np.ones((num, width)),
  }


def _start_add(rows, size):
  del size
  shared = np.float32(rows.mean(axis=0))
  return shared, {"own": rows - shared}


def _start_concat(rows, size):
  shared, own = np.split(rows, [rows.shape[1] - size], axis=1)
  return shared.mean(axis=0), {"own": own}


def _start_features(rows, size):
  shared, own = np.split(rows, [rows.shape[2] - size], axis=2)
  return shared.mean(axis=0), {"own": own}


def _start_project(rows, size):
  # The first columns that all tasks' rows, less their means, have in common.
  mean = rows.mean(axis=1)
  rest = rows - mean[:, None]
  beside = np.concatenate(list(rest), axis=1)  # [P, N E]
  columns, values, _ = np.linalg.svd(beside, full_matrices=False)
  root = roots(values)[:size]
  columns = columns[:, :size]
  kernel = np.swapaxes(columns, 0, 1) @ rest  # [N, D, E]
  return columns * root, {"kernel": kernel / root[:, None], "bias": mean}


def _rows_product(shared, left, right):
  return shared * (left[..., :, None] * right[..., None, :])


def _rows_concat(shared, own):
  first = jnp.broadcast_to(shared, (*own.shape[:-2], *shared.shape))
  return jnp.concatenate([first, own], axis=-2)


def _rows_features(shared, own):
  first = jnp.broadcast_to(shared, (*own.shape[:-2], *shared.shape))
  return jnp.concatenate([first, own], axis=-1)


_COMBINATIONS = {
  "product": _Combination(
    lambda p, e, _: (p, e),
    lambda p, e, _: {"left": (p,), "right": (e,)},
    _rows_product,
    _start_product,
  ),
  "add": _Combination(
    lambda p, e, _: (p, e),
    lambda p, e, _: {"own": (p, e)},
    lambda shared, own: shared + own,
    _start_add,
  ),
  "concat": _Combination(
    lambda p, e, q: (p - q, e),
    lambda p, e, q: {"own": (q, e)},
    _rows_concat,
    _start_concat,
  ),
  "features": _Combination(
    lambda p, e, f: (p, e - f),
    lambda p, e, f: {"own": (p, f)},
    _rows_features,
    _start_features,
  ),
  "project": _Combination(
    lambda p, e, d: (p, d),
    lambda p, e, d: {"kernel": (d, e), "bias": (e,)},
    lambda shared, kernel, bias: matmul(shared, kernel) + bias[..., None, :],
    _start_project,
  ),
}
"""By the name that COMBINE has."""
