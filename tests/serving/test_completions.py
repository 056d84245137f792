import concurrent.futures
import threading

import asking
import conftest
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.inference import infer
from prompt_tuning.inference.prompted_model import PromptedModel
from prompt_tuning.model import decode
from prompt_tuning.prompts import checkpoints
from prompt_tuning.serving import engine

NAMES = [f"p{n}" for n in range(conftest.COUNT)]


@pytest.fixture(scope="module")
def predicted():
  """What `predict` says for every prompt and text."""
  saved = [
    checkpoints.SavedPrompt(asking.values(n), {}, name)
    for n, name in enumerate(NAMES)
  ]
  model = PromptedModel(toy_tasks.model(), saved, infer.Decoding(max_length=8))
  asked = [(n, text) for n in range(len(NAMES)) for text in asking.TEXTS]
  said = model.predict([text for _, text in asked], [n for n, _ in asked])
  return {(NAMES[n], text): a for (n, text), a in zip(asked, said, strict=True)}


def test_64_clients_of_50_prompts_get_what_predict_says(server, predicted):
  own = threading.local()

  def one(asked):
    if not hasattr(own, "client"):
      own.client = asking.Client(server.url, conftest.KEY)
    answer = own.client.complete(*asked, max_tokens=8)
    assert answer.status == 200, answer.text
    return answer.json["choices"][0]["text"]

  asked, before = [*predicted], server.service.compilations
  with concurrent.futures.ThreadPoolExecutor(64) as pool:
    found = dict(zip(asked, pool.map(one, asked), strict=True))
  assert found == predicted
  assert len(set(found.values())) > 50
  assert server.service.compilations == before


def test_texts_of_one_request_are_answered_in_their_order(ask, predicted):
  texts = list(asking.TEXTS)
  answer = ask.complete("p3", texts, max_tokens=8).json
  assert [c["text"] for c in answer["choices"]] == [
    predicted["p3", text] for text in texts
  ]
  assert [c["index"] for c in answer["choices"]] == [*range(len(texts))]
  assert answer["object"] == "text_completion" and answer["model"] == "p3"
  usage = answer["usage"]
  assert usage["total_tokens"] == sum(
    usage[f"{kind}_tokens"] for kind in ("prompt", "completion")
  )


def test_the_frozen_model_answers_under_its_own_name(ask):
  text = asking.TEXTS[1]
  short = infer.Decoding(max_length=8)
  said = PromptedModel(toy_tasks.model(), (), short).predict([text])
  (choice,) = ask.complete("toy", text, max_tokens=8).json["choices"]
  assert choice["text"] == said[0]


def test_a_seed_repeats_its_samples_which_are_those_of_decoding(ask):
  settings = {"temperature": 1.5, "top_p": 0.9, "seed": 5, "max_tokens": 6}
  first, second = (
    ask.complete("p1", asking.TEXTS[0], n=3, **settings).json["choices"]
    for _ in range(2)
  )
  texts = [choice["text"] for choice in first]
  assert texts == [choice["text"] for choice in second]
  decoding = infer.Decoding(
    decode.Sample(1.5, top_p=0.9), max_length=6, seed=5, num_decodes=3
  )
  saved = checkpoints.SavedPrompt(asking.values(1), {}, "p1")
  model = PromptedModel(toy_tasks.model(), saved, decoding)
  (answer,) = model.answers(asking.TEXTS[:1])
  assert sorted(texts) == sorted(one.text for one in answer.several)
  assert len(set(texts)) > 1


def test_the_best_of_several_are_those_of_the_likeliest_tokens(ask):
  settings = {"temperature": 2, "seed": 1, "max_tokens": 4, "logprobs": 0}
  several, best = (
    ask.complete("p2", asking.TEXTS[3], **{**settings, **more}).json["choices"]
    for more in ({"n": 8}, {"n": 2, "best_of": 8})
  )

  def mean(choice):
    log_p = choice["logprobs"]["token_logprobs"]
    return sum(log_p) / len(log_p)

  means = sorted(map(mean, several), reverse=True)
  assert [mean(choice) for choice in best] == pytest.approx(means[:2], abs=1e-5)


def test_log_probabilities_add_up_to_the_answers(ask):
  (choice,) = ask.complete(
    "p0", asking.TEXTS[1], logprobs=2, max_tokens=8
  ).json["choices"]
  saved = checkpoints.SavedPrompt(asking.values(0), {}, "p0")
  decoding = infer.Decoding(max_length=8, scores=True)
  (answer,) = PromptedModel(toy_tasks.model(), saved, decoding).answers(
    [asking.TEXTS[1]]
  )
  logprobs = choice["logprobs"]
  assert sum(logprobs["token_logprobs"]) == pytest.approx(
    answer.log_probability, abs=1e-3
  )
  tokens = [t for t in logprobs["tokens"] if t != "</s>"]
  assert "".join(tokens) == choice["text"]
  for token, log_p, top, at in zip(
    *(logprobs["tokens"], logprobs["token_logprobs"]),
    *(logprobs["top_logprobs"], logprobs["text_offset"]),
    strict=True,
  ):
    assert len(top) == 2 and max(top.values()) == pytest.approx(log_p, abs=1e-5)
    assert choice["text"][at:].startswith(token) or token == "</s>"


def longest(predicted) -> tuple[tuple[str, str], str]:
  return max(predicted.items(), key=lambda item: len(item[1].split()))


def test_an_answer_ends_in_front_of_a_stop(ask, predicted):
  asked, said = longest(predicted)
  stop = said[len(said) // 2 :][:3]
  (choice,) = ask.complete(*asked, stop=[stop], max_tokens=8).json["choices"]
  assert choice["text"] == said[: said.find(stop)]
  assert choice["finish_reason"] == "stop"


def test_an_answer_that_is_cut_says_so(ask, predicted):
  asked, said = longest(predicted)
  (choice,) = ask.complete(*asked, max_tokens=2).json["choices"]
  assert choice["finish_reason"] == "length"
  assert said.startswith(choice["text"]) and choice["text"] != said


@pytest.mark.parametrize("more", [{}, {"stop": ["e h", "xyz"]}])
def test_the_parts_of_a_stream_are_the_whole(ask, predicted, more):
  asked, _ = longest(predicted)
  texts = [asked[1], *asking.TEXTS[:2]]
  body = {"max_tokens": 8, "logprobs": 1, **more}
  whole = ask.complete(asked[0], texts, **body).json["choices"]
  streamed = ask.complete(
    asked[0], texts, **body, stream=True, stream_options={"include_usage": True}
  )
  assert streamed.headers["content-type"].startswith("text/event-stream")
  *events, last = streamed.events
  assert last["choices"] == [] and last["usage"]["total_tokens"] > 0
  assert len(events) > len(texts)
  for index, choice in enumerate(whole):
    parts = [
      part
      for event in events
      for part in event["choices"]
      if part["index"] == index
    ]
    assert "".join(part["text"] for part in parts) == choice["text"]
    reasons = [part["finish_reason"] for part in parts]
    assert reasons == [None] * (len(parts) - 1) + [choice["finish_reason"]]
    tokens = [t for part in parts for t in part["logprobs"]["tokens"]]
    assert tokens == choice["logprobs"]["tokens"]


def test_greedy_is_what_a_request_gets_that_says_nothing(ask, predicted):
  for text in asking.TEXTS:
    answer = ask.complete("p7", text).json
    assert answer["choices"][0]["text"] == predicted["p7", text]


@pytest.mark.parametrize(
  "change, status, param, message",
  [
    ({"model": None}, 400, "model", "model is missing"),
    ({"model": "p00"}, 404, "model", "'p00' does not exist. Did you mean p"),
    ({"prompt": None}, 400, "prompt", "prompt is missing"),
    ({"prompt": ""}, 400, "prompt", "A text is empty"),
    ({"prompt": [5, 6]}, 400, "prompt", "prompt must be text, got 5"),
    ({"prompt": []}, 400, "prompt", "from 1 to 300 texts, got 0"),
    ({"prompt": "\ud800"}, 400, "prompt", "half a surrogate pair"),
    ({"prompt": "cat " * 40}, 400, "prompt", "takes 25 at most"),
    ({"max_tokens": 9}, 400, "max_tokens", "from 1 to 8, got 9"),
    ({"max_tokens": True}, 400, "max_tokens", "got True"),
    ({"temperature": 3}, 400, "temperature", "from 0 to 2, got 3"),
    ({"temperature": float("nan")}, 400, "temperature", "got nan"),
    ({"top_p": 0}, 400, "top_p", "got 0"),
    ({"n": 0}, 400, "n", "from 1 to 64"),
    ({"n": 3, "best_of": 2}, 400, "best_of", "from 3 to 64"),
    ({"stream": True, "n": 1, "best_of": 2}, 400, "best_of", "must be n"),
    ({"logprobs": 6}, 400, "logprobs", "from 0 to 5"),
    ({"stop": ["a"] * 5}, 400, "stop", "from 1 to 4 texts"),
    ({"seed": 1 << 70}, 400, "seed", "a number of many digits"),
    ({"seed": "x"}, 400, "seed", "got 'x'"),
    ({"stream": "yes"}, 400, "stream", "true or false"),
    ({"stream_options": 5}, 400, "stream_options", "must be an object"),
    ({"suffix": "x"}, 400, "suffix", "not supported"),
    ({"echo": True}, 400, "echo", "not supported"),
    ({"max_token": 3}, 400, "max_token", "Did you mean max_tokens?"),
    ({"n": 40, "prompt": ["mat"] * 20}, 400, "best_of", "takes 300 at most"),
  ],
)
def test_a_mistake_is_named_in_openais_form(
  ask, change, status, param, message
):
  body = {"model": "p0", "prompt": "mat", "max_tokens": 3, **change}
  answer = ask("/v1/completions", body)
  assert answer.status == status, answer.text
  error = answer.json["error"]
  assert error["param"] == param and message in error["message"]
  assert error["type"] == "invalid_request_error"
  assert answer.headers["retry-after"] is None


def test_a_full_queue_asks_to_come_again(ask, monkeypatch):
  def submit(*_):
    raise engine.Full

  monkeypatch.setattr(engine.Engine, "submit", submit)
  answer = ask("/v1/completions", {"model": "p0", "prompt": "mat"})
  assert answer.status == 429 and answer.headers["retry-after"] is not None
  error = answer.json["error"]
  assert error["type"] == "rate_limit_error"
  assert "Too many requests" in error["message"]


def test_what_openais_client_sends_of_nothing_is_taken(ask):
  nothing = {"echo": False, "suffix": None, "logit_bias": {}, "user": "me"}
  nothing |= {"presence_penalty": 0, "frequency_penalty": 0.0, "stop": None}
  assert ask.complete("p0", "mat", **nothing).status == 200


def test_a_stop_that_is_half_there_waits_in_a_stream():
  from prompt_tuning.serving.web.texts import Text

  vocabulary = tiny_t5.vocabulary()
  ids = vocabulary.encode("the cat sat on the mat")
  text = Text(vocabulary, ["t on the house"])
  parts = [
    text.part(ids[:n], is_last=n == len(ids)) for n in range(1, len(ids) + 1)
  ]
  assert "".join(parts) == vocabulary.decode(ids)
  grown = ["".join(parts[:n]) for n in range(1, len(ids))]
  # What may be the beginning of the stop is not said yet.
  assert any(said.endswith("the cat sa") for said in grown)
  assert not any(said.endswith("sat on t") for said in grown)
