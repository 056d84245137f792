"""Pre-training: a run that resumes, and the model that it leaves."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.data import objectives
from prompt_tuning.data.text import Stage
from prompt_tuning.frozen import model_folder, pretrained, stored_model
from prompt_tuning.run_folder import RunFolder
from prompt_tuning.training import pretrain
from prompt_tuning.training.pretrain import Settings

SPANS = objectives.SpanCorruption()


def documents(seed):
  """An endless source: the texts of a seed, cut somewhere."""
  rng = np.random.default_rng(seed)
  while True:
    words = tiny_t5.TEXTS[rng.integers(len(tiny_t5.TEXTS))].split()
    yield " ".join(words[: rng.integers(3, len(words) + 1)])


CONFIG = tiny_t5.config()
SETTINGS = Settings(
  batch_size=4,
  lengths=(8, 8),
  learning_rate=1e-2,
  warmup=2,
  num_documents=0,
  eval_every=3,
)


def model() -> pretrained.FrozenModel:
  params = jax.tree.map(jnp.array, tiny_t5.weights(CONFIG))
  return pretrained.FrozenModel(
    CONFIG,
    params,
    tiny_t5.vocabulary(),
    "tiny",
    stored_model.weights_hash(params),
  )


def stages(first=documents, second=documents, objective=SPANS):
  return [
    Stage(first, objective, 5),
    Stage(second, objectives.PrefixLM(1.0, (31, 32)), 5),
  ]


def run(folder, texts=(), settings=SETTINGS, probes=None, start=None):
  return pretrain.pretrain(
    model_dir=folder,
    start=start or model(),
    stages=stages(*texts),
    settings=settings,
    probes=probes,
  )


def broken():
  """A source whose process dies when its stage begins."""
  calls = iter(["before the first step"])

  def source(seed):
    if next(calls, None) is None:
      raise KeyboardInterrupt
    return documents(seed)

  return source


def left(folder):
  tree, _ = storage.load_tree(folder / "model" / model_folder.WEIGHTS)
  return (folder / "metrics.jsonl").read_bytes(), storage.tree_hash(tree)


def test_a_run_stopped_between_its_stages_and_resumed_is_the_same(tmp_path):
  outcome = run(tmp_path / "whole")
  assert outcome.step == 10
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path / "stopped", (documents, broken()))
  run(tmp_path / "stopped")
  assert left(tmp_path / "stopped") == left(tmp_path / "whole")
  assert RunFolder(tmp_path / "whole").checkpoint_steps() == [9, 10]


def test_a_run_leaves_a_model_that_loads(tmp_path):
  settings = dataclasses.replace(SETTINGS, eval_every=10)
  outcome = run(tmp_path, settings=settings, probes={"text": documents})
  trained = pretrained.load(tmp_path / "model")
  assert trained.config == CONFIG
  assert trained.vocabulary.encode("the cat") == tiny_t5.vocabulary().encode(
    "the cat"
  )
  last = storage.flatten(outcome.last)
  start = storage.flatten(tiny_t5.weights(CONFIG))
  for path, leaf in storage.flatten(trained.params).items():
    np.testing.assert_allclose(leaf, last[path], rtol=1e-3, atol=1e-4)
    assert not np.array_equal(leaf, start[path]), path
  metrics = RunFolder(tmp_path).metrics()
  assert {"step", "prompt", "text"} in [set(row) for row in metrics]
  assert (tmp_path / "curves.png").stat().st_size > 1000


def test_training_goes_on_from_no_other_start(tmp_path):
  run(tmp_path)
  other = dataclasses.replace(model(), stored_hash="another")
  with pytest.raises(ValueError, match="start='another'"):
    run(tmp_path, start=other)


@pytest.mark.parametrize(
  "other",
  [
    (documents, lambda seed: itertools.repeat("the dog ran to a red house")),
    (documents, documents, objectives.SpanCorruption(noise_density=0.3)),
  ],
  ids=["texts", "objective"],
)
def test_training_goes_on_with_no_other_text_or_objective(tmp_path, other):
  run(tmp_path)
  with pytest.raises(ValueError, match="texts and objectives of hash"):
    run(tmp_path, other)


def test_narrow_weights_are_trained_in_float32(tmp_path):
  narrow = dataclasses.replace(
    model(),
    params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), model().params),
  )
  outcome = run(tmp_path, start=narrow)
  assert {leaf.dtype for leaf in jax.tree.leaves(outcome.last)} == {
    np.dtype("float32")
  }


def test_a_model_without_vocabulary_is_refused(tmp_path):
  with pytest.raises(ValueError, match="tiny has no vocabulary"):
    run(tmp_path, start=dataclasses.replace(model(), vocabulary=None))
