"""Makes tests/golden/families.*: tiny models of transformers, what they say.

    python tests/golden/make_families.py

Needs torch, transformers and peft (made with 2.13.0, 5.24.0 and 0.21.2). 12
T5Gemmas and 6 UMT5s of random shapes: shared keys, windows shorter than the
input, soft caps, stacks of different sizes, heads tied and of their own. Their
weights are drawn by a formula from the names of the tensors, which the tests
draw again, so that families.json has the configurations as transformers writes
them and the hashes of the tensors' names and shapes, and families.npz what was
said. Prompts of PEFT must say the same as rows in front of the embedded input.
"""

import hashlib
import json
import pathlib
import random
import sys
import zlib

import numpy as np

HERE = pathlib.Path(__file__).parent
P, B, T, L, ROWS = 3, 2, 8, 4, 23
NAMES = [f"t5gemma_{i}" for i in range(12)] + [f"umt5_{i}" for i in range(6)]


def settings_of(name: str) -> dict:
  """What the configuration of a model is made with."""
  family, number = name.split("_")
  rng = random.Random(f"{family} {number}")
  if family == "umt5":
    return {
      "vocab_size": ROWS,
      "d_model": rng.choice([8, 12, 16]),
      "d_kv": rng.choice([4, 8]),
      "d_ff": 24,
      "num_heads": rng.choice([2, 3]),
      "num_layers": rng.choice([1, 2, 3]),
      "num_decoder_layers": rng.choice([1, 2]),
      "feed_forward_proj": rng.choice(["gated-gelu", "gated-silu", "relu"]),
      "relative_attention_num_buckets": rng.choice([4, 8, 32]),
      "relative_attention_max_distance": rng.choice([18, 128]),
      "tie_word_embeddings": rng.choice([True, False]),
      "decoder_start_token_id": 0,
    }

  def stack():
    heads = rng.choice([2, 4])
    layers = rng.choice([1, 2, 3])
    kinds = ["sliding_attention", "full_attention"]
    return {
      "vocab_size": ROWS,
      "hidden_size": heads * rng.choice([3, 4, 6]),
      "intermediate_size": rng.choice([16, 24]),
      "num_hidden_layers": layers,
      "num_attention_heads": heads,
      "num_key_value_heads": rng.choice([1, 2, heads]),
      "head_dim": rng.choice([4, 6, 8]),
      "query_pre_attn_scalar": rng.choice([4, 7, 16]),
      "sliding_window": rng.choice([1, 2, 3, 4]),
      "layer_types": rng.choice([None, rng.choices(kinds, k=layers)]),
      "attn_logit_softcapping": rng.choice([None, 0.5, 2.0]),
      "final_logit_softcapping": rng.choice([None, 1.5, 30.0]),
      "rms_norm_eps": rng.choice([1e-6, 1e-3]),
      "hidden_activation": rng.choice(["gelu_pytorch_tanh", "gelu", "silu"]),
      "rope_parameters": {
        "rope_type": "default",
        "rope_theta": rng.choice([10_000.0, 100.0]),
      },
    }

  return {
    "vocab_size": ROWS,
    "encoder": stack(),
    "decoder": stack(),
    "tie_word_embeddings": rng.choice([True, True, False]),
  }


def weights(
  shapes: dict[str, tuple[int, ...]], name: str, seed: int
) -> dict[str, np.ndarray]:
  """The weights of a model by its tensors' names: always the same numbers."""
  drawn = {}
  for path, shape in sorted(shapes.items()):
    number = zlib.crc32(f"{name} {seed} {path}".encode())
    source = np.random.RandomState(number)
    noise = source.uniform(-1, 1, shape).astype(np.float32)
    if len(shape) < 2:
      drawn[path] = 0.3 * noise + (0 if name.startswith("t5gemma") else 1)
    elif "relative_attention_bias" in path:
      drawn[path] = noise
    else:
      size = np.float32((3 / shape[-1]) ** 0.5)
      if path == "shared.weight":
        size *= 4
      elif path.endswith("SelfAttention.q.weight"):
        size *= 0.5
      drawn[path] = noise * size
  return drawn


def batch(name: str, width: int) -> dict[str, np.ndarray]:
  """Padded inputs, targets that end, and a prompt."""
  source = np.random.RandomState(zlib.crc32(name.encode()))
  inputs = source.randint(3, ROWS, (B, T)).astype(np.int32)
  inputs[1, 5:] = 0
  targets = source.randint(3, ROWS, (B, L)).astype(np.int32)
  targets[:, -1] = 1
  targets[0, 2:] = (1, 0)
  size = 1 if name.startswith("umt5") else width**-0.5
  prompt = 2 * size * source.uniform(-1, 1, (P, width))
  prompt = prompt.astype(np.float32)
  return {"inputs": inputs, "targets": targets, "prompt": prompt}


def model(name: str, seed: int):
  """The model of transformers."""
  import torch
  import transformers

  family = "T5Gemma" if name.startswith("t5gemma") else "UMT5"
  settings = settings_of(name)
  config = getattr(transformers, f"{family}Config")(**settings)
  kind = getattr(transformers, f"{family}ForConditionalGeneration")
  made = kind._from_config(config, attn_implementation="eager")
  if settings["tie_word_embeddings"] is False and family == "UMT5":
    shared = made.shared.weight
    made.lm_head.weight = torch.nn.Parameter(torch.zeros_like(shared))
  state = dict(made.named_parameters())
  drawn = weights({k: tuple(v.shape) for k, v in state.items()}, name, seed)
  with torch.no_grad():
    for path, weight in state.items():
      weight.copy_(torch.tensor(drawn[path]))
  return made.eval()


def answers(made, given) -> dict[str, np.ndarray]:
  """What a model says of a batch, with the prompt in front and without."""
  import torch

  inputs = torch.tensor(given["inputs"], dtype=torch.long)
  targets = torch.tensor(given["targets"], dtype=torch.long)
  mask = (inputs != 0).long()
  start = getattr(made.config, "decoder_start_token_id", None)
  if start is None:
    start = made.config.decoder.bos_token_id
  before = torch.nn.functional.pad(targets, (1, 0), value=start)[:, :-1]
  # Whatever stands at padding, no real target may look at it.
  beside = {
    "decoder_input_ids": before,
    "decoder_attention_mask": torch.ones_like(before),
    "use_cache": False,
  }
  with torch.no_grad():
    encoded = made.get_encoder()(input_ids=inputs, attention_mask=mask)[0]
    plain = made(input_ids=inputs, attention_mask=mask, **beside).logits
  prompt = torch.tensor(given["prompt"], requires_grad=True)
  table = made.get_encoder().get_input_embeddings()
  rows = prompt[None].expand(len(inputs), -1, -1)
  longer = {
    "inputs_embeds": torch.cat([rows, table(inputs)], 1),
    "attention_mask": torch.cat([torch.ones(len(inputs), P).long(), mask], 1),
  }
  prompted = made(**longer, **beside).logits
  loss = torch.nn.functional.cross_entropy(
    prompted.reshape(-1, prompted.shape[-1]),
    targets.reshape(-1),
    ignore_index=0,
  )
  loss.backward()
  fixed = {"max_new_tokens": L, "do_sample": False, "use_cache": False}
  fixed["decoder_start_token_id"] = start
  written = {
    "greedy": made.generate(
      input_ids=inputs, attention_mask=mask, num_beams=1, **fixed
    ),
    "beams": made.generate(
      input_ids=inputs,
      attention_mask=mask,
      num_beams=4,
      length_penalty=0.0,
      early_stopping="never",
      **fixed,
    ),
    "prompted_greedy": made.generate(
      **{k: v.detach() for k, v in longer.items()}, num_beams=1, **fixed
    ),
  }
  return {
    "encoded": (encoded * mask[..., None]).numpy(),
    "logits": plain.numpy(),
    "prompted_logits": prompted.detach().numpy(),
    "loss": loss.detach().numpy(),
    "prompt_gradient": prompt.grad.numpy(),
    **{k: _padded(ids) for k, ids in written.items()},
  }


def _padded(ids) -> np.ndarray:
  """What was written up to the end, whatever stands behind it."""
  whole = np.zeros((len(ids), L), np.int32)
  for row, found in zip(whole, ids[:, 1 : L + 1].numpy(), strict=True):
    length = np.argmax(np.append(found, 1) == 1) + 1
    row[:length] = found[:length]
  return whole


def digest(shapes: dict[str, tuple[int, ...]]) -> str:
  """What says that two models have the same tensors."""
  lines = [f"{k} {tuple(shape)}" for k, shape in sorted(shapes.items())]
  return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def says_pad(said: dict[str, np.ndarray]) -> bool:
  """Whether some answer has padding inside, as no trained model's has.

  transformers masks it where nothing is cached, and this package never does.
  """
  rows = [row for ids in said.values() if ids.dtype == np.int32 for row in ids]
  ends = [np.argmax(np.append(row, 1) == 1) for row in rows]
  return any(
    (row[:end] == 0).any() for row, end in zip(rows, ends, strict=True)
  )


def by_peft(whole, given) -> np.ndarray:
  """What a model says of the batch behind an adapter of PEFT."""
  import peft
  import torch

  length, width = given["prompt"].shape
  config = peft.PromptTuningConfig(
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=length,
    num_transformer_submodules=1,
    token_dim=width,  # it does not find those of a T5Gemma
    num_layers=1,
    num_attention_heads=1,
  )
  adapted = peft.get_peft_model(whole, config).eval()
  inputs = torch.tensor(given["inputs"], dtype=torch.long)
  targets = torch.tensor(given["targets"], dtype=torch.long)
  start = 0 if whole.config.model_type == "umt5" else 2
  before = torch.nn.functional.pad(targets, (1, 0), value=start)[:, :-1]
  rows = adapted.prompt_encoder["default"].embedding.weight
  with torch.no_grad():
    rows.copy_(torch.tensor(given["prompt"]))
    return adapted(
      input_ids=inputs,
      attention_mask=(inputs != 0).long(),
      decoder_input_ids=before,
      decoder_attention_mask=torch.ones_like(before),
      use_cache=False,
    ).logits.numpy()


def made(name: str) -> tuple[dict, dict[str, np.ndarray]]:
  """What is recorded of a model, with the first seed that says no padding."""
  for seed in range(100):
    whole = model(name, seed)
    width = whole.get_encoder().get_input_embeddings().weight.shape[1]
    given = batch(name, width)
    said = answers(whole, given)
    if not says_pad(said):
      break
  else:
    raise RuntimeError(f"{name} says padding whatever its seed is.")
  shapes = {k: tuple(v.shape) for k, v in whole.named_parameters()}
  # A prompt of PEFT is what stands in front of the embedded input.
  np.testing.assert_array_equal(by_peft(whole, given), said["prompted_logits"])
  record = {"seed": seed, "tensors": digest(shapes)}
  record["config"] = json.loads(whole.config.to_json_string())
  return record, said


def main() -> int:
  records, arrays = {}, {}
  for name in NAMES:
    records[name], said = made(name)
    arrays |= {f"{name}/{key}": value for key, value in said.items()}
    print(name, "made, seed", records[name]["seed"])
  np.savez_compressed(HERE / "families.npz", **arrays)
  text = json.dumps(records, separators=(",", ":"))
  (HERE / "families.json").write_text(text + "\n", encoding="utf-8")
  return 0


if __name__ == "__main__":
  sys.exit(main())
