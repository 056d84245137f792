"""Prompts that reach into the network, and stay there after training.

`deep`: rows of layers, IA3's vectors, rows of the decoder
    -> `tensors` by name -> prompt.safetensors, a bank of all kinds
"""

__all__ = ["deep", "tensors"]
