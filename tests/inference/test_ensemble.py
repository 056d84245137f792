"""The vote on cases worked out by hand, and prompts as one batch."""

import json

import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import cli
from prompt_tuning.data import splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.frozen.model_folder import save as save_model
from prompt_tuning.inference import ensemble, evaluate, infer, saved_ensemble
from prompt_tuning.model import decode
from prompt_tuning.prompts import checkpoints, prompted


def log(*rows):
  """Log-probabilities [N, 1, C] of one example from probabilities."""
  return np.log(np.array(rows, np.float32))[:, None, :]


def test_two_unsure_prompts_outvote_a_sure_one_but_not_on_average():
  scores = log((0.6, 0.4), (0.6, 0.4), (0.01, 0.99))
  assert ensemble.vote(scores).tolist() == [0]
  # (0.6 + 0.6 + 0.01) / 3 = 0.403 against 0.597
  assert ensemble.average(scores).tolist() == [1]


def test_a_tie_goes_to_the_larger_sum_of_log_probabilities():
  # 0.6 * 0.1 = 0.06 against 0.4 * 0.9 = 0.36
  assert ensemble.vote(log((0.6, 0.4), (0.1, 0.9))).tolist() == [1]
  # 0.9 * 0.4 = 0.36 against 0.1 * 0.6 = 0.06
  assert ensemble.vote(log((0.9, 0.1), (0.4, 0.6))).tolist() == [0]


def test_a_label_without_the_most_votes_wins_no_tie():
  scores = log(
    (0.5, 0.2, 0.4), (0.5, 0.1, 0.4), (0.1, 0.5, 0.4), (0.1, 0.5, 0.4)
  )
  # Labels 0 and 1 have two votes each and products of 0.0025 and 0.005; label 2
  # has the greatest product, 0.0256, and no vote.
  assert ensemble.vote(scores).tolist() == [1]


def test_the_average_is_over_probabilities_among_the_labels():
  # Rank scores need not add up to 1: (0.06, 0.04) is (0.6, 0.4).
  scores = log((0.06, 0.04), (0.0001, 0.0003))
  # (0.6 + 0.25) / 2 = 0.425
  assert ensemble.average(scores).tolist() == [1]
  assert ensemble.average(scores[:1]).tolist() == [0]


def test_every_example_has_its_own_vote():
  one = log((0.9, 0.1), (0.8, 0.2), (0.3, 0.7))
  other = log((0.2, 0.8), (0.6, 0.4), (0.3, 0.7))
  both = np.concatenate([one, other], axis=1)
  assert ensemble.vote(both).tolist() == [0, 1]


def test_texts_are_counted_and_ties_go_to_the_likelier_text():
  texts = [["a", "x"], ["b", "y"], ["a", "x"], ["b", "z"]]
  scores = np.array([[-1, -1], [-0.4, 0], [-1, -9], [-0.5, 0]], np.float32)
  # a: -2 against b: -0.9; x has two votes against one
  assert ensemble.vote_texts(texts, scores) == ["b", "x"]
  assert ensemble.vote_texts(texts) == ["a", "x"]


@pytest.fixture(scope="module")
def bank():
  """Prompts that answer the toy task differently."""
  return 3 * tiny_t5.rows(3, 4, 16, seed=1)


def together(bank, strategy, split="test"):
  model = toy_tasks.model()
  examples = splits.load(toy_tasks.CAT, split, toy_tasks.LENGTHS)
  several = prompted.with_prompts(model, list(bank))
  decoding = infer.Decoding(strategy, max_length=8, batch_size=5)
  votes = ensemble.evaluate_together(several, examples, decoding)
  sets = [examples] * len(bank)
  return votes, evaluate.Evaluator(several, sets, decoding=decoding)()


@pytest.mark.parametrize("strategy", [decode.Rank(), decode.Greedy()])
def test_prompts_in_one_batch_answer_as_alone(bank, strategy):
  votes, alone = together(bank, strategy)
  assert votes.singles == [result.metrics for result in alone]
  pairs = zip(votes.answers, *(r.predictions for r in alone), strict=True)
  for answer, *written in pairs:
    most = max(map(written.count, written))
    assert written.count(answer) == most


def test_an_ensemble_of_one_prompt_three_times_is_that_prompt(bank):
  votes, alone = together(np.stack([bank[0]] * 3), decode.Rank())
  assert votes.answers == alone[0].predictions
  assert votes.vote == votes.average == alone[0].metrics


def test_the_summary_is_average_best_and_ensemble():
  examples = splits.load(toy_tasks.CAT, "test", toy_tasks.LENGTHS)
  votes = ensemble.Votes(
    examples,
    [{"accuracy": 80.0}, {"accuracy": 90.0}, {"accuracy": 82.0}],
    {"accuracy": 88.0},
    {"accuracy": 89.0},
    [],
  )
  assert votes.summary() == {
    "average": {"accuracy": 84.0},
    "best": {"accuracy": 90.0},
    "ensemble": {"accuracy": 88.0},
    "probability average": {"accuracy": 89.0},
  }
  assert "| ensemble | 88.0 |" in ensemble.table(votes)


def test_hidden_answers_have_no_scores_but_answers(tmp_path):
  examples = splits.load(toy_tasks.CAT, "test", toy_tasks.LENGTHS)
  answers = ["yes"] * len(examples)
  votes = ensemble.Votes(examples, [{}, {}], {}, None, answers, "greedy")
  assert ensemble.table(votes).endswith("greedy: no public answers")
  written = saved_ensemble.write(votes, tmp_path)
  (path,) = (written / "predictions").iterdir()
  assert len(path.read_text().splitlines()) == len(examples)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, bank):
  """A model folder, and three prompts of the toy task trained for it."""
  folder = tmp_path_factory.mktemp("ensemble")
  model = toy_tasks.model()
  save_model(
    folder / "model",
    model.config,
    model.params,
    vocabulary=tiny_t5.vocabulary(),
  )
  for n, values in enumerate(bank):
    record = {
      "task": toy_tasks.CAT,
      "model": {
        "source": str(folder / "model"),
        "hash": model.stored_hash,
      },
    }
    checkpoints.save_prompt(folder / f"prompt{n}", values, record)
  return folder


def command(saved, names, *more):
  prompts = [str(saved / name) for name in names]
  return cli.main(["ensemble", "--prompts", *prompts, *more])


def test_the_command_needs_nothing_but_prompts(saved, tmp_path, capsys):
  names = ["prompt0", "prompt1", "prompt2"]
  assert command(saved, names, "--output", str(tmp_path)) == 0
  printed = capsys.readouterr().out
  assert "toy_cat (validation), 3 prompts, greedy" in printed
  metrics = json.loads((tmp_path / "metrics.json").read_text())
  assert len(metrics["prompts"]) == 3 and metrics["decoding"] == "greedy"
  singles = [one["accuracy"] for one in metrics["prompts"]]
  assert metrics["average"]["accuracy"] == pytest.approx(np.mean(singles))
  assert metrics["best"]["accuracy"] == max(singles)
  file = tmp_path / "predictions" / "toy_cat-validation.jsonl"
  rows = [json.loads(line) for line in file.read_text().splitlines()]
  right = np.mean([row["target"] == row["prediction"] for row in rows])
  assert metrics["ensemble"]["accuracy"] == pytest.approx(100 * right)


def test_prompts_of_different_lengths_vote_together(saved, tmp_path, bank):
  record = checkpoints.load_prompt(saved / "prompt0").record
  long = 3 * tiny_t5.rows(9, 16, seed=7)
  checkpoints.save_prompt(saved / "longer", long, record)
  names = ["prompt0", "longer"]
  assert command(saved, names, "--output", str(tmp_path)) == 0
  metrics = json.loads((tmp_path / "metrics.json").read_text())
  alone = []
  for values in (bank[0], long):
    votes, _ = together(values[None], decode.Greedy(), "validation")
    alone += votes.singles
  assert metrics["prompts"] == alone


@pytest.mark.parametrize(
  "names, message",
  [
    (["prompt0"], "takes two or more prompts, got 1"),
    (["prompt0", "other"], "more than one task: toy_cat, toy_dog"),
    (["prompt0", "bare.npy"], "bare.npy does not say which model"),
    (["prompt0", "nothing"], "There is no prompt at"),
    (["prompt0", "prompt0"], "prompt0 is given twice"),
    (["prompt0", "."], "has no prompt.npy"),
    (["prompt0", "run"], "Its prompts are "),
    (["prompt0", "empty.npy"], "which is empty"),
  ],
)
def test_prompts_that_cannot_vote_are_refused(saved, names, message, capsys):
  record = checkpoints.load_prompt(saved / "prompt0").record
  kept = {"model": record["model"]}
  checkpoints.save_prompt(
    saved / "other", tiny_t5.rows(4, 16), {**kept, "task": toy_tasks.DOG}
  )
  np.save(saved / "bare.npy", tiny_t5.rows(4, 16))
  np.save(saved / "empty.npy", tiny_t5.rows(4, 16)[:0])
  checkpoints.save_prompt(
    saved / "run" / "prompts" / "seed0", tiny_t5.rows(4, 16), kept
  )
  assert command(saved, names) == 2
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--task", "microworld_multitask"], "is a mixture"),
    (["--task", "toy_bird"], "Did you mean"),
    (["--data", "x.csv"], "needs a --template"),
    (
      ["--data", "x.csv", "--template", "{a}", "--task", toy_tasks.CAT],
      "one of them",
    ),
  ],
)
def test_a_task_that_cannot_be_scored_is_refused(saved, flags, message, capsys):
  assert command(saved, ["prompt0", "prompt1"], *flags) == 2
  assert message in capsys.readouterr().err


def test_a_length_of_nothing_is_refused(saved, capsys):
  with pytest.raises(SystemExit):
    command(saved, ["prompt0", "prompt1"], "--lengths", "0", "8")
  assert "'0' is no positive whole number" in capsys.readouterr().err


def test_prompts_for_other_weights_may_be_tried(saved, tmp_path, capsys):
  other = pretrained.save(tmp_path / "other", toy_tasks.model(seed=1))
  given = ["prompt0", "prompt1"], "--model", str(other)
  assert command(saved, *given) == 2
  assert "--allow_other_model" in capsys.readouterr().err
  assert command(saved, *given, "--allow_other_model") == 0


def test_the_labels_are_ranked_where_it_is_asked(saved, bank, capsys):
  given = ["prompt0", "prompt1", "prompt2"], "--split", "test"
  assert command(saved, *given, "--decoding", "rank") == 0
  votes, _ = together(bank, decode.Rank())
  assert capsys.readouterr().out == ensemble.table(votes) + "\n"
  assert "probability average" in ensemble.table(votes)


def test_prompts_of_own_files_vote(saved, tmp_path, capsys):
  rows = [{"text": "the cat sat", "label": word} for word in ("cat", "dog")]
  file = tmp_path / "rows.jsonl"
  file.write_text("".join(json.dumps(row) + "\n" for row in rows))
  own = ["--validation", str(file), "--template", "{text}"]
  assert command(saved, ["prompt0", "prompt1"], *own) == 0
  assert "own_data (validation), 2 prompts" in capsys.readouterr().out
