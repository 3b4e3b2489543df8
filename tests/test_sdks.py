"""The two SDKs that applications already use, against the real engine and the real starter model."""

import base64
import json
import struct

import anthropic
import openai
import pytest
from harness import MODEL

HELLO = [{"role": "user", "content": "Say hello."}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]},
}
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
COLD = {"temperature": 0}  # this SDK has no argument for it any more
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
ASK_PERSON = [{"role": "user", "content": "Bob is 31 years old. Give his name and age as JSON."}]


@pytest.fixture(scope="module")
def client(real):
    with openai.OpenAI(base_url=real.base + "/v1", api_key=real.key, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def claude(real):
    with anthropic.Anthropic(base_url=real.base, api_key=real.key, max_retries=0) as made:
        yield made


# OpenAI


def test_chat(client, real):
    """An answer with its usage, and the same usage in the ledger."""
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=8)
    call = real.calls(1)[0]
    assert answer.model == MODEL and answer.choices[0].message.content
    assert (call["prompt_tokens"], call["completion_tokens"]) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
    assert call["cached_tokens"] == answer.usage.prompt_tokens_details.cached_tokens and call["outcome"] == "answered"


def test_chat_streamed(client, real):
    """Deltas, a finish reason, and usage at the end for those who ask."""
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    call = real.calls(1)[0]
    assert text and chunks[-1].usage.completion_tokens == call["completion_tokens"] <= 8
    assert call["first_token_ms"] > 0 and call["prompt_tokens"] == chunks[-1].usage.prompt_tokens


def test_chat_streamed_without_usage_is_counted_all_the_same(client, real):
    """And no chunk without choices surprises those who did not ask."""
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=5, stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert real.calls(1)[0]["completion_tokens"] == 5 and real.calls(1)[0]["prompt_tokens"] > 20


def test_a_stream_left_early_is_settled_with_the_engines_count(client, real):
    """As abandoned."""
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2000, stream=True, seed=1)
    for _, _chunk in zip(range(6), stream, strict=False):
        pass
    stream.close()
    from harness import until

    call = until(lambda: (found := real.calls(1)[0])["outcome"] and found)
    if call["outcome"] == "abandoned":  # a very short answer may have been complete
        assert 4 <= call["completion_tokens"] < 500 and call["prompt_tokens"] > 20


def test_a_tool_that_must_be_called_is_called(client):
    """With arguments that fit its schema."""
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK_WEATHER, tools=[{"type": "function", "function": WEATHER}],
        tool_choice="required", max_tokens=60, temperature=0, parallel_tool_calls=False,
    )  # fmt: skip
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls" and call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)


def test_a_named_tool_is_the_one_called(client):
    """Of several."""
    other = {"name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK_WEATHER, max_tokens=60, temperature=0,
        tools=[{"type": "function", "function": WEATHER}, {"type": "function", "function": other}],
        tool_choice={"type": "function", "function": {"name": "get_time"}},
    )  # fmt: skip
    assert answer.choices[0].message.tool_calls[0].function.name == "get_time"


def test_a_tool_call_streamed(client):
    """Its name and arguments come in pieces."""
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK_WEATHER, tools=[{"type": "function", "function": WEATHER}],
        tool_choice="required", max_tokens=60, temperature=0, stream=True, parallel_tool_calls=False,
    )  # fmt: skip
    pieces = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
    assert next(piece.function.name for piece in pieces if piece.function.name) == "get_weather"
    assert "city" in json.loads("".join(piece.function.arguments or "" for piece in pieces))


def test_the_result_of_a_tool_goes_back_in(client):
    """A conversation with a call and its result is read."""
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = [
        *ASK_WEATHER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees, sunny"},
    ]
    tools = [{"type": "function", "function": WEATHER}]
    with_result = client.chat.completions.create(model=MODEL, messages=messages, tools=tools, max_tokens=10)
    without = client.chat.completions.create(model=MODEL, messages=ASK_WEATHER, tools=tools, max_tokens=10)
    assert with_result.usage.prompt_tokens > without.usage.prompt_tokens + 10


def test_an_answer_held_to_a_schema_fits_it(client):
    """response_format with json_schema."""
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK_PERSON, response_format=form, max_tokens=80, temperature=0
    )
    found = json.loads(answer.choices[0].message.content)
    assert set(found) == {"name", "age"} and isinstance(found["age"], int)


def test_logprobs_seed_stop_and_n(client, real):
    """Each does what it says."""
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2, temperature=0
    )
    assert len(answer.choices[0].logprobs.content) == 3 and len(answer.choices[0].logprobs.content[0].top_logprobs) == 2
    seeded = [
        client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=12, seed=-7, temperature=1.0)
        .choices[0].message.content for _ in range(3)
    ]  # fmt: skip
    assert seeded[1] == seeded[2]  # the first may have met another state of the prompt cache
    stopped = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=60, stop=["e"]).choices[0]
    assert "e" not in stopped.message.content and stopped.finish_reason == "stop"
    two = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=6, n=2, stop=["zzz"])
    assert len(two.choices) == 2 and all(choice.logprobs is None for choice in two.choices)
    assert real.calls(1)[0]["completion_tokens"] == two.usage.completion_tokens > 6
    list(client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=6, n=2, stream=True))
    assert 6 < real.calls(1)[0]["completion_tokens"] <= 12


def test_completions(client, real):
    """Plain and streamed, text and tokens."""
    answer = client.completions.create(model=MODEL, prompt="Once upon a", max_tokens=4)
    assert answer.choices[0].text and answer.usage.completion_tokens == 4
    assert client.completions.create(model=MODEL, prompt=[504, 6376], max_tokens=2).usage.prompt_tokens == 2
    chunks = list(client.completions.create(model=MODEL, prompt="Once upon a", max_tokens=4, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks)
    assert (real.calls(1)[0]["kind"], real.calls(1)[0]["completion_tokens"]) == ("completions", 4)


def test_embeddings(client, real):
    """Vectors of length one, the same in both encodings; text that means the same lies closer."""
    texts = ["The cat sat on the mat.", "A cat is sitting on a mat.", "Interest rates rose sharply."]
    answer = client.embeddings.create(model=MODEL, input=texts)
    cat, cats, rates = (row.embedding for row in answer.data)
    assert abs(sum(value * value for value in cat) - 1) < 1e-3 and len(cat) == 576
    assert sum(map(float.__mul__, cat, cats)) > sum(map(float.__mul__, cat, rates))
    assert real.calls(1)[0]["prompt_tokens"] == answer.usage.prompt_tokens > 10
    raw = client.embeddings.create(model=MODEL, input=texts[0], encoding_format="base64").data[0].embedding
    assert struct.unpack("<576f", base64.b64decode(raw)) == pytest.approx(cat, abs=1e-3)


def test_responses(client, real):
    """Plain, streamed, with instructions, with a tool and with a schema."""
    answer = client.responses.create(model=MODEL, input="Say hello.", instructions="Be brief.", max_output_tokens=8)
    assert answer.output_text and real.calls(1)[0]["completion_tokens"] == answer.usage.output_tokens
    events = list(client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text and events[-1].type == "response.completed" and events[-1].response.output_text == text
    assert real.calls(1)[0]["completion_tokens"] == events[-1].response.usage.output_tokens
    tool = {"type": "function", **WEATHER}
    called = client.responses.create(
        model=MODEL, input="What is the weather in Paris?", tools=[tool], tool_choice="required", max_output_tokens=60,
        temperature=0, parallel_tool_calls=False,
    )  # fmt: skip
    assert [item.name for item in called.output if item.type == "function_call"] == ["get_weather"]
    form = {"format": {"type": "json_schema", "name": "person", "schema": PERSON}}
    held = client.responses.create(model=MODEL, input=ASK_PERSON, text=form, max_output_tokens=80, temperature=0)
    assert set(json.loads(held.output_text)) == {"name", "age"}


def test_models(client, claude):
    """Listed for both SDKs, each in its own form."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "you"
    assert [model.id for model in claude.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


def test_openai_errors(client, real):
    """Each status is the SDK's own exception, with a sentence and a request id."""
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-9'") as caught:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert caught.value.code == "model_not_found" and caught.value.request_id.startswith("req_")
    with pytest.raises(openai.BadRequestError, match=r"has \d+ tokens and the context holds 4096") as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 5000}])
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match=r"has \d+ tokens and the context holds"):
        client.embeddings.create(model=MODEL, input="word " * 5000)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model=MODEL, messages=HELLO, temperature=7)
    with pytest.raises(openai.BadRequestError, match="image_url"):
        image = {"type": "image_url", "image_url": {"url": "https://example.invalid/x.png"}}
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [image]}])
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model=MODEL, input="hi", previous_response_id="resp_1")
    with (
        openai.OpenAI(base_url=real.base + "/v1", api_key="fh_wrong") as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


# Anthropic


def test_messages(claude, real):
    """An answer with its usage, and the same usage in the ledger; the cached part is in the prompt."""
    answer = claude.messages.create(model=MODEL, max_tokens=8, system="Be brief.", messages=HELLO, extra_body=COLD)
    call = real.calls(1)[0]
    assert answer.content[0].text and answer.model == MODEL
    assert call["completion_tokens"] == answer.usage.output_tokens
    assert call["prompt_tokens"] == answer.usage.input_tokens + answer.usage.cache_read_input_tokens


def test_messages_streamed(claude, real):
    """With the SDK's own helper, which puts the pieces together."""
    with claude.messages.stream(model=MODEL, max_tokens=8, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        whole = stream.get_final_message()
    call = real.calls(1)[0]
    assert text == whole.content[0].text and whole.usage.output_tokens == call["completion_tokens"]
    assert call["first_token_ms"] > 0 and call["prompt_tokens"] > 20


def test_messages_with_a_tool(claude):
    """Called when it must be, streamed too; its result goes back in."""
    tool = {"name": "get_weather", "description": "The weather in a city", "input_schema": WEATHER["parameters"]}
    answer = claude.messages.create(
        model=MODEL, max_tokens=60, messages=ASK_WEATHER, tools=[tool], tool_choice={"type": "any"}, extra_body=COLD
    )
    use = next(block for block in answer.content if block.type == "tool_use")
    assert answer.stop_reason in ("tool_use", "max_tokens")  # a small model may go on to call again
    assert use.name == "get_weather" and "city" in use.input
    named = {"type": "tool", "name": "get_weather"}
    with claude.messages.stream(
        model=MODEL, max_tokens=60, messages=ASK_WEATHER, tools=[tool], tool_choice=named, extra_body=COLD
    ) as stream:
        assert next(block for block in stream.get_final_message().content if block.type == "tool_use").input
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "18 degrees"}
    follow_up = [*ASK_WEATHER, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert claude.messages.create(model=MODEL, max_tokens=8, messages=follow_up, tools=[tool]).content


def test_count_tokens(claude):
    """What is counted is what a call then uses."""
    counted = claude.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens
    used = claude.messages.create(model=MODEL, max_tokens=1, messages=HELLO).usage
    assert counted == used.input_tokens + used.cache_read_input_tokens


def test_stop_sequences(claude):
    """The one that stopped it is named."""
    answer = claude.messages.create(model=MODEL, max_tokens=40, messages=HELLO, stop_sequences=["e"], extra_body=COLD)
    assert "e" not in answer.content[0].text and answer.stop_sequence == "e"


def test_anthropic_errors(claude, real):
    """Each status is the SDK's own exception."""
    with pytest.raises(anthropic.NotFoundError, match="no model"):
        claude.messages.create(model="claude-9", max_tokens=4, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match=r"has \d+ tokens and the context holds 4096"):
        claude.messages.create(model=MODEL, max_tokens=4, messages=[{"role": "user", "content": "word " * 5000}])
    with pytest.raises(anthropic.BadRequestError, match="schema"):
        claude.messages.create(
            model=MODEL, max_tokens=4, messages=HELLO,
            extra_body={"output_config": {"format": {"type": "json_schema", "schema": PERSON}}},
        )  # fmt: skip
    with pytest.raises(anthropic.BadRequestError, match="thinking"):
        claude.messages.create(
            model=MODEL, max_tokens=2000, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 1024}
        )
    with (
        anthropic.Anthropic(base_url=real.base, api_key="fh_wrong") as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model=MODEL, max_tokens=4, messages=HELLO)


def test_several_calls_at_once_do_not_mix(client):
    """Eight different prompts over four slots, each with the answer it has alone."""
    import concurrent.futures

    def one(word: str) -> str:
        messages = [{"role": "user", "content": f"Repeat this word: {word}"}]
        return client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=10, temperature=0
        ).model_dump_json(include={"usage": {"prompt_tokens"}})

    words = [f"word{number}" * (number + 1) for number in range(8)]
    alone = [one(word) for word in words]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, words)) == alone
