"""IA3 adapters of PEFT: the same factors here, or a refusal."""

import dataclasses
import json
import shutil

import numpy as np
import places
import pytest
import safetensors.numpy
import tiny_t5

from prompt_tuning.cli import inspection
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer
from prompt_tuning.model import decode, t5
from prompt_tuning.prompts import adapters, checkpoints, conversion, prompted
from prompt_tuning.prompts.inner import ia3_adapters

BASE = places.GOLDEN / "huggingface" / "t5_1_1"
GOLDEN = places.GOLDEN / "peft"


@pytest.fixture(scope="module")
def model():
  return pretrained.load(BASE, vocabulary=tiny_t5.vocabulary())


def logits(model, whole, given):
  one = prompted.with_prompts(model, [whole])
  before = t5.shift_right(given["targets"])
  answer = tiny_t5.jitted(one.network)
  return np.asarray(answer({"params": one.params}, given["inputs"], before))


def close(found, want):
  np.testing.assert_allclose(
    found, want, rtol=0, atol=1e-5 * np.abs(want).max()
  )


@pytest.mark.parametrize("name", ["ia3", "ia3_others"])
def test_an_imported_adapter_says_what_peft_says(name, model):
  """Of PEFT's usual modules (k, v, wo), and of all that are the same."""
  given = safetensors.numpy.load_file(GOLDEN / name / "expected.safetensors")
  saved = checkpoints.load_prompt(GOLDEN / name, model)
  assert (saved.format, saved.record["method"]["name"]) == ("PEFT", "IA3")
  assert saved.record["model"]["source"] == "t5_1_1"
  close(logits(model, saved.tensors, given), given["logits"])
  alone = logits(model, tiny_t5.rows(0, model.config.emb_dim), given)
  assert np.abs(alone - given["logits"]).max() > 0.1 * np.abs(alone).max()


def test_it_is_converted_and_shares_a_batch_with_a_prompt(tmp_path, model):
  inspection.convert(GOLDEN / "ia3", tmp_path / "ours", "prompt-tuning")
  assert "encoder_keys" in inspection.inspect(tmp_path / "ours")["tensors"]
  saved = [
    checkpoints.load_prompt(tmp_path / "ours", model),
    checkpoints.load_prompt(GOLDEN / "one", model),
  ]
  decoding = infer.Decoding(decode.Greedy(), max_length=4)
  texts = [tiny_t5.tokens(1, 5, seed=n)[0] for n in range(2)]

  def answers(which, prompt_id):
    predictor = infer.Predictor(prompted.with_saved(model, which), decoding)
    return [answer.text for answer in predictor.answers(texts, prompt_id)]

  together = answers(saved, [0, 1])
  alone = [answers([one], [0, 0])[n] for n, one in enumerate(saved)]
  assert together == alone
  with pytest.raises(ValueError, match="more than rows in front of an input"):
    conversion.convert(saved[0], tmp_path / "peft", "peft", "base")


LAYER = "base_model.model.encoder.block.{}.layer.{}.{}.ia3_l"
KEYS = LAYER.format(0, 0, "SelfAttention.k")


def test_factors_of_one_product_multiply_and_untouched_layers_have_ones():
  """By hand: two keys' numbers, a third layer that has its own factor."""
  made = ia3_adapters.read(
    {
      KEYS: np.float32([[2], [3]]),
      LAYER.format(0, 0, "SelfAttention.q"): np.float32([[5], [7]]),
      LAYER.format(2, 0, "SelfAttention.k"): np.float32([[11], [13]]),
      LAYER.format(0, 1, "DenseReluDense.wo"): np.float32([[4, 5, 6]]),
    },
    "here",
  )
  assert made["encoder_keys"].tolist() == [[10, 21], [1, 1], [11, 13]]
  assert made["encoder_hidden"].tolist() == [[4, 5, 6], [1, 1, 1], [1, 1, 1]]
  assert made.keys() == {"encoder_keys", "encoder_hidden"}


@pytest.mark.parametrize(
  "module, shape, message",
  [
    ("SelfAttention.k", (1, 4), "goes into .*SelfAttention.k: .*as published"),
    ("SelfAttention.o", (4, 1), "comes out of .*SelfAttention.o"),
    ("DenseReluDense.wi", (4, 1), "in front of the activation"),
    ("DenseReluDense.wi_0", (4, 1), "in front of the activation"),
    ("DenseReluDense.wi_1", (1, 4), "goes into .*wi_1"),
    ("DenseReluDense.wo", (4, 1), "comes out of .*wo"),
    ("SelfAttention.k", (4,), "comes out of"),
  ],
)
def test_a_factor_that_stands_elsewhere_is_refused_by_name(
  module, shape, message
):
  found = {LAYER.format(0, 0, module): np.ones(shape, np.float32)}
  with pytest.raises(ValueError, match=message):
    ia3_adapters.read(found, "here")


@pytest.fixture
def damaged(tmp_path):
  """A copy of an adapter, and a function that writes its tensors anew."""
  folder = shutil.copytree(GOLDEN / "ia3", tmp_path / "ia3")
  file = folder / adapters.WEIGHTS
  before = safetensors.numpy.load_file(file)

  def rewrite(changes):
    safetensors.numpy.save_file({**before, **changes}, file)

  return folder, rewrite


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"base_model.model.lm_head.ia3_l": np.ones((4, 1))}, "lm_head"),
    ({"base_model.model.shared.weight": np.ones(4)}, "shared.weight"),
    ({KEYS: np.full((16, 1), np.nan)}, "encoder_keys has NaN"),
    ({KEYS.replace(".k.", ".q."): np.ones((3, 1))}, "keys of several widths"),
  ],
  ids=["head", "weights", "nan", "width"],
)
def test_what_is_more_or_damaged_is_refused(damaged, changes, message):
  folder, rewrite = damaged
  rewrite({k: np.float32(v) for k, v in changes.items()})
  with pytest.raises(ValueError, match=message):
    checkpoints.load_prompt(folder)


def test_an_adapter_of_another_model_or_kind_is_refused(damaged, model):
  folder, _ = damaged
  deeper = dataclasses.replace(model.config, num_encoder_layers=5)
  other = dataclasses.replace(model, config=deeper)
  with pytest.raises(ValueError, match="a model of another size"):
    checkpoints.load_prompt(folder, other)
  config = folder / adapters.CONFIG
  settings = json.loads(config.read_text())
  config.write_text(json.dumps({**settings, "task_type": "CAUSAL_LM"}))
  with pytest.raises(ValueError, match="another kind of model"):
    checkpoints.load_prompt(folder)


@pytest.mark.torch
@pytest.mark.parametrize("is_usual", [True, False])
def test_peft_itself_agrees(tmp_path, model, is_usual):
  reason = "pip install torch transformers peft to compare live; golden/peft "
  reason += "stands in, made by them (test_an_imported_adapter_says_what_peft_"
  reason += "says)"
  for name in ("torch", "transformers", "peft"):
    pytest.importorskip(name, reason=reason)
  from golden import make_peft as peer

  theirs = peer.scaled(**({} if is_usual else peer.OTHERS), seed=5)
  given = peer.batch(seed=5)
  theirs.save_pretrained(tmp_path / "theirs")
  saved = checkpoints.load_prompt(tmp_path / "theirs", model)
  close(logits(model, saved.tensors, given), peer.logits(theirs, given))
