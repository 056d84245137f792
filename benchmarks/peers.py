"""Measures a step of prompt tuning beside transformers with PEFT.

    python -m venv /tmp/peft
    /tmp/peft/bin/pip install torch transformers peft
    python benchmarks/peers.py --peft /tmp/peft/bin/python

Both tune 100 positions in front of a T5 1.1 small of random weights, in
float32, on the same examples: PEFT as its users run it (each batch padded to
its longest example, scaled dot product attention, AdamW), this project as its
`train` command does. Each lives in a process of its own, and they take turns,
so that whatever else the machine does meets both; the ratio is that of the
tokens per second, its spread that of the turns. Without --peft only this
project is measured. Two cases have this project on both sides: answers of 16
prompts mixed in each batch against answers of one, and five prompts of the
microworld trained at once against five runs. Nothing else should run meanwhile.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

P, VOCABULARY = 100, 32128
QUANTILES = {
  # Of the lengths of inputs, from the shortest to the longest by tenths: MRPC's
  # training set as T5 reads it, and a set with BoolQ's mean and longest.
  "mrpc": (28, 47, 53, 58, 62, 66, 71, 75, 79, 85, 127),
  "boolq": (40, 92, 112, 129, 146, 164, 184, 208, 240, 291, 454),
}
CASES = {
  "equal": ("equal shapes, batch 16, 128 in, 8 out", 16, 2),
  "mrpc": ("lengths of MRPC, batch 32", 32, 2),
  "boolq": ("lengths like BoolQ's, batch 16", 16, 2),
  "evaluate": ("greedy answers, lengths of MRPC, batch 64", 64, 4),
  "mixed": ("the same of 16 prompts in a batch and of one", 64, 1),
  "five": ("5 prompts of the microworld at once and in 5 runs", 32, 1),
}
"""The work, how many examples a batch has, and how many batches a turn has."""
BANK = 16  # prompts of the case "mixed"
SIZES = {
  "small": (512, 6, 1024, 8),
  "base": (768, 12, 2048, 12),
  "large": (1024, 16, 2816, 24),
  "xl": (2048, 32, 5120, 24),
}
"""Of T5 1.1: width, heads, width of the feed-forward part, layers of a stack;
a head is 64 wide."""


def lengths(case: str, count: int) -> np.ndarray:
  """Lengths of inputs, drawn from the quantiles."""
  if case == "equal":
    return np.full(count, 128)
  table = QUANTILES["boolq" if case == "boolq" else "mrpc"]
  places = np.random.default_rng(0).uniform(0, 10, count)
  drawn = np.interp(places, np.arange(11), table).astype(int)
  drawn[0] = table[-1]  # the longest is there
  return drawn


def examples(case: str, count: int = 512) -> tuple[list, list]:
  """Ids of inputs and targets, the end of sequence behind them."""
  rng = np.random.default_rng(1)

  def ids(length):
    return [*rng.integers(3, 32000, length - 1).tolist(), 1]

  inputs = [ids(length) for length in lengths(case, count)]
  return inputs, [ids(8 if case == "equal" else 4) for _ in inputs]


class Ours:
  """This project, as `prompt-tuning train` and `eval` use it."""

  num_prompts = 1

  def __init__(self, case: str, layout_name: str, size: str, dtype: str):
    import jax

    from prompt_tuning.data import batches, layout, splits
    from prompt_tuning.frozen import pretrained
    from prompt_tuning.model import freeze, t5
    from prompt_tuning.prompts import prompt
    from prompt_tuning.training import optimizers, step

    self._jax, self._step, self._layout = jax, step, layout
    width, heads, hidden, layers = SIZES[size]
    config = t5.T5Config(
      *(VOCABULARY, width, heads, 64, hidden, layers, layers), dtype=dtype
    )
    rng = np.random.default_rng(0)
    params = pretrained.random(config, dtype=dtype).params
    bank = self.num_prompts
    module = prompt.Prompt(P, config.emb_dim, bank)
    first = rng.standard_normal((bank, P, config.emb_dim), np.float32)
    self._params = {**params, prompt.NAME: module.first_parameters(first)}
    self._network = t5.T5(config, prompt=module)
    inputs, targets = examples(case)
    read = splits.Examples(
      "", "", *map(splits.Sequences.of, (inputs, targets)), [], {}
    )
    of_task = batches.TaskBatches(
      [[(read, 1.0)]], [0], batch_size=CASES[case][1], prompt_length=P
    )
    self.batches = layout.Layout(layout_name).arrange(
      of_task,
      num_prompts=1,
      emb_dim=config.emb_dim,
      platform=jax.default_backend(),
    )
    self._inputs, self._size = inputs, CASES[case][1]
    self._is_evaluation = case in ("evaluate", "mixed")
    optimizer = optimizers.per_prompt(optimizers.adafactor())
    problem = step.Problem(self._network, optimizer)
    mask = freeze.mask(self._params, freeze.PROMPT)
    trained, self._frozen = jax.device_put(freeze.split(self._params, mask))
    self._state = step.initial_state(problem, trained)
    self._steps = step.make_steps(problem)
    if self._is_evaluation:
      self._predict = self._predictor()

  def _predictor(self):
    from prompt_tuning.inference import infer
    from prompt_tuning.prompts import prompted

    lengths = (P,) * self.num_prompts
    together = prompted.Prompted(
      self._network, self._jax.device_put(self._params), _Words(), lengths
    )
    decoding = infer.Decoding(max_length=8, batch_size=self._size)
    return infer.Predictor(together, decoding)

  def turn(self, first: int, count: int) -> int:
    """Does the batches from `first` on; the real tokens of their inputs."""
    if self._is_evaluation and count:
      at = first * self._size % len(self._inputs)
      rows = [*map(np.array, self._inputs[at : at + count * self._size])]
      self._predict(rows, np.arange(len(rows)) % self.num_prompts)
      return sum(len(row) + P for row in rows)
    real = 0
    for at in range(first, first + count):
      batch = self.batches(at)
      real += self._layout.computed(batch)[1]
      if isinstance(batch, dict):
        made = {k: v[None] for k, v in batch.items()}
      else:
        made = [batch]
      self._state, metrics = self._steps(self._state, self._frozen, made)
      float(metrics["loss"][0, 0])
    return real

  def about(self) -> dict:
    """Computed places per real one, and the peak of a matmul here."""
    counts = [self._layout.computed(self.batches(at)) for at in range(16)]
    computed, real = np.sum(counts, axis=0)
    device = self._jax.devices()[0]
    held = device.memory_stats() or {}
    on_device = {"peak GB": held["peak_bytes_in_use"] / 1e9} if held else {}
    return {
      "computed/real": round(float(computed / real), 3),
      "matmul GF/s": round(self._peak()),
      "device": device.device_kind,
      **on_device,
    }

  def _peak(self) -> float:
    """Of the largest matrix product in the network."""
    jnp, config = self._jax.numpy, self._network.config
    x = jnp.ones((3648, config.emb_dim), config.dtype)
    w = jnp.ones((config.emb_dim, config.mlp_dim), config.dtype)
    many = self._jax.jit(
      lambda x, w: self._jax.lax.fori_loop(
        0, 20, lambda _, y: (y @ w) @ (w.T * 1e-3), x
      )
    )
    many(x, w).block_until_ready()
    begin = time.perf_counter()
    many(x, w).block_until_ready()
    return 40 * 2 * x.size * w.shape[1] / (time.perf_counter() - begin) / 1e9


class Mixed(Ours):
  """This project, with examples of many prompts in each batch."""

  num_prompts = BANK


class _Words:
  """Stands in for a vocabulary: an answer is its ids."""

  def decode(self, ids) -> str:
    return " ".join(map(str, ids))


class Peft:
  """transformers and PEFT, as their documentation has it."""

  def __init__(self, case: str, _, size: str, dtype: str):
    import peft
    import torch
    import transformers

    self._torch = torch
    torch.manual_seed(0)
    width, heads, hidden, layers = SIZES[size]
    config = transformers.T5Config(
      vocab_size=VOCABULARY,
      d_model=width,
      d_kv=64,
      d_ff=hidden,
      num_layers=layers,
      num_decoder_layers=layers,
      num_heads=heads,
      feed_forward_proj="gated-gelu",
      tie_word_embeddings=False,
      dropout_rate=0.0,
      decoder_start_token_id=0,
    )
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.T5ForConditionalGeneration(config)
    model = model.to(self._device, getattr(torch, dtype))
    self._model = peft.get_peft_model(
      model,
      peft.PromptTuningConfig(
        task_type=peft.TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=P
      ),
    )
    trained = [p for p in self._model.parameters() if p.requires_grad]
    self._optimizer = torch.optim.AdamW(trained, lr=0.3)
    self._inputs, self._targets = examples(case)
    self._size = CASES[case][1]
    self._is_evaluation = case == "evaluate"
    self._order = np.random.default_rng(0).permutation(len(self._inputs))

  def _padded(self, rows, filler: int):
    longest = max(map(len, rows))
    filled = [row + [filler] * (longest - len(row)) for row in rows]
    return self._torch.tensor(filled, device=self._device)

  def turn(self, first: int, count: int) -> int:
    """See `Ours.turn`."""
    torch, size, real = self._torch, self._size, 0
    for at in range(first * size, (first + count) * size, size):
      index = self._order[at % len(self._order) :][:size]
      inputs = self._padded([self._inputs[i] for i in index], 0)
      mask = (inputs != 0).long()
      real += int(mask.sum()) + P * size
      if self._is_evaluation:
        with torch.no_grad():
          self._model.generate(
            input_ids=inputs,
            attention_mask=mask,
            max_new_tokens=8,
            do_sample=False,
          )
        continue
      labels = self._padded([self._targets[i] for i in index], -100)
      out = self._model(input_ids=inputs, attention_mask=mask, labels=labels)
      out.loss.backward()
      self._optimizer.step()
      self._optimizer.zero_grad()
      out.loss.item()
    return real

  def about(self) -> dict:
    """Which versions these are."""
    import peft
    import transformers

    on_device = {}
    if self._device == "cuda":
      peak = self._torch.cuda.max_memory_allocated()
      on_device = {"peak GB": peak / 1e9}
    return {
      "versions": f"torch {self._torch.__version__}, transformers "
      f"{transformers.__version__}, peft {peft.__version__}",
      **on_device,
    }


SIDES = {"ours": Ours, "mixed": Mixed, "peft": Peft}


def work(side: str, *what: str) -> None:
  """Answers every line on stdin (first batch, how many) with a measurement."""
  worker = SIDES[side](*what)
  for line in sys.stdin:
    asked = json.loads(line)
    begin = time.perf_counter()
    real = worker.turn(*asked["turn"])
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    about = worker.about() if asked.get("about") else {}
    answer = {"seconds": seconds, "tokens": real, "peak GB": peak, **about}
    print("#" + json.dumps(answer), flush=True)


class Worker:
  """The process of one side."""

  def __init__(self, python: str, side: str, case: str, *how: str):
    flags = zip(("--layout", "--size", "--dtype"), how, strict=True)
    self._process = subprocess.Popen(
      [
        *(python, __file__, "--side", side, "--case", case),
        *(word for flag in flags for word in flag),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )

  def ask(self, **what) -> dict:
    """One measurement."""
    assert self._process.stdin and self._process.stdout
    self._process.stdin.write(json.dumps(what) + "\n")
    self._process.stdin.flush()
    for line in self._process.stdout:
      if line.startswith("#"):
        return json.loads(line[1:])
    raise RuntimeError(f"{self._process.args} ended; run it to see why.")

  def close(self) -> None:
    """Ends the process."""
    assert self._process.stdin
    self._process.stdin.close()
    self._process.wait()


def measure(case: str, pythons: dict[str, str], rounds: int, *how: str) -> dict:
  """Both sides in turns; seconds a batch, tokens a second, peak, ratio."""
  count = CASES[case][2]
  workers = {s: Worker(p, s, case, *how) for s, p in pythons.items()}
  seconds = {side: [] for side in workers}
  found: dict = {"work": CASES[case][0], "rounds": rounds}
  # The first pass compiles, and is left out.
  for worker in workers.values():
    for turn in range(rounds):
      worker.ask(turn=[turn * count, count])
  tokens, peaks = {}, {}
  for turn in range(rounds):
    for side, worker in workers.items():
      answer = worker.ask(turn=[turn * count, count])
      seconds[side].append(answer["seconds"] / count)
      tokens[side] = tokens.get(side, 0) + answer["tokens"]
      peaks[side] = answer["peak GB"]
  for side, worker in workers.items():
    about = worker.ask(turn=[0, 0], about=True)
    peaks[side] = about.pop("peak GB")  # of the device, if it has its own
    found[side] = {
      "s/batch": round(statistics.median(seconds[side]), 3),
      "examples/s": round(CASES[case][1] / statistics.median(seconds[side]), 2),
      "tokens/s": round(tokens[side] / count / sum(seconds[side])),
      "peak GB": round(peaks[side], 2),
      **{k: v for k, v in about.items() if k not in ("seconds", "tokens")},
    }
    worker.close()
  if len(workers) == 2:
    # A turn has the same batches for both only by their number: the ratio is
    # of tokens per second.
    own, other = workers
    ratios = [b / a for a, b in zip(seconds[own], seconds[other], strict=True)]
    speeds = found[own]["tokens/s"] / found[other]["tokens/s"]
    found["ratio"] = round(speeds, 2)
    found["ratio of turns"] = [round(min(ratios), 2), round(max(ratios), 2)]
    found["peak ratio"] = round(peaks[other] / peaks[own], 2)
  return found


def together_or_apart(rounds: int, steps: int = 200) -> dict:
  """Five prompts in one run, and in five; seconds with the start-up."""

  def train(folder: str, seeds: str) -> float:
    begin = time.perf_counter()
    command = [
      *(sys.executable, "-m", "prompt_tuning.cli", "train"),
      *(
        "--gin_file=models/microworld.gin",
        "--gin_file=prompts/vocabulary.gin",
      ),
      *("--gin_file=runs/prompt_tuning.gin", f"--gin.SEEDS={seeds}"),
      *("--gin.MIXTURE_OR_TASK_NAME=microworld_rte", "--gin.PROMPT_LENGTH=20"),
      *(f"--gin.TRAIN_STEPS={steps}", f"--gin.EVAL_PERIOD={steps}"),
      *("--gin.BATCH_SIZE=32", f"--gin.MODEL_DIR={folder}"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin

  together, apart = [], []
  for turn in range(rounds + 1):
    with tempfile.TemporaryDirectory() as folder:
      together.append(train(f"{folder}/all", "(0,1,2,3,4)"))
      alone = [train(f"{folder}/{seed}", f"({seed},)") for seed in range(5)]
      apart.append(sum(alone))
    if not turn:  # it compiled what the others find compiled
      together.clear(), apart.clear()
  ratios = [a / b for a, b in zip(together, apart, strict=True)]
  return {
    "work": f"{CASES['five'][0]}, {steps} steps",
    "rounds": rounds,
    "at once s": round(statistics.median(together), 1),
    "5 runs s": round(statistics.median(apart), 1),
    "ratio": round(statistics.median(ratios), 2),
    "ratio of turns": [round(min(ratios), 2), round(max(ratios), 2)],
  }


def main() -> None:
  """Measures and prints a line of JSON for each case."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--peft", help="a Python with torch, transformers, peft")
  parser.add_argument("--case", choices=CASES, help="one instead of all")
  parser.add_argument("--layout", default="auto", help="LAYOUT of ours")
  parser.add_argument(
    "--size", choices=SIZES, default="small", help="of T5 1.1"
  )
  parser.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32"
  )
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
  parser.add_argument("--output", type=pathlib.Path, help="a file of the lines")
  flags = parser.parse_args()
  how = (flags.layout, flags.size, flags.dtype)
  if flags.side:
    work(flags.side, flags.case, *how)
    return
  pythons = {"ours": sys.executable}
  if flags.peft:
    pythons["peft"] = flags.peft
  lines = []
  for case in [flags.case] if flags.case else CASES:
    if case == "five":
      found = together_or_apart(flags.rounds)
    else:
      sides = pythons
      if case == "mixed":
        sides = {"mixed": sys.executable, "ours": sys.executable}
      found = measure(case, sides, flags.rounds, *how)
    lines.append(json.dumps(found))
    print(lines[-1], flush=True)
  if flags.output:
    flags.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
  main()
