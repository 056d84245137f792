"""The seqio task of docs/my_mrpc.py, by the commands of docs/own_task.md.

The T5 has random weights and is tiny; what counts is the path from a user's
module to scores and predictions.
"""

import importlib
import json
import pathlib
import sys

import gin
import places
import pytest
import seqio
import tiny_t5

from prompt_tuning import cli

SHARED = places.SHARED / "data"
REAL = (SHARED / "mrpc", SHARED / "t5_vocab.model")
SPLITS = ("train", "val", "test")
MODEL = (
  "--gin_file=models/t5_1_1_small.gin",
  "--gin_file=models/random_weights.gin",
  "--gin.t5.T5Config.emb_dim=16",
  "--gin.t5.T5Config.head_dim=8",
  "--gin.t5.T5Config.mlp_dim=32",
  "--gin.t5.T5Config.num_heads=2",
  "--gin.t5.T5Config.num_encoder_layers=1",
  "--gin.t5.T5Config.num_decoder_layers=1",
)
LENGTHS = '--gin.TASK_FEATURE_LENGTHS={"inputs": 128, "targets": 32}'


def small_mrpc(folder: pathlib.Path, rows: int = 24) -> pathlib.Path:
  """Files in MRPC's layout."""
  folder.mkdir()
  for split in SPLITS:
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    for i in range(rows):
      pair = tiny_t5.TEXTS[i % 5], tiny_t5.TEXTS[(i * (1 + i % 2)) % 5]
      lines.append(
        f"{int(pair[0] == pair[1])}\t{i}\t{i + 90}\t" + "\t".join(pair)
      )
    (folder / f"msr-para-{split}.tsv").write_text("\n".join(lines) + "\n")
  return folder


def cut(folder: pathlib.Path, rows: int = 60) -> pathlib.Path:
  """The first rows of the real files."""
  folder.mkdir()
  for split in SPLITS:
    name = f"msr-para-{split}.tsv"
    lines = (REAL[0] / name).read_text("utf-8").split("\n")
    (folder / name).write_text("\n".join(lines[: rows + 1]) + "\n", "utf-8")
  return folder


REAL_MARK = pytest.mark.skipif(
  not all(path.exists() for path in REAL),
  reason="MRPC and T5's vocabulary do not lie beside this checkout; "
  "test_a_module_of_ones_own_is_tuned_scored_and_predicted[small] has files in "
  "the same layout",
)


@pytest.fixture(
  params=["small", pytest.param("real", marks=(REAL_MARK, pytest.mark.slow))],
)
def task(request, tmp_path, monkeypatch):
  """The flags that name the task of a module in docs/."""
  real = request.param == "real"
  folder = (cut if real else small_mrpc)(tmp_path / "mrpc")
  vocabulary = REAL[1] if real else tiny_t5.vocabulary().path
  monkeypatch.setenv("MRPC_FOLDER", str(folder))
  monkeypatch.setenv("MRPC_VOCABULARY", str(vocabulary))
  monkeypatch.syspath_prepend(places.ROOT / "docs")
  yield (
    f"--gin.VOCABULARY_PATH={vocabulary}",
    "--gin.MIXTURE_OR_TASK_MODULE=my_mrpc",
    "--gin.MIXTURE_OR_TASK_NAME=my_mrpc",
    LENGTHS,
  )
  gin.clear_config()
  seqio.TaskRegistry.remove("my_mrpc")
  sys.modules.pop("my_mrpc", None)
  importlib.invalidate_caches()


def test_a_module_of_ones_own_is_tuned_scored_and_predicted(task, tmp_path):
  run = tmp_path / "run"
  prompt = f"--gin.PROMPT_PATH={run}"
  assert not cli.main(
    [
      *("train", *MODEL, *task),
      "--gin_file=prompts/class_labels.gin",
      "--gin_file=runs/prompt_tuning.gin",
      *("--gin.PROMPT_LENGTH=4", "--gin.BATCH_SIZE=8"),
      *("--gin.TRAIN_STEPS=12", "--gin.EVAL_PERIOD=6"),
      f"--gin.MODEL_DIR={run}",
    ]
  )
  gin.clear_config()
  rows = [
    json.loads(r) for r in (run / "metrics.jsonl").read_text().split("\n") if r
  ]
  losses = [row["loss"] for row in rows if "loss" in row]
  assert losses[-1] < losses[0] - 0.05
  record = json.loads((run / "prompt.json").read_text())
  assert record["scores"]["validation"].keys() == {"accuracy"}
  assert record["truncated"] == {"my_mrpc": {"inputs": 0, "targets": 0}}
  scores = tmp_path / "scores"
  assert not cli.main(
    [
      *("eval", *MODEL, *task, prompt),
      "--gin_file=runs/eval.gin",
      "--gin.SPLIT=test",
      f"--gin.EVAL_OUTPUT_DIR={scores}",
    ]
  )
  gin.clear_config()
  (file,) = (scores / "predictions").glob("*.jsonl")
  assert len(file.read_text().splitlines()) >= 24
  lines = tmp_path / "pairs.txt"
  lines.write_text("sentence1: The cat sat . sentence2: A dog ran .\n")
  assert not cli.main(
    [
      *("infer", *MODEL, task[0], LENGTHS, prompt),
      "--gin_file=runs/infer.gin",
      f"--gin.INPUT_FILE={lines}",
      f"--gin.INFER_OUTPUT_DIR={tmp_path / 'predicted'}",
    ]
  )
  (row,) = (
    (tmp_path / "predicted" / "predictions.jsonl").read_text().split("\n")[:-1]
  )
  assert isinstance(json.loads(row)["prediction"], str)
