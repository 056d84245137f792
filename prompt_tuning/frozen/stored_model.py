"""A model on disk before it is read, whatever its format.

    model_folder, huggingface, t5x_checkpoints, t5gemma
      -> StoredModel -> read -> params

Tensors have the paths and shapes of `t5.T5`; each is read, hashed and cast when
its turn comes, so that a model never needs more memory than itself and one
tensor.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import hashlib
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from prompt_tuning import json_files, storage
from prompt_tuning.model import forms, t5
from prompt_tuning.model.t5gemma import Stack, T5GemmaConfig
from prompt_tuning.shapes import Float, PyTree
from prompt_tuning.storage import StoredTensor
from prompt_tuning.vocabulary import T5_IDS, Ids, Vocabulary

FLOATS = ("bfloat16", "float16", "float32", "float64")
_CHUNK = 1 << 22  # numbers that are turned to float32 at once for the hash
_LARGE = 1 << 28  # numbers from which on reading shows its progress


@dataclasses.dataclass(frozen=True)
class StoredModel:
  """What is known of a model without reading its weights.

  Attributes:
    path: its folder.
    format: 'prompt-tuning', 'Hugging Face', 't5x native', 't5x Orbax' or
      'Gemma Orbax'.
    config: its shape.
    tensors: its weights by the parameter paths of `t5.T5`.
    vocabulary: the one beside the weights, if there is one.
    special: the ids of pad, eos and unk in the vocabulary's file.
  """

  path: str
  format: str
  config: t5.Config
  tensors: Mapping[str, StoredTensor]
  vocabulary: Vocabulary | None = None
  special: Ids = T5_IDS

  @property
  def num_parameters(self) -> int:
    """How many numbers the weights hold."""
    return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

  @property
  def dtype(self) -> str:
    """The type that most of the numbers are stored in."""
    sizes = collections.Counter()
    for tensor in self.tensors.values():
      sizes[tensor.dtype] += math.prod(tensor.shape)
    return sizes.most_common(1)[0][0]

  def hash(self) -> str:
    """`weights_hash`, without keeping the weights."""
    return _hash(self._arrays())

  def check(self) -> None:
    """Compares the tensors with what a T5 of this configuration has.

    Raises:
      ValueError: one is missing, unexpected, of another shape, or no float.
    """
    check_tree(storage.unflatten(self.tensors), self.config, self.path)
    for path, tensor in self.tensors.items():
      if tensor.dtype not in FLOATS:
        raise ValueError(
          f"The tensor {path} ({tensor.where}) has the type {tensor.dtype}; "
          f"weights are {', '.join(FLOATS)}. Save the model in one of these."
        )

  def read(
    self,
    dtype: str | None = None,
    *,
    stack_layers: bool = False,
    put: forms.Put = forms.on_device,
  ) -> tuple[PyTree, str]:
    """Reads the weights onto the device.

    Args:
      dtype: cast to it, or hold in int8 or int4 (see `forms.quantized`); None
        means float32 for weights stored in float16 or float64, else what is
        stored.
      stack_layers: gives the tree of `forms.stacked`.
      put: puts a tensor onto the device, or its parts onto several.

    Returns:
      The parameter tree, and the hash of the weights as stored.

    Raises:
      ValueError: a tensor is damaged, or too large for `dtype`.
    """
    self.check()
    digest = hashlib.sha256()

    def leaves():
      for path, array in self._arrays():
        _add(digest, path, array)
        where = f"{path} ({self.tensors[path].where})"
        yield from held(path, array, dtype, where).items()

    if stack_layers:
      shapes = {path: tensor.shape for path, tensor in self.tensors.items()}
      every = forms.quantized.all_paths(shapes, dtype)
      tree = forms.stacked_from(every, leaves(), put)
    else:
      on_device = {path: put(path, array) for path, array in leaves()}
      tree = storage.unflatten(on_device)
    return tree, digest.hexdigest()

  def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
    """The weights one by one, in the order of their paths."""
    off = self.num_parameters < _LARGE or None  # None: off without terminal
    for path in tqdm(sorted(self.tensors), desc="read weights", disable=off):
      tensor = self.tensors[path]
      array = tensor.read()
      if array.shape != tensor.shape:
        raise ValueError(
          f"The tensor {path} ({tensor.where}) was read with shape "
          f"{array.shape}, its file announced {tensor.shape}."
        )
      _check_finite(array, f"{path} ({tensor.where})")
      yield path, array


def held(
  path: str, array: np.ndarray, dtype: str | None, where: str = ""
) -> dict[str, np.ndarray]:
  """What holds a weight in a model of a type, by path.

  Raises:
    ValueError: a finite number would become infinite.
  """
  made = forms.quantized.parts(path, array, dtype)
  if path in made:
    kind = None if dtype in forms.quantized.DTYPES else dtype
    made[path] = converted(array, kind, where)
  return made


def converted(
  array: np.ndarray, dtype: str | None, where: str = ""
) -> np.ndarray:
  """A weight in the type that it is held in; see `StoredModel.read`.

  Raises:
    ValueError: a finite number would become infinite.
  """
  if dtype is None:
    dtype = "bfloat16" if str(array.dtype) == "bfloat16" else "float32"
  with np.errstate(over="ignore"):
    as_type = np.asarray(array).astype(jnp.dtype(dtype), copy=False)
  if dtype == "float16" and not np.isfinite(as_type).all():
    raise ValueError(
      f"The weights {where} are not finite as float16, whose largest number is "
      "65504. Use bfloat16 or float32."
    )
  return as_type


def weights_hash(tree: PyTree) -> str:
  """SHA-256 of paths, shapes and values (as float32) of a parameter tree.

  The dtype does not enter: a model stored in bfloat16 and the same values in
  float32 are the same model, in whatever format it is stored.
  """
  return _hash(storage.flatten(tree).items())


def _hash(leaves: Iterable[tuple[str, Any]]) -> str:
  digest = hashlib.sha256()
  for path, leaf in leaves:
    _add(digest, path, leaf)
  return digest.hexdigest()


def _add(digest, path: str, leaf) -> None:
  digest.update(f"{path} {tuple(leaf.shape)}\n".encode())
  for part in _chunks(leaf):
    digest.update(part.view(np.uint8).data)


def _chunks(leaf) -> Iterator[Float[np.ndarray, "_"]]:
  """The numbers as float32, a part at a time."""
  values = np.asarray(leaf).reshape(-1)
  for begin in range(0, values.size, _CHUNK):
    yield np.asarray(values[begin : begin + _CHUNK], np.float32, order="C")


def _check_finite(leaf, where: str) -> None:
  bad = sum(int((~np.isfinite(part)).sum()) for part in _chunks(leaf))
  if bad:
    raise ValueError(
      f"The tensor {where} has NaN or infinity in {bad} of {leaf.size} "
      "numbers, so the model would answer nothing. Restore it from a copy, or "
      "save it again in a wider type."
    )


def check_savable(tree: PyTree) -> None:
  """Refuses weights with NaN or infinity.

  Raises:
    ValueError: the message names the first such tensor.
  """
  for path, leaf in storage.flatten(tree).items():
    if not np.isfinite(leaf.astype(np.float32)).all():
      raise ValueError(
        f"The weights {path} are not finite as {leaf.dtype}; save them in "
        "float32 or bfloat16."
      )


def check_tree(tree: PyTree, config: t5.Config, where) -> None:
  """Compares a parameter tree with what a T5 of this shape has.

  Raises:
    ValueError: a tensor is missing, unexpected, or of another shape.
  """
  want = storage.flatten(t5.abstract_parameters(config))
  have = storage.flatten(tree)
  missing = [path for path in want if path not in have]
  if missing:
    raise ValueError(
      f"{where} has no tensor {missing[0]} ({len(missing)} of {len(want)} are "
      "missing). Its configuration describes another model, or a file is "
      "missing."
    )
  surplus = [path for path in have if path not in want]
  if surplus:
    raise ValueError(
      f"{_where(have[surplus[0]], where)} is a tensor {surplus[0]} that the "
      f"configuration has no place for ({len(surplus)} such tensors)."
    )
  for path, leaf in have.items():
    if tuple(leaf.shape) != tuple(want[path].shape):
      raise ValueError(
        f"{_where(leaf, where)}: the tensor {path} has shape "
        f"{tuple(leaf.shape)}, the configuration asks for "
        f"{tuple(want[path].shape)}."
      )


def _where(leaf, where) -> str:
  return leaf.where if isinstance(leaf, StoredTensor) else str(where)


def check_expected(own: t5.Config, expected: t5.Config, where) -> None:
  """Refuses a model of another shape than a run asks for.

  Raises:
    ValueError: the message names what differs.
  """
  kinds = [type(config).__name__ for config in (own, expected)]
  other = [f"{kinds[0]}, not {kinds[1]}"]
  if kinds[0] == kinds[1]:
    # How it computes is the run's choice, and no sign of another model.
    chosen = {"dtype": own.dtype, "dropout_rate": own.dropout_rate}
    want, have = (
      storage.flatten({**dataclasses.asdict(config), **chosen})
      for config in (expected, own)
    )
    other = [f"{k} {v}, not {want[k]}" for k, v in have.items() if v != want[k]]
  if other:
    raise ValueError(
      f"{where} holds another T5 than the run asks for: {'; '.join(other)}. "
      "Use the gin file of this model."
    )


def config_of(settings: json_files.Fields) -> t5.Config:
  """A configuration from its fields by name.

  A T5Gemma has an encoder and a decoder among them.

  Raises:
    ValueError: a field is missing, unknown, or no T5 can have its value.
  """
  kind = T5GemmaConfig if "encoder" in settings else t5.T5Config
  return _filled(kind, settings)


def _filled(kind: Any, settings: json_files.Fields) -> Any:
  """The dataclass `kind` with values of these fields."""
  known = {field.name: field for field in dataclasses.fields(kind)}
  unknown = [name for name in settings if name not in known]
  if unknown:
    raise ValueError(
      f"{settings.where} does not describe a T5: it has {unknown[0]!r}, which "
      f"is no field of {kind.__name__}."
    )
  values = {}
  for name, field in known.items():
    needed = field.default is dataclasses.MISSING
    default = json_files.MISSING if needed else field.default
    if field.type is Stack:
      values[name] = _filled(Stack, settings.table(name))
    elif isinstance(default, tuple):
      values[name] = tuple(settings.words(name, default))
    elif name == "dropout_rate":
      values[name] = settings.number(name, default, above=-1e-9)
    elif name in ("dtype",):
      values[name] = settings.text(name, default)
    elif "bool" in str(field.type):
      values[name] = settings.flag(name, default)
    elif name.endswith("_cap") and settings.get(name, 0) is None:
      values[name] = None  # which is no missing one
    elif "float" in str(field.type):
      values[name] = settings.number(name, default)
    else:
      least = 0 if name == "start_id" else 1
      values[name] = settings.whole(name, default, least=least)
  try:
    return kind(**values)
  except ValueError as error:
    raise ValueError(f"{settings.where}: {error}") from error
