"""Makes tests/golden/pickled.json: what torch reads from its old files.

    python tests/golden/make_pickled.py

Needs torch (made with 2.13.0). The tensors of huggingface/t5_1_1 are written as
pytorch_model.bin and read again, in two types; a file of something else is
refused. Values are kept as the SHA-256 of their bytes.
"""

import hashlib
import json
import pathlib
import tempfile

import safetensors.numpy
import torch

HERE = pathlib.Path(__file__).parent
MODEL = HERE / "huggingface" / "t5_1_1" / "model.safetensors"


def state(dtype: str) -> dict[str, torch.Tensor]:
  """The tensors, with the copy of the table that transformers wrote."""
  tensors = safetensors.numpy.load_file(MODEL)
  found = {
    name: torch.tensor(values).to(getattr(torch, dtype))
    for name, values in tensors.items()
  }
  return {**found, "encoder.embed_tokens.weight": found["shared.weight"]}


def facts(tensor: torch.Tensor) -> list:
  """Type, shape and the hash of the bytes."""
  data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
  digest = hashlib.sha256(data).hexdigest()
  return [str(tensor.dtype), list(tensor.shape), digest]


def read(path: pathlib.Path) -> dict[str, list]:
  """What torch finds in a file."""
  found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
  return {name: facts(tensor) for name, tensor in found.items()}


def record() -> dict:
  """What the file holds, by type; and the error of a file of something else."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "pytorch_model.bin"
    made: dict = {}
    for dtype in ("float32", "bfloat16"):
      torch.save(state(dtype), path)
      made[dtype] = read(path)
    torch.save({"a": pathlib.Path("x")}, path)
    try:
      read(path)
    except Exception as error:
      made["something else"] = [type(error).__name__, str(error).split("\n")[0]]
  return made


if __name__ == "__main__":
  text = json.dumps(record(), indent=1) + "\n"
  (HERE / "pickled.json").write_text(text, encoding="utf-8")
