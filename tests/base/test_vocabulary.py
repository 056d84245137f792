"""Ids of a vocabulary, of the sentinels behind it and of added tokens."""

import json

import hypothesis
from hypothesis import strategies
import places
import pytest
import sentencepiece
import tiny_t5
import tokenizers

from prompt_tuning.vocabulary import EOS, GEMMA_IDS, PAD, UNK, Vocabulary

GOLDEN = places.TESTS / "golden" / "tokenizers"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
TOKENIZER = str(GOLDEN / "tokenizer.json")
ADDED = {"<ORG>": 45, "<ORGS>": 46}
T5_MODEL = places.SHARED / "data" / "t5_vocab.model"


@pytest.mark.parametrize("text", tiny_t5.TEXTS)
def test_decoding_gives_the_text_back(text):
  vocabulary = tiny_t5.vocabulary()
  ids = vocabulary.encode(text)
  assert EOS not in ids and PAD not in ids
  assert vocabulary.decode(ids) == text


def test_many_texts_get_the_ids_of_each():
  vocabulary = tiny_t5.vocabulary()
  assert vocabulary.encode_all(tiny_t5.TEXTS) == [
    vocabulary.encode(text) for text in tiny_t5.TEXTS
  ]


def test_decoding_stops_at_the_first_end_and_drops_padding():
  vocabulary = tiny_t5.vocabulary()
  ids = vocabulary.encode("the cat")
  behind = vocabulary.encode("the dog")
  assert vocabulary.decode([PAD, *ids, PAD, EOS, *behind]) == "the cat"


def test_sentinels_stand_behind_the_pieces_last_first():
  vocabulary = tiny_t5.vocabulary(extra_ids=10)
  assert vocabulary.size == vocabulary.num_pieces + 10
  assert vocabulary.sentinel(0) == vocabulary.size - 1
  assert vocabulary.sentinel(9) == vocabulary.num_pieces
  for i in range(10):
    assert vocabulary.piece(vocabulary.sentinel(i)) == f"<extra_id_{i}>"


@pytest.mark.parametrize("i", [-1, 10, 300])
def test_a_sentinel_beyond_the_last_is_an_error_and_no_piece(i):
  with pytest.raises(ValueError, match=f"<extra_id_{i}>.* 10 "):
    tiny_t5.vocabulary(extra_ids=10).sentinel(i)


def test_an_id_beyond_the_sentinels_decodes_as_unknown():
  vocabulary = tiny_t5.vocabulary()
  ids = vocabulary.encode("cat")
  unknown = vocabulary.decode([*ids, UNK])
  for token in (vocabulary.size, 9999):
    assert vocabulary.decode([*ids, token]) == unknown != "cat"
  assert vocabulary.piece(9999) == "<unused_9999>"


def test_special_pieces_have_their_ids():
  pieces = [tiny_t5.vocabulary().piece(i) for i in (PAD, EOS, UNK)]
  assert pieces == ["<pad>", "</s>", "<unk>"]


def test_ids_are_those_of_seqio():
  import seqio

  ours = tiny_t5.vocabulary(extra_ids=10)
  theirs = seqio.SentencePieceVocabulary(ours.path, extra_ids=10)
  assert ours.size == theirs.vocab_size
  sentinels = (
    "is it <extra_id_0>",
    "<extra_id_3> cat<extra_id_1>",
    "<extra_id_",
  )
  for text in (*tiny_t5.TEXTS, *sentinels, "", "zebra ü"):
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids)
  piece = theirs.tokenizer.IdToPiece(ours.sentinel(3))
  assert piece.lstrip("\u2581") == "<extra_id_3>"


@pytest.mark.skipif(
  not T5_MODEL.exists(),
  reason="T5's vocabulary does not lie beside this checkout; "
  "test_ids_are_those_of_seqio reads a small one as seqio does",
)
def test_t5s_own_vocabulary_has_its_known_ids():
  vocabulary = Vocabulary(str(T5_MODEL))
  assert (vocabulary.num_pieces, vocabulary.size) == (32000, 32100)
  assert vocabulary.sentinel(0) == 32099
  assert vocabulary.encode("Hello world!") == [8774, 296, 55]


def test_a_missing_file_is_named_at_once(tmp_path):
  with pytest.raises(FileNotFoundError, match="nothing.model"):
    Vocabulary(str(tmp_path / "nothing.model"))


def test_a_file_that_is_no_model_is_named(tmp_path):
  path = tmp_path / "broken.model"
  path.write_bytes(b"no model")
  with pytest.raises(ValueError, match="broken.model is no SentencePiece"):
    Vocabulary(str(path)).encode("text")


def test_a_sentinel_in_a_text_is_its_id_and_is_written_as_it_is_read():
  vocabulary = tiny_t5.vocabulary(extra_ids=10)
  ids = vocabulary.encode("the <extra_id_2> cat")
  the, cat = vocabulary.encode("the"), vocabulary.encode("cat")
  assert ids == [*the, vocabulary.sentinel(2), *cat]
  assert vocabulary.decode(ids) == "the <extra_id_2> cat"


def test_a_vocabulary_with_other_special_ids_is_refused(tmp_path):
  path = tiny_t5.sentencepiece_defaults(tmp_path)
  with pytest.raises(ValueError, match="pad -1, eos 2, unk 0.*T5 has pad 0"):
    Vocabulary(path).encode("the cat")


def both() -> list[Vocabulary]:
  """A tokenizer.json, and the pieces it came from with its added tokens."""
  pieces = tiny_t5.vocabulary(extra_ids=10)
  return [Vocabulary(TOKENIZER), Vocabulary(pieces.path, 10, ADDED)]


@pytest.mark.parametrize("text", EXPECTED)
def test_ids_are_those_of_transformers(text):
  for vocabulary in both():
    assert vocabulary.encode(text) == EXPECTED[text]
    assert vocabulary.encode_all([text, text]) == [EXPECTED[text]] * 2


def test_a_tokenizer_says_itself_what_it_has():
  for vocabulary in both():
    assert (vocabulary.num_pieces, vocabulary.extra_ids) == (35, 10)
    assert vocabulary.size == 47
    assert vocabulary.sentinel(0) == 44 and vocabulary.sentinel(9) == 35
    names = [vocabulary.piece(i) for i in (0, 1, 2, 44, 35, 45, 46, 47)]
    assert names == (
      "<pad> </s> <unk> <extra_id_0> <extra_id_9> <ORG> <ORGS> <unused_47>"
    ).split(" ")
    with pytest.raises(ValueError, match="no sentinel <extra_id_10>"):
      vocabulary.sentinel(10)


@pytest.mark.parametrize(
  "text", [*tiny_t5.TEXTS, "the <ORG> cat", "<ORGS> sat", "<extra_id_3> cat"]
)
def test_what_a_tokenizer_encodes_it_gives_back(text):
  for vocabulary in both():
    assert vocabulary.decode([*vocabulary.encode(text), EOS, 5]) == text


@hypothesis.given(strategies.text("the catsroum<>?,. \n\u00e4", max_size=40))
def test_a_tokenizer_cuts_as_the_pieces_it_came_from(text):
  tokenizer, pieces = both()
  assert tokenizer.encode(text) == pieces.encode(text)


def test_an_added_token_may_stand_at_an_id_of_its_own():
  vocabulary = Vocabulary(tiny_t5.vocabulary().path, 10, {"<X>": 59})
  assert vocabulary.encode("cat <X>")[-1] == 59 and vocabulary.size == 60
  assert vocabulary.decode([59, 50]) == "<X>" + " " + vocabulary.decode([UNK])
  assert vocabulary.num_pieces == tiny_t5.vocabulary().num_pieces


def test_tokens_that_are_there_already_are_none():
  plain = tiny_t5.vocabulary(extra_ids=10)
  there = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<extra_id_0>": 44, "t": 8}
  there = {
    k: i for k, i in there.items() if plain.piece(i).strip("\u2581") == k
  }
  assert len(there) >= 4
  vocabulary = Vocabulary(plain.path, 10, there)
  assert vocabulary.added == {} and vocabulary.encode("</s>") == plain.encode(
    "</s>"
  )


def test_a_sentinel_at_another_id_is_read_there():
  vocabulary = Vocabulary(tiny_t5.vocabulary().path, 10, {"<extra_id_0>": 50})
  assert vocabulary.encode("<extra_id_0>") == [50] == [vocabulary.sentinel(0)]
  assert vocabulary.sentinel(1) == 43


@pytest.mark.parametrize("added", [{"</s>": 2}, {"<pad>": 45}, {"<ORG>": 1}])
def test_other_special_tokens_are_refused_by_name(added):
  (name,) = added
  vocabulary = Vocabulary(tiny_t5.vocabulary().path, 10, added)
  with pytest.raises(ValueError, match=f"added token '{name}' has the id"):
    vocabulary.encode("the cat")


def changed(tmp_path, change) -> str:
  """The tokenizer.json with a change."""
  whole = json.loads((GOLDEN / "tokenizer.json").read_text())
  change(whole)
  path = tmp_path / "tokenizer.json"
  path.write_text(json.dumps(whole))
  return str(path)


def test_a_tokenizer_with_other_special_ids_is_refused(tmp_path):
  def swap(whole):  # as MADLAD-400's: unk 0, eos 2
    whole["added_tokens"] = []
    vocabulary = whole["model"]["vocab"]
    vocabulary[0], vocabulary[2] = vocabulary[2], vocabulary[0]

  with pytest.raises(ValueError, match="pad 2, eos 1, unk 0.*T5 has pad 0"):
    Vocabulary(changed(tmp_path, swap)).encode("the cat")


def test_a_tokenizer_that_cuts_and_pads_does_neither_here(tmp_path):
  def cut(whole):
    whole["truncation"] = {
      "direction": "Right",
      "max_length": 3,
      "strategy": "LongestFirst",
      "stride": 0,
    }
    whole["padding"] = {
      "strategy": {"Fixed": 9},
      "direction": "Right",
      "pad_to_multiple_of": None,
      "pad_id": 0,
      "pad_type_id": 0,
      "pad_token": "<pad>",
    }

  vocabulary = Vocabulary(changed(tmp_path, cut))
  text = "  the   cat "
  assert vocabulary.encode_all([text, ""]) == [EXPECTED[text], []]


@pytest.mark.parametrize(
  "text", ["{}", "[]", "{", '{"added_tokens": 3}', '{"added_tokens": [{}]}']
)
def test_a_file_that_is_no_tokenizer_is_named(text, tmp_path):
  path = tmp_path / "tokenizer.json"
  path.write_text(text)
  with pytest.raises(ValueError, match="tokenizer.json"):
    Vocabulary(str(path)).encode("the cat")


# The ids of a Gemma: <bos> where a T5 has unk, unk behind it.


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
  """The same pieces as a SentencePiece model and as a tokenizer.json."""
  folder = tmp_path_factory.mktemp("gemma")
  path = tiny_t5.gemma_pieces(folder)
  model = sentencepiece.SentencePieceProcessor(model_file=path)
  pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
  made = tokenizers.Tokenizer(
    tokenizers.models.Unigram(
      [(piece, float(model.get_score(i))) for i, piece in enumerate(pieces)],
      unk_id=3,
    )
  )
  made.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
  made.add_tokens(["\n", "<last>"])
  made.decoder = tokenizers.decoders.Replace("\u2581", " ")
  made.save(str(folder / "tokenizer.json"))
  return folder


def test_a_gemmas_vocabulary_keeps_its_ids(gemma):
  found = Vocabulary(str(gemma / "tokenizer.model"), 0, special=GEMMA_IDS)
  ids = found.encode("the cat\nthe dog")
  assert not {*ids} & {0, 1, 2, 3}
  assert found.decode([*ids, EOS, *ids]) == "the cat\nthe dog"
  assert [found.piece(i) for i in range(4)] == [
    *("<pad>", "<eos>", "<bos>", "<unk>")
  ]
  assert found.added == {}


def test_a_gemmas_tokenizer_has_tokens_in_front_of_its_pieces(gemma):
  """Some of them are line breaks, which stay where they are."""
  found = Vocabulary(str(gemma / "tokenizer.json"), 0, special=GEMMA_IDS)
  assert found.num_pieces == found.size - 1  # all but <last>
  assert found.piece(found.size - 1) == "<last>"
  ids = [found.encode(word)[0] for word in ("t", "\n", "h")]
  assert found.decode(ids) == "t\nh"


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_a_gemmas_marks_and_blanks_are_no_words(gemma, name):
  found = Vocabulary(str(gemma / name), 0, special=GEMMA_IDS)
  words = [found.piece(i) for i in found.words]
  assert len(words) > 20 and not {*words} & {"<mask>", "\n", "<unk>", "\u2581"}
  assert found.encode("cat")[-1] in found.words


def test_a_t5s_words_are_all_pieces_behind_the_special_ones():
  found = tiny_t5.vocabulary()
  assert [*found.words] == [*range(3, found.num_pieces)]


def test_a_t5s_vocabulary_is_none_of_a_gemma(gemma):
  with pytest.raises(ValueError, match="unk 2 .*its model has .* unk 3"):
    Vocabulary(tiny_t5.vocabulary().path, 0, special=GEMMA_IDS).encode("a")
  with pytest.raises(ValueError, match="unk 3 .*; a T5 has .* unk 2"):
    Vocabulary(str(gemma / "tokenizer.model"), 0).encode("a")
