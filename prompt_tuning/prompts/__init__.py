"""Prompts: what trains, how it starts, what it is in front of, its file.

    `initializers` -> `prompt` [N, P, E] -> `prompted`: a frozen network with it
                                         -> `checkpoints`: prompt.npy [P, E]

`adapters` reads and writes PEFT's files; `analysis` says what a prompt means.
"""

__all__ = ["analysis", "checkpoints", "initializers", "prompt", "prompted"]
