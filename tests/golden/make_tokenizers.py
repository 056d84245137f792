"""Makes tests/golden/tokenizers/ from transformers: a tokenizer, what it says.

    python tests/golden/make_tokenizers.py

Needs transformers and sentencepiece (made with 5.24.0 and 0.2.3). The folder
holds tokenizer.json and tokenizer_config.json as transformers saves a T5's
tokenizer with added tokens, and expected.json with texts and their ids without
end. The pieces are those of `tiny_t5.vocabulary`.
"""

import json
import pathlib
import sys

import sentencepiece
import transformers

HERE = pathlib.Path(__file__).parent / "tokenizers"
sys.path.insert(0, str(HERE.parents[1]))

import tiny_t5  # noqa: E402

SENTINELS = 10
TEXTS = (
  *tiny_t5.TEXTS,
  "  the   cat ",
  "",
  " ",
  "zebra ü",
  "the <ORG> cat",
  "<ORG>",
  "<ORG><ORGS> dog",
  "the<ORG>the",
  "(<ORG>)cat",
  "the <extra_id_2> cat",
  "<extra_id_0> red <extra_id_9>",
)


def main() -> int:
  HERE.mkdir(exist_ok=True)
  pieces = sentencepiece.SentencePieceProcessor(tiny_t5.vocabulary().path)
  size = pieces.get_piece_size()
  entries = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(size)]
  entries += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(SENTINELS))]
  tokenizer = transformers.T5Tokenizer(vocab=entries, extra_ids=SENTINELS)
  tokenizer.add_tokens(["<ORG>", "<ORGS>"])
  tokenizer.save_pretrained(HERE)
  rows = {
    text: tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS
  }
  (HERE / "expected.json").write_text(json.dumps(rows, indent=1) + "\n")
  return 0


if __name__ == "__main__":
  sys.exit(main())
