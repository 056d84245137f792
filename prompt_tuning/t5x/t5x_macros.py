"""A misspelt macro fails under t5x's launchers too; gin takes it in silence.

t5x calls `summarize` when a run starts, before its first step; its export has
no such call, and `t5x_export` makes it.
"""

from absl import flags
from t5x import gin_utils

from prompt_tuning import configuration, gin_macros


def check() -> None:
  """Checks the macros of the run's files and flags.

  Raises:
    ValueError: a macro that nothing uses; the message has the closest name. Or
      a method that a later file takes back.
  """
  text = gin_utils.get_gin_config_str()
  chosen = gin_macros.macro("PROMPT")
  if "train.Tuning.module" in text and chosen is None:
    raise ValueError(
      "A file of methods/ stands in front of the model's, which sets "
      "PROMPT=None again: a plain prompt would train. Name it behind."
    )
  used = configuration.used([text])
  configuration.check_flags(configuration.defined([_flags()]), used)
  used |= configuration.used(configuration.own_texts())
  configuration.check_macros(configuration.defined([text]), used)


def _flags() -> str:
  """The bindings of the command line, which t5x keeps in a flag."""
  name = "gin_bindings"
  given = flags.FLAGS[name].value if name in flags.FLAGS else None
  return "\n".join(given or ())


def summarize(model_dir: str, summary_writer, step: int) -> None:
  """Checks the macros, then writes MODEL_DIR/config.gin as t5x does."""
  check()
  gin_utils.summarize_gin_config(model_dir, summary_writer, step)
