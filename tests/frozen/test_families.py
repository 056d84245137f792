"""T5Gemmas and UMT5s of transformers: the same here, there and back again."""

import dataclasses
import json
from typing import Any

from golden import make_families as peer
import jax
import jax.numpy as jnp
import numpy as np
import optax
import places
import pytest
import safetensors.numpy
import tiny_t5

from prompt_tuning import json_files, storage
from prompt_tuning.frozen import huggingface, pretrained, t5gemma, weight_files
from prompt_tuning.model import decode, inject, t5
from prompt_tuning.model.t5gemma.config import FULL, SLIDING
from prompt_tuning.prompts import prompted
from prompt_tuning.vocabulary import GEMMA_IDS, Vocabulary

RECORD = json.loads((places.GOLDEN / "families.json").read_text())
SAID = np.load(places.GOLDEN / "families.npz")
LIVE = ("t5gemma_1", "t5gemma_9", "umt5_2")  # compared with transformers itself


def said(name: str) -> dict[str, np.ndarray]:
  """What transformers was given and said."""
  keys = [key for key in SAID if key.startswith(f"{name}/")]
  answers = {key.split("/")[1]: SAID[key] for key in keys}
  return {**peer.batch(name, answers["encoded"].shape[-1]), **answers}


def written(folder, name: str):
  """The model's folder, with the weights that the formula draws."""
  folder.mkdir()
  config = RECORD[name]["config"]
  (folder / "config.json").write_text(json.dumps(config))
  tied = config["tie_word_embeddings"]
  if name.startswith("umt5"):  # what says it there, see docs/formats.md
    tied = config["scale_decoder_outputs"]
  # The names are ours; that they are transformers' too is what the hash says.
  fields = json_files.Fields(config, folder / "config.json")
  if name.startswith("umt5"):
    shape = huggingface.huggingface_config.config_of(fields, has_head=not tied)
  else:
    shape = t5gemma.config_of(fields, has_head=not tied)
  leaves = storage.flatten(t5.abstract_parameters(shape))
  shapes = {
    own: leaves[path].shape[::-1]
    if path.endswith(("kernel", "rel_embedding"))
    else leaves[path].shape
    for path, own in huggingface.tensor_names(shape).items()
  }
  assert peer.digest(shapes) == RECORD[name]["tensors"]
  drawn = peer.weights(shapes, name, RECORD[name]["seed"])
  safetensors.numpy.save_file(drawn, folder / weight_files.SINGLE)
  return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
  """By name, each loaded once."""
  folder, made = tmp_path_factory.mktemp("families"), {}

  def model(name):
    if name not in made:
      made[name] = pretrained.load(written(folder / name, name))
    return made[name]

  return model


def prompted_with(model: pretrained.FrozenModel, given):
  """The model with the prompt in front, and inputs with its places."""
  inputs, prompt = given["inputs"], given["prompt"]
  spoken = dataclasses.replace(model, vocabulary=tiny_t5.vocabulary())
  together = prompted.with_prompts(spoken, [prompt])
  zeros = np.zeros(len(inputs), np.int32)
  return together, inject.reserve(inputs, zeros, len(prompt))


def numbers(model: pretrained.FrozenModel, given) -> dict[str, Any]:
  """What the model computes of a batch, with the prompt and without."""
  inputs, targets = given["inputs"], given["targets"]
  before = t5.shift_right(jnp.asarray(targets))
  together, reserved = prompted_with(model, given)
  plain = t5.T5(model.config)

  @jax.jit
  def computed(prompt, params):
    def loss(prompt):
      tree = {**params, "prompt": {"embedding": prompt[None]}}
      variables: Any = {"params": tree}
      logits: Any = together.network.apply(variables, reserved, before)
      each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
      return (each * (targets > 0)).sum() / (targets > 0).sum(), logits

    (value, logits), gradient = jax.value_and_grad(loss, has_aux=True)(prompt)
    variables = {"params": params}
    encoded = plain.apply(variables, inputs, method="encode")
    return {
      "encoded": encoded * (inputs > 0)[..., None],
      "logits": plain.apply(variables, inputs, before),
      "prompted_logits": logits,
      "loss": value,
      "prompt_gradient": gradient,
    }

  return computed(jnp.asarray(given["prompt"]), model.params)


def tokens(model: pretrained.FrozenModel, given) -> dict[str, Any]:
  """What the model writes, place by place, with the prompt and without."""
  together, reserved = prompted_with(model, given)
  plain, length = t5.T5(model.config), given["targets"].shape[1]
  key, beam = jax.random.key(0), decode.Beam(4, alpha=0.0)
  greedy = decode.make_decoder(plain, decode.Greedy(), length)
  beams = decode.make_decoder(plain, beam, length)
  steered = decode.make_decoder(together.network, decode.Greedy(), length)
  return {
    "greedy": greedy(model.params, given["inputs"], key),
    "beams": beams(model.params, given["inputs"], key),
    "prompted_greedy": steered(together.params, reserved, key),
  }


def agree(found, wanted):
  """Tokens are the same, numbers to 1e-5 (gradients 1e-4) of the largest."""
  for name, value in found.items():
    want, value = wanted[name], np.asarray(value)
    if want.dtype == np.int32:
      np.testing.assert_array_equal(value, want, err_msg=name)
      continue
    bound = 1e-4 if name == "prompt_gradient" else 1e-5
    np.testing.assert_allclose(
      value, want, rtol=0, atol=bound * np.abs(want).max(), err_msg=name
    )


@pytest.mark.parametrize("name", peer.NAMES)
def test_encoder_logits_and_gradient_are_those_of_transformers(models, name):
  given = said(name)
  agree(numbers(models(name), given), given)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in LIVE))
    for name in peer.NAMES
  ],
)
def test_greedy_and_beam_tokens_are_those_of_transformers(models, name):
  """Cached here, all at once there."""
  given = said(name)
  agree(tokens(models(name), given), given)


@pytest.mark.parametrize("name", ["t5gemma_1", "t5gemma_4", "umt5_2"])
def test_what_is_written_is_read_again_with_the_same_hash(
  models, tmp_path, name
):
  model = models(name)
  for to in ("huggingface", "prompt-tuning"):
    folder = pretrained.save(tmp_path / to, model, to)
    again = pretrained.load(folder)
    assert again.stored_hash == model.stored_hash
    assert again.config == model.config


@pytest.mark.torch
@pytest.mark.parametrize("name", LIVE)
def test_transformers_itself_agrees_both_ways(models, tmp_path, name):
  """Its files here, and our files there."""
  reason = (
    "pip install torch transformers to compare live; golden/families.npz "
    "stands in, made by them (test_encoder_logits_and_gradient_are_those_of_"
    "transformers, test_greedy_and_beam_tokens_are_those_of_transformers)"
  )
  pytest.importorskip("torch", reason=reason)
  transformers = pytest.importorskip("transformers", reason=reason)
  made, given = peer.model(name, RECORD[name]["seed"]), said(name)
  agree(peer.answers(made, given), given)
  made.save_pretrained(tmp_path / "theirs", max_shard_size="5KB")
  model = pretrained.load(tmp_path / "theirs")
  assert model.stored_hash == models(name).stored_hash
  assert model.config == models(name).config
  huggingface.save(
    tmp_path / "ours", model.config, model.params, shard_bytes=10_000
  )
  there = type(made).from_pretrained(
    tmp_path / "ours", attn_implementation="eager"
  )
  agree(peer.answers(there.eval(), given), given)
  assert transformers.AutoConfig.from_pretrained(tmp_path / "ours")


# What a prompt is.


@pytest.mark.parametrize("name", ["t5gemma_2", "umt5_0"])
def test_a_prompt_of_words_is_these_words(models, name):
  """Rows of the table, before a T5Gemma's factor sqrt(E)."""
  model, given = models(name), said(name)
  words, inputs = np.array([7, 3, 11]), given["inputs"]
  spoken = dataclasses.replace(model, vocabulary=tiny_t5.vocabulary())
  together = prompted.with_prompts(spoken, [model.embedding[words]])
  reserved = inject.reserve(inputs, np.zeros(len(inputs), np.int32), 3)
  typed = np.concatenate([np.tile(words, (len(inputs), 1)), inputs], axis=1)
  run = jax.jit(together.network.apply)
  want = jax.jit(t5.T5(model.config).apply)
  np.testing.assert_array_equal(
    run({"params": together.params}, reserved, given["targets"]),
    want({"params": model.params}, typed.astype(np.int32), given["targets"]),
  )


# What config.json says is used or refused by name.


def settings(**changes: Any) -> json_files.Fields:
  """Of t5gemma_0, where `encoder__head_dim` is a field of the encoder."""
  config = json.loads(json.dumps(RECORD["t5gemma_0"]["config"]))
  for name, value in changes.items():
    *stack, field = name.split("__")
    table = config[stack[0]] if stack else config
    table[field] = value
  return json_files.Fields(config, "config.json")


def config_of(**changes: Any):
  return t5gemma.config_of(settings(**changes), has_head=False)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"encoder__attention_bias": True}, "encoder has attention_bias=true"),
    ({"decoder__hidden_activation": "cosine"}, 'hidden_activation="cosine"'),
    ({"encoder__vocab_size": 24}, "vocab_size 24 for the encoder and 23"),
    ({"encoder__layer_types": ["full_attention"]}, "layer_types=.*each of"),
    ({"encoder__layer_types": ["near"] * 3}, "encoder has layer_types="),
    ({"encoder__sliding_window": None}, "sliding_window=null"),
    ({"encoder__rope_scaling": {"factor": 2}}, "rope_scaling="),
    (
      {"decoder__rope_parameters": {"rope_type": "yarn"}},
      'rope_parameters has rope_type="yarn"',
    ),
    ({"decoder__cross_attention_hidden_size": 7}, "hidden_size, 24"),
    ({"decoder__model_type": "gemma3_text"}, 'model_type="gemma3_text"'),
    ({"decoder__num_key_value_heads": 3}, "num_kv_heads=3"),
    ({"decoder__head_dim": 5}, "head_dim=5 must be even"),
    ({"decoder__attn_logit_softcapping": 0}, "attn_logit_softcapping=0"),
    ({"decoder__final_logit_softcapping": "x"}, 'final_logit_softcapping="x"'),
    ({"pad_token_id": 3}, "pad_token_id=3"),
    ({"eos_token_id": [107]}, r"eos_token_id=\[107\]"),
    ({"decoder_start_token_id": 0}, "decoder_start_token_id=0.*bos_token_id"),
    ({"decoder__bos_token_id": 99}, "bos_token_id=2; .*, 99"),
    ({"tie_word_embeddings": False}, "no lm_head.out_proj.weight"),
    ({"dropout_rate": 1}, "dropout_rate=1"),
    ({"encoder": [1]}, "encoder holds a list"),
    ({"encoder__query_pre_attn_scalar": 0}, "query_pre_attn_scalar=0"),
  ],
  ids=str,
)
def test_a_wrong_configuration_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    config_of(**changes)


def test_what_is_missing_is_what_transformers_takes():
  """A configuration of 2B alone, with caps that are switched off."""
  fields = json_files.Fields({"model_type": "t5gemma"}, "config.json")
  config = t5gemma.config_of(fields, has_head=False)
  for stack in (config.encoder, config.decoder):
    assert (stack.emb_dim, stack.mlp_dim, stack.num_layers) == (2304, 9216, 26)
    assert (stack.num_heads, stack.num_kv_heads, stack.head_dim) == (8, 4, 256)
    assert stack.layer_types[:3] == (SLIDING, FULL, SLIDING)
    assert (stack.window, stack.query_scale) == (4096, 256)
    assert (stack.attention_cap, stack.rope_base) == (50, 10_000)
  assert config.vocab_size == 256_000
  assert (config.logits_cap, config.start_id) == (30, 2)
  off = {"decoder__attn_logit_softcapping": None}
  off["decoder__final_logit_softcapping"] = None
  without = config_of(**off)
  assert (without.decoder.attention_cap, without.logits_cap) == (None, None)


def test_older_files_have_the_base_of_rotations_outside():
  old = config_of(encoder__rope_parameters=None, encoder__rope_theta=77.0)
  assert old.encoder.rope_base == 77
  assert old.decoder.rope_base == 10_000


def test_several_ends_are_told_and_the_first_of_all_counts(caplog):
  config_of(eos_token_id=[1, 107])
  assert "ends with 1 alone" in caplog.text


def test_a_t5gemma_2_is_refused_by_name(tmp_path):
  folder = written(tmp_path / "model", "t5gemma_0")
  (folder / "config.json").write_text('{"model_type": "t5gemma2"}')
  with pytest.raises(ValueError, match="type 't5gemma2': a T5Gemma 2 has one"):
    pretrained.load(folder)


def test_t5x_has_no_t5gemma(models, tmp_path):
  with pytest.raises(ValueError, match="t5x, which has no such"):
    pretrained.save(tmp_path, models("t5gemma_0"), "t5x")


def test_a_head_that_is_the_table_again_is_none(tmp_path):
  folder = written(tmp_path / "model", "t5gemma_0")
  path = folder / weight_files.SINGLE
  tensors = safetensors.numpy.load_file(path)
  table = tensors["model.decoder.embed_tokens.weight"]
  safetensors.numpy.save_file({**tensors, t5gemma.HEAD: table.copy()}, path)
  assert pretrained.open_model(folder).config.logits_via_embedding
  safetensors.numpy.save_file({**tensors, t5gemma.HEAD: table + 1}, path)
  assert not pretrained.open_model(folder).config.logits_via_embedding


@pytest.mark.parametrize("to", ["huggingface", "prompt-tuning"])
def test_a_gemmas_vocabulary_comes_and_goes_with_its_model(tmp_path, to):
  config = tiny_t5.gemma(start_id=2)
  given = Vocabulary(tiny_t5.gemma_pieces(tmp_path), 0, special=GEMMA_IDS)
  made = pretrained.FrozenModel(
    config, tiny_t5.weights(config), given, "tiny", ""
  )
  again = pretrained.load(pretrained.save(tmp_path / "model", made, to))
  found = again.require_vocabulary()
  assert (again.config, found.special) == (config, GEMMA_IDS)
  for text in tiny_t5.TEXTS:
    assert found.encode(text) == given.encode(text)
    assert found.decode(found.encode(text)) == text
