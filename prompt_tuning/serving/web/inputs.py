"""A request's model and texts, checked, as the tokens of rows."""

import numpy as np

from prompt_tuning import spelling
from prompt_tuning.serving.bank import Bank
from prompt_tuning.serving.web.errors import ApiError
from prompt_tuning.serving.web.serving import Serving


def check_model(bank: Bank, name: str) -> None:
  """Refuses a name that nothing has.

  Raises:
    ApiError: 404.
  """
  if name not in bank:
    hint = spelling.hint(name, bank.names, "GET /v1/models lists those there.")
    raise ApiError(
      404,
      f"The model {name[:80]!r} does not exist. {hint}",
      param="model",
      code="model_not_found",
    )


def tokens(serving: Serving, bank: Bank, model: str, text: str) -> np.ndarray:
  """The ids of a text behind its prompt's places.

  Raises:
    ApiError: it is empty or too long.
  """
  if not text.strip():
    raise ApiError(400, "A text is empty.", param="prompt")
  most = serving.service.settings.task_feature_lengths["inputs"]
  ids = bank.tokens(model, text)
  own = 0 if model == bank.own else len(bank.named[model].values)
  if len(ids) - own > most:
    raise ApiError(
      400,
      f"A text has {len(ids) - own} tokens, its end included, and the server "
      f"takes {most} at most (TASK_FEATURE_LENGTHS).",
      param="prompt",
      code="context_length_exceeded",
    )
  return ids
