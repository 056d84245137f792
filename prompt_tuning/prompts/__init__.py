"""Prompts: what trains, how it starts, what it is in front of, its file.

    `initializers` -> `prompt` [N, P, E] -> `prompted`: a frozen network with it
                                         -> `checkpoints`: prompt.npy [P, E]

`reparameterised` and `multitask` are prompts that are computed from other
parameters while they train, and plain rows afterwards.
`wayward` pulls them towards a text.
`inner` has prompts that reach into the network, and their tensors.
`similarity` ranks saved prompts by their likeness to one.
`adapters` reads and writes PEFT's files, `conversion` writes any format;
`analysis` says what a prompt means.
"""

__all__ = [
  "analysis",
  "checkpoints",
  "conversion",
  "initializers",
  "inner",
  "multitask",
  "prompt",
  "prompted",
  "reparameterised",
  "similarity",
  "wayward",
]
