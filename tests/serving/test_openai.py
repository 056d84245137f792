"""The `openai` client, real where it is installed, and its requests as sent."""

import json

import asking
import conftest
import places
import pytest

RECORDED = json.loads((places.GOLDEN / "openai.json").read_text())


@pytest.mark.parametrize(
  "sent", RECORDED, ids=lambda sent: f"{sent['method']} {sent['path']}"
)
def test_what_the_client_sends_is_answered_as_it_expects(server, sent):
  client = asking.Client(server.url)
  headers = {
    name: value.replace("KEY", conftest.KEY)
    for name, value in sent["headers"].items()
  }
  answer = client(sent["path"], sent["body"], method=sent["method"], **headers)
  assert answer.status == 200, answer.text
  if sent["method"] == "GET":
    listed = answer.json.get("data", [answer.json])
    keys = {"id": str, "object": str, "created": int, "owned_by": str}
    for one in listed:
      assert all(isinstance(one[k], kind) for k, kind in keys.items())
    return
  parts = answer.events if sent["body"].get("stream") else [answer.json]
  for part in parts:
    assert part["object"] == "text_completion"
    assert isinstance(part["id"], str) and isinstance(part["created"], int)
    for choice in part["choices"]:
      assert {"index", "text", "logprobs", "finish_reason"} == {*choice}
  assert {*parts[-1]["usage"]} == {
    *("prompt_tokens", "completion_tokens", "total_tokens")
  }


def test_the_real_client_works_unchanged(server):
  openai = pytest.importorskip(
    "openai",
    reason="pip install openai to run it live; golden/openai.json stands in, "
    "what it sent, in test_what_the_client_sends_is_answered_as_it_expects",
  )
  client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=conftest.KEY)
  assert "p0" in {model.id for model in client.models.list()}
  assert client.models.retrieve("p0").owned_by == "prompt-tuning"
  whole = client.completions.create(
    model="p0", prompt="the cat sat", max_tokens=8, logprobs=1
  )
  streamed = client.completions.create(
    model="p0", prompt="the cat sat", max_tokens=8, stream=True
  )
  parts = [part.choices[0].text for part in streamed]
  assert "".join(parts) == whole.choices[0].text
  assert whole.choices[0].logprobs.token_logprobs
  assert whole.usage.total_tokens > 0
  with pytest.raises(openai.NotFoundError, match="does not exist"):
    client.completions.create(model="nobody", prompt="mat")
  with pytest.raises(openai.BadRequestError, match="max_tokens"):
    client.completions.create(model="p0", prompt="mat", max_tokens=99)
  wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong")
  with pytest.raises(openai.AuthenticationError):
    wrong.models.list()
