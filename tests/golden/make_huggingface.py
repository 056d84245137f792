"""Makes tests/golden/huggingface/ from transformers: tiny T5s, what they say.

    python tests/golden/make_huggingface.py

Needs torch and transformers (made with 2.13.0 and 5.23.0). Each folder holds a
model as transformers saves it, and expected.safetensors with inputs and
outputs in float32.
"""

import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file
import torch
import transformers

HERE = pathlib.Path(__file__).parent / "huggingface"
P, B, T, L = 3, 4, 7, 5

VARIANTS = {
  "t5_1_0": {"feed_forward_proj": "relu"},
  "t5_1_1": {
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "num_layers": 1,
    "num_decoder_layers": 2,
  },
  "few_buckets": {
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 4,
    "relative_attention_max_distance": 8,
    "layer_norm_epsilon": 1e-5,
  },
  "mt5": {"feed_forward_proj": "gated-gelu"},
}


def model(name: str, seed: int = 0, **sizes):
  """A T5 of random weights, all of them away from zero and one."""
  settings = {
    "vocab_size": 60,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_heads": 2,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "decoder_start_token_id": 0,
    **VARIANTS[name],
    **sizes,
  }
  torch.manual_seed(seed)
  if name == "mt5":
    config = transformers.MT5Config(**settings)
    made = transformers.MT5ForConditionalGeneration(config)
  else:
    config = transformers.T5Config(**settings)
    made = transformers.T5ForConditionalGeneration(config)
  untied = settings.get("tie_word_embeddings") is False or name == "mt5"
  if untied:  # the head of its own that T5 1.1 and mT5 have
    made.lm_head.weight = torch.nn.Parameter(
      torch.randn(made.shared.weight.shape)
    )
  with torch.no_grad():
    for path, weight in made.named_parameters():
      noise = torch.randn(weight.shape)
      fan_in = weight.shape[-1] ** -0.5
      if path.endswith(".q.weight"):  # carries attention's 1 / sqrt(d_kv)
        fan_in *= settings["d_kv"] ** -0.5
      weight.copy_(noise * fan_in if weight.ndim > 1 else 1 + 0.1 * noise)
    made.shared.weight.mul_(4)
  return made.eval()


def batch(rows: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
  """Padded inputs, targets that end in EOS, and a prompt."""
  rng = np.random.default_rng(seed)
  inputs = rng.integers(2, rows, (B, T)).astype(np.int32)
  inputs[1, 4:] = 0
  inputs[2, 6:] = 0
  targets = rng.integers(2, rows, (B, L)).astype(np.int32)
  targets[:, -1] = 1
  targets[0, 3:] = (1, 0)
  width = rng.normal(size=(P, 16)).astype(np.float32) * 2
  return {"inputs": inputs, "targets": targets, "prompt": width}


def answers(made, given) -> dict[str, np.ndarray]:
  """What the model says of the batch, with the prompt in front and without."""
  inputs = torch.tensor(given["inputs"], dtype=torch.long)
  targets = torch.tensor(given["targets"], dtype=torch.long)
  mask = (inputs != 0).long()
  before = torch.nn.functional.pad(targets, (1, 0))[:, :-1]
  with torch.no_grad():
    encoded = made.encoder(input_ids=inputs, attention_mask=mask)[0]
    logits = made(
      input_ids=inputs,
      attention_mask=mask,
      decoder_input_ids=before,
      use_cache=False,
    ).logits
    greedy = made.generate(
      input_ids=inputs,
      attention_mask=mask,
      max_new_tokens=L,
      num_beams=1,
      do_sample=False,
      use_cache=False,  # its cache counts the encoder's layers
    )
  prompt = torch.tensor(given["prompt"], requires_grad=True)
  embedded = made.shared(inputs)
  rows = prompt[None].expand(len(inputs), -1, -1)
  prompted = made(
    inputs_embeds=torch.cat([rows, embedded], 1),
    attention_mask=torch.cat([torch.ones(len(inputs), P).long(), mask], 1),
    decoder_input_ids=before,
    use_cache=False,
  ).logits
  loss = torch.nn.functional.cross_entropy(
    prompted.reshape(-1, prompted.shape[-1]),
    targets.reshape(-1),
    ignore_index=0,
  )
  loss.backward()
  ids = np.zeros((len(inputs), L), np.int32)
  found = greedy[:, 1 : L + 1].numpy()
  ids[:, : found.shape[1]] = found
  return {
    "encoded": (encoded * mask[..., None]).numpy(),
    "logits": logits.numpy(),
    "greedy": ids,
    "prompted_logits": prompted.detach().numpy(),
    "loss": loss.detach().numpy(),
    "prompt_gradient": prompt.grad.numpy(),
  }


def main() -> int:
  for name in VARIANTS:
    made, given = model(name), batch()
    made.save_pretrained(HERE / name)
    (HERE / name / "generation_config.json").unlink(missing_ok=True)
    expected = {**given, **answers(made, given)}
    save_file(
      {k: np.ascontiguousarray(v) for k, v in expected.items()},
      HERE / name / "expected.safetensors",
    )
    print(name, "written")
  return 0


if __name__ == "__main__":
  sys.exit(main())
