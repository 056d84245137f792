import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tiny_t5
import toy_tasks

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained, stored_model
from prompt_tuning.training import mimetic


def test_mimetic_weights_make_equal_words_attend_to_each_other():
  given = toy_tasks.model()
  before = dataclasses.replace(
    given, params=jax.tree.map(jnp.asarray, given.params)
  )
  after = mimetic.mimetic(before)
  stored_model.check_tree(after.params, before.config, "mimetic")
  assert after.stored_hash == stored_model.weights_hash(after.params)
  old, new = storage.flatten(before.params), storage.flatten(after.params)
  changed = {path for path in old if not np.array_equal(old[path], new[path])}
  attentions = (
    "encoder/layers_0/attention",
    "decoder/layers_0/encoder_decoder_attention",
  )
  assert changed == {
    "encoder/relpos_bias/rel_embedding",
    "decoder/logits_dense/kernel",
    *(f"{at}/{part}/kernel" for at in attentions for part in ("key", "out")),
  }
  for at in attentions:
    query, key = new[f"{at}/query/kernel"], new[f"{at}/key/kernel"]
    # The first of two heads looks for equal words, the other is as it was.
    np.testing.assert_allclose(key[:, :8], query[:, :8] * 8**0.5, rtol=1e-6)
    np.testing.assert_array_equal(key[:, 8:], old[f"{at}/key/kernel"][:, 8:])
    np.testing.assert_array_equal(
      new[f"{at}/out/kernel"], new[f"{at}/value/kernel"].T
    )
  assert new["encoder/relpos_bias/rel_embedding"][0].argmin() == 0
  np.testing.assert_allclose(
    new["decoder/logits_dense/kernel"],
    new["token_embedder/embedding"].T / 4,
    rtol=1e-6,
  )


def test_stacked_layers_are_taken_apart_first():
  config = tiny_t5.config()
  plain, stacked = (
    mimetic.mimetic(pretrained.random(config, stack_layers=choice))
    for choice in (False, True)
  )
  assert plain.stored_hash == stacked.stored_hash
