"""The paper's questions as lists of trials, in miniature on the microworld.

    size, length, initialization, pretraining    figures 1 and 3
    transfer, ensemble, meaning                  tables 2 and 3, section 7
    comparison                                   three ways side by side
    transfer_spot, methods                       of other papers: SPoT, and what
                                                 else may train

`study` runs them, `ways` knows what a trial does, `report` lays out the rows.
"""

import dataclasses
import itertools

from prompt_tuning.frozen.pretrained import SHIPPED
from prompt_tuning.study import methods
from prompt_tuning.study.trials import (
  DESIGN,
  ENSEMBLE,
  LABELS,
  METHOD,
  MODEL,
  MULTITASK,
  OWN_WORDS,
  PROMPT,
  RANDOM,
  SAMPLED,
  SOURCE,
  Pretraining,
  Study,
  Trial,
  designed,
  grid,
  tuned_models,
)
from prompt_tuning.tasks import microworld

SEEDS = (0, 1, 2)
FIVE = (0, 1, 2, 3, 4)  # where the seeds differ most
THREE = microworld.MULTITASK
PAIR = THREE[:2]


def _size(
  width: int, heads: int, layers: int, parameters: int, minutes: int, *more: str
) -> Pretraining:
  """A T5 of another size, but for `more` pre-trained as the one that ships."""
  return Pretraining(
    f"width_{width}",
    "demo/pretrain_sizes.gin",
    (
      f"EMB_DIM={width}",
      f"NUM_HEADS={heads}",
      f"HEAD_DIM={width // heads}",
      f"MLP_DIM={2 * width}",
      f"NUM_LAYERS={layers}",
      *more,
    ),
    parameters,
    minutes,
  )


SIZES = (
  _size(32, 2, 1, 131_424, 12),
  _size(64, 4, 2, 410_624, 25),
  # At 1e-3, the others' rate, it does not learn to compare two sentences.
  _size(192, 6, 4, 4_182_528, 105, "LEARNING_RATE=5e-4"),
)
EVERY_SIZE = (SHIPPED, *(model.name for model in SIZES))
_SHIPPED = 1_608_064  # parameters

CORRUPTED = "span_corruption"
ADAPTATION_STEPS = (600, 1800, 5400)


def _adapted(steps: int) -> str:
  return f"{CORRUPTED}_and_{steps}_steps_of_LM"


PRETRAININGS = (
  Pretraining(CORRUPTED, "demo/pretrain_span_corruption.gin", (), _SHIPPED, 70),
  *(
    Pretraining(
      _adapted(steps),
      "demo/adapt_microworld.gin",
      (
        f"INITIAL_CHECKPOINT_PATH={{models}}/{CORRUPTED}/model",
        f"ADAPTATION_STEPS={steps}",
      ),
      _SHIPPED,
      max(steps // 250, 1),
    )
    for steps in ADAPTATION_STEPS
  ),
)

SIZE = Study(
  "size",
  "Does prompt tuning close the gap to model tuning as the model grows?",
  "Figure 1: the gap closes with size; at XXL they match, and prompt design "
  "is far below.",
  grid(task=PAIR, seed=SEEDS, model=EVERY_SIZE)
  + tuned_models(task=PAIR, seed=SEEDS, way=(MODEL,), model=EVERY_SIZE)
  + designed(task=PAIR, way=(DESIGN,), model=EVERY_SIZE),
  x="parameters",
  series="title",
  kind="lines",
  x_label="parameters of the frozen model",
  models=SIZES,
)

LENGTH = Study(
  "length",
  "Does a longer prompt help?",
  "Figure 3a: longer is better up to 20 to 100 positions; at XXL one is "
  "enough.",
  grid(
    task=PAIR,
    seed=SEEDS,
    prompt_length=(1, 5, 20, 100, 150),
    initializer=(SAMPLED,),
  ),
  x="prompt_length",
  kind="lines",
  x_label="prompt positions",
)

INITIALIZATION = Study(
  "initialization",
  "What should a prompt start from?",
  "Figure 3b: class labels, then sampled vocabulary, then random uniform; no "
  "difference at XXL.",
  grid(task=PAIR, seed=SEEDS, initializer=(RANDOM, SAMPLED, LABELS)),
  x="initializer",
)

PRETRAINING = Study(
  "pretraining",
  "How must the frozen model be pre-trained?",
  "Figures 3c and 3d: LM adaptation is better than span corruption with a "
  "sentinel, and that than span corruption; more adaptation is better, up to "
  "100,000 steps.",
  grid(task=PAIR, seed=SEEDS, model=(CORRUPTED,))
  + grid(
    task=tuple(task + microworld.SENTINEL for task in PAIR),
    seed=SEEDS,
    model=(CORRUPTED,),
  )
  + grid(
    task=PAIR,
    seed=SEEDS,
    model=(*(_adapted(steps) for steps in ADAPTATION_STEPS), SHIPPED),
  ),
  x="pretraining",
  models=PRETRAININGS,
)

MRPC, QQP = "microworld_mrpc", "microworld_qqp"
_DIRECTIONS = (
  (MRPC, (MRPC, "microworld_mrpc_to_qqp")),
  (QQP, (QQP, "microworld_qqp_to_mrpc")),
)
TRANSFER = Study(
  "transfer",
  "Does a prompt stand a change of domain better than a tuned model?",
  "Table 2: QQP to MRPC 73.1 / 81.2 (accuracy / F1) by model tuning and 76.3 / "
  "84.3 by prompt tuning; MRPC to QQP 74.9 / 70.9 and 75.4 / 69.7.",
  tuple(
    trial
    for task, tests in _DIRECTIONS
    for shared in [{"task": (task,), "tests": (tests,), "seed": FIVE}]
    for trial in grid(**shared)
    + tuned_models(**shared, way=(MODEL,))
    + tuned_models(1e-3, **shared, way=(MODEL,), is_constant=(True,))
  ),
  x="title",
  metrics=("accuracy", "f1"),
  has_mean=False,
)

VOTE = Study(
  "ensemble",
  "Do five prompts on one frozen model vote better than the best of them?",
  "Table 3 (SuperGLUE, 5 prompts): average 90.5, best 91.0, ensemble 91.3.",
  grid(task=THREE, seed=SEEDS, way=(ENSEMBLE,), members=(5,)),
  x="way",
)

MEANING = Study(
  "meaning",
  "What does a prompt mean?",
  "Section 7: the nearest words of a position form clusters of one meaning, "
  "and class labels that a prompt starts from persist.",
  grid(
    task=(*THREE, "microworld_rte", "microworld_sst2", "microworld_plum"),
    seed=SEEDS,
  ),
  x="title",
  kind="matrix",
  has_mean=False,
)

COMPARISON = Study(
  "comparison",
  "How do prompt design, prompt tuning and model tuning compare?",
  "Figure 1: prompt design is far below both; model tuning (alone or on all "
  "tasks) is above prompt tuning until XXL.",
  designed(task=THREE, way=(DESIGN,))
  + designed(task=THREE, way=(DESIGN,), examples=(2, 4), seed=SEEDS)
  + designed(task=THREE, way=(OWN_WORDS,))
  + grid(task=THREE, seed=SEEDS)
  + tuned_models(task=THREE, seed=SEEDS, way=(MODEL,))
  + tuned_models(
    task=(microworld.MIXTURE,),
    seed=SEEDS,
    way=(MULTITASK,),
    steps=(600 * len(THREE),),
    tests=(THREE,),
  ),
  x="title",
)

FROM_SOURCES = Study(
  "transfer_spot",
  "With few examples, is a source task's prompt a better start?",
  "SPoT (Vu et al. 2022, not Lester et al.): it is, and the cosine of prompts "
  "tells which source task helps.",
  grid(
    task=(MRPC, "microworld_rte"),
    seed=SEEDS,
    way=(PROMPT, SOURCE),
    few=(32, 128, 512),
    steps=(200,),
    batch_size=(16,),
  ),
  x="few",
  series="way",
  kind="lines",
  x_label="training examples",
)

_BRIEFLY = {
  "task": PAIR[:1],
  "seed": FIVE,
  "way": (METHOD,),
  "steps": (200,),
  "batch_size": (16,),
}
_SMALL = ("IA3", MODEL)  # on a reduced grid


def _of_method(name: str) -> tuple[Trial, ...]:
  """Prompts of a method: IA3 has no places, and wants smaller updates."""
  length, rate = (0, 0.1) if name == "IA3" else (20, 0.3)
  return grid(
    **_BRIEFLY, method=(name,), prompt_length=(length,), learning_rate=(rate,)
  )


OTHERS = Study(
  "methods",
  "Which method is steadier than a plain prompt, and which is quicker?",
  "Of the papers of the methods: residual prompts are less sensitive to rate "
  "and start (Razdaibiedina et al. 2023), and each of the others claims more "
  "than plain ones with fewer numbers or as many.",
  tuned_models(**_BRIEFLY, method=(MODEL,))
  + tuple(itertools.chain(*map(_of_method, methods.MODULES))),
  x="title",
)

STUDIES = {
  study.name: study
  for study in (
    *(SIZE, LENGTH, INITIALIZATION, PRETRAINING),
    *(TRANSFER, VOTE, MEANING, COMPARISON, FROM_SOURCES, OTHERS),
  )
}

_STAGES = ("belonging", "comparing", "everything", "adaptation")
_TINY = (
  "PROBES=None",
  "BATCH_SIZE=4",
  "LENGTHS=(32, 8)",
  "t5.T5Config.emb_dim=32",
  "t5.T5Config.mlp_dim=32",
  "t5.T5Config.num_encoder_layers=1",
  "t5.T5Config.num_decoder_layers=1",
  *(f"{stage}/pretrain.Stage.steps=1" for stage in _STAGES),
)


def reduced(study: Study) -> Study:
  """The same study on a grid that takes a minute: to see that all of it works.

  Two seeds of prompts, a task (two where they are compared), two values of a
  figure's x, 4 updates of 8 examples, 32 test examples.
  """
  values = dict.fromkeys(_x(study, trial) for trial in study.trials)
  tasks = dict.fromkeys(trial.task for trial in study.trials)
  few = 1 if study.has_mean else 2
  kept = [
    dataclasses.replace(trial, steps=4, batch_size=8, scored=32)
    for trial in study.trials
    if trial.seed < (2 if trial.way == PROMPT else 1)
    and trial.task in [*[*tasks][:few], microworld.MIXTURE]
    and (study.kind != "lines" or _x(study, trial) in [*values][:2])
    and trial.method in ("", *_SMALL)
    and trial.model in (SHIPPED, *(m.name for m in study.models[:1]))
  ]
  models = tuple(
    dataclasses.replace(model, bindings=model.bindings + _TINY, minutes=1)
    for model in study.models[:1]
  )
  return dataclasses.replace(study, trials=tuple(kept), models=models)


def _x(study: Study, trial: Trial):
  """The value of x as far as it is known before a trial."""
  return trial.model if study.x == "parameters" else getattr(trial, study.x)
