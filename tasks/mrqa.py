"""MRQA 2019: six data sets to train on and six of other domains, cast as SQuAD.

Importing registers `mrqa_news_qa` and its like, and the mixture `mrqa` of the
data sets to train on. Those of other domains have only `test` (the shared
task's development data). Fisch et al. 2019.
"""

from prompt_tuning.tasks import squad
from prompt_tuning.tasks.benchmark import register
from prompt_tuning.tasks.rows import text_to_text
from prompt_tuning.tasks.rows.sources import Source

VERSION = "1.0.0"
IN_DOMAIN = {
  "squad": 86588,
  "news_qa": 74160,
  "trivia_qa": 61688,
  "search_qa": 117384,
  "hotpot_qa": 72928,
  "natural_questions": 104071,
}
"""The data sets to train on, with the rows of `train`."""
OUT_OF_DOMAIN = (
  "bio_asq",
  "drop",
  "duo_rc",
  "race",
  "relation_extraction",
  "textbook_qa",
)


def source(name: str) -> Source:
  """Where the rows of a data set come from."""
  usual = ("train", "validation") if name in IN_DOMAIN else ("test",)
  return Source(
    f"mrqa/{name}:{VERSION}",
    {split: split for split in usual},
    "context",
    IN_DOMAIN.get(name, 0),
  )


register(
  squad.task(f"mrqa_{name}", source(name))
  for name in (*IN_DOMAIN, *OUT_OF_DOMAIN)
)
text_to_text.add(
  text_to_text.Mixture(
    "mrqa", {f"mrqa_{name}": n for name, n in IN_DOMAIN.items()}
  )
)
