"""MADLAD-400: pad 1, eos 2 and unk 0 in its files, 0, 1 and 2 here."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import places
import pytest
import safetensors.numpy
import tiny_t5

from prompt_tuning import PromptedModel, json_files
from prompt_tuning.frozen import pretrained, special_ids
from prompt_tuning.model import decode, t5
from prompt_tuning.tasks import features
from prompt_tuning.vocabulary import Vocabulary

MADLAD = places.GOLDEN / "madlad"
TEXTS = json.loads((MADLAD / "texts.json").read_text())
OURS = np.array([2, 0, 1, *range(3, 60)], np.int32)  # by the files' ids


def expected() -> dict[str, np.ndarray]:
  return safetensors.numpy.load_file(MADLAD / "expected.safetensors")


def by_files(model: pretrained.FrozenModel, given) -> dict[str, np.ndarray]:
  """What the model says of a batch, both in the ids of its files."""
  inputs, targets = OURS[given["inputs"]], OURS[given["targets"]]
  network, length = t5.T5(model.config), given["greedy"].shape[1]
  before = t5.shift_right(jnp.asarray(targets))
  logits = tiny_t5.jitted(network)({"params": model.params}, inputs, before)
  greedy = decode.make_decoder(network, decode.Greedy(), length)
  found = greedy(model.params, inputs, jax.random.key(0))
  theirs = np.argsort(OURS)
  return {
    "logits": np.asarray(logits)[..., OURS],
    "greedy": theirs[np.asarray(found)],
  }


def agree(model: pretrained.FrozenModel, given) -> None:
  found = by_files(model, given)
  bound = 1e-5 * np.abs(given["logits"]).max()
  np.testing.assert_allclose(
    found["logits"], given["logits"], rtol=0, atol=bound
  )
  np.testing.assert_array_equal(found["greedy"], given["greedy"])


@pytest.fixture
def folder(tmp_path):
  """A copy of the files."""
  shutil.copytree(MADLAD, tmp_path / "madlad")
  return tmp_path / "madlad"


def edited(folder, name="config.json", **changes):
  file = folder / name
  whole = json.loads(file.read_text()) if file.exists() else {}
  file.write_text(json.dumps({**whole, **changes}))
  return folder


def test_logits_and_greedy_tokens_are_those_of_transformers():
  agree(pretrained.load(MADLAD), expected())


def test_rows_and_columns_change_places_and_nothing_else():
  """Row 0 is that of the start token, 0 there; column 0 is that of pad."""
  stored = safetensors.numpy.load_file(MADLAD / "model.safetensors")
  table = stored["decoder.embed_tokens.weight"]
  params = pretrained.load(MADLAD).params
  order = [0, 2, 0, *range(3, 60)]
  have = params["token_embedder"]["embedding"]
  np.testing.assert_array_equal(have, table[order])
  order[0] = 1
  have = params["decoder"]["logits_dense"]["kernel"]
  np.testing.assert_array_equal(have, stored["lm_head.weight"].T[:, order])


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_has_the_ids_of_its_sentencepiece_by_other_numbers(text):
  vocabulary = pretrained.load(MADLAD).vocabulary
  assert vocabulary.encode(text) == OURS[TEXTS[text]].tolist()
  assert vocabulary.encode_all([text, text]) == [vocabulary.encode(text)] * 2
  seqios = features.of(vocabulary)
  assert seqios.encode(text) == vocabulary.encode(text)
  assert (seqios.pad_id, seqios.eos_id, seqios.unk_id) == (0, 1, 2)


def test_special_pieces_have_the_ids_of_a_t5():
  vocabulary = pretrained.load(MADLAD).vocabulary
  assert [vocabulary.piece(i) for i in range(3)] == ["<pad>", "</s>", "<unk>"]
  assert vocabulary.encode("zebra")[1] == 2  # z is no piece
  assert vocabulary.extra_ids == 0
  cat = vocabulary.encode("the cat")
  assert vocabulary.decode([0, *cat, 1, *cat]) == "the cat"


@pytest.mark.parametrize("to", ["prompt-tuning", "huggingface"])
def test_what_is_saved_says_the_same_and_has_the_same_hash(tmp_path, to):
  model = pretrained.load(MADLAD)
  pretrained.save(tmp_path, model, to)
  again = pretrained.load(tmp_path)
  agree(again, expected())
  assert again.stored_hash == model.stored_hash
  assert again.vocabulary is not None
  assert again.vocabulary.special == (1, 2, 0)
  assert (
    again.vocabulary.encode("zebra") == OURS[TEXTS["zebra ü"]][:-2].tolist()
  )


def test_t5x_which_has_no_such_ids_is_refused(tmp_path):
  with pytest.raises(ValueError, match="pad, eos and unk at 1, 2, 0, and t5x"):
    pretrained.save(tmp_path, pretrained.load(MADLAD), "t5x")


def test_a_vocabulary_from_elsewhere_is_numbered_as_the_model(folder):
  file = folder.parent / "other.model"
  (folder / "spiece.model").rename(file)
  model = pretrained.load(folder, vocabulary=Vocabulary(str(file), 0))
  assert model.vocabulary is not None
  assert model.vocabulary.encode("the") == OURS[[6, 5, 4]].tolist()
  own = pretrained.save(folder.parent / "own", model)
  again = pretrained.load(own, vocabulary=Vocabulary(str(file), 0))
  assert again.vocabulary is not None
  assert again.vocabulary.special == (1, 2, 0)


def test_sentencepieces_own_defaults_have_no_pad_but_a_begin(tmp_path):
  """As in the published files: <s> stands at 1."""
  path = tiny_t5.sentencepiece_defaults(tmp_path)
  added = {"<unk>": 0, "<s>": 1, "</s>": 2, "<2de>": 40}
  vocabulary = Vocabulary(path, 0, added, (1, 2, 0))
  assert [vocabulary.piece(i) for i in range(3)] == ["<s>", "</s>", "<unk>"]
  assert vocabulary.added == {"<2de>": 40}
  with pytest.raises(ValueError, match="a T5 has pad 0, eos 1, unk 2"):
    Vocabulary(path, 0).encode("cat")
  with pytest.raises(ValueError, match="pad -1.*its model has pad 2, eos 1"):
    Vocabulary(path, 0, special=(2, 1, 0)).encode("cat")


def test_a_tokenizer_of_the_library_is_renumbered_too(folder):
  whole = json.loads(
    (places.GOLDEN / "tokenizers" / "tokenizer.json").read_text()
  )
  entries = whole["model"]["vocab"]
  entries[:3] = [entries[i] for i in (2, 0, 1)]
  whole["model"]["unk_id"] = 0
  for entry in whole["added_tokens"]:
    entry["id"] = {2: 0, 0: 1, 1: 2}.get(entry["id"], entry["id"])
  (folder / "spiece.model").unlink()
  (folder / "tokenizer.json").write_text(json.dumps(whole))
  plain = Vocabulary(str(places.GOLDEN / "tokenizers" / "tokenizer.json"))
  vocabulary = pretrained.load(folder).vocabulary
  assert vocabulary is not None
  for text in ("the <ORG> cat", "zebra", "<extra_id_2> dog"):
    assert vocabulary.encode(text) == plain.encode(text)
    assert vocabulary.decode(plain.encode(text)) == plain.decode(
      plain.encode(text)
    )
  assert vocabulary.sentinel(0) == plain.sentinel(0)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"pad_token_id": 2}, "pad_token_id=2, eos_token_id=2.*cannot be"),
    ({"decoder_start_token_id": 2}, "decoder_start_token_id=2.*MADLAD-400"),
    (
      {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2},
      "a T5 has 0, 1 and 0 there",
    ),
    ({"eos_token_id": 7}, "eos_token_id=7, .*in another order"),
    ({"eos_token_id": [2, 1]}, r"eos_token_id=\[2, 1\]; it must be the id"),
  ],
)
def test_ids_that_cannot_be_renumbered_are_refused(folder, changes, message):
  with pytest.raises(ValueError, match=message):
    pretrained.load(edited(folder, **changes))


def test_a_tied_table_has_no_second_row_for_a_start_of_its_own(folder):
  settings = json_files.read_object(folder / "config.json")
  with pytest.raises(ValueError, match="and a tied head.*lm_head.weight"):
    special_ids.numbering_of(settings, has_head=False)


def test_a_decoder_that_starts_from_pad_is_a_mere_permutation(folder):
  edited(folder, decoder_start_token_id=1)
  table = pretrained.load(folder).params["token_embedder"]["embedding"]
  stored = safetensors.numpy.load_file(MADLAD / "model.safetensors")
  want = stored["decoder.embed_tokens.weight"][[1, 2, 0, *range(3, 60)]]
  np.testing.assert_array_equal(table, want)


def test_wrong_special_ids_in_a_folder_of_ours_are_refused(tmp_path):
  pretrained.save(tmp_path, pretrained.load(MADLAD))
  weights = tmp_path / "weights.safetensors"
  tensors = safetensors.numpy.load_file(weights)
  safetensors.numpy.save_file(tensors, weights)  # without the hash of config
  for value in ([0, 1, 1], [1, 2], "1", [True, 0, 2]):
    edited(tmp_path, special_ids=value)
    with pytest.raises(ValueError, match="special_ids=.*0, 1 and 2 in some"):
      pretrained.load(tmp_path)


def test_a_prompt_answers_for_it(tmp_path):
  """Text in, text out, with a prompt in front."""
  prompt = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
  np.save(tmp_path / "prompt.npy", prompt)
  model = pretrained.load(MADLAD)
  prompted = PromptedModel(model, [str(tmp_path / "prompt.npy")])
  (answer,) = prompted.predict(["the zebra"], [0])
  assert isinstance(answer, str) and "<pad>" not in answer


def test_transformers_itself_agrees_both_ways(tmp_path):
  reason = "pip install torch transformers to compare live; golden/madlad "
  reason += "stands in, made by them (test_logits_and_greedy_tokens_are_those_"
  reason += "of_transformers)"
  pytest.importorskip("torch", reason=reason)
  transformers = pytest.importorskip("transformers", reason=reason)
  from golden import make_madlad as peer

  made, given = peer.model(10), peer.batch(1)
  given |= peer.answers(made, given)
  peer.write(tmp_path / "theirs", made)
  peer.write_vocabulary(tmp_path / "theirs")
  model = pretrained.load(tmp_path / "theirs")
  agree(model, given)
  pretrained.save(tmp_path / "ours", model, "huggingface")
  there = transformers.T5ForConditionalGeneration.from_pretrained(
    tmp_path / "ours"
  )
  assert there.config.decoder_start_token_id == 1  # pad's row is the start's
  inputs = {k: given[k] for k in ("inputs", "targets")}
  agree(model, {**inputs, **peer.answers(there.eval(), inputs)})
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
  assert tokenizer("the cat").input_ids == [*TEXTS["  the   cat "], 2]
  assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (1, 0)
