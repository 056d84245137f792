"""The training data of a t5x run: the embedded engine's examples in its order.

    task -> examples in memory -> order of a seed -> PromptConverter -> batches

The order is a function of seed and step. A resumed run goes on where its last
checkpoint stood, a global batch is the same on one host and on many, and both
engines see the same batches.
"""

import atexit
from collections.abc import Iterator, Mapping
import functools
import gc
import importlib
import sys
from typing import TYPE_CHECKING

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data import batches, registry, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer
from prompt_tuning.tasks import features as task_features

if TYPE_CHECKING:
  from t5x import utils


@functools.lru_cache(4)
def _examples(name: str, split: str, lengths: tuple) -> list:
  """The tasks of a task or mixture with their rates, in memory."""
  return [
    (splits.load(member, split, dict(lengths)), rate)
    for member, rate in registry.tasks_of(name)
  ]


def examples(
  name: str, split: str, lengths: Mapping[str, int], module: str | None = None
) -> list[tuple[splits.Examples, float]]:
  """The tasks of a task or mixture with their rates; read once.

  Args:
    name: MIXTURE_OR_TASK_NAME.
    split: a split of it.
    lengths: TASK_FEATURE_LENGTHS.
    module: MIXTURE_OR_TASK_MODULE, which registers it.
  """
  if module:
    importlib.import_module(module)
  return _examples(name, split, tuple(sorted(lengths.items())))


def get_dataset(
  cfg: "utils.DatasetConfig",
  shard_id: int,
  num_shards: int,
  feature_converter_cls,
  *,
  model_dir: str,
) -> tf.data.Dataset:
  """What t5x.train calls for its batches, from the step of `model_dir` on.

  Args:
    cfg: the task, and how it is batched and packed; its seed makes the order.
    shard_id: which part of each global batch this host reads.
    num_shards: in how many parts a global batch is read.
    feature_converter_cls: the model's.
    model_dir: the run's folder, to go on from its last checkpoint.

  Raises:
    ValueError: the batch cannot be divided, or there is no seed.
  """
  from t5x import checkpoints

  if cfg.batch_size % num_shards:
    raise ValueError(
      f"BATCH_SIZE={cfg.batch_size} cannot be divided among the {num_shards} "
      f"hosts that read data. Set it to a multiple of {num_shards}."
    )
  if cfg.seed is None:
    raise ValueError(
      "The seed of the training data is None, so a resumed run would see other "
      "examples. Set SEEDS=(0,)."
    )
  _end_with_the_run()
  parts = examples(
    str(cfg.mixture_or_task_name),
    cfg.split,
    cfg.task_feature_lengths,
    cfg.module,
  )
  step = checkpoints.latest_step(model_dir) or 0
  size = cfg.batch_size // num_shards
  if cfg.pack:  # how many examples a batch holds is seen by packing them
    places = _every(shard_id, num_shards)
  else:
    places = _blocks(step * cfg.batch_size, size, shard_id, num_shards)
  rows = tf.data.Dataset.from_generator(
    functools.partial(_rows, parts, cfg.seed, places),
    output_signature={
      feature: tf.TensorSpec([None], tf.int32)
      for feature in ("inputs", "targets")
    },
  )
  convert = feature_converter_cls(
    pack=cfg.pack, use_custom_packing_ops=cfg.use_custom_packing_ops
  )
  batches = convert(rows, cfg.task_feature_lengths).batch(
    size, drop_remainder=True
  )
  batches = batches.skip(step) if cfg.pack else batches
  return batches.prefetch(tf.data.AUTOTUNE)


@functools.cache
def _end_with_the_run() -> None:
  """Has the data set taken down while Python still runs.

  A run that ends by an error keeps its iterator in the error's frames, up to
  where the interpreter is taken down. TensorFlow's threads that ask `_rows` for
  more can no longer enter Python then, the iterator waits for them, and the
  process never ends. Functions of `atexit` are called just before.
  """

  def let_go() -> None:
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
      if hasattr(sys, name):
        delattr(sys, name)
    gc.collect()

  atexit.register(let_go)


def _every(shard: int, shards: int):
  def places() -> Iterator[int]:
    place = shard
    while True:
      yield place
      place += shards

  return places


def _blocks(first: int, size: int, shard: int, shards: int):
  """The places of one host's block of each global batch."""

  def places() -> Iterator[int]:
    start = first + shard * size
    while True:
      yield from range(start, start + size)
      start += size * shards

  return places


def _rows(parts, seed: int, places) -> Iterator[dict[str, np.ndarray]]:
  """Examples without padding, in the order of `batches.TaskBatches`."""
  one = batches.TaskBatches([parts], [seed], batch_size=1, prompt_length=0)
  for place in places():
    batch = one(place)
    yield {
      feature: np.trim_zeros(batch[feature][0], "b")
      for feature in ("inputs", "targets")
    }


def validation_set(
  *,
  mixture_or_task_name: str,
  task_feature_lengths: Mapping[str, int],
  split: str | None,
  batch_size: int,
  module: str | None = None,
  target_length: int | None = None,
) -> "utils.DatasetConfig | None":
  """What is predicted and scored while training; None without a split."""
  if split is None:
    return None
  from t5x import utils

  return utils.DatasetConfig(
    mixture_or_task_name,
    prediction_lengths(task_feature_lengths, target_length),
    split,
    batch_size,
    shuffle=False,
    seed=0,
    pack=False,
    module=module,
  )


def prediction_lengths(
  task_feature_lengths: Mapping[str, int], target_length: int | None = None
) -> dict[str, int]:
  """TASK_FEATURE_LENGTHS with TARGET_LENGTH as that of the targets.

  t5x predicts as many tokens as targets have places.
  """
  length = infer.target_length(task_feature_lengths, target_length)
  return {**task_feature_lengths, "targets": length}


def vocabulary(
  path: str, extra_ids: int = 100
) -> seqio.SentencePieceVocabulary | seqio.ByteVocabulary:
  """A seqio vocabulary; this package's benchmark tasks are read with it too.

  Args:
    path: a SentencePiece model; 'bytes' for ByT5; 'microworld' for the model
      that ships.
    extra_ids: the sentinels behind its pieces.
  """
  if path == pretrained.SHIPPED:
    path = pretrained.shipped_vocabulary(path, extra_ids).path
  return task_features.use(path, extra_ids)


def one_seed(seeds) -> int:
  """The seed of a run under t5x, which trains one prompt.

  Raises:
    ValueError: there are several.
  """
  found = [seeds] if isinstance(seeds, int) else list(seeds)
  if len(found) != 1:
    raise ValueError(
      f"SEEDS={seeds!r} names {len(found)} seeds; a run under t5x trains one "
      "prompt. Start one run for each, or use `prompt-tuning train`."
    )
  return found[0]
