"""T5s of transformers: the same numbers here, there and back again."""

import copy
import dataclasses
import hashlib
import json
import pathlib
import pickle
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import places
import pytest
import safetensors.numpy
import tiny_t5

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import (
  huggingface,
  huggingface_config,
  pretrained,
  stored_model,
  weight_files,
)
from prompt_tuning.model import decode, inject, t5
from prompt_tuning.prompts import prompted
from prompt_tuning.vocabulary import BYTES

TOKENIZERS = places.TESTS / "golden" / "tokenizers"
EXPECTED = json.loads((TOKENIZERS / "expected.json").read_text())
ADDED = {"45": {"content": "<ORG>"}, "46": {"content": "<ORGS>"}}
GOLDEN = places.GOLDEN / "huggingface"
VARIANTS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def expected(name):
  return safetensors.numpy.load_file(GOLDEN / name / "expected.safetensors")


def ours(model: pretrained.FrozenModel, given) -> dict[str, np.ndarray]:
  """What the model says of a batch, with the prompt in front and without."""
  inputs, targets = given["inputs"], given["targets"]
  before = t5.shift_right(jnp.asarray(targets))
  plain = t5.T5(model.config)
  variables = {"params": model.params}
  encoded = tiny_t5.jitted(plain, "encode")(variables, inputs)
  spoken = dataclasses.replace(model, vocabulary=tiny_t5.vocabulary())
  together = prompted.with_prompts(spoken, [given["prompt"]])
  length = len(given["prompt"])
  reserved = inject.reserve(inputs, np.zeros(len(inputs), np.int32), length)

  def loss(prompt, frozen):
    bank = {"embedding": prompt[None]}
    logits = together.network.apply(
      {"params": {**frozen, "prompt": bank}}, reserved, before
    )
    each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return (each * (targets > 0)).sum() / (targets > 0).sum(), logits

  value_and_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, steered), gradient = value_and_gradient(
    jnp.asarray(given["prompt"]), together.params
  )
  greedy = decode.make_decoder(plain, decode.Greedy(), targets.shape[1])
  return {
    "encoded": np.asarray(encoded * (inputs > 0)[..., None]),
    "logits": np.asarray(tiny_t5.jitted(plain)(variables, inputs, before)),
    "greedy": np.asarray(greedy(model.params, inputs, jax.random.key(0))),
    "prompted_logits": np.asarray(steered),
    "loss": np.asarray(value),
    "prompt_gradient": np.asarray(gradient),
  }


def agree(found, wanted):
  """Greedy tokens are the same, numbers to 1e-5 (gradients 1e-4) of the max."""
  for name, value in found.items():
    want = wanted[name]
    if name == "greedy":
      np.testing.assert_array_equal(value, want)
      continue
    bound = 1e-4 if name == "prompt_gradient" else 1e-5
    np.testing.assert_allclose(
      value, want, rtol=0, atol=bound * np.abs(want).max(), err_msg=name
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_encoder_logits_greedy_tokens_and_gradient_are_those_of_transformers(
  name,
):
  given = expected(name)
  agree(ours(pretrained.load(GOLDEN / name), given), given)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_written_is_read_again_with_the_same_hash(tmp_path, name):
  model = pretrained.load(GOLDEN / name)
  huggingface.save(tmp_path, model.config, model.params)
  again = pretrained.load(tmp_path)
  assert again.stored_hash == model.stored_hash
  assert again.config == model.config
  given = expected(name)
  agree(ours(again, given), given)


# The size of a T5 1.1 small, but for its vocabulary.
SMALL = {
  "d_model": 512,
  "d_kv": 64,
  "d_ff": 1024,
  "num_heads": 6,
  "num_layers": 8,
  "num_decoder_layers": 8,
}


@pytest.mark.torch
@pytest.mark.parametrize(
  "name, sizes",
  [
    *((name, {}) for name in VARIANTS),
    ("t5_1_0", {"d_model": 64, "num_layers": 6, "num_heads": 8}),
    ("t5_1_1", {"d_model": 64, "num_layers": 4, "num_decoder_layers": 6}),
    ("t5_1_1", SMALL),
  ],
  ids=str,
)
def test_transformers_itself_agrees_both_ways(tmp_path, name, sizes):
  """Its files here, and our files there."""
  reason = "pip install torch transformers to compare live; golden/huggingface "
  reason += "stands in, made by them (test_encoder_logits_greedy_tokens_and_"
  reason += "gradient_are_those_of_transformers)"
  pytest.importorskip("torch", reason=reason)
  transformers = pytest.importorskip("transformers", reason=reason)
  from golden import make_huggingface as peer

  made = peer.model(name, seed=1, **sizes)
  given = peer.batch(seed=1)
  width = made.config.d_model
  rng = np.random.default_rng(1)
  given["prompt"] = rng.normal(size=(3, width)).astype(np.float32)
  want = peer.answers(made, given)
  made.save_pretrained(tmp_path / "theirs")
  model = pretrained.load(tmp_path / "theirs")
  agree(ours(model, given), want)
  huggingface.save(
    tmp_path / "ours", model.config, model.params, shard_bytes=20_000
  )
  there = transformers.T5ForConditionalGeneration.from_pretrained(
    tmp_path / "ours"
  )
  agree(peer.answers(there.eval(), given), want)


# Shards, old files, vocabularies.

NO_TORCH = (
  "pip install torch to write such a file and read it; golden/pickled.json "
  "stands in, made by torch and compared in test_what_torch_*"
)


@pytest.fixture
def sharded(tmp_path):
  model = pretrained.load(GOLDEN / "t5_1_1")
  huggingface.save(
    tmp_path / "sharded", model.config, model.params, shard_bytes=10_000
  )
  return tmp_path / "sharded"


def test_shards_hold_the_same_model(sharded):
  files = sorted(sharded.glob("*.safetensors"))
  assert len(files) > 2
  assert all(file.stat().st_size < 20_000 for file in files)
  whole = pretrained.load(GOLDEN / "t5_1_1")
  assert pretrained.load(sharded).stored_hash == whole.stored_hash


def test_a_smaller_model_over_shards_leaves_no_stale_index(sharded):
  model = pretrained.load(GOLDEN / "t5_1_0")
  huggingface.save(sharded, model.config, model.params)
  assert pretrained.load(sharded).stored_hash == model.stored_hash


def test_without_torch_the_old_pickled_file_is_refused(tmp_path, monkeypatch):
  folder = shutil.copytree(GOLDEN / "t5_1_1", tmp_path / "old")
  (folder / weight_files.SINGLE).rename(folder / weight_files.PICKLED)
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(ValueError, match=r"old format.*prompt-tuning-jax\[torch"):
    pretrained.load(folder)


PICKLED = json.loads((GOLDEN.parent / "pickled.json").read_text())


class PlayedTensor:
  """As much of a tensor of torch as is used, with values of numpy."""

  def __init__(self, name: str, values: np.ndarray, dtype: str):
    kind, shape, digest = PICKLED[dtype][name]
    self.values = values.astype(dtype)
    self.dtype, self.shape = kind, tuple(shape)
    # So these are the bytes that torch itself reads.
    assert hashlib.sha256(self.values.tobytes()).hexdigest() == digest

  def numpy(self):
    assert self.dtype != "torch.bfloat16"  # torch refuses it, too
    return self.values

  def view(self, dtype):
    other = copy.copy(self)
    other.values, other.dtype = self.values.view(dtype), f"torch.{dtype}"
    return other


@pytest.fixture
def played(monkeypatch, tmp_path):
  """torch as golden/pickled.json has it; returns what makes an old folder."""
  tensors = safetensors.numpy.load_file(GOLDEN / "t5_1_1" / weight_files.SINGLE)
  tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]
  contents: dict[str, tuple[str, ...]] = {}

  def folder(dtype: str, files: dict[str, tuple[str, ...]] | None):
    def load(path, *, map_location, mmap, weights_only):
      assert (map_location, mmap, weights_only) == ("cpu", True, True)
      if files is None:
        kind, message = PICKLED["something else"]
        assert kind == "UnpicklingError"
        raise pickle.UnpicklingError(message)
      names = contents[path.name]
      return {name: PlayedTensor(name, tensors[name], dtype) for name in names}

    torch = types.SimpleNamespace(
      load=load, bfloat16="torch.bfloat16", uint16="uint16"
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    old = shutil.copytree(GOLDEN / "t5_1_1", tmp_path / "old")
    (old / weight_files.SINGLE).unlink()
    contents.update(files or {weight_files.PICKLED: ()})
    for name in contents:
      (old / name).write_bytes(b"torch reads this")
    return old

  return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_torch_reads_from_an_old_file_is_the_model(played, dtype):
  folder = played(dtype, {weight_files.PICKLED: tuple(PICKLED[dtype])})
  found = pretrained.load(folder)
  assert str(found.params["token_embedder"]["embedding"].dtype) == dtype
  want = pretrained.load(GOLDEN / "t5_1_1", dtype=dtype)
  for path, leaf in storage.flatten(want.params).items():
    np.testing.assert_array_equal(storage.flatten(found.params)[path], leaf)


def test_what_torch_reads_from_old_shards_is_the_model(played):
  names = [n for n in PICKLED["float32"] if "embed_tokens" not in n]
  files = {
    f"pytorch_model-0000{1 + i}-of-00002.bin": tuple(names[i::2])
    for i in range(2)
  }
  folder = played("float32", files)
  weight_map = {name: file for file in files for name in files[file]}
  index = folder / f"{weight_files.PICKLED}.index.json"
  index.write_text(json.dumps({"weight_map": weight_map}))
  want = pretrained.load(GOLDEN / "t5_1_1")
  assert pretrained.load(folder).stored_hash == want.stored_hash


def test_what_torch_refuses_to_read_is_refused(played):
  with pytest.raises(ValueError, match="Weights only load.*never loaded"):
    pretrained.load(played("float32", None))


@pytest.mark.torch
def test_the_record_is_what_torch_reads_today():
  pytest.importorskip("torch", reason=NO_TORCH)
  from golden import make_pickled

  assert make_pickled.record() == PICKLED


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_old_pickled_file_is_read_through_torch(tmp_path, dtype):
  torch = pytest.importorskip("torch", reason=NO_TORCH)
  folder = shutil.copytree(GOLDEN / "t5_1_1", tmp_path / "old")
  tensors = safetensors.numpy.load_file(folder / weight_files.SINGLE)
  (folder / weight_files.SINGLE).unlink()
  state = {
    k: torch.tensor(v).to(getattr(torch, dtype)) for k, v in tensors.items()
  }
  state["encoder.embed_tokens.weight"] = state["shared.weight"]
  torch.save(state, folder / weight_files.PICKLED)
  model = pretrained.load(folder)
  assert str(model.params["token_embedder"]["embedding"].dtype) == dtype
  if dtype == "float32":
    want = pretrained.load(GOLDEN / "t5_1_1")
    assert model.stored_hash == want.stored_hash


@pytest.mark.torch
def test_old_pickled_shards_are_read_by_their_index(tmp_path):
  torch = pytest.importorskip("torch", reason=NO_TORCH)
  folder = shutil.copytree(GOLDEN / "t5_1_1", tmp_path / "old")
  tensors = safetensors.numpy.load_file(folder / weight_files.SINGLE)
  (folder / weight_files.SINGLE).unlink()
  weight_map = {
    name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin"
    for i, name in enumerate(tensors)
  }
  for file in set(weight_map.values()):
    part = {k: torch.tensor(v) for k, v in tensors.items()}
    part = {k: v for k, v in part.items() if weight_map[k] == file}
    torch.save(part, folder / file)
  index = folder / f"{weight_files.PICKLED}.index.json"
  index.write_text(json.dumps({"weight_map": weight_map}))
  want = pretrained.load(GOLDEN / "t5_1_1")
  assert pretrained.load(folder).stored_hash == want.stored_hash


@pytest.mark.torch
def test_a_pickle_of_anything_else_is_never_loaded(tmp_path):
  torch = pytest.importorskip("torch", reason=NO_TORCH)
  folder = shutil.copytree(GOLDEN / "t5_1_1", tmp_path / "old")
  (folder / weight_files.SINGLE).unlink()
  torch.save({"a": pathlib.Path("x")}, folder / weight_files.PICKLED)
  with pytest.raises(ValueError, match="never loaded"):
    pretrained.load(folder)


def large(folder):
  """A model that embeds as many ids as a ByT5."""
  config = tiny_t5.config(vocab_size=384)
  return huggingface.save(folder, config, tiny_t5.weights(config))


@pytest.mark.parametrize(
  "kind, files, extra_ids",
  [
    ("t5", {}, 100),
    ("mt5", {}, 0),
    ("t5", {"tokenizer_config.json": {"extra_ids": 7}}, 7),
  ],
)
def test_the_vocabulary_beside_the_weights_is_picked_up(
  tmp_path, kind, files, extra_ids
):
  folder = tmp_path / "model"
  if kind == "mt5":
    shutil.copytree(GOLDEN / "mt5", folder)
  else:
    large(folder)
  assert pretrained.load(folder).vocabulary is None
  shutil.copy(tiny_t5.vocabulary().path, folder / "spiece.model")
  for file, content in files.items():
    (folder / file).write_text(json.dumps(content))
  vocabulary = pretrained.load(folder).vocabulary
  assert vocabulary.extra_ids == extra_ids
  text = tiny_t5.TEXTS[0]
  assert vocabulary.encode(text) == tiny_t5.vocabulary().encode(text)


def test_byt5_reads_bytes(tmp_path):
  folder = large(tmp_path / "byt5")
  (folder / "tokenizer_config.json").write_text(
    json.dumps({"tokenizer_class": "ByT5Tokenizer"})
  )
  vocabulary = pretrained.load(folder).vocabulary
  assert vocabulary.path == BYTES
  assert vocabulary.encode("aé") == [100, 198, 172]
  assert vocabulary.decode([100, 198, 172, 1, 0]) == "aé"
  again = pretrained.save(tmp_path / "copy", pretrained.load(folder))
  assert pretrained.load(again).vocabulary.path == BYTES


def test_the_embedding_may_have_more_rows_than_the_vocabulary(tmp_path):
  model = pretrained.load(GOLDEN / "t5_1_1")
  vocabulary = tiny_t5.vocabulary()
  huggingface.save(tmp_path, model.config, model.params, vocabulary=vocabulary)
  loaded = pretrained.load(tmp_path)
  assert loaded.vocabulary.size == vocabulary.size < loaded.config.vocab_size


# What is damaged or does not fit.


def edited(folder, change):
  """Rewrites model.safetensors without hashes, as other programs leave it."""
  path = folder / weight_files.SINGLE
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)
  return folder


def settings(folder, **changes):
  path = folder / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
  return folder


WO = "encoder.block.0.layer.1.DenseReluDense.wo.weight"


@pytest.fixture
def folder(tmp_path):
  return shutil.copytree(GOLDEN / "t5_1_1", tmp_path / "model")


def test_a_truncated_file_is_refused(folder):
  path = folder / weight_files.SINGLE
  path.write_bytes(path.read_bytes()[:-7])
  with pytest.raises(ValueError, match="model.safetensors.*truncated"):
    pretrained.load(folder)


def test_a_missing_shard_is_named_with_what_it_held(sharded):
  (sharded / "model-00002-of-00005.safetensors").unlink(missing_ok=True)
  lost = sorted(sharded.glob("*.safetensors"))[1]
  lost.unlink(missing_ok=True)
  with pytest.raises(FileNotFoundError, match=r"shard .*model-0000.*first is"):
    pretrained.load(sharded)


def test_a_flipped_bit_in_what_we_wrote_is_refused_by_tensor(sharded):
  path = sorted(sharded.glob("*.safetensors"))[0]
  content = bytearray(path.read_bytes())
  content[-5] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match=f"{path.name}: the tensor .* hash"):
    pretrained.load(sharded)


def test_two_swapped_tensors_in_what_we_wrote_are_refused(tmp_path):
  model = pretrained.load(GOLDEN / "t5_1_1")
  huggingface.save(tmp_path, model.config, model.params)
  path = tmp_path / weight_files.SINGLE
  with safetensors.safe_open(path, "np") as file:
    metadata = file.metadata()
    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
  start = "encoder.block.0.layer.0.SelfAttention"
  one, two = f"{start}.q.weight", f"{start}.k.weight"
  tensors[one], tensors[two] = tensors[two], tensors[one]
  safetensors.numpy.save_file(tensors, path, metadata)
  with pytest.raises(ValueError, match=r"SelfAttention\.[kq]\.weight is not"):
    pretrained.load(tmp_path)


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda t: t.pop(WO), "no tensor encoder/layers_0/mlp/wo/kernel"),
    (
      lambda t: t.update({WO: t[WO].T.copy()}),
      rf"model.safetensors: {WO}: .* shape \(16, 24\).* \(24, 16\)",
    ),
    (
      lambda t: t.update({WO: t[WO].astype(np.int32)}),
      f"{WO}.* type I32",
    ),
    (lambda t: t.update(strange=np.ones(3)), "model.safetensors: strange"),
  ],
  ids=["missing", "transposed", "integers", "surplus"],
)
def test_a_tensor_that_does_not_fit_is_named_with_its_file(
  folder, change, message
):
  with pytest.raises(ValueError, match=message):
    pretrained.load(edited(folder, change))


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"model_type": "bert"}, "type 'bert'.*known are t5"),
    ({"feed_forward_proj": "cosine"}, 'feed_forward_proj="cosine"'),
    ({"feed_forward_proj": "gated-"}, 'feed_forward_proj="gated-"'),
    ({"dense_act_fn": "cosine"}, 'dense_act_fn="cosine"'),
    ({"dense_act_fn": None, "is_gated_act": "yes"}, 'is_gated_act="yes"'),
    (
      {"eos_token_id": [1, 2]},
      r"eos_token_id=\[1, 2\]; it must be the id of a token",
    ),
    ({"eos_token_id": 3}, "eos_token_id=3"),
    ({"pad_token_id": True}, "pad_token_id=True"),
    (
      {"relative_attention_max_distance": 1},
      "relative_attention_max_distance=1",
    ),
    ({"relative_attention_max_distance": 16}, "relpos_max_distance=16 must be"),
    ({"dropout_rate": "text"}, 'dropout_rate="text"'),
    ({"dropout_rate": 1}, "dropout_rate=1; it must be a number from 0"),
    ({"num_heads": 2.0}, "num_heads=2.0; it must be a whole number"),
    ({"d_kv": []}, r"d_kv=\[\]"),
    ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon=NaN"),
    ({"scale_decoder_outputs": "no"}, 'scale_decoder_outputs="no"'),
    ({"vocab_size": None}, "has no 'vocab_size'"),
    ({"d_ff": 25}, "DenseReluDense.*asks for"),
    ({"num_layers": 3}, "no tensor encoder/layers_1/"),
    ({"decoder_start_token_id": 5}, "decoder_start_token_id=5"),
  ],
  ids=str,
)
def test_a_wrong_configuration_is_refused(folder, changes, message):
  with pytest.raises(ValueError, match=message):
    pretrained.load(settings(folder, **changes))


@pytest.mark.parametrize(
  "changes, activations",
  [
    ({"feed_forward_proj": "gelu"}, ("gelu_exact",)),
    ({"feed_forward_proj": "gelu_new"}, ("gelu",)),
    ({"feed_forward_proj": "silu"}, ("silu",)),
    ({"feed_forward_proj": "gated-gelu"}, ("gelu", "linear")),
    ({"feed_forward_proj": "gated-gelu_new"}, ("gelu", "linear")),
    ({"dense_act_fn": "gelu"}, ("gelu_exact", "linear")),
    ({"dense_act_fn": "relu", "is_gated_act": False}, ("relu",)),
    ({"feed_forward_proj": None}, ("relu",)),
    ({"feed_forward_proj": None, "model_type": "mt5"}, ("gelu", "linear")),
  ],
  ids=str,
)
def test_the_activation_is_what_transformers_takes(
  folder, changes, activations
):
  """`dense_act_fn` is what it computes with, where it stands."""
  written = json_files.read_object(folder / "config.json")
  plain = {**written, "dense_act_fn": None, "is_gated_act": None, **changes}
  config = huggingface_config.config_of(
    json_files.Fields(plain, "config.json"), has_head=True
  )
  assert config.mlp_activations == activations


@pytest.mark.parametrize(
  "changes, scales",
  [
    ({"scale_decoder_outputs": None, "tie_word_embeddings": True}, False),
    ({"scale_decoder_outputs": True}, True),
    ({"tie_word_embeddings": True}, True),
    ({"tie_word_embeddings": False}, False),
    ({"tie_word_embeddings": True, "model_type": "mt5"}, False),
  ],
  ids=str,
)
def test_the_logits_are_scaled_where_transformers_scales_them(changes, scales):
  sizes = dict.fromkeys(("d_model", "num_heads", "d_ff", "num_layers"), 8)
  given = {"model_type": "t5", "vocab_size": 60, **sizes, **changes}
  fields = json_files.Fields(given, "config.json")
  config = huggingface_config.config_of(fields, has_head=True)
  assert config.scale_logits is scales


def with_tensors(folder, change):
  """The folder with other tensors."""
  path = folder / weight_files.SINGLE
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path, {"format": "pt"})
  return folder


def test_a_second_table_counts_only_where_it_is_the_same(folder):
  want = pretrained.load(folder).stored_hash

  def copied(tensors):
    for stack in ("encoder", "decoder"):
      table = tensors["shared.weight"].copy()
      tensors[f"{stack}.embed_tokens.weight"] = table

  assert pretrained.load(with_tensors(folder, copied)).stored_hash == want

  def other(tensors):
    tensors["decoder.embed_tokens.weight"][7, 3] += 1

  with pytest.raises(ValueError, match="decoder.embed_tokens.weight has other"):
    pretrained.load(with_tensors(folder, other))


def test_a_table_under_the_decoders_name_is_read(folder):
  want = pretrained.load(folder).stored_hash

  def renamed(tensors):
    table = tensors.pop("shared.weight")
    tensors["decoder.embed_tokens.weight"] = table

  assert pretrained.load(with_tensors(folder, renamed)).stored_hash == want


def test_a_lost_head_is_no_tied_head(folder):
  def headless(tensors):
    tensors.pop("lm_head.weight")

  lost = settings(
    with_tensors(folder, headless),
    tie_word_embeddings=False,
    scale_decoder_outputs=None,
  )
  with pytest.raises(ValueError, match="no lm_head.weight"):
    pretrained.load(lost)


def test_umt5_has_a_table_of_positions_for_each_layer(tmp_path):
  config = tiny_t5.config(num_encoder_layers=2, relpos_per_layer=True)
  params = tiny_t5.weights(config)
  huggingface.save(tmp_path, config, params)
  tensors = safetensors.numpy.load_file(tmp_path / weight_files.SINGLE)
  bias = "layer.0.SelfAttention.relative_attention_bias.weight"
  for i in range(2):
    table = params["encoder"][f"layers_{i}"]["relpos_bias"]["rel_embedding"]
    np.testing.assert_array_equal(tensors[f"encoder.block.{i}.{bias}"], table.T)
  found = pretrained.load(tmp_path)
  assert found.config == config
  assert found.stored_hash == stored_model.weights_hash(params)
  assert json.loads((tmp_path / "config.json").read_text())["model_type"] == (
    "umt5"
  )


def test_a_configuration_without_a_size_is_refused(folder):
  path = folder / "config.json"
  kept = json.loads(path.read_text())
  del kept["d_model"]
  path.write_text(json.dumps(kept))
  with pytest.raises(ValueError, match="config.json.*no 'd_model'"):
    pretrained.load(folder)


def test_a_folder_without_weights_says_what_it_looked_for(folder):
  (folder / weight_files.SINGLE).unlink()
  with pytest.raises(FileNotFoundError, match="neither model.safetensors nor"):
    pretrained.load(folder)


def test_activations_that_transformers_lacks_are_refused(tmp_path):
  config = tiny_t5.config(mlp_activations=("gelu", "relu"))
  with pytest.raises(ValueError, match=r"\('gelu', 'relu'\)"):
    huggingface.save(tmp_path, config, tiny_t5.weights(config))


def test_names_are_those_of_the_files():
  config = pretrained.load(GOLDEN / "t5_1_1").config
  with safetensors.safe_open(
    GOLDEN / "t5_1_1" / weight_files.SINGLE, "np"
  ) as file:
    assert set(huggingface.tensor_names(config).values()) == set(file.keys())
  assert storage.flatten(t5.abstract_parameters(config)).keys() == (
    huggingface.tensor_names(config).keys()
  )


def with_files(folder, **files):
  """The folder with tiny_t5's pieces and more files, by their stems."""
  shutil.copy(tiny_t5.vocabulary().path, folder / huggingface.VOCABULARY)
  for name, value in files.items():
    (folder / f"{name}.json").write_text(json.dumps(value))
  return folder


def test_added_tokens_are_used_whichever_file_says_them(folder):
  entries = {"59": {"content": "<ORG>"}, "44": {"content": "<extra_id_0>"}}
  config = {"extra_ids": 10, "added_tokens_decoder": entries}
  more = {"<PER>": 50, "<ORG>": 59}
  with_files(folder, tokenizer_config=config, added_tokens=more)
  vocabulary = pretrained.load(folder).vocabulary
  assert vocabulary.added == {"<ORG>": 59, "<PER>": 50}
  the = tiny_t5.vocabulary().encode("the")
  assert vocabulary.encode("the <ORG>the<PER>") == [*the, 59, *the, 50]
  assert vocabulary.decode([*the, 59, 50]) == "the <ORG> <PER>"


@pytest.mark.parametrize("legacy", [None, True, False])
def test_where_no_word_began_behind_a_token_it_is_said(folder, legacy, caplog):
  """The ids are those of transformers 5, which takes no notice of it."""
  with_files(
    folder,
    tokenizer_config={
      "extra_ids": 10,
      "added_tokens_decoder": ADDED,
      "legacy": legacy,
    },
  )
  vocabulary = pretrained.load(folder).vocabulary
  for text in ("the <ORG> cat", "<ORG>", "the<ORG>the", "(<ORG>)cat"):
    assert vocabulary.encode(text) == EXPECTED[text]
  said = [r.getMessage() for r in caplog.records if "legacy" in r.getMessage()]
  assert len(said) == (legacy is False)
  assert all("(<ORG>word)" in message for message in said)


def test_nothing_is_said_of_sentinels_alone(folder, caplog):
  """Behind a sentinel no word begins here either."""
  with_files(folder, tokenizer_config={"extra_ids": 10, "legacy": False})
  pretrained.load(folder)
  assert not [r for r in caplog.records if "legacy" in r.getMessage()]


def test_files_that_give_a_token_two_ids_are_refused(folder):
  entries = {"59": {"content": "<ORG>"}}
  config = {"extra_ids": 10, "added_tokens_decoder": entries}
  with_files(folder, tokenizer_config=config, added_tokens={"<ORG>": 58})
  with pytest.raises(ValueError, match="added_tokens.json.*'<ORG>' the id 58"):
    pretrained.load(folder)


def test_added_tokens_beyond_the_table_are_refused(folder):
  config = {"extra_ids": 10, "added_tokens_decoder": {"60": {"content": "<X>"}}}
  with pytest.raises(ValueError, match="has 61 ids, .* embeds 60"):
    pretrained.load(with_files(folder, tokenizer_config=config))


@pytest.mark.parametrize("name", ["eos_token", "pad_token"])
@pytest.mark.parametrize("token", ["<s>", {"content": "<s>"}])
def test_other_special_tokens_of_a_tokenizer_are_refused(folder, name, token):
  with_files(folder, tokenizer_config={name: token, "extra_ids": 10})
  with pytest.raises(ValueError, match=f"has {name}='<s>'; the vocabulary"):
    pretrained.load(folder)


@pytest.mark.parametrize("to", ["prompt-tuning", "huggingface"])
@pytest.mark.parametrize("kind", ["pieces", "tokenizer"])
def test_a_vocabulary_with_added_tokens_is_the_same_when_saved(
  to, kind, folder, tmp_path
):
  if kind == "pieces":
    config = {"extra_ids": 10, "added_tokens_decoder": ADDED}
    with_files(folder, tokenizer_config=config)
  else:
    shutil.copy(TOKENIZERS / "tokenizer.json", folder)
  model = pretrained.load(folder)
  # What a model of the other kind left there is not read in its place.
  pretrained.save(tmp_path / "to", model, to)
  other = pretrained.load(folder)
  saved = pretrained.load(pretrained.save(tmp_path / "to", other, to))
  for text, ids in EXPECTED.items():
    assert saved.vocabulary.encode(text) == ids
  assert saved.vocabulary.size == model.vocabulary.size == 47
  assert saved.vocabulary.num_pieces == 35


def test_a_folder_saved_over_one_of_another_vocabulary_has_its_own(
  folder, tmp_path
):
  with_files(folder, tokenizer_config={"extra_ids": 12})
  other = shutil.copytree(folder, tmp_path / "other")
  shutil.copy(TOKENIZERS / "tokenizer.json", other)
  (other / huggingface.VOCABULARY).unlink()
  (other / huggingface.TOKENIZER).unlink()
  pieces, tokenizer = pretrained.load(folder), pretrained.load(other)
  for to in pretrained.FORMATS.keys() - {"t5x"}:
    for model in (pieces, tokenizer, pieces):
      saved = pretrained.load(pretrained.save(tmp_path / to, model, to))
      assert saved.vocabulary.is_json == model.vocabulary.is_json
      assert saved.vocabulary.size == model.vocabulary.size == 47
      assert saved.vocabulary.extra_ids == model.vocabulary.extra_ids
