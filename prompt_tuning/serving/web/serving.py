"""What every route of the server needs."""

import dataclasses
import hmac

from starlette.requests import Request

from prompt_tuning.serving.service import Service
from prompt_tuning.serving.web.errors import ApiError
from prompt_tuning.serving.web.metrics import Metrics
from prompt_tuning.serving.web.waiting import Hub


@dataclasses.dataclass(frozen=True)
class Serving:
  """The service, who waits for it, what is counted, and who may ask.

  Attributes:
    service: model, prompts, engine.
    hub: of the server's loop.
    metrics: what is counted.
    keys: of which a request has to bring one; () for anybody.
  """

  service: Service
  hub: Hub
  metrics: Metrics
  keys: tuple[str, ...] = ()

  def check_key(self, request: Request) -> None:
    """Refuses a request without one of the keys.

    Raises:
      ApiError: 401.
    """
    if not self.keys:
      return
    sent = request.headers.get("authorization", "")
    kind, _, key = sent.partition(" ")
    # A header's letters are the bytes that were sent.
    given = key.strip().encode("latin-1") if kind.lower() == "bearer" else b""
    # Every key is compared, so that the time tells nothing.
    same = [hmac.compare_digest(given, own.encode()) for own in self.keys]
    if not any(same):
      raise ApiError(
        401,
        "Incorrect or missing API key. Send it as Authorization: Bearer KEY.",
        code="invalid_api_key",
      )
