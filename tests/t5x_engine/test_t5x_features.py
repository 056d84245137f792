import numpy as np
import pytest
import seqio
import tensorflow as tf
import tiny_t5

from prompt_tuning.model import inject, losses, t5
from prompt_tuning.t5x import t5x_features

P = 3
LENGTHS = {"inputs": 17, "targets": 9}
ROWS = [
  {"inputs": [7, 8, 5, 1], "targets": [3, 9, 1]},
  {"inputs": [8, 4, 9, 3, 1], "targets": [4, 1]},
  {"inputs": [6, 1], "targets": [5, 5, 5, 1]},
  {"inputs": [9, 9, 9, 9, 9, 9, 1], "targets": [2, 1]},
]
PLACES = [inject.PLACEHOLDER + i for i in range(P)]


def dataset(rows) -> tf.data.Dataset:
  return tf.data.Dataset.from_generator(
    lambda: iter(rows),
    output_signature={
      name: tf.TensorSpec([None], tf.int32) for name in LENGTHS
    },
  )


def converted(
  pack: bool, length: int = P, rows=ROWS, place: str = inject.FRONT
) -> dict[str, np.ndarray]:
  """All rows of the converted examples, by feature."""
  convert = t5x_features.PromptConverter(
    pack=pack, prompt_length=length, place=place
  )
  found = list(convert(dataset(rows), LENGTHS).as_numpy_iterator())
  return {name: np.stack([row[name] for row in found]) for name in found[0]}


def test_every_example_stands_behind_its_places():
  found = converted(pack=False)["encoder_input_tokens"]
  assert found.shape == (len(ROWS), P + LENGTHS["inputs"])
  for row, example in zip(found, ROWS, strict=True):
    assert [i for i in row if i] == PLACES + example["inputs"]


@pytest.mark.parametrize("place", inject.PLACES)
def test_tensorflow_puts_the_places_where_numpy_does(place):
  rows = tiny_t5.ids(
    *([5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 7, 6], [1, 0, 0, 0], [0, 0, 0, 0])
  )
  ids = np.zeros(len(rows), np.int32)
  expected = inject.reserve(rows, ids, P, at=inject.columns(rows, [place], ids))
  found = t5x_features.reserve(tf.constant(rows), P, place).numpy()
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, expected)


WHERE = {
  "front": lambda ids: PLACES + ids,
  "before_end": lambda ids: ids[:-1] + PLACES + ids[-1:],
}


@pytest.mark.parametrize("place", ["front", "before_end"])
def test_every_packed_segment_brings_its_own_places(place):
  found = converted(pack=True, place=place)
  tokens, segments = (
    found[f"encoder_{name}"] for name in ("input_tokens", "segment_ids")
  )
  assert tokens.shape[1] == P + LENGTHS["inputs"]
  assert len(tokens) < len(ROWS)
  packed = [
    list(row[segment == number])
    for row, segment in zip(tokens, segments, strict=True)
    for number in range(1, segment.max() + 1)
  ]
  assert packed == [WHERE[place](example["inputs"]) for example in ROWS]
  unpacked = converted(pack=False, place=place)["encoder_input_tokens"]
  assert [[i for i in row if i] for row in unpacked.tolist()] == packed


def test_without_a_prompt_it_is_seqios_converter():
  for pack in (False, True):
    found = converted(pack, length=0)
    plain = seqio.EncDecFeatureConverter(pack=pack)(dataset(ROWS), LENGTHS)
    for row, expected in enumerate(plain.as_numpy_iterator()):
      for name, value in expected.items():
        np.testing.assert_array_equal(found[name][row], value)


def test_a_text_longer_than_its_room_is_refused():
  text = [5] * (LENGTHS["inputs"] + 1)
  with pytest.raises(tf.errors.InvalidArgumentError, match="inputs"):
    converted(pack=False, rows=[{"inputs": text, "targets": [1]}])


def token_losses(batch: dict[str, np.ndarray], config: t5.T5Config) -> list:
  """The loss of every target token, in the order of the examples."""
  network = tiny_t5.prompted(config, P)
  params = tiny_t5.weights(
    config, prompt=tiny_t5.rows(P, config.emb_dim, seed=4)
  )
  names = ("encoder", "decoder")
  packing = {
    f"{name}_{kind}": batch[f"{name}_{kind}"]
    for name in names
    for kind in ("segment_ids", "positions")
    if f"{name}_{kind}" in batch
  }
  logits = tiny_t5.jitted(network)(
    {"params": params},
    batch["encoder_input_tokens"],
    batch["decoder_input_tokens"],
    **packing,
  )
  targets = batch["decoder_target_tokens"]
  return list(np.asarray(losses.token_losses(logits, targets))[targets > 0])


def test_losses_are_the_same_packed_and_unpacked():
  config = tiny_t5.config(num_encoder_layers=2)
  np.testing.assert_allclose(
    token_losses(converted(True), config),
    token_losses(converted(False), config),
    rtol=2e-5,
  )
