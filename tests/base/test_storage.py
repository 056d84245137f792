"""Files are whole or absent; what was altered is noticed."""

import json
import os

import disks
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import json_files, storage

TREE = {
  "b": {"c": np.arange(6, dtype=np.float32).reshape(2, 3)},
  "a": np.array([1, 2], np.int32),
}


def equal(one, two):
  one, two = storage.flatten(one), storage.flatten(two)
  assert one.keys() == two.keys()
  for path in one:
    assert one[path].dtype == two[path].dtype, path
    assert one[path].shape == two[path].shape, path
    np.testing.assert_array_equal(one[path], two[path])


def test_flatten_names_leaves_by_path_in_order():
  assert [*storage.flatten(TREE)] == ["a", "b/c"]
  assert storage.flatten(TREE)["b/c"] is TREE["b"]["c"]


def test_unflatten_is_the_inverse_of_flatten():
  equal(storage.unflatten(storage.flatten(TREE)), TREE)
  flat = {"x/y/z": 1, "x/y/w": 2, "x/v": 3, "u": 4}
  assert storage.flatten(storage.unflatten(flat)) == flat


ARRAYS = {
  "scalar": np.float32(2.5),
  "step": np.array(7, np.int32),
  "bfloat16": np.array([[1.5, -2], [0, 3]], ml_dtypes.bfloat16),
  "float16": np.array([0.1], np.float16),
  "booleans": np.array([True, False]),
  "empty": np.zeros((0, 4), np.float32),
  "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
  "strided": np.arange(10, dtype=np.int32)[::3],
  "backwards": np.arange(4, dtype=np.float32)[::-1],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_as_it_was(tmp_path, name):
  tree = {name: ARRAYS[name]}
  storage.save_tree(tmp_path / "a.safetensors", tree)
  equal(storage.load_tree(tmp_path / "a.safetensors")[0], tree)


def test_an_array_of_jax_comes_back_in_numpy(tmp_path):
  tree = {"x": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3).T}
  storage.save_tree(tmp_path / "a.safetensors", tree)
  back, _ = storage.load_tree(tmp_path / "a.safetensors")
  assert isinstance(back["x"], np.ndarray)
  equal(back, jax.tree.map(np.asarray, tree))


def test_metadata_come_back_with_the_tree(tmp_path):
  metadata = {"settings": {"a": [1, 2]}, "text": "ü", "number": 0.1}
  storage.save_tree(tmp_path / "a.safetensors", TREE, metadata)
  tree, back = storage.load_tree(tmp_path / "a.safetensors")
  equal(tree, TREE)
  assert back == metadata


def test_an_empty_tree_is_a_file_too(tmp_path):
  storage.save_tree(tmp_path / "a.safetensors", {}, {"x": 1})
  assert storage.load_tree(tmp_path / "a.safetensors") == ({}, {"x": 1})


@pytest.fixture
def saved(tmp_path):
  path = tmp_path / "tree.safetensors"
  return storage.save_tree(path, TREE, {"record": {"best": [0.25, 3.0]}})


def test_a_file_cut_anywhere_is_refused_by_name(saved):
  whole = saved.read_bytes()
  for length in range(len(whole)):
    saved.write_bytes(whole[:length])
    with pytest.raises(ValueError, match="tree.safetensors"):
      storage.load_tree(saved)


def test_a_flipped_bit_is_noticed_wherever_it_is(saved):
  """In a tensor, in the header, in the metadata, in the hashes themselves."""
  whole = saved.read_bytes()
  for at in range(len(whole)):
    for bit in (0, 3, 5):
      broken = bytearray(whole)
      broken[at] ^= 1 << bit
      saved.write_bytes(broken)
      with pytest.raises(ValueError, match="tree.safetensors"):
        storage.load_tree(saved)


def test_an_altered_tensor_is_named(saved):
  where = TREE["b"]["c"].tobytes()
  altered = (TREE["b"]["c"] + 1).tobytes()
  saved.write_bytes(saved.read_bytes().replace(where, altered))
  with pytest.raises(ValueError, match="tensor b/c is not what was written"):
    storage.load_tree(saved)


def test_a_lost_tensor_is_named(saved):
  with safetensors.safe_open(saved, "numpy") as file:
    safetensors.numpy.save_file(
      {"a": file.get_tensor("a")}, saved, file.metadata()
    )
  with pytest.raises(ValueError, match="lost its tensor b/c"):
    storage.load_tree(saved)


def test_a_file_of_another_writer_is_read_without_hashes(tmp_path):
  path = tmp_path / "theirs.safetensors"
  safetensors.numpy.save_file(storage.flatten(TREE), path)
  tree, metadata = storage.load_tree(path)
  equal(tree, TREE)
  assert metadata == {}


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
    storage.load_tree(tmp_path / "nothing.safetensors")


def test_a_tensors_hash_depends_on_values_shape_and_dtype_only():
  x = np.arange(6, dtype=np.float32).reshape(2, 3)
  same = [x.copy(), np.asfortranarray(x), jnp.asarray(x), x[::1]]
  assert {storage.tensor_hash(y) for y in same} == {storage.tensor_hash(x)}
  other = [x + 1, x.reshape(3, 2), x.astype(np.int32), x.view(np.int32), x.T]
  assert len({storage.tensor_hash(y) for y in [x, *other]}) == 6


def test_a_trees_hash_depends_on_its_paths_and_not_on_their_order():
  turned = {"a": TREE["a"], "b": TREE["b"]}
  assert storage.tree_hash(turned) == storage.tree_hash(TREE)
  renamed = {"a": TREE["a"], "b": {"d": TREE["b"]["c"]}}
  assert storage.tree_hash(renamed) != storage.tree_hash(TREE)


def test_a_write_makes_its_folder_and_leaves_nothing_else(tmp_path):
  path = storage.write_text(tmp_path / "new" / "a.txt", "ü\n")
  assert path.read_text(encoding="utf-8") == "ü\n"
  assert [*path.parent.iterdir()] == [path]


def test_a_write_has_the_permissions_of_an_ordinary_file(tmp_path):
  plain = tmp_path / "plain"
  plain.write_text("")
  written = storage.write_text(tmp_path / "a.txt", "")
  assert written.stat().st_mode == plain.stat().st_mode


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
  path = storage.write_text(tmp_path / "a.txt", "before")

  def write(name):
    with open(name, "w") as file:
      file.write("half")
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    storage.write_atomically(path, write)
  assert path.read_text() == "before"
  assert os.listdir(tmp_path) == ["a.txt"]


LARGE = {"x": np.zeros(10_000, np.float32)}


@pytest.mark.parametrize(
  "write",
  [
    lambda path: storage.write_text(path, "x" * 20_000),
    lambda path: storage.save_tree(path, LARGE),
  ],
  ids=["text", "tree"],
)
def test_a_refused_write_is_an_oserror_and_leaves_what_was_there(
  tmp_path, write
):
  path = storage.write_text(tmp_path / "a", "before")
  with disks.files_up_to(10_000), pytest.raises(OSError, match="too large"):
    write(path)
  assert path.read_text() == "before"
  assert os.listdir(tmp_path) == ["a"]


def test_a_full_disk_is_an_oserror_and_leaves_what_was_there(tmp_path):
  instead = "test_a_refused_write_is_an_oserror_and_leaves_what_was_there"
  with disks.disk(tmp_path / "disk", "size=32k", instead) as folder:
    path = storage.save_tree(folder / "a", TREE)
    with pytest.raises(OSError, match="[Nn]o space left"):
      storage.save_tree(path, LARGE)
    equal(storage.load_tree(path)[0], TREE)
    assert os.listdir(folder) == ["a"]


def test_json_comes_back(tmp_path):
  value = {"a": [1, 2.5, None], "b": "ü"}
  path = storage.write_json(tmp_path / "a.json", value)
  assert json_files.read(path) == value
  assert json.loads(path.read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("content", [b'{"a": 1', b"\xff\xfe", b""])
def test_what_is_no_json_is_named(tmp_path, content):
  path = tmp_path / "broken.json"
  path.write_bytes(content)
  with pytest.raises(ValueError, match="broken.json is not valid JSON"):
    json_files.read(path)
