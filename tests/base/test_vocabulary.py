"""Ids of a SentencePiece vocabulary and of the sentinels behind it."""

import places
import pytest
import sentencepiece
import tiny_t5

from prompt_tuning.vocabulary import EOS, PAD, UNK, Vocabulary

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
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(tiny_t5.TEXTS),
    model_prefix=str(tmp_path / "plain"),
    vocab_size=50,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  with pytest.raises(ValueError, match="pad -1, eos 2, unk 0.*T5 has pad 0"):
    Vocabulary(str(tmp_path / "plain.model")).encode("the cat")
