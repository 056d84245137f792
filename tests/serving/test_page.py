"""The page in a real browser, and what it asked there, asked again."""

import hashlib
import json

import asking
import browsing
from browsing import ENTER, SPACE, TAB
import conftest
import places
import pytest

from prompt_tuning.serving.web import app

RECORDED = json.loads((places.GOLDEN / "page.json").read_text())


@pytest.fixture(scope="module")
def browser():
  if not (browsing.CHROMIUM and browsing.DRIVER):
    pytest.skip(
      "chromium and chromedriver are not installed: apt-get install chromium "
      "chromium-driver. golden/page.json stands in, what the page asked there, "
      "in test_what_the_page_asks_is_answered_as_it_reads"
    )
  with browsing.browser() as driven:
    yield driven


def test_the_page_is_the_one_whose_requests_are_recorded():
  found = {
    path: hashlib.sha256(app.page_file(path)[0]).hexdigest()
    for path in app.PAGE
  }
  assert found == RECORDED["page"], "run python tests/golden/make_page.py"


def fits(found, shown) -> bool:
  """Whether an answer has whatever the page read in another, of its type."""
  if isinstance(shown, dict):
    return all(fits(found[name], value) for name, value in shown.items())
  if isinstance(shown, list):
    return all(fits(one, shown[0]) for one in found)
  return isinstance(found, type(shown))


@pytest.mark.parametrize(
  "sent", RECORDED["requests"], ids=lambda sent: sent["path"]
)
def test_what_the_page_asks_is_answered_as_it_reads(ask, sent):
  answer = ask(sent["path"], sent["body"], method=sent["method"])
  assert answer.status == 200, answer.text
  shown = RECORDED["answers"][sent["path"]]
  if sent["path"] == "/v1/models":
    listed = {model["id"]: model for model in answer.json["data"]}
    for model in shown["data"]:
      assert fits(listed[model["id"]], model)
  else:
    assert fits(answer.json, shown)


def test_the_page_shows_answers_with_their_probabilities_best_first():
  assert {name: rest for name, *rest in RECORDED["shown"]} == {
    "p0": ["no", "no50.0 %", "yes25.0 %", "red25.0 %"],
    "p1": ["sat", "this answer54.9 %"],
  }


@pytest.mark.usefixtures("server")
def test_prompts_are_asked_side_by_side_by_keyboard_alone(browser, server, ask):
  browser.open(server.url)
  # Without a key nothing is listed, and the field for it stands open.
  browser.wait("document.getElementById('status').textContent.includes('key')")
  assert browser.run("return document.querySelector('details').open")

  # By Tab to the field of the key; the prompts appear.
  def tab_to(name: str) -> None:
    for _ in range(80):
      if browser.focus() == name:
        return
      browser.press(TAB)
    raise AssertionError(f"Tab does not lead to {name}")

  tab_to("key")
  browser.press(*conftest.KEY, TAB)
  count = "document.querySelectorAll('#prompts input').length"
  browser.wait(f"{count} > 50")
  assert browser.run("return document.getElementById('own').textContent") == (
    "toy"
  )
  # The first prompt is chosen, and its record says the form of an input.
  form = browser.run("return document.getElementById('form').textContent")
  assert form == "Form: cat: {cat}"

  # The second is chosen by Space, a text typed, and asked by Enter.
  browser.run("document.querySelectorAll('#prompts input')[0].focus()")
  browser.press(TAB, SPACE)
  tab_to("text")
  browser.press(*"the cat sat")
  tab_to("send")
  browser.press(ENTER)
  cards = "document.querySelectorAll('.answer .text')"
  done = "document.getElementById('status').textContent == '2 answers.'"
  browser.wait(done)
  answers = browser.run(f"return [...{cards}].map(c => c.textContent)")
  names = browser.run(
    "return [...document.querySelectorAll('.answer h2')]"
    ".map(c => c.textContent)"
  )

  # The first has labels, so theirs are the probabilities; the second writes.
  ranked = ask.classify(names[0], "the cat sat").json["data"][0]
  (written,) = ask.complete(names[1], "the cat sat").json["choices"]
  assert answers[0] == ranked["label"]
  shown = browser.run(
    "return [...document.querySelectorAll('.answer')[0]"
    ".querySelectorAll('tr')].map(r => r.textContent)"
  )
  best = max(ranked["probs"])
  assert shown[0] == f"{ranked['label']}{100 * best:.1f} %"
  assert len(shown) == len(asking.LABELS)
  assert answers[1].strip() == written["text"].strip()
  times = browser.run(
    "return [...document.querySelectorAll('.answer .hint')]"
    ".map(c => c.textContent)"
  )
  assert all(one.endswith(" ms") for one in times)
  expected = [one for one in browser.complaints() if "401" not in one]
  assert not expected, expected


@pytest.mark.usefixtures("server")
def test_every_field_of_the_page_has_a_label(browser, server):
  browser.open(server.url)
  nameless = browser.run(
    "return [...document.querySelectorAll('input, textarea, button')]"
    ".filter(e => !(e.labels && e.labels.length) && !e.textContent.trim())"
    ".map(e => e.outerHTML)"
  )
  assert nameless == []
