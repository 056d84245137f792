import toy_tasks

from prompt_tuning.prompts import checkpoints
from prompt_tuning.training import tuning


def test_one_call_tunes_a_prompt_that_predicts(tmp_path):
  model = toy_tasks.model()
  prompted = tuning.tune(
    model,
    toy_tasks.CAT,
    tmp_path,
    steps=6,
    prompt_length=4,
    lengths=toy_tasks.LENGTHS,
  )
  saved = checkpoints.load_prompt(tmp_path, model)
  assert saved.record["steps"] == 6 and saved.values.shape == (4, 16)
  (shared,) = prompted.prompts
  assert (shared.values == saved.values).all()
  assert len(prompted.predict(["the cat sat", "a dog"])) == 2
