import json
import logging

import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.inference import infer, jobs
from prompt_tuning.model import decode
from prompt_tuning.prompts import checkpoints
from prompt_tuning.tasks import own_data


def saved(folder, count):
  """Prompts that steer the toy model into different answers."""
  return [
    checkpoints.save_prompt(
      folder / f"p{n}", 3 * tiny_t5.rows(4, 16, seed=n), {"task": f"t{n}"}
    )
    for n in range(count)
  ]


def evaluate(folder, names, prompts):
  return jobs.evaluate_prompts(
    eval_output_dir=folder,
    model=toy_tasks.model(),
    mixture_or_task_name=names,
    task_feature_lengths=toy_tasks.LENGTHS,
    prompt_path=prompts,
  )


def test_tasks_and_prompts_are_paired_one_by_one(tmp_path):
  prompts = saved(tmp_path, 2)
  both = evaluate(tmp_path / "both", [toy_tasks.CAT, toy_tasks.DOG], prompts)
  alone = [
    evaluate(tmp_path / f"{n}", name, prompts[n])[0]
    for n, name in enumerate((toy_tasks.CAT, toy_tasks.DOG))
  ]
  assert both == alone
  rows = json.loads((tmp_path / "both" / "metrics.json").read_text())
  assert [row["prompt"] for row in rows] == [str(p) for p in prompts]


def test_one_task_is_scored_with_every_prompt(tmp_path):
  results = evaluate(tmp_path / "e", toy_tasks.CAT, saved(tmp_path, 3))
  assert [r.task for r in results] == [toy_tasks.CAT] * 3
  assert len({tuple(r.predictions) for r in results}) > 1
  names = {p.name for p in (tmp_path / "e" / "predictions").iterdir()}
  assert names == {f"toy_cat-prompt{n}-validation.jsonl" for n in range(3)}


def test_a_mixture_is_scored_task_by_task(tmp_path):
  (prompt,) = saved(tmp_path, 1)
  results = evaluate(tmp_path / "e", "toy_animals", prompt)
  assert {r.task for r in results} == {toy_tasks.CAT, toy_tasks.DOG}


def test_numbers_that_do_not_pair_are_refused(tmp_path):
  with pytest.raises(ValueError, match="2 tasks .* and 3 prompts"):
    evaluate(tmp_path / "e", [toy_tasks.CAT, toy_tasks.DOG], saved(tmp_path, 3))


def test_prompts_of_different_lengths_are_scored_as_alone(tmp_path):
  (one,) = saved(tmp_path, 1)
  long = 3 * tiny_t5.rows(9, 16, seed=1)
  other = checkpoints.save_prompt(tmp_path / "long", long, {})
  both = evaluate(tmp_path / "both", toy_tasks.CAT, [one, other])
  (first,) = evaluate(tmp_path / "0", toy_tasks.CAT, one)
  (second,) = evaluate(tmp_path / "1", toy_tasks.CAT, other)
  assert both == [first, second]
  assert first.predictions != second.predictions


def test_lines_are_predicted_with_one_prompt(tmp_path):
  (tmp_path / "lines.txt").write_text("the cat\n")
  with pytest.raises(ValueError, match="PROMPT_PATH names 2 prompts"):
    jobs.infer_lines(
      infer_output_dir=tmp_path / "out",
      model=toy_tasks.model(),
      input_file=tmp_path / "lines.txt",
      task_feature_lengths=toy_tasks.LENGTHS,
      prompt_path=saved(tmp_path, 2),
    )


def predicted(folder, content: bytes) -> list[dict]:
  """The rows that the lines of a file become."""
  folder.mkdir(exist_ok=True)
  (folder / "lines.txt").write_bytes(content)
  path = jobs.infer_lines(
    infer_output_dir=folder / "out",
    model=toy_tasks.model(),
    input_file=folder / "lines.txt",
    task_feature_lengths=toy_tasks.LENGTHS,
  )
  rows = path.read_text(encoding="utf-8").split("\n")[:-1]
  return [json.loads(row) for row in rows]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_only_a_line_break_ends_a_line(end, tmp_path):
  texts = ["the cat", "a dog\u2028ran\x0cto"]
  content = "\ufeff" + (end or "\n").join(texts) + end
  rows = predicted(tmp_path, content.encode("utf-8"))
  assert [row["input"] for row in rows] == texts


@pytest.mark.parametrize(
  "content, message",
  [
    (b"", "INPUT_FILE=.* is empty"),
    (b"cat\n\ndog\n", "line 2 is empty"),
    (b"caf\xe9\n", "INPUT_FILE=.* is not UTF-8"),
    (b"cat " * 50, "line 1 has .* tokens, more than TASK_FEATURE_LENGTHS"),
  ],
)
def test_lines_that_cannot_be_predicted_are_named(content, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    predicted(tmp_path, content)


# Rows of one's own.

ROWS = [
  {"id": 7, "who": "the cat", "where": "mat", "more": {"tags": ["a", None]}},
  {"id": 8, "who": "a dog", "where": "red house", "more": None},
]


def written(folder, content, name="new.jsonl", decoding=None, **settings):
  """The predictions of a file of rows, and what the lines model says."""
  folder.mkdir(exist_ok=True)
  (folder / name).write_text(content, encoding="utf-8")
  rows = own_data.to_predict(
    data=str(folder / name),
    **{"template": "{who} sat on the {where}", **settings},
  )
  path = jobs.infer_rows(
    infer_output_dir=folder / "out",
    model=toy_tasks.model(),
    rows=rows,
    task_feature_lengths=toy_tasks.LENGTHS,
    decoding=decoding,
  )
  return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_rows_without_answers_come_back_with_their_own_fields(tmp_path):
  content = "".join(json.dumps(row) + "\n" for row in ROWS)
  texts = "the cat sat on the mat\na dog sat on the red house\n"
  lines = predicted(tmp_path / "lines", texts.encode())
  want = [
    {**row, "prediction": line["prediction"]}
    for row, line in zip(ROWS, lines, strict=True)
  ]
  assert written(tmp_path / "rows", content) == want
  whole = written(tmp_path / "json", json.dumps(ROWS), "new.json")
  assert whole == want


@pytest.mark.parametrize("between, name", [(",", "n.csv"), ("\t", "n.tsv")])
def test_rows_of_a_table_keep_their_columns(between, name, tmp_path):
  cells = [["id", "who", "where"], ["07", "the cat", "mat"]]
  content = "\n".join(between.join(row) for row in cells)
  (row,) = written(tmp_path, content, name)
  assert list(row) == ["id", "who", "where", "prediction"]
  assert (row["id"], row["who"]) == ("07", "the cat")


def test_rows_have_the_log_probabilities_that_are_asked_for(tmp_path):
  content = json.dumps(ROWS[0])
  beams = infer.Decoding(decode.Beam(2), max_length=4, num_decodes=2)
  (row,) = written(tmp_path, content, decoding=beams)
  assert row["predictions"][0] == {
    "prediction": row["prediction"],
    "log_probability": row["log_probability"],
  }
  rank = infer.Decoding(decode.Rank(), scores=True)
  (row,) = written(tmp_path, content, decoding=rank, labels="0=no,1=yes")
  assert row["probabilities"].keys() == {"no", "yes"}
  assert row["log_probability"] < 0


@pytest.mark.parametrize(
  "row, settings, message",
  [
    (
      {"who": "x"},
      {},
      "new.jsonl, line 1: the row has no field 'where'",
    ),
    ({"who": "", "where": "x"}, {}, "line 1: the field 'who' is empty"),
    (
      {"who": "cat " * 30, "where": "x"},
      {},
      "line 1: the input has .* tokens, more than TASK_FEATURE_LENGTHS",
    ),
    (
      {"who": "x", "where": "x", "prediction": "y"},
      {},
      "the field 'prediction' has the name of what is predicted. Rename",
    ),
    (
      {"who": "x", "where": "x"},
      {"labels": "no,yes"},
      r"words .'no', 'yes'.\) are what Rank chooses from .* DECODING is Greedy",
    ),
  ],
)
def test_a_row_that_cannot_be_predicted_is_named(
  row, settings, message, tmp_path
):
  with pytest.raises(ValueError, match=message):
    written(tmp_path, json.dumps(row), **settings)
  assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_bad_rows_may_be_left_out_and_are_counted(tmp_path, caplog):
  content = json.dumps({"who": "x"}) + "\n" + json.dumps(ROWS[0])
  with caplog.at_level(logging.WARNING):
    (row,) = written(tmp_path, content, skip_bad_rows=True)
  assert row["id"] == 7
  assert "1 of 2 rows are bad and left out; the first: " in caplog.text
