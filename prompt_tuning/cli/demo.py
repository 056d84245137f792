"""The demo: the whole job on the model that ships, in minutes on a CPU.

score no prompt and hand-written prompts -> tune one prompt per task, all
together -> compare -> look: hash, files, a mixed batch, nearest words
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import time

import numpy as np

from prompt_tuning import json_files, plots, storage
from prompt_tuning.data import splits
from prompt_tuning.frozen import pretrained
from prompt_tuning.inference import infer, prompt_design, prompted_model
from prompt_tuning.prompts import analysis, checkpoints, initializers
from prompt_tuning.tasks.microworld import prompts as microworld_prompts
from prompt_tuning.tasks.microworld.examples import LABELS, LENGTHS
from prompt_tuning.training import loop, optimizers, train

TASKS = ("microworld_twofact", "microworld_qqp")
# A quarter of the examples of `demo/prompt_tuning.gin` at a higher rate: the
# same scores in a quarter of the time.
STEPS, BATCH_SIZE, PEAK = 500, 16, 0.5
RESULTS = "results.json"


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The ways to do one task side by side, accuracies in percent."""

  task: str
  chance: float
  no_prompt: float
  by_hand: float
  prompt_tuning: float
  model_tuning: float | None


def demo(
  output: pathlib.Path,
  *,
  with_model_tuning: bool = False,
  names: Sequence[str] = TASKS,
  steps: int = STEPS,
) -> list[Comparison]:
  """Runs the demo, prints it and writes everything to `output`.

  Args:
    output: the folder.
    with_model_tuning: run model tuning too instead of quoting the results that
      ship.
    names: the tasks to tune prompts for, one prompt each.
    steps: updates.
  """
  # What there is before: a frozen model and the tasks' test splits.
  begin = time.monotonic()
  model = pretrained.load(pretrained.SHIPPED)
  before = storage.tree_hash(model.params)
  print(
    f"Frozen model  {model.source}: a T5 1.1 of {model.num_parameters:,} "
    f"parameters, {model.config.num_encoder_layers} + "
    f"{model.config.num_decoder_layers} layers, width {model.config.emb_dim}\n"
    f"              weights sha256 {model.stored_hash[:16]}…"
  )
  tests = {name: splits.load(name, "test", LENGTHS) for name in names}
  for name, examples in tests.items():
    print(f"\n{name}\n  input   {examples.input_texts()[0]}")
    print(f"  target  {examples.target_texts()[0]}")

  # What words alone reach, so that the prompts have something to beat.
  print("\nWithout training: five hand-written prompts, the first empty …")
  by_words = {name: designed(model, tests[name]) for name in names}

  # All prompts train as one bank, on one frozen model.
  print(f"Prompt tuning: {len(names)} prompts together, {steps} steps …")
  run = output / "prompt_tuning"
  tuned = train.train(
    model_dir=run,
    model=model,
    tasks=dataclasses.replace(tasks(names), batch_size=BATCH_SIZE),
    tuning=dataclasses.replace(
      prompt_tuning(steps), optimizer=optimizers.falling_adafactor(steps, PEAK)
    ),
    plan=loop.Plan(steps=steps, eval_every=max(steps // 5, 1)),
    decoding=infer.Decoding(max_length=LENGTHS["targets"]),
  )
  assert tuned.bank is not None
  size = tuned.bank[0].size
  print(
    f"  trained {size:,} numbers per task beside "
    f"{model.num_parameters:,} frozen ones "
    f"({100 * size / model.num_parameters:.2f} %)"
  )

  # The comparison; model tuning takes minutes more, so it is quoted by default.
  quoted = shipped_results()["tasks"]
  table = []
  for name, results in zip(names, tuned.results, strict=True):
    mark = quoted.get(name, {}).get("model_tuning")
    if with_model_tuning:
      print(f"Model tuning: {name} …")
      folder = output / "model_tuning" / name
      mark = model_tuning(model, name, folder, steps=steps)
    scores = (50.0, *by_words[name], accuracy(results), mark)
    table.append(Comparison(name, *scores))
  print("\n" + _table(table, quoted=not with_model_tuning) + "\n")
  scores = [dataclasses.asdict(comparison) for comparison in table]
  storage.write_json(output / "scores.json", scores)

  # What a prompt is: frozen weights that are the same, a small file, words.
  after = storage.tree_hash(model.params)
  same = "bit-identical" if after == before else "CHANGED"
  print(f"Frozen weights after training: {same}")
  folders = [run / "prompts" / name for name in names]
  folders = folders if len(names) > 1 else [run]
  file = folders[0] / checkpoints.ARRAY
  print(f"A task is a file: {file}, {file.stat().st_size:,} bytes")
  _show_mixed_batch(model, folders, [tests[name] for name in names])
  _show_words(model, folders[0])
  plots.scores(scores, output / "scores.png")
  print(f"\nPictures: {run / 'curves.png'}, {output / 'scores.png'}")
  print(_NEXT.format(folder=folders[0], task=names[0]))
  print(f"({time.monotonic() - begin:.0f} s)")
  return table


_NEXT = """
Try next:
  prompt-tuning train --gin_file=demo/prompt_tuning.gin \\
    --gin.MIXTURE_OR_TASK_NAME=microworld_cola --gin.MODEL_DIR=runs/cola
  prompt-tuning eval --gin_file=models/microworld.gin \\
    --gin_file=runs/eval.gin \\
    --gin.MIXTURE_OR_TASK_NAME={task} --gin.SPLIT=test \\
    --gin.PROMPT_PATH={folder} \\
    --gin.EVAL_OUTPUT_DIR=runs/test
  prompt-tuning train --help"""


def shipped_results() -> dict:
  """What `benchmarks/microworld.py` measured before: accuracies by task."""
  return json_files.read(pretrained.shipped_folder() / RESULTS)


def tasks(
  names: Sequence[str] | str, seeds: Sequence[int] = (0,)
) -> train.Tasks:
  """A task of the microworld, scored on its test split."""
  return train.Tasks(names, LENGTHS, seeds, test_splits=("test",))


def prompt_tuning(steps: int) -> train.Tuning:
  """Prompt tuning as in `demo/prompt_tuning.gin`."""
  return train.Tuning(
    optimizer=optimizers.falling_adafactor(steps),
    prompt_length=20,
    initializer=initializers.from_class_labels(),
  )


def model_tuning(
  model: pretrained.FrozenModel,
  name: str,
  folder: pathlib.Path,
  *,
  steps: int,
  seed: int = 0,
) -> float:
  """Test accuracy of tuning all weights on one task."""
  tuned = train.train(
    model_dir=folder,
    model=model,
    tasks=tasks(name, (seed,)),
    tuning=train.Tuning(
      optimizer=optimizers.falling_adamw(steps),
      trainable=(".*",),
      prompt_length=0,
    ),
    plan=loop.Plan(steps=steps, eval_every=max(steps // 5, 1)),
  )
  return accuracy(tuned.results[0])


def accuracy(results) -> float:
  """Of the test split."""
  return next(r.metrics["accuracy"] for r in results if r.split == "test")


def designed(model, examples: splits.Examples) -> tuple[float, float]:
  """Accuracy without a prompt and of the best hand-written prompt."""
  labels = LABELS[examples.task]
  classes = [labels.index(text) for text in examples.target_texts()]
  inputs = examples.input_texts()
  templates = microworld_prompts.HAND_PROMPTS[examples.task]
  wordings = [[t.format(input=text) for text in inputs] for t in templates]
  no_prompt, *by_hand = prompt_design.accuracies(
    model, [inputs, *wordings], classes, labels
  )
  return no_prompt, max(by_hand)


def _table(table: Sequence[Comparison], *, quoted: bool) -> str:
  """The comparisons as text."""
  mark = "model tuning*" if quoted else "model tuning"
  head = ("test accuracy, %", "chance", "no prompt", "best of 5 by hand")
  lines = [[*head, "prompt tuning", mark]]
  for task, *scores in map(dataclasses.astuple, table):
    cells = ("-" if score is None else f"{score:.1f}" for score in scores)
    lines.append([task, *cells])
  first, *others = (
    max(map(len, column)) for column in zip(*lines, strict=True)
  )
  texts = [
    "  ".join([task.ljust(first), *map(str.rjust, cells, others)])
    for task, *cells in lines
  ]
  if quoted:
    note = (
      "* measured before and shipped with the package; --model_tuning runs it"
    )
    texts.append(note)
  return "\n".join(texts)


def _show_mixed_batch(model, folders, tests: Sequence[splits.Examples]) -> None:
  """One batch in which every example brings the prompt of its own task."""
  prompted = prompted_model.PromptedModel(
    model, folders, infer.Decoding(max_length=LENGTHS["targets"])
  )
  chosen = [(n, i) for i in range(2) for n in range(min(2, len(tests)))]
  texts = [tests[n].input_texts()[i] for n, i in chosen]
  answers = prompted.predict(texts, [n for n, _ in chosen])
  print("\nOne batch, two tasks, each example with its own prompt:")
  for (n, i), text, answer in zip(chosen, texts, answers, strict=True):
    target = tests[n].target_texts()[i]
    print(f"  [{tests[n].task}] {text}\n    -> {answer}   (target {target})")


def _show_words(model: pretrained.FrozenModel, folder: pathlib.Path) -> None:
  """The nearest pieces of some positions of one prompt."""
  saved = checkpoints.load_prompt(folder, model)
  print(f"\nNearest words of the prompt of {saved.name} (cosine):")
  words = analysis.nearest_pieces(saved.values, model, 4)
  moved = np.argsort([-row[0].cosine for row in words])[:6]
  for position in sorted(moved):
    shown = ", ".join(
      f"{n.piece.lstrip('▁')} {n.cosine:.2f}" for n in words[position]
    )
    print(f"  position {position:2d}: {shown}")
