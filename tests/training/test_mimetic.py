import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained, stored_model
from prompt_tuning.model import t5gemma
from prompt_tuning.model.t5gemma import grouped
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


def test_mimetic_weights_of_two_widths_are_those_of_the_encoder():
  """Its attention, and its words; cross-attention cannot be so."""
  config = tiny_t5.gemma()
  model = toy_tasks.model(config=config)
  after = mimetic.mimetic(model)
  stored_model.check_tree(after.params, config, "mimetic")
  old, new = storage.flatten(model.params), storage.flatten(after.params)
  changed = {path for path in old if not np.array_equal(old[path], new[path])}
  assert changed == {
    "token_embedder/embedding",
    *(
      f"encoder/layers_{i}/attention/{part}/kernel"
      for i in range(2)
      for part in ("query", "key", "out")
    ),
  }
  value = new["encoder/layers_0/attention/value/kernel"].reshape(16, 2, 6)
  out = new["encoder/layers_0/attention/out/kernel"].reshape(2, 2, 6, 16)
  np.testing.assert_array_equal(np.moveaxis(out[:, 0], -1, 0), value)


@pytest.mark.parametrize("groups", [2, 4])
def test_mimetic_heads_look_at_equal_words_and_at_near_places(groups):
  """Of an encoder, though its attention has no position bias."""
  width, heads, size = 64, 4, 16
  stack = t5gemma.Stack(width, heads, groups, size, 128, 2)
  config = t5gemma.T5GemmaConfig(encoder=stack, decoder=stack, vocab_size=99)
  new = storage.flatten(mimetic.mimetic(pretrained.random(config)).params)
  ids = np.array([*range(3, 15), *range(3, 15)])  # twelve words, twice
  x = new["token_embedder/embedding"][ids]
  x = x / np.sqrt(np.square(x).mean(-1, keepdims=True))
  query, key = (
    grouped.rotated(
      (x @ new[f"encoder/layers_0/attention/{part}/kernel"]).reshape(
        1, len(ids), count, size
      ),
      *(np.array([0]), stack.rope_base),
    )[0]
    for part, count in (("query", heads), ("key", groups))
  )
  key = np.repeat(key, heads // groups, axis=1)
  scores = np.einsum("qhd,shd->hqs", query, key) / size**0.5
  weights = np.asarray(jax.nn.softmax(scores))
  for head in (0, 2):
    again = (np.diagonal(weights[head], d).mean() for d in (-12, 12))
    own = np.diagonal(weights[head]).mean()
    assert min(again) > max(0.15, 3 * own)
  behind, ahead = (
    [sum(np.diagonal(w, side * d).mean() for d in (1, 2)) for w in weights]
    for side in (-1, 1)
  )
  for near, other in ((behind[1], ahead[1]), (ahead[3], behind[3])):
    assert near > 0.15 and near > 3 * other
