"""The frozen model: a path -> weights, configuration and vocabulary.

    path (`remote`) -> `model_folder`, `huggingface` (of `weight_files`,
                       `special_ids`, `t5gemma`), `t5x_checkpoints` or
                       `t5gemma.flax_checkpoints` (both of `zarr_arrays`)
                    -> `stored_model`, not read yet -> `pretrained.load`
                    -> one device, or several (`placement`)

A model is read once, hashed as it is stored, and never written back.
"""

__all__ = [
  "model_folder",
  "placement",
  "pretrained",
  "stored_model",
  "t5x_checkpoints",
]
