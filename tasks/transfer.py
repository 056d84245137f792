"""Transfer to another data set: train on one, test on the other.

`transfer_qqp_to_mrpc`, `transfer_mrpc_to_qqp` and `transfer_squad_to_bio_asq`
and its like: `train` and `validation` are those of the first data set, `test`
is what is scored of the second. The labels of the second are said in the words
of the first (duplicate is equivalent). Lester et al. 2021, section 5.
"""

import dataclasses

from prompt_tuning.tasks import casts, glue, mrqa, squad
from prompt_tuning.tasks.benchmark import Task, register
from prompt_tuning.tasks.rows.sources import Source


def paraphrase(first: str, second: str) -> Task:
  """From one of QQP and MRPC to the other, tested on its validation split."""
  base = glue.task(first)
  fields = {name: name for name in glue.FIELDS[second]}
  return dataclasses.replace(
    base,
    name=f"transfer_{first}_to_{second}",
    source=_without_test(base.source),
    split_casts={"test": casts.keyed(second, fields, glue.LABELS[first])},
    split_sources={"test": (glue.source(second), "validation")},
    benchmark="",
  )


def answering(second: str) -> Task:
  """From SQuAD to a data set of another domain."""
  return squad.task(
    f"transfer_squad_to_{second}",
    squad.SOURCE,
    split_sources={"test": (mrqa.source(second), "test")},
  )


def _without_test(source: Source) -> Source:
  kept = {k: v for k, v in source.splits.items() if k != "test"}
  return dataclasses.replace(source, splits=kept)


register([paraphrase("qqp", "mrpc"), paraphrase("mrpc", "qqp")])
register(map(answering, mrqa.OUT_OF_DOMAIN))
