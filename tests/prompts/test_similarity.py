"""Saved prompts by their likeness: the order, and what cannot be compared."""

import json
import shlex

import numpy as np
import pytest
import tiny_t5

from prompt_tuning import cli, storage
from prompt_tuning.prompts import (
  adapters,
  checkpoints,
  initializers,
  similarity,
)

HERE = {"source": "here", "hash": "a" * 64}


def save(folder, *rows, task="some", model=HERE):
  record = {"task": task} | ({"model": model} if model else {})
  return checkpoints.save_prompt(folder, np.array(rows, np.float32), record)


@pytest.fixture
def brief(tmp_path):
  """Its mean row is (1, 0)."""
  return save(tmp_path / "brief", [2, 1], [0, -1])


@pytest.fixture
def sources(tmp_path):
  """Mean rows (3, 4), (2, 0), (-1, 0) and (0, 5), of several lengths."""
  folder = tmp_path / "sources"
  save(folder / "run" / "prompts" / "near", [3, 4], task="near")
  save(folder / "nearest", [4, 7], [0, -7], [2, 0], task="nearest")
  np.save(folder / "opposite.npy", np.float32([[-1, 0]]))
  adapters.save(folder / "adapter", [[0, 5.0]], "base", {})
  storage.write_text(folder / "run" / "checkpoints" / "noise.npy", "no array")
  return folder


def test_prompts_are_ranked_by_the_cosine_of_their_mean_rows(brief, sources):
  ranked = similarity.rank(brief, [sources])
  assert [(one.prompt.path, round(one.cosine, 6)) for one in ranked] == [
    (str(sources / "nearest"), 1.0),
    (str(sources / "run" / "prompts" / "near"), 0.6),
    (str(sources / "adapter"), 0.0),
    (str(sources / "opposite.npy"), -1.0),
  ]


def test_the_prompt_itself_and_one_named_twice_stand_once(brief, sources):
  near = sources / "run" / "prompts" / "near"
  (one,) = similarity.rank(brief, [near, brief, near])
  assert one.prompt.name == "near"
  with pytest.raises(ValueError, match="has no prompt but .*brief itself"):
    similarity.rank(brief, [brief])


def test_the_command_says_where_to_start_and_writes_rows(
  brief, sources, tmp_path, capsys
):
  rows = tmp_path / "rows.jsonl"
  flags = ["similar", str(brief), str(sources), "--output", str(rows)]
  assert cli.main(flags) == 0
  said = capsys.readouterr().out
  head, first = said.splitlines()[:2]
  assert head.split() == ["cosine", "task", "positions", "prompt"]
  assert first.split()[:3] == ["1.000", "nearest", "3"]
  found = [json.loads(line) for line in rows.read_text().splitlines()]
  assert [row["cosine"] for row in found] == [1.0, 0.6, 0.0, -1.0]
  words = shlex.split(said.replace("\\\n", " ").splitlines()[-1])
  given = dict(w.removeprefix("--").split("=") for w in words if "=" in w)
  assert given["gin.PROMPT_LENGTH"] == "3"
  start = initializers.from_array(given["gin.PROMPT_FILE"])
  source = initializers.Source(np.zeros((4, 2), np.float32), list, 4)
  assert start(None, 3, source).tolist() == [[4, 7], [0, -7], [2, 0]]


def test_an_adapter_is_converted_before_it_is_a_start(brief, sources):
  (best,) = similarity.rank(brief, [sources / "adapter"])
  said = similarity.start_from(best.prompt)
  assert "convert" in said and "--gin.PROMPT_FILE=source.npy" in said


def test_what_cannot_be_compared_is_refused_by_name(brief, sources, tmp_path):
  wide = save(tmp_path / "wide", [1, 2, 3])
  with pytest.raises(ValueError, match="wide has width 3 and .*brief has 2"):
    similarity.rank(brief, [sources, wide])
  there = {"source": "there", "hash": "b" * 64}
  other = save(tmp_path / "other", [1, 2], model=there)
  message = "other was trained for the frozen weights of 'there'.*of 'here'"
  with pytest.raises(ValueError, match=message):
    similarity.rank(brief, [sources, other])
  ranked = similarity.rank(brief, [other], allow_other_model=True)
  assert [one.prompt.name for one in ranked] == ["some"]
  (tmp_path / "empty").mkdir()
  with pytest.raises(FileNotFoundError, match="no prompt in .*empty"):
    similarity.rank(brief, [tmp_path / "empty"])


def test_cosines_are_of_means_not_of_rows():
  """[1, 0] and [0, 1] in any order have the mean (1, 1) / 2."""
  rows = tiny_t5.rows(5, 3)
  ranked = similarity.analysis.similar(rows, {"same": rows[::-1]})
  assert ranked == [("same", pytest.approx(1.0))]


def test_a_prompt_named_by_its_file_is_itself(brief, sources):
  ranked = similarity.rank(brief / "prompt.npy", [brief.parent])
  assert str(brief) not in {one.prompt.path for one in ranked}
  ranked = similarity.rank(brief, [brief / "prompt.npy", sources])
  assert not any(one.prompt.path.startswith(str(brief)) for one in ranked)


def test_a_start_may_be_a_file_of_tensors(brief, tmp_path):
  storage.save_tree(tmp_path / "t" / "prompt.safetensors", {"x": np.eye(2)}, {})
  (one,) = similarity.rank(brief, [tmp_path / "t"])
  start = similarity.start_from(one.prompt)
  assert f"PROMPT_FILE={tmp_path / 't' / 'prompt.safetensors'}" in start


def test_more_than_rows_is_refused_before_widths_are_compared(brief, tmp_path):
  own = {"encoder_keys": np.ones((1, 5), np.float32)}
  inside = checkpoints.save_prompt(tmp_path / "ia3", own, {})
  with pytest.raises(ValueError, match="is more than rows"):
    similarity.rank(inside, [brief])
