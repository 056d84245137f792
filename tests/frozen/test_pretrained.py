"""The frozen model's folder: it comes back, and what does not fit is named."""

import functools
import json
import re
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.frozen import model_folder, pretrained, stored_model
from prompt_tuning.vocabulary import Vocabulary

WEIGHTS = model_folder.WEIGHTS
CONFIG = tiny_t5.config(num_encoder_layers=2)


def params():
  return tiny_t5.weights(CONFIG)


@pytest.fixture
def folder(tmp_path):
  return model_folder.save(
    tmp_path / "model", CONFIG, params(), vocabulary=tiny_t5.vocabulary()
  )


def equal(one, two):
  one, two = storage.flatten(one), storage.flatten(two)
  assert one.keys() == two.keys()
  for path in one:
    np.testing.assert_array_equal(one[path], two[path], path)


def dtypes(tree):
  return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def test_a_model_comes_back_with_config_and_vocabulary(folder):
  model = pretrained.load(folder)
  assert model.config == CONFIG
  equal(model.params, params())
  assert dtypes(model.params) == {"float32"}
  assert model.source == str(folder)
  text = tiny_t5.TEXTS[0]
  assert model.vocabulary.encode(text) == tiny_t5.vocabulary().encode(text)
  assert model.vocabulary.size == tiny_t5.vocabulary().size
  np.testing.assert_array_equal(
    model.embedding, params()["token_embedder"]["embedding"]
  )
  assert model.num_parameters == sum(
    leaf.size for leaf in jax.tree.leaves(params())
  )


def test_every_field_of_the_configuration_comes_back(tmp_path):
  config = tiny_t5.config(
    mlp_activations=("relu",),
    logits_via_embedding=True,
    scale_logits=False,
    relpos_buckets=4,
    relpos_max_distance=8,
    layer_norm_epsilon=1e-5,
    dropout_rate=0.1,
    dtype="bfloat16",
  )
  model_folder.save(tmp_path, config, tiny_t5.weights(config))
  assert pretrained.load(tmp_path).config == config


def test_a_model_without_vocabulary_is_a_model(tmp_path):
  model_folder.save(tmp_path, CONFIG, params())
  assert pretrained.load(tmp_path).vocabulary is None


def test_saving_again_over_the_same_folder_keeps_the_vocabulary(folder):
  model = pretrained.load(folder)
  model_folder.save(folder, CONFIG, model.params, vocabulary=model.vocabulary)
  again = pretrained.load(folder)
  assert again.vocabulary.encode("the cat") == model.vocabulary.encode(
    "the cat"
  )
  equal(again.params, params())


def rounded(dtype):
  return jax.tree.map(
    lambda leaf: np.asarray(jnp.asarray(leaf, dtype)).astype(np.float32),
    params(),
  )


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_weights_may_be_stored_in_half_the_bytes(tmp_path, stored):
  model_folder.save(tmp_path / "full", CONFIG, params())
  model_folder.save(tmp_path / "half", CONFIG, params(), dtype=stored)
  sizes = [
    (tmp_path / name / model_folder.WEIGHTS).stat().st_size
    for name in ("full", "half")
  ]
  saved = 2 * sum(leaf.size for leaf in jax.tree.leaves(params()))
  assert sizes[0] - sizes[1] == pytest.approx(saved, rel=0.02)
  model = pretrained.load(tmp_path / "half")
  # float16 is a storage format only; bfloat16 stays what it is.
  loaded = "float32" if stored == "float16" else "bfloat16"
  assert dtypes(model.params) == {loaded}
  floats = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model.params)
  equal(floats, rounded(stored))
  assert model.embedding.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_cast_when_asked(folder, dtype):
  model = pretrained.load(folder, dtype=dtype)
  assert dtypes(model.params) == {dtype}
  floats = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model.params)
  equal(floats, rounded(dtype))
  assert model.stored_hash == pretrained.load(folder).stored_hash


def test_the_hash_of_weights_is_that_of_their_values():
  same = rounded("bfloat16")
  as_bfloat16 = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), same)
  hashes = stored_model.weights_hash(same)
  assert stored_model.weights_hash(as_bfloat16) == hashes
  assert stored_model.weights_hash(params()) != hashes


@pytest.mark.parametrize("path", ["encoder/encoder_norm/scale"])
def test_the_hash_of_weights_sees_values_shapes_and_paths(path):
  flat = storage.flatten(params())
  moved = {f"{k}x" if k == path else k: v for k, v in flat.items()}
  shaped = {**flat, path: flat[path].reshape(2, 8)}
  nudged = {**flat, path: np.nextafter(flat[path], 9, dtype=np.float32)}
  hashes = {
    stored_model.weights_hash(storage.unflatten(tree))
    for tree in (flat, moved, shaped, nudged)
  }
  assert len(hashes) == 4


# What does not fit.


def test_a_missing_folder_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="nothing.*'microworld'"):
    pretrained.load(tmp_path / "nothing")


@pytest.mark.parametrize("name", [model_folder.CONFIG, model_folder.WEIGHTS])
def test_a_missing_file_is_named(folder, name):
  (folder / name).unlink()
  with pytest.raises(FileNotFoundError, match=f"model has no {name}"):
    pretrained.load(folder)


def test_damaged_weights_are_refused_by_name(folder):
  weights = folder / model_folder.WEIGHTS
  weights.write_bytes(weights.read_bytes()[:-100])
  with pytest.raises(ValueError, match="weights.safetensors.*truncated"):
    pretrained.load(folder)


def reconfigured(folder, **changes):
  """The folder with other settings; None takes one away.

  As 0.1.0 wrote it: the weights have no hash of the files beside them.
  """
  weights = folder / model_folder.WEIGHTS
  storage.save_tree(weights, storage.load_tree(weights)[0])
  path = folder / model_folder.CONFIG
  settings = {**json.loads(path.read_text()), **changes}
  kept = {k: v for k, v in settings.items() if v is not None}
  path.write_text(json.dumps(kept))


@pytest.mark.parametrize(
  "changes, word",
  [({"emb_dim": None}, "emb_dim"), ({"embdim": 16}, "embdim")],
)
def test_a_configuration_with_a_field_too_few_or_too_many_is_refused(
  folder, changes, word
):
  reconfigured(folder, **changes)
  with pytest.raises(ValueError, match=f"config.json .*{word}"):
    pretrained.load(folder)


@pytest.mark.parametrize("name", [model_folder.CONFIG, model_folder.VOCABULARY])
def test_a_file_beside_the_weights_that_was_changed_or_lost_is_refused(
  folder, name
):
  content = (folder / name).read_bytes()
  (folder / name).write_bytes(content.replace(b"a", b"b", 1))
  with pytest.raises(ValueError, match=f"{name} is not what was written with"):
    pretrained.load(folder)
  (folder / name).unlink()
  with pytest.raises(FileNotFoundError, match=name):
    pretrained.load(folder)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"emb_dim": 0}, "emb_dim=0; it must be a whole number of 1 or more"),
    ({"emb_dim": True}, "emb_dim=true"),
    ({"num_heads": "2"}, 'num_heads="2"'),
    ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon=NaN"),
    ({"logits_via_embedding": 1}, "logits_via_embedding=1; it must be true or"),
    ({"mlp_activations": "gelu"}, "mlp_activations=.*a list of texts"),
    ({"mlp_activations": ["gelu", "cosine"]}, "has 'cosine'; known are"),
    ({"relpos_max_distance": 16}, "must be more than half of relpos_buckets"),
    ({"dropout_rate": "none"}, "dropout_rate"),
    ({"extra_ids": True}, "extra_ids=true"),
  ],
)
def test_a_configuration_that_makes_no_sense_is_refused_by_its_key(
  folder, changes, message
):
  reconfigured(folder, **changes)
  with pytest.raises(ValueError, match=f"config.json.*{message}"):
    pretrained.load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_its_name(folder, value):
  weights = folder / model_folder.WEIGHTS
  tree, _ = storage.load_tree(weights)
  tree["decoder"]["layers_0"]["mlp"]["wo"]["kernel"][3, 5] = value
  storage.save_tree(weights, tree)
  message = "decoder/layers_0/mlp/wo/kernel.* NaN or infinity in 1 of"
  for read in (
    pretrained.load,
    lambda path: pretrained.open_model(path).hash(),
  ):
    with pytest.raises(ValueError, match=message):
      read(folder)


@pytest.mark.parametrize("content", ["[1, 2]", "null", '"T5"', "{"])
def test_a_configuration_that_is_no_object_is_refused(folder, content):
  (folder / model_folder.CONFIG).write_text(content)
  with pytest.raises(ValueError, match="config.json"):
    pretrained.load(folder)


@pytest.mark.parametrize(
  "changes, words",
  [
    (
      {"num_encoder_layers": 3},
      ["has no tensor encoder/layers_2/", "9 of", "/model"],
    ),
    (
      {"num_encoder_layers": 1},
      ["is a tensor encoder/layers_1/", "9 such", WEIGHTS],
    ),
    ({"mlp_dim": 33}, ["mlp/", "(16, 32)", "(16, 33)", WEIGHTS]),
    ({"logits_via_embedding": True}, ["decoder/logits_dense/kernel", WEIGHTS]),
  ],
  ids=str,
)
def test_weights_of_another_shape_than_the_configuration_are_refused(
  folder, changes, words
):
  reconfigured(folder, **changes)
  with pytest.raises(ValueError) as caught:
    pretrained.load(folder)
  for word in words:
    assert word in str(caught.value)


def test_a_vocabulary_of_more_ids_than_the_model_embeds_is_refused(folder):
  larger = Vocabulary(tiny_t5.vocabulary().path, extra_ids=99)
  message = rf"{larger.size} ids, 99 sentinels.* embeds {CONFIG.vocab_size}"
  with pytest.raises(ValueError, match=message):
    pretrained.load(folder, vocabulary=larger)
  with pytest.raises(ValueError, match=message):
    pretrained.random(CONFIG, larger)
  with pytest.raises(ValueError, match="EXTRA_IDS=-1; give the number"):
    Vocabulary(tiny_t5.vocabulary().path, extra_ids=-1)


def test_another_model_than_the_run_asks_for_is_refused(folder):
  assert pretrained.load(folder, CONFIG).config == CONFIG
  with pytest.raises(ValueError, match="num_encoder_layers 2, not 7"):
    pretrained.load(folder, tiny_t5.config(num_encoder_layers=7))


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda flat: flat.pop("token_embedder/embedding"), "has no tensor token"),
    (lambda flat: flat.update(extra=np.zeros(3)), "is a tensor extra"),
    (
      lambda flat: flat.update(
        {"decoder/decoder_norm/scale": np.zeros(3, np.float32)}
      ),
      re.escape("decoder/decoder_norm/scale has shape (3,)"),
    ),
  ],
  ids=["missing", "surplus", "misshapen"],
)
def test_a_tensor_that_does_not_fit_is_named(change, message):
  flat = storage.flatten(params())
  stored_model.check_tree(storage.unflatten(flat), CONFIG, "here")
  change(flat)
  with pytest.raises(ValueError, match=f"here.*{message}"):
    stored_model.check_tree(storage.unflatten(flat), CONFIG, "here")


# Random weights.

SMALL = tiny_t5.config(emb_dim=64, head_dim=32, vocab_size=100)


@functools.cache
def drawn(seed=0):
  return pretrained.random(SMALL, seed=seed)


def test_random_weights_depend_on_the_seed_only():
  again = pretrained.random(SMALL, dtype="bfloat16")
  assert again.stored_hash == drawn().stored_hash
  assert dtypes(again.params) == {"bfloat16"}
  assert drawn(seed=1).stored_hash != drawn().stored_hash
  stored_model.check_tree(drawn().params, SMALL, "random")


def test_random_weights_have_t5s_sizes():
  """The query carries the 1 / sqrt(D) that attention does without."""
  for path, leaf in storage.flatten(drawn().params).items():
    std = float(leaf.std())
    if path.endswith("scale"):
      assert (leaf == 1).all()
    elif path.endswith("embedding") and "rel" not in path:
      assert std == pytest.approx(1, rel=0.1)
    elif path.endswith("kernel"):
      want = leaf.shape[0] ** -0.5
      want *= SMALL.head_dim**-0.5 if "query" in path else 1
      assert std == pytest.approx(want, rel=0.1)


def test_a_shipped_model_is_found_by_its_name():
  assert pretrained.shipped_folder().name == pretrained.SHIPPED
  assert (pretrained.shipped_folder() / model_folder.VOCABULARY).is_file()
  vocabulary = pretrained.shipped_vocabulary()
  assert vocabulary.decode(vocabulary.encode("the")) == "the"


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_model_is_quantised_while_it_is_read(folder, dtype):
  plain = pretrained.load(folder)
  model = pretrained.load(folder, dtype=dtype)
  assert model.stored_hash == plain.stored_hash
  assert model.weights_dtype == dtype and plain.weights_dtype == "float32"
  assert model.num_parameters == plain.num_parameters
  kernel = model.params["encoder"]["layers"]["mlp"]["wo"]
  assert kernel[f"kernel_{dtype}"].shape[0] == CONFIG.num_encoder_layers
  np.testing.assert_allclose(
    model.embedding, plain.embedding, atol=np.abs(plain.embedding).max() / 250
  )
  apart = pretrained.load(folder, dtype=dtype, stack_layers=False)
  own = apart.params["encoder"]["layers_1"]["mlp"]["wo"]
  for name, leaf in own.items():
    np.testing.assert_array_equal(leaf, kernel[name][1])
  drawn = pretrained.random(CONFIG, dtype=dtype)
  assert drawn.weights_dtype == dtype
  assert drawn.stored_hash == pretrained.random(CONFIG).stored_hash
  with pytest.raises(ValueError, match=f"WEIGHTS_DTYPE='{dtype}' is for froz"):
    pretrained.save(folder.parent / "other", model)


def test_one_tensor_at_a_time_is_a_float(folder, monkeypatch):
  alive, most = [], []
  parts = stored_model.forms.quantized.parts

  def watched(path, array, dtype):
    alive.append(weakref.ref(array))
    most.append(sum(one() is not None for one in alive))
    return parts(path, array, dtype)

  monkeypatch.setattr(stored_model.forms.quantized, "parts", watched)
  pretrained.load(folder, dtype="int8")
  norms = sum(path.endswith("scale") for path in storage.flatten(params()))
  # Norms stay floats; of the others one is read while the last is let go.
  assert max(most) <= norms + 4 < len(most) - 4
