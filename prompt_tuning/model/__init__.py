"""The network: tokens -> logits, and the loss of them.

    tokens [B, T] -> `t5` (of `stacks`) -> logits [B, L, V] -> `losses` [N]
                       ^ `inject` swaps prompt rows in among the embedded words,
                         `inside` those of layers and the decoder
    tokens [B, T] -> `decode` (by `beams` of `cached` places) -> ids [B, L]
                       ^ `kept` has the keys and values

`stacks`, `layers` and `attention` are the parts of a T5, `t5gemma` has those of
a T5Gemma. `freeze` splits the parameters into those that train and the others,
`forms` gives the frozen ones the form that computes best. Nothing here knows a
file, a task or an optimizer.
"""

__all__ = [
  "decode",
  "forms",
  "freeze",
  "inject",
  "inside",
  "kept",
  "losses",
  "t5",
  "t5gemma",
]
