"""Toy tasks in seqio, and a toy frozen model that prompts are trained on."""

import functools

import numpy as np
import seqio
import tensorflow as tf
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained, stored_model
from prompt_tuning.model import forms
from prompt_tuning.prompts import initializers
from prompt_tuning.tasks.rows import text_to_text
from prompt_tuning.training import loop, optimizers, train

LENGTHS = {"inputs": 24, "targets": 8}
CAT, DOG, BROKEN = "toy_cat", "toy_dog", "toy_broken"
CAT_IN_SEQIO = "toy_cat_in_seqio"
SIZES = {"train": 48, "validation": 12, "test": 12, "nothing": 0}
WORDS = "the cat sat on mat a dog ran to red house down".split()


def _texts(name: str, split: str) -> list[dict[str, str]]:
  """Rows of words; the target says whether the task's animal is among them."""
  name = CAT if name == CAT_IN_SEQIO else name
  animal = "dog" if name == DOG else "cat"
  rng = np.random.default_rng(sum(map(ord, name + split)))
  rows = []
  for _ in range(SIZES[split]):
    words = list(rng.choice(WORDS, 5))
    rows.append(
      {
        "inputs": " ".join(words),
        "targets": "yes" if animal in words else "no",
      }
    )
  if name == BROKEN and rows:
    rows[3]["inputs"] = ""
  return rows


def _dataset(split, shuffle_files, seed=None, *, name):
  del shuffle_files, seed
  rows = _texts(name, split)
  columns = {key: [row[key] for row in rows] for key in ("inputs", "targets")}
  return tf.data.Dataset.from_tensor_slices(
    {key: tf.constant(value, tf.string) for key, value in columns.items()}
  )


def accuracy(targets, predictions):
  """Percent of equal texts."""
  right = [t == p for t, p in zip(targets, predictions, strict=True)]
  return {"accuracy": 100 * sum(right) / len(right)}


def _in_seqio(name: str) -> None:
  vocabulary = seqio.SentencePieceVocabulary(tiny_t5.vocabulary().path, 10)
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(
      functools.partial(_dataset, name=name), splits=tuple(SIZES)
    ),
    preprocessors=[
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={feature: seqio.Feature(vocabulary) for feature in LENGTHS},
    metric_fns=[accuracy],
  )


def _without_tensorflow(name: str) -> None:
  text_to_text.add(
    text_to_text.TextToText(
      name,
      functools.partial(_texts, name),
      tuple(SIZES),
      scores=(accuracy,),
      vocabulary=tiny_t5.vocabulary(),
    )
  )


# TensorFlow compiles the pipeline of a task of seqio's in every run.
if CAT not in text_to_text.names():
  _without_tensorflow(CAT)
  _without_tensorflow(DOG)
  for _name in (CAT_IN_SEQIO, BROKEN):
    _in_seqio(_name)
  seqio.MixtureRegistry.add("toy_animals", [(CAT, 3), (DOG, 1)])


def model(seed: int = 0, config=None) -> pretrained.FrozenModel:
  """A T5 of random weights with the vocabulary of the toy tasks."""
  config = config or tiny_t5.config()
  params = tiny_t5.weights(config, seed)
  return pretrained.FrozenModel(
    config,
    params,
    tiny_t5.vocabulary(),
    "toy",
    stored_model.weights_hash(params),
  )


def held(params, dtype):
  """A tree of weights in int8 or int4."""
  return storage.unflatten(
    {
      name: part
      for path, leaf in storage.flatten(params).items()
      for name, part in forms.quantized.parts(path, leaf, dtype).items()
    }
  )


def tasks(names=CAT, **changes) -> train.Tasks:
  """The toy tasks, 8 examples a step."""
  settings = {"task_feature_lengths": LENGTHS, "batch_size": 8, **changes}
  return train.Tasks(names, **settings)


def tuning(**changes) -> train.Tuning:
  """Prompt tuning of 4 positions."""
  settings = {
    "optimizer": optimizers.adafactor(),
    "prompt_length": 4,
    "initializer": initializers.from_vocabulary(),
  }
  return train.Tuning(**{**settings, **changes})


def run(
  folder,
  names=CAT,
  *,
  steps=12,
  tuned=None,
  plan=None,
  decoding=None,
  **changes,
):
  """`train.train` on the toy model and tasks."""
  return train.train(
    model_dir=folder,
    model=changes.pop("model", model()),
    tasks=tasks(names, **changes),
    tuning=tuned or tuning(),
    plan=plan or loop.Plan(steps, eval_every=4, steps_per_dispatch=2),
    decoding=decoding,
  )


def once(tmp_path_factory, make):
  """From a name to what `make(folder, name)` returned, and its folder."""

  @functools.cache
  def made(name: str):
    folder = tmp_path_factory.mktemp(name)
    return make(folder, name), folder

  return made
