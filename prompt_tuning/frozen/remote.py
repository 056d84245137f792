"""Models that are elsewhere: fetched once, then read from this machine.

gs://bucket/folder     by TensorStore, without an account for public buckets
owner/name             on the Hugging Face hub, by huggingface_hub's cache
"""

import os
import pathlib
import re

from tqdm import tqdm

from prompt_tuning import storage
from prompt_tuning.frozen import huggingface

CACHE = "PROMPT_TUNING_CACHE"
"""The variable that says where gs:// folders are kept."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_OPTIMIZER = re.compile(r"(^|/)state\.param_states\.")
_SMALL_FILES = (
  huggingface.CONFIG,
  huggingface.VOCABULARY,
  huggingface.TOKENIZER,
  huggingface.ADDED,
  "tokenizer.json",
)


def local(path: str | os.PathLike) -> pathlib.Path:
  """A folder on this machine with what is at `path`.

  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: it cannot be reached.
  """
  text = str(path)
  if text.startswith("gs://"):
    return _from_bucket(text.removeprefix("gs://").rstrip("/"))
  parent = pathlib.Path(text).parent
  if _HUB_NAME.fullmatch(text) and not parent.exists():
    return _from_hub(text)
  raise FileNotFoundError(
    f"There is no model at {text!r}. Give a folder with config.json and "
    "weights, a checkpoint of t5x or gemma, or 'microworld', which ships."
  )


def cache_folder() -> pathlib.Path:
  """Where gs:// folders are kept: $PROMPT_TUNING_CACHE, or ~/.cache/…"""
  default = pathlib.Path.home() / ".cache" / "prompt_tuning"
  return pathlib.Path(os.environ.get(CACHE, default))


def _from_bucket(url: str) -> pathlib.Path:
  """Copies a folder of a bucket; files that are there are not fetched again."""
  import tensorstore  # reads the bucket's settings when it is imported

  bucket, _, folder = url.partition("/")
  target = cache_folder() / "gs" / url
  kvstore = {"driver": "gcs", "bucket": bucket, "path": f"{folder}/"}
  try:
    store = tensorstore.KvStore.open(kvstore).result()
    names = [key.decode() for key in store.list().result()]
  except ValueError as error:
    raise ValueError(
      f"gs://{url} cannot be reached ({str(error).splitlines()[0][:200]}). "
      "Check the name and the network, or copy the folder to this machine and "
      "give its path."
    ) from error
  # The optimizer's state is twice the model and of no use to a frozen one.
  names = [name for name in names if not _OPTIMIZER.search(name)]
  if not names:
    raise FileNotFoundError(f"There is nothing at gs://{url}.")
  missing = [name for name in names if not (target / name).is_file()]
  # The index comes last, so that a folder with one is whole.
  missing.sort(key=lambda name: (name.endswith("checkpoint"), name))
  for name in tqdm(missing, desc=f"fetch gs://{url}", disable=None):
    value = store.read(name).result().value
    storage.write_atomically(
      target / name, lambda to, value=value: pathlib.Path(to).write_bytes(value)
    )
  return target


def _from_hub(name: str) -> pathlib.Path:
  """The snapshot of a repository in huggingface_hub's cache."""
  from huggingface_hub import errors  # slow to import

  try:
    folder = _snapshot(name, "*.safetensors", "*.safetensors.index.json")
    if not list(folder.glob("*.safetensors")):
      folder = _snapshot(name, "pytorch_model*.bin", "*.bin.index.json")
  except errors.RepositoryNotFoundError as error:
    raise FileNotFoundError(
      f"There is neither a folder {name!r} here nor a public model of this "
      "name on the Hugging Face hub."
    ) from error
  except (errors.LocalEntryNotFoundError, OSError) as error:
    raise ValueError(
      f"There is no folder {name!r} here, and the Hugging Face hub cannot be "
      f"reached to fetch the model of this name ({_reason(error)}). Fetch it "
      "where there is a network (hf download "
      f"{name}) and give the path of the folder."
    ) from error
  return folder


def _snapshot(name: str, *patterns: str) -> pathlib.Path:
  import huggingface_hub

  files = [*_SMALL_FILES, *patterns]
  folder = huggingface_hub.snapshot_download(name, allow_patterns=files)
  return pathlib.Path(folder)


def _reason(error: BaseException) -> str:
  """The first line of the innermost cause."""
  while error.__cause__ is not None:
    error = error.__cause__
  return (str(error).splitlines() or [type(error).__name__])[0][:200]
