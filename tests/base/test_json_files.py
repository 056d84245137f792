"""JSON of others: values of the kind that is asked for, or the key's name."""

import pytest

from prompt_tuning import json_files


def fields(text: str) -> json_files.Fields:
  return json_files.parse_object(text, "c.json")


def test_a_whole_number_is_a_number_too():
  rate = fields('{"rate": 7}').number("rate")
  assert rate == 7.0 and isinstance(rate, float)


@pytest.mark.parametrize(
  "value", ["NaN", "Infinity", "1e999", "1" + "0" * 400, "true", '"1"', "0"]
)
def test_what_is_no_number_above_zero_is_refused_by_its_key(value):
  with pytest.raises(ValueError, match="c.json.*rate.*a number above 0"):
    fields(f'{{"rate": {value}}}').number("rate")
