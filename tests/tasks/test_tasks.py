"""The tasks of GLUE, SuperGLUE, SQuAD and MRQA against those of `t5`.

Rows are written in TFDS's layout and go the whole way: TFDS, cast, tokens,
postprocessing, metrics. `golden/t5_tasks.json` is what the `t5` package makes
of the same rows (see `golden/make_t5_tasks.py`).
"""

import importlib.util
import itertools
import json
import re

import hypothesis
from hypothesis import strategies as st
import numpy as np
import places
import pytest
import seqio
import tensorflow_datasets as tfds
import tfds_layout

from prompt_tuning import tasks
from prompt_tuning.data import registry, scoring, splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.tasks import answers, benchmark, casts, metrics
from prompt_tuning.tasks import features as task_features
from prompt_tuning.tasks.rows import sources
from prompt_tuning.vocabulary import EOS, Vocabulary

CASES = json.loads(
  (places.GOLDEN / "t5_tasks.json").read_text(encoding="utf-8")
)
LENGTHS = {"inputs": 2048, "targets": 128}

tasks.register_all()


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
  """An empty folder for TFDS, and no download folder in use."""
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  yield tmp_path
  sources.forget_folders()


def split_of(case: str) -> tuple[str, str]:
  """The task of a golden case, and the split that its rows stand for."""
  name, _, split = case.partition(":")
  splits = benchmark.registered[name].splits
  usual = "validation" if "validation" in splits else splits[-1]
  return name, split or ("train" if name == "dpr" else usual)


def prepare(folder, case: str) -> tuple[str, str]:
  """Writes the rows of a case; its task and split."""
  name, split = split_of(case)
  source = benchmark.registered[name].source
  rows = CASES[case]["rows"]
  tfds_layout.write(folder, source.name, {source.splits[split]: rows})
  return name, split


def load(name: str, split: str) -> splits.Examples:
  shipped = pretrained.shipped_vocabulary()
  return splits.load(name, split, LENGTHS, vocabulary=shipped)


def same(ours, theirs) -> bool:
  """Equal, where JSON has made lists of tuples and ours may say more."""
  if isinstance(theirs, dict):
    return all(same(ours[key], value) for key, value in theirs.items())
  if isinstance(theirs, list):
    return len(ours) == len(theirs) and all(map(same, ours, theirs))
  return ours == theirs


@pytest.mark.parametrize("case", CASES)
def test_a_task_is_that_of_t5_to_the_letter_and_the_score(case, data_dir):
  golden = CASES[case]
  texts = golden["examples"]
  name, split = prepare(data_dir, case)
  has_word = benchmark.registered[name].has_task_word
  t5_form = load(name + "_t5" if has_word else name, split)
  assert t5_form.input_texts() == [e["inputs"] for e in texts]
  encode = pretrained.shipped_vocabulary().encode
  assert ids(t5_form.inputs) == [[*encode(e["inputs"]), EOS] for e in texts]
  assert ids(t5_form.targets) == [[*encode(e["targets"]), EOS] for e in texts]
  assert t5_form.target_texts() == [e["targets"] for e in texts]
  if has_word:
    assert load(name, split).input_texts() == [
      re.sub("^[^ ]* ", "", e["inputs"], count=1) for e in texts
    ]
  if case == "super_glue_wsc:train":
    return  # T5 scores no training data

  targets = scoring.postprocess(t5_form, t5_form.target_texts(), is_target=True)
  answers = scoring.postprocess(t5_form, golden["predictions"], is_target=False)
  assert same(targets, golden["postprocessed_targets"])
  assert same(answers, golden["postprocessed"])
  if golden["metrics"]:
    scores = scoring.metrics(t5_form, golden["predictions"])
    known = (e["targets"] not in ("<unk>", "-1.0") for e in texts)
    counted = itertools.compress(answers, known)
    assert scores.pop("invalid") == sum(map(is_invalid, counted))
    assert scores == pytest.approx(golden["metrics"], rel=1e-12)


def is_invalid(answer) -> bool:
  if isinstance(answer, dict):
    return answer["value"] == -1 or answer.get("valid") is False
  return answer == "" or answers.is_invalid(answer)


def ids(rows: splits.Sequences) -> list[list[int]]:
  return [part.tolist() for part in np.split(rows.ids, rows.starts[1:-1])]


def test_registering_again_changes_nothing():
  before = {n: seqio.TaskRegistry.get(n) for n in benchmark.registered}
  importlib.reload(importlib.import_module("prompt_tuning.tasks.glue"))
  tasks.register_all()
  assert all(seqio.TaskRegistry.get(n) is task for n, task in before.items())


@pytest.mark.parametrize(
  "name, split",
  [
    ("glue_mrpc", "train"),
    ("glue_stsb", "validation"),
    ("super_glue_multirc", "validation"),
    ("super_glue_record", "test"),
    ("dpr", "train"),
    ("mrqa_drop", "test"),
    ("transfer_squad_to_race", "validation"),
  ],
)
def test_a_task_runs_on_the_mock_data_of_tfds(name, split):
  """Random letters in the fields' types. (WSC checks what its fields say.)"""
  with tfds.testing.mock_data(num_examples=2):
    examples = load(name, split)
  assert len(examples) >= 2
  scoring.metrics(examples, examples.target_texts())


def test_mixtures_have_the_authors_rates():
  rates = dict(registry.tasks_of("super_glue"))
  assert rates["super_glue_record"] == 138854 and len(rates) == 8
  assert dict(registry.tasks_of("glue"))["glue_mnli"] == 392702
  assert dict(registry.tasks_of("glue_t5"))["glue_rte_t5"] == 2490
  assert len(registry.tasks_of("mrqa")) == 6


def test_transfer_says_the_other_data_set_in_the_words_of_the_first(data_dir):
  rows = CASES["glue_mrpc"]["rows"]
  tfds_layout.write(data_dir, "glue/mrpc:2.0.0", {"validation": rows})
  own = load("glue_mrpc", "validation")
  transferred = load("transfer_qqp_to_mrpc", "test")
  assert transferred.input_texts() == own.input_texts()
  words = {"equivalent": "duplicate", "not_equivalent": "not_duplicate"}
  assert transferred.target_texts() == [
    words.get(word, "<unk>") for word in own.target_texts()
  ]
  right = scoring.metrics(transferred, transferred.target_texts())
  assert right == {"f1": 100.0, "accuracy": 100.0, "invalid": 0.0}


def test_hidden_answers_give_no_score(data_dir, caplog):
  rows = [dict(r, label=-1) for r in CASES["glue_cola"]["rows"]]
  tfds_layout.write(data_dir, "glue/cola:2.0.0", {"test": rows})
  examples = load("glue_cola", "test")
  assert scoring.metrics(examples, ["acceptable"] * len(rows)) == {}
  assert "answers are not public" in caplog.text


def test_a_task_takes_the_vocabulary_of_the_model_that_reads_it(data_dir):
  prepare(data_dir, "glue_rte")
  shipped = pretrained.shipped_vocabulary()
  letters = Vocabulary("bytes", extra_ids=0)
  for vocabulary in (shipped, letters, shipped):
    examples = splits.load(
      "glue_rte", "validation", LENGTHS, vocabulary=vocabulary
    )
    wanted = [vocabulary.encode(t) for t in examples.target_texts()]
    assert ids(examples.targets) == [[*one, 1] for one in wanted]


def test_without_a_model_the_vocabulary_is_the_one_of_the_environment(
  monkeypatch,
):
  shipped = pretrained.shipped_vocabulary()
  path = shipped.path
  monkeypatch.setenv("TASK_VOCABULARY", path)
  feature = seqio.TaskRegistry.get("glue_rte").output_features["inputs"]
  assert feature.vocabulary == seqio.SentencePieceVocabulary(path, 100)
  assert feature.vocabulary.vocab_size == shipped.num_pieces + 100
  assert task_features.current().extra_ids == 100


def test_the_average_of_a_benchmark_is_the_leaderboards():
  """T5-11B's rows on the two leaderboards (Raffel et al. 2020, table 14)."""
  super_glue = {
    "super_glue_boolq": {"accuracy": 91.2, "invalid": 3.0},
    "super_glue_cb": {"mean_3class_f1": 93.9, "accuracy": 96.8},
    "super_glue_copa": {"accuracy": 94.8},
    "super_glue_multirc": {"f1": 88.1, "exact_match": 63.3},
    "super_glue_record": {"em": 93.4, "f1": 94.1},
    "super_glue_rte": {"accuracy": 92.5},
    "super_glue_wic": {"accuracy": 76.9},
    "super_glue_wsc": {"accuracy": 93.8},
  }
  glue = {
    "glue_cola": {"matthews_corrcoef": 71.6},
    "glue_sst2": {"accuracy": 97.5},
    "glue_mrpc": {"f1": 92.8, "accuracy": 90.4},
    "glue_stsb": {"pearson_corrcoef": 93.1, "spearman_corrcoef": 92.8},
    "glue_qqp": {"f1": 75.1, "accuracy": 90.6},
    "glue_mnli_matched": {"accuracy": 92.2},
    "glue_mnli_mismatched": {"accuracy": 91.9},
    "glue_qnli": {"accuracy": 96.9},
    "glue_rte": {"accuracy": 92.8},
    "glue_wnli": {"accuracy": 94.5},
  }
  # The second is 89.25 exactly, which the leaderboard rounds up.
  assert benchmark.average(glue) == pytest.approx(90.3, abs=0.05)
  assert benchmark.average(super_glue) == pytest.approx(89.25, abs=1e-9)


def test_constant_predictions_of_a_score_count_nothing():
  targets = [1.0, 2.0, 3.0]
  assert metrics.pearson(targets, [2.0] * 3) == {"pearson_corrcoef": 0.0}
  assert metrics.spearman(targets, [2.0] * 3) == {"spearman_corrcoef": 0.0}


@pytest.mark.parametrize("text", ["nan", "inf", "-1e999", "three", ""])
def test_what_is_no_finite_number_is_invalid(text):
  assert answers.number(text) == answers.INVALID


def test_wsc_refuses_a_row_whose_index_misses_the_pronoun():
  row = dict(CASES["super_glue_wsc"]["rows"][0], span2_index=3)
  with pytest.raises(ValueError, match="idx 0 has 'many' at span2_index 3"):
    casts.wsc(row)


needs_t5 = pytest.mark.skipif(
  importlib.util.find_spec("t5") is None,
  reason="the t5 package is not installed (pip install t5==0.9.4 in an "
  "environment of its own); golden/t5_tasks.json stands in, made by it "
  "(test_a_task_is_that_of_t5_to_the_letter_and_the_score)",
)


@pytest.fixture(scope="module")
def make():
  """The script of the golden cases, as a module."""
  spec = importlib.util.spec_from_file_location(
    "make_t5_tasks", places.GOLDEN / "make_t5_tasks.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@needs_t5
def test_the_golden_cases_are_what_t5_makes_today(make):
  assert json.loads(json.dumps(make.made())) == CASES


@needs_t5
@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_t5(case, make, data_dir):
  shipped = pretrained.shipped_vocabulary()
  theirs = make.tokenised(
    make.cases()[case],
    seqio.SentencePieceVocabulary(shipped.path, shipped.extra_ids),
  )
  name, split = prepare(data_dir, case)
  has_word = benchmark.registered[name].has_task_word
  ours = load(name + "_t5" if has_word else name, split)
  assert ids(ours.inputs) == [row["inputs"].tolist() for row in theirs]
  assert ids(ours.targets) == [row["targets"].tolist() for row in theirs]


@needs_t5
@pytest.mark.parametrize("name", ["glue_stsb", "super_glue_wsc", "squad"])
@hypothesis.given(
  st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=2)
)
def test_postprocessing_and_scores_are_t5s_for_any_text(name, pairs):
  from t5.data import postprocessors
  from t5.evaluation import metrics as t5_metrics

  if name == "squad":
    wanted, given = [[a] for a, _ in pairs], [b for _, b in pairs]
    ours, theirs = metrics.squad(wanted, given), t5_metrics.squad(wanted, given)
    assert ours == pytest.approx(theirs)
  for target, text in pairs:
    example = {"targets_pretokenized": target.encode(), "label": 1}
    if name == "super_glue_wsc":
      ours = answers.wsc(text, example)
      assert ours == postprocessors.wsc_simple(text, example)
    elif name == "glue_stsb":
      theirs = postprocessors.string_to_float(text)  # which lets "nan" pass
      wanted = theirs if np.isfinite(theirs) else answers.INVALID
      assert answers.number(text) == wanted
