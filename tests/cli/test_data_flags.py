import argparse

import pytest

from prompt_tuning.cli import command_line, data_flags


def settings(command: str, *arguments: str):
  parser = argparse.ArgumentParser()
  parser.add_argument("--submission", action="store_true")
  data_flags.add(parser, command)
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


def help_of(command: str, capsys) -> str:
  """What `--help` says of the flags of one's own data, as one line."""
  with pytest.raises(SystemExit):
    command_line.main([command, "--help"])
  text = capsys.readouterr().out.partition("your own data:")[2]
  return " ".join(text.partition("example")[0].split())


def test_help_says_what_a_flag_means_under_its_command(capsys):
  said = {
    command: help_of(command, capsys)
    for command in ("train", "eval", "infer", "ensemble")
  }
  assert "the rows to train on" in said["train"]
  assert "the rows to choose the best prompt by" in said["train"]
  assert "the rows to score at the end" in said["train"]
  for command in ("eval", "infer", "ensemble"):
    assert "to train on" not in said[command]
    assert "to choose the best" not in said[command]
    assert "at the end" not in said[command]
  assert "--gin.SPLIT=test" in said["eval"]
  assert "--split test" in said["ensemble"]
  assert "the rows to predict" in said["infer"]
  for flag in ("--validation", "--test", "--target", "--metric", "--name"):
    assert flag not in said["infer"] and flag in said["eval"]
