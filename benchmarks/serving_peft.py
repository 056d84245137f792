"""The same requests by transformers and PEFT, beside the server in turns.

    serving.py -> beside -> a process of PEFT's interpreter -> as_peft

A forward pass of PEFT has one adapter, so it computes a batch for each adapter
among 64 requests.
"""

from collections.abc import Callable
import json
import pathlib
import statistics
import subprocess
import sys
import time

TOGETHER, LONGEST, TURNS = 64, 32, 3


def spread(ratios: list[float]) -> str:
  low, high = min(ratios), max(ratios)
  return f"{statistics.median(ratios):.1f} x ({low:.1f} to {high:.1f})"


def beside(
  ours: Callable[[], tuple[float, list]],
  bodies: list[dict],
  python: str,
  folder: pathlib.Path,
) -> None:
  """Asks the server and PEFT in turns, and prints both rates.

  Args:
    ours: answers the requests by the server: seconds, and what was said.
    bodies: the requests.
    python: an interpreter with torch and PEFT.
    folder: of the prompts.
  """
  from prompt_tuning.frozen import pretrained
  from prompt_tuning.prompts import checkpoints, conversion

  place = folder.parent
  model = pretrained.load(pretrained.SHIPPED)
  pretrained.save(place / "base", model, "huggingface")
  for one in sorted(folder.iterdir()):
    conversion.convert(
      checkpoints.load_prompt(one),
      *(place / "adapters" / one.name, "peft", str(place / "base")),
    )
  encode = model.require_vocabulary().encode
  ids = [[*encode(body["prompt"]), 1] for body in bodies]
  (place / "work.json").write_text(
    json.dumps({"names": [b["model"] for b in bodies], "ids": ids})
  )
  peer = subprocess.Popen(
    [python, __file__, str(place)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert peer.stdin and peer.stdout
  assert peer.stdout.readline() == "ready\n"
  ratios, rates, said = [], [], []
  for _ in range(TURNS):
    own, said = ours()
    print("go", file=peer.stdin, flush=True)
    theirs = json.loads(peer.stdout.readline())
    ratios.append(theirs["seconds"] / own)
    rates.append((len(bodies) / own, len(bodies) / theirs["seconds"]))
  print("end", file=peer.stdin, flush=True)
  peer.wait()
  decoded = [model.require_vocabulary().decode(x) for x in theirs["ids"]]
  texts = [read["choices"][0]["text"] for _, read in said]
  same = sum(a == b for a, b in zip(texts, decoded, strict=True))
  one, other = map(statistics.median, zip(*rates, strict=True))
  print(
    f"{one:.0f} requests/s over HTTP by {TOGETHER} clients, {other:.0f} by "
    f"transformers with PEFT, without HTTP: {spread(ratios)}; {same} of "
    f"{len(bodies)} answers are the same",
    flush=True,
  )


def as_peft(place: pathlib.Path) -> None:
  """In the peer's interpreter: 64 requests at a time, a batch per adapter."""
  import peft
  import torch
  import transformers

  base = transformers.T5ForConditionalGeneration.from_pretrained(place / "base")
  model = None
  for where in sorted((place / "adapters").iterdir()):
    name = where.name
    if model is None:
      model = peft.PeftModel.from_pretrained(base, where, adapter_name=name)
    else:
      model.load_adapter(where, adapter_name=name)
  assert model is not None
  model.eval()
  work = json.loads((place / "work.json").read_text())
  print("ready", flush=True)
  while sys.stdin.readline().strip() == "go":
    found: list[list[int]] = [[] for _ in work["ids"]]
    begin = time.perf_counter()
    for first in range(0, len(found), TOGETHER):
      here = range(first, min(first + TOGETHER, len(found)))
      for name in sorted({work["names"][i] for i in here}):
        own = [i for i in here if work["names"][i] == name]
        width = max(len(work["ids"][i]) for i in own)
        tokens = torch.zeros((len(own), width), dtype=torch.long)
        for row, i in enumerate(own):
          tokens[row, : len(work["ids"][i])] = torch.tensor(work["ids"][i])
        model.set_adapter(name)
        with torch.inference_mode():
          said = model.generate(
            input_ids=tokens,
            attention_mask=(tokens > 0).long(),
            max_new_tokens=LONGEST,
            do_sample=False,
            num_beams=1,
          )
        for row, i in enumerate(own):
          found[i] = said[row, 1:].tolist()
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "ids": found}), flush=True)


if __name__ == "__main__":
  as_peft(pathlib.Path(sys.argv[1]))
