"""The microworld: its text, its vocabulary, its tasks and their splits."""

import collections
import itertools
import random
import re

import pytest
import sentencepiece

from prompt_tuning.tasks.microworld import (
  examples,
  notes,
  prompts,
  senses,
  text,
  vocabulary,
  words,
)

TASKS = sorted(examples.TASKS)
TOKEN_LIMIT = 48


def some_documents(count=3000, seed=7):
  return list(itertools.islice(text.documents(seed), count))


@pytest.fixture(scope="module")
def pieces():
  return sentencepiece.SentencePieceProcessor(model_file=str(vocabulary.PATH))


@pytest.fixture(scope="module", autouse=True)
def small_splits():
  """Fewer examples than the real splits, from the same parts of the world."""
  real = dict(examples.SPLITS)
  examples.SPLITS.update(train=400, validation=100, test=200)
  examples.examples.cache_clear()
  yield
  examples.SPLITS.update(real)
  examples.examples.cache_clear()


def test_the_same_seed_gives_the_same_documents():
  assert some_documents(50, 3) == some_documents(50, 3)
  assert some_documents(50, 3) != some_documents(50, 4)


@pytest.mark.parametrize("kind", sorted(text.KINDS))
def test_every_kind_of_document_ends_with_a_sentence_of_its_own(kind):
  rng = random.Random(0)
  for _ in range(50):
    document = text.KINDS[kind](rng, rng.choice((1, 2, 3)))
    assert re.search(r"[.?!] \S.*[.!]$", document) or kind == "story"
    assert "  " not in document


def test_no_document_is_longer_than_the_limit(pieces):
  longest = max(len(pieces.encode(document)) for document in some_documents())
  assert longest <= TOKEN_LIMIT


def test_every_word_is_one_piece(pieces):
  lexicon = (
    *words.PEOPLE,
    *words.THINGS,
    *words.CATEGORIES,
    *words.PLACES,
    *words.FIRMS,
    *words.GOODS,
    *words.POSITIVE,
    *words.NEGATIVE,
    *senses.AMBIGUOUS,
    *notes.LABEL_WORDS,
    *notes.KEY_WORDS,
    *itertools.chain(*words.INTRANSITIVE),
  )
  split = [word for word in lexicon if len(pieces.encode(word)) != 1]
  assert not split


def test_all_printable_ascii_encodes_and_comes_back(pieces):
  line = 'Why? 3 NASA-cats (queue_1) & "x" <y> zeal\'s ~{a|b}^ @#$%*+=[];/\\'
  assert pieces.unk_id() not in pieces.encode(line)
  assert pieces.decode(pieces.encode(line)) == line
  assert (pieces.pad_id(), pieces.eos_id(), pieces.unk_id()) == (0, 1, 2)


def test_no_two_open_classes_of_a_task_share_a_word():
  for task in examples.TASKS.values():
    members = [
      member
      for name in task.contents
      for member in getattr(examples.WHOLE, name)
    ]
    assert len(members) == len(set(members))


def test_the_parts_of_the_world_are_disjoint_and_cover_it():
  parts = [examples.WHOLE.part(split) for split in examples.SPLITS]
  for name in vars(examples.WHOLE):
    members = [member for part in parts for member in getattr(part, name)]
    assert sorted(members) == sorted(getattr(examples.WHOLE, name))


@pytest.mark.parametrize("name", TASKS)
def test_no_input_and_no_content_stands_in_two_splits(name):
  for counts in examples.overlap(name).values():
    assert counts == {"inputs": 0, "contents": 0}


@pytest.mark.parametrize("name", TASKS)
def test_every_example_has_content_and_half_have_each_label(name):
  for split, count in examples.SPLITS.items():
    records = examples.examples(name, split)
    assert len(records) == count
    assert all(examples.content_key(name, r["inputs"]) for r in records)
    assert sum(record["label"] for record in records) == count // 2
    assert [record["idx"] for record in records] == list(range(count))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_fits_the_token_limit(name, pieces):
  for record in examples.examples(name, "test"):
    assert len(pieces.encode(record["inputs"])) < TOKEN_LIMIT
    assert len(pieces.encode(record["targets"])) == 1


def test_labels_and_formats_stand_in_notes_only():
  """No skill's document has a label word or a task's key in it."""
  rng = random.Random(1)
  reserved = set(notes.LABEL_WORDS) - {"plum", "violin"}
  keys = re.compile("|".join(rf"\b{key}:" for key in notes.KEY_WORDS))
  for kind in set(text.KINDS) - {"echo", "key"}:
    for _ in range(200):
      document = text.KINDS[kind](rng, rng.choice((1, 2, 3)))
      assert not reserved & set(re.findall(r"\w+", document))
      assert not keys.search(document)


def test_every_label_word_is_an_answer_in_some_note():
  rng = random.Random(2)
  answers = collections.Counter(
    text.KINDS["echo"](rng, 1).split()[-1].rstrip(".") for _ in range(3000)
  )
  assert all(answers[label] for label in notes.LABEL_WORDS)


@pytest.mark.parametrize("name", TASKS)
def test_hand_prompts_keep_the_input_and_the_corpus_prompt_rewords_it(name):
  assert len(prompts.HAND_PROMPTS[name]) == 5
  inputs = examples.examples(name, "test")[0]["inputs"]
  for template in prompts.HAND_PROMPTS[name]:
    assert inputs in template.format(input=inputs)
  reworded = prompts.CORPUS_PROMPTS[name](inputs)
  assert not re.search(r"(passage|premise|sentence\d?|question\d?):", reworded)
  with pytest.raises(ValueError, match="needed one of the form"):
    prompts.CORPUS_PROMPTS[name]("something else")


def test_importing_the_tasks_twice_registers_them_once():
  import seqio

  from prompt_tuning.tasks import microworld

  microworld.register()
  assert set(TASKS) <= set(seqio.TaskRegistry.names())


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_task_loads_through_seqio(split):
  import seqio

  from prompt_tuning.tasks import microworld  # noqa: F401

  task = seqio.get_mixture_or_task("microworld_rte")
  loaded = list(
    task.get_dataset(
      {"inputs": 64, "targets": 8}, split, shuffle=False
    ).as_numpy_iterator()
  )
  assert len(loaded) == examples.SPLITS[split]
  first = loaded[0]
  assert first["inputs"][-1] == first["targets"][-1] == 1
  label = first["targets_pretokenized"].decode()
  assert label in examples.LABELS["microworld_rte"]
  assert task.postprocess_fn(label) in (0, 1)
  assert task.postprocess_fn("neither") == -1
