"""What a mistake is answered with: OpenAI's form of an error."""

import re

from starlette.responses import JSONResponse

_PATH = re.compile(r"(?<![\w.:])(?:[\w.~-]*/)+([\w.~-]*)")


class ApiError(Exception):
  """An answer that is an error.

  Args:
    status: of HTTP.
    message: for the user.
    param: the field that is wrong.
    code: a word for programs.
    retry: seconds after which the same request may succeed.
  """

  def __init__(
    self,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    retry: int | None = None,
  ):
    super().__init__(message)
    self.status, self.message = status, message
    self.param, self.code, self.retry = param, code, retry

  def body(self) -> dict:
    """The error as JSON."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    usual = "server_error" if self.status >= 500 else "invalid_request_error"
    about = {
      "message": self.message,
      "type": kinds.get(self.status, usual),
      "param": self.param,
      "code": self.code,
    }
    return {"error": about}

  def response(self) -> JSONResponse:
    """The error as an answer."""
    headers = {}
    if self.retry is not None:
      headers["Retry-After"] = str(self.retry)
    if self.status == 401:
      headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(self.body(), self.status, headers)


def without_paths(message: str) -> str:
  """A message that says nothing of where files are on this machine."""
  return _PATH.sub(r"\1", message)
