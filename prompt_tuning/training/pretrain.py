"""Pre-training and LM adaptation of a T5 on text, by the same training loop.

    documents -> ids -> objective -> [B, T], [B, L] -> fit -> a model folder

The shipped microworld model was made by it; the same code adapts a model to a
user's own text.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import hashlib
import itertools
import os
from typing import Any

import jax
import numpy as np

from prompt_tuning import plots, run_folder
from prompt_tuning.data import objectives
from prompt_tuning.data.text import (
  Stage,
  TextBatches,
  lines,
  sentence_ends,
  staged,
)
from prompt_tuning.frozen import model_folder, pretrained
from prompt_tuning.model import forms, freeze, t5
from prompt_tuning.shapes import PAD
from prompt_tuning.training import loop, optimizers, step
from prompt_tuning.training.mimetic import mimetic

__all__ = ["Settings", "Stage", "lines", "mimetic", "pretrain", "sentence_ends"]
"""What gin files bind under the name of this module."""


@dataclasses.dataclass(frozen=True)
class Settings:
  """Numbers of a pre-training run.

  Attributes:
    batch_size: B.
    lengths: (T, L), input and target tokens with EOS.
    learning_rate: the peak.
    warmup: steps to the peak.
    num_documents: texts drawn for each stage.
    seed: of weights, texts and order.
    eval_every: steps between evaluations and checkpoints.
    save_dtype: of the weights in the model folder.
  """

  batch_size: int = 64
  lengths: tuple[int, int] = (48, 16)
  learning_rate: float = 1e-3
  warmup: int = 100
  num_documents: int = 200_000
  seed: int = 0
  eval_every: int = 500
  save_dtype: str = "float16"

  def plan(self, steps: int) -> loop.Plan:
    """When the loop evaluates and saves."""
    return loop.Plan(
      steps=steps, eval_every=self.eval_every, steps_per_dispatch=1
    )


def pretrain(
  *,
  model_dir: str | os.PathLike,
  start: pretrained.FrozenModel,
  stages: Sequence[Stage],
  settings: Settings,
  probes: Mapping[str, Callable[[int], Iterable[str]]] | None = None,
) -> loop.Outcome:
  """Pre-trains a T5 through all stages, resumably.

  The learning rate warms up and falls over all stages together. The result is
  a model folder `model/` inside the run's folder.

  Args:
    model_dir: the run's folder.
    start: the weights to begin with, and the vocabulary.
    stages: texts and objectives, one after the other.
    settings: numbers.
    probes: texts by name; at every evaluation it is measured how often the last
      sentence is predicted word for word.
  """
  forms.quantized.refuse(start.params, "pre-training trains them")
  vocabulary = start.require_vocabulary()
  total = sum(stage.steps for stage in stages)
  folder = run_folder.RunFolder(
    model_dir,
    {
      "start": start.stored_hash,
      "TRAIN_STEPS": [stage.steps for stage in stages],
      "texts and objectives of hash": _hash(stages, settings),
      **dataclasses.asdict(settings),
    },
  )
  optimizer = optimizers.adamw(
    optimizers.warmup_cosine(
      settings.learning_rate, total, warmup=settings.warmup
    ),
    b2=0.98,
    clip_norm=1.0,
  )
  # The steps of an optimizer are lost in the rounding of a narrower type.
  params = jax.tree.map(
    lambda leaf: leaf.astype(np.float32), forms.apart(start.params)
  )
  batches = staged(
    stages,
    vocabulary,
    batch_size=settings.batch_size,
    lengths=settings.lengths,
    num_documents=settings.num_documents,
    seed=settings.seed,
  )
  with folder.alone():
    outcome = loop.fit(
      step.Problem(t5.T5(start.config), optimizer),
      freeze.split(params, freeze.mask(params, (".*",))),
      batches,
      plan=settings.plan(total),
      folder=folder,
      evaluate=_prober(start, probes, settings) if probes else None,
    )
    with folder.writing():
      model_folder.save(
        folder.path / "model",
        start.config,
        jax.tree.map(np.asarray, outcome.last),
        vocabulary=vocabulary,
        dtype=settings.save_dtype,
      )
      plots.curves(_by_probe(folder.metrics()), folder.path / "curves.png")
  return outcome


def _hash(stages: Sequence[Stage], settings: Settings) -> str:
  """Of the objectives, and of the first texts that each stage would read."""
  digest = hashlib.sha256()
  for index, stage in enumerate(stages):
    is_plain = dataclasses.is_dataclass(stage.objective)
    digest.update(repr(stage.objective).encode() if is_plain else b"")
    texts = stage.documents(settings.seed + index)
    for text in itertools.islice(iter(texts), 1000):
      digest.update(f"{text}\n".encode())
  return digest.hexdigest()[:16]


def _prober(start: pretrained.FrozenModel, probes, settings: Settings):
  """Word-for-word accuracy of the last sentence, in percent, by probe."""
  vocabulary = start.require_vocabulary()
  objective = objectives.PrefixLM(1.0, sentence_ends(vocabulary))
  network = t5.T5(start.config)
  sets = {
    name: TextBatches(
      Stage(documents, objective, 1),
      vocabulary,
      batch_size=256,
      lengths=settings.lengths,
      num_documents=256,
      seed=settings.seed + 1_000_003,
    )(0)
    for name, documents in probes.items()
  }

  @jax.jit
  def exact(params, batch):
    targets = batch["targets"]
    logits: Any = network.apply(
      {"params": params}, batch["inputs"], t5.shift_right(targets)
    )
    right = (logits.argmax(-1) == targets) | (targets == PAD)
    return 100 * right.all(axis=1).mean()

  def evaluate(params):
    found = {name: float(exact(params, batch)) for name, batch in sets.items()}
    return [float(np.mean(list(found.values())))], [found]

  return evaluate


def _by_probe(rows: Sequence[dict]) -> list[dict]:
  """Lines of metrics.jsonl with one row per probe, for plotting."""
  return [
    {"step": row["step"], "prompt": name, "last sentence (%)": value}
    for row in rows
    if "loss" not in row
    for name, value in row.items()
    if name not in ("step", "prompt")
  ] + [row for row in rows if "loss" in row]
