"""How the examples of a step lie in memory; the step itself is the same.

    batch of a step [B, P + T] -> padded   one rectangle, as it is
                               -> groups   parts of like length, each as wide
                                           as its longest example needs
                               -> packed   parts of rows that hold several
                                           examples each, told apart by segments

Which examples a step has is a function of seed and step (`batches`); here is
another, pure function of their lengths. The parts of a step are computed one
after the other and their gradients added, so a part is also what bounds the
memory of a step. Few shapes occur, each of which is compiled once: their widths
are chosen when the run begins, from the lengths in its first steps.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os

import numpy as np

from prompt_tuning.data import packing
from prompt_tuning.model import inject
from prompt_tuning.shapes import PAD, rounded

Batch = Mapping[str, np.ndarray]
Parts = Sequence[Batch]

TOKENS = "tokens"
"""The one part of a batch without rows: the target tokens of each prompt."""

AUTO, PADDED, GROUPS, PACKED = "auto", "padded", "groups", "packed"
LAYOUTS = (AUTO, PADDED, GROUPS, PACKED)

_FIRST_STEPS = 64  # whose lengths decide which shapes there are
_INPUT_WIDTHS, _TARGET_WIDTHS = 8, 2  # at most
_PLACES_OF_A_PART = 64  # computed while a part reads the weights


@dataclasses.dataclass(frozen=True)
class Layout:
  """What the user chooses of it.

  Attributes:
    layout: `auto`, `padded`, `groups` or `packed`. `auto` is groups on a CPU,
      which computes small parts fastest, and packed rows elsewhere.
    microbatch_tokens: places of input that a part has at most; in groups a part
      of examples of the mean length, so that one of longer ones has more. 0 for
      what suits the device.
    num_microbatches: into how many parts a step is divided, as under t5x; 0
      leaves it to `microbatch_tokens`.
  """

  layout: str = AUTO
  microbatch_tokens: int = 0
  num_microbatches: int = 0

  def __post_init__(self):
    if self.layout not in LAYOUTS:
      raise ValueError(
        f"LAYOUT={self.layout!r} is not known; choose one of "
        f"{', '.join(LAYOUTS)}."
      )
    for name in ("microbatch_tokens", "num_microbatches"):
      value = getattr(self, name)
      if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(
          f"{name.upper()}={value!r}; give a whole number, or 0 for what suits "
          "the device."
        )
    if self.microbatch_tokens and self.num_microbatches:
      raise ValueError(
        f"MICROBATCH_TOKENS={self.microbatch_tokens} and NUM_MICROBATCHES="
        f"{self.num_microbatches} both divide a step. Set one of them to 0."
      )
    divides = self.microbatch_tokens or self.num_microbatches
    if self.layout == PADDED and divides:
      raise ValueError(
        "LAYOUT='padded' computes a step whole. Choose LAYOUT='groups' or "
        "'packed' with MICROBATCH_TOKENS or NUM_MICROBATCHES."
      )

  def arrange(
    self,
    batches: Callable[[int], Batch],
    *,
    num_prompts: int,
    emb_dim: int,
    platform: str = "cpu",
    devices: int = 1,
  ) -> Callable[[int], Batch | Parts]:
    """The batches of a run as this layout has them.

    Args:
      batches: the batch of a step, see `batches.TaskBatches`.
      num_prompts: N of the bank.
      emb_dim: E of the network; a narrower one computes larger parts at once.
      platform: of the device, as JAX calls it.
      devices: that share the rows of a batch or part, and so divide them.
    """
    layout = self.layout
    if layout == AUTO:
      layout = GROUPS if platform == "cpu" else PACKED
    if layout == PADDED:
      return lambda step: _divided(batches(step), devices)
    lengths = [
      packing.Lengths.of(batches(step)) for step in range(_FIRST_STEPS)
    ]
    cache = last_cache() if devices == 1 else 0  # hosts may differ in it
    suits = devices * suiting(platform, emb_dim, cache)
    limit = self.microbatch_tokens or suits
    make = _groups if layout == GROUPS else _packed
    arranged = make(lengths, limit, self.num_microbatches)

    def parts(step: int) -> Parts:
      made = arranged(_with_tokens(batches(step), num_prompts))
      return [_divided(part, devices) for part in made]

    return parts


def last_cache() -> int:
  """Bytes of this machine's last level of cache; 0 where it does not say."""
  name = "SC_LEVEL3_CACHE_SIZE"
  return max(0, os.sysconf(name)) if name in os.sysconf_names else 0


def suiting(platform: str, emb_dim: int, cache: int = 0) -> int:
  """The places of a part that a device computes fastest.

  On a CPU the activations of a part should stay in its cache of so many bytes,
  and the weights are read once a part (docs/benchmarks.md).
  """
  if platform != "cpu":
    return 1 << 14
  return max(512, min(max(1 << 19, cache // 128), 1 << 20) // emb_dim)


def _divided(batch: Batch, devices: int) -> Batch:
  """The batch or part with empty rows, so that the devices divide its rows."""
  if devices == 1:
    return batch
  rows = -(-len(batch["inputs"]) // devices) * devices
  return {k: v if k == TOKENS else _filled(v, rows) for k, v in batch.items()}


def _with_tokens(batch: Batch, num_prompts: int) -> Batch:
  """The batch with the target tokens of each prompt, [N], for the mean."""
  targets = batch["targets"]
  real = (inject.is_word(targets) & (targets != PAD)).sum(1)
  tokens = np.bincount(batch["prompt_id"], real, minlength=num_prompts)
  return {**batch, "tokens": np.maximum(tokens, 1).astype(np.float32)}


def few(values: Sequence[int], count: int) -> tuple[int, ...]:
  """At most `count` widths, so that rounding `values` up to them costs least.

  Each width is a multiple of the padding's; the widest holds all values.
  """
  widths, number = np.unique([rounded(v) for v in values], return_counts=True)
  before = np.concatenate([[0], np.cumsum(number)])
  # cost[j]: of the values up to width j, with a width at j; one more each turn.
  cost = widths * before[1:]
  chosen: list[tuple[int, ...]] = [(int(w),) for w in widths]
  for _ in range(min(count, len(widths)) - 1):
    costs, options = cost.copy(), list(chosen)
    for j in range(1, len(widths)):
      candidates = cost[:j] + widths[j] * (before[j + 1] - before[1 : j + 1])
      best = int(candidates.argmin())
      if candidates[best] < costs[j]:
        costs[j] = candidates[best]
        options[j] = (*chosen[best], int(widths[j]))
    cost, chosen = costs, options
  return chosen[-1]


def _at_least(widths: Sequence[int], length: int, widest: int) -> int:
  """The narrowest of the widths that holds a length; else the batch's own."""
  return min((w for w in widths if w >= length), default=widest)


def _part_rows(rows: int, limit: int) -> int:
  """Rows of a part, `limit` at most and not under half of it.

  Few empty rows come first, for they are computed; then few parts.
  """
  most = max(1, min(rows, limit))
  return min(
    range(most, (most - 1) // 2, -1), key=lambda size: -(-rows // size) * size
  )


def _filled(column: np.ndarray, rows: int) -> np.ndarray:
  """The column with empty rows behind it."""
  missing = rows - len(column)
  return np.pad(column, [(0, missing)] + [(0, 0)] * (column.ndim - 1))


def _groups(lengths: Sequence[packing.Lengths], limit: int, num_parts: int):
  """Parts of so many examples each, next to each other in length."""
  mean = np.mean([each.inputs.mean() for each in lengths])
  rows = len(lengths[0].inputs)

  def parts(of: packing.Lengths, size: int) -> list[np.ndarray]:
    order = np.lexsort((of.targets, of.inputs))
    return [order[at : at + size] for at in range(0, len(order), size)]

  def cost(size: int) -> int:
    found = [of.inputs[part] for of in lengths for part in parts(of, size)]
    return sum(size * int(f.max()) + _PLACES_OF_A_PART for f in found)

  sizes = [_part_rows(rows, int(limit // mean / by)) for by in (1, 2)]
  size = -(-rows // num_parts) if num_parts else min(sizes, key=cost)
  found = [(each, part) for each in lengths for part in parts(each, size)]
  widths = few([int(each.inputs[p].max()) for each, p in found], _INPUT_WIDTHS)
  target_widths = few(
    [int(each.targets[p].max()) for each, p in found], _TARGET_WIDTHS
  )

  def arrange(batch: Batch) -> list[Batch]:
    of = packing.Lengths.of(batch)
    inputs, targets = batch["inputs"], batch["targets"]
    made = []
    for part in parts(of, size):
      width = _at_least(widths, int(of.inputs[part].max()), inputs.shape[1])
      target_width = _at_least(
        target_widths, int(of.targets[part].max()), targets.shape[1]
      )
      made.append(
        {
          "inputs": _filled(inputs[part, :width], size),
          "targets": _filled(targets[part, :target_width], size),
          "prompt_id": _filled(batch["prompt_id"][part], size),
          "tokens": batch["tokens"],
        }
      )
    return made

  return arrange


def _packed(lengths: Sequence[packing.Lengths], limit: int, num_parts: int):
  """Parts of rows of one length, each with as many examples as fit."""
  longest = max(each.inputs.max() for each in lengths)
  mean = np.mean([each.inputs.mean() for each in lengths])
  width = rounded(int(max(longest, 2 * mean)))
  targets = np.concatenate([each.targets for each in lengths])
  target_width = rounded(
    int(max(targets.max(), np.ceil(targets.mean() * width / mean)))
  )

  def rows(of: packing.Lengths) -> list[list[int]]:
    return packing.first_fit(of, (width, target_width))

  usual = max(len(rows(each)) for each in lengths)
  size = max(1, min(usual, limit // width))
  if num_parts:
    size = -(-usual // num_parts)

  def arrange(batch: Batch) -> list[Batch]:
    of = packing.Lengths.of(batch)
    packed = rows(of)
    # What the first steps had no example of has the batch's own width.
    wide, wide_targets, count = width, target_width, size
    if of.inputs.max() > width:
      wide = batch["inputs"].shape[1]
      if not num_parts:  # as few rows as keep a part as large as it was
        count = max(1, size * width // wide)
    if of.targets.max() > target_width:
      wide_targets = batch["targets"].shape[1]
    made = []
    for at in range(0, len(packed), count):
      part = packing.empty(count, wide, wide_targets)
      for row, members in enumerate(packed[at : at + count]):
        packing.fill(
          part, row, [packing.cut(batch, of, member) for member in members]
        )
      made.append({**part, "tokens": batch["tokens"]})
    return made

  return arrange


def computed(batch: Batch | Parts) -> tuple[int, int]:
  """Places of input that are computed, and how many of them hold a token."""
  parts = [batch] if isinstance(batch, Mapping) else batch
  tokens = [part["inputs"] for part in parts]
  return sum(t.size for t in tokens), sum(int((t != PAD).sum()) for t in tokens)


def num_examples(batch: Batch | Parts) -> int:
  """How many examples a step has."""
  if isinstance(batch, Mapping):
    return len(batch["inputs"])
  return sum(
    int(part["input_segments"].max(1).sum())
    if "input_segments" in part
    else int((part["inputs"] != PAD).any(1).sum())
    for part in batch
  )
