"""Log-probabilities, several answers, and the programs of a service."""

import contextlib
import itertools

import jax
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.data import splits
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.inference.prompted_model import PromptedModel
from prompt_tuning.model import decode, t5
from prompt_tuning.prompts import checkpoints, prompted
from prompt_tuning.shapes import EOS, rounded

TEXTS = ["the cat sat", "a dog ran to the red house", "mat", "sat on the mat"]
SAVED = [
  checkpoints.SavedPrompt(3 * tiny_t5.rows(4, 16, seed=n), {}, f"p{n}")
  for n in range(2)
]
PAIR = prompted.with_prompts(toy_tasks.model(), [s.values for s in SAVED])


def predicting(*decoding, **settings) -> PromptedModel:
  chosen = infer.Decoding(*decoding, **{"max_length": 3, **settings})
  return PromptedModel(toy_tasks.model(), SAVED, chosen)


def enumerated(text: str, prompt_id: int) -> list[tuple[float, str]]:
  """Every target of two places with its log p and its text, best first."""
  encode, decoded = tiny_t5.vocabulary().encode, tiny_t5.vocabulary().decode
  tokens = infer.padded([[*encode(text), EOS]], 32)
  rows = PAIR.network.config.vocab_size
  firsts = np.arange(rows)[:, None] * np.array([[1, 0]])  # [V, 2]
  log_p = jax.nn.log_softmax(
    tiny_t5.jitted(PAIR.network)(
      {"params": PAIR.params},
      tiny_t5.reserved(np.repeat(tokens, rows, 0), [prompt_id] * rows, 4),
      t5.shift_right(firsts.astype(np.int32)),
    )
  )
  log_p, ended = np.asarray(log_p), float(log_p[0, 0, EOS])
  found = [(ended, "")]
  for first, second in itertools.product(range(rows), repeat=2):
    if first != EOS:
      total = float(log_p[0, 0, first] + log_p[first, 1, second])
      found.append((total, decoded([first, second])))
  return sorted(found, reverse=True)


def test_beams_are_the_best_answers_that_there_are():
  beams = predicting(decode.Beam(61, 0.0), max_length=2, num_decodes=5)
  answers = beams.answers(TEXTS[:2], [0, 1])
  for n, answer in enumerate(answers):
    want = enumerated(TEXTS[n], n)[:5]
    assert [one.text for one in answer.several] == [text for _, text in want]
    assert [one.log_probability for one in answer.several] == pytest.approx(
      [log_p for log_p, _ in want], rel=1e-4
    )
    assert answer[:3] == answer.several[0][:3]
    assert answer.row() == {
      "prediction": answer.text,
      "log_probability": answer.log_probability,
      "predictions": [
        {"prediction": one.text, "log_probability": one.log_probability}
        for one in answer.several
      ],
    }


def test_a_greedy_answer_has_its_log_probability_where_it_is_asked_for():
  (answer,) = predicting(max_length=2, scores=True).answers(TEXTS[:1])
  among = [log_p for log_p, text in enumerated(TEXTS[0], 0)]
  assert min(abs(answer.log_probability - log_p) for log_p in among) < 1e-4
  assert not answer.several
  (plain,) = predicting(max_length=2).answers(TEXTS[:1])
  assert plain == infer.Answer(answer.text)
  assert plain.row() == {"prediction": answer.text}


def test_samples_come_best_first_and_by_their_seed():
  def drawn(seed):
    sample = decode.Sample(1.5, top_k=20, top_p=0.9)
    return predicting(sample, seed=seed, num_decodes=4).answers(TEXTS)

  first = drawn(0)
  assert first == drawn(0) != drawn(1)
  for answer in first:
    nats = [one.log_probability for one in answer.several]
    assert len(nats) == 4 and nats == sorted(nats, reverse=True)
  assert len({one.text for one in first[0].several}) > 1


def test_a_label_has_the_log_probability_that_it_is_ranked_by():
  labels = ("yes", "no", "the red house")
  ranking = predicting(decode.Rank(labels), scores=True)
  answers = ranking.answers(TEXTS, 1)
  scores = [ranking.score(TEXTS, [label] * len(TEXTS), 1) for label in labels]
  best = np.max(scores, axis=0)
  assert [a.log_probability for a in answers] == pytest.approx(best, rel=1e-4)


def test_a_given_answers_score_is_the_sum_over_its_tokens():
  asked = ["the red house", "", "cat", "mat"]
  scores = predicting().score(TEXTS, asked, [0, 1, 1, 0])
  for n, which in enumerate([0, 1, 1, 0]):
    ids = [*tiny_t5.vocabulary().encode(asked[n]), EOS]
    row = [*tiny_t5.vocabulary().encode(TEXTS[n]), EOS]
    logits = tiny_t5.jitted(PAIR.network)(
      {"params": PAIR.params},
      tiny_t5.reserved(infer.padded([row], 32), [which], 4),
      t5.shift_right(infer.padded([ids], 16)),
    )
    log_p = np.asarray(jax.nn.log_softmax(logits))[0]
    want = log_p[np.arange(len(ids)), ids].sum()
    assert scores[n] == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize(
  "answers, message",
  [("mat", "answers must be a list"), (["mat"], "1 answers to 4 texts")],
)
def test_answers_that_cannot_be_scored_are_refused(answers, message):
  with pytest.raises(ValueError, match=message):
    predicting().score(TEXTS, answers)
  assert predicting().score([], []) == []


def test_a_network_that_is_not_finite_still_answers():
  decoding = infer.Decoding(decode.Beam(2), max_length=3, num_decodes=2)
  lost = jax.tree.map(lambda leaf: leaf * np.nan, PAIR.params)
  (answer,) = infer.Predictor(PAIR, decoding).answers(
    [[5, EOS]], [0], params=lost
  )
  assert not answer.log_probability > 0


def test_more_answers_than_there_are_is_refused_before_any_work():
  with pytest.raises(ValueError, match="NUM_DECODES=2 .* DECODING is Greedy"):
    infer.Decoding(num_decodes=2)


def test_an_evaluations_files_have_what_was_asked_for():
  examples = splits.load(toy_tasks.CAT, "test", toy_tasks.LENGTHS)
  decoding = infer.Decoding(decode.Beam(3), max_length=3, num_decodes=2)
  (result,) = evaluate.Evaluator(PAIR, [examples], decoding=decoding)()
  for row in evaluate.prediction_rows(examples, result):
    assert row["predictions"][0]["prediction"] == row["prediction"]
    assert [*row["predictions"][1]] == ["prediction", "log_probability"]


# A service.


@contextlib.contextmanager
def traced():
  """The programs that are traced meanwhile: every new shape is one."""
  names, is_on = [], True

  def listen(event: str, duration: float, **_):
    if is_on and event == "/jax/core/compile/jaxpr_trace_duration":
      names.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield names
  is_on = False


def random_calls(count: int, most: int, longest: int):
  """Texts of random numbers and lengths, and their prompts."""
  rng = np.random.default_rng(0)
  encode = tiny_t5.vocabulary().encode
  for _ in range(count):
    texts = []
    for _ in range(rng.integers(1, most + 1)):
      words = [str(rng.choice(toy_tasks.WORDS))]
      end = rng.integers(1, longest)
      while len(encode(" ".join([*words, "cat"]))) < end:
        words.append(str(rng.choice(["cat", "mat", "red"])))
      texts.append(" ".join(words))
    yield texts, rng.integers(0, 2, len(texts))


@pytest.mark.parametrize(
  "strategy, settings",
  [
    pytest.param(decode.Greedy(), {}, marks=pytest.mark.slow),
    (decode.Greedy(), {"scores": True}),
    pytest.param(decode.Rank(("yes", "no")), {}, marks=pytest.mark.slow),
  ],
  ids=str,
)
def test_a_warm_service_compiles_nothing_and_answers_the_same(
  strategy, settings
):
  """100 calls: sizes 1, 2, 4, 6 and lengths 8, 16 are all there are."""
  chosen = infer.Decoding(strategy, max_length=3, batch_size=6, **settings)
  service = PromptedModel(toy_tasks.model(), SAVED, chosen)
  assert service.warm_up(14) == 8
  plain = infer.Predictor(PAIR, chosen)
  encode = tiny_t5.vocabulary().encode
  calls = list(random_calls(100, most=8, longest=14))
  with traced() as names:
    answers = [service.answers(texts, ids) for texts, ids in calls]
  assert not names
  lengths = {rounded(len(encode(t)) + 1) for texts, _ in calls for t in texts}
  assert lengths == {8, 16}
  # The plain predictor has a program for each shape, so a few calls must do.
  for (texts, ids), have in zip(calls[:4], answers, strict=False):
    want = plain.answers([[*encode(text), EOS] for text in texts], ids)
    assert [one.text for one in have] == [one.text for one in want]
  with traced() as names:
    service.predict(["the cat " * 20])
  assert names


def test_a_service_is_warmed_up_as_far_as_it_says():
  service = predicting()
  assert service.warm_up(9, 3) == 2 * 3
  with traced() as names:
    service.predict(TEXTS[2:])
    service.predict([TEXTS[0]] * 3)
  assert not names
  with pytest.raises(ValueError, match="longest must be at least 1, got 0"):
    service.warm_up(0)
  with pytest.raises(ValueError, match="answers must be at least 0, got -1"):
    service.warm_up(9, answers=-1)


def test_a_service_that_scores_is_warmed_up_for_it_too():
  """Sizes 1, 2, 4 and lengths 8, 16; answers of 8 and 16: 6 + 12 programs."""
  service, fresh = predicting(), predicting()
  assert service.warm_up(9, 3, answers=9) == 6 + 12
  calls = [
    (["cat"], ["the cat sat"]),
    (["the cat sat"] * 3, ["", "cat", "the cat"]),
  ]
  with traced() as names:
    nats = [service.score(*call, 1) for call in calls]
  assert not names
  for call, have in zip(calls, nats, strict=True):
    assert have == pytest.approx(fresh.score(*call, 1), abs=1e-5)
