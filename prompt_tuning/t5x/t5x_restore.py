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

from prompt_tuning.frozen import pretrained, t5x_checkpoints
from prompt_tuning.prompts import prompt
from prompt_tuning.t5x import t5x_prompts

if TYPE_CHECKING:
  from t5x import utils

TARGET, STEP = "target/", "state/step"
PROMPTS = f"{TARGET}{prompt.NAME}/"


def for_training(
  path: str | os.PathLike,
  model_dir: str | os.PathLike,
  dtype: str | None = None,
  *,
  record: Mapping[str, Any] | None = None,
) -> "utils.RestoreCheckpointConfig":
  """The base checkpoint of a run: its network; step 0, everything else new.

  TRAIN_STEPS then counts the steps of the tuning alone.

  Args:
    path: the base checkpoint.
    model_dir: the run's folder; its last checkpoint is taken instead, if any.
    dtype: WEIGHTS_DTYPE.
    record: what the run's prompt.json says; one that goes on must agree with it
      in what its prompt is.

  Raises:
    ValueError: no checkpoint, a relative folder, or weights that t5x does not
      train beside.
  """
  if "://" not in str(model_dir) and not os.path.isabs(model_dir):
    raise ValueError(
      f"MODEL_DIR={str(model_dir)!r} is relative, and t5x could not save a "
      f"checkpoint there. Give {os.path.abspath(model_dir)!r}."
    )
  if dtype not in (None, "float32"):
    raise ValueError(
      f"WEIGHTS_DTYPE={dtype!r}, but t5x trains with weights in float32. Leave "
      "it out; ACTIVATION_DTYPE is what computes in bfloat16."
    )
  restore = Restore(path, model_dir=model_dir, record=record or {})
  return _config(path, restore)


def for_inference(
  path: str | os.PathLike | None,
  prompt_path: str | os.PathLike | None = None,
  dtype: str | None = None,
) -> "utils.RestoreCheckpointConfig":
  """A base checkpoint with a prompt's file, or a tuned checkpoint.

  Args:
    path: the checkpoint.
    prompt_path: the prompt's file or run folder; None takes the checkpoint's.
    dtype: cast the network to it, and the prompt too; None is float32.

  Raises:
    ValueError: no checkpoint, or a type that t5x does not hold weights in.
  """
  if dtype not in (None, *pretrained.FLOATS):
    raise ValueError(
      f"WEIGHTS_DTYPE={dtype!r}, but t5x holds weights as "
      f"{', '.join(pretrained.FLOATS)}. The same prompt with int8 or int4 is "
      "what prompt-tuning eval and infer take."
    )
  if path is None:
    raise ValueError(
      "There is no checkpoint. Set INITIAL_CHECKPOINT_PATH to the base, with "
      "PROMPT_PATH, or CHECKPOINT_PATH to a checkpoint that was tuned, on the "
      "command line or behind the run's gin file."
    )
  new = prompt_path is not None
  restore = Restore(path, new_prompt=new, keep_step=True)
  return _config(path, restore, dtype or "float32")


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
    record: see `for_training`.
  """

  path: str | os.PathLike
  new_prompt: bool = True
  keep_step: bool = False
  model_dir: str | os.PathLike | None = None
  record: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
    of_prompt = [key for key in wanted if key.startswith(PROMPTS)]
    if is_resuming:
      if any(key.startswith(PROMPTS) for key in have) and of_prompt:
        self._check_resumed(want)
      self._check_names(have, wanted, self.model_dir)
      self._check_shapes(have, want, wanted, self.model_dir)
      return state_dict
    is_tuned = any(key.startswith(PROMPTS) for key in have)
    if self.keep_step and is_tuned and not of_prompt:
      raise ValueError(
        f"{self.path} was tuned with a prompt, and there is no prompts/<step> "
        "beside it to tell its length. Set PROMPT_PATH to the prompt's file, "
        "or copy prompts/ of its run beside the checkpoint."
      )
    if self.new_prompt:
      wanted = [key for key in wanted if key not in of_prompt]
    self._check_names(have, wanted, self.path)
    self._check_shapes(have, want, wanted, self.path)
    kept = {key: have[key] for key in wanted}
    if self.keep_step:
      kept[STEP] = have[STEP]
    return traverse_util.unflatten_dict(kept, sep="/")

  def _check_names(self, have, wanted, where) -> None:
    missing = sorted(key for key in wanted if key not in have)
    if not missing:
      return
    if all(key.startswith(PROMPTS) for key in missing):
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

  def _check_resumed(self, want) -> None:
    """Compares what the prompt is with the prompt that the run has."""
    saved = t5x_prompts.saved(str(self.model_dir))
    settings = {
      "PROMPT": "method",
      "PROMPT_PLACE": "place",
      "PROMPT_ATTENTION": "attention",
    }
    for setting, entry in settings.items():
      asked, found = self.record.get(entry), saved.record.get(entry)
      if asked != found:
        raise ValueError(
          f"The run in {self.model_dir} has {setting}={found!r}, this one "
          f"{setting}={asked!r}. Set it as it was, or another MODEL_DIR."
        )
    plain = TARGET + prompt.PARAMETER
    length = want[plain].shape[0] if plain in want else len(saved.values)
    if len(saved.values) != length:
      raise ValueError(
        f"PROMPT_LENGTH={length}, but the run in {self.model_dir} has a prompt "
        f"of {len(saved.values)} positions. Set PROMPT_LENGTH="
        f"{len(saved.values)}, or another MODEL_DIR."
      )

  def _check_shapes(self, have, want, wanted, where) -> None:
    shapes = _shapes(have, where)
    for key in wanted:
      stored, needed = shapes.get(key), tuple(want[key].shape)
      if stored is None or tuple(stored) == needed:
        continue
      if key == TARGET + prompt.PARAMETER and stored[1:] == needed[1:]:
        raise ValueError(
          f"PROMPT_LENGTH={needed[0]}, but the prompt in the checkpoint "
          f"{where} has {stored[0]} positions. Leave PROMPT_LENGTH out; it is "
          "read from there."
        )
      raise ValueError(
        f"{key.removeprefix(TARGET)} has shape {tuple(stored)} in the "
        f"checkpoint {where}, the run needs {needed}. Use the gin file of "
        "the model that the checkpoint holds."
      )


def _shapes(have, where) -> dict[str, tuple[int, ...] | None]:
  """Stored shapes by name; None where t5x does not tell."""
  if "://" not in str(where):
    folder = t5x_checkpoints.find(pathlib.Path(where))
    tensors = t5x_checkpoints.tensors(folder) if folder else {}
    return {TARGET + name: tensor.shape for name, tensor in tensors.items()}
  return {key: _shape(leaf) for key, leaf in have.items()}


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
