"""Damage to a file: bytes that are lost, changed or added, JSON that is other.

    content, seed -> mutated content

Every mutation is a function of its seed, so a failure comes back.
"""

import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
  *(None, True, False, 0, 1, -1, 2, 7, 10**30, 0.5, -0.0, 1e300),
  *(float("nan"), float("inf"), "", "1", "text", "\u2581<pad>", "../../etc"),
  *([], [[]], ["a", 1], {}, {"a": None}, {"hash": 7}, "\x00", "NaN"),
)
"""What may stand in JSON in the place of something else."""
DEEP = "[" * 3000 + "]" * 3000


def mutated(content: bytes, seed: int, *, is_json: bool = False) -> bytes:
  """The content with one to three kinds of damage; another one than before."""
  rng = random.Random(seed)
  for _ in range(20):
    changed = content
    if is_json and rng.random() < 0.7:
      changed = _other_json(content, rng)
    else:
      for _ in range(rng.choice((1, 1, 2, 3))):
        changed = rng.choice(_BYTES)(changed, rng)
    if changed != content:
      return changed
  raise AssertionError("nothing in the content could be changed")


def _cut(content: bytes, rng: random.Random) -> bytes:
  return content[: rng.randrange(len(content) + 1)]


def _emptied(content: bytes, rng: random.Random) -> bytes:
  return b""


def _lost(content: bytes, rng: random.Random) -> bytes:
  at, length = _span(content, rng)
  return content[:at] + content[at + length :]


def _flipped(content: bytes, rng: random.Random) -> bytes:
  if not content:
    return b"\xff"
  # Headers stand in front: half of the flips are there.
  end = rng.choice((len(content), min(len(content), 200)))
  at = rng.randrange(end)
  bit = content[at] ^ (1 << rng.randrange(8))
  return content[:at] + bytes([bit]) + content[at + 1 :]


def _doubled(content: bytes, rng: random.Random) -> bytes:
  at, length = _span(content, rng)
  return content[: at + length] + content[at:]


def _overwritten(content: bytes, rng: random.Random) -> bytes:
  at, length = _span(content, rng)
  filled = rng.choice((bytes(length), rng.randbytes(length)))
  return content[:at] + filled + content[at + length :]


def _extended(content: bytes, rng: random.Random) -> bytes:
  return content + rng.choice((b"\n", b"\0" * 8, rng.randbytes(40), content))


def _span(content: bytes, rng: random.Random) -> tuple[int, int]:
  at = rng.randrange(len(content) + 1)
  return at, min(len(content) - at, rng.choice((1, 2, 8, 64, 512)))


_BYTES = (
  _cut,
  _emptied,
  _lost,
  _flipped,
  _flipped,
  _doubled,
  _overwritten,
  _extended,
)


def _other_json(content: bytes, rng: random.Random) -> bytes:
  """One value of a JSON text, or of one of its lines, is another."""
  text = content.decode()
  try:
    return _other_value(json.loads(text), rng).encode()
  except json.JSONDecodeError:
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = _other_value(json.loads(lines[at]), rng)
    return "\n".join([*lines, ""]).encode()


def _other_value(value: Any, rng: random.Random) -> str:
  if rng.random() < 0.05:
    return rng.choice((DEEP, json.dumps(rng.choice(ODD))))
  parent, key = rng.choice(list(_places(value)) or [([value], 0)])
  action = rng.choice(("replace", "replace", "remove", "rename", "deep", "add"))
  if action == "remove":
    del parent[key]
  elif action == "rename" and isinstance(parent, dict):
    parent[rng.choice(("", f"{key}s", "model", "\u00e4"))] = parent.pop(key)
  elif action == "add" and isinstance(parent, dict):
    parent[rng.choice(("more", "metadata", "quantization_config"))] = (
      rng.choice(ODD)
    )
  elif action == "deep" and rng.random() < 0.3:
    parent[key] = "\x01"
    return json.dumps(value).replace('"\\u0001"', DEEP)
  else:
    parent[key] = rng.choice(ODD)
  return json.dumps(value)


def _places(value: Any):
  """Every (object or list, key) inside a value."""
  inside = value.items() if isinstance(value, dict) else ()
  inside = enumerate(value) if isinstance(value, list) else inside
  for key, part in list(inside):
    yield value, key
    yield from _places(part)
