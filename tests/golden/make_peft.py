"""Makes tests/golden/peft/ from PEFT: adapters and what a T5 says with them.

    python tests/golden/make_peft.py [NAME …]

Needs torch, transformers and peft (made with 2.13.0, 5.23.0 and 0.21.2; those
of IA3 with transformers 5.24.0). The frozen model is
tests/golden/huggingface/t5_1_1.
"""

import pathlib
import sys

import numpy as np
import peft
from safetensors.numpy import save_file
import torch
import transformers

HERE = pathlib.Path(__file__).parent
BASE = HERE / "huggingface" / "t5_1_1"
P = 4


def frozen():
  """The model that the adapters belong to."""
  made = transformers.T5ForConditionalGeneration.from_pretrained(BASE)
  return made.eval()


def adapted(submodules: int | None, seed: int = 0):
  """The frozen model with a prompt of PEFT in front of it."""
  settings = {"num_transformer_submodules": submodules} if submodules else {}
  config = peft.PromptTuningConfig(
    task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P, **settings
  )
  model = peft.get_peft_model(frozen(), config)
  torch.manual_seed(seed)
  weight = model.prompt_encoder["default"].embedding.weight
  with torch.no_grad():
    weight.copy_(2 * torch.randn(weight.shape))
  return model.eval()


def of_tasks(seed: int = 0):
  """The frozen model with PEFT's multi-task prompt: three tasks, rank 2."""
  config = peft.MultitaskPromptTuningConfig(
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=P,
    num_transformer_submodules=1,
    num_tasks=3,
    num_ranks=2,
  )
  model = peft.get_peft_model(frozen(), config)
  torch.manual_seed(seed)
  encoder = model.prompt_encoder["default"]
  with torch.no_grad():
    for weight in (
      encoder.embedding.weight,
      encoder.prefix_task_cols,
      encoder.prefix_task_rows,
    ):
      weight.copy_(torch.randn(weight.shape))
  return model.eval()


def scaled(
  modules: list[str] | None = None, before: list[str] | None = None, seed=0
):
  """The frozen model with IA3 of PEFT: on its usual modules, or on others."""
  config = peft.IA3Config(
    task_type="SEQ_2_SEQ_LM", target_modules=modules, feedforward_modules=before
  )
  model = peft.get_peft_model(frozen(), config)
  torch.manual_seed(seed)
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if "ia3_l" in name:
        weight.copy_(1 + torch.randn(weight.shape) / 2)
  return model.eval()


OTHERS = {"modules": ["q", "k", "v", "o", "wi_1", "wo"], "before": ["o", "wo"]}
"""All that IA3 can multiply and that is the same as keys, values and hidden."""


def batch(seed: int = 0) -> dict[str, np.ndarray]:
  """Padded inputs and targets."""
  rng = np.random.default_rng(seed)
  inputs = rng.integers(2, 60, (3, 6)).astype(np.int32)
  inputs[1, 3:] = 0
  return {
    "inputs": inputs,
    "targets": rng.integers(2, 60, (3, 4)).astype(np.int32),
  }


def logits(model, given, task: int | None = None) -> np.ndarray:
  """What the adapted model says of the targets, all of one task."""
  inputs = torch.tensor(given["inputs"], dtype=torch.long)
  targets = torch.tensor(given["targets"], dtype=torch.long)
  said = {"decoder_input_ids": torch.nn.functional.pad(targets, (1, 0))[:, :-1]}
  if task is not None:  # it makes the decoder's input of the labels alone
    said = {"labels": targets, "task_ids": torch.full((len(inputs),), task)}
  with torch.no_grad():
    return model(
      input_ids=inputs,
      attention_mask=(inputs != 0).long(),
      use_cache=False,
      **said,
    ).logits.numpy()


def main() -> int:
  makers = {
    "one": lambda: adapted(1),
    "two": lambda: adapted(None),
    "tasks": of_tasks,
    "ia3": scaled,
    "ia3_others": lambda: scaled(**OTHERS),
  }
  for name in sys.argv[1:] or makers:
    model = makers[name]()
    given, folder = batch(), HERE / "peft" / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    each = range(3) if name == "tasks" else (None,)
    said = np.stack([logits(model, given, task) for task in each])
    expected = {**given, "logits": said if name == "tasks" else said[0]}
    save_file(
      {k: np.ascontiguousarray(v) for k, v in expected.items()},
      folder / "expected.safetensors",
    )
    config = folder / "adapter_config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(str(BASE), "t5_1_1"), encoding="utf-8")
    print(name, "written")
  return 0


if __name__ == "__main__":
  sys.exit(main())
