"""The prompt in t5x's network, its packing and its optimizers.

What of this needs no t5x is in test_t5x_checks and test_t5x_features; what t5x
says is kept in golden/t5x_network.npz and golden/t5x_runs.npz.
"""

import importlib

import jax
import numpy as np
import optax
import pytest
import seqio
import t5x_peer
import test_t5x_features as features
import tiny_t5

from prompt_tuning import storage
from prompt_tuning.model import inject, t5
from prompt_tuning.prompts import multitask, reparameterised
from prompt_tuning.prompts import prompt as prompts
from prompt_tuning.prompts.inner import deep
from prompt_tuning.prompts.prompt import Given
from prompt_tuning.training import optimizers

pytestmark = t5x_peer.marks(
  "golden/t5x_network and golden/t5x_runs (test_t5x_network, test_t5x_runs)"
)
P = features.P
CONFIG = tiny_t5.config(num_encoder_layers=2)
NETWORKS = ("t5x_network", "own_network")


def module(name: str):
  """A module of the package that imports t5x."""
  return importlib.import_module(f"prompt_tuning.t5x.t5x_{name}")


def network(name: str, length: int = P, config: t5.T5Config = CONFIG):
  return getattr(module("models"), name)(config, length)


def model(net, **options):
  """A network as t5x's model, frozen but for the prompt."""
  vocabulary = seqio.SentencePieceVocabulary(tiny_t5.vocabulary().path, 10)
  frozen = module("optimizers").frozen_but(optimizers.adafactor())
  return module("models").PromptModel(net, vocabulary, frozen, **options)


def parameters(made) -> dict[str, jax.ShapeDtypeStruct]:
  """The parameters of a model by path, as shapes."""
  shapes = {"encoder_input_tokens": (2, 9), "decoder_input_tokens": (2, 5)}
  found = jax.eval_shape(
    lambda: made.get_initial_variables(jax.random.PRNGKey(0), shapes)
  )
  assert storage.flatten(found["params_axes"]).keys() == {
    f"{path}_axes" for path in storage.flatten(found["params"])
  }
  return storage.flatten(found["params"])


def weights(prompt=None) -> dict:
  """Weights of the tiny T5 and a prompt."""
  rows = tiny_t5.rows(P, CONFIG.emb_dim, seed=4) if prompt is None else prompt
  return tiny_t5.weights(CONFIG, prompt=rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_prompt_is_the_only_new_parameter(name):
  with_prompt, without = (
    parameters(model(network(name, length))) for length in (P, 0)
  )
  assert with_prompt.keys() - without.keys() == {"prompt/embedding"}
  assert with_prompt["prompt/embedding"].shape == (P, CONFIG.emb_dim)
  expected = storage.flatten(t5.abstract_parameters(CONFIG))
  assert {k: v.shape for k, v in without.items()} == {
    k: v.shape for k, v in expected.items()
  }


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prompt_of_word_embeddings_is_as_if_the_words_were_typed(name):
  words = tiny_t5.ids([7, 3, 11], [7, 3, 11])
  table = tiny_t5.weights(CONFIG)["token_embedder"]["embedding"]
  params = {"params": weights(table[words[0]])}
  text, target = tiny_t5.tokens(2, 5), tiny_t5.tokens(2, 4, seed=1)
  rest = (np.asarray(t5.shift_right(target)), target)
  net = network(name)
  typed = np.concatenate([words, text], 1)
  np.testing.assert_array_equal(
    net.apply(
      params, tiny_t5.reserved(text, [0, 0], P), *rest, enable_dropout=False
    ),
    net.apply(params, typed, *rest, enable_dropout=False),
  )


METHODS = {
  "residual": reparameterised.residual(4),
  "low_rank": reparameterised.low_rank(2),
  "ulpt": reparameterised.ulpt(3),
  "superposition": reparameterised.superposition(5),
  "concat": multitask.multi_task("concat", 2, "a folder"),
  "deep": deep.deep(),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_its_parameters_and_their_axes(method):
  made = module("models").t5x_network(CONFIG, P, METHODS[method])
  alone = METHODS[method](P, CONFIG.emb_dim, None)
  alone = prompts.for_network(alone, CONFIG)
  expected = jax.eval_shape(alone.init, jax.random.key(0))["params"]
  found = parameters(model(made))
  assert {k: v.shape for k, v in found.items() if k.startswith("prompt/")} == {
    f"prompt/{k}": v.shape for k, v in expected.items()
  }


@pytest.mark.parametrize("combine", ["replace", "add"])
def test_deep_rows_enter_every_layer_of_both_networks(combine):
  made = [
    getattr(module("models"), name)(CONFIG, P, deep.deep(combine))
    for name in NETWORKS
  ]
  rows = tiny_t5.rows(P, CONFIG.emb_dim, seed=4)
  params = tiny_t5.weights(CONFIG) | {
    "prompt": {"embedding": rows, "deep": tiny_t5.rows(P, CONFIG.emb_dim)[None]}
  }
  text, target = tiny_t5.tokens(2, 5), tiny_t5.tokens(2, 4, seed=1)
  tokens = tiny_t5.reserved(text, [0, 0], P)
  rest = (np.asarray(t5.shift_right(target)), target)
  logits = [
    net.apply({"params": params}, tokens, *rest, enable_dropout=False)
    for net in made
  ]
  np.testing.assert_allclose(*logits, atol=1e-5)
  plain = network(NETWORKS[0]).apply(
    {"params": weights(rows)}, tokens, *rest, enable_dropout=False
  )
  assert np.abs(plain - logits[0]).max() > 0.01


@pytest.mark.parametrize("method", ["residual", "ulpt", "superposition"])
def test_a_method_starts_at_its_first_parameters_and_keeps_what_is_fixed(
  method,
):
  rows = tiny_t5.rows(P, CONFIG.emb_dim, seed=4)
  words = tiny_t5.rows(20, CONFIG.emb_dim)

  def first(made):
    return made.first_parameters(rows, Given((0,), words))

  made = model(
    module("models").t5x_network(CONFIG, P, METHODS[method]), first=first
  )
  shapes = {"encoder_input_tokens": (2, 9), "decoder_input_tokens": (2, 5)}
  begin = jax.jit(
    lambda: made.get_initial_variables(jax.random.PRNGKey(0), shapes)
  )()["params"]
  expected = first(METHODS[method](P, CONFIG.emb_dim, None))
  for name, values in expected.items():
    np.testing.assert_array_equal(begin["prompt"][name], values)
  for definition in (
    made.optimizer_def,
    module("optimizers").multi_optimizer(),
  ):
    optimizer = definition.create(begin)
    after = optimizer.apply_gradient(
      jax.tree.map(np.ones_like, begin), learning_rate=0.3
    )
    for path, values in storage.flatten(after.target).items():
      same = np.array_equal(values, storage.flatten(begin)[path])
      trains = path.startswith("prompt/") and "fixed_" not in path
      assert same != trains, path


def test_what_does_not_train_here_is_refused_by_name():
  make = module("models").t5x_network
  with pytest.raises(ValueError, match="PROMPT=Dense does not train under t5x"):
    make(CONFIG, P, lambda length, *_: t5.nn.Dense(length))
  with pytest.raises(ValueError, match="several tasks together.*SHARED_FROM"):
    make(CONFIG, P, multitask.multi_task())
  for wrong in (METHODS["ulpt"], None):
    placing = inject.Placing("front" if wrong else "after_end")
    with pytest.raises(ValueError, match="PROMPT_LENGTH=0, so there is no"):
      make(CONFIG, 0, wrong, placing=placing)


ATTENTIONS = [None, ("prompt_to_prompt_causal",), ("prompt_to_input",)]


def test_both_networks_have_the_same_mask_packed_and_unpacked():
  found, place = {}, "after_first"
  for attention in ATTENTIONS:
    placing = inject.Placing(place, attention)
    losses = [
      float(
        jax.jit(
          model(
            getattr(module("models"), name)(CONFIG, P, placing=placing),
            placing=placing,
          ).loss_fn
        )(weights(), features.converted(pack, place=place), None)[0]
      )
      for name in NETWORKS
      for pack in (False, True)
    ]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)
    found[attention] = losses[0]
  assert len({round(loss, 3) for loss in found.values()}) == len(ATTENTIONS)


def test_a_model_puts_the_places_where_the_prompt_stands():
  placing = inject.Placing("before_end")
  made = model(network("t5x_network"), placing=placing)
  convert = made.FEATURE_CONVERTER_CLS(pack=False)
  assert (
    convert.get_model_feature_lengths(features.LENGTHS)["encoder_input_tokens"]
    == P + features.LENGTHS["inputs"]
  )
  rows = convert(features.dataset(features.ROWS), features.LENGTHS)
  first = next(rows.as_numpy_iterator())["encoder_input_tokens"]
  expected = features.converted(False, place="before_end")
  np.testing.assert_array_equal(first, expected["encoder_input_tokens"][0])


def batch(pack: bool) -> dict[str, np.ndarray]:
  return features.converted(pack)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_is_the_same_packed_and_unpacked(name):
  made = model(network(name), z_loss=1e-4)
  (packed, _), (unpacked, _) = (
    made.loss_fn(weights(), batch(pack), None) for pack in (True, False)
  )
  assert float(packed) == pytest.approx(float(unpacked), rel=1e-5)


def test_both_networks_predict_the_same():
  found = [
    model(network(name)).predict_batch(
      weights(), batch(False), rng=jax.random.PRNGKey(0)
    )
    for name in NETWORKS
  ]
  np.testing.assert_array_equal(*found)


def test_a_table_read_by_rows_or_by_one_hot_is_the_same():
  found = [
    module("models")
    .t5x_network(CONFIG, P, one_hot=one_hot)
    .apply(
      {"params": weights()},
      tiny_t5.reserved(tiny_t5.tokens(2, 5), [0, 0], P),
      *(tiny_t5.tokens(2, 4),) * 2,
      enable_dropout=False,
    )
    for one_hot in (True, False)
  ]
  np.testing.assert_array_equal(*found)


def test_a_network_that_would_mix_segments_is_not_packed():
  class Absolute(t5.nn.Module):
    config: t5.T5Config

  made = model(Absolute(CONFIG))
  made.FEATURE_CONVERTER_CLS(pack=False)
  with pytest.raises(ValueError, match="PACK=True, but Absolute"):
    made.FEATURE_CONVERTER_CLS(pack=True)


def test_dropout_beside_a_prompt_is_refused_unless_it_is_meant():
  config = tiny_t5.config(dropout_rate=0.1)
  net = network("t5x_network", config=config)
  with pytest.raises(ValueError, match="DROPOUT_RATE=0.1"):
    model(net)
  model(net, allow_dropout=True)
  model(network("t5x_network", 0, config))  # model tuning may drop out


def test_a_vocabulary_larger_than_the_embedding_is_refused():
  with pytest.raises(ValueError, match="ids, the embedding .* has 40 rows"):
    model(network("t5x_network", config=tiny_t5.config(vocab_size=40)))


@pytest.mark.parametrize(
  "setting",
  [{"relpos_max_distance": 64}, {"scale_logits": True}],
  ids=lambda setting: next(iter(setting)),
)
def test_what_t5xs_network_cannot_be_set_to_is_refused(setting):
  with pytest.raises(ValueError, match="own_network"):
    network("t5x_network", config=tiny_t5.config(**setting))
  network("own_network", config=tiny_t5.config(**setting))


@pytest.mark.parametrize("name", ["frozen_but", "multi_optimizer"])
def test_only_the_prompt_moves_and_has_a_state(name):
  make = getattr(module("optimizers"), name)
  definition = make(optimizers.adafactor()) if name == "frozen_but" else make()
  before = weights()
  optimizer = definition.create(before)
  after = optimizer.apply_gradient(
    jax.tree.map(np.ones_like, before), learning_rate=0.3
  )
  for path, values in storage.flatten(after.target).items():
    same = np.array_equal(values, storage.flatten(before)[path])
    assert same == (path != "prompt/embedding"), path
  saved = storage.flatten(after.state_dict()["state"]["param_states"])
  large = [path for path, leaf in saved.items() if np.size(leaf) > P * 16]
  assert saved and not large
  restored = optimizer.restore_state(after.state_dict())
  jax.tree.map(np.testing.assert_array_equal, restored.target, after.target)


def test_adafactor_is_the_same_by_optax_and_by_t5x():
  made = module("optimizers")
  found = []
  for definition in (
    made.frozen_but(optimizers.adafactor(0.3, 1e-5)),
    made.multi_optimizer(1e-5),
  ):
    optimizer = definition.create(weights())
    for seed in range(5):
      gradient = jax.tree.map(np.zeros_like, weights())
      rows = tiny_t5.rows(P, CONFIG.emb_dim, seed=seed)
      gradient["prompt"]["embedding"] = rows
      optimizer = optimizer.apply_gradient(gradient, learning_rate=0.3)
    found.append(optimizer.target["prompt"]["embedding"])
  np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
  "name", ["adadelta", "novograd", "adan", "lion", "adamax", "adamw"]
)
def test_the_state_of_any_optax_optimizer_has_a_place(name):
  """t5x has rules for some of them only."""
  definition = module("optimizers").frozen_but(getattr(optax, name)(0.1))
  state = definition.create(weights())
  paths = storage.flatten(weights())
  names = {path: jax.sharding.PartitionSpec() for path in paths}
  axes = definition.derive_logical_axes(state, storage.unflatten(names))

  def is_leaf(node):
    return node is None or isinstance(node, jax.sharding.PartitionSpec)

  found = jax.tree.structure(axes.state.param_states, is_leaf=is_leaf)
  assert found == jax.tree.structure(state.state.param_states)


def test_a_rate_is_a_number_or_a_schedule():
  schedule = module("optimizers").schedule
  assert float(schedule(0.3)(7)) == pytest.approx(0.3)
  falling = optimizers.warmup_cosine(0.3, 10, warmup=1)
  for step in (0, 1, 9):
    assert float(schedule(falling)(step)) == pytest.approx(float(falling(step)))


def test_a_pattern_that_matches_nothing_is_an_error():
  for name in ("frozen_but", "multi_optimizer"):
    make = getattr(module("optimizers"), name)
    first = optimizers.adafactor() if name == "frozen_but" else 0.0
    with pytest.raises(ValueError, match="matches none of the"):
      make(first, ("promt/.*",)).create(weights())


def test_places_are_the_ids_that_the_embedding_swaps():
  found = batch(False)["encoder_input_tokens"]
  assert (inject.PLACEHOLDER <= found[:, :P]).all()
