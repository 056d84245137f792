"""Download folders of GLUE and SuperGLUE as they are unzipped, made here."""

import json

import pytest
from tensorflow_datasets.core.download import downloader
import tfds_layout

from prompt_tuning import tasks
from prompt_tuning.data import splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.tasks import benchmark, own_data
from prompt_tuning.tasks.rows import official, sources

LENGTHS = {"inputs": 512, "targets": 64}

tasks.register_all()


pytestmark = pytest.mark.usefixtures("data_dir")


def write(folder, files: dict[str, str]):
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
  return folder


def jsonl(*rows: dict) -> str:
  return "".join(json.dumps(row) + "\n" for row in rows)


GLUE = {
  "CoLA/train.tsv": 'gj04\t1\t\tHe said "no.\ngj04\t0\t*\tHim say.\n',
  "CoLA/test.tsv": "index\tsentence\n0\tShe left.\n",
  "SST-2/dev.tsv": "sentence\tlabel\na fine film \t1\ndull\t0\n",
  "MRPC/train.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
  '1\t7\t8\tHe said "yes\tHe said yes\n',
  "QQP/dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
  "1\t2\t3\tWhy?\tWhy so?\t0\n4\t5\t6\tbreaks off\n",
  "STS-B/dev.tsv": "index\tgenre\tsentence1\tsentence2\tscore\n"
  "0\tx\tA man.\tA person.\t3.75\tmore\n",
  "MNLI/dev_mismatched.tsv": "index\tsentence1\tsentence2\tgold_label\n"
  "0\tIt rains.\tIt is wet.\tneutral\n",
  "MNLI/diagnostic.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n",
  "QNLI/test.tsv": "index\tquestion\tsentence\n0\tWho?\tBob.\n",
  "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n"
  "0\tA.\tB.\tnot_entailment\n",
  "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1\n",
}
GLUE_TEXTS = {
  ("glue_cola", "train"): [
    ('sentence: He said "no.', "acceptable"),
    ("sentence: Him say.", "unacceptable"),
  ],
  ("glue_cola", "test"): [("sentence: She left.", "<unk>")],
  ("glue_sst2", "validation"): [
    ("sentence: a fine film ", "positive"),
    ("sentence: dull", "negative"),
  ],
  ("glue_mrpc", "train"): [
    ('sentence1: He said "yes sentence2: He said yes', "equivalent")
  ],
  ("glue_qqp", "validation"): [
    ("question1: Why? question2: Why so?", "not_duplicate")
  ],
  ("glue_stsb", "validation"): [
    ("sentence1: A man. sentence2: A person.", "3.8")
  ],
  ("glue_mnli", "validation_mismatched"): [
    ("hypothesis: It is wet. premise: It rains.", "neutral")
  ],
  ("glue_mnli_mismatched", "validation"): [
    ("hypothesis: It is wet. premise: It rains.", "neutral")
  ],
  ("glue_ax", "test"): [("hypothesis: B. premise: A.", "<unk>")],
  ("glue_qnli", "test"): [("question: Who? sentence: Bob.", "<unk>")],
  ("glue_rte", "train"): [("sentence1: A. sentence2: B.", "not_entailment")],
  ("glue_wnli", "train"): [("sentence1: A. sentence2: B.", "entailment")],
}
SUPER_GLUE = {
  "BoolQ/val.jsonl": jsonl(
    {"question": "is it", "passage": "It is.", "idx": 5, "label": True}
  ),
  "CB/train.jsonl": jsonl(
    {"premise": "A", "hypothesis": "B", "idx": 0, "label": "neutral"}
  ),
  "COPA/val.jsonl": jsonl(
    {
      "premise": "It fell.",
      "choice1": "I ran.",
      "choice2": "I hid.",
      "question": "effect",
      "label": 1,
      "idx": 0,
    }
  ),
  "MultiRC/test.jsonl": jsonl(
    {
      "idx": 3,
      "passage": {
        "text": "<b>Sent 1: </b>Bob left.<br>",
        "questions": [
          {
            "question": "Who?",
            "idx": 9,
            "answers": [{"text": "Bob", "idx": 30}, {"text": "Al", "idx": 31}],
          }
        ],
      },
    }
  ),
  "ReCoRD/val.jsonl": jsonl(
    {
      "idx": 2,
      "passage": {
        "text": "Bob met Al\n@highlight\nAl left",
        "entities": [
          {"start": 8, "end": 9},
          {"start": 0, "end": 2},
          {"start": 22, "end": 23},
        ],
      },
      "qas": [
        {
          "query": "@placeholder left",
          "answers": [{"start": 8, "end": 9, "text": "Al"}],
          "idx": 4,
        }
      ],
    }
  ),
  "RTE/val.jsonl": jsonl(
    {"premise": "A", "hypothesis": "B", "label": "entailment", "idx": 0}
  ),
  "WiC/train.jsonl": jsonl(
    {
      "word": "bank",
      "sentence1": "A bank.",
      "sentence2": "Banks.",
      "idx": 0,
      "label": False,
      "start1": 2,
    }
  ),
  "WSC/train.jsonl": jsonl(
    {
      "text": "Bob said he left .",
      "target": {
        "span1_text": "bob",
        "span1_index": 0,
        "span2_text": "He",
        "span2_index": 2,
      },
      "idx": 0,
      "label": True,
    },
    {
      "text": "Bob said he left .",
      "target": {
        "span1_text": "Al",
        "span1_index": 0,
        "span2_text": "he",
        "span2_index": 2,
      },
      "idx": 1,
      "label": False,
    },
  ),
  "AX-b/AX-b.jsonl": jsonl(
    {
      "sentence1": "A",
      "sentence2": "B",
      "idx": 0,
      "label": "not_entailment",
      "logic": "x",
    }
  ),
}
SUPER_GLUE_TEXTS = {
  ("super_glue_boolq", "validation"): [
    ("passage: It is. question: is it", "True")
  ],
  ("super_glue_cb", "train"): [("hypothesis: B premise: A", "neutral")],
  ("super_glue_copa", "validation"): [
    (
      "choice1: I ran. choice2: I hid. premise: It fell. question: effect",
      "choice2",
    )
  ],
  ("super_glue_multirc", "test"): [
    ("question: Who? answer: Bob paragraph: Sent 1: Bob left. ", "<unk>"),
    ("question: Who? answer: Al paragraph: Sent 1: Bob left. ", "<unk>"),
  ],
  ("super_glue_record", "validation"): [
    (
      "query: @placeholder left entities: Al, Bob passage: Bob met Al. Al left",
      "Al",
    )
  ],
  ("super_glue_rte", "validation"): [
    ("hypothesis: B premise: A", "entailment")
  ],
  ("super_glue_wic", "train"): [
    ("sentence1: A bank. sentence2: Banks. word: bank", "False")
  ],
  # The spans are mended as TFDS does, and training keeps the right referent.
  ("super_glue_wsc", "train"): [("Bob said *he* left .", "Bob")],
  ("super_glue_axb", "test"): [("hypothesis: B premise: A", "not_entailment")],
}


def texts(name, split):
  examples = splits.load(
    name, split, LENGTHS, vocabulary=pretrained.shipped_vocabulary()
  )
  return list(zip(examples.input_texts(), examples.target_texts(), strict=True))


@pytest.mark.parametrize(
  "files, wanted",
  [(GLUE, GLUE_TEXTS), (SUPER_GLUE, SUPER_GLUE_TEXTS)],
  ids=["glue", "super_glue"],
)
def test_the_tasks_read_the_unzipped_download(files, wanted, tmp_path):
  found = sources.use_folder(write(tmp_path / "download", files))
  assert {name for name, _ in wanted} <= set(found)
  for (name, split), examples in wanted.items():
    assert texts(name, split) == examples, name


def test_tfds_and_the_download_hold_out_the_same_rows(tmp_path, data_dir):
  rows = [
    {"sentence": f"Sentence {i} of many.", "label": i % 2, "idx": i}
    for i in range(200)
  ]
  lines = [f"x\t{row['label']}\t\t{row['sentence']}\n" for row in rows]
  folder = write(tmp_path / "GLUE", {"CoLA/train.tsv": "".join(lines)})
  tfds_layout.write(data_dir, "glue/cola:2.0.0", {"train": rows})
  source = benchmark.registered["glue_cola"].source

  def carved():
    return {
      split: {row["sentence"] for row in source.rows(split)}
      for split in ("train", "train_part", "held_out")
    }

  from_tfds = carved()
  sources.use_folder(folder)
  assert carved() == from_tfds
  assert not from_tfds["train_part"] & from_tfds["held_out"]
  assert from_tfds["train_part"] | from_tfds["held_out"] == from_tfds["train"]
  assert 8 <= len(from_tfds["held_out"]) <= 35


def test_one_passage_is_not_split_between_held_out_and_the_rest():
  source = benchmark.registered["super_glue_multirc"].source
  row = {"paragraph": "P", "question": "one", "answer": "a"}
  other = {"paragraph": "P", "question": "two", "answer": "b"}
  assert source._draw(row) == source._draw(other)


def test_a_bad_row_of_a_download_is_named(tmp_path):
  folder = write(tmp_path, {"WSC/val.jsonl": '{"text": "a", "idx": 0}\n'})
  with pytest.raises(ValueError, match="val.jsonl, line 1: the field 'target'"):
    official.read(folder, "super_glue", "wsc.fixed", "validation")
  write(tmp_path, {"SST-2/dev.tsv": "sentence\tlabel\nfine\tyes\n"})
  with pytest.raises(ValueError, match="line 2: the field 'label' is 'yes'"):
    official.read(folder, "glue", "sst2", "validation")


def test_a_folder_says_which_task_it_is(tmp_path):
  folder = write(tmp_path / "SuperGLUE", SUPER_GLUE)
  task = own_data.official_task
  assert task(folder / "BoolQ") == "super_glue_boolq"
  mnli = {name: text for name, text in GLUE.items() if name[:4] == "MNLI"}
  assert task(write(tmp_path / "GLUE", mnli) / "MNLI") == "glue_mnli"
  assert task(folder, "super_glue_wic_t5") == "super_glue_wic_t5"
  assert task(folder, "super_glue") == "super_glue"
  with pytest.raises(ValueError, match="Choose one of them with --gin.OFFIC"):
    task(folder)
  with pytest.raises(ValueError, match="'glue_cola' is not in"):
    task(folder, "glue_cola")
  with pytest.raises(ValueError, match="no download folder of GLUE or Super"):
    task(tmp_path)


@pytest.mark.parametrize(
  "task, row, message",
  [
    (
      "multirc",
      {"passage": {"text": "a", "questions": [{"idx": 0}]}},
      "the field 'answers' is null, no list",
    ),
    ("record", {"passage": {"text": "a", "entities": [{}]}}, "'start' is null"),
    (
      "record",
      {"passage": {"text": "a", "entities": []}, "qas": ["no"]},
      "'query' is null",
    ),
  ],
)
def test_a_bad_part_of_a_row_is_named(task, row, message, tmp_path):
  name = official.SUPER_GLUE[task].folder
  folder = write(tmp_path, {f"{name}/val.jsonl": jsonl({"idx": 0, **row})})
  with pytest.raises(ValueError, match=f"val.jsonl, line 1: .*{message}"):
    official.read(folder, "super_glue", task, "validation")


def test_a_label_of_multirc_may_be_missing_but_not_wrong(tmp_path):
  def labels(*values):
    answers = [
      {"text": "a", "idx": i, **({} if value == "none" else {"label": value})}
      for i, value in enumerate(values)
    ]
    questions = [{"question": "q", "idx": 0, "answers": answers}]
    row = {"idx": 0, "passage": {"text": "p", "questions": questions}}
    folder = write(tmp_path, {"MultiRC/val.jsonl": jsonl(row)})
    rows = official.read(folder, "super_glue", "multirc", "validation")
    return [row["label"] for row in rows]

  assert labels(1, 0, None, "none") == [1, 0, -1, -1]
  with pytest.raises(ValueError, match="val.jsonl, line 1: .* is 'yes', none"):
    labels("yes")


def test_the_idx_of_a_row_counts_those_that_are_left_out(tmp_path):
  """As in TFDS."""
  names = "id\tquestion1\tquestion2\tis_duplicate\n"
  content = f"{names}1\tA?\tB?\t1\n2\tbreaks off\n3\tC?\tD?\t0\n"
  folder = write(tmp_path, {"QQP/train.tsv": content})
  rows = official.read(folder, "glue", "qqp", "train")
  assert [(row["idx"], row["label"]) for row in rows] == [(0, 1), (2, 0)]


@pytest.mark.parametrize(
  "file, inside",
  [
    ("MNLI/diagnostic.tsv", "MNLI"),
    ("diagnostic/diagnostic.tsv", "diagnostic"),
    ("AX.tsv", "."),
  ],
)
def test_the_diagnostic_set_is_found_where_downloads_have_it(
  file, inside, tmp_path, monkeypatch
):
  content = "index\tsentence1\tsentence2\n0\tA.\tB.\n"
  folder = write(tmp_path / "GLUE", {file: content})
  assert sources.use_folder(folder)[-1] == "glue_ax"
  assert texts("glue_ax", "test") == [("hypothesis: B. premise: A.", "<unk>")]
  monkeypatch.chdir(folder / inside)
  assert "glue_ax" in sources.use_folder(".")


def test_a_missing_file_says_what_is_there(tmp_path):
  sources.use_folder(write(tmp_path, {"CB/train.jsonl": "{}\n"}))
  with pytest.raises(FileNotFoundError, match=r"val.jsonl.*\['train.jsonl'\]"):
    splits.load("super_glue_cb", "validation", LENGTHS)


def test_without_a_network_the_message_says_what_to_fetch_and_where_to_put_it(
  data_dir, monkeypatch
):
  for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
  monkeypatch.setattr(downloader, "MAX_RETRIES", 0)  # else it takes minutes
  with pytest.raises(ValueError) as caught:
    splits.load("super_glue_cb", "train", LENGTHS)
  message = str(caught.value)
  place = data_dir / "super_glue" / "cb" / "1.0.2"
  assert f"super_glue/cb:1.0.2 is not in {place}" in message
  assert "tfds.builder('super_glue/cb:1.0.2').download_and_prepare()" in message
  assert f"~/tensorflow_datasets/super_glue/cb/1.0.2 to {place}" in message
  assert "--data" in message
