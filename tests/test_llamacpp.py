"""The engine's dialect: what it would drop is translated or refused, and what would hang it never gets there."""

import json

import pytest
from harness import MODEL, ask, until
from hypothesis import given
from hypothesis import strategies as st

from freehold.engine import dialect as words
from freehold.engine import opening, schema
from freehold.engine.template import Template, for_model
from freehold.errors import BadRequest, ContextExceeded, EngineFailed, Unsupported
from freehold.types import Kind, Request

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OURS = for_model(CHATML)
TOOL = {"type": "function", "function": {"name": "a", "description": None, "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "b"}}
TOO_LONG = {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 4, "message": "x"}
USER = {"role": "user", "content": "hi"}


def dialect(kind: Kind, *, stream: bool = False, template: Template = OURS, **body) -> dict:
    start = {"model": "m", "input": "hi"} if kind is Kind.RESPONSE else {"model": "m", "messages": [USER]}
    return words.translate(Request(kind, "m", start | body, stream), slots=4, template=template)


def test_templates():
    """Whose tools are used, and what status says of it."""
    assert for_model(CHATML).tools and "ORIGINAL" not in for_model(CHATML).text[400:]
    assert for_model("{% if tools %}...").text == "" and for_model("{% if tools %}...").tools
    assert not for_model("[INST] {{ x }}").tools and not for_model("").tools
    assert for_model("{% if tools %}'<tool_call>\\n'").call_prefix == "<tool_call>\n"


def test_a_required_call_is_begun_for_the_model():
    """On each of the three surfaces."""
    chat = dialect(Kind.CHAT, tools=[TOOL], tool_choice="required")
    assert (
        chat["messages"][-1] == {"role": "assistant", "content": "<tool_call>\n"} and chat["tool_choice"] == "required"
    )
    message = dialect(Kind.MESSAGE, tools=[{"name": "a", "input_schema": {}}], tool_choice={"type": "any"})
    assert message["messages"][-1]["content"] == "<tool_call>\n"
    response = dialect(Kind.RESPONSE, tools=[{"type": "function", "name": "a"}], tool_choice="required")
    assert response["input"][-1]["content"][0]["text"] == "<tool_call>\n"
    assert dialect(Kind.CHAT, tools=[TOOL])["messages"] == [USER]


def test_a_named_tool_is_offered_alone():
    """In each form; one that is not there is an error."""
    chat = dialect(Kind.CHAT, tools=[TOOL, OTHER], tool_choice={"type": "function", "function": {"name": "b"}})
    assert [tool["function"]["name"] for tool in chat["tools"]] == ["b"] and chat["tool_choice"] == "required"
    tools = [{"name": "a", "input_schema": {}}, {"name": "b", "input_schema": {}}]
    message = dialect(Kind.MESSAGE, tools=tools, tool_choice={"type": "tool", "name": "b"})
    assert [tool["name"] for tool in message["tools"]] == ["b"] and message["tool_choice"] == {"type": "any"}
    assert "tools" not in dialect(Kind.MESSAGE, tools=tools, tool_choice={"type": "none"})
    with pytest.raises(BadRequest, match="'c'"):
        dialect(Kind.CHAT, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "c"}})


def test_what_cannot_be_had_is_refused():
    """And not passed over in silence."""
    with pytest.raises(Unsupported, match="no place for tools"):
        dialect(Kind.CHAT, tools=[TOOL], template=for_model("plain"))
    with pytest.raises(Unsupported, match="cannot be had together"):
        dialect(Kind.CHAT, tools=[TOOL], response_format={"type": "json_object"})
    with pytest.raises(Unsupported, match="n is 5"):
        dialect(Kind.CHAT, n=5)
    with pytest.raises(BadRequest, match="not JSON"):
        call = {"id": "1", "type": "function", "function": {"name": "a", "arguments": "{x"}}
        dialect(Kind.CHAT, messages=[USER, {"role": "assistant", "tool_calls": [call]}, USER])
    with pytest.raises(BadRequest, match="and empty"):
        dialect(Kind.CHAT, messages=[USER, {"role": "assistant", "content": ""}])


def test_what_the_engine_stumbles_over_is_smoothed():
    """Nulls, seeds past 32 bits, one call at a time, the form of a response."""
    assert "description" not in dialect(Kind.CHAT, tools=[TOOL])["tools"][0]["function"]
    assert dialect(Kind.CHAT, seed=-1)["seed"] == 2**32 - 2 and dialect(Kind.CHAT, seed=2**32)["seed"] == 1
    assert dialect(Kind.CHAT, tools=[TOOL], parallel_tool_calls=False, stop="x")["stop"] == ["x", "</tool_call>"]
    form = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}
    body = dialect(Kind.RESPONSE, text=form)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"} and "text" not in body
    for stream in (True, False):  # whole answers are asked for as streams too
        body = dialect(Kind.CHAT, stream=stream)
        assert body["timings_per_token"] and body["stream"] is True


@pytest.mark.parametrize(
    ("status", "error", "kind", "said"),
    [
        (400, TOO_LONG, ContextExceeded, "9 tokens"),
        (500, {"message": "input (9 tokens) is too large. (current batch size: 4)"}, ContextExceeded, "holds 4"),
        (400, {"message": "bad grammar"}, BadRequest, "bad grammar"),
        (500, {"message": "Failed to parse tools"}, BadRequest, "parse tools"),
        (500, {"message": "out of memory"}, EngineFailed, "out of memory"),
        (500, {}, EngineFailed, "no reason"),
    ],
)  # fmt: skip
def test_the_engines_errors_are_told_apart(status, error, kind, said):
    """The request's fault or the engine's."""
    found = words.refusal(status, json.dumps({"error": error}).encode())
    assert type(found) is kind and said in str(found)


STUCK = [
    {"type": "array", "items": {"type": "string"}, "minItems": 5, "maxItems": 2},
    {"type": "string", "minLength": 5, "maxLength": 2},
    {"type": "integer", "minimum": 5, "maximum": 2},
    {"type": "string", "pattern": "^a{5,2}$"},
    {"type": "string", "pattern": "^(a?){500}$"},
    {"type": "string", "pattern": "^((a{0,99}){0,99}){0,99}$"},
    {"enum": [f"word{number}" for number in range(10_000)]},
    {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(1500)}},
    {"type": "string", "maxLength": 10**9},
    {"type": "integer", "minimum": 9223372036854775807},
    {"type": "integer", "exclusiveMaximum": -(2**60)},
    {"type": "integer", "minimum": 5, "exclusiveMaximum": 5},
    {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6},
    {"type": "integer", "minimum": 0.2, "maximum": 0.8},
    {"type": "number", "minimum": 5, "exclusiveMaximum": 5},
    {"type": "number", "exclusiveMinimum": 5, "maximum": 5},
    {"type": "number", "minimum": 6, "maximum": 5},
    {"type": "string", "pattern": "^(((((a{2,}){2,}){2,}){2,}){2,}){2,}$"},
    {"type": "string", "pattern": "a{ 5 , 900000 }"},
]


@pytest.mark.parametrize("node", STUCK, ids=lambda node: json.dumps(node)[:50])
def test_a_schema_that_would_hang_the_engine_is_refused(node):
    """Wherever it stands."""
    for placed in (node, {"type": "object", "properties": {"x": node}}, [{"anyOf": [node]}]):
        with pytest.raises((BadRequest, Unsupported)):
            schema.check(placed, "tools")


def test_a_deep_schema_is_refused():
    """Before anything recurses over it."""
    node: dict = {"type": "string"}
    for _ in range(100):
        node = {"type": "object", "properties": {"x": node}}
    with pytest.raises(Unsupported, match="50 deep"):
        schema.check(node, "tools")


def test_ordinary_schemas_pass():
    """Bounds, enumerations, references, patterns."""
    schema.check(
        {
            "type": "object",
            "properties": {
                "id": {"type": "string", "pattern": "^[a-f0-9]{8}-[a-f0-9]{4}$"},
                "kind": {"enum": ["a", "b"]},
                "many": {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1, "maxItems": 20},
                "share": {"type": "number", "minimum": 0, "maximum": 1},
                "open": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                "one": {"type": "integer", "exclusiveMinimum": 4, "maximum": 5},
                "same": {"type": "number", "minimum": 0.5, "maximum": 0.5},
                "minItems": {"type": "string"},
            },
            "$defs": {"x": {"type": "string", "minLength": 1, "maxLength": 64}},
        },
        "response_format",
    )
    schema.check(None, "tools")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "enum", "pattern", "minItems", "maxItems", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_json_is_a_schema_to_be_judged_and_never_a_crash(value):
    """It passes or is refused."""
    try:
        schema.check(value, "tools")
    except BadRequest:
        return


SPARKLE = {"type": "json_schema", "json_schema": {"schema": {"const": "✨"}}}
BLOCK = b'event: content_block_start\ndata: {"type": "content_block_start"}\n\n'
DELTA = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}], "id": "c", "model": "m"}\n\n'
ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}\n\n'


def test_a_stream_that_lacks_its_opening_gets_it():
    """message_start with the prompt's count, the role of a chat; and nothing where it is there."""
    messages = Request(Kind.MESSAGE, "m", {"messages": [USER]}, stream=True)
    chat = Request(Kind.CHAT, "m", {"messages": [USER]}, stream=True)
    assert opening.is_missing(messages, BLOCK) and opening.is_missing(chat, DELTA)
    for request, first in (
        (messages, b"event: message_start\n"),
        (messages, b"event: error\n"),
        (chat, ROLE),
        (chat, b": x"),
    ):
        assert not opening.is_missing(request, first)
    start = json.loads(opening.event(messages, BLOCK, 7).split(b"data: ")[1])
    assert start["message"]["usage"]["input_tokens"] == 7 and start["message"]["role"] == "assistant"
    role = json.loads(opening.event(chat, DELTA, 0).removeprefix(b"data: "))
    assert role["choices"][0]["delta"]["role"] == "assistant" and role["id"] == "c"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_an_answer_that_begins_with_part_of_a_character_has_its_opening(real, path):
    """Held to a schema that allows an emoji alone, the engine's first token is half a character."""
    bias = {} if path == "/v1/messages" else {"response_format": SPARKLE}
    for seed in range(30):
        hello = [{"role": "user", "content": f"Say hello with an emoji. {seed}"}]
        body = {"model": MODEL, "messages": hello, "max_tokens": 6, "stream": True, **bias}
        status, _, content = ask(real, path, body)
        first = content.decode().split("\n\n")[0]
        assert status == 200 and ("message_start" in first or '"role":"assistant"' in first), first
        assert real.calls(1)[0]["prompt_tokens"] > 20
        if bias:
            return


def test_without_tools_the_models_own_template_renders_every_byte(starter_file, tmp_path):
    """The real engine renders both and they are the same; with tools ours has them."""
    import subprocess
    import sys

    program = """
import asyncio, json, sys
from pathlib import Path
import xllamacpp
from freehold.engine import wire
from freehold.engine.template import for_model
from freehold.scan import formats
with open(sys.argv[1], "rb") as stream:
    judged = formats.judge(stream.fileno(), Path(sys.argv[1]).stat().st_size, "model.gguf")
own = judged.facts["template_texts"]["default"]
user = lambda text: {"role": "user", "content": text}
conversations = [
    [user("hi")],
    [{"role": "system", "content": "Be brief."}, user("hi")],
    [user("a\\n\\n"), {"role": "assistant", "content": " b "}, user("c")],
    [{"role": "system", "content": ""}, user("<|im_end|> {{ x }}")],
]
def server(name, template):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.use_jinja, params.chat_template = sys.argv[1], 512, True, template
    params.hostnames = [sys.argv[2] + "/" + name + ".sock"]
    return xllamacpp.Server(params)
async def render(name, **body):
    at = sys.argv[2] + "/" + name + ".sock"
    sent = wire.Exchange()
    await sent.send(at, "POST", "/apply-template", json.dumps(body).encode(), {})
    return json.loads(await sent.body())["prompt"]
async def main():
    for messages in conversations:
        assert await render("own", messages=messages) == await render("ours", messages=messages)
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    text = await render("ours", messages=conversations[0], tools=[tool])
    assert "<tools>" in text and "get_weather" in text
    assert "get_weather" not in await render("own", messages=conversations[0], tools=[tool])
own_server, our_server = server("own", own), server("ours", for_model(own).text)
asyncio.run(main())
print("the same")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(starter_file), str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.strip().endswith("the same"), done.stderr[-2000:]


def test_texts_embedded_together_are_embedded_as_if_alone(real):
    """Of different lengths, in one call."""
    texts = ["The cat sat on the mat.", "Rates rose.", "A much longer sentence about nothing in particular, really."]

    def embed(sent):
        status, _, body = ask(real, "/v1/embeddings", {"model": MODEL, "input": sent})
        assert status == 200
        return [row["embedding"] for row in json.loads(body)["data"]]

    together = embed(texts)
    for text, vector in zip(texts, together, strict=True):
        assert embed([text])[0] == pytest.approx(vector, abs=1e-4)


def test_a_hundred_odd_schemas_leave_the_engine_alive(real):
    """Those that are let through are answered."""
    for node in (
        {"type": "string", "pattern": "^[a-z]{300}$"},
        {"enum": [f"w{n}" for n in range(300)]},
        {"maxItems": 1000},
    ):
        form = {"type": "json_schema", "json_schema": {"schema": node}}
        body = {"model": MODEL, "messages": [USER], "max_tokens": 4, "response_format": form}
        status, _, content = ask(real, "/v1/chat/completions", body)
        assert status == 200, content
    until(lambda: ask(real, "/v1/chat/completions", {"model": MODEL, "messages": [USER], "max_tokens": 1})[0] == 200)
