"""What a t5x run takes from a checkpoint, checked before the first step.

    base checkpoint       the network; prompt, optimizer and step are new
    base + prompt file    the network, and the file's prompt
    tuned checkpoint      the network and its prompt
    MODEL_DIR             all of it: the run is resumed

t5x fills whatever a checkpoint lacks with fresh random numbers and says so in a
log line only. Here nothing but the prompt may be new.
"""

from collections.abc import Mapping
import dataclasses
import difflib
import os
import pathlib
from typing import TYPE_CHECKING, Any

from flax import traverse_util

from prompt_tuning import t5x_checkpoints, t5x_prompts

if TYPE_CHECKING:
  from t5x import utils

TARGET, STEP = "target/", "state/step"
PROMPT = TARGET + t5x_prompts.PARAMETER


def for_training(
  path: str | os.PathLike, model_dir: str | os.PathLike
) -> "utils.RestoreCheckpointConfig":
  """The base checkpoint of a run: its network; step 0, everything else new.

  TRAIN_STEPS then counts the steps of the tuning alone.

  Args:
    path: the base checkpoint.
    model_dir: the run's folder; its last checkpoint is taken instead, if any.
  """
  return _config(path, Restore(path, model_dir=model_dir))


def for_inference(
  path: str | os.PathLike,
  prompt_path: str | os.PathLike | None = None,
  dtype: str | None = None,
) -> "utils.RestoreCheckpointConfig":
  """A base checkpoint with a prompt's file, or a tuned checkpoint.

  Args:
    path: the checkpoint.
    prompt_path: the prompt's file or run folder; None takes the checkpoint's.
    dtype: cast the network to it; the prompt too.
  """
  new = prompt_path is not None
  return _config(path, Restore(path, new_prompt=new, keep_step=True), dtype)


def _config(path, restore: "Restore", dtype: str | None = "float32"):
  place = _found(path)
  from t5x import utils

  return utils.RestoreCheckpointConfig(
    path=place,
    mode="specific",
    dtype=dtype,
    fallback_to_scratch=restore.new_prompt,
    state_transformation_fns=(restore,),
  )


def _found(path: str | os.PathLike) -> str:
  """The absolute path of a checkpoint; elsewhere (gs://) t5x itself looks."""
  if "://" in str(path):
    return str(path)
  found = t5x_checkpoints.find(pathlib.Path(path))
  if found is None:
    raise ValueError(
      f"There is no checkpoint of t5x at {str(path)!r}. Give a folder "
      "checkpoint_<step>, or one that holds such folders. A model in another "
      "format has to be written as one first, see docs/t5x.md."
    )
  return str(found.resolve())


@dataclasses.dataclass(frozen=True)
class Restore:
  """Chooses what is restored; t5x calls it with the names on both sides.

  Attributes:
    path: the checkpoint.
    new_prompt: the prompt comes from its initialiser, not the checkpoint.
    keep_step: take the checkpoint's step.
    model_dir: where a run is resumed.
  """

  path: str | os.PathLike
  new_prompt: bool = True
  keep_step: bool = False
  model_dir: str | os.PathLike | None = None

  def __call__(
    self,
    state_dict: Any,
    target_state_dict: Any,
    *,
    is_resuming: bool = False,
  ) -> Any:
    """The part of a checkpoint that is read.

    Args:
      state_dict: what the checkpoint holds; t5x names these arguments.
      target_state_dict: what the run has.
      is_resuming: the checkpoint is the run's own.

    Raises:
      ValueError: a parameter is missing in it, or has another shape.
    """
    have: dict[str, Any] = _flatten(state_dict)
    want: dict[str, Any] = _flatten(target_state_dict)
    wanted = [key for key in want if key.startswith(TARGET)]
    if is_resuming:
      self._check_names(have, wanted, self.model_dir)
      if PROMPT in want:
        self._check_resumed(want[PROMPT].shape[0])
      return state_dict
    if self.new_prompt:
      wanted = [key for key in wanted if key != PROMPT]
    self._check_names(have, wanted, self.path)
    stored = self._shapes(have)
    self._check_shapes({key: (stored[key], want[key].shape) for key in wanted})
    kept = {key: have[key] for key in wanted}
    if self.keep_step:
      kept[STEP] = have[STEP]
    return traverse_util.unflatten_dict(kept, sep="/")

  def _check_names(self, have, wanted, where) -> None:
    missing = sorted(key for key in wanted if key not in have)
    if not missing:
      return
    if missing == [PROMPT]:
      raise ValueError(
        f"{where} holds no prompt. Set PROMPT_PATH to the prompt's file, "
        "CHECKPOINT_PATH to a checkpoint that was tuned with one, or another "
        "MODEL_DIR."
      )
    name = missing[0]
    close = difflib.get_close_matches(name, have, 1, 0.6)
    hint = f" The closest that it has is {close[0]}." if close else ""
    raise ValueError(
      f"{where} has no parameter {name.removeprefix(TARGET)} "
      f"({len(missing)} of {len(wanted)} are missing), and t5x would start it "
      f"from random numbers.{hint} Use the gin file of the model that the "
      "checkpoint holds."
    )

  def _check_resumed(self, length: int) -> None:
    found = len(t5x_prompts.read(str(self.model_dir)))
    if found != length:
      raise ValueError(
        f"PROMPT_LENGTH={length}, but the run in {self.model_dir} has a prompt "
        f"of {found} positions. Set PROMPT_LENGTH={found}, or another "
        "MODEL_DIR."
      )

  def _shapes(self, have) -> dict[str, tuple[int, ...] | None]:
    """Stored shapes by name; None where t5x does not tell."""
    if "://" not in str(self.path):
      folder = t5x_checkpoints.find(pathlib.Path(self.path))
      tensors = t5x_checkpoints.tensors(folder) if folder else {}
      return {TARGET + name: tensor.shape for name, tensor in tensors.items()}
    return {key: _shape(leaf) for key, leaf in have.items()}

  def _check_shapes(self, pairs) -> None:
    for key, (stored, wanted) in pairs.items():
      if stored is not None and tuple(stored) != tuple(wanted):
        raise ValueError(
          f"{key.removeprefix(TARGET)} has shape {tuple(stored)} in the "
          f"checkpoint {self.path}, the run needs {tuple(wanted)}. Use the "
          "gin file of the model that the checkpoint holds."
        )


def _flatten(tree: Any) -> dict[str, Any]:
  """Leaves by path; how to read an array of a native checkpoint is a leaf."""
  return traverse_util.flatten_dict(
    tree, is_leaf=lambda _, value: "metadata" in value, sep="/"
  )


def _shape(leaf) -> tuple[int, ...] | None:
  """The shape of a native checkpoint's leaf: an array, or how to read one."""
  if isinstance(leaf, Mapping):
    return tuple(leaf["metadata"]["shape"])
  return getattr(leaf, "shape", None)
