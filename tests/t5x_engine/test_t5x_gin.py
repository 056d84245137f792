"""gin/t5x without t5x: every file is parsed against t5x's recorded parameters.

`golden/t5x_configurables.json` is what t5x itself says (see
`golden/make_t5x_configurables.py`). A stand-in with those names and parameters
takes its place here, so a binding that t5x would refuse fails.
"""

import itertools
import json
import re
import subprocess
import sys

import places
import pytest
import t5x_peer

HERE = places.TESTS
GIN = HERE.parent / "gin"
RECORDED = HERE / "golden" / "t5x_configurables.json"
MAKERS = sorted(path.name for path in (HERE / "golden").glob("make_t5x_*.py"))
MODELS = sorted(
  path.name
  for path in (GIN / "t5x" / "models").glob("*.gin")
  if path.name != "network.gin"
)
PODS = sorted(path.name for path in (GIN / "t5x" / "pods").glob("*.gin"))
PROMPTS = sorted(path.name for path in (GIN / "prompts").glob("*.gin"))
METHODS = sorted(path.name for path in (GIN / "methods").glob("*.gin"))
RUNS = {
  "train": ("prompt_tuning.gin", "model_tuning.gin"),
  "eval": ("eval.gin",),
  "infer": ("infer.gin",),
  "export": ("export.gin",),
}
GIVEN = (
  "INITIAL_CHECKPOINT_PATH",
  "MIXTURE_OR_TASK_NAME",
  "MODEL_DIR",
  "EVAL_OUTPUT_DIR",
  "INFER_OUTPUT_DIR",
  "MODEL_OUTPUT_DIR",
  "PROMPT_FILE",
  "PROMPT_TEXT",
)
"""All that a command line has to give; gin refuses a macro without a value."""
FLAGS = [f"{name} = 'given'" for name in GIVEN]
CHOICES = (
  ("train", "OPTIMIZER = @optimizers.adamw()"),
  ("train", "LEARNING_RATE = @optimizers.warmup_cosine()"),
  ("train", "optimizers.warmup_cosine.peak = 0.1"),
  ("train", "NETWORK = @t5x_models.own_network()"),
  ("train", "DECODE_FN = @decoding.beam_search"),
  ("infer", "DECODE_FN = @decoding.beam_search"),
  ("eval", "NUM_DECODES = 4"),
)
"""What docs/t5x.md has users say on the command line."""
WRONG = (
  "utils.SaveCheckpointConfig.perod = 1",
  "train_script.train.total_step = 1",
  "t5x_restore.for_training.pathh = ''",
  "utils.SaveChekpointConfig.period = 1",
)

# Runs in a process of its own: gin's registry and sys.modules are global.
PARSER = """
import json, sys, types

recorded = json.load(open(sys.argv[1]))

def function(name, parameters):
  code = f"def {name}({', '.join(p + '=None' for p in parameters)}): pass"
  scope = {}
  exec(code, scope)
  return scope[name]

def stand_in(name, about):
  if about["kind"] == "function":
    return function(name, about["parameters"])
  init = function("__init__", ["self", *about["parameters"]])
  return type(name, (), {"__init__": init, "_RULES": {}})

def module(name):
  if name not in sys.modules or not name.startswith("t5x"):
    sys.modules[name] = types.ModuleType(name)
    parent, _, last = name.rpartition(".")
    if parent:
      setattr(module(parent), last, sys.modules[name])
  return sys.modules[name]

for name, things in recorded.items():
  for thing, about in things.items():
    made = stand_in(thing, about)
    made.__module__ = name
    setattr(module(name), thing, made)

import gin

folder, jobs = sys.argv[2], json.loads(sys.argv[3])
gin.add_config_file_search_path(folder)
for script, files, bindings in jobs:
  script = "t5x." + script
  for thing in recorded.get(script, {}):
    setattr(sys.modules["__main__"], thing, getattr(sys.modules[script], thing))
  gin.clear_config()
  try:
    gin.parse_config_files_and_bindings(files, bindings, skip_unknown=False)
    print(json.dumps([None]))
  except Exception as error:
    print(json.dumps([f"{type(error).__name__}: {error}"]))
"""


def parsed(jobs: list) -> list[str | None]:
  """What is wrong with each (launcher, files, bindings)."""
  done = subprocess.run(
    [sys.executable, "-c", PARSER, RECORDED, GIN, json.dumps(jobs)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
  return [json.loads(line)[0] for line in lines]


def combinations() -> list:
  """Every model, prompt and run that belong together."""
  found = []
  for model, (script, runs) in itertools.product(MODELS, RUNS.items()):
    for run in runs:
      prompt = ["prompts/vocabulary.gin"] * (run == "prompt_tuning.gin")
      files = [f"t5x/models/{model}", *prompt, f"t5x/runs/{run}"]
      found.append((script, files, FLAGS))
  for prompt, freezing in itertools.product(PROMPTS, (False, True)):
    extra = ["t5x/runs/multi_optimizer.gin"] * freezing
    files = [f"prompts/{prompt}", "t5x/runs/prompt_tuning.gin", *extra]
    found.append(("train", ["t5x/models/t5_1_1_small.gin", *files], FLAGS))
  for method in METHODS:
    files = [*found[0][1], f"methods/{method}"]
    found.append(("train", files, FLAGS))
  for pod in PODS:
    files = [*found[0][1], f"t5x/pods/{pod}"]
    found.append(("train", files, FLAGS))
  for script, binding in CHOICES:
    run = {"train": "prompt_tuning.gin"}.get(script, f"{script}.gin")
    prompt = ["prompts/vocabulary.gin"] * (script == "train")
    files = ["t5x/models/t5_1_1_small.gin", *prompt, f"t5x/runs/{run}"]
    found.append((script, files, [*FLAGS, binding]))
  return found


NEEDED = {
  "train": ("INITIAL_CHECKPOINT_PATH", "MIXTURE_OR_TASK_NAME", "MODEL_DIR"),
  "eval": ("MIXTURE_OR_TASK_NAME", "EVAL_OUTPUT_DIR"),
  "infer": ("MIXTURE_OR_TASK_NAME", "INFER_OUTPUT_DIR"),
  "export": ("MODEL_OUTPUT_DIR",),
}
"""What gin asks for; a checkpoint to predict with is asked for by for_inference
of t5x_restore."""


def without() -> list:
  """A launcher's files with all that it needs but one."""
  files = {script: files for script, files, _ in combinations()}
  return [
    (script, files[script], [f for f in FLAGS if not f.startswith(name)])
    for script, names in NEEDED.items()
    for name in names
  ]


@pytest.fixture(scope="module")
def results() -> tuple[list, list, list]:
  """Of the files as they are, of wrong bindings, and without a needed one."""
  right, less = combinations(), without()
  wrong = [("train", right[0][1], [*FLAGS, binding]) for binding in WRONG]
  found = parsed([*right, *wrong, *less])
  first, last = len(right), len(right) + len(wrong)
  return (
    list(zip(right, found, strict=False)),
    found[first:last],
    found[last:],
  )


def test_every_file_of_gin_t5x_is_parsed(results):
  used = {name for (_, files, _), _ in results[0] for name in files}
  texts = "\n".join(path.read_text() for path in (GIN / "t5x").rglob("*.gin"))
  used |= set(re.findall(r'^include "(t5x/.+)"$', texts, re.MULTILINE))
  have = {str(path.relative_to(GIN)) for path in (GIN / "t5x").rglob("*.gin")}
  assert used >= have


def test_every_model_prompt_and_run_fit_t5x(results):
  wrong = [f"{' '.join(job[1])}: {error}" for job, error in results[0] if error]
  assert not wrong, "\n".join(wrong)


def test_a_renamed_binding_is_found(results):
  for binding, error in zip(WRONG, results[1], strict=True):
    name = binding.partition(" ")[0].split(".")
    assert error and (name[1] in error or name[2] in error), binding


def test_what_a_run_needs_is_asked_for_in_a_line(results):
  """gin would put its sentence in front of the whole configuration."""
  names = [name for names in NEEDED.values() for name in names]
  for name, said in zip(names, results[2], strict=True):
    assert said.startswith(f"ValueError: {name}/macro.value set to `%gin.")
    assert "\n" not in said


@t5x_peer.needed(
  "golden/t5x_configurables (test_every_file_of_gin_t5x_is_parsed)"
)
def test_the_record_is_what_t5x_says():
  sys.path.insert(0, str(HERE / "golden"))
  import make_t5x_configurables as maker

  recorded = json.loads(RECORDED.read_text())
  for module, names in recorded.items():
    for name, about in names.items():
      assert maker.described(module, name) == about, f"{module}.{name}"
  wanted = maker.names_in_gin() | maker.names_in_code()
  assert wanted == {(m, n) for m, names in recorded.items() for n in names}


@t5x_peer.needed(
  "what they made before (golden/t5x_runs in test_t5x_runs, golden/t5x_network "
  "in test_t5x_network, golden/t5x_checkpoints in test_what_t5x_wrote_is_read)"
)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_maker_of_golden_values_finds_what_it_imports(maker):
  path = HERE / "golden" / maker
  code = f"import runpy; runpy.run_path({str(path)!r}, run_name='imported')"
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr[-3000:]
