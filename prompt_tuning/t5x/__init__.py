"""The same parts under t5x's launchers: t5x.train, eval, infer and export.

    `t5x_data`, `t5x_features`     tasks -> packed rows with placeholders
    `t5x_models`                   t5x's T5 or ours, with a prompt
    `t5x_prompts`, `t5x_restore`   first values and files; what is restored
    `t5x_optimizers`               all but the prompt is frozen
    `t5x_macros`, `t5x_export`     gin's macros checked; a SavedModel

The gin files in gin/t5x/ bind them. Only this folder imports t5x.
"""

__all__ = []
