"""Prompt design: hand-written prompts for the microworld's tasks.

`HAND_PROMPTS[task]` are five templates around the task's own input, scored by
rank over the task's labels. `CORPUS_PROMPTS[task]` is the best prompt there
can be for this model: it re-words the input as the pre-training text words the
skill, and ranks the text's own answers.
"""

import dataclasses
import re

from prompt_tuning.tasks.microworld.examples import LABELS


@dataclasses.dataclass(frozen=True)
class CorpusPrompt:
  """A re-wording of a task's input and the answers to rank.

  Attributes:
    pattern: what the whole input matches, with groups.
    template: the new wording of the groups.
    answers: of class 0 and class 1.
  """

  pattern: str
  template: str
  answers: tuple[str, str]

  def __call__(self, inputs: str) -> str:
    """The re-worded input.

    Raises:
      ValueError: the input is not in the task's format.
    """
    match = re.fullmatch(self.pattern, inputs)
    if match is None:
      raise ValueError(
        f"Got the input {inputs!r}, needed one of the form {self.pattern!r}."
      )
    return " ".join(match.expand(self.template).split())


def _asking(question: str, no: str, yes: str) -> tuple[str, ...]:
  """Five templates: bare, the question on either side, the labels named."""
  choice = f"Which one is it: {yes} or {no}?"
  return (
    "{input}",
    "{input} " + question,
    question + " {input}",
    "{input} " + choice,
    choice + " {input}",
  )


_QUESTIONS = {
  "Is it so?": ("boolq", "twofact", "isa"),
  "Does the hypothesis follow?": ("rte",),
  "Do both say the same?": ("mrpc", "qqp"),
  "Is it the same word?": ("wic",),
  "Was it good or bad?": ("sst2", "plum"),
  "Is it good English?": ("cola",),
  "Which one came of it?": ("copa",),
}
HAND_PROMPTS = {
  f"microworld_{name}": _asking(question, *LABELS[f"microworld_{name}"])
  for question, names in _QUESTIONS.items()
  for name in names
}

_NO_YES = ("No.", "Yes.")
_ONE = r"sentence: (.*)"
_SAME = r"\1 \2 Do both say the same?"
_TWO = r"\w+: (.*) \w+: (.*)"
CORPUS_PROMPTS = {
  "microworld_boolq": CorpusPrompt(_TWO, r"\1 \2", _NO_YES),
  "microworld_twofact": CorpusPrompt(_TWO, r"\1 \2", _NO_YES),
  "microworld_isa": CorpusPrompt(r"question: (.*)", r"\1", _NO_YES),
  "microworld_rte": CorpusPrompt(
    _TWO, r"\2 \1 Does it follow?", ("Yes.", "No.")
  ),
  "microworld_mrpc": CorpusPrompt(_TWO, _SAME, _NO_YES),
  "microworld_qqp": CorpusPrompt(_TWO, _SAME, _NO_YES),
  "microworld_wic": CorpusPrompt(
    r"\w+: (.*) \w+: (.*) word: (\w+)", r"\1 \2 Is it the same \3?", _NO_YES
  ),
  "microworld_sst2": CorpusPrompt(_ONE, r"\1 Was it good?", _NO_YES),
  "microworld_plum": CorpusPrompt(_ONE, r"\1 Was it good?", _NO_YES),
  "microworld_cola": CorpusPrompt(_ONE, r"\1 Is it good English?", _NO_YES),
  "microworld_copa": CorpusPrompt(
    r"choice1: (.*) choice2: (.*) premise: (.*) question: \w+",
    r"First: \1 Second: \2 \3 Which one is it?",
    ("The first.", "The second."),
  ),
}
