"""Prompt tuning: a frozen T5, and a few trained vectors in front of its input.

Importing this package is instant: it loads no JAX and no TensorFlow. A name in
`EXPORTS` loads its module when it is first asked for (PEP 562).
"""

import importlib
import importlib.abc
import importlib.util
import pathlib
import sys

__version__ = "0.2.0"

EXPORTS = {
  "declare_task": "tasks.declarations.declare",
  "Decoding": "inference.infer.Decoding",
  "FrozenModel": "frozen.pretrained.FrozenModel",
  "load_model": "frozen.pretrained.load",
  "load_prompt": "prompts.checkpoints.load_prompt",
  "nearest_pieces": "prompts.analysis.nearest_pieces",
  "Prompt": "prompts.prompt.Prompt",
  "PromptedModel": "inference.prompted_model.PromptedModel",
  "save_model": "frozen.pretrained.save",
  "save_prompt": "prompts.checkpoints.save_prompt",
  "SavedPrompt": "prompts.checkpoints.SavedPrompt",
  "T5": "model.t5.T5",
  "T5Config": "model.t5.T5Config",
  "tune": "training.train.tune",
}


def home_of(name: str) -> str | None:
  """The whole name of a module of the package, from its last part alone."""
  package = pathlib.Path(__file__).parent
  for path in sorted(package.glob(f"*/{name}.py")):
    return f"{__name__}.{path.parent.name}.{name}"
  return None


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Finds a module where 0.1.0 had it, `prompt_tuning.train` for example."""

  def find_spec(self, fullname, path=None, target=None):
    package, _, name = fullname.rpartition(".")
    home = home_of(name) if package == __name__ else None
    return home and importlib.util.spec_from_loader(fullname, self, origin=home)

  def create_module(self, spec):
    module = importlib.import_module(spec.origin or "")
    self.own = module.__spec__
    return module

  def exec_module(self, module):
    """The module has run under its own name, which it keeps."""
    module.__spec__ = self.own


sys.meta_path.append(_Moved())  # pyright: ignore[reportArgumentType]


def __getattr__(name: str):
  if name in EXPORTS:
    module, _, attribute = EXPORTS[name].rpartition(".")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
  elif name.startswith("_") or home_of(name) is None:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  else:
    value = importlib.import_module(f"{__name__}.{name}")
  globals()[name] = value
  return value


def __dir__():
  return sorted({*globals(), *EXPORTS})
