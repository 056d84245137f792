"""Ships the results of studies: rows and figures, and the tables of the docs.

    python benchmarks/results.py [NAME …]   (after prompt-tuning study NAME …)

Copies runs/studies/NAME/results.jsonl and figure.png to docs/results/, and
writes the tables of docs/results.md between `<!-- NAME -->` and
`<!-- /NAME -->`. A study that has not run to its end keeps what stands there;
with --partial it may lack frozen models, and its tables say so.
"""

import argparse
import pathlib
import re

from prompt_tuning import storage
from prompt_tuning.frozen import pretrained
from prompt_tuning.study import report, results, studies

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def ship(
  name: str,
  runs: pathlib.Path,
  docs: pathlib.Path = DOCS,
  *,
  is_partial: bool = False,
) -> str:
  """Ships one study, and says so, or why not.

  Rows of one frozen model must be of the same weights, and those of the one
  that ships of the weights that ship.
  """
  rows = results.load(runs / name / "results.jsonl")
  if not rows:
    return "no rows"
  study = studies.STUDIES[name]
  have = {results.trial_of(row).model for row in rows}
  left = results.lacking(study, rows)
  if is_partial:
    left = [trial for trial in left if trial.model in have]
  if left:
    models = sorted({trial.model for trial in left} - have)
    go_on = f"prompt-tuning study {name}{' --pretrain' if models else ''}"
    return f"{len(left)} runs are left; go on with {go_on}"
  hashes = {(results.trial_of(row).model, row["model_hash"]) for row in rows}
  ours = (pretrained.SHIPPED, pretrained.load(pretrained.SHIPPED).stored_hash)
  if len(hashes) > len(have) or (ours[0] in have and ours not in hashes):
    return "some rows are of other weights; run the study again"
  storage.write_jsonl(docs / "results" / f"{name}.jsonl", rows)
  report.figure(study, rows, docs / "results" / f"{name}.png")
  page = docs / "results.md"
  block = (
    f"<!-- {name} -->\n\n{report.tables(study, rows)}\n\n"
    f"![{study.question}](results/{name}.png)\n\n<!-- /{name} -->"
  )
  text = page.read_text(encoding="utf-8")
  marks = rf"<!-- {name} -->.*?<!-- /{name} -->"
  text, count = re.subn(marks, lambda _: block, text, flags=re.DOTALL)
  if count != 1:
    raise ValueError(f"{page} has {count} places <!-- {name} --> …, needed 1.")
  storage.write_text(page, text)
  return "shipped"


def main() -> None:
  """Ships the studies that are named, or every one that has rows."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("names", nargs="*", metavar="NAME", help="a study")
  parser.add_argument("--runs", type=pathlib.Path, default="runs/studies")
  parser.add_argument(
    "--partial", action="store_true", help="although frozen models are lacking"
  )
  flags = parser.parse_args()
  if unknown := set(flags.names) - studies.STUDIES.keys():
    parser.error(f"no study {', '.join(unknown)}; see prompt-tuning study")
  for name in flags.names or studies.STUDIES:
    print(f"{name}: {ship(name, flags.runs, is_partial=flags.partial)}")


if __name__ == "__main__":
  main()
