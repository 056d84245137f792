"""A misspelt macro fails under t5x's launchers too; gin takes it in silence.

t5x calls `summarize` when a run starts, before its first step.
"""

from collections.abc import Iterable

from t5x import gin_utils

from prompt_tuning import configuration

_SHARED = ("models", "prompts", "t5x")


def summarize(model_dir: str, summary_writer, step: int) -> None:
  """Checks the macros, then writes MODEL_DIR/config.gin as t5x does.

  Raises:
    ValueError: a macro that nothing uses; the message has the closest name.
  """
  text = gin_utils.get_gin_config_str()
  used = {*configuration.USED.findall(text), *_in_files()}
  configuration.check_macros(configuration.DEFINED.findall(text), used)
  gin_utils.summarize_gin_config(model_dir, summary_writer, step)


def _in_files() -> Iterable[str]:
  """What the gin files use that both engines, or t5x, may be given."""
  folder = configuration.gin_folder()
  for kind in _SHARED:
    for path in (folder / kind).rglob("*.gin"):
      yield from configuration.USED.findall(path.read_text(encoding="utf-8"))
