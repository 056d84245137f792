"""The pull of a text: its formula, its fields, what it cannot be."""

import numpy as np
import pytest

from prompt_tuning.prompts import wayward
from prompt_tuning.prompts.initializers import Source

TABLE = np.float32([[0, 0], [1, 0], [0, 2], [3, 3]])


def encode(text):
  return [int(word) for word in text.split()]


SOURCE = Source(TABLE, encode, 4)


def test_the_term_is_gamma_times_the_mean_square_over_the_texts_tokens():
  pull = wayward.pull(["2 1", "3"], [SOURCE] * 2, 3, gamma=0.5)
  rows = np.float32([[[1, 2], [1, 4], [9, 9]], [[3, 0], [9, 9], [9, 9]]])
  # (1 + 16) / 2 of two tokens, 9 of one; the third position is free
  np.testing.assert_allclose(pull(rows), [0.5 * 17 / 2, 0.5 * 9])
  assert pull.record(1) == {"wayward": {"text": "3", "gamma": 0.5}}


def test_a_prompt_of_the_text_itself_is_not_pulled():
  pull = wayward.pull(["1 2 3"], [SOURCE], 3, gamma=2.0)
  assert pull(TABLE[None, 1:]).tolist() == [0.0]


@pytest.mark.parametrize("text, count", [("1 2 3 1", 4), ("", 0)])
def test_a_text_that_does_not_fit_is_refused(text, count):
  message = f"has {count} tokens, and each of them pulls .* PROMPT_LENGTH=3"
  with pytest.raises(ValueError, match=message):
    wayward.pull([text], [SOURCE], 3, gamma=1.0)


def test_fields_are_filled():
  fields = {"task": "rte", "seed": 3}
  text = "Do {task}, {{run}} {seed:02d}"
  assert wayward.filled(text, fields) == "Do rte, {run} 03"
  assert wayward.filled("as it is", fields) == "as it is"


@pytest.mark.parametrize(
  "text, message",
  [
    ("Do {task:d}", "cannot be written so .*'d'"),
    ("Do {task:{x}}", "cannot be written so .*'x'"),
    ("Do {task!x}", "cannot be written so"),
    ("Do {taks}", "the field 'taks'. Did you mean task"),
    ("Do {}", "the field ''. There are task, seed"),
    ("Do {0}", "the field '0'. There are task, seed"),
    ("Do {task", "a brace that begins or ends no field"),
    ("Do }", "a brace that begins or ends no field"),
  ],
)
def test_what_is_no_field_is_named(text, message):
  with pytest.raises(ValueError, match=message):
    wayward.filled(text, {"task": "rte", "seed": 3})
