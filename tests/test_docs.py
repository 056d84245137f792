"""Every command of the README, of docs/ and of the help parses and is whole."""

import json
import re
import shlex

import gin
import places
import pytest

from prompt_tuning import configuration
from prompt_tuning.cli import command_line, data_flags

PAGES = [
  places.ROOT / "README.md",
  *sorted((places.ROOT / "docs").glob("*.md")),
]
EITHER = {"INPUT_FILE", "MIXTURE_OR_TASK_NAME"}
"""`infer` needs one of them: lines of a file, or a task for --submission."""


pytestmark = pytest.mark.usefixtures("clean_gin")


def commands(text: str):
  """The command lines of `prompt-tuning` that have no hole in them."""
  for line in text.replace("\\\n", " ").splitlines():
    found = re.match(r"\s*prompt-tuning [a-z].*", line)
    if found and not re.search(r"…|\||\[-", line):
      yield shlex.split(found[0], comments=True)[1:]


def services(text: str):
  """The command lines of a systemd unit and of a Dockerfile."""
  for block in re.findall(r"```ini\n(.*?)```", text, re.S):
    yield from commands(re.sub(r"(?m)^ExecStart=\S*/", "", block))
  for block in re.findall(r"```dockerfile\n(.*?)```", text, re.S):
    parts = re.findall(r"(?m)^(?:ENTRYPOINT|CMD) (\[.*\])$", block)
    yield [word for part in parts for word in json.loads(part)][1:]


SHOWN = (
  [
    pytest.param(one, id=f"{page.stem}: {' '.join(one)[:40]}")
    for page in PAGES
    for one in commands(
      "\n".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.S))
    )
  ]
  + [
    pytest.param(one, id=f"{page.stem}, a service: {' '.join(one)[:40]}")
    for page in PAGES
    for one in services(page.read_text())
  ]
  + [
    pytest.param(one, id=f"--help: {' '.join(one)[:40]}")
    for command in command_line.COMMANDS
    for one in commands(command.examples)
  ]
)


def test_there_are_commands():
  assert len(SHOWN) > 30


@pytest.mark.parametrize("arguments", SHOWN)
def test_a_command_of_the_docs_is_whole(arguments, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "SuperGLUE" / "BoolQ").mkdir(parents=True)
  parser = command_line.parser()
  known, rest = parser.parse_known_args(arguments)
  bindings = command_line.bindings_of(rest, parser)
  if not known.of.takes_settings:
    assert not bindings
    return
  files = known.gin_file
  if hasattr(known, "data"):
    more_files, more = data_flags.settings(known)
    files, bindings = [*files, *more_files], [*more, *bindings]
  # The task of docs/my_mrpc.py is imported and run in test_own_task.py.
  bindings = [one for one in bindings if "MODULE=my_mrpc" not in one]
  configuration.configure(files, bindings, ())
  text = gin.config_str()
  used = set(re.findall(r"%([A-Z][A-Z0-9_]*)", text))
  defined = set(re.findall(r"^([A-Z][A-Z0-9_]*) =", text, re.MULTILINE))
  missing = used - defined
  if "models/random_weights.gin" in files:
    missing -= {"INITIAL_CHECKPOINT_PATH"}
  if known.command == "infer":
    assert missing < EITHER
  else:
    assert not missing
