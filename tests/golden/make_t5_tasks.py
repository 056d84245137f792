"""Golden cases of every task, made by the `t5` package (0.9.4).

    python tests/golden/make_t5_tasks.py

Rows with the fields of TFDS go through T5's own casts, postprocessing and
metrics; `t5_tasks.json` beside this file keeps what comes out. (Tokens are
compared while `t5` runs: they depend on the vocabulary.) `t5` needs old
versions of much else, so it is no requirement of the project: install it
without its requirements into an environment of its own.
"""

import json
import math
import pathlib
import string
import sys

HERE = pathlib.Path(__file__).parent

TEXTS = (
  "The cat sat on the mat.",
  "",
  "Zoë’s “naïve” café – 日本語 🙂",
  'He said: "No!"\nIt\'s a\ttab, and a line.',
  "  two  spaces , and a space behind ",
  "sentence2: a key in the text premise: and another",
  "<b>bold</b><br>and </br> 5 < 6 & 7 > 3",
)
PLAIN = {  # our name: T5's name, text fields, number of labels
  "glue_cola": ("glue_cola_v002", ("sentence",), 2),
  "glue_sst2": ("glue_sst2_v002", ("sentence",), 2),
  "glue_mrpc": ("glue_mrpc_v002", ("sentence1", "sentence2"), 2),
  "glue_qqp": ("glue_qqp_v002", ("question1", "question2"), 2),
  "glue_mnli": ("glue_mnli_v002", ("premise", "hypothesis"), 3),
  "glue_mnli_matched": (
    "glue_mnli_matched_v002",
    ("premise", "hypothesis"),
    3,
  ),
  "glue_mnli_mismatched": (
    "glue_mnli_mismatched_v002",
    ("premise", "hypothesis"),
    3,
  ),
  "glue_ax": ("glue_ax_v002", ("premise", "hypothesis"), 3),
  "glue_qnli": ("glue_qnli_v002", ("question", "sentence"), 2),
  "glue_rte": ("glue_rte_v002", ("sentence1", "sentence2"), 2),
  "glue_wnli": ("glue_wnli_v002", ("sentence1", "sentence2"), 2),
  "super_glue_boolq": ("super_glue_boolq_v102", ("question", "passage"), 2),
  "super_glue_cb": ("super_glue_cb_v102", ("premise", "hypothesis"), 3),
  "super_glue_copa": (
    "super_glue_copa_v102",
    ("premise", "choice1", "choice2", "question"),
    2,
  ),
  "super_glue_rte": ("super_glue_rte_v102", ("premise", "hypothesis"), 2),
  "super_glue_wic": (
    "super_glue_wic_v102",
    ("word", "sentence1", "sentence2"),
    2,
  ),
  "super_glue_axb": ("super_glue_axb_v102", ("sentence1", "sentence2"), 2),
  "super_glue_axg": ("super_glue_axg_v102", ("premise", "hypothesis"), 2),
}
WIC_SPANS = ("start1", "start2", "end1", "end2")


def plain_rows(fields, labels) -> list[dict]:
  """Every text in every field, every label, and one that is hidden."""
  return [
    {
      **{f: TEXTS[(i + 2 * j) % len(TEXTS)] for j, f in enumerate(fields)},
      **({s: i for s in WIC_SPANS} if "word" in fields else {}),
      "label": -1 if i == 4 else i % labels,
      "idx": 3 * i,
    }
    for i in range(len(TEXTS))
  ]


def stsb_rows() -> list[dict]:
  """Scores between the fifths, on their borders, and a hidden one."""
  scores = (0.0, 5.0, 3.799, 2.5, 0.1, 0.3, 4.7, 1.25, 2.667, 4.9, -1.0)
  return [
    {
      "sentence1": TEXTS[i % len(TEXTS)],
      "sentence2": TEXTS[(i + 3) % len(TEXTS)],
      "label": score,
      "idx": i,
    }
    for i, score in enumerate(scores)
  ]


def multirc_rows() -> list[dict]:
  """Three questions with several answers each, with HTML around them."""
  paragraphs = (
    "<b>Sent 1: </b>It rained.<br><b>Sent 2: </b>Zoë left.<br>",
    'No <br>markup</b> "closed"  here.\n',
  )
  return [
    {
      "paragraph": paragraphs[question % 2],
      "question": f"Who left{'?' * question}",
      "answer": TEXTS[(question + answer) % len(TEXTS)],
      "label": (question + answer) % 2 if question < 3 else -1,
      "idx": {"paragraph": question % 2, "question": question, "answer": i},
    }
    for question in range(4)
    for i, answer in enumerate(range(2 + question % 2))
  ]


def record_rows() -> list[dict]:
  """Highlights behind every kind of mark; several answers, one, and none."""
  passage = (
    'It rained.\n@highlight\nZoë left\n@highlight\nWhy?\n@highlight\n"No"'
    "\n@highlight\n'Yes'\n@highlight\nGo!\n@highlight\nEnd,\n@highlight\nlast\n"
    "@highlight\n@highlight\ntwice"
  )
  return [
    {
      "passage": passage if i else passage.replace("\n", " "),
      "query": f"{TEXTS[i]} @placeholder left",
      "entities": ["Ann, the first", "Zoë", "the cat", "O'Neil"][: 4 - i % 3],
      "answers": [["Zoë"], ["Ann, the first", "the cat"], [], ["O'Neil"]][i],
      "idx": {"passage": i // 2, "query": i},
    }
    for i in range(4)
  ]


WSC_TEXTS = (
  ("Mark told Pete many lies , which he believed .", "he", 7, "Pete"),
  ("Ann gave Zoë her book.", "her", 3, "Ann"),
  ("The cat  and it", "it", 4, "The cat"),
  ("We marked X with an X because it fit .", "it", 7, "the X mark"),
  ("Bob's hat fell when he ran", "he", 4, "Bob's hat"),
  (
    "The boy continued to whip the pony , and eventually the pony threw him "
    'over. John laughed out quite loud. "Good for him," he said. ',
    "him",
    21,
    "the pony",
  ),
  (
    "When they had eventually calmed down a bit , and had gotten home, Mr. "
    "Farley put the magic pebble in an iron safe . Some day they might want to "
    "use it , but really for now, what more could they wish for?",
    "it",
    28,
    "the magic pebble",
  ),
)


def wsc_rows() -> list[dict]:
  """Both labels and a hidden one; an X in the text; the two exceptions."""
  return [
    {
      "text": text,
      "span1_text": referent,
      "span1_index": 0,
      "span2_text": pronoun,
      "span2_index": index,
      "label": (1, 0, 1, 1, 0, 1, 0)[i],
      "idx": i,
    }
    for i, (text, pronoun, index, referent) in enumerate(WSC_TEXTS)
  ]


WSC_PREDICTIONS = (
  "pete",
  "Ann's",
  "  THE cat ",
  "mark",
  "Bob",
  "",
  "a magic pebble's",
)


def dpr_rows() -> list[dict]:
  """The pronoun before a space, a comma, a full stop; twice; at the start."""
  sentences = (
    ("Bob asked Tom if he can lend money, as he needs it.", "he"),
    ("Zoë saw the cat, and Ann heard it, too.", "it"),
    ("Ann's mother is proud of her.", "her"),
    ("They left because they lost", "they"),
    ("he saw that hehe went", "he"),
  )
  return [
    {
      "sentence": sentence,
      "pronoun": pronoun,
      "candidates": ["Bob", "the cat's owner"],
      "label": i % 2,
    }
    for i, (sentence, pronoun) in enumerate(sentences)
  ]


def squad_rows() -> list[dict]:
  """Punctuation of every kind, odd white space, several answers."""
  answers = (
    ["the U.S.", "U.S", "United States"],
    ["$1,234.50 (ca.)"],
    ["Zoë’s “naïve” café"],
    ["a – the"],
    ["  An  answer\n"],
    ["the"],
  )
  return [
    {
      "id": f"id-{i}",
      "title": "t",
      "question": TEXTS[i],
      "context": f"{TEXTS[i + 1]} a\u00a0b\x0bc {string.punctuation}",
      "answers": {"text": texts, "answer_start": [0] * len(texts)},
    }
    for i, texts in enumerate(answers)
  ]


SQUAD_PREDICTIONS = (
  "The United   States!",
  "1234.50 ca",
  "naïve café",
  "a – an",
  "",
  "the",
)
STSB_PREDICTIONS = (
  *("0.2", "5.0", "3.8", "four", "-1.0", "1e0"),
  *("", "2", " 2.6 ", "4.8", "<unk>"),
)


def cases() -> dict[str, dict]:
  """For each of our tasks: T5's task, the split, rows and predictions."""
  found = {
    name: {"t5": t5_name, "rows": plain_rows(fields, labels)}
    for name, (t5_name, fields, labels) in PLAIN.items()
  }
  found["glue_stsb"] = {
    "t5": "glue_stsb_v002",
    "rows": stsb_rows(),
    "predictions": STSB_PREDICTIONS,
  }
  found["super_glue_multirc"] = {
    "t5": "super_glue_multirc_v102",
    "rows": multirc_rows(),
    "predictions": (
      *("False", "True", "True", "false", "True"),
      *("True", "True", "True", "False", "False"),
    ),
  }
  found["super_glue_record"] = {
    "t5": "super_glue_record_v102",
    "rows": record_rows(),
    "predictions": ("zoë", "the first Ann", "the cat", "Zoë", "O Neil"),
  }
  found["super_glue_wsc"] = {
    "t5": "super_glue_wsc_v102_simple_eval",
    "rows": wsc_rows(),
    "predictions": WSC_PREDICTIONS,
  }
  found["super_glue_wsc:train"] = {
    "t5": "super_glue_wsc_v102_simple_train",
    "rows": wsc_rows(),
  }
  found["dpr"] = {"t5": "dpr_v001_simple", "rows": dpr_rows()}
  for name in ("squad", "mrqa_news_qa", "mrqa_drop"):
    found[name] = {
      "t5": "squad_v010_allanswers",
      "rows": squad_rows(),
      "predictions": SQUAD_PREDICTIONS,
    }
  return found


def signature(rows):
  """The TensorFlow types that TFDS gives to a field."""
  import tensorflow as tf

  def spec(name, value):
    if isinstance(value, dict):
      return {k: spec(k, v) for k, v in value.items()}
    if isinstance(value, list):
      kind = tf.int32 if name == "answer_start" else tf.string
      return tf.TensorSpec([None], kind)
    if isinstance(value, str):
      return tf.TensorSpec([], tf.string)
    if isinstance(value, float):
      return tf.TensorSpec([], tf.float32)
    return tf.TensorSpec([], tf.int64 if name == "label" else tf.int32)

  return spec("", rows[0])


def tokenised(case: dict, vocabulary) -> list[dict]:
  """The examples of T5 for a case, with tokens of a seqio vocabulary."""
  import seqio
  import t5.data.tasks  # noqa: F401 (registers T5's tasks)
  import tensorflow as tf

  task = seqio.TaskRegistry.get(case["t5"])
  features = {
    name: seqio.Feature(vocabulary, add_eos=True)
    for name in ("inputs", "targets")
  }
  rows = case["rows"]
  dataset = tf.data.Dataset.from_generator(
    lambda: iter(rows), output_signature=signature(rows)
  )
  for cast in task.preprocessors[:-3]:
    dataset = cast(dataset)
  dataset = seqio.preprocessors.tokenize(dataset, features)
  dataset = seqio.preprocessors.append_eos_after_trim(
    dataset, sequence_length=None, output_features=features
  )
  return list(dataset.as_numpy_iterator())


def through_t5(case: dict) -> dict:
  """What T5 makes of rows, and of predictions of their targets.

  Without predictions every example gets one that is right, another label, or
  no label.
  """
  import seqio

  examples = tokenised(case, seqio.ByteVocabulary())
  task = seqio.TaskRegistry.get(case["t5"])
  predictions = case.get("predictions")
  texts = [text(row["targets_pretokenized"]) for row in examples]
  if predictions is None:
    words = sorted(set(texts))
    predictions = [
      (word, words[i % len(words)], word.upper(), word)[i % 4]
      for i, word in enumerate(texts)
    ]

  def post(given, is_target):
    return [
      task.postprocess_fn(one, example=row, is_target=is_target)
      for one, row in zip(given, examples, strict=True)
    ]

  metrics = {}
  targets, answers = post(texts, True), post(predictions, False)
  for metric in task.predict_metric_fns:
    metrics.update(metric(*labelled(texts, targets, answers)))
  return {
    "examples": [
      {
        "inputs": text(row["inputs_pretokenized"]),
        "targets": text(row["targets_pretokenized"]),
      }
      for row in examples
    ],
    "predictions": list(predictions),
    "postprocessed_targets": plain(targets),
    "postprocessed": plain(answers),
    "metrics": {k: plain(v) for k, v in metrics.items()},
  }


def labelled(texts, targets, answers) -> tuple[list, list]:
  """Targets and answers of the rows whose label is not hidden."""
  known = [one not in ("<unk>", "-1.0") for one in texts]
  return tuple(
    [value for value, keep in zip(values, known, strict=True) if keep]
    for values in (targets, answers)
  )


def text(value) -> str:
  return value.decode("utf-8")


def plain(value):
  """Numbers of NumPy as those of Python; nan as None."""
  if isinstance(value, dict):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  if hasattr(value, "item"):
    value = value.item()
  return None if isinstance(value, float) and math.isnan(value) else value


def made() -> dict:
  """The whole file."""
  return {name: {**case, **through_t5(case)} for name, case in cases().items()}


if __name__ == "__main__":
  target = HERE / "t5_tasks.json"
  lines = [
    f"{json.dumps(name)}: {json.dumps(case, ensure_ascii=False)}"
    for name, case in made().items()
  ]
  target.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
  print(f"{target.name}: {target.stat().st_size} bytes", file=sys.stderr)
