"""Makes tests/golden/gemma.*: tiny T5Gemmas of gemma, and what they say.

    python tests/golden/make_gemma.py

Needs gemma (made with 4.0.1; it asks for Python 3.12). gemma.zip has two models
as its own `ckpts.save_params` writes them, gemma.npz what they say of a padded
batch, gemma.json what they were made with and, for every published T5Gemma, a
hash of the names and shapes of its leaves.
"""

import hashlib
import json
import pathlib
import shutil
import sys
import tempfile
import zlib

import numpy as np

HERE = pathlib.Path(__file__).parent
B, T, L, ROWS, START = 2, 9, 5, 23, 2


def stack(width, heads, keys, size, mlp, layers, window, is_width_last):
  """What an encoder or a decoder is made with."""
  return {
    "embed_dim": width,
    "num_heads": heads,
    "num_kv_heads": keys,
    "head_dim": size,
    "hidden_dim": mlp,
    "num_layers": layers,
    "sliding_window_size": window,
    "transpose_gating_einsum": is_width_last,
  }


# Shared keys and keys of their own, the gate in both ways, windows shorter than
# the input, stacks of different sizes, soft caps that bend and none.
MODELS = {
  "shared": {
    "encoder": stack(16, 4, 2, 6, 24, 3, 3, False),
    "decoder": stack(12, 4, 2, 4, 20, 2, 2, True),
    "attention_cap": 0.5,
    "logits_cap": 1.5,
    "rope_base": 10_000,
  },
  "own": {
    "encoder": stack(12, 3, 3, 4, 16, 2, 2, True),
    "decoder": stack(20, 2, 2, 8, 24, 3, 4, False),
    "attention_cap": None,
    "logits_cap": None,
    "rope_base": 100,
  },
}


def model(name: str):
  """The model of gemma, in float32."""
  from gemma.research.t5gemma import modules, t5gemma

  made_with = MODELS[name]
  kinds = (modules.AttentionType.LOCAL_SLIDING, modules.AttentionType.GLOBAL)

  def part(side, **more):
    sizes = made_with[side]
    return modules.TransformerConfig(
      num_embed=ROWS,
      final_logit_softcap=made_with["logits_cap"],
      attn_logits_soft_cap=made_with["attention_cap"],
      use_post_attn_norm=True,
      use_post_ffw_norm=True,
      attention_types=[kinds[i % 2] for i in range(sizes["num_layers"])],
      local_base_frequency=made_with["rope_base"],
      global_base_frequency=made_with["rope_base"],
      **sizes,
      **more,
    )

  encoder = part("encoder", bidirectional=True)
  decoder = part(
    "decoder", enable_cross_attention=True, kv_embed_dim=encoder.embed_dim
  )
  config = t5gemma.T5GemmaConfig(encoder, decoder)
  return config.make(dtype=np.float32)


def batch(name: str) -> dict[str, np.ndarray]:
  """Padded inputs and targets."""
  source = np.random.RandomState(zlib.crc32(name.encode()))
  inputs = source.randint(3, ROWS, (B, T)).astype(np.int32)
  inputs[1, 6:] = 0
  targets = source.randint(3, ROWS, (B, L)).astype(np.int32)
  return {"inputs": inputs, "targets": targets}


def history(targets: np.ndarray) -> np.ndarray:
  """What the decoder is given: the start, and the targets but the last."""
  return np.pad(targets, ((0, 0), (1, 0)), constant_values=START)[:, :-1]


def weights(made, given):
  """Weights of the model, drawn by the names of its leaves."""
  import jax

  shapes = jax.eval_shape(
    made.init,
    jax.random.key(0),
    target_tokens=given["targets"],
    input_tokens=given["inputs"],
  )["params"]

  def draw(path, leaf):
    name = jax.tree_util.keystr(path)
    source = np.random.RandomState(zlib.crc32(name.encode()))
    noise = source.uniform(-1, 1, leaf.shape).astype(np.float32)
    if leaf.ndim < 2:
      return 0.3 * noise
    # The axis that is summed over is last but one, whatever is before it.
    return noise * np.float32((3 / leaf.shape[-2]) ** 0.5)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def answers(made, params, given) -> dict[str, np.ndarray]:
  """What the model says: the encoder's output where text is, and logits."""
  found = made.apply(
    {"params": params},
    target_tokens=history(given["targets"]),
    input_tokens=given["inputs"],
  )
  is_text = (given["inputs"] > 0)[..., None]
  encoded = np.asarray(found.encoder_activations[-1]) * is_text
  return {"encoded": encoded, "logits": np.asarray(found.logits)}


def save(params, folder: pathlib.Path) -> None:
  """A checkpoint by gemma itself."""
  from gemma.gm import ckpts

  ckpts.save_params(params, folder, wait_until_finished=True)


def digest(shapes: dict[str, tuple[int, ...]]) -> str:
  """What says that two models have the same leaves."""
  lines = [f"{k} {tuple(shape)}" for k, shape in sorted(shapes.items())]
  return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def published() -> dict[str, str]:
  """The digests of the published models' leaves, by their names."""
  from flax import traverse_util
  from gemma.research import t5gemma
  import jax

  found = {}
  tokens = np.ones((1, 2), np.int32)
  for preset in t5gemma.T5GemmaPreset:
    shapes = jax.eval_shape(
      preset.config.make().init,
      jax.random.key(0),
      target_tokens=tokens,
      input_tokens=tokens,
    )["params"]
    flat = traverse_util.flatten_dict(shapes, sep="/")
    found[str(preset)] = digest({k: v.shape for k, v in flat.items()})
  return found


def main() -> int:
  arrays = {}
  with tempfile.TemporaryDirectory() as folder:
    for name in MODELS:
      made, given = model(name), batch(name)
      params = weights(made, given)
      save(params, pathlib.Path(folder) / name)
      said = answers(made, params, given)
      arrays |= {f"{name}/{key}": value for key, value in said.items()}
    shutil.make_archive(str(HERE / "gemma"), "zip", folder)
  np.savez_compressed(HERE / "gemma.npz", **arrays)
  record = {"models": MODELS, "published": published()}
  text = json.dumps(record, indent=1)
  (HERE / "gemma.json").write_text(text + "\n", encoding="utf-8")
  return 0


if __name__ == "__main__":
  sys.exit(main())
