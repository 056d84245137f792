"""Trains and predicts on meshes of eight forced devices; prints what came out.

python eight_devices.py '[[{"data": 1}, "groups", false]]' [t5gemma]
"""

import json
import os
import sys
import tempfile

os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import numpy as np
import tiny_t5

from prompt_tuning.data import layout
from prompt_tuning.frozen import placement
from prompt_tuning.inference import infer
from prompt_tuning.model import forms, freeze
from prompt_tuning.prompts.prompted import Prompted
from prompt_tuning.run_folder import RunFolder
from prompt_tuning.training import loop, optimizers, step

CONFIG = tiny_t5.config(num_heads=4, num_encoder_layers=2, num_decoder_layers=2)
if sys.argv[2:] == ["t5gemma"]:
  CONFIG = tiny_t5.gemma()
P = 3
NETWORK = tiny_t5.prompted(CONFIG, P, 2)
ROWS = [tiny_t5.tokens(1, 3 + i % 5, seed=i)[0] for i in range(11)]


def batch(at: int) -> dict[str, np.ndarray]:
  return tiny_t5.batch_of_two(at, P)


def outcome(
  mesh: dict[str, int],
  chosen: str,
  is_stacked: bool,
  dtype: str | None = None,
) -> dict:
  """Prompts and losses of 20 steps, predictions, and what a device holds."""
  devices = placement.devices_of(mesh, CONFIG)
  put = devices.put if devices else forms.on_device
  leaves = {
    name: part
    for path, leaf in tiny_t5.storage.flatten(tiny_t5.weights(CONFIG)).items()
    for name, part in forms.quantized.parts(path, leaf, dtype).items()
  }
  if is_stacked:
    model = forms.stacked_from(leaves, leaves.items(), put)
  else:
    model = {path: put(path, leaf) for path, leaf in leaves.items()}
    model = tiny_t5.storage.unflatten(model)
  bank = tiny_t5.rows(2, P, 16)
  params = {**model, "prompt": {"embedding": bank}}
  problem = step.Problem(
    NETWORK,
    optimizers.per_prompt(optimizers.adafactor(0.01)),
    2,
    devices=devices,
  )
  batches = layout.Layout(chosen).arrange(
    batch,
    num_prompts=2,
    emb_dim=CONFIG.emb_dim,
    devices=devices.data if devices else 1,
  )
  with tempfile.TemporaryDirectory() as folder:
    with RunFolder(folder).alone() as run:
      trained = loop.fit(
        problem,
        freeze.split(params, freeze.mask(params, freeze.PROMPT)),
        batches,
        plan=loop.Plan(20, checkpoint_every=20, log_every=5),
        folder=run,
        names=("a", "b"),
      ).trained
      losses = [row["loss"] for row in run.metrics()]
  made = {**model, "prompt": trained["prompt"]}
  together = Prompted(
    NETWORK, made, tiny_t5.vocabulary(), (P, P), devices=devices
  )
  predictor = infer.Predictor(together, infer.Decoding(max_length=6))
  kernel = tiny_t5.storage.flatten(model)
  held = sum(leaf.addressable_shards[0].data.size for leaf in kernel.values())
  return {
    "rows": np.asarray(trained["prompt"]["embedding"]).tolist(),
    "losses": losses,
    "predictions": predictor(ROWS, [i % 2 for i in range(11)]),
    "held": held / sum(leaf.size for leaf in kernel.values()),
  }


if __name__ == "__main__":
  for asked in json.loads(sys.argv[1]):
    print(json.dumps(outcome(*asked)), flush=True)
