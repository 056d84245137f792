"""Prompts that reach into the network: how they start, their file, refusals."""

import json

import jax
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import storage
from prompt_tuning.cli import inspection
from prompt_tuning.inference import prompted_model
from prompt_tuning.prompts import (
  checkpoints,
  prompt,
  prompted,
)
from prompt_tuning.prompts.inner import deep, tensors

CONFIG = tiny_t5.config(num_encoder_layers=3, num_decoder_layers=2)
P, E, N = 4, 16, 2
ROWS = tiny_t5.rows(N, P, E)


def made(method, length=P):
  return prompt.for_network(method(length, E, N), CONFIG)


def found(module, first) -> dict:
  return jax.tree.map(np.asarray, prompt.tensors(module, {"prompt": first}))


def test_rows_to_add_are_zeros_and_rows_to_replace_are_the_rows():
  for combine, keep in (("add", 1), ("replace", 0)):
    module = made(deep.deep(combine))
    have = found(module, module.first_parameters(ROWS))
    assert have["deep"].shape == (N, 2, P, E)
    np.testing.assert_array_equal(have["embedding"], ROWS)
    for layer in range(2):
      expected = ROWS * (1 - keep)
      np.testing.assert_array_equal(have["deep"][:, layer], expected)
    np.testing.assert_array_equal(have["keep"], np.full((N, 2), keep))


def test_ia3_is_ones_of_every_layer():
  module = made(deep.ia3(), 0)
  have = found(module, module.first_parameters(ROWS[:, :0]))
  assert all((tensor == 1).all() for tensor in have.values())
  sizes = {name: tensor.shape for name, tensor in have.items()}
  assert sizes == {
    "encoder_keys": (N, 3, 16),
    "encoder_values": (N, 3, 16),
    "encoder_hidden": (N, 3, 32),
    "decoder_keys": (N, 2, 16),
    "decoder_values": (N, 2, 16),
    "decoder_cross_keys": (N, 2, 16),
    "decoder_cross_values": (N, 2, 16),
    "decoder_hidden": (N, 2, 32),
  }
  # 2 A + F for an encoder layer, 4 A + F for one of the decoder.
  each = sum(tensor.size for tensor in have.values()) // N
  assert each == 3 * (2 * 16 + 32) + 2 * (4 * 16 + 32)
  assert prompt.collapsed(module, {"prompt": have}).shape == (N, 0, E)


def test_a_prompt_for_the_decoder_starts_from_the_rows_behind_the_others():
  module = made(deep.decoder(3))
  assert module.num_rows == P + 3
  rows = tiny_t5.rows(N, P + 3, E)
  have = found(module, module.first_parameters(rows))
  np.testing.assert_array_equal(have["embedding"], rows[:, :P])
  np.testing.assert_array_equal(have["decoder_embedding"], rows[:, P:])


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: deep.deep("repalce"), "DEEP='repalce'.*Did you mean replace"),
    (lambda: deep.decoder(0), "DECODER_PROMPT_LENGTH=0 is no size"),
    (
      lambda: prompt.for_network(
        deep.deep()(P, E, N), tiny_t5.config()
      ).first_parameters(ROWS),
      "two encoder layers at least; here are 4",
    ),
    (
      lambda: made(deep.deep(), 0).first_parameters(ROWS),
      "here are 0 .PROMPT_LENGTH.",
    ),
  ],
)
def test_a_setting_that_is_none_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()


# The file.

KINDS = {
  "deep": {
    "embedding": tiny_t5.rows(P, E),
    "deep": tiny_t5.rows(0, P, E),
    "keep": tiny_t5.rows(0),
  },
  "ia3": {
    name: np.float32(1 + 0.3 * tiny_t5.rows(*shape))
    for name, shape in tensors.vector_shapes(tiny_t5.config()).items()
  },
  "decoder": {
    "embedding": tiny_t5.rows(2, E),
    "decoder_embedding": tiny_t5.rows(3, E),
  },
}
SAVED = {k: v for k, v in KINDS.items() if k != "deep"}


@pytest.mark.parametrize("kind", SAVED)
def test_a_saved_prompt_is_read_back(tmp_path, kind):
  checkpoints.save_prompt(tmp_path, SAVED[kind], {"task": "cat"})
  assert {path.name for path in tmp_path.iterdir()} == {
    "prompt.safetensors",
    "prompt.json",
  }
  for path in (tmp_path, tmp_path / "prompt.safetensors"):
    assert checkpoints.is_prompt(path)
    saved = checkpoints.load_prompt(path, toy_tasks.model())
    assert saved.name == "cat" and saved.record["tensors"] == {
      name: list(tensor.shape) for name, tensor in sorted(SAVED[kind].items())
    }
    assert storage.tree_hash(dict(saved.tensors)) == storage.tree_hash(
      SAVED[kind]
    )
    rows = SAVED[kind].get("embedding", np.zeros((0, E)))
    np.testing.assert_array_equal(saved.values, rows)


def test_the_record_says_which_of_two_files_counts(tmp_path):
  rows = tiny_t5.rows(P, E)
  checkpoints.save_prompt(tmp_path, SAVED["decoder"], {})
  checkpoints.save_prompt(tmp_path, rows, {})
  np.testing.assert_array_equal(checkpoints.load_prompt(tmp_path).whole, rows)
  assert not (tmp_path / "prompt.safetensors").exists()
  # As if the process had ended before it could remove the other one.
  checkpoints.save_prompt(tmp_path / "new", SAVED["decoder"], {})
  np.save(tmp_path / "new" / "prompt.npy", rows)
  saved = checkpoints.load_prompt(tmp_path / "new")
  assert saved.tensors.keys() == SAVED["decoder"].keys()


def test_one_matrix_of_another_program_may_have_the_name(tmp_path):
  rows = tiny_t5.rows(P, E)
  path = tmp_path / "prompt.safetensors"
  storage.save_tensors(path, {"soft": rows}, {})
  saved = checkpoints.load_prompt(path)
  assert saved.format == "numpy" and not saved.tensors
  np.testing.assert_array_equal(saved.values, rows)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"other": tiny_t5.rows(2)}, "a tensor 'other', which no prompt has"),
    ({"decoder_embedding": np.full((1, E), np.nan)}, "has NaN or infinity"),
    ({"decoder_embedding": np.zeros((0, E))}, "array of floats, and not empty"),
    ({"decoder_embedding": np.ones(())}, "array of floats, and not empty"),
    ({"deep": tiny_t5.rows(2, 2, E)}, "deep, keep and embedding belong"),
  ],
)
def test_tensors_of_no_prompt_are_refused(tmp_path, change, message):
  with pytest.raises(ValueError, match=message):
    checkpoints.save_prompt(tmp_path, {**SAVED["decoder"], **change}, {})
  with pytest.raises(ValueError, match="holds no tensors"):
    checkpoints.save_prompt(tmp_path, {}, {})


def test_a_prompt_of_a_model_of_another_size_is_refused(tmp_path):
  checkpoints.save_prompt(tmp_path, SAVED["ia3"], {})
  model = toy_tasks.model()
  model = type(model)(
    CONFIG, tiny_t5.weights(CONFIG), model.vocabulary, "other", "other"
  )
  message = r"decoder_cross_keys has shape \(1, 16\).* needs \(2, 16\)"
  with pytest.raises(ValueError, match=message):
    checkpoints.load_prompt(tmp_path, model)
  saved = checkpoints.load_prompt(tmp_path)
  with pytest.raises(ValueError, match=message):
    prompted_model.PromptedModel(model, saved)


@pytest.mark.parametrize("to", ["peft", "numpy"])
def test_only_plain_prompts_are_written_for_other_programs(tmp_path, to):
  checkpoints.save_prompt(tmp_path / "p", SAVED["decoder"], {})
  with pytest.raises(
    ValueError, match=r"has decoder_embedding.*has rows alone"
  ):
    inspection.convert(tmp_path / "p", tmp_path / "x", to, base_model="base")
  assert not (tmp_path / "x").exists()


def test_a_saved_prompt_is_copied_and_inspected(tmp_path):
  checkpoints.save_prompt(tmp_path / "p", SAVED["ia3"], {"task": "cat"})
  inspection.convert(tmp_path / "p", tmp_path / "q", "prompt-tuning")
  one, two = (
    json.loads((tmp_path / name / "prompt.json").read_text()) for name in "pq"
  )
  assert one == two
  facts = inspection.inspect(tmp_path / "q")
  assert facts["tensors"]["encoder_hidden"] == "1 x 32"
  assert facts["parameters"] == f"{1 * (2 * 16 + 32) + 1 * (4 * 16 + 32):,}"


def test_a_model_answers_with_saved_prompts_of_all_kinds(tmp_path):
  rows = tiny_t5.rows(P, E, seed=3)
  kinds = [rows, *SAVED.values()]
  for n, kind in enumerate(kinds):
    checkpoints.save_prompt(tmp_path / f"{n}", kind, {})
  model = toy_tasks.model()
  together = prompted_model.PromptedModel(
    model, [tmp_path / f"{n}" for n in range(3)]
  )
  texts = ["the cat sat", "a dog ran to the red house", "the mat"]
  answers = together.score(texts, ["yes", "no", "yes"], [1, 2, 0])
  for i, n in enumerate((1, 2, 0)):
    alone = prompted_model.PromptedModel(model, tmp_path / f"{n}")
    (own,) = alone.score(texts[i : i + 1], [["yes", "no", "yes"][i]])
    assert own == pytest.approx(answers[i], abs=2e-5)
    assert alone.predict(texts[i : i + 1]) == [
      together.predict(texts, [1, 2, 0])[i]
    ]


def test_a_bank_of_rows_alone_is_the_plain_prompt():
  one = prompted.with_prompts(toy_tasks.model(), [ROWS[0], ROWS[1]])
  assert isinstance(one.network.prompt, prompt.Prompt)
