"""/v1/prompts: which prompts there are; loading and unloading while it runs.

GET lists, POST {"name": …} loads one of the server's folder (again, if its
files have changed), DELETE /v1/prompts/NAME unloads. All three want a key.
"""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from prompt_tuning.prompts.checkpoints import SavedPrompt
from prompt_tuning.serving.web import classify, inputs
from prompt_tuning.serving.web.asked import Fields
from prompt_tuning.serving.web.errors import ApiError, without_paths
from prompt_tuning.serving.web.serving import Serving
from prompt_tuning.serving.web.waiting import not_ready


def _check_allowed(serving: Serving) -> None:
  if not serving.keys:
    raise ApiError(
      403,
      "Prompts are loaded and unloaded only on a server that was started with "
      "--api_key_file.",
      code="no_keys",
    )


def about(serving: Serving, name: str, saved: SavedPrompt) -> dict[str, Any]:
  """What is said of a prompt: nothing of where it is."""
  return {
    "id": name,
    "object": "prompt",
    "created": serving.service.since.get(name, 0),
    "task": str(saved.record.get("task") or ""),
    "length": len(saved.values),
    "labels": classify.labels_of(saved),
    "template": str(saved.record.get("template") or ""),
    "tensor_sha256": str(saved.record.get("tensor_sha256") or ""),
  }


async def listed(request: Request, serving: Serving) -> Response:
  """GET /v1/prompts."""
  del request
  _check_allowed(serving)
  service = serving.service
  named = service.bank.named  # once: prompts come and go meanwhile

  def look() -> tuple[list[dict[str, Any]], list[str]]:
    data = [
      {
        **about(serving, name, saved),
        "changed": service.is_changed(name, saved),
      }
      for name, saved in named.items()
    ]
    return data, [name for name in service.loadable() if name not in named]

  data, others = await asyncio.to_thread(look)
  return JSONResponse({"object": "list", "data": data, "loadable": others})


async def load(
  request: Request, serving: Serving, read: dict[str, Any]
) -> Response:
  """POST /v1/prompts."""
  del request
  _check_allowed(serving)
  fields = Fields(read)
  fields.only(("name",))
  name = fields.text("name")
  if not serving.service.is_ready:
    raise not_ready()
  try:
    saved, is_new = await asyncio.to_thread(serving.service.load, name)
  except (ValueError, OSError) as error:
    raise ApiError(
      400,
      f"{name[:80]!r} was not loaded: {without_paths(str(error))}",
      param="name",
      code="not_loaded",
    ) from None
  return JSONResponse({**about(serving, name, saved), "changed": is_new})


async def unload(request: Request, serving: Serving) -> Response:
  """DELETE /v1/prompts/NAME."""
  _check_allowed(serving)
  name = request.path_params["name"]
  inputs.check_model(serving.service.bank, name)
  try:
    await asyncio.to_thread(serving.service.unload, name)
  except KeyError:
    raise ApiError(
      400,
      f"{name!r} is the frozen model, which stays."
      if name == serving.service.bank.own
      else f"{name!r} has been unloaded already.",
      param="name",
    ) from None
  return JSONResponse({"id": name, "object": "prompt", "deleted": True})
