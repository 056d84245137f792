"""Makes tests/golden/madlad/ from transformers: a tiny MADLAD-400.

    python tests/golden/make_madlad.py

Needs torch, transformers and sentencepiece (made with 2.13.0, 5.24.0 and
0.2.3). As in the published models pad is 1, eos 2 and unk 0, the decoder starts
from 0, and the table stands under the decoder's name. expected.safetensors
holds inputs and outputs, texts.json texts and the ids that SentencePiece gives
them, all in the ids of the files. (The T5Tokenizer of transformers 5.24 takes
id 2 for unknown letters whatever the file says.)
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy
import sentencepiece
import torch

HERE = pathlib.Path(__file__).parent / "madlad"
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import make_huggingface  # noqa: E402
import tiny_t5  # noqa: E402

PAD, EOS, UNK, ROWS = 1, 2, 0, 60
SETTINGS = {
  "feed_forward_proj": "gated-gelu",
  "tie_word_embeddings": False,
  "pad_token_id": PAD,
  "eos_token_id": EOS,
  "decoder_start_token_id": 0,
}
TEXTS = (*tiny_t5.TEXTS, "zebra ü", "", "  the   cat ")


def model(seed: int = 23):
  """A T5 of random weights that never says pad, as no trained one does."""
  make_huggingface.VARIANTS["madlad"] = SETTINGS
  made = make_huggingface.model("madlad", seed)
  with torch.no_grad():
    made.lm_head.weight[PAD] = 0
    made.lm_head.weight[EOS] *= 1.5
  return made


def batch(seed: int = 0) -> dict[str, np.ndarray]:
  """Padded inputs with an unknown piece, and targets that end."""
  rng = np.random.default_rng(seed)
  inputs = rng.integers(3, ROWS, (4, 7)).astype(np.int32)
  inputs[0, 2] = UNK
  inputs[:, -1] = EOS
  inputs[1, 4:] = (EOS, PAD, PAD)
  targets = rng.integers(3, ROWS, (4, 5)).astype(np.int32)
  targets[2, 1] = UNK
  targets[:, -1] = EOS
  return {"inputs": inputs, "targets": targets}


def answers(made, given) -> dict[str, np.ndarray]:
  """Logits of the targets, and greedy answers without the start token."""
  inputs = torch.tensor(given["inputs"], dtype=torch.long)
  targets = torch.tensor(given["targets"], dtype=torch.long)
  mask = (inputs != PAD).long()
  with torch.no_grad():
    logits = made(input_ids=inputs, attention_mask=mask, labels=targets).logits
    greedy = made.generate(
      input_ids=inputs,
      attention_mask=mask,
      max_new_tokens=8,
      num_beams=1,
      do_sample=False,
      use_cache=False,
    )[:, 1:]
  ids = np.full((len(inputs), 8), PAD, np.int32)
  ids[:, : greedy.shape[1]] = greedy.numpy()
  return {"logits": logits.numpy(), "greedy": ids}


def write_vocabulary(folder: pathlib.Path) -> None:
  """spiece.model with MADLAD's special ids."""
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(tiny_t5.TEXTS),
    model_prefix=str(folder / "spiece"),
    vocab_size=50,
    pad_id=PAD,
    eos_id=EOS,
    unk_id=UNK,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  (folder / "spiece.vocab").unlink()


def write(folder: pathlib.Path, made) -> None:
  """The folder as transformers saves it, the table under the other name."""
  made.save_pretrained(folder)
  (folder / "generation_config.json").unlink(missing_ok=True)
  file = folder / "model.safetensors"
  tensors = safetensors.numpy.load_file(file)
  tensors["decoder.embed_tokens.weight"] = tensors.pop("shared.weight")
  safetensors.numpy.save_file(tensors, file, {"format": "pt"})


def main() -> int:
  made, given = model(), batch()
  write(HERE, made)
  write_vocabulary(HERE)
  found = answers(made, given)
  print("greedy:", found["greedy"], sep="\n")
  safetensors.numpy.save_file(
    {**given, **{k: np.ascontiguousarray(v) for k, v in found.items()}},
    HERE / "expected.safetensors",
  )
  pieces = sentencepiece.SentencePieceProcessor(str(HERE / "spiece.model"))
  rows = {text: pieces.encode(text) for text in TEXTS}
  (HERE / "texts.json").write_text(json.dumps(rows, indent=1) + "\n")
  return 0


if __name__ == "__main__":
  sys.exit(main())
