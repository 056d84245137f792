"""Layouts: the same step, with less padding, in few shapes."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest
import tiny_t5

from prompt_tuning.data import layout, packing
from prompt_tuning.model import freeze, inject
from prompt_tuning.prompts import prompt
from prompt_tuning.training import optimizers, step

CONFIG = tiny_t5.config()
P, N, B = 3, 2, 6


def batches(at: int) -> dict[str, np.ndarray]:
  """B examples for each of N prompts, of 1 to 20 tokens and 1 to 9 targets."""
  rng = np.random.default_rng(at)
  inputs = np.zeros((N * B, 24), np.int32)
  targets = np.zeros((N * B, 16), np.int32)
  for row in range(N * B):
    tokens = rng.integers(2, CONFIG.vocab_size, rng.integers(1, 21))
    inputs[row, : len(tokens)] = tokens
    tokens = rng.integers(2, CONFIG.vocab_size, rng.integers(1, 10))
    targets[row, : len(tokens)] = tokens
  prompt_id = np.repeat(np.arange(N, dtype=np.int32), B)
  return {
    "inputs": inject.reserve(inputs, prompt_id, P),
    "targets": targets,
    "prompt_id": prompt_id,
  }


def arranged(chosen: layout.Layout, platform="cpu"):
  """The batches above, laid out."""
  return chosen.arrange(
    batches, num_prompts=N, emb_dim=CONFIG.emb_dim, platform=platform
  )


DIVIDED = [
  layout.Layout("groups", microbatch_tokens=64),
  layout.Layout("groups", microbatch_tokens=1),
  layout.Layout("groups", num_microbatches=5),
  layout.Layout("groups"),
  layout.Layout("packed", microbatch_tokens=64),
  layout.Layout("packed", num_microbatches=2),
  layout.Layout("packed"),
]


def named(chosen: layout.Layout) -> str:
  limits = (chosen.microbatch_tokens, chosen.num_microbatches)
  return f"{chosen.layout} {limits[0]} tokens, {limits[1]} parts"


@pytest.fixture(scope="module")
def run():
  """Three steps of a bank with the batches of a layout; rows and metrics."""
  network = tiny_t5.prompted(CONFIG, P, N)
  params = tiny_t5.weights(CONFIG)
  first = network.prompt.first_parameters(
    np.stack([tiny_t5.rows(P, CONFIG.emb_dim, seed=n) for n in range(N)])
  )
  params = {**params, prompt.NAME: first}
  problem = step.Problem(
    network, optimizers.per_prompt(optimizers.adafactor()), N
  )
  trained, frozen = freeze.split(params, freeze.mask(params, freeze.PROMPT))

  def of(source):
    take = step.make_steps(problem)
    state = step.initial_state(
      problem, jax.tree.map(lambda x: np.array(x), trained)
    )
    found = []
    for at in range(3):
      made = source(at)
      if isinstance(made, dict):
        made = {k: v[None] for k, v in made.items()}
      else:
        made = [made]
      state, metrics = take(state, frozen, made)
      found.append(jax.tree.map(np.asarray, metrics))
    return jax.tree.map(np.asarray, jax.tree.leaves(state.trained)), found

  return of


@pytest.fixture(scope="module")
def whole(run):
  return run(batches)


@pytest.mark.parametrize(
  "chosen",
  [
    pytest.param(chosen, marks=[pytest.mark.slow] * (i % 2), id=named(chosen))
    for i, chosen in enumerate(DIVIDED)
  ],
)
def test_every_layout_is_the_same_step(run, whole, chosen):
  rows, metrics = run(arranged(chosen))
  for got, wanted in zip(rows, whole[0], strict=True):
    np.testing.assert_allclose(got, wanted, atol=1e-5)
  for got, wanted in zip(metrics, whole[1], strict=True):
    for key in wanted:
      np.testing.assert_allclose(got[key], wanted[key], atol=1e-5, err_msg=key)


@pytest.mark.parametrize("chosen", DIVIDED, ids=named)
def test_every_example_is_computed_once(chosen):
  arrange = arranged(chosen)
  for at in range(80):
    batch = batches(at)
    parts = arrange(at)
    assert layout.num_examples(parts) == N * B
    for name in ("inputs", "targets"):
      wanted = np.sort(batch[name][batch[name] != 0])
      got = np.concatenate([part[name].ravel() for part in parts])
      np.testing.assert_array_equal(np.sort(got[got != 0]), wanted)
    counts = np.zeros(N)
    np.add.at(counts, batch["prompt_id"], (batch["targets"] != 0).sum(1))
    for part in parts:
      np.testing.assert_array_equal(part["tokens"], counts)


@pytest.mark.parametrize("chosen", DIVIDED, ids=named)
def test_the_shapes_of_a_run_are_few(chosen):
  arrange = arranged(chosen)
  shapes = {
    (part["inputs"].shape, part["targets"].shape)
    for at in range(64)
    for part in arrange(at)
  }
  assert len(shapes) <= (16 if chosen.layout == "groups" else 1)


def test_a_part_is_within_its_limit():
  """Of the places that the mean example has; its longest may have more."""
  mean = np.mean([packing.Lengths.of(batches(i)).inputs for i in range(64)])
  for part in arranged(layout.Layout("groups", microbatch_tokens=64))(0):
    assert len(part["inputs"]) * mean <= 64
  for part in arranged(layout.Layout("packed", microbatch_tokens=64))(0):
    assert part["inputs"].size <= 64


def test_as_many_parts_as_are_asked_for():
  parts = arranged(layout.Layout("groups", num_microbatches=4))(0)
  assert len(parts) == 4


def test_padded_is_the_batch_as_it_is():
  found = arranged(layout.Layout("padded"))(3)
  for key, value in batches(3).items():
    np.testing.assert_array_equal(found[key], value)


def test_the_default_follows_the_device():
  assert "input_segments" not in arranged(layout.Layout(), "cpu")(0)[0]
  assert "input_segments" in arranged(layout.Layout(), "gpu")(0)[0]


def test_rows_that_divide_badly_are_no_reason_for_many_parts():
  assert [layout._part_rows(31, limit) for limit in (10, 16, 31, 99)] == [
    *(8, 16, 31, 31)
  ]
  assert layout._part_rows(32, 10) == 8 and layout._part_rows(7, 0) == 1


def test_a_part_is_smaller_where_fewer_rows_are_then_empty():
  assert layout._part_rows(32, 6) == 4  # not 6 parts of 6
  assert layout._part_rows(16, 3) == 2  # not 6 parts of 3
  assert layout._part_rows(13, 12) == 7  # not 2 parts of 12


def _of_lengths(lengths, cache: int, monkeypatch) -> list[int]:
  """Rows of each part of a step, on a machine with such a cache."""
  monkeypatch.setattr(layout, "last_cache", lambda: cache)
  inputs = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(int)
  rows = len(lengths)
  batch = {
    "inputs": 2 * inputs,
    "targets": np.full((rows, 4), 2),
    "prompt_id": np.zeros(rows, int),
  }
  parts = layout.Layout("groups").arrange(
    lambda _: batch, num_prompts=1, emb_dim=512
  )
  return [len(part["inputs"]) for part in parts(0)]


def test_parts_are_larger_in_a_large_cache_if_that_leaves_little_unfilled(
  monkeypatch,
):
  alike, spread = [128] * 16, [16 * (n + 1) for n in range(16)]
  small, large = 32 << 20, 256 << 20
  assert _of_lengths(alike, small, monkeypatch) == [8] * 2
  assert _of_lengths(alike, large, monkeypatch) == [16]
  assert _of_lengths(spread, large, monkeypatch) == [4] * 4


def test_lengths_that_the_first_steps_did_not_have_bring_one_width_more():
  def source(at):
    made = {k: np.array(v) for k, v in batches(at).items()}
    longer = np.random.default_rng(at).integers(1, 100)
    ids = np.zeros((N * B, 104), np.int32)
    if at >= 64:
      ids[0, :longer] = 5
    made["inputs"] = np.concatenate([made["inputs"], ids], axis=1)
    return made

  for chosen in DIVIDED:
    arrange = chosen.arrange(source, num_prompts=N, emb_dim=CONFIG.emb_dim)
    widths = [
      {part["inputs"].shape[1] for at in steps for part in arrange(at)}
      for steps in (range(64), range(64, 150))
    ]
    assert len(widths[1] - widths[0]) <= 1


@given(st.lists(st.integers(1, 90), min_size=1, max_size=20), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_few_widths_cost_least(values, count):
  def cost(widths):
    return sum(min(w for w in widths if w >= v) for v in values)

  found = layout.few(values, count)
  options = sorted({-(-v // 8) * 8 for v in values})
  assert len(found) <= count and max(found) == options[-1]
  assert cost(found) == min(
    cost((*chosen, options[-1]))
    for size in range(count)
    for chosen in itertools.combinations(
      options[:-1], min(size, len(options) - 1)
    )
  )


@given(
  st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=30
  )
)
@settings(max_examples=50, deadline=None)
def test_packed_rows_hold_every_example_within_their_length(lengths):
  of = packing.Lengths(*np.array(lengths).T)
  rows = packing.first_fit(of, (24, 12))
  assert sorted(e for row in rows for e in row) == list(range(len(lengths)))
  for row in rows:
    fits = of.inputs[row].sum() <= 24 and of.targets[row].sum() <= 12
    assert fits or len(row) == 1


def test_an_example_longer_than_all_of_the_first_steps_has_room():
  long = {k: np.array(v) for k, v in batches(0).items()}
  long["inputs"] = np.pad(long["inputs"], ((0, 0), (0, 30)), constant_values=5)

  def source(at):
    return long if at == 70 else batches(at)

  for chosen in DIVIDED:
    arrange = chosen.arrange(source, num_prompts=N, emb_dim=CONFIG.emb_dim)
    assert layout.num_examples(arrange(70)) == N * B


def test_a_part_that_is_widened_is_no_larger_than_the_others():
  def source(at):
    lengths = np.full(64, 6 if at < 64 else 5)
    lengths[0] += 50 * (at == 70)
    inputs = 2 * (np.arange(64) < lengths[:, None])
    targets, prompt_id = np.full((64, 4), 2), np.zeros(64, int)
    return {"inputs": inputs, "targets": targets, "prompt_id": prompt_id}

  def parts(chosen):
    return chosen.arrange(source, num_prompts=1, emb_dim=8, platform="gpu")(70)

  found = parts(layout.Layout("packed", microbatch_tokens=256))
  assert {part["inputs"].shape for part in found} == {(4, 64)}  # of (16, 16)
  assert layout.num_examples(found) == 64
  # As many parts as were asked for are made, whatever they hold.
  assert len(parts(layout.Layout("packed", num_microbatches=2))) == 2


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    ({"layout": "rows"}, "LAYOUT='rows' is not known; choose one of auto"),
    ({"microbatch_tokens": -1}, "MICROBATCH_TOKENS=-1; give a whole number"),
    ({"num_microbatches": True}, "NUM_MICROBATCHES=True; give a whole number"),
    (
      {"microbatch_tokens": 64, "num_microbatches": 2},
      "both divide a step. Set one of them to 0",
    ),
    (
      {"layout": "padded", "num_microbatches": 2},
      "Choose LAYOUT='groups' or 'packed'",
    ),
  ],
)
def test_a_setting_that_makes_no_sense_is_refused(setting, message):
  with pytest.raises(ValueError, match=message):
    layout.Layout(**setting)
