import numpy as np
import tiny_t5
import toy_tasks

from prompt_tuning.data import splits
from prompt_tuning.inference import infer, prompt_design
from prompt_tuning.model import t5

TEXTS = ["the cat sat", "a dog ran", "the red house", "the mat"]
ANSWERS = ["yes", "no"]


def log_p(text, answer):
  """From teacher forcing on one example."""
  vocabulary = tiny_t5.vocabulary()
  ids = [*vocabulary.encode(answer), 1]
  # One shape for all, so that one program is compiled.
  source = infer.padded([[*vocabulary.encode(text), 1]], 48)
  target = infer.padded([ids], 8)
  logits = np.asarray(
    tiny_t5.jitted(t5.T5(tiny_t5.config()))(
      {"params": toy_tasks.model().params}, source, t5.shift_right(target)
    )[0],
    np.float64,
  )
  logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
  return logits[np.arange(len(ids)), ids].sum()


def test_accuracy_is_the_share_of_examples_whose_answer_is_likeliest():
  wordings = [TEXTS, [f"{text} ? yes or no" for text in TEXTS]]
  classes = [0, 1, 1, 0]
  found = prompt_design.accuracies(
    toy_tasks.model(), wordings, classes, ANSWERS, batch_size=3
  )
  for texts, accuracy in zip(wordings, found, strict=True):
    best = [int(np.argmax([log_p(t, a) for a in ANSWERS])) for t in texts]
    right = np.mean([b == c for b, c in zip(best, classes, strict=True)])
    assert accuracy == 100 * right


def test_the_best_answer_of_all_examples_scores_a_hundred():
  best = [int(np.argmax([log_p(t, a) for a in ANSWERS])) for t in TEXTS]
  found = prompt_design.accuracies(toy_tasks.model(), [TEXTS], best, ANSWERS)
  assert found == [100.0]


def test_examples_stand_in_front_in_the_same_words_with_their_answers():
  asking = prompt_design.wording("{input} Is it so?")
  shown = [("the cat sat", "yes"), ("a dog ran", "no")]
  assert prompt_design.with_examples(asking, shown)("the mat") == (
    "the cat sat Is it so? yes a dog ran Is it so? no the mat Is it so?"
  )
  assert prompt_design.with_examples(asking, [])("the mat") == asking("the mat")


def test_drawn_examples_take_the_labels_in_turn_and_differ_by_seed():
  examples = splits.load(toy_tasks.CAT, "train", toy_tasks.LENGTHS)
  own = set(zip(examples.input_texts(), examples.target_texts(), strict=True))
  drawn = prompt_design.draw(examples, 4, seed=0)
  assert set(drawn) <= own
  assert sorted(label for _, label in drawn) == ["no", "no", "yes", "yes"]
  assert drawn == prompt_design.draw(examples, 4, seed=0)
  assert drawn != prompt_design.draw(examples, 4, seed=1)
  assert prompt_design.draw(examples, 0, seed=0) == []


def test_the_wording_is_chosen_on_validation_and_scored_on_test():
  model = toy_tasks.model(seed=2)
  validation, test = (
    splits.load(toy_tasks.CAT, split, toy_tasks.LENGTHS)
    for split in ("validation", "test")
  )
  templates = ["dog {input} red", "{input}", "mat mat {input}"]
  wordings = [prompt_design.wording(template) for template in templates]

  def best(choose_by, report):
    return prompt_design.best_of(
      model,
      wordings,
      choose_by,
      report,
      answers=["cat", "dog"],
      labels=["yes", "no"],
    )

  def accuracies(found):
    return [metrics["accuracy"] for metrics in found.by_wording]

  on_validation = accuracies(best(validation, validation))
  found = best(validation, test)
  chosen = on_validation.index(max(on_validation))
  assert found.metrics == found.by_wording[chosen]
  # Neither the first wording nor the one that is best on test.
  assert accuracies(found)[chosen] < max(accuracies(found))
  assert chosen > 0
