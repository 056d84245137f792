"""POST /v1/classify: labels with their probabilities, as vLLM answers.

    body -> a row for each label of each text -> softmax of log-probabilities

The labels are those of the request, or of the prompt's record.
"""

import contextlib
import secrets
import time
from typing import Any

import numpy as np
from scipy import special
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from prompt_tuning.prompts.checkpoints import SavedPrompt
from prompt_tuning.serving.bank import Bank
from prompt_tuning.serving.rows import Row, Writing
from prompt_tuning.serving.web import inputs
from prompt_tuning.serving.web.asked import Fields
from prompt_tuning.serving.web.errors import ApiError
from prompt_tuning.serving.web.serving import Serving
from prompt_tuning.serving.web.waiting import Waiting, check_ended
from prompt_tuning.shapes import EOS

_KNOWN = ("model", "input", "labels", "user")
_MOST_LABELS = 64


def labels_of(saved: SavedPrompt | None) -> list[str]:
  """The labels that a prompt's record names; [] for none, or no prompt."""
  labels = saved.record.get("labels") if saved else None
  if isinstance(labels, list) and all(isinstance(x, str) for x in labels):
    return labels
  return []


async def answer(
  request: Request, serving: Serving, read: dict[str, Any]
) -> Response:
  """Answers one request.

  Raises:
    ApiError: it is not answered.
  """
  fields, settings = Fields(read), serving.service.settings
  fields.only(_KNOWN)
  model, bank = fields.text("model"), serving.service.bank
  inputs.check_model(bank, model)
  texts = fields.texts("input", most=settings.most_waiting)
  known = labels_of(bank.named.get(model))
  labels = fields.texts("labels", most=_MOST_LABELS, otherwise=known)
  given = _given(bank, labels, settings.target_length)
  inputs.check_count(serving, "labels", len(texts), len(labels))
  tokens = [
    inputs.tokens(serving, bank, model, text, param="input") for text in texts
  ]

  waiting = Waiting(serving.hub, len(tokens) * len(labels))
  deadline = time.monotonic() + settings.most_seconds
  rows = [
    Row(
      bank.prompted,
      ids,
      Writing(len(label), given=label),
      told=waiting.told,
      before=bank.before(model),
      deadline=deadline,
    )
    for ids in tokens
    for label in given
  ]
  changes = waiting.changes(serving.service, rows, request)
  async with contextlib.aclosing(changes):
    async for _ in changes:
      pass
  for row in rows:
    check_ended(row, settings.most_seconds)

  given = sum(row.read for row in rows[:: len(labels)])
  nats = np.array([sum(row.log_p) for row in rows]).reshape(-1, len(labels))
  data = [
    {
      "index": index,
      "label": labels[int(shares.argmax())],
      "probs": shares.tolist(),
      "num_classes": len(labels),
    }
    for index, shares in enumerate(special.softmax(nats, axis=-1))
  ]
  return JSONResponse(
    {
      "id": f"classify-{secrets.token_hex(12)}",
      "object": "list",
      "created": int(time.time()),
      "model": model,
      "labels": labels,
      "data": data,
      "usage": serving.metrics.used(model, given, rows),
    }
  )


def _given(bank: Bank, labels: list[str], most: int) -> list[tuple[int, ...]]:
  """The ids of labels.

  Raises:
    ApiError: there are none, two are equal, or one is too long or empty.
  """
  if not labels:
    raise ApiError(
      400,
      "The prompt's record names no labels. Send them: "
      '"labels": ["yes", "no"].',
      param="labels",
    )
  given = []
  for label in labels:
    ids = (*bank.prompted.vocabulary.encode(label), EOS)
    if not 1 < len(ids) <= most:
      raise ApiError(
        400,
        f"A label has {len(ids)} tokens, its end included; it must have from "
        f"2 to {most} (TARGET_LENGTH).",
        param="labels",
      )
    given.append(ids)
  if len(set(given)) < len(given):
    raise ApiError(400, "Two labels are the same.", param="labels")
  return given
