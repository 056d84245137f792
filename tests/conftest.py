"""What must be set before JAX or TensorFlow is imported.

Nothing here imports the package: its shape annotations are enforced by an
import hook (see `addopts` in pyproject.toml), which has to come first.
"""

import os

import hypothesis

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The first example of a property compiles a program, so examples have no
# deadline; and a failure has to come back on the next run.
hypothesis.settings.register_profile(
  "repeatable", deadline=None, derandomize=True
)
hypothesis.settings.load_profile("repeatable")
