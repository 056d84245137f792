"""Submission files: names, fields and labels of the leaderboards."""

import json
import zipfile

import places
import pytest
import tfds_layout

from prompt_tuning import cli, tasks
from prompt_tuning.data import splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import submission
from prompt_tuning.tasks import benchmark

GOLDEN = places.GOLDEN / "t5_tasks.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))
MRPC = places.SHARED / "data" / "mrpc"

tasks.register_all()


pytestmark = pytest.mark.usefixtures("data_dir")


def written(folder, name: str, predictions, split="test") -> list[str]:
  """The lines of a task's file, of the rows of its golden case."""
  source = benchmark.registered[name].source
  rows = CASES[name]["rows"]
  tfds_layout.write(folder, source.name, {source.splits[split]: rows})
  examples = splits.load(
    name,
    split,
    {"inputs": 2048, "targets": 99},
    vocabulary=pretrained.shipped_vocabulary(),
  )
  form = next(f for f in submission.formats(name) if f.split == split)
  text, invalid = submission.contents(form, examples, predictions)
  return [f"{form.file} {invalid}", *text.splitlines()]


@pytest.mark.parametrize(
  "name, words, lines",
  [
    ("glue_cola", ["acceptable", "x"], ["CoLA.tsv 1", "0\t1", "3\t0"]),
    ("glue_rte", ["not_entailment"], ["RTE.tsv 0", "0\tnot_entailment"]),
    ("glue_ax", ["neutral"], ["AX.tsv 0", "0\tneutral"]),
    ("glue_wnli", ["entailment"], ["WNLI.tsv 0", "0\t1"]),
    (
      "glue_stsb",
      ["3.8", "six", "7", "-1"],
      ["STS-B.tsv 1", "0\t3.800", "1\t0.000", "2\t5.000", "3\t0.000"],
    ),
  ],
)
def test_a_file_of_glue_has_index_and_prediction(name, words, lines, data_dir):
  count = len(CASES[name]["rows"])
  predictions = [*words, *[words[0]] * (count - len(words))]
  first, header, *rest = written(data_dir, name, predictions)
  assert header == "index\tprediction" and len(rest) == count
  assert [first, *rest[: len(lines) - 1]] == lines


def test_mnli_has_a_file_for_each_of_its_test_sets(data_dir):
  name = "glue_mnli_mismatched"
  lines = written(data_dir, name, ["contradiction"] * len(CASES[name]["rows"]))
  assert lines[0] == "MNLI-mm.tsv 0" and lines[2] == "0\tcontradiction"
  assert [(f.file, f.split) for f in submission.formats("glue_mnli")] == [
    ("MNLI-m.tsv", "test"),
    ("MNLI-mm.tsv", "test_mismatched"),
  ]


@pytest.mark.parametrize(
  "name, word, file, label",
  [
    ("super_glue_boolq", "True", "BoolQ.jsonl", "true"),
    ("super_glue_cb", "contradiction", "CB.jsonl", "contradiction"),
    ("super_glue_copa", "choice2", "COPA.jsonl", 1),
    ("super_glue_rte", "entailment", "RTE.jsonl", "entailment"),
    ("super_glue_wic", "False", "WiC.jsonl", "false"),
    ("super_glue_axb", "not_entailment", "AX-b.jsonl", "not_entailment"),
    ("super_glue_axg", "entailment", "AX-g.jsonl", "entailment"),
    ("super_glue_wsc", "The", "WSC.jsonl", "False"),
  ],
)
def test_a_file_of_super_glue_has_idx_and_label(
  name, word, file, label, data_dir
):
  rows = CASES[name]["rows"]
  first, *lines = written(data_dir, name, [word] * len(rows))
  assert first.split()[0] == file
  assert [json.loads(line) for line in lines] == [
    {"idx": row["idx"], "label": label} for row in rows
  ]


def test_multirc_has_the_structure_of_its_data(data_dir):
  count = len(CASES["super_glue_multirc"]["rows"])
  _, *lines = written(data_dir, "super_glue_multirc", ["True"] * count)
  passages = [json.loads(line) for line in lines]
  assert [passage["idx"] for passage in passages] == [0, 1]
  assert passages[0]["passage"]["questions"][0] == {
    "idx": 0,
    "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 1}],
  }


def test_record_has_one_line_per_query(data_dir):
  count = len(CASES["super_glue_record"]["examples"])
  first, *lines = written(data_dir, "super_glue_record", ["Zoë"] * count)
  rows = [json.loads(line) for line in lines]
  assert rows == [{"idx": i, "label": "Zoë"} for i in range(4)]
  assert first == "ReCoRD.jsonl 0"


def test_a_task_of_no_leaderboard_has_no_file():
  with pytest.raises(ValueError, match="squad has no submission file"):
    submission.formats("squad")


def test_rows_with_the_same_idx_are_refused(data_dir):
  rows = [dict(row, idx=7) for row in CASES["super_glue_cb"]["rows"]]
  tfds_layout.write(data_dir, "super_glue/cb:1.0.2", {"test": rows})
  examples = splits.load(
    "super_glue_cb",
    "test",
    {"inputs": 512, "targets": 16},
    vocabulary=pretrained.shipped_vocabulary(),
  )
  (form,) = submission.formats("super_glue_cb")
  with pytest.raises(
    ValueError, match="super_glue_cb, split test, have the id"
  ):
    submission.contents(form, examples, ["neutral"] * len(rows))


@pytest.mark.parametrize(
  "tasks", ['["glue_cola", "glue_cola"]', '["glue_mnli", "glue_mnli_matched"]']
)
def test_a_file_that_would_be_written_twice_is_refused(tasks, tmp_path, capsys):
  assert hand_in(tmp_path / "out", tasks) == 2
  assert ".tsv twice. Name each test set once" in capsys.readouterr().err


def test_the_command_writes_a_zip_of_several_tasks(data_dir, tmp_path, caplog):
  for name, tfds_name in (
    ("glue_cola", "glue/cola:2.0.0"),
    ("super_glue_cb", "super_glue/cb:1.0.2"),
  ):
    tfds_layout.write(data_dir, tfds_name, {"test": CASES[name]["rows"]})
  out = tmp_path / "out"
  assert hand_in(out, '["glue_cola", "super_glue_cb"]') == 0
  with zipfile.ZipFile(out / "glue_submission.zip") as archive:
    assert archive.namelist() == ["CoLA.tsv"]
    assert len(archive.read("CoLA.tsv").splitlines()) == 8
  with zipfile.ZipFile(out / "super_glue_submission.zip") as archive:
    assert archive.namelist() == ["CB.jsonl"]
  report = json.loads((out / "submission.json").read_text())
  assert report["CoLA.tsv"]["examples"] == 7
  lacking = submission.absent("super_glue", ["CB.jsonl"])
  assert len(lacking) == 9 and "AX-g.jsonl" in lacking
  assert f"super_glue_submission.zip lacks {', '.join(lacking)}" in caplog.text


def hand_in(out, task: str | None = None, *more: str) -> int:
  named = [f"--gin.MIXTURE_OR_TASK_NAME={task}"] if task else []
  return cli.main(
    [
      *("infer", "--submission", *named, *more),
      "--gin_file=models/microworld.gin",
      "--gin_file=runs/infer.gin",
      '--gin.TASK_FEATURE_LENGTHS={"inputs": 96, "targets": 16}',
      f"--gin.INFER_OUTPUT_DIR={out}",
    ]
  )


@pytest.mark.skipif(
  not MRPC.is_dir(),
  reason="the files of MRPC do not lie beside this checkout; "
  "test_the_command_writes_a_zip_of_several_tasks and "
  "test_official have small ones in the same layout",
)
def test_mrpc_from_its_own_files_is_tuned_scored_and_handed_in(
  tmp_path, capsys
):
  folder = tmp_path / "GLUE" / "MRPC"
  folder.mkdir(parents=True)
  for ours, official in (("train", "train"), ("val", "dev"), ("test", "test")):
    lines = (MRPC / f"msr-para-{ours}.tsv").read_text("utf-8").split("\n")
    (folder / f"{official}.tsv").write_text("\n".join(lines[:60]), "utf-8")
  code = cli.main(
    [
      *("train", "--data", str(folder)),
      "--gin_file=models/microworld.gin",
      "--gin_file=prompts/class_labels.gin",
      "--gin_file=runs/prompt_tuning.gin",
      '--gin.TASK_FEATURE_LENGTHS={"inputs": 96, "targets": 8}',
      *("--gin.PROMPT_LENGTH=4", "--gin.TRAIN_STEPS=4"),
      *("--gin.EVAL_PERIOD=4", "--gin.BATCH_SIZE=4"),
      f"--gin.MODEL_DIR={tmp_path / 'run'}",
    ]
  )
  assert code == 0
  assert "glue_mrpc (validation): f1" in capsys.readouterr().out
  out = tmp_path / "out"
  prompt = f"--gin.PROMPT_PATH={tmp_path / 'run'}"
  assert hand_in(out, None, "--data", str(folder), prompt) == 0
  assert len((out / "MRPC.tsv").read_text().splitlines()) == 60
