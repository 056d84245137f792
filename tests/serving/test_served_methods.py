"""Prompts that reach into the network, served beside plain ones."""

import dataclasses

import asking
import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.inference import infer
from prompt_tuning.inference.prompted_model import PromptedModel
from prompt_tuning.model import forms
from prompt_tuning.prompts import checkpoints
from prompt_tuning.prompts.inner import tensors
from prompt_tuning.serving import bank as banks
from prompt_tuning.serving import engine, programs, rows, settings, sizes
from prompt_tuning.serving.server import Server

TEXTS = ["the cat sat", "a dog ran to the red house", "sat on the mat"]
TWO = tiny_t5.config(num_encoder_layers=2, num_decoder_layers=2)
SHAPES = {"apart": TWO, "stacked": TWO, "t5gemma": tiny_t5.gemma()}
OTHERS = ("stacked", "t5gemma")


def frozen(shape: str):
  made = toy_tasks.model(config=SHAPES[shape])
  if shape != "stacked":
    return made
  params = forms.stacked(dict(made.params))
  return dataclasses.replace(made, params=params)


def prompts(config) -> dict[str, checkpoints.SavedPrompt]:
  """Of every kind, all of their numbers drawn."""
  rng = np.random.default_rng(1)
  layers, width = config.num_encoder_layers - 1, config.emb_dim

  def drawn(*shape):
    return np.float32(rng.normal(0, 3, shape))

  def deep(length, keep):
    return {
      "embedding": drawn(length, width),
      "deep": drawn(layers, length, width),
      "keep": np.full(layers, keep, np.float32),
    }

  def before(count):
    shape = count, config.widths("decoder").emb_dim
    return {"decoder_embedding": drawn(*shape)}

  vectors = {k: 1 + drawn(*v) for k, v in tensors.vector_shapes(config).items()}
  first = {"decoder_values": vectors["decoder_values"]}
  found = {
    "plain": {"embedding": drawn(4, width)},
    "short": {"embedding": drawn(1, width)},
    "vectors": vectors,
    "added": deep(4, 1),
    "replacing": deep(2, 0),
    "few_vectors": {"embedding": drawn(2, width), **first},
    "before": {"embedding": drawn(3, width), **before(2)},
    "before_alone": before(1),
    "everything": {**deep(3, 1), **before(2), **vectors},
  }
  return {
    name: checkpoints.SavedPrompt(
      one.get("embedding", np.zeros((0, width), np.float32)),
      {},
      name,
      tensors={} if one.keys() == {"embedding"} else one,
    )
    for name, one in found.items()
  }


def engine_of(model, own) -> tuple[banks.Bank, engine.Engine]:
  """An engine with a bank of prompts, as a service makes it."""
  chosen = settings.Settings(model, {"inputs": 20}, target_length=6, rows=4)
  room = chosen.room([*own.values()])
  bank = banks.empty(model, "toy", room).changed(own)
  shapes = dataclasses.replace(chosen.sizes(room), encoded=64)
  made = programs.Programs(model, shapes)
  made.compile(bank.prompted)
  return bank, engine.Engine(made, most_waiting=200)


@pytest.mark.parametrize(
  "shape", ["apart", *(pytest.param(x, marks=pytest.mark.slow) for x in OTHERS)]
)
def test_prompts_of_every_method_decode_together_as_predictions_do(shape):
  model = frozen(shape)
  own = prompts(model.config)
  bank, running = engine_of(model, own)
  asked = [(name, text) for text in TEXTS for name in [*own, "toy"]]
  found = asking.Request(
    running, bank, [(*one, rows.Writing(6)) for one in asked]
  ).wait()
  running.close()
  decoded = tiny_t5.vocabulary().decode
  said = {
    one: (decoded(row.ids), sum(row.log_p))
    for one, row in zip(asked, found, strict=True)
  }
  decoding = infer.Decoding(max_length=6, scores=True)
  every = [text for text in TEXTS for _ in own]
  wanted = PromptedModel(model, [*own.values()], decoding).answers(
    every, [*range(len(own))] * len(TEXTS)
  )
  alone = PromptedModel(model, (), decoding).answers(TEXTS)
  names = [(name, text) for text in TEXTS for name in own]
  names += [("toy", text) for text in TEXTS]
  for one, answer in zip(names, [*wanted, *alone], strict=True):
    text, nats = said[one]
    assert text == answer.text
    assert nats == pytest.approx(answer.log_probability, abs=1e-3)
  assert len({nats for _, nats in said.values()}) == len(said)
  assert running.counts.steps < running.counts.rows / 2


def test_a_server_reads_them_from_a_folder_and_loads_them(tmp_path):
  model = frozen("apart")
  about = {"model": {"source": "toy", "hash": model.stored_hash}}
  own = prompts(model.config)
  for name, one in own.items():
    checkpoints.save_prompt(tmp_path / "runs" / name, one.whole, about)
  later = "added", "before", "vectors"
  for name in later:
    (tmp_path / "runs" / name).rename(tmp_path / name)
  chosen = settings.Settings(model, {"inputs": 20}, target_length=6, rows=2)
  decoding = infer.Decoding(max_length=6)
  folder, key = tmp_path / "runs", "a-key-of-8-letters"
  with Server(chosen, folder=folder, keys=(key,)) as server:
    ask = asking.Client(server.url, key)
    for name in later:
      (tmp_path / name).rename(folder / name)
      assert ask("/v1/prompts", {"name": name}).json["changed"]
      assert not ask("/v1/prompts", {"name": name}).json["changed"]
    expected = PromptedModel(model, [*own.values()], decoding)
    for number, (name, one) in enumerate(own.items()):
      answer = ask.complete(name, TEXTS, max_tokens=6).json
      said = [choice["text"] for choice in answer["choices"]]
      assert said == expected.predict(TEXTS, number)
      words = sum(len(tiny_t5.vocabulary().encode(t)) + 1 for t in TEXTS)
      places = len(TEXTS) * len(one.values)
      assert answer["usage"]["prompt_tokens"] == words + places
    # Without any deep prompt the encoder's programs are others.
    for name in ("added", "replacing", "everything"):
      assert ask(f"/v1/prompts/{name}", method="DELETE").status == 200
    answer = ask.complete("plain", TEXTS, max_tokens=6).json
    said = [choice["text"] for choice in answer["choices"]]
    assert said == expected.predict(TEXTS, [*own].index("plain"))


def test_prompts_without_rows_leave_the_room_that_no_prompt_leaves():
  model = toy_tasks.model(config=TWO)
  own = prompts(TWO)
  chosen = settings.Settings(model, {"inputs": 20}, target_length=6, rows=4)
  free = chosen.room([]).rows
  for name in ("vectors", "before_alone"):
    room = chosen.room([own[name]])
    assert room.rows == free > 0
    start = banks.empty(model, "toy", room).changed({name: own[name]})
    assert "short" in start.changed({"short": own["short"]}).names
  assert chosen.room([own["vectors"], own["short"]]).rows == 1


def test_what_there_is_no_room_for_is_refused_by_file_method_and_remedy():
  model = frozen("apart")
  own = prompts(model.config)
  none = banks.empty(model, "toy", sizes.Room(4))
  with pytest.raises(
    ValueError, match=r"'vectors' \(vectors\).*ia3.gin.*again"
  ):
    none.changed({"vectors": own["vectors"]})
  with pytest.raises(ValueError, match=r"2 rows.*decoder.gin.*for none\. St"):
    none.changed({"before": own["before"]})
  few = banks.empty(model, "toy", sizes.Room(4, before=1))
  with pytest.raises(ValueError, match=r"2 rows.*for 1 at most\. Start"):
    few.changed({"before": own["before"]})
  with pytest.raises(ValueError, match=r"5 positions.*LONGEST_PROMPT=5"):
    long = checkpoints.SavedPrompt(np.zeros((5, 16), np.float32), {}, "long")
    few.changed({"long": long})
