"""Texts to pre-train on: batches that follow from the step, and sources."""

import itertools
import random

import numpy as np
import pytest
import tiny_t5

from prompt_tuning.data import objectives, text
from prompt_tuning.data.text import GROUP, Stage, TextBatches
from prompt_tuning.vocabulary import EOS, PAD

PREFIX = objectives.PrefixLM()
LENGTHS = (24, 16)


def documents(seed):
  """An endless source: the texts of a seed, cut somewhere."""
  rng = np.random.default_rng(seed)
  while True:
    words = tiny_t5.TEXTS[rng.integers(len(tiny_t5.TEXTS))].split()
    yield " ".join(words[: rng.integers(3, len(words) + 1)])


def batches(source=documents, objective=PREFIX, **changes):
  settings = {
    "batch_size": 4,
    "lengths": LENGTHS,
    "num_documents": 50,
    "seed": 0,
    **changes,
  }
  return TextBatches(
    Stage(source, objective, 1), tiny_t5.vocabulary(), **settings
  )


def same(one, two):
  assert one.keys() == two.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], two[name], name)


def examples(batch):
  """(inputs, targets) of a batch without padding."""
  pairs = zip(batch["inputs"], batch["targets"], strict=True)
  return [tuple(tuple(x[x != PAD].tolist()) for x in pair) for pair in pairs]


@pytest.mark.parametrize("num_documents", [50, 0], ids=["pool", "fresh"])
@pytest.mark.parametrize(
  "objective",
  [PREFIX, objectives.SpanCorruption()],
  ids=["prefix", "spans"],
)
def test_a_batch_is_a_function_of_its_step(num_documents, objective):
  steps = [0, 1, GROUP - 1, GROUP, 5, 3 * GROUP + 2]
  made = batches(objective=objective, num_documents=num_documents)
  in_order = {at: made(at) for at in sorted(steps)}
  again = batches(objective=objective, num_documents=num_documents)
  for at in steps:
    same(again(at), in_order[at])


def test_steps_and_seeds_have_their_own_examples():
  made = batches()
  drawn = [examples(batches(seed=seed)(at)) for seed in (0, 1) for at in (0, 1)]
  assert not any(a == b for a, b in itertools.combinations(drawn, 2))
  assert examples(made(0)) != examples(made(GROUP))


def test_fresh_documents_are_drawn_for_every_group():
  asked = []

  def source(seed):
    asked.append(seed)
    return documents(seed)

  made = batches(source, num_documents=0)
  for at in (0, 1, GROUP, 2 * GROUP):
    made(at)
  assert len(asked) == len(set(asked)) == 3


def test_a_group_of_batches_holds_documents_of_the_source_whole():
  made = batches(num_documents=0, lengths=(99, 99))
  texts = {
    " ".join(text.split()[:k]) for text in tiny_t5.TEXTS for k in range(20)
  }
  for at in range(GROUP):
    batch = made(at)
    assert batch["inputs"].shape[0] == 4
    np.testing.assert_array_equal(batch["prompt_id"], np.zeros(4, np.int32))
    for inputs, targets in examples(batch):
      assert inputs[-1] == targets[-1] == EOS
      whole = tiny_t5.vocabulary().decode([*inputs[:-1], *targets[:-1]])
      assert whole in texts


def test_batches_are_padded_to_a_multiple_of_8_and_no_more():
  made = batches(num_documents=0, lengths=(99, 99))
  widths = set()
  for at in range(2 * GROUP):
    for array in (made(at)["inputs"], made(at)["targets"]):
      longest = max(int((row != PAD).sum()) for row in array)
      assert array.shape[1] == -(-longest // 8) * 8
      for row in array:  # padding is at the end only
        assert (row[: int((row != PAD).sum())] != PAD).all()
    widths.add(made(at)["inputs"].shape[1])
  assert len(widths) > 1  # short texts are not padded to the longest


def test_what_is_too_long_is_cut_and_counted():
  short, whole = batches(lengths=(99, 5)), batches(lengths=(99, 99))
  too_long = 0
  for at in range(GROUP):
    cut, full = short(at), whole(at)
    np.testing.assert_array_equal(cut["inputs"], full["inputs"])
    assert cut["targets"].shape[1] <= 5
    sizes = (full["targets"] != PAD).sum(1)
    too_long += int((sizes > 5).sum())
    for row, size, before in zip(
      cut["targets"], sizes, full["targets"], strict=True
    ):
      kept = min(int(size), 5)
      np.testing.assert_array_equal(row[: kept - 1], before[: kept - 1])
      assert row[kept - 1] == EOS
  assert short.truncated == too_long > 0
  assert whole.truncated == 0


def test_of_a_long_document_the_target_goes_on_where_the_input_ends():
  vocabulary = tiny_t5.vocabulary()
  text = " ".join(
    random.Random(0).choices("the cat sat on a mat".split(), k=300)
  )
  ids = vocabulary.encode(text)
  made = batches(lambda seed: [text], lengths=(12, 8), num_documents=1)
  places = set()
  for at in range(2 * GROUP):
    for inputs, targets in examples(made(at)):
      window = [*inputs[:-1], *targets[:-1]]
      assert len(inputs) <= 12 and len(targets) <= 8
      found = [i for i in range(len(ids)) if ids[i : i + len(window)] == window]
      assert found, (inputs, targets)
      places.update(found)
  assert max(places) > len(ids) / 2  # not only the beginning is learned
  spans = batches(
    lambda seed: [text],
    objectives.SpanCorruption(),
    lengths=(12, 8),
    num_documents=1,
  )
  spans(0)
  assert not spans.truncated


@pytest.mark.parametrize(
  "objective", [objectives.TokenDeletion(), objectives.TextInfilling()]
)
def test_a_long_document_is_restored_whole_as_far_as_targets_reach(objective):
  made = batches(
    lambda seed: [" ".join(["the cat sat on a mat"] * 50)],
    objective,
    lengths=(24, 16),
    num_documents=1,
  )
  for at in range(2 * GROUP):
    batch = made(at)
    assert (batch["targets"][:, 15] == EOS).all()
    assert batch["inputs"].shape[1] <= 24
  assert not made.truncated


@pytest.mark.parametrize("num_documents", [50, 0])
def test_a_source_without_documents_is_refused(num_documents):
  with pytest.raises(ValueError, match="documents .* are empty"):
    batches(lambda seed: [], num_documents=num_documents)(0)


def test_a_finite_source_cannot_give_fresh_documents_for_ever():
  def ten(seed):
    return itertools.islice(documents(seed), 10)

  with pytest.raises(ValueError, match=f"10 of {4 * GROUP}.*num_documents"):
    batches(ten, num_documents=0)(0)
  assert batches(ten, num_documents=50)(0)["inputs"].shape[0] == 4


def test_a_file_is_a_source_of_its_lines(tmp_path):
  path = tmp_path / "texts.txt"
  path.write_text(" one \n\ntwo\n  \nthree ü", encoding="utf-8")
  source = text.lines(path)
  orders = {tuple(source(seed)) for seed in range(20)}
  assert orders == {
    ("one", "two", "three ü"),
    ("two", "three ü", "one"),
    ("three ü", "one", "two"),
  }
  assert [*source(5)] == [*source(5)]


def test_a_file_that_is_not_utf_8_is_named_and_a_mark_is_no_letter(tmp_path):
  path = tmp_path / "text.txt"
  path.write_bytes("\ufeffone\n".encode())
  assert list(text.lines(path)(0)) == ["one"]
  path.write_bytes(b"one\n\xff\n")
  with pytest.raises(ValueError, match="text.txt is not UTF-8"):
    list(text.lines(path)(0))


def test_sentence_ends_are_the_ids_of_their_marks():
  ends = text.sentence_ends(tiny_t5.vocabulary())
  pieces = {tiny_t5.vocabulary().piece(token) for token in ends}
  assert {".", "?"} <= pieces


def test_a_missing_text_file_is_named():
  with pytest.raises(FileNotFoundError, match="TEXT_FILE=none.txt is no file"):
    text.lines("none.txt")
