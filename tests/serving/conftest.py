import asking
import pytest
import toy_tasks

from prompt_tuning.serving.server import Server
from prompt_tuning.serving.settings import Settings

KEY = "a-key-of-the-tests"
COUNT = 50
LENGTHS = {"inputs": 25, "targets": 8}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
  """Fifty prompts in a folder, the first with labels and a template."""
  place = tmp_path_factory.mktemp("served") / "runs"
  for number in range(COUNT):
    more = (
      {"labels": asking.LABELS, "template": "cat: {cat}"} if not number else {}
    )
    asking.save(place / f"p{number}", number, **more)
  return place


@pytest.fixture(scope="session")
def server(folder):
  """A server of the toy model, with all of them."""
  settings = Settings(
    toy_tasks.model(),
    LENGTHS,
    target_length=8,
    rows=8,
    most_waiting=300,
    most_bytes=20_000,
    most_seconds=30,
  )
  with Server(settings, folder=folder, keys=(KEY,)) as running:
    yield running


@pytest.fixture
def ask(server):
  """A client with a key."""
  return asking.Client(server.url, KEY)
