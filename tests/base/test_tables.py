import bz2
import gzip
import json
import lzma

from hypothesis import given
from hypothesis import strategies as st
import pytest

from prompt_tuning import tables

ROWS = [
  {"a": "x", "b": "1"},
  {"a": 'say "no", twice', "b": "ü – 日本"},
  {"a": "", "b": " spaces "},
]


def write(path, content: str | bytes):
  raw = content.encode("utf-8") if isinstance(content, str) else content
  opener = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
  with opener.get(path.suffix, open)(path, "wb") as file:
    file.write(raw)
  return path


def read(path, **options) -> list[dict]:
  return tables.read(path, dict, **options).items


CONTENTS = {
  "jsonl": '{"a": "x", "b": "1"}\n\n'
  '{"a": "say \\"no\\", twice", "b": "ü – 日本"}\n{"a": "", "b": " spaces "}',
  "csv": 'a,b\r\nx,1\r\n"say ""no"", twice",ü – 日本\r\n, spaces \r\n',
  "tsv": '\ufeffa\tb\nx\t1\nsay "no", twice\tü – 日本\n\t spaces \n',
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".xz"])
def test_the_same_rows_come_from_every_format(kind, packed, tmp_path):
  path = write(tmp_path / f"rows.v2.{kind}{packed}", CONTENTS[kind])
  assert read(path) == ROWS


@given(
  st.lists(
    st.text(
      st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"),
      min_size=1,
    ),
    min_size=1,
  )
)
def test_a_tsv_cell_is_what_stands_between_tabs(tmp_path_factory, cells):
  path = tmp_path_factory.mktemp("tsv") / "rows.tsv"
  names = [f"n{i}" for i in range(len(cells))]
  write(path, "\t".join(names) + "\n" + "\t".join(cells) + "\n")
  assert read(path) == [dict(zip(names, cells, strict=True))]


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("r.jsonl", '{"a": 1}\n{"a"\n', "r.jsonl, line 2: this is no JSON"),
    ("r.jsonl", '{"a": 1}\n[1]\n', "line 2: this is no JSON object"),
    ("r.jsonl", '{"b": 1}\n', "line 1: the row has no field 'a'; it has"),
    ("r.jsonl", '{"a": null}\n', "line 1: the field 'a' is None, not a text"),
    ("r.jsonl", '{"a": ["x"]}\n', r"line 1: the field 'a' is \['x'\]"),
    ("r.csv", "a,b\n1,2\n3\n", "line 3: the row has 1 fields, 2 are needed"),
    ("r.csv", 'a\n"x\n', "line 2: this is no csv"),
    ("r.tsv", "a\tb\n1\t2\t3\n", "line 2: the row has 3 fields"),
    ("r.tsv", b"a\nx\n\xff\xfe\n", "line 3: the field 'a' is not UTF-8"),
    ("r.tsv", "Answer\nx\n", "no field 'a'; it has"),
    ("r.tsv", "aa\nx\n", "no field 'a'; did you mean 'aa'"),
    ("r.xml", "", "no known format; the name must end in .jsonl"),
    ("r.json", "", "r.json has no rows"),
    ("r.jsonl", '{"a": NaN}', "line 1: this is no JSON .NaN is no value of"),
    ("r.json", '[{"a": "x"}, 3]', "line 2: this is no JSON object"),
    ("r.json", '{"data": [{"paragraphs": [{}]}]}', "not SQuAD's nested form"),
    ("r.csv", "", "r.csv has no rows"),
    ("r.tsv", "a\tb\n\n", "r.tsv has no rows"),
    ("r.csv", "\na,b,a\n1,2,3\n", "line 2: the field 'a' is named twice"),
    (
      "r.csv",
      'a,"b"c\n1,2\n',
      "line 1, which names the fields: this is no csv",
    ),
    ("r.csv", "a\n1\n".encode("utf-16"), "the fields, is not UTF-8 text"),
    ("r.jsonl", "[" * 100_000, "line 1: this is no JSON"),
  ],
)
def test_a_bad_row_is_named_by_file_line_and_field(
  name, content, message, tmp_path
):
  path = write(tmp_path / name, content)
  with pytest.raises(ValueError, match=message):
    tables.read(path, lambda row: tables.field(row, "a"))


def test_bad_rows_are_left_out_and_counted_if_asked(tmp_path):
  path = write(tmp_path / "r.jsonl", '{"a": 1}\n{"b": 2}\nno\n{"a": 3}\n')
  table = tables.read(
    path, lambda row: tables.field(row, "a"), skip_bad_rows=True
  )
  assert table.items == ["1", "3"]
  assert table.places == [0, 3]
  assert [message.split(":")[0][-6:] for message in table.skipped] == [
    "line 2",
    "line 3",
  ]
  write(path, '{"b": 1}\n')
  with pytest.raises(
    ValueError, match="has only bad rows; .*, line 1: the row"
  ):
    tables.read(path, lambda row: tables.field(row, "a"), skip_bad_rows=True)


def test_a_line_of_names_that_cannot_be_read_is_never_left_out(tmp_path):
  path = write(tmp_path / "r.csv", 'a,"b"c\n1,2\n3,4\n')
  with pytest.raises(ValueError, match="line 1, which names the fields"):
    tables.read(path, dict, skip_bad_rows=True)


def test_lines_without_anything_are_passed_over(tmp_path):
  csv = write(tmp_path / "r.CSV", "\n\na,b\n,\n1,2\n\n")
  tsv = write(tmp_path / "r.tsv", "\na\tb\n\t\n1\t2\n\n")
  assert read(csv) == read(tsv) == [{"a": "1", "b": "2"}]


def test_a_cell_may_be_long_and_hold_line_breaks(tmp_path):
  text = "x\r\ny " * 50_000
  path = write(tmp_path / "r.csv", f'a,b\n"{text}",1\n')
  assert read(path) == [{"a": text, "b": "1"}]


def test_numbers_and_truth_values_are_written_as_in_the_file(tmp_path):
  path = write(tmp_path / "r.jsonl", '{"a": true}\n{"a": 7}\n{"a": 0.5}\n')
  items = tables.read(path, lambda row: tables.field(row, "a")).items
  assert items == ["true", "7", "0.5"]


def test_a_damaged_or_missing_file_is_named(tmp_path):
  whole = gzip.compress(b'{"a": 1}\n' * 1000)
  (tmp_path / "cut.jsonl.gz").write_bytes(whole[:40])
  with pytest.raises(ValueError, match="cut.jsonl.gz cannot be read"):
    read(tmp_path / "cut.jsonl.gz")
  broken = bytearray(whole)
  broken[10] |= 0b110  # a kind of block that there is not
  (tmp_path / "broken.jsonl.gz").write_bytes(broken)
  with pytest.raises(ValueError, match="broken.jsonl.gz cannot be read"):
    read(tmp_path / "broken.jsonl.gz")
  with pytest.raises(FileNotFoundError, match="no file .*none.csv"):
    read(tmp_path / "none.csv")
  with pytest.raises(FileNotFoundError, match="It is a folder"):
    read(tmp_path)


@pytest.mark.parametrize(
  "name, text",
  [
    ("r.json", '[{"a": "x", "b": 1}, {"a": "y; z", "b": 2}]'),
    ("r.json", '{"a": "x", "b": 1}\n{"a": "y; z", "b": 2}\n'),
    ("r.json", '{"data": [{"a": "x", "b": 1}, {"a": "y; z", "b": 2}]}'),
    ("r.csv", 'a;b\nx;1\n"y; z";2\n'),
    ("r.csv", "a,b\nx,1\ny; z,2\n"),
  ],
)
def test_every_form_of_a_file_gives_the_same_rows(tmp_path, name, text):
  (tmp_path / name).write_text(text)
  rows = tables.read(tmp_path / name, lambda row: row).items
  assert [(row["a"], str(row["b"])) for row in rows] == [
    ("x", "1"),
    ("y; z", "2"),
  ]


def test_squads_nested_form_is_a_row_for_each_question(tmp_path):
  asked = [
    {"question": "Who?", "id": "7", "answers": [{"text": "A"}, {"text": "B"}]},
    {"question": "Why?", "id": 8, "answers": [], "is_impossible": True},
  ]
  paragraph = {"context": "A and B.", "qas": asked}
  content = {
    "version": "1.1",
    "data": [{"title": "t", "paragraphs": [paragraph]}],
  }
  (tmp_path / "dev.json").write_text(json.dumps(content))
  shared = {"title": "t", "context": "A and B."}
  assert tables.read(tmp_path / "dev.json", lambda row: row).items == [
    {**shared, "question": "Who?", "id": "7", "answers": ["A", "B"]},
    {**shared, "question": "Why?", "id": "8", "answers": []},
  ]


def test_a_question_of_another_form_costs_no_other(tmp_path):
  def asked(**qa):
    return {"paragraphs": [{"context": "c", "qas": [qa]}]}

  articles = [asked(question="q1"), asked(id=2), {"paragraphs": 3}, 4]
  articles += [{"paragraphs": [{"qas": []}, 5]}, asked(question="q3")]
  path = tmp_path / "s.json"
  path.write_text(json.dumps({"data": articles}))
  table = tables.read(path, lambda row: row["question"], skip_bad_rows=True)
  assert table.items == ["q1", "q3"] and len(table.skipped) == 4


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_only_a_line_break_ends_an_object(tmp_path, name):
  (tmp_path / name).write_text('{"x":"a\u2028b"}\n{"x":"c\x85d"}\n', "utf-8")
  table = tables.read(tmp_path / name, lambda row: row["x"])
  assert table.items == ["a\u2028b", "c\x85d"]


@pytest.mark.parametrize(
  "value, message",
  [("1e999", "1e999 is too large"), ('["a", "\\ud800"]', "not UTF-8 text")],
)
def test_what_cannot_be_written_is_no_value(tmp_path, value, message):
  (tmp_path / "a.jsonl").write_text(f'{{"x": {value}}}\n')
  with pytest.raises(ValueError, match=message):
    tables.read(tmp_path / "a.jsonl", lambda row: row["x"])
