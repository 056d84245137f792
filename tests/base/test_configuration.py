import dataclasses
import pathlib

import gin
import places
import pytest

from prompt_tuning import configuration, gin_macros, storage
from prompt_tuning.data import objectives
from prompt_tuning.model import freeze, t5, t5gemma
from prompt_tuning.training import loop, pretrain, train

FILES = sorted(
  str(path.relative_to(configuration.gin_folder()))
  for path in configuration.gin_folder().glob("[!t]*/*.gin")
)
MODELS = [f for f in FILES if f.startswith("models/t5_1_1")]
GEMMAS = [f for f in FILES if f.startswith("models/t5gemma")]
PROMPTS = [f for f in FILES if f.startswith("prompts/")]


pytestmark = pytest.mark.usefixtures("clean_gin")


def configure(files, *bindings, search_paths=()):
  configuration.configure(files, bindings, search_paths)


def test_there_are_gin_files_for_models_prompts_and_runs():
  assert (len(MODELS), len(GEMMAS), len(PROMPTS)) == (5, 8, 5)
  assert {"runs/eval.gin", "runs/infer.gin"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_parses_and_says_what_it_needs_and_sets(name):
  text = (configuration.gin_folder() / name).read_text()
  assert text.startswith("# ")
  assert "# needs: " in text and "# sets:  " in text
  configure([name])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("run", ["runs/prompt_tuning.gin"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_model_prompt_and_run_compose(model, prompt, run):
  needs = {"string.gin": ["PROMPT_TEXT=a b"], "file.gin": ["PROMPT_FILE=p.npy"]}
  given = needs.get(pathlib.Path(prompt).name, [])
  configure([model, prompt, run], "TRAIN_STEPS=7", *given)
  plan = gin.get_configurable(loop.Plan)()
  assert plan.steps == 7
  prompt = gin.get_configurable(train.Tuning)().initializer
  assert callable(prompt)


def test_prompt_tuning_has_the_papers_numbers():
  configure(["runs/prompt_tuning.gin"])
  settings = {
    "TRAIN_STEPS": 30_000,
    "BATCH_SIZE": 32,
    "PROMPT_LENGTH": 100,
    "LEARNING_RATE": 0.3,
    "WEIGHT_DECAY": 1e-5,
    "DROPOUT_RATE": 0.0,
  }
  assert {k: gin_macros.macro(k) for k in settings} == settings


@pytest.mark.parametrize("name", ["TokenDeletion", "TextInfilling"])
def test_an_objective_of_an_adaptation_is_a_macro(name, tmp_path):
  (tmp_path / "text.txt").write_text("a b\n")
  configure(
    ["models/microworld.gin", "runs/lm_adaptation.gin"],
    f"OBJECTIVE=@objectives.{name}()",
    f"objectives.{name}.noise_density=0.3",
    f"TEXT_FILE={str(tmp_path / 'text.txt')!r}",
  )
  stage = gin.get_configurable(pretrain.Stage)()
  assert stage.objective == getattr(objectives, name)(0.3)


def test_a_prompt_is_pulled_to_a_text_only_if_asked():
  files = ["prompts/vocabulary.gin", "runs/prompt_tuning.gin"]
  configure(files)
  assert gin.get_configurable(train.Tuning)().wayward_text is None
  gin.clear_config()
  configure(files, "WAYWARD_TEXT='Do {task}.'", "WAYWARD_GAMMA=0.1")
  found = gin.get_configurable(train.Tuning)()
  assert (found.wayward_text, found.wayward_gamma) == ("Do {task}.", 0.1)


def test_the_sizes_of_t5gemma_are_those_of_its_documentation():
  """Two layers of each stack are counted, and the others are like them."""
  text = (places.ROOT / "docs" / "models.md").read_text(encoding="utf-8")
  for model in GEMMAS:
    configure([model, "runs/prompt_tuning.gin"])
    whole = gin.get_configurable(t5gemma.T5GemmaConfig)()

    def counted(layers, whole=whole):
      few = {
        name: dataclasses.replace(stack, num_layers=layers, layer_types=())
        for name, stack in (
          ("encoder", whole.encoder),
          ("decoder", whole.decoder),
        )
      }
      few = dataclasses.replace(whole, **few)
      flat = storage.flatten(t5.abstract_parameters(few))
      return {
        stack: freeze.count(
          [leaf for path, leaf in flat.items() if path.startswith(stack)]
        )
        for stack in ("encoder", "decoder", "t")
      }

    one, two = counted(1), counted(2)
    total = one["t"]
    for name in ("encoder", "decoder"):
      more = getattr(whole, name).num_layers - 1
      total += one[name] + more * (two[name] - one[name])
    assert f"`{model}`" in text
    line = next(row for row in text.splitlines() if f"`{model}`" in row)
    assert f"| {total:,} | {total - one['t']:,} |" in line


def test_the_sizes_are_those_of_t5():
  sizes = {}
  for model in MODELS:
    configure([model, "models/random_weights.gin"])
    config = gin.get_configurable(t5.T5Config)()
    count = freeze.count(t5.abstract_parameters(config))
    sizes[pathlib.Path(model).stem] = count
  assert sizes == {
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
  }


@pytest.mark.parametrize(
  "bindings, message",
  [
    (["PROMPT_LENGHT=6"], "PROMPT_LENGHT is set.*Did you mean PROMPT_LENGTH"),
    (["ZZZ=6"], "ZZZ is set, but nothing uses it. Names in use: "),
    (["prompt_length=6"], "prompt_length is set.*Did you mean PROMPT_LENGTH"),
    (["PROMPT_LENGTH"], "--gin.PROMPT_LENGTH has no value"),
    (["TRAIN_STEPS=abc"], "TRAIN_STEPS='abc' must be a whole number"),
    (["TRAIN_STEPS=1e3"], "TRAIN_STEPS=1000.0 must be a whole number"),
    (["BATCH_SIZE=True"], "BATCH_SIZE=True must be a whole number"),
    (["LEARNING_RATE=fast"], "LEARNING_RATE='fast' must be a number"),
    (["TRUNCATE=false"], "TRUNCATE='false' must be True or False"),
  ],
)
def test_a_mistake_on_the_command_line_is_named(bindings, message):
  with pytest.raises(ValueError, match=message):
    configure(["runs/prompt_tuning.gin"], *bindings)


def test_a_folder_that_is_called_as_ours_is_no_package(tmp_path, monkeypatch):
  (tmp_path / "runs").mkdir()
  (tmp_path / "models").mkdir()
  monkeypatch.syspath_prepend(tmp_path)
  configure(["demo/prompt_tuning.gin"])
  assert gin_macros.macro("PROMPT_LENGTH") == 20


def test_a_missing_file_is_named_with_the_closest():
  with pytest.raises(FileNotFoundError, match="mean runs/prompt_tuning.gin"):
    configure(["runs/prompt_tunning.gin"])
  with pytest.raises(FileNotFoundError, match="looked for in .*gin_search_pat"):
    configure(["zzz.gin"])


@pytest.mark.parametrize(
  "given, value",
  [
    ("runs/a b", "runs/a b"),
    ("7", "7"),
    ('"quoted"', "quoted"),
  ],
)
def test_bare_text_is_taken_as_text(given, value):
  configure(["runs/prompt_tuning.gin"], f"MODEL_DIR={given}")
  assert gin_macros.macro("MODEL_DIR") == value


@pytest.mark.parametrize(
  "given, value",
  [("VALIDATION_SPLIT=None", None), ("TEST_SPLITS=('a', 'b')", ("a", "b"))],
)
def test_what_python_reads_is_no_text(given, value):
  configure(["runs/prompt_tuning.gin"], given)
  assert gin_macros.macro(given.partition("=")[0]) == value


@pytest.mark.parametrize(
  "given, message",
  [
    ("MODEL_DIR=None", "MODEL_DIR=None must be a text in quotes"),
    ("MIXTURE_OR_TASK_NAME=(5,)", r"=\(5,\) must be .* or a list of texts"),
    ("PROMPT_PLACE=5", "PROMPT_PLACE=5 must be a text in quotes, or a list"),
    ("PROMPT_PLACE=None", "PROMPT_PLACE=None must be a text in quotes"),
    ("PROMPT_ATTENTION=5", "PROMPT_ATTENTION=5 must be a text in quotes"),
    ("TEACHERS=5", "TEACHERS=5 must be a text in quotes"),
    ("TRAINABLE=5", "TRAINABLE=5 must be a text in quotes, or a list"),
    ("TEST_SPLITS=5", "TEST_SPLITS=5 must be a text in quotes, or a list"),
    ("SELECT_BY=['accuracy']", "SELECT_BY=.* must be a text in quotes"),
  ],
)
def test_what_is_no_text_is_refused_where_a_text_is_needed(given, message):
  with pytest.raises(ValueError, match=message):
    configure(["runs/prompt_tuning.gin"], given)


def test_what_has_no_value_is_named():
  configure(["runs/prompt_tuning.gin"])
  with pytest.raises(ValueError, match="^MODEL_DIR has no value. Set it with"):
    configuration.call(train.train)
  configure(["runs/prompt_tuning.gin"], "MODEL_DIR=run")
  with pytest.raises(ValueError, match="MODEL has .* models/pretrained.gin.$"):
    configuration.call(train.train)


def test_the_operative_configuration_repeats_the_run(tmp_path):
  configure(["runs/prompt_tuning.gin"], "TRAIN_STEPS=9")
  plan = configuration.call(loop.Plan)
  configuration.save(tmp_path / "config.gin", operative=True)
  gin.clear_config()
  gin.parse_config_file(str(tmp_path / "config.gin"))
  assert gin.get_configurable(loop.Plan)() == plan
