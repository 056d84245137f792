"""A user's files as a task, and what the command line makes of them."""

import json
import logging
import pathlib

import places
import pytest
import seqio
import tiny_t5

from prompt_tuning import cli
from prompt_tuning.data import registry, scoring, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.tasks import declarations, own_data, register_all
from prompt_tuning.tasks.rows import own_files
from prompt_tuning.vocabulary import Vocabulary

LENGTHS = {"inputs": 96, "targets": 16}
TEMPLATE = "hypothesis: {b} premise: {a}"
SICK = places.SHARED / "data" / "sick"


@pytest.fixture
def rows(tmp_path):
  """Three files: jsonl to train on, csv to validate, tsv to test."""
  path = {}
  path["train"] = tmp_path / "train.jsonl"
  path["train"].write_text(
    "".join(
      json.dumps({"a": f"It is {i}.", "b": "Is it?", "label": i % 2}) + "\n"
      for i in range(40)
    )
  )
  path["validation"] = tmp_path / "dev.csv"
  path["validation"].write_text('a,b,label\n"One, two.",Three.,1\nx,y,0\n')
  path["test"] = tmp_path / "test.tsv"
  path["test"].write_text('a\tb\tlabel\nA "b" c.\td\t1\n')
  return {split: str(file) for split, file in path.items()}


def load(name: str, split: str) -> splits.Examples:
  return splits.load(
    name, split, LENGTHS, vocabulary=pretrained.shipped_vocabulary()
  )


def register(**settings) -> str:
  return own_data.register(**{"template": TEMPLATE, **settings})


def test_rows_become_examples_by_the_template(rows):
  name = register(**rows, labels="0=no,1=yes", metric="accuracy,f1")
  train, dev = load(name, "train"), load(name, "validation")
  assert len(train) == 40 and len(dev) == 2
  assert dev.input_texts()[0] == "hypothesis: Three. premise: One, two."
  assert dev.target_texts() == ["yes", "no"]
  assert load(name, "test").input_texts() == ['hypothesis: d premise: A "b" c.']
  assert scoring.metrics(dev, ["yes", "perhaps"]) == {
    "accuracy": 50.0,
    "f1": pytest.approx(200 / 3),
    "invalid": 1.0,
  }


def test_tasks_are_read_with_the_added_tokens_of_the_model(rows, tmp_path):
  file = tmp_path / "marked.jsonl"
  file.write_text('{"a": "the <ORG> cat", "b": "<ORG>", "label": "the <ORG>"}')
  name = register(train=str(file), validation=str(file), template="{b} {a}")
  tokenizer = places.GOLDEN / "tokenizers" / "tokenizer.json"
  pieces = tiny_t5.vocabulary(10).path
  for vocabulary in (
    Vocabulary(str(tokenizer)),
    Vocabulary(pieces, 10, {"<ORG>": 45}),
  ):
    (ids,) = (
      found := splits.load(name, "train", LENGTHS, vocabulary=vocabulary)
    ).inputs.split()
    assert ids.tolist() == [*vocabulary.encode("<ORG> the <ORG> cat"), 1]
    assert ids.tolist().count(45) == 2
    assert not found.said and found.target_texts() == ["the <ORG>"]


def test_without_a_validation_file_a_tenth_of_train_is_held_out(rows):
  name = register(train=rows["train"])
  train, held_out = load(name, "train"), load(name, "validation")
  texts = {*train.input_texts()}, {*held_out.input_texts()}
  assert not texts[0] & texts[1]
  assert len(train) + len(held_out) == 40 and 1 <= len(held_out) <= 10


def test_ranking_does_not_learn_the_labels_from_the_scored_file(rows):
  only_test = {"test": rows["test"], "target": "label"}
  name = register(**only_test, labels="0=no,1=yes,2=maybe")
  assert set(load(name, "test").target_texts()) == {"yes"}
  assert registry.labels(name) == ["maybe", "no", "yes"]
  with pytest.raises(ValueError, match="names no labels .* no split 'train'"):
    registry.labels(register(**only_test))
  vocabulary = pretrained.shipped_vocabulary()
  assert registry.labels(register(**rows), vocabulary) == ["0", "1"]


def test_a_label_that_cannot_be_written_is_refused(rows):
  name = register(**rows, labels="0=no,1=日本")
  with pytest.raises(ValueError, match="'日本' of own_data cannot be written"):
    load(name, "train")


def test_free_text_that_cannot_be_written_is_counted(tmp_path, caplog):
  file = tmp_path / "words.tsv"
  file.write_text("a\tb\tlabel\nx\ty\tplum\nx\ty\t日本\nx\ty\t日\n")
  name = register(test=str(file), metric="squad")
  with caplog.at_level(logging.WARNING):
    examples = load(name, "test")
  assert "2 of 3 targets have characters that the vocabulary" in caplog.text
  assert scoring.metrics(examples, ["plum", " ⁇ ", " ⁇ "])["em"] < 50


def test_a_value_may_have_an_equals_sign_in_it(rows):
  own = own_files.OwnData(
    rows["train"], None, None, TEMPLATE, "label", ("<=50K=low", ">50K=high")
  )
  assert own.words == {"<=50K": "low", ">50K": "high"}


def test_numbers_and_free_text_have_their_metrics(tmp_path):
  file = tmp_path / "scores.tsv"
  file.write_text("a\tb\tlabel\nx\ty\t1.5\nx\ty\t3\nx\ty\t4\n")
  scored = load(register(test=str(file), metric="pearson"), "test")
  assert scoring.metrics(scored, ["1.5", "3.0", "4"])["pearson_corrcoef"] > 99.9
  assert scoring.metrics(scored, ["1", "two", "4"])["invalid"] == 1.0
  free = load(register(test=str(file), metric="squad"), "test")
  assert scoring.metrics(free, ["The 1.5", "", "4 4"])["em"] == pytest.approx(
    100 / 3
  )


def test_the_same_files_are_registered_once_and_others_take_their_place(rows):
  first = seqio.TaskRegistry.get(register(train=rows["train"]))
  assert seqio.TaskRegistry.get(register(train=rows["train"])) is first
  assert seqio.TaskRegistry.get(register(train=rows["test"])) is not first
  register_all()
  with pytest.raises(ValueError, match="already a task 'glue_cola'"):
    register(train=rows["train"], name="glue_cola")


def test_bad_rows_stop_the_task_or_are_counted(rows, caplog):
  file = pathlib.Path(rows["validation"])
  file.write_text("a,b,label\nx,y,1\nx,y,maybe\n")
  name = register(validation=str(file), labels="0,1")
  with pytest.raises(ValueError, match="dev.csv, line 3: the field 'label' is"):
    load(name, "validation")
  name = register(validation=str(file), labels="0,1", skip_bad_rows=True)
  with caplog.at_level(logging.WARNING):
    assert len(load(name, "validation")) == 1
    load(name, "validation")
  assert caplog.text.count("1 of 2 rows are bad and left out; the first: ") == 1


@pytest.mark.parametrize(
  "row, settings, message",
  [
    (
      "x,y,",
      {},
      "dev.csv, line 2: the field 'label' is empty. Correct the row",
    ),
    ("x,y, ", {}, "line 2: the field 'label' is empty"),
    (" ,,1", {"template": "{a}{b}"}, "line 2: the field 'a' is empty"),
    ("x,y,nan", {"metric": "pearson"}, "'label' is 'nan', no number"),
    ("x,y,hi", {"metric": "pearson", "labels": "hi=x"}, "is 'x', no number"),
  ],
)
def test_a_row_without_text_or_answer_is_bad(row, settings, message, rows):
  file = pathlib.Path(rows["validation"])
  file.write_text(f"a,b,label\n{row}\n")
  with pytest.raises(ValueError, match=message):
    load(register(validation=str(file), **settings), "validation")


def test_too_few_rows_to_hold_some_out_are_refused(rows):
  file = pathlib.Path(rows["validation"])
  file.write_text("a,b,label\n1,2,3\n4,5,6\n")
  name = register(train=str(file), template="{a} {b}")
  assert len(load(name, "train")) == 2
  with pytest.raises(
    ValueError,
    match="A tenth .*dev.csv: it has 2 rows, too few or .* --validation",
  ):
    load(name, "validation")


def test_minus_one_is_a_number_and_no_invalid_prediction(rows):
  file = pathlib.Path(rows["test"])
  file.write_text("a\tb\tlabel\nx\ty\t-1\nx\ty\t0.5\n")
  examples = load(register(test=str(file), metric="pearson"), "test")
  assert scoring.metrics(examples, ["-1.0", "0.5"])["invalid"] == 0
  assert scoring.metrics(examples, ["-1.0", "low"])["invalid"] == 1


def test_accuracy_goes_with_the_scores_of_free_text(rows):
  file = pathlib.Path(rows["validation"])
  file.write_text("a,b,label\nx,y,the cat\nx,y,a dog\n")
  examples = load(
    register(validation=str(file), metric="accuracy,squad"), "validation"
  )
  scores = scoring.metrics(examples, ["cat", "a dog"])
  assert (scores["accuracy"], scores["em"]) == (50.0, 100.0)


def test_a_name_of_the_projects_own_is_taken(rows):
  for name in ("super_glue_boolq", "glue", "squad"):
    with pytest.raises(ValueError, match=f"already a task '{name}'"):
      register(train=rows["train"], name=name)


@pytest.mark.parametrize(
  "settings, message",
  [
    ({"metric": "acuracy"}, "'acuracy'.* is no metric; choose from accuracy"),
    ({"metric": "acuracy"}, r"squad\. Did you mean accuracy\?"),
    ({"metric": "pearson,accuracy"}, "pearson and spearman compare numbers"),
    (
      {"metric": "macro_f1,squad", "labels": "a,b"},
      "Choose metrics of one kind",
    ),
    ({"labels": "0=no,1=yes,0=none"}, "LABELS=.* has '0' twice"),
    ({"labels": "0=a,1=a"}, "LABELS=.* says 'a' for every value"),
    ({"labels": "0=,1=yes"}, "LABELS=.* a label without a word"),
    ({"metric": "f1"}, "name them with --labels"),
    (
      {"metric": "f1", "labels": "a,b,c"},
      "the second of two labels; there are 3",
    ),
    ({"template": "no field"}, "names no field"),
    ({"template": "{a"}, "is no template"),
    ({"template": "{a: {b}}"}, "more than a field's name"),
    ({"template": "{a} {}"}, "nothing instead of a field's name"),
    ({"train": None}, "There is no file"),
  ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings, message, rows):
  with pytest.raises(ValueError, match=message):
    register(**{"train": rows["train"], **settings})


def test_a_template_with_a_misspelt_field_names_the_closest(rows):
  name = register(train=rows["test"], template="{a} {labl}")
  with pytest.raises(ValueError, match="'labl', which --template names; did"):
    load(name, "train")


def run(*arguments: str) -> int:
  return cli.main([*arguments, "--gin_file=models/microworld.gin"])


def small_run(folder) -> list[str]:
  return [
    "--gin_file=prompts/class_labels.gin",
    "--gin_file=runs/prompt_tuning.gin",
    f"--gin.MODEL_DIR={folder}",
    "--gin.PROMPT_LENGTH=4",
    "--gin.TRAIN_STEPS=4",
    "--gin.EVAL_PERIOD=4",
    "--gin.BATCH_SIZE=4",
  ]


def test_own_data_trains_and_is_scored_from_the_command_line(
  rows, tmp_path, capsys, caplog
):
  mine = ["--template", TEMPLATE, "--labels", "0=no,1=yes"]
  own = [*mine, "--data", rows["train"], "--validation", rows["validation"]]
  run_folder = tmp_path / "run"
  assert run("train", *own, *small_run(run_folder)) == 0
  assert "invalid" in capsys.readouterr().out
  config = (run_folder / "config.gin").read_text()
  assert "own_data.register" in config and rows["train"] in config
  record = json.loads((run_folder / "prompt.json").read_text())
  assert (record["template"], record["labels"]) == (TEMPLATE, ["no", "yes"])

  # Other words for the labels are other data to the same folder.
  other = [*own, "--labels", "0=no,1=maybe"]
  assert run("train", *other, *small_run(run_folder)) == 2
  assert "makes texts of them (--template, --lab" in capsys.readouterr().err

  # A test file is scored; another form of input is noticed.
  mine[1] = TEMPLATE + " ?"
  assert (
    run(
      *("eval", *mine, "--test", rows["test"], "--gin_file=runs/eval.gin"),
      f"--gin.PROMPT_PATH={run_folder}",
      f"--gin.EVAL_OUTPUT_DIR={tmp_path / 'scores'}",
    )
    == 0
  )
  assert "own_data (test): accuracy" in capsys.readouterr().out
  assert f"of the form {TEMPLATE!r}, and --template is" in caplog.text
  (scores,) = json.loads((tmp_path / "scores" / "metrics.json").read_text())
  assert {"accuracy", "invalid", "truncated"} <= scores.keys()


def test_infer_says_of_rows_what_eval_says(rows, tmp_path, capsys):
  """With answers or without, in every form, and as its own infer.gin says."""
  eval_folder, out = tmp_path / "scores", tmp_path / "out"
  flags = ["--template", TEMPLATE, "--gin.TARGET_LENGTH=3"]
  code = run(
    *("eval", *flags, "--test", rows["train"], "--gin_file=runs/eval.gin"),
    *("--gin.SCORES=True", f"--gin.EVAL_OUTPUT_DIR={eval_folder}"),
  )
  assert code == 0
  bare = tmp_path / "bare.csv"
  lines = [json.loads(line) for line in open(rows["train"])]
  bare.write_text("a,b\n" + "".join(f"{r['a']},{r['b']}\n" for r in lines))
  code = run(
    *("infer", *flags, "--data", str(bare), "--gin_file=runs/infer.gin"),
    *("--gin.SCORES=True", f"--gin.INFER_OUTPUT_DIR={out}"),
  )
  assert code == 0 and "40 predictions." in capsys.readouterr().out
  scored = eval_folder / "predictions" / "own_data-test.jsonl"
  want = [json.loads(line) for line in open(scored)]
  have = [json.loads(line) for line in open(out / "predictions.jsonl")]
  for row, one, other in zip(lines, want, have, strict=True):
    answer = {k: one[k] for k in ("prediction", "log_probability")}
    assert other == {"a": row["a"], "b": row["b"], **answer}

  # What was set stands in the folder, and repeats it.
  before = (out / "predictions.jsonl").read_text()
  (out / "predictions.jsonl").unlink()
  assert cli.main(["infer", f"--gin_file={out / 'infer.gin'}"]) == 0
  assert (out / "predictions.jsonl").read_text() == before
  flags += ["--data", str(bare), "--gin_file=runs/infer.gin"]
  assert run("infer", *flags, "--gin.INPUT_FILE=lines.txt") == 2
  assert "both name what to predict" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
  not SICK.is_dir(),
  reason="the files of SICK do not lie beside this checkout; "
  "test_own_data_trains_and_is_scored_from_the_command_line has its own",
)
def test_sick_trains_as_own_data(tmp_path, capsys):
  labels = "ENTAILMENT=entailment,NEUTRAL=neutral,CONTRADICTION=contradiction"
  code = run(
    *("train", "--data", str(SICK / "SICK_trial.txt")),
    *("--template", "hypothesis: {sentence_B} premise: {sentence_A}"),
    *("--target", "entailment_judgment", "--labels", labels),
    *("--metric", "accuracy,macro_f1", *small_run(tmp_path)),
    '--gin.TASK_FEATURE_LENGTHS={"inputs": 96, "targets": 16}',
  )
  assert code == 0
  assert "mean_3class_f1" in capsys.readouterr().out
  best = json.loads((tmp_path / "prompt.json").read_text())
  assert best["scores"]["validation"].keys() >= {"accuracy", "invalid"}


def test_any_of_several_answers_is_right_and_the_first_is_trained_on(tmp_path):
  file = tmp_path / "dev.jsonl"
  answers = [["the cat", "a cat"], {"text": ["mat", "mat"]}, "dog"]
  lines = (json.dumps({"a": "x", "b": "y", "label": one}) for one in answers)
  file.write_text("\n".join(lines))
  name = register(validation=str(file), metric="accuracy,squad")
  examples = load(name, "validation")
  assert examples.target_texts() == ["the cat", "mat", "dog"]
  scores = scoring.metrics(examples, ["a cat", "mat", "cat"])
  assert scores["accuracy"] == pytest.approx(200 / 3)
  file.write_text(json.dumps({"a": "x", "b": "y", "label": []}))
  with pytest.raises(ValueError, match="'label' is .., no list of answers"):
    load(register(validation=str(file), metric="squad"), "validation")


@pytest.mark.parametrize(
  "labels",
  ['["yes, it is", "a=b"]', '{"yes, it is": "yes, it is", "a=b": "a=b"}'],
)
def test_labels_may_have_commas_and_equals_signs(tmp_path, labels):
  file = tmp_path / "dev.jsonl"
  rows = [{"a": "x", "b": "y", "label": one} for one in ("a=b", "yes, it is")]
  file.write_text("\n".join(map(json.dumps, rows)))
  name = register(validation=str(file), labels=labels, metric="macro_f1")
  assert declarations.declared(name).labels == ("yes, it is", "a=b")
  assert load(name, "validation").target_texts() == ["a=b", "yes, it is"]


@pytest.mark.parametrize("labels", ["[1, 2]", '["a"', '{"a"'])
def test_labels_in_json_that_is_none_are_refused(rows, labels):
  with pytest.raises(ValueError, match="must be a list of texts|in JSON"):
    register(train=rows["train"], labels=labels)


@pytest.mark.parametrize(
  "labels, message",
  [
    ('{"yes": null, "no": "n"}', "None is no text"),
    ('{"yes": ["a"], "no": "n"}', r"\['a'\] is no text"),
    ('{"yes": "a", "yes": "b"}', "'yes' stands twice"),
    ("{}", "it names nothing"),
    ("[]", "names nothing"),
    ('["yes", "yes"]', r"LABELS=\['yes=yes', 'yes=yes'\] has 'yes' twice"),
  ],
)
def test_labels_that_name_no_words_are_refused(labels, message, rows):
  with pytest.raises(ValueError, match=message):
    own_data.register(test=str(rows), template="{text}", labels=labels)
