"""The routes of the server, and what stands around each of them.

request -> key -> body within limits -> route -> answer, or OpenAI's error
"""

import asyncio
from collections.abc import Awaitable, Callable
import contextlib
import importlib.resources
import logging
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from prompt_tuning.serving.bank import Bank
from prompt_tuning.serving.service import Service
from prompt_tuning.serving.web import asked, classify, completions, prompts
from prompt_tuning.serving.web.errors import ApiError
from prompt_tuning.serving.web.metrics import Metrics
from prompt_tuning.serving.web.serving import Serving
from prompt_tuning.serving.web.waiting import Hub

_log = logging.getLogger(__name__)

PAGE = {
  "/": ("index.html", "text/html; charset=utf-8"),
  "/page.css": ("page.css", "text/css; charset=utf-8"),
  "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
"""The files of the page by their paths, with their types."""

_SAFE = {
  "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
  "style-src 'self'; connect-src 'self'; img-src data:; form-action 'none'; "
  "frame-ancestors 'none'; base-uri 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
}

Get = Callable[[Request, Serving], Awaitable[Response]]
Post = Callable[[Request, Serving, dict[str, Any]], Awaitable[Response]]


def make(service: Service, keys: tuple[str, ...] = ()) -> Starlette:
  """The application of a service; it prepares the service when it starts.

  Args:
    service: not prepared yet.
    keys: of which a request under /v1 has to bring one; () for anybody.
  """

  @contextlib.asynccontextmanager
  async def lifespan(app: Starlette):
    loop = asyncio.get_running_loop()
    app.state.serving = Serving(service, Hub(loop), Metrics(service), keys)
    yield
    await asyncio.to_thread(service.close)

  routes = [
    Route("/v1/completions", _post(completions.answer), methods=["POST"]),
    Route("/v1/classify", _post(classify.answer), methods=["POST"]),
    Route("/v1/models", _get(_models)),
    Route("/v1/models/{name:path}", _get(_model)),
    Route("/v1/prompts", _get(prompts.listed), methods=["GET"]),
    Route("/v1/prompts", _post(prompts.load), methods=["POST"]),
    Route("/v1/prompts/{name:path}", _get(prompts.unload), methods=["DELETE"]),
    Route("/v2/health/live", _live),
    Route("/v2/health/ready", _ready),
    Route("/metrics", _metrics),
    *(Route(path, _file(path)) for path in PAGE),
  ]
  return Starlette(
    routes=routes,
    lifespan=lifespan,
    exception_handlers={HTTPException: _no_route, Exception: _failed},
  )


def _get(answer: Get):
  async def without_body(request: Request, serving: Serving, _):
    return await answer(request, serving)

  return _route(without_body, lambda request, serving: _nothing())


def _post(answer: Post):
  def read(request: Request, serving: Serving):
    return asked.body(request, serving.service.settings.most_bytes)

  return _route(answer, read)


async def _nothing() -> dict[str, Any]:
  return {}


def _route(answer: Post, body: Callable[..., Awaitable[dict[str, Any]]]):
  """A route that wants a key, is counted, and answers errors in their form."""

  async def route(request: Request) -> Response:
    serving: Serving = request.app.state.serving
    read: dict[str, Any] = {}
    try:
      serving.check_key(request)
      read = await body(request, serving)
      response = await answer(request, serving, read)
    except ApiError as error:
      response = error.response()
    except ClientDisconnect:
      response = Response(status_code=499)  # nobody reads it
    except Exception:
      _log.exception("A request to %s failed.", request.url.path)
      response = _failure().response()
    name = read.get("model")
    known = isinstance(name, str) and name in serving.service.bank
    path = request.scope["route"].path
    serving.metrics.answered(
      path, str(name) if known else "", response.status_code
    )
    return response

  return route


def _failure() -> ApiError:
  return ApiError(500, "The server failed; its log says how.", code="failed")


async def _failed(request: Request, error: Exception) -> Response:
  del request, error  # uvicorn logs it
  return _failure().response()


async def _no_route(request: Request, error: Exception) -> Response:
  assert isinstance(error, HTTPException)
  about = f"{request.method} {request.url.path[:80]}"
  allowed = (error.headers or {}).get("Allow")
  hint = f" It takes {allowed}." if allowed else ""
  if "chat" in request.url.path:
    hint = " A T5 has no chat; POST /v1/completions takes a prompt."
  response = ApiError(
    error.status_code, f"There is no {about}.{hint}", code="no_route"
  ).response()
  if allowed:
    response.headers["Allow"] = allowed
  return response


async def _models(request: Request, serving: Serving) -> Response:
  del request
  bank = serving.service.bank  # once: prompts come and go meanwhile
  data = [_about(serving, bank, name) for name in bank.names]
  return JSONResponse({"object": "list", "data": data})


async def _model(request: Request, serving: Serving) -> Response:
  from prompt_tuning.serving.web import inputs

  name, bank = request.path_params["name"], serving.service.bank
  inputs.check_model(bank, name)
  return JSONResponse(_about(serving, bank, name))


def _about(serving: Serving, bank: Bank, name: str) -> dict[str, Any]:
  """A model as OpenAI lists it, and what the page shows of a prompt."""
  is_own = name == bank.own
  more = {}
  if not is_own:
    own = prompts.about(serving, name, bank.named[name])
    more = {key: own[key] for key in ("task", "length", "labels", "template")}
  return {
    "id": name,
    "object": "model",
    "created": serving.service.since.get(name, 0),
    "owned_by": "prompt-tuning",
    "parent": None if is_own else bank.own,
    **more,
  }


async def _live(request: Request) -> Response:
  del request
  return JSONResponse({"live": True})


async def _ready(request: Request) -> Response:
  ready = request.app.state.serving.service.is_ready
  return JSONResponse({"ready": ready}, 200 if ready else 503)


async def _metrics(request: Request) -> Response:
  text = request.app.state.serving.metrics.text()
  return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def page_file(path: str) -> tuple[bytes, str]:
  """The content and type of a file of the page, by its path in `PAGE`."""
  name, kind = PAGE[path]
  folder = importlib.resources.files("prompt_tuning.serving.web") / "page"
  return (folder / name).read_bytes(), kind


def _file(path: str):
  content, kind = page_file(path)

  async def file(request: Request) -> Response:
    del request
    return Response(content, media_type=kind, headers=_SAFE)

  return file
