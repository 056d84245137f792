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
SENTINELS = 10
TRAINED = (
  "the cat sat on the mat",
  "a dog ran to the red house and sat down",
  "is the house red ? yes , the house is red .",
  "no , the cat did not see the dog on the mat",
  "we saw a bird in the tree , and the bird sang",
)
TEXTS = (
  *TRAINED,
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
  model = HERE / "spiece.model"
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TRAINED),
    model_prefix=str(model.with_suffix("")),
    vocab_size=50,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  pieces = sentencepiece.SentencePieceProcessor(str(model))
  model.with_suffix(".vocab").unlink()
  model.unlink()
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
