"""Where the rows of a benchmark come from, read when a split is first used.

    TFDS, or the benchmark's unzipped download (`use_folder`) -> rows

Besides the splits of the source there are two that are carved from `train`,
for choosing a prompt where `validation` is what one reports: `held_out`, a
tenth of it but about 2,000 rows at most, and `train_part`, the others. Which
row is held out depends on its text alone, so equal texts and the questions
about one passage stay together, and TFDS and the download agree.
"""

from collections.abc import Mapping
import dataclasses
import logging
import os
import pathlib
import zlib

import numpy as np

from prompt_tuning.tables import Row
from prompt_tuning.tasks.answers import text_of
from prompt_tuning.tasks.rows import official

HELD_OUT, TRAIN_PART = "held_out", "train_part"
_MOST_HELD_OUT = 2000

_folders: dict[str, pathlib.Path] = {}


def use_folder(folder: str | os.PathLike) -> list[str]:
  """Reads a benchmark from its unzipped download instead of TFDS.

  Args:
    folder: that of GLUE or SuperGLUE, or of one of their tasks (`BoolQ`).

  Returns:
    The tasks that were found, as `glue_mrpc` or `super_glue_boolq`.

  Raises:
    ValueError: the folder holds no task of theirs.
  """
  whole = pathlib.Path(os.path.abspath(folder))  # "." has a name
  tasks = list(official.recognise(whole))
  if not tasks:
    known = dict.fromkeys(
      n for b in official.FOLDERS.values() for n in b.values()
    )
    raise ValueError(
      f"{whole} is no download folder of GLUE or SuperGLUE. It must hold, or "
      f"be, one of {', '.join(known)}, with the official files in it."
    )
  _folders.update({benchmark: parent for benchmark, parent, _ in tasks})
  return [f"{b}_{task.partition('.')[0]}" for b, _, task in tasks]


def unit_hash(text: str) -> float:
  """A number in [0, 1) that depends on a text alone."""
  return zlib.crc32(text.encode("utf-8")) / 2**32


def forget_folders() -> None:
  """Reads from TFDS again."""
  _folders.clear()


@dataclasses.dataclass(frozen=True)
class Source:
  """One configuration of a data set.

  Attributes:
    name: its name in TFDS with the version, `glue/mrpc:2.0.0`.
    splits: names of splits, each with the split of TFDS.
    key: the field that says which rows belong together when some are held out;
      a row is on its own without it.
    train_rows: how many rows `train` has; 0 without that split.
  """

  name: str
  splits: Mapping[str, str]
  key: str | None = None
  train_rows: int = 0

  @property
  def all_splits(self) -> tuple[str, ...]:
    """The splits, the carved ones included."""
    carved = (TRAIN_PART, HELD_OUT) if "train" in self.splits else ()
    return (*self.splits, *carved)

  def rows(self, split: str) -> list[Row]:
    """The rows of a split, texts as str.

    Raises:
      FileNotFoundError: the download folder lacks the file.
      ValueError: TFDS has not the data and cannot fetch it; or a bad row.
    """
    if split not in (HELD_OUT, TRAIN_PART):
      return self._read(self.splits[split])
    rows = self._read(self.splits["train"])
    limit = min(0.1, _MOST_HELD_OUT / max(self.train_rows, 1))
    is_wanted = split == HELD_OUT
    return [row for row in rows if (self._draw(row) < limit) == is_wanted]

  def _draw(self, row: Row) -> float:
    """A number in [0, 1) that depends on the row's text."""
    texts = [v for _, v in sorted(row.items()) if isinstance(v, str)]
    text = row[self.key] if self.key else "\n".join(texts)
    return unit_hash(text)

  def _read(self, split: str) -> list[Row]:
    dataset, _, config = self.name.partition(":")[0].partition("/")
    if dataset in _folders:
      return official.read(_folders[dataset], dataset, config, split)
    import tensorflow_datasets as tfds  # takes seconds

    return [
      _plain(row)
      for row in tfds.as_numpy(_builder(self.name).as_dataset(split=split))
    ]


def _builder(name: str):
  """A data set of TFDS, fetched if it is not there yet."""
  import tensorflow_datasets as tfds

  folder = os.environ.get("TFDS_DATA_DIR")
  builder = tfds.builder(name, data_dir=folder)
  if not builder.is_prepared():
    logging.getLogger(__name__).warning(
      "TFDS fetches %s into %s (without a network it tries for minutes).",
      *(name, builder.data_path),
    )
  try:
    # Returns at once if it is prepared. A copy in the cloud is not asked for:
    # without a network that alone would take minutes.
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
  except Exception as error:  # whatever the network and the files answer
    raise ValueError(_advice(name, builder, error)) from error
  return builder


def _advice(name: str, builder, error: Exception) -> str:
  """What to fetch, and where to put it."""
  dataset = name.partition("/")[0]
  reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
  other = ""
  if dataset in official.FOLDERS:
    other = " Or unzip the benchmark's official download and give its folder "
    other += "with --data."
  # The end of the path: the data set, its configuration if any, its version.
  depth = 3 if builder.builder_config else 2
  inside = "/".join(builder.data_path.parts[-depth:])
  return (
    f"The data set {name} is not in {builder.data_path} and could not be "
    f'fetched ({reason}). On a machine with a network run python -c "import '
    f"tensorflow_datasets as tfds; tfds.builder('{name}')"
    f'.download_and_prepare()" and copy ~/tensorflow_datasets/{inside} to '
    f"{builder.data_path}; TFDS_DATA_DIR names another place to look in."
    f"{other}"
  )


def _plain(value):
  """TFDS's arrays and bytes as plain Python."""
  if isinstance(value, dict):
    return {name: _plain(part) for name, part in value.items()}
  if isinstance(value, np.ndarray):
    return [_plain(part) for part in value]
  if isinstance(value, bytes):
    return text_of(value)
  return value.item() if isinstance(value, np.generic) else value
