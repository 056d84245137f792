"""Every file that is read, damaged in many ways: a clear error or the same.

Files that carry hashes give an error, the values that were written, or a
notice; files of other programs carry none, so a number in them may be another
one, but whatever they hold, the error is one that names the file.
"""

from collections.abc import Callable
import dataclasses
import json
import logging
import pathlib
import shutil
import zipfile

import damage
import jax
import numpy as np
import places
import pytest
import tiny_t5

from prompt_tuning import run_folder, storage
from prompt_tuning.frozen import pretrained
from prompt_tuning.model import t5
from prompt_tuning.prompts import adapters, checkpoints, conversion, multitask
from prompt_tuning.study import results
from prompt_tuning.study.trials import Trial
from prompt_tuning.tasks.rows import own_files
from prompt_tuning.vocabulary import Vocabulary

TEXT = "the cat sat on the mat"
RECORD = {"task": "boolq", "model": {"source": "x", "hash": "1" * 64}}
SETTINGS = {"BATCH_SIZE": 8, "SEEDS": [0, 1], "OPTIMIZER": "adafactor"}


@dataclasses.dataclass(frozen=True)
class Kind:
  """A file that is read.

  Attributes:
    file: its name in the folder.
    write: makes the folder.
    read: reads the folder; equal values are equal.
    has_hash: whether a change is noticed.
  """

  file: str
  write: Callable[[pathlib.Path], object]
  read: Callable[[pathlib.Path], object]
  has_hash: bool = True

  @property
  def is_json(self) -> bool:
    return self.file.endswith((".json", ".jsonl", ".zarray", "_METADATA"))


def _model(vocabulary=None) -> pretrained.FrozenModel:
  vocabulary = vocabulary or tiny_t5.vocabulary()
  return pretrained.random(tiny_t5.config(), vocabulary)


def _save_model(to: str):
  return lambda folder: pretrained.save(folder, _model(), to)


def _save_shards(folder) -> None:
  from prompt_tuning.frozen import huggingface

  model = _model()
  huggingface.save(
    folder,
    model.config,
    model.params,
    vocabulary=model.vocabulary,
    shard_bytes=4000,
  )


def _save_tokenizer(folder) -> None:
  shutil.copytree(places.GOLDEN / "tokenizers", folder, dirs_exist_ok=True)
  model = _model(Vocabulary(str(folder / "tokenizer.json")))
  pretrained.save(folder, model, "huggingface")
  shutil.copy(places.GOLDEN / "tokenizers" / "tokenizer_config.json", folder)


def _load_model(folder):
  """Weights, configuration and ids; the shapes of its network."""
  model = pretrained.load(folder)
  ids = model.vocabulary and (
    model.vocabulary.encode(TEXT),
    model.vocabulary.decode(range(3, 40)),
    model.vocabulary.size,
  )
  tokens = jax.ShapeDtypeStruct((1, 4), np.int32)
  jax.eval_shape(
    t5.T5(model.config).apply, {"params": model.params}, tokens, tokens
  )
  return model.stored_hash, model.config, ids


def _save_prompt(folder) -> None:
  checkpoints.save_prompt(folder, tiny_t5.rows(5, 16), RECORD)


def _save_deep(folder) -> None:
  tensors = {
    "embedding": tiny_t5.rows(5, 16),
    "decoder_embedding": tiny_t5.rows(3, 16),
  }
  checkpoints.save_prompt(folder, tensors, RECORD)


def _load_deep(folder):
  saved = checkpoints.load_prompt(folder)
  conversion.convert(saved, folder.parent / "copied", "prompt-tuning")
  record = json.dumps(saved.record, sort_keys=True)
  return storage.tree_hash(dict(saved.tensors)), record


def _load_prompt(folder):
  saved = checkpoints.load_prompt(folder)
  assert saved.name is not None
  base = "" if (saved.record.get("model") or {}).get("source") else "base"
  conversion.convert(saved, folder.parent / "converted", "peft", base)
  return saved.values.tobytes(), json.dumps(saved.record, sort_keys=True)


def _save_shared(folder) -> None:
  module = multitask.MultiTask(5, 16, 2)
  first = module.first_parameters(tiny_t5.rows(2, 5, 16))
  multitask.save_shared(folder, module, first)


def _load_shared(folder):
  method = multitask.multi_task(start_from=folder)
  first = method(5, 16, 1).first_parameters(tiny_t5.rows(1, 5, 16))
  return storage.tree_hash(first)


def _load_bare(name):
  def read(folder):
    values = checkpoints.load_prompt(folder / name).values
    return values.tobytes()

  return read


def _save_bare(folder) -> None:
  values = tiny_t5.rows(5, 16)
  np.save(folder / "soft.npy", values)
  np.savez(folder / "soft.npz", prompt=values)
  np.savez_compressed(folder / "packed.npz", prompt=values)
  storage.save_tensors(folder / "soft.safetensors", {"prompt": values}, {})


def _save_adapter(folder) -> None:
  adapters.save(folder, tiny_t5.rows(5, 16), "base", RECORD)


def _run(folder) -> run_folder.RunFolder:
  return run_folder.RunFolder(folder, SETTINGS)


TREE = {"prompt": tiny_t5.rows(2, 3, 16), "state": {"step": np.int32(7)}}


def _save_run(folder) -> None:
  with _run(folder).alone() as run:
    for step in (1, 2, 3):
      run.log(step, "a", {"loss": 0.5 / step})
    run.save(3, TREE, {"best": [1.0, None], "names": ["a"]})


def _load_run(folder):
  with _run(folder).alone() as run:
    run.metrics()
    found = run.restore(TREE)
  assert found is not None
  step, tree, record = found
  return step, storage.tree_hash(tree), json.dumps(record)


def _save_study(folder) -> None:
  row = {
    "run": dataclasses.asdict(Trial("microworld_a")),
    "scores": {"microworld_a": {"accuracy": 50.0}},
    "summary": {"best": {"accuracy": 51.0}},
    "parameters": 10,
    "seconds": 6.0,
    "machine": "2 cores of paper",
    "model_hash": "0" * 64,
    "versions": {"jax": "1"},
  }
  storage.write_jsonl(folder / "results.jsonl", [row, row])


def _load_study(folder):
  return [
    results.trial_of(row) for row in results.load(folder / "results.jsonl")
  ]


ROWS = [
  {"a": f"It is {i}.", "b": 'Is "it"?', "label": i % 2} for i in range(12)
]
SQUAD = {
  "data": [
    {
      "paragraphs": [
        {
          "context": "A b.",
          "qas": [
            {
              "id": "1",
              "question": "c?",
              "answers": [{"text": "b"}, {"text": "A b"}],
            }
          ],
        }
      ]
    }
  ]
}


def _save_rows(folder) -> None:
  storage.write_jsonl(folder / "rows.jsonl", ROWS)
  storage.write_json(folder / "rows.json", ROWS)
  storage.write_json(folder / "squad.json", SQUAD)
  for name, sign in (("rows.csv", ","), ("semi.csv", ";"), ("rows.tsv", "\t")):
    lines = [sign.join(("a", "b", "label"))]
    lines += [sign.join((r["a"], "Is it?", str(r["label"]))) for r in ROWS]
    storage.write_text(folder / name, "\n".join(lines) + "\n")


def _load_rows(name: str):
  squad = {"template": "{question} {context}", "target": "answers"}
  usual = {
    "template": "{b} {a}",
    "target": "label",
    "labels": ("0=no", "1=yes"),
  }

  def read(folder):
    data = own_files.OwnData(
      train=str(folder / name),
      validation=None,
      test=None,
      **(squad if name.startswith("squad") else usual),
    )
    return data.examples("train")

  return read


def _save_golden_checkpoint(folder) -> None:
  with zipfile.ZipFile(places.GOLDEN / "t5x_checkpoints.zip") as archive:
    archive.extractall(folder)


CHECKPOINT = "checkpoint_0"
KERNEL = f"{CHECKPOINT}/target.encoder.layers_0.attention.query.kernel"
MODEL = (_save_model("prompt-tuning"), _load_model)
OTHER = (_save_model("huggingface"), _load_model)
T5X = (_save_model("t5x"), lambda folder: _load_model(folder / CHECKPOINT))
PROMPT = (_save_prompt, _load_prompt)
RUN = (_save_run, _load_run)
STEP = "checkpoints/step_00000003.safetensors"

KINDS = [
  Kind("config.json", *MODEL),
  Kind("weights.safetensors", *MODEL),
  Kind("vocabulary.model", *MODEL),
  Kind("prompt.npy", *PROMPT),
  Kind("prompt.json", *PROMPT),
  Kind("prompt.safetensors", _save_deep, _load_deep),
  Kind("prompt.json", _save_deep, _load_deep),
  Kind(multitask.FILE, _save_shared, _load_shared),
  Kind(STEP, *RUN),
  Kind("settings.json", *RUN),
  Kind("metrics.jsonl", *RUN),
  Kind("model.safetensors", *OTHER),
  Kind("config.json", *OTHER, has_hash=False),
  Kind("tokenizer_config.json", *OTHER, has_hash=False),
  Kind("spiece.model", *OTHER, has_hash=False),
  Kind("tokenizer.json", _save_tokenizer, _load_model, has_hash=False),
  Kind("tokenizer_config.json", _save_tokenizer, _load_model, has_hash=False),
  Kind("model.safetensors.index.json", _save_shards, _load_model),
  Kind(f"{CHECKPOINT}/checkpoint", *T5X),
  Kind(f"{CHECKPOINT}/tensor_sha256.json", *T5X),
  Kind(f"{KERNEL}/.zarray", *T5X),
  Kind(f"{KERNEL}/0.0", *T5X),
  Kind("adapter_config.json", _save_adapter, _load_prompt, has_hash=False),
  Kind("adapter_model.safetensors", _save_adapter, _load_prompt),
  Kind("soft.safetensors", _save_bare, _load_bare("soft.safetensors")),
  *(
    Kind(name, _save_bare, _load_bare(name), has_hash=False)
    for name in ("soft.npy", "soft.npz", "packed.npz")
  ),
  Kind("results.jsonl", _save_study, _load_study, has_hash=False),
  *(
    Kind(name, _save_rows, _load_rows(name), has_hash=False)
    for name in (
      *("rows.jsonl", "rows.json", "squad.json", "rows.csv", "semi.csv"),
      "rows.tsv",
    )
  ),
]


def _outcome(kind: Kind, folder: pathlib.Path, whole, caplog) -> str:
  """What came of reading a damaged file; "" for what is right."""
  caplog.clear()
  try:
    value = kind.read(folder)
  except (ValueError, FileNotFoundError) as error:
    names = str(folder) in str(error) or kind.file in str(error)
    return "" if names else f"the error names no file: {error!r:.300}"
  except Exception as error:
    return f"{type(error).__name__}: {error!s:.300}"
  if value != whole and kind.has_hash and not caplog.messages:
    return "other values were read in silence"
  return ""


@pytest.mark.parametrize(
  "count", [12, pytest.param(400, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.file)
def test_a_damaged_file_is_an_error_by_name_or_reads_the_same(
  kind, count, tmp_path, caplog
):
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  whole.mkdir()
  kind.write(whole)
  content = (whole / kind.file).read_bytes()
  shutil.copytree(whole, broken)
  expected = kind.read(broken)
  bad = []
  with caplog.at_level(logging.WARNING):
    for seed in range(count):
      shutil.rmtree(broken)
      shutil.copytree(whole, broken)
      changed = damage.mutated(content, seed, is_json=kind.is_json)
      (broken / kind.file).write_bytes(changed)
      outcome = _outcome(kind, broken, expected, caplog)
      if outcome:
        bad.append(f"seed {seed}: {outcome}")
  assert not bad, f"{len(bad)} of {count}\n" + "\n".join(bad[:12])
