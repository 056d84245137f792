import dataclasses
import threading

import asking
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.inference import infer
from prompt_tuning.inference.prompted_model import PromptedModel
from prompt_tuning.model import decode, forms
from prompt_tuning.prompts import checkpoints
from prompt_tuning.serving import bank as banks
from prompt_tuning.serving import engine, programs, rows, sizes

SIZES = sizes.Sizes(rows=4, inputs=40, targets=8, encoded=64)
TEXTS = ["the cat sat", "a dog ran to the red house", "mat", "sat on the mat"]
LENGTHS = (4, 7, 1)


def saved(length: int, seed: int, **record) -> checkpoints.SavedPrompt:
  values = 3 * tiny_t5.rows(length, 16, seed=seed)
  return checkpoints.SavedPrompt(values, record, f"p{seed}")


PROMPTS = [saved(length, n) for n, length in enumerate(LENGTHS)]
# One stands behind the first token, and does not look at it.
PROMPTS.append(
  saved(4, 3, place="after_first", attention=["prompt_to_prompt_causal"])
)


@pytest.fixture(scope="module")
def bank():
  none = banks.empty(toy_tasks.model(), "toy", sizes.Room(7))
  return none.changed({f"p{n}": one for n, one in enumerate(PROMPTS)})


@pytest.fixture(scope="module")
def compiled(bank):
  made = programs.Programs(toy_tasks.model(), SIZES)
  made.compile(bank.prompted)
  return made


@pytest.fixture
def running(compiled):
  made = engine.Engine(compiled, most_waiting=200)
  yield made
  made.close()


def expected(name: str, **settings) -> PromptedModel:
  prompts = () if name == "toy" else PROMPTS[int(name[1])]
  decoding = infer.Decoding(**{"max_length": 8, **settings})
  return PromptedModel(toy_tasks.model(), prompts, decoding)


@pytest.fixture(scope="module")
def answers():
  """What `predict` says to every text with every prompt."""
  places = range(len(PROMPTS))
  every = [text for text in TEXTS for _ in places]
  model = PromptedModel(
    toy_tasks.model(), PROMPTS, infer.Decoding(max_length=8)
  )
  said = iter(model.predict(every, [*places] * len(TEXTS)))
  found = {(f"p{n}", text): next(said) for text in TEXTS for n in places}
  alone = expected("toy").predict(TEXTS)
  return found | {("toy", t): a for t, a in zip(TEXTS, alone, strict=True)}


def test_rows_of_all_prompts_decode_together_as_they_do_alone(
  running, bank, answers
):
  decoded = tiny_t5.vocabulary().decode
  requests = [
    asking.Request(running, bank, [(name, text, rows.Writing(8))])
    for name, text in answers
  ]
  found = [decoded(request.wait()[0].ids) for request in requests]
  assert found == [*answers.values()]
  assert len(set(found)) > 4
  # They did decode together, and each input was encoded once.
  assert running.counts.steps < running.counts.rows / 2
  assert running.counts.encoded == len(answers)
  endings = [request.rows[0].ending for request in requests]
  for request, ending in zip(requests, endings, strict=True):
    ids = request.rows[0].ids
    assert ending is (rows.Ending.STOP if ids[-1] == 1 else rows.Ending.LENGTH)
    assert len(ids) <= 8


@pytest.mark.slow
def test_a_server_of_quantised_weights_answers_as_predictions_do():
  plain = toy_tasks.model()
  params = forms.stacked(toy_tasks.held(plain.params, "int8"))
  model = dataclasses.replace(plain, params=params)
  own = banks.empty(model, "toy", sizes.Room(7)).changed({"p0": PROMPTS[0]})
  made = programs.Programs(model, SIZES)
  made.compile(own.prompted)
  running = engine.Engine(made, most_waiting=20)
  asked = [("p0", text, rows.Writing(8)) for text in TEXTS]
  found = asking.Request(running, own, asked).wait()
  running.close()
  decoding = infer.Decoding(max_length=8)
  wanted = PromptedModel(model, PROMPTS[0], decoding).predict(TEXTS)
  assert [tiny_t5.vocabulary().decode(row.ids) for row in found] == wanted


def test_log_probabilities_are_those_of_predictions(running, bank):
  one = asking.Request(
    running, bank, [("p1", TEXTS[1], rows.Writing(8))]
  ).wait()[0]
  answer = expected("p1", scores=True).answers([TEXTS[1]])[0]
  assert sum(one.log_p) == pytest.approx(answer.log_probability, abs=1e-4)


def test_samples_are_those_of_predictions_whatever_decodes_beside(
  running, bank
):
  settings = {"temperature": 1.5, "top_p": 0.9, "seed": 11}
  sampling = decode.Sample(1.5, top_p=0.9)
  model = expected(
    "p0", strategy=sampling, seed=11, num_decodes=3, max_length=6
  )
  wanted = sorted(a.text for a in model.answers(TEXTS[:2])[1].several)
  noise = [("toy", text, rows.Writing(8)) for text in TEXTS]
  asking.Request(running, bank, noise)
  found = asking.Request(
    running,
    bank,
    [
      ("p0", TEXTS[1], rows.Writing(6, text=1, choice=n, **settings))
      for n in range(3)
    ],
  ).wait()
  decoded = tiny_t5.vocabulary().decode
  assert sorted(decoded(row.ids) for row in found) == wanted
  assert len(set(wanted)) > 1


def test_answers_to_one_input_are_encoded_once(running, bank):
  before = running.counts.encoded
  asked = [
    ("p2", TEXTS[0], rows.Writing(4, temperature=2.0, choice=n))
    for n in range(4)
  ]
  asking.Request(running, bank, asked).wait()
  assert running.counts.encoded == before + 1


def test_given_tokens_have_the_log_probability_of_a_label(running, bank):
  labels = ("yes", "no", "the red house")
  encode = tiny_t5.vocabulary().encode
  given = [(*encode(label), 1) for label in labels]
  found = asking.Request(
    running,
    bank,
    [("p0", TEXTS[3], rows.Writing(len(g), given=g)) for g in given],
  ).wait()
  shares = np.exp([sum(row.log_p) for row in found])
  ranking = expected("p0", strategy=decode.Rank(labels))
  wanted = ranking.answers([TEXTS[3]])[0].probabilities
  assert wanted == pytest.approx(
    dict(zip(labels, shares / shares.sum(), strict=True)), rel=1e-3
  )


def test_the_likeliest_tokens_come_with_their_log_probabilities(running, bank):
  writing = rows.Writing(3, likely=True)
  one = asking.Request(running, bank, [("p0", TEXTS[0], writing)]).wait()[0]
  assert len(one.likely) == len(one.ids)
  for token, log_p, (ids, several) in zip(
    one.ids, one.log_p, one.likely, strict=True
  ):
    assert ids[0] == token and several[0] == pytest.approx(log_p, abs=1e-5)
    assert np.all(np.diff(several) <= 0)


def test_a_short_answer_does_not_wait_for_long_ones(running, bank):
  long = [("toy", text, rows.Writing(8, given=(5,) * 8)) for text in TEXTS[:3]]
  long = asking.Request(running, bank, long * 4)
  short = asking.Request(
    running, bank, [("p0", "mat", rows.Writing(1))]
  ).wait()[0]
  rest = long.wait()
  # In front of it are those that were asked for earlier, and no others.
  assert short.times.ended < max(row.times.ended for row in rest)


def test_a_row_that_nobody_waits_for_is_let_go(running, bank, answers):
  gone = asking.Request(running, bank, [("p0", TEXTS[0], rows.Writing(8))] * 30)
  for row in gone.rows:
    row.is_wanted = False
  ended = [row.ending for row in gone.wait()]
  assert ended.count(rows.Ending.GONE) > 15
  after = asking.Request(
    running, bank, [("p0", TEXTS[0], rows.Writing(8))]
  ).wait()
  decoded = tiny_t5.vocabulary().decode(after[0].ids)
  assert decoded == answers["p0", TEXTS[0]]
  assert (running.running, running.waiting) == (0, 0)


def test_a_row_that_takes_too_long_is_ended(running, bank):
  late = asking.Request(
    running, bank, [("p0", TEXTS[0], rows.Writing(8))] * 9, deadline=0.0
  )
  assert {row.ending for row in late.wait()} == {rows.Ending.LATE}


def test_more_than_may_wait_are_refused_whole(compiled, bank):
  small = engine.Engine(compiled, most_waiting=3)
  with pytest.raises(engine.Full):
    asking.Request(small, bank, [("p0", TEXTS[0], rows.Writing(8))] * 4)
  assert small.waiting == 0
  accepted = asking.Request(
    small, bank, [("p0", TEXTS[0], rows.Writing(8))] * 3
  )
  small.close()  # answers what it has taken
  assert all(row.ending for row in accepted.rows)
  with pytest.raises(engine.Closed):
    asking.Request(small, bank, [("p0", TEXTS[0], rows.Writing(8))])


def test_a_failing_step_ends_its_rows_and_no_others(running, bank, answers):
  bad = rows.Row(
    bank.prompted,
    np.ones(3, np.int32),
    rows.Writing(8),
    told=lambda row: failed.set(),
  )
  bad.tokens = np.full((3, 2), 5)  # cannot be put into a row
  failed = threading.Event()
  running.submit([bad])
  assert failed.wait(60) and bad.ending is rows.Ending.FAILED
  after = asking.Request(
    running, bank, [("p1", TEXTS[0], rows.Writing(8))]
  ).wait()
  decoded = tiny_t5.vocabulary().decode(after[0].ids)
  assert decoded == answers["p1", TEXTS[0]]


def test_without_new_slots_it_takes_no_rows_and_nobody_waits(
  compiled, bank, monkeypatch
):
  own = engine.Engine(compiled, most_waiting=99)

  def fails(*_):
    raise RuntimeError("out of memory")

  for name in ("encode", "empty"):
    monkeypatch.setattr(compiled, name, fails)
  asked = [("p0", TEXTS[0], rows.Writing(8))] * 40  # more than decode at once
  lost = asking.Request(own, bank, asked).wait()
  assert {row.ending for row in lost} == {rows.Ending.FAILED}
  own.close()  # returns
  assert own.is_closed and not own.waiting
  with pytest.raises(engine.Closed):
    asking.Request(own, bank, asked)


def test_a_bank_grows_while_rows_of_the_smaller_one_decode(
  compiled, running, bank
):
  before = len(compiled)
  larger = bank.changed({f"p{n}": PROMPTS[n % 4] for n in range(16)})
  old = asking.Request(running, bank, [("p1", TEXTS[1], rows.Writing(8))] * 8)
  compiled.add_bank(larger.prompted)
  new = asking.Request(running, larger, [("p13", TEXTS[1], rows.Writing(8))])
  texts = {tuple(row.ids) for row in [*old.wait(), *new.wait()]}
  assert len(texts) == 1 and len(larger.prompted.lengths) == 32
  assert len(compiled) > before


def test_only_a_power_of_two_of_rows():
  with pytest.raises(ValueError, match="got 6; the next is 8"):
    sizes.Sizes(rows=6, inputs=10, targets=3, encoded=64)


def test_what_is_not_finite_leaves_nothing_in_its_slot(compiled, answers):
  huge = checkpoints.SavedPrompt(np.full((7, 16), np.inf), {}, "huge")
  none = banks.empty(toy_tasks.model(), "toy", sizes.Room(7))
  together = {f"p{n}": one for n, one in enumerate(PROMPTS[:3])}
  bank = none.changed({**together, "huge": huge})
  compiled.add_bank(bank.prompted)
  running = engine.Engine(compiled, most_waiting=20)
  try:
    long = ("huge", " ".join(TEXTS[:2]), rows.Writing(8))
    wrong = asking.Request(running, bank, [long] * SIZES.rows).wait()
    assert not any(np.isfinite(row.log_p).any() for row in wrong)
    asked = [("p0", text, rows.Writing(8)) for text in TEXTS]
    right = asking.Request(running, bank, asked).wait()
  finally:
    running.close()
  decoded = tiny_t5.vocabulary().decode
  found = [decoded(row.ids) for row in right]
  assert found == [answers["p0", text] for text in TEXTS]
