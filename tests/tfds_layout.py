"""Small data sets in the layout of TFDS, written by TFDS itself."""

import functools
import pathlib

import tensorflow_datasets as tfds

# What TFDS wants of a row of MRQA and no task reads.
_MRQA = {
  "subset": "s",
  "context_tokens": [],
  "question_tokens": [],
  "detected_answers": [],
}


@functools.cache
def _features(name: str):
  return tfds.builder(name, data_dir="/nowhere").info.features


def write(folder: pathlib.Path, name: str, splits: dict[str, list]) -> None:
  """Writes splits of a data set, such as `glue/mrpc:2.0.0`, into a folder."""
  whole, version = name.split(":")
  dataset, _, config = whole.partition("/")
  if dataset == "mrqa":
    splits = {split: [*map(_mrqa, rows)] for split, rows in splits.items()}
  tfds.dataset_builders.store_as_tfds_dataset(
    name=dataset,
    config=config or None,
    version=version,
    data_dir=folder,
    features=_features(name),
    split_datasets={
      split: list(enumerate(rows)) for split, rows in splits.items()
    },
    disable_shuffling=True,
  )


def _mrqa(row: dict) -> dict:
  """A row with the fields of SQuAD as one of MRQA."""
  return {
    **_MRQA,
    "qid": row["id"],
    "question": row["question"],
    "context": row["context"],
    "answers": row["answers"]["text"],
  }
