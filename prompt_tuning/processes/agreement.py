"""What the processes of a run know together.

Every function here is called by all of them at the same point of the run, for
each waits for the others. With one process nothing is exchanged.
"""

from collections.abc import Callable, Iterator
import contextlib
import hashlib
import itertools
import json
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from prompt_tuning.processes import joining, watch
from prompt_tuning.shapes import PyTree

_DAY = 24 * 3600 * 1000  # in milliseconds; a lost process is noticed elsewhere
_numbers = itertools.count()


def told(say: Callable[[], bytes]) -> bytes:
  """What process 0 says; the others do not call the function."""
  if joining.count() == 1:
    return say()
  client = watch.client()
  key = f"prompt_tuning/told/{next(_numbers)}"
  if joining.is_first():
    content = say()
    client.key_value_set_bytes(key, content)
    return content
  return client.blocking_key_value_get_bytes(key, _DAY)


Checkpoint = tuple[int, PyTree, dict]
"""A step, arrays, and a record of JSON values."""


def known(
  read: Callable[[], Checkpoint | None], like: PyTree
) -> Checkpoint | None:
  """What process 0 reads, in all of them; None where there is nothing.

  Args:
    read: reads it, in process 0.
    like: arrays of the shapes and types that are read.
  """
  if joining.count() == 1:
    return read()
  found = read() if joining.is_first() else None
  header = found and (found[0], found[2])
  header = json.loads(told(lambda: json.dumps(header).encode()))
  if header is None:
    return None
  arrays = found[1] if found else _zeros(like)
  return header[0], multihost_utils.broadcast_one_to_all(arrays), header[1]


def agreed(value: int) -> int:
  """The largest of a number that each process has."""
  if joining.count() == 1:
    return value
  every = multihost_utils.process_allgather(np.int32(value))
  return int(np.max(every))


def check_same(what: str, text: str) -> None:
  """Compares a text with that of process 0, and waits until all have done so.

  They also compute together for the first time: Gloo, which connects them on
  CPUs, waits for 30 seconds and no longer for the last one to come.

  Raises:
    ValueError: they differ, and the run would not be one.
  """
  if joining.count() == 1:
    return
  digest = hashlib.sha256(text.encode()).hexdigest()
  if told(digest.encode).decode() != digest:
    raise ValueError(
      f"Process {joining.number()} has {what} than process 0. Give every "
      "process the same command; only PROCESS_ID is each one's own."
    )
  watch.client().wait_at_barrier(f"prompt_tuning/{next(_numbers)}", _DAY)
  agreed(0)


def on_host(tree: PyTree) -> PyTree:
  """The leaves as arrays of numpy, what other processes hold included."""
  return jax.tree.map(_on_host, tree)


def on_first(tree: PyTree) -> PyTree:
  """As `on_host`, leaf by leaf; in all but process 0 the leaves are None."""

  def gathered(leaf: Any) -> np.ndarray | None:
    whole = _on_host(leaf)
    return whole if joining.is_first() else None

  return jax.tree.map(gathered, tree)


def kept(tree: PyTree) -> PyTree:
  """A copy that no step overwrites: on the host, but of what is spread there.

  Leaves that lie across processes stay where they are.
  """

  def copy(leaf: Any) -> Any:
    return jnp.copy(leaf) if _lies_apart(leaf) else np.asarray(leaf)

  return jax.tree.map(copy, tree)


def is_spread(tree: PyTree) -> bool:
  """Whether a leaf lies across processes, so that none has the whole."""
  return any(map(_lies_apart, jax.tree.leaves(tree)))


def _lies_apart(leaf: Any) -> bool:
  is_array = isinstance(leaf, jax.Array)
  return is_array and not (
    leaf.is_fully_addressable or leaf.is_fully_replicated
  )


def _on_host(leaf: Any) -> np.ndarray:
  if _lies_apart(leaf):
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
  return np.asarray(leaf)


def _zeros(tree: PyTree) -> PyTree:
  """Those of the shapes and types of a tree's leaves."""
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)


def own_parts(tree: PyTree) -> PyTree:
  """The leaves, or of those that lie in several processes the own parts."""

  def own(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
      return leaf
    shards = enumerate(leaf.addressable_shards)
    return {str(n): np.asarray(shard.data) for n, shard in shards}

  return jax.tree.map(own, tree)


_asking: list[Callable[[], None]] = []


@contextlib.contextmanager
def between_batches(ask: Callable[[], None]) -> Iterator[None]:
  """Inside, a function is called between the batches that are predicted.

  All processes predict the same batches, so there they can agree on something.
  """
  _asking.append(ask)
  try:
    yield
  finally:
    _asking.pop()


def is_asked() -> None:
  """A batch was predicted."""
  for ask in _asking:
    ask()
