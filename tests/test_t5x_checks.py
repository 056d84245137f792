"""What is checked and written around a t5x run; none of it needs t5x."""

import jax
import numpy as np
import pytest
import seqio
import tiny

from prompt_tuning import (
  storage,
  t5x_data,
  t5x_features,
  t5x_prompts,
  t5x_restore,
)

P = 3


def test_dropout_beside_a_prompt_is_refused():
  t5x_features.check_dropout(0.0)
  with pytest.raises(ValueError, match="DROPOUT_RATE=0.1: a frozen model"):
    t5x_features.check_dropout(0.1)


def test_a_vocabulary_larger_than_the_embedding_is_refused():
  vocabulary = seqio.SentencePieceVocabulary(tiny.vocabulary().path, 10)
  t5x_features.check_vocabulary(vocabulary, vocabulary.vocab_size)
  with pytest.raises(ValueError, match="ids, the embedding .* has 40 rows"):
    t5x_features.check_vocabulary(vocabulary, 40)


def saved_state(values: np.ndarray, step: int) -> dict:
  """What t5x hands to the functions that it calls when it saves."""
  prompt = {"embedding": jax.numpy.asarray(values)}
  return {
    "target": {"prompt": prompt, "token_embedder": {}},
    "state": {"step": jax.numpy.asarray(step)},
  }


@pytest.mark.parametrize("place", ["folder", "ram://bucket/run"])
def test_the_prompt_is_written_and_read_in_folders_and_buckets(place, tmp_path):
  in_bucket = "://" in place
  place = place if in_bucket else str(tmp_path / place)
  save = t5x_prompts.save_at_checkpoints(place, {"task": "a_task"})
  # TensorFlow's ram:// appends where a disk or a bucket overwrites.
  for step in (3,) if in_bucket else (3, 6):
    values = tiny.rows(P, 16, seed=step)
    state = saved_state(values, step)
    assert save(state, "infos") == (state, "infos")
    for folder in (place, f"{place}/prompts/{step}"):
      initial = t5x_prompts.from_file(folder)
      found = initial(jax.random.PRNGKey(0), (P, 16))
      np.testing.assert_array_equal(found, values)
      assert t5x_prompts.length(folder, "") == P
  if in_bucket:
    assert t5x_prompts.length(None, f"{place}/checkpoint_3") == P
    assert t5x_prompts.length(None, f"{place}/checkpoint_4") == 0


def test_a_prompt_of_another_length_is_refused(tmp_path):
  save = t5x_prompts.save_at_checkpoints(tmp_path)
  save(saved_state(tiny.rows(P, 16), 1), None)
  with pytest.raises(ValueError, match=f"Set PROMPT_LENGTH={P}"):
    t5x_prompts.from_file(tmp_path)(jax.random.PRNGKey(0), (P + 1, 16))


def test_without_a_prompt_nothing_is_written(tmp_path):
  save = t5x_prompts.save_at_checkpoints(tmp_path)
  state = {"target": {"token_embedder": {}}, "state": {}}
  assert save(state, None) == (state, None)
  assert not list(tmp_path.iterdir())


HAVE = {"target/a/kernel": (2, 3), "target/b/scale": (4,), "state/step": ()}


def restored(missing=(), want=(), **options):
  """What `Restore` takes of a checkpoint with the names of HAVE."""
  restore = t5x_restore.Restore(
    "gs://somewhere", **{"new_prompt": True, "keep_step": False, **options}
  )
  have = {k: np.zeros(v) for k, v in HAVE.items() if k not in missing}
  have["state/param_states/a"] = np.zeros(1)
  wanted = {**HAVE, **dict(want), "state/param_states/c": (1,)}
  shapes = {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in wanted.items()}
  return set(
    storage.flatten(restore(storage.unflatten(have), storage.unflatten(shapes)))
  )


NEW = {"target/prompt/embedding": (P, 16)}.items()


def test_of_a_base_checkpoint_the_network_alone_is_taken():
  network_alone = {"target/a/kernel", "target/b/scale"}
  assert restored(want=NEW) == network_alone
  assert restored(keep_step=True) == network_alone | {"state/step"}


def test_nothing_but_the_prompt_may_be_new():
  with pytest.raises(ValueError, match="no parameter b/scale .1 of 2"):
    restored(missing=["target/b/scale"], want=NEW)
  with pytest.raises(ValueError, match="holds no prompt. Set PROMPT_PATH"):
    restored(want=NEW, new_prompt=False)
  with pytest.raises(ValueError, match=r"shape \(4,\).* needs \(5,\)"):
    restored(want={"target/b/scale": (5,)}.items())


def test_a_run_is_not_resumed_with_another_prompt_length(tmp_path):
  t5x_prompts.save_at_checkpoints(tmp_path)(
    saved_state(tiny.rows(P, 16), 1), None
  )
  restore = t5x_restore.Restore("gs://somewhere", model_dir=tmp_path)

  def resumed(length):
    state = {"target": {"prompt": {"embedding": np.zeros((length, 16))}}}
    return restore(state, state, is_resuming=True)

  resumed(P)
  with pytest.raises(ValueError, match=f"Set PROMPT_LENGTH={P}, or another"):
    resumed(P + 2)


@pytest.mark.parametrize("job", ["training", "inference"])
def test_a_missing_checkpoint_is_named(job, tmp_path):
  restore = getattr(t5x_restore, f"for_{job}")
  with pytest.raises(ValueError, match="no checkpoint of t5x at '.*nowhere'"):
    restore(tmp_path / "nowhere", str(tmp_path))


def test_a_seed_is_one():
  assert t5x_data.one_seed(3) == t5x_data.one_seed((3,)) == 3
  with pytest.raises(ValueError, match="names 2 seeds"):
    t5x_data.one_seed((0, 1))
