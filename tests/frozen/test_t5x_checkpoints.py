"""Checkpoints of t5x: read, written, and refused when they are damaged.

`golden/t5x_checkpoints.zip` holds what t5x's own writers wrote (see
`golden/make_t5x_checkpoints.py`), so reading them needs no t5x.
"""

import json
import pathlib
import re
import shutil

from flax import serialization, traverse_util
import jax.numpy as jnp
import numpy as np
import places
import pytest
import t5x_peer
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained, stored_model, t5x_checkpoints
from prompt_tuning.model import t5

GOLDEN = places.GOLDEN / "t5x_checkpoints.zip"
SHARED = places.SHARED / "data" / "t5x_tiny"
CONFIG = tiny_t5.config(num_encoder_layers=2, relpos_buckets=4)


def tuned_weights() -> dict:
  """The weights of the golden checkpoints, with their prompt."""
  return tiny_t5.weights(CONFIG, prompt=tiny_t5.rows(3, CONFIG.emb_dim, seed=4))


@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> pathlib.Path:
  """A checkpoint in `native` and one in `orbax`, both by t5x."""
  folder = tmp_path_factory.mktemp("golden")
  shutil.unpack_archive(GOLDEN, folder)
  return folder


@pytest.fixture
def native(tmp_path):
  return t5x_checkpoints.save(
    tmp_path / "native", CONFIG, tiny_t5.weights(CONFIG)
  )


def orbax_folder(folder, tree):
  """A checkpoint as t5x writes it by default."""
  import orbax.checkpoint

  state = {"target": tree, "state": {"step": np.int32(7)}}
  orbax.checkpoint.PyTreeCheckpointer().save(folder / "state", state)
  return folder


@pytest.fixture
def orbax_checkpoint(tmp_path):
  return orbax_folder(tmp_path / "checkpoint_7", tiny_t5.weights(CONFIG))


def same(model, config=CONFIG):
  one = storage.flatten(model.params)
  two = storage.flatten(tiny_t5.weights(config))
  assert one.keys() == two.keys()
  for path in one:
    np.testing.assert_array_equal(one[path], two[path], path)


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"mlp_activations": ("relu",), "logits_via_embedding": True},
    {"num_decoder_layers": 3, "head_dim": 4, "relpos_buckets": 8},
  ],
  ids=str,
)
def test_the_configuration_follows_from_the_shapes(tmp_path, changes):
  config = tiny_t5.config(**changes)
  folder = t5x_checkpoints.save(
    tmp_path, config, tiny_t5.weights(config), step=3
  )
  assert folder.name == "checkpoint_3"
  model = pretrained.load(folder)
  assert model.config == config
  same(model, config)


def test_what_shapes_do_not_tell_comes_from_the_expected_configuration(native):
  near = tiny_t5.config(
    num_encoder_layers=2, relpos_buckets=4, relpos_max_distance=8
  )
  assert pretrained.load(native).config.relpos_max_distance == 128
  assert pretrained.load(native, near).config == near
  with pytest.raises(ValueError, match="emb_dim 16, not 32;"):
    pretrained.load(native, tiny_t5.config(emb_dim=32))


@pytest.mark.parametrize("way", ["folder", "index", "model_dir"])
def test_a_native_checkpoint_is_found_by_folder_index_or_model_dir(native, way):
  t5x_checkpoints.save(
    native.parent, CONFIG, tiny_t5.weights(CONFIG, 1), step=9
  )
  native = native.parent / "checkpoint_9"
  path = {
    "folder": native,
    "index": native / "checkpoint",
    "model_dir": native.parent,
  }[way]
  stored = pretrained.open_model(path)
  assert stored.format == "t5x native"
  assert stored.path == str(native)


def test_orbax_is_read_as_native_is(orbax_checkpoint, native):
  model = pretrained.load(orbax_checkpoint)
  assert pretrained.open_model(orbax_checkpoint).format == "t5x Orbax"
  assert model.config == CONFIG
  same(model)
  assert model.stored_hash == pretrained.load(native).stored_hash
  assert pretrained.load(orbax_checkpoint / "state").config == CONFIG


def test_a_tuned_checkpoint_gives_its_frozen_model(tmp_path):
  tree = tiny_t5.weights(CONFIG, prompt=tiny_t5.rows(5, 16))
  tree["encoder"]["prompt"] = {"prompt": {"prompt": tiny_t5.rows(5, 16)}}
  same(pretrained.load(orbax_folder(tmp_path / "checkpoint_1", tree)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_type_of_the_weights_is_kept(tmp_path, dtype):
  folder = t5x_checkpoints.save(
    tmp_path, CONFIG, tiny_t5.weights(CONFIG), dtype=dtype
  )
  stored = pretrained.open_model(folder)
  assert {tensor.dtype for tensor in stored.tensors.values()} == {dtype}
  loaded = pretrained.load(folder, dtype="float32")
  want = tiny_t5.weights(CONFIG)["token_embedder"]["embedding"]
  np.testing.assert_array_equal(
    loaded.params["token_embedder"]["embedding"],
    np.asarray(jnp.asarray(want, dtype).astype("float32")),
  )


def test_what_is_there_is_not_overwritten(native):
  with pytest.raises(ValueError, match=f"{native.name} exists"):
    t5x_checkpoints.save(native, CONFIG, tiny_t5.weights(CONFIG))


def test_a_tree_of_another_model_is_not_written(tmp_path):
  with pytest.raises(ValueError, match="has no tensor"):
    t5x_checkpoints.save(
      tmp_path / "x", CONFIG, tiny_t5.weights(tiny_t5.config())
    )
  assert not list(tmp_path.iterdir())


# Damage.

KERNEL = "encoder.layers_0.mlp.wo.kernel"


def chunk(folder):
  return folder / f"target.{KERNEL}" / "0.0"


def test_a_truncated_index_is_refused(native):
  index = native / "checkpoint"
  index.write_bytes(index.read_bytes()[:-9])
  with pytest.raises(
    ValueError, match="checkpoint cannot be read as the index"
  ):
    pretrained.load(native)


def damage_chunk(folder):
  path = chunk(folder)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 8
  path.write_bytes(content)


def cut_chunk(folder):
  content = chunk(folder).read_bytes()
  chunk(folder).write_bytes(content[: len(content) // 2])


def lose_chunk(folder):
  chunk(folder).unlink()


def lose_array(folder):
  shutil.rmtree(chunk(folder).parent)


def swap(folder):
  one, two = (
    folder / f"target.encoder.layers_{i}.mlp.wo.kernel" for i in (0, 1)
  )
  one.rename(folder / "aside")
  two.rename(one)
  (folder / "aside").rename(two)


@pytest.mark.parametrize(
  "change", [damage_chunk, cut_chunk, lose_chunk, lose_array, swap]
)
def test_a_damaged_array_is_refused_by_name(native, change):
  change(native)
  with pytest.raises(ValueError, match=rf"target\.{KERNEL}.*(read|hash)"):
    pretrained.load(native)


def test_an_orbax_checkpoint_that_lost_its_data_is_refused(orbax_checkpoint):
  for file in (orbax_checkpoint / "state").rglob("d/*"):
    file.unlink()
  with pytest.raises(ValueError, match="checkpoint_7.*damaged"):
    pretrained.load(orbax_checkpoint)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
  tree = {"dense": {"kernel": np.ones((2, 2), np.float32)}}
  folder = orbax_folder(tmp_path / "checkpoint_1", tree)
  with pytest.raises(ValueError, match="no tensor token_embedder/embedding"):
    pretrained.load(folder)


# t5x itself.


@pytest.mark.parametrize("kind", ["native", "orbax"])
def test_what_t5x_wrote_is_read(golden, kind):
  stored = pretrained.open_model(golden / kind)
  assert stored.format == {"native": "t5x native", "orbax": "t5x Orbax"}[kind]
  assert pathlib.Path(stored.path).name == "checkpoint_7"
  same(pretrained.load(golden / kind))
  found = t5x_checkpoints.find(golden / kind)
  assert found is not None
  np.testing.assert_array_equal(
    t5x_checkpoints.tensors(found)["prompt/embedding"].read(),
    tuned_weights()["prompt"]["embedding"],
  )


def specifications(folder: pathlib.Path) -> dict:
  """How a native checkpoint's index says each parameter is stored."""
  index = (folder / "checkpoint").read_bytes()
  target = serialization.msgpack_restore(index)["optimizer"]["target"]
  return {
    path: leaf if "kvstore" in leaf else (leaf.shape, leaf.dtype)
    for path, leaf in traverse_util.flatten_dict(
      target, is_leaf=lambda _, node: "kvstore" in node, sep="/"
    ).items()
    if not path.startswith("prompt/")
  }


def test_we_write_the_index_that_t5x_writes(golden, native):
  theirs = specifications(golden / "native" / "checkpoint_7")
  ours = specifications(native)
  assert ours.keys() == theirs.keys()
  for path, specification in theirs.items():
    assert ours[path] == specification, path


@pytest.mark.skipif(
  not SHARED.is_dir(),
  reason="the sample checkpoint of t5x does not lie beside this checkout; "
  "test_what_t5x_wrote_is_read reads another",
)
def test_a_checkpoint_that_t5x_wrote_is_read():
  config = t5.T5Config(
    vocab_size=32128,
    emb_dim=4,
    num_heads=2,
    head_dim=2,
    mlp_dim=8,
    num_encoder_layers=2,
    num_decoder_layers=2,
    relpos_buckets=4,
    relpos_max_distance=8,
  )
  model = pretrained.load(SHARED, config)
  assert model.config == config
  assert model.num_parameters == 257_856
  tokens = tiny_t5.tokens(2, 5)
  answer = tiny_t5.jitted(t5.T5(config))
  logits = answer({"params": model.params}, tokens, tokens)
  assert logits.shape == (2, 5, 32128)
  assert np.isfinite(logits).all()


@t5x_peer.needed(
  "golden/t5x_checkpoints (test_we_write_the_index_that_t5x_writes)"
)
def test_t5x_reads_what_we_write(native):
  """By its own reader, leaf by leaf."""
  from t5x import checkpoints

  tree = checkpoints.load_t5x_checkpoint(str(native))
  theirs = storage.flatten(tree["target"])
  ours = storage.flatten(tiny_t5.weights(CONFIG))
  assert theirs.keys() == ours.keys()
  for path in ours:
    np.testing.assert_array_equal(theirs[path], ours[path], path)
  index = json.loads((native / t5x_checkpoints.HASHES).read_text())
  assert index.keys() == ours.keys()


def test_layers_that_are_stacked_for_a_scan_are_read(tmp_path):
  config = tiny_t5.config(num_encoder_layers=2, num_decoder_layers=3)
  params = tiny_t5.weights(config)
  stacked = {}
  for path, leaf in storage.flatten(params).items():
    layer = re.fullmatch(r"(encoder|decoder)/layers_(\d+)/(.+)", path)
    if layer is None:
      stacked[path] = leaf
    else:
      stack, _, rest = layer.groups()
      stacked.setdefault(f"{stack}/{stack}/{rest}", []).append(leaf)
  tree = storage.unflatten(
    {
      path: np.stack(leaf, axis=1) if isinstance(leaf, list) else leaf
      for path, leaf in stacked.items()
    }
  )
  folder = tmp_path / "checkpoint_5"
  folder.mkdir()
  content = {"version": 3, "optimizer": {"target": tree, "state": {"step": 5}}}
  (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(content))
  found = pretrained.load(folder)
  assert found.config == config
  assert found.stored_hash == stored_model.weights_hash(params)
