"""What must be set before JAX or TensorFlow is imported.

Nothing here imports the package: its shape annotations are enforced by an
import hook (see `addopts` in pyproject.toml), which has to come first.
"""

import importlib
import importlib.metadata
import os
import pathlib

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The programs of the tests are compiled for longer than they run: as little as
# possible is made of them, and in one piece. XLA ends at a flag that it does
# not know, and the emitters can be chosen up to jaxlib 0.10 only.
XLA = ["--xla_backend_optimization_level=0"]
XLA += ["--xla_cpu_parallel_codegen_split_count=1"]
XLA += ["--xla_cpu_multi_thread_eigen=false"]  # there is a worker per core
if importlib.metadata.version("jaxlib").startswith("0.10."):
  XLA += ["--xla_cpu_use_fusion_emitters=false"]
os.environ.setdefault("XLA_FLAGS", " ".join(XLA))

# Programs that take long to compile are kept: tests repeat them, within a run,
# across runs and in the processes that they start.
COMPILED = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "compiled"
for name, value in {
  "JAX_COMPILATION_CACHE_DIR": str(COMPILED),
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.4",
  "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}.items():
  os.environ.setdefault(name, value)

# A module that ours import while the import hook loads them is compiled anew,
# each time where bytecode may not be written; one that is there before is not.
if "PYTEST_XDIST_WORKER" in os.environ:
  for name in ("flax.linen", "optax", "seqio", "matplotlib.figure"):
    importlib.import_module(name)

# The first example of a property compiles a program, so examples have no
# deadline; and a failure has to come back on the next run.
hypothesis.settings.register_profile(
  "repeatable", deadline=None, derandomize=True
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
  """An empty folder of TFDS, and no folder of GLUE or SuperGLUE in use."""
  from prompt_tuning.tasks import own_data
  from prompt_tuning.tasks.rows import sources

  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
  yield tmp_path / "tfds"
  sources.forget_folders()
  own_data.official_task.cache_clear()


@pytest.fixture
def clean_gin():
  """What a test configures is gone after it."""
  import gin

  yield
  gin.clear_config()
