"""The weight files of a Hugging Face folder, as tensors by their names there.

model.safetensors, or model-0000i-of-0000n.safetensors and an index
pytorch_model.bin           old folders; through torch, never unpickled;
                            in shards with an index as well
"""

from collections.abc import Callable, Iterator, Mapping
import functools
import pathlib

import numpy as np

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import stored_model
from prompt_tuning.storage import StoredTensor

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
PICKLED = "pytorch_model.bin"
SHARD_BYTES = 2 << 30


def read(folder: pathlib.Path) -> Mapping[str, StoredTensor]:
  """The tensors of whatever weight files a folder has, none of them read yet.

  Raises:
    FileNotFoundError: there are none, or a shard is missing.
    ValueError: a file is damaged, or not of the model that the index is of.
  """
  for name, open_file in (
    (SINGLE, lambda path: storage.open_tensors(path)[0]),
    (PICKLED, _open_pickled),
  ):
    index = folder / f"{name}.index.json"
    if index.is_file():
      return _open_shards(index, open_file)
    if (folder / name).is_file():
      return open_file(folder / name)
  raise FileNotFoundError(
    f"The Hugging Face folder {folder} has no weights: there is neither "
    f"{SINGLE} nor {INDEX} nor {PICKLED}."
  )


def _open_shards(index: pathlib.Path, open_file) -> Mapping[str, StoredTensor]:
  folder = index.parent
  weight_map = json_files.read_object(index).texts("weight_map")
  if not weight_map:
    raise ValueError(f"{index} places no tensor: its weight_map is empty.")
  opened = {}
  for shard in sorted(set(weight_map.values())):
    if not (folder / shard).is_file():
      lost = [name for name, file in weight_map.items() if file == shard]
      raise FileNotFoundError(
        f"The shard {folder / shard} is missing; {index.name} places "
        f"{len(lost)} tensors in it, the first is {lost[0]}."
      )
    opened[shard] = open_file(folder / shard)
  for name, shard in weight_map.items():
    if name not in opened[shard]:
      raise ValueError(
        f"{folder / shard} has no tensor {name}, which {index.name} places "
        "there. The files are not of one model."
      )
  return {name: opened[shard][name] for name, shard in weight_map.items()}


def _open_pickled(path: pathlib.Path) -> Mapping[str, StoredTensor]:
  """Tensors of a .bin file, through torch without its unpickler."""
  try:
    import torch  # an optional extra, for this old format only
  except ImportError as error:
    raise ValueError(
      f"{path} is in torch's old format, which only torch reads. Install "
      "'prompt-tuning-jax[torch]', or fetch the model as safetensors."
    ) from error
  try:
    state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
  except Exception as error:  # torch raises many kinds, also for old zips
    raise ValueError(
      f"{path} cannot be read as tensors ({str(error).splitlines()[0]}). It is "
      "damaged, or holds other objects than tensors, which are never loaded."
    ) from error

  def read(tensor):
    if tensor.dtype == torch.bfloat16:
      import ml_dtypes  # comes with jax

      return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()

  return {
    name: StoredTensor(
      tuple(tensor.shape),
      str(tensor.dtype).removeprefix("torch."),
      functools.partial(read, tensor),
      f"{path}: {name}",
    )
    for name, tensor in state.items()
  }


def write(
  folder: pathlib.Path,
  sizes: Mapping[str, int],
  tensor: Callable[[str], np.ndarray],
  shard_bytes: int,
) -> None:
  """Writes one file, or shards and their index.

  Args:
    folder: where to.
    sizes: bytes of each tensor by its name.
    tensor: a tensor from its name, called when its shard is written.
    shard_bytes: tensors beyond it go into several files.

  Raises:
    ValueError: a weight is not finite.
  """
  shards = list(_shards(sizes, shard_bytes))
  weight_map = {}
  for i, names in enumerate(shards, 1):
    file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
    if len(shards) == 1:
      file = SINGLE
    tensors = {name: tensor(name) for name in names}
    stored_model.check_savable(tensors)
    storage.save_tensors(folder / file, tensors, {"format": "pt"})
    weight_map |= dict.fromkeys(tensors, file)
  if len(shards) > 1:
    about = {"total_size": sum(sizes.values())}
    index = {"metadata": about, "weight_map": weight_map}
    storage.write_json(folder / INDEX, index)
  # What a model of another size left here would be read in place of this one.
  (folder / (SINGLE if len(shards) > 1 else INDEX)).unlink(missing_ok=True)


def _shards(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
  """The names in groups of at most `limit` bytes, one tensor at least."""
  group, total = [], 0
  for name, size in sizes.items():
    if group and total + size > limit:
      yield group
      group, total = [], 0
    group.append(name)
    total += size
  yield group
