import argparse

import pytest

from prompt_tuning.cli import data_flags


def settings(command: str, *arguments: str):
  parser = argparse.ArgumentParser()
  parser.add_argument("--submission", action="store_true")
  data_flags.add(parser)
  flags = parser.parse_args(arguments)
  flags.command = command
  return data_flags.settings(flags)


def test_flags_are_settings_of_gin(tmp_path):
  assert settings("train") == ([], [])
  files, bindings = settings(
    *("train", "--data", "t.csv", "--template", "{a} {b}"),
    *("--test", "e.csv", "--skip_bad_rows"),
  )
  assert files == ["data/own_data.gin"]
  assert "TEMPLATE='{a} {b}'" in bindings
  assert {'TEST_SPLITS=("test",)', "SKIP_BAD_ROWS=True"} <= {*bindings}
  only_test = settings("eval", "--test", "e.csv", "--template", "{a}")
  assert "SPLIT='test'" in only_test[1]
  folder = settings("eval", "--data", str(tmp_path))
  assert folder == (["data/official.gin"], [f"DATA={str(tmp_path)!r}"])
  with pytest.raises(ValueError, match="needs a --template"):
    settings("train", "--data", "t.csv")
  rows = settings("infer", "--data", "t.csv", "--template", "{a}")
  assert rows == (["data/own_data.gin"], ["DATA='t.csv'", "TEMPLATE='{a}'"])
  with pytest.raises(ValueError, match="needs --data, the rows to train on"):
    settings("train", "--validation", "t.csv", "--template", "{a}")
  with pytest.raises(ValueError, match="is a folder, .* --metric cannot be"):
    settings("train", "--data", str(tmp_path), "--metric", "f1")


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--template", "{a}"], "needs --data, the rows to predict"),
    (["--data", "t.csv"], "needs a --template"),
    (
      ["--data", "t.csv", "--metric", "f1", "--target", "b"],
      "makes no use of --target, --metric. Leave that out; .* eval scores",
    ),
    (["--data", "."], "is a folder, and infer takes one with --submission"),
    (["--data", "t.csv", "--submission"], "is a file, and --submission takes"),
  ],
)
def test_what_infer_has_no_use_for_is_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    settings("infer", *arguments)
