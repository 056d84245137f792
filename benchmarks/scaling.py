"""What each of many devices holds and sends for a step: compiled, not run.

    python benchmarks/scaling.py [--size xl xxl] [--mesh 4x2 2x4 …] [--both]

Compiles the step of prompt tuning ahead of time for meshes of forced CPU
devices, from shapes alone: no weight is ever made. It prints, for each device,
the bytes of the weights (exact on any hardware), those of temporary buffers
(`compile().memory_analysis()`) and what the step's collectives send, counted in
the compiled program with the trips of its loops, by the rule of a ring. The
CPU's compiler turns bfloat16 into float32 in products and sums, so temporary
buffers and sums are up to twice those of an accelerator.
"""

import argparse
import collections
import json
import math
import os
import pathlib
import re
import time
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=256"

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from prompt_tuning import storage
from prompt_tuning.frozen import placement
from prompt_tuning.model import forms, freeze, t5
from prompt_tuning.prompts import prompt
from prompt_tuning.training import optimizers, step

SIZES = {
  "xl": (32128, 2048, 32, 64, 5120, 24, 24),
  "xxl": (32128, 4096, 64, 64, 10240, 24, 24),
}
MESHES = "4x1 2x2 1x4 8x1 4x2 2x4 1x8 16x1 8x2 8x4 16x8 64x4 32x8".split()
P, T, L = 100, 412, 16
"""512 positions of the encoder, 16 targets."""


def shapes_of(
  config: t5.T5Config, dtype: str, devices: placement.Devices
) -> dict:
  """The stacked weights as shapes that say where they lie."""
  flat, counts = {}, collections.Counter()
  for path, leaf in storage.flatten(t5.abstract_parameters(config)).items():
    form = None
    own = {path: (leaf.shape, "uint16" if "/layers_" in path else "bfloat16")}
    if dtype in forms.quantized.DTYPES:
      form = forms.quantized.form_of(path, leaf.shape, dtype)
      own = {path: (leaf.shape, "float32")}
    if form:
      bytes_ = (leaf.shape[0] // (2 if form == "int4" else 1), leaf.shape[1])
      scale = leaf.shape[:1] if path.endswith("embedding") else leaf.shape[1:]
      if form == "int4":
        scale = (
          leaf.shape[0] // math.gcd(leaf.shape[0], forms.quantized.GROUP),
          *scale,
        )
      own = {
        f"{path}_{form}": (bytes_, "int8" if form == "int8" else "uint8"),
        f"{path}_scale": (scale, "float32"),
      }
    for name, (shape, kind) in own.items():
      whole, count = re.subn(r"/layers_\d+/", "/layers/", name)
      counts[whole] += 1
      shape = (counts[whole],) * count + tuple(shape)
      where = devices.sharding(whole, shape)
      flat[whole] = jax.ShapeDtypeStruct(shape, kind, sharding=where)
  return storage.unflatten(flat)


def compiled(config, dtype: str, mesh: tuple[int, int], rows: int, both: bool):
  """The step for a mesh, and the shapes of its weights."""
  chosen = np.array(jax.devices()[: mesh[0] * mesh[1]]).reshape(mesh)
  made = Mesh(chosen, (placement.DATA, placement.MODEL))
  devices = placement.Devices(made, config, both)
  module = prompt.Prompt(P, config.emb_dim, 1)
  weights = shapes_of(config, dtype, devices)
  bank = jax.ShapeDtypeStruct((1, P, config.emb_dim), jnp.float32)
  first = jax.eval_shape(module.first_parameters, bank)
  params = {**weights, prompt.NAME: first}
  trained, frozen = freeze.split(params, freeze.mask(params, freeze.PROMPT))
  problem = step.Problem(
    t5.T5(config, module, remat=True),
    optimizers.per_prompt(optimizers.adafactor()),
  )
  state = jax.eval_shape(lambda t: step.initial_state(problem, t), trained)
  whole = jax.sharding.NamedSharding(made, jax.sharding.PartitionSpec())
  divided = jax.sharding.NamedSharding(
    made, jax.sharding.PartitionSpec(placement.DATA)
  )
  state = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
    state,
  )
  count = rows * mesh[0]
  batch = {
    name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=divided)
    for name, shape in (
      ("inputs", (count, P + T)),
      ("targets", (count, L)),
      ("prompt_id", (count,)),
    )
  }
  run = jax.jit(step.make_step(problem), donate_argnums=0)
  return run.lower(state, frozen, batch).compile(), weights


_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_LOOP = re.compile(r"while\(.*body=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_SENT = re.compile(
  r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|"
  r"collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"(f32|bf16|f16|s32|u32|s8|u8|u16|pred)\[([\d,]*)\]")
_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "u16": 2}


def sent(program: str, devices: int) -> dict[str, float]:
  """Bytes that a device sends in each kind of collective, by rings."""
  inside, entry = collections.defaultdict(list), ""
  name = ""
  for line in program.splitlines():
    if found := _COMPUTATION.match(line):
      name = found[1]
      entry = name if line.startswith("ENTRY") else entry
    elif name:
      inside[name].append(line)

  totals = collections.defaultdict(float)

  def add(computation: str, times: int) -> None:
    for line in inside[computation]:
      if found := _LOOP.search(line):
        trips = _TRIPS.search(line)
        add(found[1], times * (int(trips[1]) if trips else 1))
      elif found := _SENT.search(line):
        kind, size = found[2], _size(found[1])
        totals[kind] += times * size * _part(kind, _group(line, devices))
      elif found := _CALLED.search(line):
        add(found[1], times)

  add(entry, 1)
  return dict(totals)


def _size(type_: str) -> int:
  """Bytes of an array, or of several."""
  return sum(
    math.prod(map(int, filter(None, dims.split(",")))) * _BYTES.get(kind, 1)
    for kind, dims in _ARRAY.findall(type_)
  )


def _group(line: str, devices: int) -> int:
  """How many devices take part; all, if no group is named."""
  if found := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
    return int(found[1])
  if found := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
    return len(found[1].split(","))
  return devices


def _part(kind: str, devices: int) -> float:
  """What a device sends in a ring, for each byte of the result."""
  share = (devices - 1) / devices
  return {
    "all-reduce": 2 * share,
    "reduce-scatter": devices - 1,
    "collective-permute": 1.0,
  }.get(kind, share)


def main() -> None:
  """Compiles what the command line asks for; a row of Markdown each."""
  parser = argparse.ArgumentParser(description="A step on many devices.")
  parser.add_argument("--size", nargs="*", default=["xl", "xxl"])
  parser.add_argument("--dtype", nargs="*", default=["bfloat16"])
  parser.add_argument("--mesh", nargs="*", default=MESHES)
  parser.add_argument("--rows", type=int, default=4, help="of each data part")
  parser.add_argument("--both", action="store_true", help="2-D sharding")
  parser.add_argument("--kept", type=pathlib.Path, default="runs/scaling.jsonl")
  flags = parser.parse_args()
  flags.kept.parent.mkdir(parents=True, exist_ok=True)
  known = {}
  if flags.kept.is_file():
    for line in flags.kept.read_text().splitlines():
      row = json.loads(line)
      known[json.dumps(row["of"])] = row
  print("| model | weights | data x model | weights, GB | temporary | sent |")
  print("|---" * 6 + "|")
  for size in flags.size:
    config = t5.T5Config(*SIZES[size], dtype="bfloat16")
    for dtype in flags.dtype:
      for mesh in flags.mesh:
        of = [size, dtype, mesh, flags.rows, flags.both]
        row = known.get(json.dumps(of))
        if row is None:
          row = measured(config, of)
          with flags.kept.open("a") as file:
            file.write(json.dumps(row) + "\n")
        weights, temporary, all_sent = (
          row[k] / 1e9 for k in ("weights", "temporary", "sent")
        )
        name = f"{mesh}{', 2-D' if flags.both else ''}"
        print(
          f"| {size} | {dtype} | {name} | {weights:.2f} | {temporary:.2f} | "
          f"{all_sent:.2f} |",
          flush=True,
        )


def measured(config: t5.T5Config, of: list) -> dict:
  """What is known of a compiled step, in bytes for a device."""
  _, dtype, mesh, rows, both = of
  begin = time.monotonic()
  data, model = map(int, mesh.split("x"))
  program, weights = compiled(config, dtype, (data, model), rows, both)
  held = sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(weights)
  )
  memory: Any = program.memory_analysis()
  kinds = sent(program.as_text() or "", data * model)
  return {
    "of": of,
    "weights": held,
    "arguments": memory.argument_size_in_bytes,
    "temporary": memory.temp_size_in_bytes,
    "sent": sum(kinds.values()),
    "kinds": kinds,
    "seconds": round(time.monotonic() - begin, 1),
  }


if __name__ == "__main__":
  main()
