import dataclasses
import inspect
import json

import jax
import numpy as np
import pytest
import tiny_t5

from prompt_tuning.prompts import initializers, prompt_files

KEY = jax.random.key(0)
TABLE = tiny_t5.rows(60, 16, seed=3)


def source(labels=()):
  vocabulary = tiny_t5.vocabulary()
  return initializers.Source(
    TABLE, vocabulary.encode, vocabulary.num_pieces, labels
  )


def rows_of(prompt) -> list[int]:
  """Which row of the table each position is; fails if it is none."""
  found = []
  for position in np.asarray(prompt):
    (row,) = np.flatnonzero((TABLE == position).all(axis=1))
    found.append(int(row))
  return found


@pytest.mark.parametrize(
  "initializer",
  [
    initializers.random_uniform(),
    initializers.from_vocabulary(),
    initializers.from_class_labels(("yes", "no")),
    initializers.from_string("the cat"),
  ],
)
def test_a_prompt_is_float32_of_its_shape_and_a_function_of_the_key(
  initializer,
):
  prompt = initializer(KEY, 12, source())
  assert prompt.shape == (12, 16) and prompt.dtype == np.float32
  np.testing.assert_array_equal(prompt, initializer(KEY, 12, source()))
  other = initializer(jax.random.key(1), 12, source())
  assert (np.asarray(prompt) != np.asarray(other)).any()


def test_random_uniform_fills_its_range_on_both_sides():
  prompt = np.asarray(initializers.random_uniform(0.5)(KEY, 500, source()))
  assert np.abs(prompt).max() <= 0.5
  assert prompt.min() < -0.49 and prompt.max() > 0.49
  assert abs(prompt.mean()) < 0.02


def test_vocabulary_positions_are_different_common_pieces():
  rows = rows_of(initializers.from_vocabulary(20)(KEY, 20, source()))
  assert sorted(rows) == list(range(3, 23))


def test_vocabulary_leaves_out_special_pieces_and_sentinels():
  vocabulary = tiny_t5.vocabulary()
  prompt = initializers.from_vocabulary()(KEY, 400, source())
  rows = rows_of(prompt)
  assert min(rows) >= 3 and max(rows) < vocabulary.num_pieces


def test_vocabulary_draws_from_the_words_that_the_source_names():
  words = (7, 30, 11, 50)
  named = dataclasses.replace(source(), words=words)
  rows = rows_of(initializers.from_vocabulary(3)(KEY, 3, named))
  assert sorted(rows) == [7, 11, 30]


def test_a_class_label_is_the_mean_of_its_pieces_and_the_rest_is_sampled():
  labels = ("yes", "the red house")
  prompt = initializers.from_class_labels(labels)(KEY, 6, source())
  for i, label in enumerate(labels):
    ids = tiny_t5.vocabulary().encode(label)
    np.testing.assert_allclose(prompt[i], TABLE[ids].mean(0), rtol=1e-6)
  assert len(tiny_t5.vocabulary().encode(labels[1])) > 1
  assert min(rows_of(prompt[2:])) >= 3


def test_class_labels_come_from_the_task_if_none_are_given():
  given = initializers.from_class_labels(("no", "yes"))(KEY, 4, source())
  found = initializers.from_class_labels()(KEY, 4, source(("no", "yes")))
  np.testing.assert_array_equal(given, found)


def test_a_string_is_its_pieces_in_order():
  ids = tiny_t5.vocabulary().encode("the cat sat")
  prompt = initializers.from_string("the cat sat")(KEY, len(ids) + 2, source())
  assert rows_of(prompt)[: len(ids)] == ids


def test_a_file_is_taken_as_it_is(tmp_path):
  values = tiny_t5.rows(5, 16)
  np.save(tmp_path / "p.npy", values)
  prompt = initializers.from_array(tmp_path / "p.npy")(KEY, 5, source())
  np.testing.assert_array_equal(prompt, values)


def test_a_float64_file_is_cast(tmp_path):
  np.save(tmp_path / "p.npy", tiny_t5.rows(5, 16).astype(np.float64))
  prompt = initializers.from_array(tmp_path / "p.npy")(KEY, 5, source())
  assert prompt.dtype == np.float32


@pytest.mark.parametrize(
  "values, message",
  [
    (tiny_t5.rows(4, 16), r"has shape \(4, 16\).*Set PROMPT_LENGTH=4"),
    (tiny_t5.rows(5, 8), "its width is 8; the frozen model needs 16"),
    (tiny_t5.rows(2, 5, 16), "a prompt is a float array"),
    (np.zeros((5, 16), int), "a prompt is a float array"),
    (np.where(np.eye(5, 16) > 0, np.nan, 1.0), "in row 0, 1, 2, 3, 4"),
    (np.array([{}], object), "cannot be read as a numpy array"),
  ],
)
def test_a_bad_file_is_refused(tmp_path, values, message):
  np.save(tmp_path / "p.npy", values, allow_pickle=True)
  with pytest.raises(ValueError, match=message):
    initializers.from_array(tmp_path / "p.npy")(KEY, 5, source())


def test_a_truncated_file_is_refused(tmp_path):
  path = tmp_path / "p.npy"
  np.save(path, tiny_t5.rows(5, 16))
  path.write_bytes(path.read_bytes()[:-10])
  with pytest.raises(ValueError, match="truncated"):
    initializers.from_array(path)(KEY, 5, source())


@pytest.mark.parametrize(
  "build, message",
  [
    (lambda: initializers.random_uniform(-1.0), "scale of random_uniform"),
    (lambda: initializers.from_class_labels(), "no class labels"),
    (
      lambda: initializers.from_class_labels(tuple("abcdef")),
      "no room for 6 class",
    ),
    (lambda: initializers.from_class_labels(("",)), "has no pieces"),
    (lambda: initializers.from_string(""), "is empty"),
    (lambda: initializers.from_string("the cat " * 9), "Set it to"),
  ],
)
def test_an_initializer_that_cannot_work_says_why(build, message):
  with pytest.raises(ValueError, match=message):
    build()(KEY, 5, source())


def test_a_vocabulary_without_pieces_says_so():
  empty = dataclasses.replace(source(), num_pieces=3)
  with pytest.raises(ValueError, match="no piece to draw from"):
    initializers.from_vocabulary()(KEY, 5, empty)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="It is a folder; name the file"):
    prompt_files.read_array(tmp_path)
  with pytest.raises(FileNotFoundError, match="no prompt file .*gone.npy"):
    initializers.from_array(tmp_path / "gone.npy")(KEY, 5, source())


@pytest.mark.parametrize("value", [0, -1, True, False, 1.5, "7", None])
@pytest.mark.parametrize("name", ["vocabulary", "class_labels", "string"])
def test_a_number_of_pieces_that_is_none_is_refused_at_construction(
  name, value
):
  # Without the checker of annotations, which runs in tests only.
  build = inspect.unwrap(getattr(initializers, f"from_{name}"))
  more = {"text": "the cat"} if name == "string" else {}
  with pytest.raises(ValueError, match="most_common=.* whole number of 1 or"):
    build(most_common=value, **more)


@pytest.mark.parametrize(
  "build, value, message",
  [
    ("from_class_labels", "yes", "no list of texts; give .*'yes', 'no'"),
    ("from_class_labels", [1, 0], "no list of texts"),
    ("from_string", 7, "starts from a text, not from 7"),
    ("random_uniform", True, "scale of random_uniform is True"),
    ("random_uniform", "0.5", "scale of random_uniform is '0.5'"),
    ("random_uniform", float("nan"), "scale of random_uniform is nan"),
  ],
)
def test_an_argument_of_another_kind_is_refused_at_construction(
  build, value, message
):
  with pytest.raises(ValueError, match=message):
    inspect.unwrap(getattr(initializers, build))(value)


def test_what_an_initialiser_was_built_with_is_known(tmp_path):
  """Of a file it is what is in it, wherever it lies."""
  paths = [tmp_path / f"{name}.npy" for name in "abc"]
  for path, seed in zip(paths, (1, 1, 2), strict=True):
    np.save(path, tiny_t5.rows(4, 16, seed=seed))
  said = [
    json.dumps(initializers.settings_of([each]))
    for each in (
      *map(initializers.from_array, paths),
      initializers.from_string("the cat"),
      initializers.from_string("the dog"),
      initializers.from_class_labels(("yes", "no")),
      initializers.random_uniform(0.25),
      initializers.from_vocabulary(20),
    )
  ]
  assert said[0] == said[1] and len({*said}) == len(said) - 1
  usual = (
    initializers.from_vocabulary(),
    initializers.random_uniform(),
    initializers.from_class_labels(),
    lambda key, length, source: None,
  )
  assert initializers.settings_of(usual) is None
