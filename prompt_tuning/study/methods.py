"""What trains in the study of methods, and the course that it took.

    trials of one method -> train, looking often -> the best of each trial
                         -> steps to most of its score, numbers, seconds a step

A step of a bank is one of all its prompts: its seconds are shared by them.
"""

from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

from prompt_tuning import run_folder
from prompt_tuning.frozen import pretrained
from prompt_tuning.model import freeze
from prompt_tuning.prompts import prompt, reparameterised
from prompt_tuning.prompts.inner import deep
from prompt_tuning.study import trials, tuned
from prompt_tuning.study.trials import Trial
from prompt_tuning.training import optimizers, train

PLAIN = "prompt tuning"
MODULES = {
  PLAIN: prompt.Prompt,
  "residual": reparameterised.residual(),
  "deep": deep.deep(),
  "IA3": deep.ia3(),
  "low rank": reparameterised.low_rank(),
  "ULPT": reparameterised.ulpt(),
  "superposition": reparameterised.superposition(),
  "decoder": deep.decoder(),
}
"""The prompts that are compared, with the settings of `gin/methods`."""

LOOKS = 8
"""Evaluations of a run: the steps to a score are known to such a part."""

MOST = 0.95
"""Of the final score: a run that is there is nearly done."""


class Compared(NamedTuple):
  """What came of the trials of a method.

  Attributes:
    trained: their run.
    courses: of each trial, `steps_to_most` (None where nothing was scored),
      `trained_numbers` and `step_seconds` (None where it was not timed).
  """

  trained: train.Trained
  courses: list[dict[str, Any]]


def compared(
  program: Sequence[Trial], model: pretrained.FrozenModel, folder: pathlib.Path
) -> Compared:
  """Trains the trials of a method, as its gin file does."""
  tuning = _tuning(program[0])
  trained = tuned.trained(program, model, folder, tuning, looks=LOOKS)
  metrics = run_folder.RunFolder(folder).metrics()
  names = list(dict.fromkeys(row["prompt"] for row in metrics))
  mask = prompt.trainable(freeze.mask(trained.params, tuning.trainable))
  numbers = freeze.count(freeze.split(trained.params, mask)[0]) // len(names)
  seconds = trained.step_seconds and trained.step_seconds / len(names)
  return Compared(
    trained,
    [
      {
        "steps_to_most": steps_to_most(
          [row for row in metrics if row["prompt"] == name]
        ),
        "trained_numbers": numbers,
        "step_seconds": seconds and round(seconds, 5),
      }
      for name in names
    ],
  )


def _tuning(trial: Trial) -> train.Tuning:
  """What trains, and by which updates."""
  if trial.method == trials.MODEL:
    return tuned.whole_model(trial)
  # Ones of IA3 do not shrink.
  decay = 1e-5 if trial.prompt_length else 0.0
  rate = optimizers.warmup_cosine(trial.learning_rate, trial.steps, warmup=1)
  return train.Tuning(
    optimizer=optimizers.adafactor(rate, decay),
    prompt_length=trial.prompt_length,
    initializer=tuned.INITIALIZERS[trial.initializer],
    module=MODULES[trial.method],
    select_by="accuracy",
  )


def steps_to_most(rows: Sequence[dict], metric: str = "accuracy") -> int | None:
  """After how many steps a score first was 95 % of the best of a run.

  Args:
    rows: of one prompt, from metrics.jsonl.
    metric: the score.
  """
  scores = {row["step"]: row[metric] for row in rows if metric in row}
  most = MOST * max(scores.values(), default=0.0)
  return min(
    (at for at, value in scores.items() if value >= most), default=None
  )
