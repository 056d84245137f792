"""Studies: the paper's questions in miniature, on the microworld.

    `studies` (of `trials`) -> `schedule`: what is left, in which programs
      -> `ways`: train (`tuned`, `sources`, `methods`) or word, and test
      -> `results` -> `report`

`study` does all of it, resumably.
"""

__all__ = ["methods", "report", "results", "study", "studies", "trials", "ways"]
