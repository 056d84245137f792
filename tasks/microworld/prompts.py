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


def _asking(*questions, labels) -> tuple[str, ...]:
  """Five templates: bare, the question on either side, the labels named."""
  no, yes = labels
  first, second = questions
  return (
    "{input}",
    "{input} " + first,
    first + " {input}",
    "{input} " + f"{second} {yes} or {no}?",
    f"{second} {yes} or {no}? " + "{input}",
  )


_QUESTIONS = {
  "microworld_boolq": ("Is it so?", "Which one is it:"),
  "microworld_twofact": ("Is it so?", "Which one is it:"),
  "microworld_isa": ("Is it so?", "Which one is it:"),
  "microworld_rte": ("Does the hypothesis follow?", "Which one is it:"),
  "microworld_mrpc": ("Do both say the same?", "Which one is it:"),
  "microworld_qqp": ("Do both say the same?", "Which one is it:"),
  "microworld_wic": ("Is it the same word?", "Which one is it:"),
  "microworld_sst2": ("Was it good or bad?", "Which one is it:"),
  "microworld_plum": ("Was it good or bad?", "Which one is it:"),
  "microworld_cola": ("Is it good English?", "Which one is it:"),
  "microworld_copa": ("Which one came of it?", "Which one is it:"),
}
HAND_PROMPTS = {
  name: _asking(*questions, labels=LABELS[name])
  for name, questions in _QUESTIONS.items()
}

_NO_YES = ("No.", "Yes.")
_TWO = r"\w+: (.*) \w+: (.*)"
CORPUS_PROMPTS = {
  "microworld_boolq": CorpusPrompt(_TWO, r"\1 \2", _NO_YES),
  "microworld_twofact": CorpusPrompt(_TWO, r"\1 \2", _NO_YES),
  "microworld_isa": CorpusPrompt(r"question: (.*)", r"\1", _NO_YES),
  "microworld_rte": CorpusPrompt(
    _TWO, r"\2 \1 Does it follow?", ("Yes.", "No.")
  ),
  "microworld_mrpc": CorpusPrompt(
    _TWO, r"\1 \2 Do both say the same?", _NO_YES
  ),
  "microworld_qqp": CorpusPrompt(_TWO, r"\1 \2 Do both say the same?", _NO_YES),
  "microworld_wic": CorpusPrompt(
    r"\w+: (.*) \w+: (.*) word: (\w+)", r"\1 \2 Is it the same \3?", _NO_YES
  ),
  "microworld_sst2": CorpusPrompt(
    r"sentence: (.*)", r"\1 Was it good?", _NO_YES
  ),
  "microworld_plum": CorpusPrompt(
    r"sentence: (.*)", r"\1 Was it good?", _NO_YES
  ),
  "microworld_cola": CorpusPrompt(
    r"sentence: (.*)", r"\1 Is it good English?", _NO_YES
  ),
  "microworld_copa": CorpusPrompt(
    r"choice1: (.*) choice2: (.*) premise: (.*) question: \w+",
    r"First: \1 Second: \2 \3 Which one is it?",
    ("The first.", "The second."),
  ),
}
