"""Packaging: one distribution out of prompt_tuning/, tasks/ and gin/.

`tasks/` installs as `prompt_tuning.tasks`, and `gin/` as data beside it in
`prompt_tuning/gin/`. `gin/` never gets an `__init__.py`: it would shadow the
gin-config package, which is imported as `gin`.
"""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent


def version() -> str:
  """The version, read without importing the package."""
  source = (HERE / "prompt_tuning" / "__init__.py").read_text(encoding="utf-8")
  return re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE).group(1)


def long_description() -> str:
  readme = HERE / "README.md"
  return readme.read_text(encoding="utf-8") if readme.exists() else ""


def packages() -> list[str]:
  """The folders of Python, and gin/ beside them."""
  return [
    "prompt_tuning",
    *(f"prompt_tuning.{p}" for p in setuptools.find_packages("prompt_tuning")),
    "prompt_tuning.tasks",
    *(f"prompt_tuning.tasks.{p}" for p in setuptools.find_packages("tasks")),
    "prompt_tuning.gin",
  ]


RUNTIME = [
  "flax>=0.12",
  "gin-config>=0.5",
  "huggingface_hub>=1",
  "importlib_resources",  # TFDS needs it to fetch, and does not ask for it
  "jax>=0.8",
  "jaxtyping>=0.3",
  "matplotlib",
  "numpy>=2",
  "optax>=0.2.6",
  "protobuf",  # what SentencePiece writes its models with
  "safetensors",
  "scikit-learn",
  "scipy",
  "sentencepiece>=0.2",
  "seqio>=0.0.19",
  "tensorboardX",
  "tensorflow>=2.18",
  "tensorflow-datasets>=4.9",
  "tensorstore",
  "tokenizers>=0.22",
  "tqdm",
  "wrapt",
]

EXTRAS = {
  "test": [
    "beartype>=0.20",
    "hypothesis",
    "ml_dtypes",
    "orbax-checkpoint",
    "packaging",
    "pytest>=9",
    "pytest-xdist",
    "setuptools>=77",  # a test builds the wheel
  ],
  "processes": ["orbax-checkpoint"],  # model tuning across several
  "serve": ["prometheus-client", "starlette>=1", "uvicorn>=0.40"],
  "dev": ["pre-commit", "pyright[nodejs]", "ruff"],
  "torch": ["torch"],
  "notebook": ["ipykernel", "nbclient"],
}

setuptools.setup(
  name="prompt-tuning-jax",
  version=version(),
  description="Prompt tuning of frozen T5 models in JAX",
  long_description=long_description(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  license_files=["LICENSE"],
  # TensorFlow and tensorflow-text, which seqio needs, have no wheels for 3.14.
  python_requires=">=3.11,<3.14",
  packages=packages(),
  package_dir={
    "prompt_tuning.tasks": "tasks",
    "prompt_tuning.gin": "gin",
  },
  package_data={
    "prompt_tuning": ["assets/**", "serving/web/page/*"],
    "prompt_tuning.gin": ["**/*.gin"],
  },
  install_requires=RUNTIME,
  extras_require=EXTRAS,
  entry_points={"console_scripts": ["prompt-tuning = prompt_tuning.cli:main"]},
  classifiers=[
    "Development Status :: 3 - Alpha",
    "Intended Audience :: Science/Research",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
  ],
)
