"""Training: what a run learns -> steps -> the artefact.

    `settings` -> `prepare` -> `loop` (of `step`s, by `optimizers`) -> report
                                         `train` is all three

`pretrain` makes a T5 by the same loop, from `mimetic` weights.
"""

__all__ = ["loop", "optimizers", "pretrain", "train"]
