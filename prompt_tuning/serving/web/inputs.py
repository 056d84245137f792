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


def check_count(serving: Serving, param: str, texts: int, each: int) -> None:
  """Refuses a request that could never be taken, however few others wait.

  Args:
    serving: the server.
    param: what says how many answers there are to each text.
    texts: how many there are.
    each: answers to a text.

  Raises:
    ApiError: 400.
  """
  most = serving.service.settings.most_waiting
  if texts * each > most:
    raise ApiError(
      400,
      f"{texts} texts with {each} answers each ({param}) are {texts * each} "
      f"answers, and the server takes {most} at most (MOST_WAITING). Send them "
      "as several requests.",
      param=param,
      code="too_many_answers",
    )


def tokens(
  serving: Serving, bank: Bank, model: str, text: str, *, param: str = "prompt"
) -> np.ndarray:
  """The ids of a text behind its prompt's places; `param` is its field.

  Raises:
    ApiError: it is empty or too long.
  """
  if not text.strip():
    raise ApiError(400, "A text is empty.", param=param)
  most = serving.service.settings.task_feature_lengths["inputs"]
  ids = bank.tokens(model, text)
  own = len(ids) - bank.beside(model)
  if own > most:
    raise ApiError(
      400,
      f"A text has {own} tokens, its end included, and the server "
      f"takes {most} at most (TASK_FEATURE_LENGTHS).",
      param=param,
      code="context_length_exceeded",
    )
  return ids
