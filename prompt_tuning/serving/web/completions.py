"""POST /v1/completions: OpenAI's form, `model` being the name of a prompt.

body -> `Completion` -> a row for each answer -> choices, whole or as events
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
import contextlib
import dataclasses
import json
import secrets
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from prompt_tuning.serving.bank import Bank
from prompt_tuning.serving.rows import Row, Writing
from prompt_tuning.serving.web import inputs
from prompt_tuning.serving.web.asked import ClientDisconnect, Fields
from prompt_tuning.serving.web.errors import ApiError
from prompt_tuning.serving.web.serving import Serving
from prompt_tuning.serving.web.texts import Text
from prompt_tuning.serving.web.waiting import Waiting, check_ended

_KNOWN = (
  *("model", "prompt", "max_tokens", "temperature", "top_p", "n", "best_of"),
  *("stop", "seed", "logprobs", "stream", "stream_options", "user"),
  *("echo", "suffix", "logit_bias", "presence_penalty", "frequency_penalty"),
)
_USUAL_TOKENS = 16
_MOST_CHOICES, _MOST_STOPS, _MOST_LOGPROBS = 64, 4, 5


@dataclasses.dataclass(frozen=True)
class Completion:
  """What is asked for; see OpenAI's reference for the fields."""

  model: str
  prompt: list[str]
  most: int
  temperature: float
  top_p: float
  n: int
  best_of: int
  stop: list[str]
  seed: int
  logprobs: int | None
  stream: bool
  usage_at_end: bool

  @classmethod
  def of(cls, read: dict[str, Any], serving: Serving) -> "Completion":
    """Reads a body.

    Raises:
      ApiError: a field is wrong.
    """
    fields, settings = Fields(read), serving.service.settings
    fields.only(_KNOWN)
    for name, nothing in (("echo", False), ("suffix", ""), ("logit_bias", {})):
      fields.refused(name, nothing, nothing)
    for name in ("presence_penalty", "frequency_penalty"):
      fields.refused(name, 0, 0)
    most = settings.target_length
    n = fields.whole("n", 1, least=1, most=_MOST_CHOICES)
    logprobs = None
    if fields.has("logprobs"):
      logprobs = fields.whole("logprobs", 0, least=0, most=_MOST_LOGPROBS)
    stream = fields.flag("stream")
    best_of = fields.whole("best_of", n, least=n, most=_MOST_CHOICES)
    if stream and best_of != n:
      raise ApiError(
        400, "With stream best_of must be n, or left out.", param="best_of"
      )
    options = fields.table("stream_options")
    return cls(
      fields.text("model"),
      fields.texts("prompt", most=settings.most_waiting),
      fields.whole("max_tokens", min(_USUAL_TOKENS, most), least=1, most=most),
      fields.number("temperature", settings.temperature, least=0.0, most=2.0),
      fields.number("top_p", 1.0, least=1e-6, most=1.0),
      n,
      best_of,
      [s for s in fields.texts("stop", most=_MOST_STOPS, otherwise=[]) if s],
      fields.whole(
        *("seed", secrets.randbits(32)), least=-(1 << 63), most=(1 << 63) - 1
      ),
      logprobs,
      stream,
      options.flag("include_usage"),
    )


async def answer(
  request: Request, serving: Serving, read: dict[str, Any]
) -> Response:
  """Answers one request.

  Raises:
    ApiError: it is not answered.
  """
  asked = Completion.of(read, serving)
  bank = serving.service.bank
  inputs.check_model(bank, asked.model)
  inputs.check_count(serving, "best_of", len(asked.prompt), asked.best_of)
  tokens = [inputs.tokens(serving, bank, asked.model, t) for t in asked.prompt]
  waiting = Waiting(serving.hub, len(tokens) * asked.best_of)
  texts, rows = [], []
  deadline = time.monotonic() + serving.service.settings.most_seconds
  for number, ids in enumerate(tokens):
    for choice in range(asked.best_of):
      text = Text(bank.prompted.vocabulary, asked.stop)
      row = Row(
        bank.prompted,
        ids,
        Writing(
          *(asked.most, asked.temperature, asked.top_p),
          *(asked.seed % (1 << 32), number, choice),
          likely=bool(asked.logprobs),
        ),
        told=waiting.told,
        before=bank.before(asked.model),
        each=asked.stream,
        stops=text.stopped if asked.stop else None,
        deadline=deadline,
      )
      texts.append(text)
      rows.append(row)
  made = _Made(serving, bank, asked, rows, texts)
  changes = waiting.changes(serving.service, rows, request)
  if asked.stream:
    # The first change, so that rows that are not taken are an error's status.
    first = await anext(changes, None)
    del first
    return StreamingResponse(
      made.events(changes), media_type="text/event-stream"
    )
  async with contextlib.aclosing(changes):
    async for _ in changes:
      pass
  return JSONResponse(made.whole())


class _Made:
  """The answer to a request, from its rows."""

  def __init__(
    self,
    serving: Serving,
    bank: Bank,
    asked: Completion,
    rows: Sequence[Row],
    texts: Sequence[Text],
  ):
    self._serving, self._bank, self._asked = serving, bank, asked
    self._rows, self._texts = rows, texts
    self._about = {
      "id": f"cmpl-{secrets.token_hex(12)}",
      "object": "text_completion",
      "created": int(time.time()),
      "model": asked.model,
    }

  def _check(self, row: Row) -> None:
    check_ended(row, self._serving.service.settings.most_seconds)

  def _usage(self) -> dict[str, int]:
    several = self._asked.best_of
    read = sum(row.read for row in self._rows[::several])
    return self._serving.metrics.used(self._asked.model, read, self._rows)

  def _choice(self, index: int, at: int, text: str) -> dict[str, Any]:
    row = self._rows[at]
    return {
      "index": index,
      "text": text,
      "logprobs": self._logprobs(at, 0, len(row.ids)),
      "finish_reason": row.ending.value if row.ending else None,
    }

  def _logprobs(self, at: int, begin: int, end: int) -> dict[str, Any] | None:
    """Log-probabilities of some of a row's tokens."""
    most = self._asked.logprobs
    if most is None:
      return None
    row, text = self._rows[at], self._texts[at]
    pieces = text.pieces(row.ids[:end])[begin:]
    tops = []
    for n in range(begin, end):
      if most:
        ids, log_p = (each[:most].tolist() for each in row.likely[n])
        top = dict(zip(map(text.name, ids), log_p, strict=True))
        tops.append(top | {text.name(row.ids[n]): row.log_p[n]})
    return {
      "tokens": [piece for piece, _ in pieces],
      "token_logprobs": row.log_p[begin:end],
      "top_logprobs": tops if most else None,
      "text_offset": [offset for _, offset in pieces],
    }

  def whole(self) -> dict[str, Any]:
    """The answer as one object.

    Raises:
      ApiError: a row was not written to its end.
    """
    choices, several = [], self._asked.best_of
    for row in self._rows:
      self._check(row)
    for first in range(0, len(self._rows), several):
      best = range(first, first + several)
      if several > self._asked.n:
        best = sorted(best, key=self._mean, reverse=True)
      for at in best[: self._asked.n]:
        text = self._texts[at].whole(self._rows[at].ids)
        choices.append(self._choice(len(choices), at, text))
    return {**self._about, "choices": choices, "usage": self._usage()}

  def _mean(self, at: int) -> float:
    """The log-probability of a token, by which OpenAI orders answers."""
    return sum(self._rows[at].log_p) / len(self._rows[at].log_p)

  async def events(self, changes: AsyncGenerator[None]) -> AsyncIterator[str]:
    """The answer as events, a part of a choice each."""
    said = [0] * len(self._rows)
    ended: set[int] = set()
    async with contextlib.aclosing(changes):
      try:
        is_on = True
        while is_on:
          for at in range(len(self._rows)):
            if at not in ended and (part := self._part(at, said)):
              if part["finish_reason"]:
                ended.add(at)
              yield _event({**self._about, "choices": [part]})
          is_on = len(ended) < len(self._rows)
          if is_on:
            await anext(changes, None)
        if self._asked.usage_at_end:
          yield _event({**self._about, "choices": [], "usage": self._usage()})
        else:
          self._usage()
      except ClientDisconnect:
        return  # nobody reads it
      except ApiError as error:
        yield _event(error.body())
    yield "data: [DONE]\n\n"

  def _part(self, at: int, said: list[int]) -> dict[str, Any] | None:
    """What is new of a choice; None for nothing.

    Raises:
      ApiError: it was not written to its end.
    """
    row = self._rows[at]
    ending, count = row.ending, len(row.log_p)  # the ending first: all is there
    self._check(row)
    text = self._texts[at].part(row.ids[:count], is_last=ending is not None)
    if not text and ending is None:
      return None
    part = {
      "index": at,
      "text": text,
      "logprobs": self._logprobs(at, said[at], count),
      "finish_reason": ending.value if ending else None,
    }
    said[at] = count
    return part


def _event(value: dict[str, Any]) -> str:
  return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
