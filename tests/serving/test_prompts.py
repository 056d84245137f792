import concurrent.futures
import dataclasses
import json
import os
import shutil
import threading

import asking
import conftest
import numpy as np
import pytest
import tiny_t5

from prompt_tuning.prompts import checkpoints
from prompt_tuning.serving.shelf import Shelf, check_name
from prompt_tuning.serving.web import prompts

LIST = "/v1/prompts"


@pytest.fixture(scope="module")
def other(server):
  """The number of a prompt that does not answer as number 3 does."""
  client = asking.Client(server.url, conftest.KEY)
  third = text(client, "p3")
  return next(n for n in range(4, 49) if text(client, f"p{n}") != third)


@pytest.fixture
def coming(ask, folder):
  """The folder of a prompt that is not there yet, by the name `coming`."""
  place = folder / "coming"
  yield place
  ask(f"{LIST}/coming", method="DELETE")
  shutil.rmtree(place, ignore_errors=True)


def text(client, name: str) -> str:
  answer = client.complete(name, asking.TEXTS[1], max_tokens=8)
  assert answer.status == 200, answer.text
  return answer.json["choices"][0]["text"]


def test_a_prompt_is_loaded_seen_anew_and_unloaded(ask, coming, other):
  assert ask.complete("coming", "mat").status == 404
  asking.save(coming, 3)
  assert "coming" in ask(LIST).json["loadable"]
  answer = ask(LIST, {"name": "coming"})
  assert answer.status == 200 and answer.json["changed"], answer.text
  assert text(ask, "coming") == text(ask, "p3")
  assert not ask(LIST, {"name": "coming"}).json["changed"]

  # Its file is another now: that is said, and seen when it is loaded again.
  asking.save(coming, other)
  (listed,) = [d for d in ask(LIST).json["data"] if d["id"] == "coming"]
  assert listed["changed"] and listed["length"] == len(asking.values(3))
  assert text(ask, "coming") == text(ask, "p3")
  assert ask(LIST, {"name": "coming"}).json["changed"]
  assert text(ask, "coming") == text(ask, f"p{other}")

  assert ask(f"{LIST}/coming", method="DELETE").json["deleted"]
  assert ask.complete("coming", "mat").status == 404
  assert ask(f"{LIST}/coming", method="DELETE").status == 404


def damaged(place):
  asking.save(place, 5)
  content = bytearray((place / "prompt.npy").read_bytes())
  content[-3] ^= 0x40
  (place / "prompt.npy").write_bytes(content)


def of_another_model(place):
  other = {"source": str(place / "other" / "model"), "hash": "1" * 64}
  checkpoints.save_prompt(place, asking.values(1), {"model": other})


def too_wide(place):
  checkpoints.save_prompt(place, tiny_t5.rows(3, 24), {})


def too_long(place):
  checkpoints.save_prompt(place, tiny_t5.rows(30, 16), {})


def half_a_letter(place):
  asking.save(place, 4, template="\ud800")


def pickled(place):
  asking.save(place, 6)
  np.save(place / "prompt.npy", np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize(
  "spoil, message",
  [
    (damaged, "the hash of the tensor differs"),
    (of_another_model, "was trained for the frozen weights"),
    (too_wide, "needs 16"),
    (too_long, "--gin.LONGEST_PROMPT=30"),
    (half_a_letter, "surrogates not allowed"),
    (pickled, "Python objects"),
  ],
)
def test_a_bad_prompt_is_refused_and_disturbs_nobody(
  ask, coming, spoil, message
):
  before = text(ask, "p2")
  spoil(coming)
  answer = ask(LIST, {"name": "coming"})
  assert answer.status == 400 and message in answer.message
  assert str(coming.parent) not in answer.text and "/" not in answer.message
  assert ask.complete("coming", "mat").status == 404
  assert text(ask, "p2") == before


@pytest.mark.parametrize(
  "name", ["../runs/p1", "/etc/passwd", "p1/..", "", "prompt.npy", "toy", "\0"]
)
def test_no_name_leads_out_of_the_folder(ask, name):
  answer = ask(LIST, {"name": name})
  assert answer.status == 400 and "There is no prompt" in answer.message


def test_the_frozen_model_stays(ask):
  answer = ask(f"{LIST}/toy", method="DELETE")
  assert answer.status == 400 and "which stays" in answer.message


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
  asking.save(tmp_path / "elsewhere", 1)
  inside = tmp_path / "inside"
  asking.save(inside / "own", 2)
  asking.save(inside / "both" / "prompts" / "rte", 3)
  (inside / "out").symlink_to(tmp_path / "elsewhere")
  assert [*Shelf(inside).paths()] == ["both/rte", "own"]


@pytest.mark.parametrize(
  "count", [12, pytest.param(200, marks=pytest.mark.slow)]
)
def test_loading_under_load_loses_no_request_and_spoils_no_answer(
  server, ask, coming, other, count
):
  """A prompt changes between two contents; the others never change."""
  either = {text(ask, "p3"), text(ask, f"p{other}")}
  steady, before = text(ask, "p0"), server.service.compilations
  asking.save(coming, 3)
  assert ask(LIST, {"name": "coming"}).status == 200
  done = threading.Event()

  def load():
    client, seen = asking.Client(server.url, conftest.KEY), []
    while not done.is_set():
      seen.append((text(client, "coming") in either, text(client, "p0")))
    return seen

  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    running = [pool.submit(load) for _ in range(6)]
    try:
      for turn in range(count):
        asking.save(coming, (3, other)[turn % 2])
        assert ask(LIST, {"name": "coming"}).status == 200
        # Another comes and goes, which nobody asks for.
        assert ask(f"{LIST}/p49", method="DELETE").status == 200
        assert ask(LIST, {"name": "p49"}).status == 200
    finally:
      done.set()
    seen = [one for each in running for one in each.result()]
  assert len(seen) > count
  assert all(right and same == steady for right, same in seen)
  assert server.service.compilations == before


def test_a_server_without_keys_loads_nothing(server, ask):
  state = server._uvicorn.config.app.state
  before = state.serving
  state.serving = dataclasses.replace(before, keys=())
  try:
    answers = [
      ask(LIST),
      ask(LIST, {"name": "p1"}),
      ask(f"{LIST}/p1", method="DELETE"),
    ]
  finally:
    state.serving = before
  for answer in answers:
    assert answer.status == 403 and "--api_key_file" in answer.message


def test_a_message_keeps_the_names_and_loses_the_folders():
  from prompt_tuning.serving.web.errors import without_paths

  said = "/home/me/runs/a b/prompt.npy was made for 'models/t5' (0/1 of /x)."
  assert "/home" not in without_paths(said) and "/x" not in without_paths(said)
  assert "prompt.npy" in without_paths(said)
  assert json.dumps(without_paths("100 positions")) == '"100 positions"'


def test_a_prompt_that_was_refused_is_not_what_is_served(ask, coming):
  asking.save(coming, 3)
  assert ask(LIST, {"name": "coming"}).status == 200
  too_long(coming)
  assert ask(LIST, {"name": "coming"}).status == 400
  (listed,) = [d for d in ask(LIST).json["data"] if d["id"] == "coming"]
  assert listed["changed"] and listed["length"] == len(asking.values(3))


def test_prompts_that_go_while_they_are_listed_are_no_failure(
  server, ask, monkeypatch
):
  """Whoever lists sees one bank, though it changes at each look."""
  service, taken = server.service, []
  about = prompts.about

  def going(serving, name, saved):
    if name == "p47":
      taken.append(service.unload("p48"))
    return about(serving, name, saved)

  for path in (LIST, "/v1/models"):
    monkeypatch.setattr(prompts, "about", going)
    try:
      answer = ask(path)
    finally:
      monkeypatch.setattr(prompts, "about", about)
      loaded = ask(LIST, {"name": "p48"})
    assert answer.status == 200 and loaded.status == 200
    assert "p48" in {one["id"] for one in answer.json["data"]}
  assert len(taken) == 2


def test_a_folder_whose_name_nobody_can_send_is_left_out(tmp_path, caplog):
  asking.save(tmp_path / "a prompt é", 1)
  for name in ("two\nlines", os.fsdecode(b"latin-\xe9"), "bell\a"):
    asking.save(tmp_path / name, 1)
    with pytest.raises(ValueError, match="no client could ask for it"):
      check_name(name)
  assert [*Shelf(tmp_path).paths()] == ["a prompt é"]
  assert caplog.text.count("is not served") == 3
