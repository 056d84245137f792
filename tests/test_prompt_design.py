import numpy as np
import tiny
import toy

from prompt_tuning import prompt_design, t5

TEXTS = ["the cat sat", "a dog ran", "the red house", "the mat"]
ANSWERS = ["yes", "no"]


def log_p(text, answer):
  """From teacher forcing on one example."""
  vocabulary = tiny.vocabulary()
  source = tiny.ids([*vocabulary.encode(text), 1])
  target = tiny.ids([*vocabulary.encode(answer), 1])
  logits = np.asarray(
    t5.T5(tiny.config()).apply(
      {"params": toy.model().params}, source, t5.shift_right(target)
    )[0],
    np.float64,
  )
  logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
  return logits[np.arange(target.shape[1]), target[0]].sum()


def test_accuracy_is_the_share_of_examples_whose_answer_is_likeliest():
  wordings = [TEXTS, [f"{text} ? yes or no" for text in TEXTS]]
  classes = [0, 1, 1, 0]
  found = prompt_design.accuracies(
    toy.model(), wordings, classes, ANSWERS, batch_size=3
  )
  for texts, accuracy in zip(wordings, found, strict=True):
    best = [int(np.argmax([log_p(t, a) for a in ANSWERS])) for t in texts]
    right = np.mean([b == c for b, c in zip(best, classes, strict=True)])
    assert accuracy == 100 * right


def test_the_best_answer_of_all_examples_scores_a_hundred():
  best = [int(np.argmax([log_p(t, a) for a in ANSWERS])) for t in TEXTS]
  found = prompt_design.accuracies(toy.model(), [TEXTS], best, ANSWERS)
  assert found == [100.0]
