"""Prompts that reach into the network, and stay there after training.

    Deep      rows for every encoder layer        deep [layers - 1, P, E]
    IA3       vectors for keys, values, hidden    encoder_keys [layers, A] …
    Decoder   rows in front of the decoder        decoder_embedding [Q, E]

Beside its rows in front such a module has `tensors()`, which the network asks
for (`model.inside`) and which are its file (`tensors`): it does not collapse to
rows. What it has of a network's layers it makes when it is told the network's
`config`.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from prompt_tuning import spelling
from prompt_tuning.model import t5
from prompt_tuning.prompts.inner import tensors
from prompt_tuning.prompts.prompt import ROWS_ALONE, Given
from prompt_tuning.prompts.reparameterised import check_size, leaf
from prompt_tuning.shapes import Array, Float, PyTree

Method = Callable[[int, int, int | None], Any]
"""From P, E and N to what trains."""

_KEEP = {"replace": 0.0, "add": 1.0}  # of what the layer below computed


class Deep(nn.Module):
  """Rows for every encoder layer at the prompt's places.

  Before layer 0 they are the embedding; before each other layer they replace
  the hidden states there (P-tuning v2: Liu et al. 2022) or are added to them.
  layers P E numbers train.

  Attributes:
    length: P.
    emb_dim: E.
    num_prompts: N.
    combine: `replace` or `add`.
    config: of the network.
  """

  length: int
  emb_dim: int
  num_prompts: int | None = None
  combine: str = "add"
  config: t5.Config | None = None

  def __call__(self) -> Float[Array, "*N P E"]:
    return self.tensors()["embedding"]

  @nn.compact
  def tensors(self) -> dict[str, Array]:
    """`embedding`, `deep` and `keep`, see `model.inside`."""
    shape = self.length, self.emb_dim
    rows = leaf(self, "embedding", *shape)
    deep = leaf(self, "deep", self._layers - 1, *shape)
    keep = jnp.full(deep.shape[:-2], _KEEP[self.combine], jnp.float32)
    return {"embedding": rows, "deep": deep, "keep": keep}

  @property
  def _layers(self) -> int:
    assert self.config is not None
    return self.config.num_encoder_layers

  def first_parameters(
    self, rows: Float[Array, "*N P E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """The rows in front; zeros to add to deeper layers, else the rows again.

    Raises:
      ValueError: there is no place to put rows in, or only one layer.
    """
    del given
    if not self.length or self._layers < 2:
      raise ValueError(
        f"A deep prompt needs positions and two encoder layers at least; here "
        f"are {self.length} (PROMPT_LENGTH) and {self._layers}. Set "
        "PROMPT_LENGTH, or leave methods/deep.gin out."
      )
    each = np.repeat(rows[..., None, :, :], self._layers - 1, axis=-3)
    start = each if self.combine == "replace" else np.zeros_like(each)
    return {"embedding": rows, "deep": np.float32(start)}


def deep(combine: str = "add") -> Method:
  """Prompts with rows for every layer, see `Deep`."""
  if combine not in _KEEP:
    hint = spelling.hint(
      str(combine), list(_KEEP), f"There are {', '.join(_KEEP)}."
    )
    raise ValueError(
      f"DEEP={combine!r} is nothing that rows can do with hidden states. {hint}"
    )
  return functools.partial(Deep, combine=combine)


class IA3(nn.Module):
  """Vectors that multiply keys, values and the feed-forward's hidden.

  One each for every self-attention, cross-attention and feed-forward part of
  both stacks, all ones at the start (Liu et al. 2022, "Few-shot parameter-
  efficient fine-tuning is better and cheaper than in-context learning", section
  3.3). With encoder layers of 2 A + F and decoder layers of 4 A + F numbers;
  PROMPT_LENGTH, if it is not 0, puts a plain prompt beside them.

  Attributes:
    length: P.
    emb_dim: E.
    num_prompts: N.
    config: of the network.
  """

  length: int
  emb_dim: int
  num_prompts: int | None = None
  config: t5.Config | None = None

  def __call__(self) -> Float[Array, "*N P E"]:
    return _rows(self)

  @nn.compact
  def tensors(self) -> dict[str, Array]:
    """The vectors, see `model.inside`, and `embedding` if P is not 0."""
    assert self.config is not None
    shapes = tensors.vector_shapes(self.config)
    found = {name: leaf(self, name, *shape) for name, shape in shapes.items()}
    return found | _embedding(self)

  def first_parameters(
    self, rows: Float[Array, "*N P E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """Ones, beside the rows."""
    del given
    assert self.config is not None
    ones = {
      name: np.ones((*rows.shape[:-2], *shape), np.float32)
      for name, shape in tensors.vector_shapes(self.config).items()
    }
    return ones | ({"embedding": rows} if self.length else {})


def ia3() -> Method:
  """Vectors on keys, values and hidden, see `IA3`."""
  return IA3


class Decoder(nn.Module):
  """Rows in front of the decoder's input, before the id that it starts from.

  (P + Q) E numbers train; with PROMPT_LENGTH=0 the decoder alone has a prompt.

  Attributes:
    length: P.
    emb_dim: E.
    num_prompts: N.
    decoder_length: Q.
    config: of the network.
  """

  length: int
  emb_dim: int
  num_prompts: int | None = None
  decoder_length: int = 20
  config: t5.Config | None = None

  @property
  def num_rows(self) -> int:
    """How many rows it starts from: P, then Q."""
    return self.length + self.decoder_length

  def __call__(self) -> Float[Array, "*N P E"]:
    return _rows(self)

  @nn.compact
  def tensors(self) -> dict[str, Array]:
    """`decoder_embedding`, and `embedding` if P is not 0."""
    shape = self.decoder_length, self.emb_dim
    found = {"decoder_embedding": leaf(self, "decoder_embedding", *shape)}
    return found | _embedding(self)

  def first_parameters(
    self, rows: Float[Array, "*N PQ E"], given: Given = ROWS_ALONE
  ) -> PyTree:
    """The first P of the rows, and the others for the decoder.

    Raises:
      ValueError: rows of the encoder's table do not fit into the decoder.
    """
    del given
    if self.config is not None:
      width = self.config.widths("decoder").emb_dim
      if width != self.emb_dim:
        raise ValueError(
          f"The decoder is {width} wide and the encoder {self.emb_dim}, so a "
          "prompt for the decoder cannot start from rows of the encoder's "
          "table. Leave methods/decoder.gin out for this model."
        )
    front, decoder = np.split(np.asarray(rows), [self.length], axis=-2)
    found = {"decoder_embedding": decoder}
    return found | ({"embedding": front} if self.length else {})


def decoder(length: int = 20) -> Method:
  """Prompts for the decoder too, see `Decoder`."""
  check_size("DECODER_PROMPT_LENGTH", length)
  return functools.partial(Decoder, decoder_length=length)


def has_more(method: Any) -> bool:
  """Whether what a method makes needs no rows in front of the input."""
  return getattr(method, "func", method) in (IA3, Decoder)


def is_inside(method: Any) -> bool:
  """Whether what a method makes reaches into the network."""
  return getattr(method, "func", method) in (Deep, IA3, Decoder)


def _embedding(module) -> dict[str, Array]:
  """The rows in front, if there are any."""
  if not module.length:
    return {}
  return {"embedding": leaf(module, "embedding", module.length, module.emb_dim)}


def _rows(module) -> Float[Array, "*N P E"]:
  empty = () if module.num_prompts is None else (module.num_prompts,)
  return module.tensors().get(
    "embedding", jnp.zeros((*empty, 0, module.emb_dim))
  )
