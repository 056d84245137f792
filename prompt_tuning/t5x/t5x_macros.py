"""A misspelt macro fails under t5x's launchers too; gin takes it in silence.

MODEL is `checked`: every launcher makes it first, before data and weights.
"""

import pathlib
from typing import Any

from absl import flags
from t5x import gin_utils

from prompt_tuning import configuration, gin_macros


def check() -> None:
  """Checks the macros of the run's files and flags.

  Raises:
    ValueError: a macro that nothing uses; the message has the closest name. Or
      a method that a later file takes back, or two of them.
  """
  configuration.check_methods(map(pathlib.Path, _given("gin_file")))
  text = gin_utils.get_gin_config_str()
  chosen = gin_macros.macro("PROMPT")
  if "train.Tuning.module" in text and chosen is None:
    raise ValueError(
      "A file of methods/ stands in front of the model's, which sets "
      "PROMPT=None again: a plain prompt would train. Name it behind."
    )
  used = configuration.used([text])
  configuration.check_flags(
    configuration.defined(["\n".join(_given("gin_bindings"))]), used
  )
  used |= configuration.used(configuration.own_texts())
  configuration.check_macros(configuration.defined([text]), used)


def _given(name: str) -> list[str]:
  """What the launcher was given for a flag that may be repeated."""
  return (flags.FLAGS[name].value if name in flags.FLAGS else None) or []


def checked(model: Any) -> Any:
  """The model as it is, once the macros of its run are checked.

  Raises:
    ValueError: see `check`.
  """
  check()
  return model
