"""Every notebook runs from start to end, with fewer steps and examples."""

import json

from matplotlib import pyplot
import places
import pytest
import small_microworld

NOTEBOOKS = sorted((places.ROOT / "notebooks").glob("*"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path, capsys):
  cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
  code = "\n".join(
    "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"
  )
  short = code.replace("STEPS = 300", "STEPS = 6")
  assert short != code
  with small_microworld.splits(small_microworld.SMALL):
    exec(compile(short, path.name, "exec"), {"__name__": "__main__"})
  # pyplot is what Jupyter shows.
  assert bool(pyplot.get_fignums()) == ("pyplot" in code)
  pyplot.close("all")
  assert "bit-identical: True" in capsys.readouterr().out


def test_there_is_a_quickstart():
  assert "quickstart.ipynb" in [path.name for path in NOTEBOOKS]
