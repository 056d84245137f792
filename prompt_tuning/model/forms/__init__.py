"""Forms of the frozen parameters: the same network, computed otherwise.

    stacking    the layers of a stack in one tensor, run by a scan
    quantized   kernels and tables as integers with scales

A network follows the form of the parameters that it is given, and the hash of a
model is that of its stored weights in any form.
"""

from prompt_tuning.model.forms import quantized
from prompt_tuning.model.forms.stacking import (
  AXIS,
  LARGE,
  LAYERS,
  Put,
  apart,
  each_of,
  is_stacked,
  layers_of,
  of_each,
  on_device,
  stacked,
  stacked_from,
  through,
  together,
)

__all__ = [
  "AXIS",
  "LARGE",
  "LAYERS",
  "Put",
  "apart",
  "each_of",
  "is_stacked",
  "layers_of",
  "of_each",
  "on_device",
  "quantized",
  "stacked",
  "stacked_from",
  "through",
  "together",
]
