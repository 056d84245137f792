"""Inference: a prompted network answers, and is scored.

    rows of ids -> `infer` -> texts -> `evaluate` -> metrics per prompt
    texts -> `prompted_model` -> texts

`ensemble` lets several prompts vote, `prompt_design` asks in words; `jobs`,
`saved_ensemble` and `submission` do these for saved prompts and write files.
"""

__all__ = [
  "ensemble",
  "evaluate",
  "infer",
  "jobs",
  "prompt_design",
  "prompted_model",
  "saved_ensemble",
  "submission",
]
