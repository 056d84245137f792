"""T5Gemmas as gemma stores them: read, and refused when they are not whole.

`golden/gemma.*` hold what gemma itself wrote and said (`golden/make_gemma.py`),
so comparing with it needs no gemma.
"""

import dataclasses
import json
import pathlib
import shutil

from golden import make_gemma as peer
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import places
import pytest
import tiny_t5

from prompt_tuning import configuration, storage, vocabulary
from prompt_tuning.cli import inspection
from prompt_tuning.frozen import pretrained
from prompt_tuning.frozen.t5gemma import flax_checkpoints, flax_sizes, flax_tree
from prompt_tuning.model import t5
from prompt_tuning.model.t5gemma import Stack, T5GemmaConfig
from prompt_tuning.vocabulary import GEMMA_IDS, Vocabulary

RECORD = json.loads((places.GOLDEN / "gemma.json").read_text())
SAID = np.load(places.GOLDEN / "gemma.npz")

SHARED = tiny_t5.gemma(start_id=2)
OWN = T5GemmaConfig(
  60,
  Stack(12, 3, 3, 4, 16, 1, attention_cap=None, window=2),
  Stack(16, 2, 2, 6, 20, 2, query_scale=3.0, window=4),
)
CONFIGS = {"shared": SHARED, "own": OWN}
"""Heads that share keys, and heads that have their own."""


@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> pathlib.Path:
  """A folder for each of the two models, by gemma."""
  folder = tmp_path_factory.mktemp("gemma")
  shutil.unpack_archive(places.GOLDEN / "gemma.zip", folder)
  return folder


# What gemma wrote and says.


def config_of(name: str, *, less: int = 1) -> T5GemmaConfig:
  """The model's shape; gemma counts a window with the place itself.

  Its encoder sees |query - key| < window, and ours so many places to each side.
  """
  made_with = RECORD["models"][name]

  def stack(side):
    sizes = made_with[side]
    return Stack(
      sizes["embed_dim"],
      sizes["num_heads"],
      sizes["num_kv_heads"],
      sizes["head_dim"],
      sizes["hidden_dim"],
      sizes["num_layers"],
      attention_cap=made_with["attention_cap"],
      window=sizes["sliding_window_size"] - less * (side == "encoder"),
      rope_base=float(made_with["rope_base"]),
    )

  return T5GemmaConfig(
    peer.ROWS,
    stack("encoder"),
    stack("decoder"),
    logits_cap=made_with["logits_cap"],
    start_id=peer.START,
  )


def encoded(model: pretrained.FrozenModel, given) -> np.ndarray:
  """The encoder's output where text is."""
  run = tiny_t5.jitted(t5.T5(model.config), "encode")
  found = run({"params": model.params}, given["inputs"])
  return np.asarray(found * (given["inputs"] > 0)[..., None])


def numbers(model: pretrained.FrozenModel, given) -> dict[str, np.ndarray]:
  """What the model says of gemma's batch."""
  run = tiny_t5.jitted(t5.T5(model.config))
  before = t5.shift_right(jnp.asarray(given["targets"]))
  logits = run({"params": model.params}, given["inputs"], before)
  return {"encoded": encoded(model, given), "logits": np.asarray(logits)}


def difference(found, name: str) -> dict[str, float]:
  """The largest one, in parts of gemma's largest number."""
  return {
    key: np.abs(value - (want := SAID[f"{name}/{key}"])).max()
    / np.abs(want).max()
    for key, value in found.items()
  }


@pytest.mark.parametrize("name", peer.MODELS)
def test_encoder_and_logits_are_those_of_gemma(golden, name):
  given = peer.batch(name)
  model = pretrained.load(golden / name, config_of(name))
  assert max(difference(numbers(model, given), name).values()) < 1e-5


def test_an_encoder_of_gemma_sees_one_place_less_to_each_side(golden):
  """As wide as gemma says it, a window here is that of another model."""
  given = peer.batch("shared")
  wider = pretrained.load(golden / "shared", config_of("shared", less=0))
  found = {"encoded": encoded(wider, given)}
  assert difference(found, "shared")["encoded"] > 1e-3


def test_gemma_itself_agrees(tmp_path):
  """What it writes now is read, and says what it says now."""
  reason = (
    "pip install gemma (which asks for Python 3.12) to compare live; "
    "golden/gemma stands in, made by it "
    "(test_encoder_and_logits_are_those_of_gemma)"
  )
  pytest.importorskip("gemma.research.t5gemma", reason=reason)
  for name in peer.MODELS:
    made, given = peer.model(name), peer.batch(name)
    params = peer.weights(made, given)
    peer.save(params, tmp_path / name)
    model = pretrained.load(tmp_path / name, config_of(name))
    said = peer.answers(made, params, given)
    for key, value in numbers(model, given).items():
      bound = 1e-5 * np.abs(said[key]).max()
      np.testing.assert_allclose(value, said[key], rtol=0, atol=bound)


@pytest.mark.parametrize("name", RECORD["published"])
def test_the_leaves_of_a_published_model_are_those_of_gemma(name):
  """All names and shapes, with the rows that no word has."""
  stacks = [flax_sizes.PUBLISHED[size] for size in name.split("-")]
  layouts = {
    side: flax_tree.Layout(
      joined=stack.num_heads == stack.num_kv_heads,
      width_last=stack == flax_sizes.PUBLISHED["9b"],
    )
    for side, stack in zip(flax_tree.STACKS, stacks, strict=True)
  }
  config = T5GemmaConfig(flax_sizes.ROWS, *stacks)
  made = flax_tree.pieces(config, layouts, flax_sizes.STORED_ROWS)
  shapes = {
    piece.leaf + ("/w" if piece.leaf.endswith("einsum") else ""): piece.whole
    for piece in made.values()
  }
  shapes = {
    k.replace("gating_einsum/w", "gating_einsum"): shapes[k] for k in shapes
  }
  assert peer.digest(shapes) == RECORD["published"][name]
  # And the shapes say the sizes, and that nothing else need be said.
  bare = {piece.leaf: piece.whole for piece in made.values()}
  sizes = flax_sizes.sizes_of(bare, "it")
  assert sizes.layouts == layouts
  assert flax_sizes.config_of(sizes, None, "it") == config


@pytest.mark.usefixtures("clean_gin")
@pytest.mark.parametrize("name", RECORD["published"])
def test_the_gin_file_of_a_size_has_the_published_sizes(name):
  import gin

  from prompt_tuning.model import t5gemma

  file = f"models/t5gemma_{name.replace('-', '_')}.gin"
  configuration.configure([file], [], ())
  stacks = [flax_sizes.PUBLISHED[size] for size in name.split("-")]
  want = T5GemmaConfig(flax_sizes.ROWS, *stacks)
  assert gin.get_configurable(t5gemma.T5GemmaConfig)() == want


# The same weights in a folder of Hugging Face.


def gemma_tree(config: T5GemmaConfig, params, *, width_last=False) -> dict:
  """The weights by gemma's names, without the loader's own tables."""
  flat = storage.flatten(params)
  tree = {}
  for side, table in (
    ("encoder", "token_embedder"),
    ("decoder", "target_embedder"),
  ):
    stack = getattr(config, side)
    tree[f"{side}/embedder/input_embedding"] = flat[f"{table}/embedding"]
    tree[f"{side}/final_norm/scale"] = flat[f"{side}/{side}_norm/scale"]
    for i in range(stack.num_layers):
      ours, to = f"{side}/layers_{i}", f"{side}/layer_{i}"

      def heads(path, count, ours=ours, size=stack.head_dim):
        kernel = flat[f"{ours}/{path}/kernel"]  # [width, heads * size]
        return kernel.reshape(len(kernel), count, size).transpose(1, 0, 2)

      own = "attention" if side == "encoder" else "self_attention"
      for path, name, norm in (
        (own, "attn", own),
        ("encoder_decoder_attention", "cross_attn", "cross_attention"),
      ):
        if side == "encoder" and name == "cross_attn":
          continue
        query = heads(f"{path}/query", stack.num_heads)
        keys = [heads(f"{path}/{x}", stack.num_kv_heads) for x in KEYS]
        if name == "attn" and stack.num_heads == stack.num_kv_heads:
          tree[f"{to}/{name}/qkv_einsum/w"] = np.stack([query, *keys])
        else:
          tree[f"{to}/{name}/q_einsum/w"] = query
          tree[f"{to}/{name}/kv_einsum/w"] = np.stack(keys)
        out = flat[f"{ours}/{path}/out/kernel"]
        tree[f"{to}/{name}/attn_vec_einsum/w"] = out.reshape(
          stack.num_heads, stack.head_dim, stack.emb_dim
        )
        word = "cross_attention" if name == "cross_attn" else "attention"
        for when in ("pre", "post"):
          scale = flat[f"{ours}/{when}_{norm}_layer_norm/scale"]
          tree[f"{to}/{when}_{word}_norm/scale"] = scale
      for when in ("pre", "post"):
        scale = flat[f"{ours}/{when}_mlp_layer_norm/scale"]
        tree[f"{to}/{when}_ffw_norm/scale"] = scale
      gate = np.stack([flat[f"{ours}/mlp/wi_{j}/kernel"] for j in range(2)])
      tree[f"{to}/mlp/gating_einsum"] = (
        gate.transpose(0, 2, 1) if width_last else gate
      )
      tree[f"{to}/mlp/linear"] = flat[f"{ours}/mlp/wo/kernel"]
  return tree


KEYS = ("key", "value")


def write(folder: pathlib.Path, flat: dict) -> pathlib.Path:
  """A checkpoint of these leaves, as gemma writes it."""
  import orbax.checkpoint

  tree = {k: np.ascontiguousarray(v) for k, v in flat.items()}
  with orbax.checkpoint.StandardCheckpointer() as writer:
    writer.save(folder, storage.unflatten(tree))
  return folder


def hugging_face(folder, config, params, vocabulary=None) -> pathlib.Path:
  made = pretrained.FrozenModel(config, params, vocabulary, "tiny", "")
  return pretrained.save(folder, made, "huggingface")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """By name: gemma's folder with config.json, and that of Hugging Face."""
  top, made = tmp_path_factory.mktemp("folders"), {}
  for name, config in CONFIGS.items():
    params = tiny_t5.weights(config)
    theirs = hugging_face(top / f"{name}_huggingface", config, params)
    tree = gemma_tree(config, params, width_last=name == "own")
    folder = write(top / name, tree)
    shutil.copy(theirs / "config.json", folder)
    made[name] = (folder, theirs)
  return made


@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_model_is_that_of_hugging_face(folders, name, dtype):
  """Its hash, its configuration and every number, held in any type."""
  one, two = (pretrained.load(f, dtype=dtype) for f in folders[name])
  assert one.stored_hash == two.stored_hash
  assert one.config == two.config == CONFIGS[name]
  ours, theirs = storage.flatten(one.params), storage.flatten(two.params)
  assert ours.keys() == theirs.keys()
  for path in ours:
    np.testing.assert_array_equal(ours[path], theirs[path], path)
  if dtype is None:
    given = {"inputs": tiny_t5.tokens(2, 7), "targets": tiny_t5.tokens(2, 4)}
    found, want = numbers(one, given), numbers(two, given)
    np.testing.assert_array_equal(found["logits"], want["logits"])


def test_it_is_stored_in_bfloat16_and_known_by_its_numbers(folders, tmp_path):
  tree = gemma_tree(SHARED, tiny_t5.weights(SHARED))
  rounded = {k: v.astype(ml_dtypes.bfloat16) for k, v in tree.items()}
  stored = pretrained.open_model(write(tmp_path / "b", rounded), SHARED)
  assert stored.dtype == "bfloat16"
  wide = {k: v.astype(np.float32) for k, v in rounded.items()}
  again = pretrained.open_model(write(tmp_path / "f", wide), SHARED)
  assert stored.hash() == again.hash()
  assert stored.hash() != pretrained.open_model(folders["shared"][0]).hash()


def test_rows_that_no_word_has_are_left_out(tmp_path):
  """256,128 are stored, as gemma does; the hash is that of 256,000."""
  tiny = Stack(2, 1, 1, 2, 4, 1)
  config = T5GemmaConfig(flax_sizes.ROWS, tiny, tiny)
  params = tiny_t5.weights(config)
  theirs = hugging_face(tmp_path / "huggingface", config, params)
  more = flax_sizes.STORED_ROWS - flax_sizes.ROWS
  tree = {
    k: np.pad(v, ((0, more), (0, 0))) if k.endswith("input_embedding") else v
    for k, v in gemma_tree(config, params).items()
  }
  stored = pretrained.open_model(write(tmp_path / "gemma", tree), config)
  assert stored.config == config
  assert stored.hash() == pretrained.open_model(theirs).hash()


def test_what_is_read_goes_on_to_other_formats(folders, tmp_path):
  folder, theirs = folders["own"]
  want = inspection.inspect(theirs)
  facts = inspection.inspect(folder)
  assert facts["what"] == "a T5 (Gemma Orbax)"
  assert facts["network"] == "T5Gemma"
  for to in ("huggingface", "prompt-tuning"):
    target = inspection.convert(folder, tmp_path / to, to)
    again = inspection.inspect(target)
    for name in ("weights sha256", "parameters", "encoder", "decoder"):
      assert facts[name] == again[name] == want[name]


# Where it lies, and by which names.


def older(tree: dict) -> dict:
  """Names as the first Gemmas were stored: one key with slashes."""
  made = {}
  for path, leaf in tree.items():
    *front, last = path.split("/")
    if last in ("gating_einsum", "linear"):
      front, last = [*front, last], "w"
    made["/".join(("transformer", *front))] = {last: leaf}
  return made


@pytest.mark.parametrize(
  "way", ["params", "older", "empty", "zarr3", "no_ocdbt"]
)
def test_a_tree_is_read_as_other_writers_leave_it(folders, tmp_path, way):
  import orbax.checkpoint as ocp

  tree = gemma_tree(SHARED, tiny_t5.weights(SHARED))
  tree = {k: np.ascontiguousarray(v) for k, v in tree.items()}
  content = older(tree) if way == "older" else storage.unflatten(tree)
  if way == "params":
    content = {"params": content, "step": np.int32(3), "opt_state": {}}
  if way == "empty":
    content |= {"lora": {}, "extra": None, "more": {"list": [], "tuple": ()}}
  handler = ocp.PyTreeCheckpointHandler(
    use_ocdbt=way != "no_ocdbt", use_zarr3=way == "zarr3"
  )
  with ocp.Checkpointer(handler) as writer:
    writer.save(tmp_path / "model", content)
  stored = pretrained.open_model(tmp_path / "model", SHARED)
  assert stored.format == flax_checkpoints.FORMAT
  stored.check()
  assert stored.hash() == pretrained.open_model(folders["shared"][1]).hash()


@pytest.mark.parametrize(
  "inside", ["", "default", "t5gemma-s-s", "a/default", "checkpoint_5/state"]
)
def test_a_checkpoint_is_found_with_its_vocabulary(folders, tmp_path, inside):
  folder = tmp_path / "model"
  shutil.copytree(folders["shared"][0], folder / inside)
  given = Vocabulary(tiny_t5.gemma_pieces(folder), 0, special=GEMMA_IDS)
  model = pretrained.load(folder)
  assert model.config == SHARED
  found = model.require_vocabulary()
  assert found.special == GEMMA_IDS
  assert pathlib.Path(found.path).name == "tokenizer.model"
  for text in tiny_t5.TEXTS:
    assert found.encode(text) == given.encode(text)
  beneath = pretrained.load(folder / inside)  # as gemma is given it
  assert beneath.stored_hash == model.stored_hash


def test_without_a_vocabulary_it_says_what_to_do(folders):
  model = pretrained.load(folders["shared"][0])
  with pytest.raises(ValueError, match=r"tokenizer\.model.*VOCABULARY_PATH"):
    model.require_vocabulary()


@pytest.mark.parametrize("extra_ids", [0, 100])
def test_a_vocabulary_from_elsewhere_has_no_sentinels(
  folders, tmp_path, extra_ids
):
  given = vocabulary.at(tiny_t5.gemma_pieces(tmp_path), extra_ids)
  if extra_ids:
    with pytest.raises(ValueError, match="100 sentinels among.*EXTRA_IDS"):
      pretrained.load(folders["shared"][0], vocabulary=given)
    return
  model = pretrained.load(folders["shared"][0], vocabulary=given)
  found = model.require_vocabulary()
  assert found.special == GEMMA_IDS
  assert found.decode(found.encode("the cat sat")) == "the cat sat"


def test_several_checkpoints_at_a_path_are_none(folders, tmp_path):
  for name in ("one", "two"):
    shutil.copytree(folders["shared"][0], tmp_path / name)
  with pytest.raises(ValueError, match=r"several.*one, .*two\. Give the path"):
    pretrained.open_model(tmp_path)


def test_what_orbax_has_not_finished_is_no_checkpoint(folders, tmp_path):
  source = folders["shared"][0]
  unfinished = "default.orbax-checkpoint-tmp-123"
  shutil.copytree(source, tmp_path / unfinished)
  with pytest.raises(ValueError, match=f"{unfinished} is a .*not finished"):
    pretrained.open_model(tmp_path)
  shutil.copytree(source, tmp_path / "one")
  assert pretrained.open_model(tmp_path).path == str(tmp_path / "one")


def test_weights_of_another_format_stand_before_a_folder_inside(
  folders, tmp_path
):
  shutil.copytree(folders["own"][1], tmp_path / "model")
  shutil.copytree(folders["shared"][0], tmp_path / "model" / "flax")
  assert pretrained.open_model(tmp_path / "model").format == "Hugging Face"


# What is refused.


def bare(folders, name, tmp_path) -> pathlib.Path:
  """A checkpoint without a config.json."""
  return shutil.copytree(
    folders[name][0],
    tmp_path / "bare",
    ignore=shutil.ignore_patterns("config.json"),
  )


def test_sizes_that_no_published_model_has_need_to_be_said(folders, tmp_path):
  folder = bare(folders, "shared", tmp_path)
  message = (
    r"no published one has \(encoder: width 16, 4 heads of 6 with 2 keys, "
    r"feed-forward 24 and 2 layers; decoder: .*config\.json.*NETWORK"
  )
  with pytest.raises(ValueError, match=message):
    pretrained.load(folder)
  assert pretrained.load(folder, SHARED).config == SHARED


@pytest.mark.parametrize(
  "expected, message",
  [
    (OWN, "another T5 than the run asks for.*encoder/emb_dim 16, not"),
    (tiny_t5.config(), "T5GemmaConfig, not T5Config"),
    (dataclasses.replace(SHARED, logits_via_embedding=False), "embedding True"),
  ],
  ids=["sizes", "t5", "head"],
)
def test_another_model_than_the_run_asks_for_is_refused(
  folders, expected, message
):
  with pytest.raises(ValueError, match=message):
    pretrained.load(folders["shared"][0], expected)


@pytest.mark.parametrize(
  "settings, message",
  [
    (
      "own",
      r"config\.json describes another model.*emb_dim 12, the weights 16",
    ),
    ({"vocab_size": 59}, "vocab_size 59, the weights 60"),
    ({"model_type": "t5"}, 'model_type="t5"; it must be .t5gemma'),
  ],
  ids=str,
)
def test_a_configuration_of_another_model_is_refused(
  folders, tmp_path, settings, message
):
  folder = bare(folders, "shared", tmp_path)
  source = folders["own" if settings == "own" else "shared"][1]
  config = json.loads((source / "config.json").read_text())
  if settings != "own":
    for part in (config, config["encoder"], config["decoder"]):
      part |= {k: v for k, v in settings.items() if k in part}
    config |= settings
    config["encoder"]["model_type"] = "t5_gemma_module"
    config["decoder"]["model_type"] = "t5_gemma_module"
  (folder / "config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match=message):
    pretrained.open_model(folder)


NAME = "decoder/layer_1/cross_attn/kv_einsum/w"


def lost(tree):
  del tree[NAME]


def lost_layer(tree):
  for name in [name for name in tree if name.startswith("encoder/layer_0/")]:
    del tree[name]


def lost_table(tree):
  del tree["decoder/embedder/input_embedding"]


def twice(tree):
  for name, leaf in [*tree.items()]:
    tree[f"params/{name}"] = tree.pop(name)
    tree[f"params/transformer/{name}"] = 2 * leaf


def surplus(tree):
  tree["encoder/layer_0/attn/_query_norm/scale"] = np.ones(6, np.float32)


def of_another_shape(tree):
  tree[NAME] = tree[NAME].transpose(0, 1, 3, 2)


def of_another_length(tree):
  name = "decoder/embedder/input_embedding"
  tree[name] = tree[name][:-1]


def flat_attention(tree):
  name = "encoder/layer_0/attn/attn_vec_einsum/w"
  tree[name] = tree[name].reshape(24, 16)


def uneven_heads(tree):
  for name, leaf in tree.items():
    if name.startswith("encoder") and name.endswith("/kv_einsum/w"):
      tree[name] = np.concatenate([leaf, leaf[:, :1]], axis=1)


def square(tree):
  for name, leaf in tree.items():
    if name.startswith("decoder") and "mlp/" in name:
      tree[name] = leaf[..., :12] if "gating" in name else leaf[:12]


def no_number(tree):
  tree[NAME] = tree[NAME].copy()
  tree[NAME].flat[3] = np.nan


def whole_numbers(tree):
  tree[NAME] = np.ones(tree[NAME].shape, np.int32)


def without_encoder(tree):
  for name in [name for name in tree if name.startswith("encoder/")]:
    del tree[name]


@pytest.mark.parametrize(
  "change, message",
  [
    (lost, "no tensor decoder/layer_1/cross_attn/kv_einsum .1 of 50 are"),
    (lost_layer, "no tensor encoder/layer_0/attn/attn_vec_einsum, so"),
    (lost_table, "no tensor decoder/embedder/input_embedding"),
    (twice, r"twice, as params\.decoder.* as params\.transformer\."),
    (surplus, "encoder/layer_0/attn/_query_norm/scale that a T5Gemma has no"),
    (of_another_shape, r"kv_einsum has the shape .*, the others ask for"),
    (of_another_length, r"input_embedding has the shape \(59, 12\)"),
    (flat_attention, r"attn_vec_einsum has the shape \(24, 16\).*3 axes"),
    (uneven_heads, "the encoder: num_heads=4 cannot share num_kv_heads=3"),
    (square, "as wide as the stack .12.*Convert"),
    (no_number, r"key/kernel \(.*kv_einsum.w, part 0\) has NaN"),
    (whole_numbers, "has the type int32"),
    (without_encoder, "a Gemma without an encoder"),
  ],
  ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_tree_that_is_not_whole_is_refused(tmp_path, change, message):
  tree = gemma_tree(SHARED, tiny_t5.weights(SHARED))
  change(tree)
  with pytest.raises(ValueError, match=message):
    pretrained.load(write(tmp_path / "model", tree), SHARED)


def test_a_checkpoint_that_lost_its_data_is_refused(folders, tmp_path):
  folder = bare(folders, "shared", tmp_path)
  for file in folder.rglob("d/*"):
    file.unlink()
  with pytest.raises(ValueError, match="embedding.*cannot be read.*damaged"):
    pretrained.load(folder, SHARED)


@pytest.mark.parametrize("expected", [None, SHARED], ids=["any", "expected"])
@pytest.mark.parametrize("inside", ["", "state"])
@pytest.mark.parametrize(
  "damage, message",
  [
    (lambda text: text[: len(text) // 2], "_METADATA is not valid JSON"),
    (lambda text: text.replace("('", "(("), "_METADATA names a leaf that"),
    (lambda _: "{}", "without 'target' or 'params'"),
  ],
  ids=["cut", "keys", "empty"],
)
def test_a_damaged_index_is_refused(
  folders, tmp_path, damage, message, inside, expected
):
  tree = tmp_path / "model" / inside
  shutil.copytree(bare(folders, "shared", tmp_path), tree)
  text = (tree / "_METADATA").read_text()
  (tree / "_METADATA").write_text(damage(text))
  if expected is not None and damage(text) == "{}":
    message = "_METADATA names no leaf. It is damaged"
  with pytest.raises(ValueError, match=message):
    pretrained.load(tmp_path / "model", expected)
