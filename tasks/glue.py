"""GLUE: `glue_cola`, `glue_mrpc` …, in T5's form `glue_cola_t5` …

Importing registers the tasks and the mixture `glue`. Wang et al. 2018; the
casts and the mixing rates are those of T5 (Raffel et al. 2020, appendix D).
"""

from prompt_tuning.tasks import answers, casts, metrics
from prompt_tuning.tasks.benchmark import Task, register, register_mixture
from prompt_tuning.tasks.rows import official
from prompt_tuning.tasks.rows.sources import Source

VERSION = "2.0.0"
LABELS = {
  "cola": ("unacceptable", "acceptable"),
  "sst2": ("negative", "positive"),
  "mrpc": ("not_equivalent", "equivalent"),
  "qqp": ("not_duplicate", "duplicate"),
  **{
    name: official.GLUE[name].labels
    for name in ("mnli", "mnli_matched", "mnli_mismatched", "ax", "qnli", "rte")
  },
  "wnli": ("not_entailment", "entailment"),
}
FIELDS = {name: tuple(files.fields) for name, files in official.GLUE.items()}
"""The fields of an example, in the order in which T5 reads them."""
SCORES = {
  "cola": (metrics.matthews,),
  "mrpc": (metrics.f1, metrics.accuracy),
  "qqp": (metrics.f1, metrics.accuracy),
  "ax": (),
}
TRAIN_ROWS = {
  "cola": 8551,
  "sst2": 67349,
  "mrpc": 3668,
  "qqp": 363849,
  "stsb": 5749,
  "mnli": 392702,
  "qnli": 104743,
  "rte": 2490,
  "wnli": 635,
}
"""Rows of `train`; all but WNLI's are also T5's mixing rates."""
_SPLITS = {
  "mnli": {
    "train": "train",
    "validation": "validation_matched",
    "validation_mismatched": "validation_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
  },
  "mnli_matched": {"validation": "validation", "test": "test"},
  "mnli_mismatched": {"validation": "validation", "test": "test"},
  "ax": {"test": "test"},
}
_USUAL = {name: name for name in ("train", "validation", "test")}


def source(name: str) -> Source:
  """Where the rows of a task come from."""
  return Source(
    f"glue/{name}:{VERSION}",
    _SPLITS.get(name, _USUAL),
    train_rows=TRAIN_ROWS.get(name, 0),
  )


def task(name: str) -> Task:
  """One of the tasks by its name in TFDS."""
  if name == "stsb":
    return Task(
      "glue_stsb",
      source(name),
      casts.stsb,
      answers.number,
      (metrics.pearson, metrics.spearman),
      benchmark="glue",
    )
  is_mnli = name == "ax" or name.startswith("mnli")
  labels, fields = LABELS[name], {field: field for field in FIELDS[name]}
  return Task(
    f"glue_{name}",
    source(name),
    casts.keyed("mnli" if is_mnli else name, fields, labels),
    answers.class_of(labels),
    SCORES.get(name, (metrics.accuracy,)),
    labels=labels,
    benchmark="glue",
    counts_as="glue_mnli" if name.startswith("mnli_") else "",
  )


register(task(name) for name in ("stsb", *LABELS))
register_mixture(
  "glue",
  {f"glue_{name}": n for name, n in TRAIN_ROWS.items() if name != "wnli"},
)
