"""Models with other special ids than a T5's, renumbered where they are read.

    stored ids  pad 1, eos 2, unk 0, start 0 (MADLAD-400)
    ids here    pad 0, eos 1, unk 2, start 0

The rows of the embedding table and the columns of the head change places once,
as they are read; the vocabulary does the same to its ids. The network starts
its decoder from row 0 and reads that row nowhere else that counts (padding is
masked), so row 0 of the table is that of the start token. Where this is not the
pad token, the pad token's own row has no place here.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from prompt_tuning.json_files import Fields
from prompt_tuning.storage import StoredTensor
from prompt_tuning.vocabulary import GEMMA_IDS, T5_IDS, Ids

TABLE, HEAD = "token_embedder/embedding", "decoder/logits_dense/kernel"
_SETTINGS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")


@dataclasses.dataclass(frozen=True)
class Numbering:
  """The special ids of a stored model.

  Attributes:
    special: pad, eos and unk.
    start: what its decoder starts from.
  """

  special: Ids = T5_IDS
  start: int = 0

  @property
  def is_t5(self) -> bool:
    """Whether nothing changes its place; a T5Gemma starts where it likes."""
    return self == Numbering() or self.special == GEMMA_IDS


def numbering_of(settings: Fields, *, has_head: bool) -> Numbering:
  """The special ids that a config.json of transformers names.

  Raises:
    ValueError: they are not 0, 1 and 2 in some order, or the network cannot
      start its decoder as the model does.
  """
  pad, eos = _id(settings, _SETTINGS[0], 0), _id(settings, _SETTINGS[1], 1)
  start = _id(settings, _SETTINGS[2], pad)
  is_order = {pad, eos, start} <= {*T5_IDS} and eos not in (pad, start)
  if not is_order or ((pad, eos) == T5_IDS[:2] and start != pad):
    raise ValueError(
      f"{settings.where} has {_shown(pad, eos, start)}; a T5 has 0, 1 and 0 "
      "there. Models whose pad, eos and unk are 0, 1 and 2 in another order, "
      "and whose decoder starts from pad or unk, are renumbered when they are "
      "read (MADLAD-400); this one cannot be."
    )
  if start != pad and not has_head:
    raise ValueError(
      f"{settings.where} has {_shown(pad, eos, start)} and a tied head: the "
      "row that its decoder starts from would have two places in one table. "
      "Only a model with an lm_head.weight may start from another id than pad."
    )
  (unk,) = {*T5_IDS} - {pad, eos}
  return Numbering((pad, eos, unk), start)


def _id(settings: Fields, name: str, default: int) -> int:
  """One of them; some configurations write a list of one."""
  have = settings.get(name)
  if isinstance(have, list) and len(have) == 1:
    have = have[0]
  have = default if have is None else have
  if isinstance(have, bool) or not isinstance(have, int):
    raise ValueError(
      f"{settings.where} has {name}={have!r}; it must be the id of a token."
    )
  return have


def _shown(*ids: int) -> str:
  return ", ".join(f"{k}={i}" for k, i in zip(_SETTINGS, ids, strict=True))


def renumbered(
  tensors: Mapping[str, StoredTensor], numbering: Numbering
) -> dict[str, StoredTensor]:
  """The tensors, with the special ids of a T5 when they are read.

  Args:
    tensors: by the parameter paths of `t5.T5`.
    numbering: the special ids that they are stored with.
  """
  if numbering.is_t5:
    return dict(tensors)
  _, eos, unk = numbering.special
  changed = dict(tensors)
  for path, axis, first in (
    (TABLE, 0, (numbering.start, eos, unk)),
    (HEAD, 1, numbering.special),
  ):
    if path in tensors:
      changed[path] = _taken(tensors[path], axis, first)
  return changed


def _taken(tensor: StoredTensor, axis: int, first: Ids) -> StoredTensor:
  """The tensor whose first three rows (or columns) are those of `first`."""

  def read() -> np.ndarray:
    array = np.array(tensor.read())
    return _put(array, axis, slice(3), array.take(first, axis))

  return dataclasses.replace(tensor, read=read)


def _put(array: np.ndarray, axis: int, where: Any, rows: np.ndarray):
  """The array, changed in its place."""
  array[(slice(None),) * axis + (where,)] = rows
  return array


def as_stored(path: str, array: np.ndarray, special: Ids) -> np.ndarray:
  """A parameter with its special ids where the stored model has them.

  The decoder of what is written starts from the pad token: that is where row 0
  of the table goes.
  """
  axis = {TABLE: 0, HEAD: 1}.get(path)
  if axis is None or special in (T5_IDS, GEMMA_IDS):
    return array
  rows = array.take(range(3), axis)
  return _put(np.array(array), axis, list(special), rows)
