import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.inference import infer
from prompt_tuning.inference.prompted_model import PromptedModel
from prompt_tuning.model import decode, t5
from prompt_tuning.prompts import checkpoints, prompted

TEXTS = ["the cat sat", "a dog ran to the red house", "mat", "sat on the mat"]
SHORT = infer.Decoding(max_length=6)


def prompts(count=3, length=4):
  return [
    checkpoints.SavedPrompt(3 * tiny_t5.rows(length, 16, seed=n), {}, f"p{n}")
    for n in range(count)
  ]


@pytest.mark.parametrize(
  "strategy",
  [decode.Greedy(), decode.Beam(2), decode.Rank(("mat", "ran", "sat"))],
)
def test_a_mixed_batch_equals_one_by_one(strategy):
  decoding = infer.Decoding(strategy, max_length=6)
  mixed = PromptedModel(toy_tasks.model(), prompts(), decoding)
  together = mixed.predict(TEXTS * 3, [0] * 4 + [1] * 4 + [2] * 4)
  alone = []
  for saved in prompts():
    one = PromptedModel(toy_tasks.model(), [saved], decoding)
    alone += [one.predict([text])[0] for text in TEXTS]
  assert together == alone
  assert len(set(together)) > 1


@pytest.mark.parametrize(
  "strategy",
  [decode.Greedy(), decode.Beam(2), decode.Rank(("mat", "ran", "sat"))],
)
def test_prompts_of_different_lengths_share_a_batch(strategy):
  decoding = infer.Decoding(strategy, max_length=6)
  several = [prompts(1, length)[0] for length in (7, 1, 4)]
  mixed = PromptedModel(toy_tasks.model(), several, decoding)
  together = mixed.predict(TEXTS * 3, [0] * 4 + [1] * 4 + [2] * 4)
  alone = []
  for saved in several:
    one = PromptedModel(toy_tasks.model(), saved, decoding)
    alone += one.predict(TEXTS)
  assert together == alone
  assert len(set(together)) > 1


def test_the_batch_size_changes_nothing():
  answers = [
    PromptedModel(
      toy_tasks.model(),
      prompts(1),
      infer.Decoding(max_length=6, batch_size=size),
    ).predict(TEXTS)
    for size in (1, 3, 4, 100)
  ]
  assert answers[0] == answers[1] == answers[2] == answers[3]


def test_rank_picks_the_label_that_greedy_would_have_to_beat():
  labels = ("yes", "no", "the red house")
  predicting = PromptedModel(
    toy_tasks.model(), prompts(1), infer.Decoding(decode.Rank(labels))
  )
  one = prompted.with_prompts(toy_tasks.model(), [prompts(1)[0].values])
  vocabulary = tiny_t5.vocabulary()
  for text, answer in zip(TEXTS, predicting.predict(TEXTS), strict=True):
    # One shape for all, so that one program is compiled.
    row = infer.padded([[*vocabulary.encode(text), 1]], 32)
    tokens = tiny_t5.reserved(row, [0], 4)
    scores = []
    for label in labels:
      ids = [*vocabulary.encode(label), 1]
      target = infer.padded([ids], 16)
      logits = tiny_t5.jitted(one.network)(
        {"params": one.params}, tokens, t5.shift_right(target)
      )[0]
      log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
      scores.append(log_p[np.arange(len(ids)), ids].sum())
    assert answer == labels[int(np.argmax(scores))]


def test_without_prompts_it_is_the_plain_model():
  plain = PromptedModel(toy_tasks.model(), (), SHORT).predict(TEXTS)
  steered = PromptedModel(toy_tasks.model(), prompts(1), SHORT).predict(TEXTS)
  run = decode.make_decoder(t5.T5(toy_tasks.model().config), decode.Greedy(), 6)
  vocabulary = tiny_t5.vocabulary()
  rows = infer.padded([[*vocabulary.encode(text), 1] for text in TEXTS])
  ids = run(toy_tasks.model().params, rows, np.zeros(2, np.uint32))
  assert plain == [vocabulary.decode(row) for row in np.asarray(ids)]
  assert plain != steered


@pytest.mark.parametrize(
  "texts, prompt_id, message",
  [
    (["the cat", ""], 0, "Text 1 is empty"),
    (["the cat"], 3, "from 0 to 2, got .3."),
    (["the cat", "mat"], [0, -1], "from 0 to 2"),
  ],
)
def test_a_bad_request_is_refused(texts, prompt_id, message):
  several = PromptedModel(toy_tasks.model(), prompts(), SHORT)
  with pytest.raises(ValueError, match=message):
    several.predict(texts, prompt_id)


def test_no_texts_no_predictions():
  assert PromptedModel(toy_tasks.model(), prompts(1), SHORT).predict([]) == []


@pytest.mark.parametrize(
  "texts, prompt_id, message",
  [
    ("abc", 0, "texts must be a list of texts, got 'abc'"),
    (["a"], np.array([0.7]), "prompt_id must be a whole number.*0.7"),
    (["a", "b"], [0], "one for each of the 2 texts"),
    (["a", "b", "c"], [0, 1], "one for each of the 3 texts"),
  ],
)
def test_what_cannot_be_predicted_is_refused(texts, prompt_id, message):
  several = PromptedModel(toy_tasks.model(), prompts(), SHORT)
  with pytest.raises(ValueError, match=message):
    several.predict(texts, prompt_id)


def test_a_prompt_of_another_width_is_refused():
  wide = checkpoints.SavedPrompt(tiny_t5.rows(4, 24), {}, "wide")
  with pytest.raises(ValueError, match="in wide has shape .4, 24.*needs 16"):
    PromptedModel(toy_tasks.model(), [*prompts(), wide])


def test_one_prompt_needs_no_list():
  (saved, *_) = prompts()
  assert len(PromptedModel(toy_tasks.model(), saved, SHORT).prompts) == 1


def test_ranked_labels_come_with_their_probabilities():
  labels = ("yes", "no", "the red house")
  ranking = infer.Decoding(decode.Rank(labels))
  several = PromptedModel(toy_tasks.model(), prompts(), ranking)
  answers = several.answers(TEXTS, 1)
  assert [answer.text for answer in answers] == several.predict(TEXTS, 1)
  one = prompted.with_prompts(toy_tasks.model(), [prompts()[1].values])
  encode = tiny_t5.vocabulary().encode
  rows = [[*encode(text), 1] for text in TEXTS]
  nats = infer.Predictor(one, ranking).label_scores(rows, [0] * len(rows))
  for answer, row in zip(answers, np.exp(nats), strict=True):
    want = dict(zip(labels, row / row.sum(), strict=True))
    assert answer.probabilities == pytest.approx(want, rel=1e-4)
  greedy = PromptedModel(toy_tasks.model(), prompts(), SHORT).answers(TEXTS)
  assert {answer.probabilities for answer in greedy} == {None}
