"""A seqio task of your own: MRPC's sentence pairs from its tsv files.

MRPC_FOLDER names the folder of msr-para-train.tsv, msr-para-val.tsv and
msr-para-test.tsv; MRPC_VOCABULARY the SentencePiece model of the frozen T5.
"""

import csv
import functools
import os
import pathlib

import seqio
import tensorflow as tf

SPLITS = {"train": "train", "validation": "val", "test": "test"}
LABELS = ("not_equivalent", "equivalent")


def read(split: str, shuffle_files: bool, seed: int | None = None):
  """The rows of one split as a `tf.data.Dataset` of texts."""
  del shuffle_files, seed  # prompt-tuning shuffles by its own seed
  folder = pathlib.Path(os.environ["MRPC_FOLDER"])
  path = folder / f"msr-para-{SPLITS[split]}.tsv"
  with open(path, encoding="utf-8-sig", newline="") as file:
    rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
  return tf.data.Dataset.from_tensor_slices(
    {
      "inputs": [f"sentence1: {row[3]} sentence2: {row[4]}" for row in rows],
      "targets": [LABELS[int(row[0])] for row in rows],
    }
  )


def accuracy(targets, predictions):
  """Percent of predictions that are the right label, word for word."""
  right = sum(t == p for t, p in zip(targets, predictions, strict=True))
  return {"accuracy": 100 * right / len(targets)}


@functools.cache
def vocabulary():
  """T5's vocabulary with its 100 sentinels."""
  return seqio.SentencePieceVocabulary(
    os.environ["MRPC_VOCABULARY"], extra_ids=100
  )


seqio.TaskRegistry.add(
  "my_mrpc",
  source=seqio.FunctionDataSource(read, splits=tuple(SPLITS)),
  preprocessors=[
    seqio.preprocessors.tokenize,
    seqio.preprocessors.append_eos_after_trim,
  ],
  output_features={
    feature: seqio.Feature(vocabulary()) for feature in ("inputs", "targets")
  },
  metric_fns=[accuracy],
)
