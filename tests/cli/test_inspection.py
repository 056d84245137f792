import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning import cli, storage
from prompt_tuning.cli import inspection
from prompt_tuning.frozen import pretrained
from prompt_tuning.prompts import checkpoints, conversion


@pytest.fixture
def folder(tmp_path):
  return pretrained.save(tmp_path / "model", toy_tasks.model())


@pytest.fixture
def prompt(tmp_path):
  model = toy_tasks.model()
  ids = model.vocabulary.encode("the cat sat")
  record = {"task": "t", "model": {"source": "toy", "hash": model.stored_hash}}
  values = 3 * model.embedding[ids]
  return checkpoints.save_prompt(tmp_path / "prompt", values, record)


@pytest.mark.parametrize("to", sorted(pretrained.FORMATS))
def test_a_model_is_the_same_in_every_format(folder, tmp_path, to):
  target = inspection.convert(folder, tmp_path / "other", to)
  facts = inspection.inspect(target)
  want = inspection.inspect(folder)
  for name in ("weights sha256", "parameters", "layers", "heads", "dtype"):
    assert facts[name] == want[name], name
  assert want["weights sha256"] == toy_tasks.model().stored_hash


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_is_cast_on_the_way(folder, tmp_path, dtype):
  target = inspection.convert(
    folder, tmp_path / "other", "huggingface", dtype=dtype
  )
  assert inspection.inspect(target)["dtype"] == dtype


def test_a_prompt_is_described_by_the_words_it_is_near_to(folder, prompt):
  facts = inspection.inspect(prompt, folder, 2)
  vocabulary = tiny_t5.vocabulary()
  for row, token in zip(
    facts["nearest pieces"].values(),
    vocabulary.encode("the cat sat"),
    strict=True,
  ):
    assert row.startswith(f"{vocabulary.piece(token)} 1.00, ")
  assert facts["trained for this model"] == "yes"
  values = np.load(prompt / "prompt.npy")
  assert facts["tensor sha256"] == storage.tensor_hash(values)
  assert facts["task"] == "t"


def test_a_prompt_for_another_model_says_so(prompt, tmp_path):
  other = pretrained.save(tmp_path / "other", toy_tasks.model(seed=1))
  assert inspection.inspect(prompt, other)["trained for this model"] == "no"


def test_every_format_of_a_prompt_is_recognised(prompt, tmp_path):
  for to, name in (("peft", "PEFT"), ("numpy", "numpy")):
    target = inspection.convert(
      prompt, tmp_path / f"{to}.npy", to, base_model="base"
    )
    assert inspection.inspect(target)["what"] == f"a prompt ({name})"


def test_a_base_model_of_another_width_is_refused(folder, tmp_path):
  checkpoints.save_prompt(tmp_path / "wide", np.ones((3, 20)), {"task": "t"})
  with pytest.raises(
    ValueError, match="a width of 20, and the model .* has 16"
  ):
    inspection.convert(
      *(tmp_path / "wide", tmp_path / "x", "peft"), base_model=str(folder)
    )
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
  "source, to, message",
  [
    ("model", "peft", "is a model, .*huggingface, t5x"),
    ("prompt", "huggingface", "prompt cannot be written as 'huggingface'"),
    ("prompt", "numpy", "is a folder, and numpy is one file.*prompt.npy"),
  ],
)
def test_what_cannot_be_written_says_what_can(
  folder, prompt, tmp_path, source, to, message
):
  (tmp_path / "x").mkdir()
  with pytest.raises(ValueError, match=message):
    inspection.convert(tmp_path / source, tmp_path / "x", to)


def test_nothing_is_written_over_itself(folder):
  with pytest.raises(ValueError, match="over itself"):
    inspection.convert(folder, folder / ".", "prompt-tuning")


@pytest.mark.parametrize(
  "source, to",
  [
    *(("prompt", to) for to in conversion.FORMATS),
    *(("model", to) for to in pretrained.FORMATS),
  ],
)
def test_what_is_there_is_not_written_over(
  folder, prompt, tmp_path, source, to
):
  def write():
    inspection.convert(
      tmp_path / source, tmp_path / "x.npy", to, base_model="base"
    )

  write()
  written = {
    path: path.read_bytes()
    for path in tmp_path.rglob("x.npy*")
    if path.is_file()
  }
  with pytest.raises(ValueError, match="exists. Choose another"):
    write()
  assert all(path.read_bytes() == was for path, was in written.items())


def test_the_commands_print_and_write(folder, prompt, tmp_path, capsys):
  assert cli.main(["inspect", str(prompt), "--model", str(folder)]) == 0
  shown = capsys.readouterr().out
  assert "a prompt (prompt-tuning)" in shown and "position 2" in shown
  target = str(tmp_path / "hf")
  assert cli.main(["convert", str(folder), target, "--to", "huggingface"]) == 0
  assert "Written" in capsys.readouterr().out
  assert cli.main(["inspect", target]) == 0
  assert "a T5 (Hugging Face)" in capsys.readouterr().out
  missing = str(tmp_path / "none")
  assert cli.main(["inspect", missing]) == 2
  assert f"no model at '{missing}'" in capsys.readouterr().err
  assert cli.main(["convert", missing, target, "--to", "peft"]) == 2
  assert f"no model at '{missing}'" in capsys.readouterr().err
