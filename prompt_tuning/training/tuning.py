"""Prompt tuning in one call, for scripts and notebooks."""

from collections.abc import Mapping
import os

from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer, prompted_model
from prompt_tuning.prompts import initializers
from prompt_tuning.training import loop, optimizers, train

LENGTHS = {"inputs": 128, "targets": 8}


def tune(
  model: pretrained.FrozenModel,
  task: str,
  model_dir: str | os.PathLike,
  *,
  steps: int = 300,
  prompt_length: int = 20,
  lengths: Mapping[str, int] = LENGTHS,
) -> prompted_model.PromptedModel:
  """Tunes a prompt with the paper's optimizer and initialiser, resumably.

  Other settings are those of `train.train`, which this calls, and of the gin
  files.

  Args:
    model: the frozen model.
    task: a registered seqio task with the splits train and validation.
    model_dir: the run's folder; the best prompt on validation ends up there.
    steps: updates of batch 32; the paper takes 30,000.
    prompt_length: P; the paper takes 100.
    lengths: tokens of `inputs` and `targets`, EOS included.

  Returns:
    The frozen model with the prompt, ready to predict texts.
  """
  train.train(
    model_dir=model_dir,
    model=model,
    tasks=train.Tasks(task, lengths),
    tuning=train.Tuning(
      optimizer=optimizers.adafactor(),
      prompt_length=prompt_length,
      initializer=initializers.from_class_labels(),
    ),
    plan=loop.Plan(steps, eval_every=max(steps // 6, 1)),
  )
  decoding = infer.decoding_for(lengths)
  return prompted_model.PromptedModel(model, [model_dir], decoding)
