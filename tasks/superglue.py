"""SuperGLUE: `super_glue_boolq`, `super_glue_cb` …, in T5's form with `_t5`.

Importing registers the tasks, definite pronoun resolution (`dpr`, which trains
WSC as well) and the mixture `super_glue`. Wang et al. 2019; the casts and rates
are those of T5 (Raffel et al. 2020, appendix D; WSC in section 2.4).
"""

from prompt_tuning.tasks import answers, casts, metrics
from prompt_tuning.tasks.benchmark import Task, register, register_mixture
from prompt_tuning.tasks.rows import official
from prompt_tuning.tasks.rows.sources import Source

VERSION = "1.0.2"
KEYED = ("boolq", "cb", "copa", "rte", "wic", "axb", "axg")
TRAIN_ROWS = {
  "boolq": 9427,
  "cb": 250,
  "copa": 400,
  "multirc": 27243,
  "record": 138854,
  "rte": 2490,
  "wic": 5428,
  "wsc": 259,
}
"""T5's mixing rates: rows of `train` (of WSC those with the right referent,
of ReCoRD one per answer)."""
DPR_ROWS = 1322
_KEYS = {"boolq": "passage", "multirc": "paragraph", "record": "passage"}
_TEST_ONLY = ("axb", "axg")


def source(name: str) -> Source:
  """Where the rows of a task come from."""
  usual = ("test",) if name in _TEST_ONLY else ("train", "validation", "test")
  config = "wsc.fixed" if name == "wsc" else name
  return Source(
    f"super_glue/{config}:{VERSION}",
    {split: split for split in usual},
    _KEYS.get(name),
    TRAIN_ROWS.get(name, 0),
  )


def keyed(name: str) -> Task:
  """A classification task of the plain form `word key: value key: value`."""
  form = official.SUPER_GLUE[name]
  word, fields = name, {text: text for text in form.texts}
  if name in _TEST_ONLY:
    word = "rte"
  if name == "axb":
    fields = {"hypothesis": "sentence2", "premise": "sentence1"}
  labels = ("choice1", "choice2") if name == "copa" else form.labels
  scores = [metrics.mean_f1(3)] if name == "cb" else []
  return Task(
    f"super_glue_{name}",
    source(name),
    casts.keyed(word, fields, labels),
    answers.class_of(labels),
    () if name in _TEST_ONLY else [*scores, metrics.accuracy],
    labels=labels,
    benchmark="super_glue",
  )


MULTIRC = Task(
  "super_glue_multirc",
  source("multirc"),
  casts.multirc,
  answers.multirc,
  (metrics.multirc_f1, metrics.multirc_exact_match),
  ("idx/paragraph", "idx/question", "idx/answer"),
  labels=("False", "True"),
  benchmark="super_glue",
)
RECORD = Task(
  "super_glue_record",
  source("record"),
  casts.record,
  answers.record,
  (metrics.record,),
  ("idx/passage", "idx/query", "answers", "entities"),
  benchmark="super_glue",
)
WSC = Task(
  "super_glue_wsc",
  source("wsc"),
  casts.wsc,
  answers.wsc,
  fields=("label", "idx"),
  split_casts={"train": casts.wsc_training},
  benchmark="super_glue",
)
DPR = Task(
  "dpr",
  Source(
    "definite_pronoun_resolution:1.1.0",
    {"train": "train", "test": "test"},
    train_rows=DPR_ROWS,
  ),
  casts.pronoun,
  answers.text,
  fields=(),
)

register([*map(keyed, KEYED), MULTIRC, RECORD, WSC, DPR])
register_mixture(
  "super_glue",
  {f"super_glue_{name}": n for name, n in TRAIN_ROWS.items()},
)
register_mixture("wsc_and_dpr", {"super_glue_wsc": 259, "dpr": DPR_ROWS})
