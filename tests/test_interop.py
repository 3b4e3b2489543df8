"""Logs of Inspect AI and result files of promptfoo: what they hold comes in, what a candidate did goes out."""

import copy
import io
import json
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.errors import BadTraffic
from freehold.traffic import inspectlog, promptfoo, stream
from freehold.traffic.exchange import Row
from freehold.types import Answer, Candidate, Replayed, Sample, Score, Task, ToolCall, Unusable
from freehold.types.calls import Kind, Usage

# The shapes below are those that inspect_ai 0.3.285 and promptfoo 0.121.9 wrote, with what does not matter left out.
ADD = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


def inspect_sample(**more) -> dict:
    said = {
        "id": "m3",
        "content": "Default output",
        "source": "generate",
        "role": "assistant",
        "model": "mockllm/model",
    }
    sample = {
        "id": "a", "epoch": 1, "input": "Say hello", "target": "Default output",
        "messages": [
            {"id": "m1", "content": "be nice", "role": "system"},
            {"id": "m2", "content": "Say hello", "source": "input", "role": "user"},
            said,
        ],
        "output": {
            "model": "mockllm/model", "choices": [{"message": said, "stop_reason": "stop"}],
            "completion": "Default output",
            "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}, "time": 0.0001,
        },
        "scores": {"match": {"value": "C", "answer": "Default output", "explanation": "", "history": []}},
        "metadata": {"customer": {"name": "c7"}}, "store": {},
        "events": [
            {"event": "sample_init"},
            {
                "event": "model", "model": "mockllm/model", "input": [], "input_refs": [[0, 2]], "tools": [],
                "tool_choice": "none", "config": {"temperature": 0.5, "seed": 3, "stop_seqs": ["###"]},
                "output": {"choices": [{"message": said}]},
            },
            {"event": "model", "config": {"temperature": 1.0}, "output": {"choices": [{"message": {"id": "judge"}}]}},
        ],
        "started_at": "2026-11-24T03:14:23.995120+00:00", "completed_at": "2026-11-24T03:14:24.019857+00:00",
        "attachments": {},
    }  # fmt: skip
    return copy.deepcopy(sample) | more


HEADER = {
    "version": 2,
    "status": "success",
    "eval": {
        "created": "2026-11-24T03:14:22+00:00",
        "task": "task",
        "dataset": {},
        "model": "mockllm/model",
        "config": {},
    },
    "plan": {"name": "plan", "steps": [], "config": {"max_tokens": 99}},
    "results": {"total_samples": 1},
}


def said(**more) -> dict:
    """A sample's output with another message."""
    message = {"id": "m3", "content": "x", "role": "assistant"} | more
    return {"model": "mockllm/model", "choices": [{"message": message, "stop_reason": "stop"}]}


def promptfoo_result(**more) -> dict:
    result = {
        "cost": 0, "id": "b1d03907-f260-4edb-af8b-306a19dfb71c", "latencyMs": 5, "namedScores": {},
        "error": "Expected output to equal",
        "gradingResult": {
            "pass": False, "score": 0.5, "reason": "", "componentResults": [
                {
                    "pass": False, "score": 0, "assertion": {"type": "equals", "value": "Translate {{word}}"},
                    "metadata": {"renderedAssertionValue": "Translate hello"},
                },
                {"pass": True, "score": 1, "assertion": {"type": "contains", "value": "hello"}},
            ],
        },
        "prompt": {
            "raw": '[{"role":"system","content":"Be terse."},{"role":"user","content":"Translate hello"}]',
            "label": "Translate {{word}}", "config": {"temperature": 0.2, "prefix": ""},
        },
        "promptId": "3def9f", "promptIdx": 1, "testIdx": 0,
        "provider": {"id": "openai:gpt-4o", "label": ""},
        "response": {"output": "Hallo", "tokenUsage": {"total": 3, "prompt": 2, "completion": 1}, "metadata": {}},
        "score": 0.5, "success": False,
        "testCase": {
            "vars": {"word": "hello"}, "metadata": {"customer": "c1"}, "options": {},
            "assert": [
                {"type": "equals", "value": "Translate {{word}}"}, {"type": "contains", "value": "hello"},
            ],
        },
        "vars": {"word": "hello"}, "metadata": {}, "failureReason": 1,
    }  # fmt: skip
    return copy.deepcopy(result) | more


def log(tmp_path, *samples, **header):
    path = tmp_path / "log.json"
    path.write_text(json.dumps(HEADER | header | {"samples": list(samples)}))
    return path


def zipped(tmp_path, *samples, method=zipfile.ZIP_DEFLATED, header="header.json", name="log.eval"):
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("_journal/summaries/1.json", "[]")
        for number, sample in enumerate(samples):
            raw = sample if isinstance(sample, bytes) else json.dumps(sample).encode()
            archive.writestr(f"samples/{number}_epoch_1.json", raw)
        archive.writestr(header, json.dumps(HEADER))
    return path


def results(tmp_path, *found, version=3, providers=("openai:gpt-4o",), **more):
    prompts = [{"raw": "Translate {{word}}", "label": "x", "id": "3def9f", "provider": name} for name in providers]
    inner = {"version": version, "timestamp": "2026-11-24T03:20:40.825Z", "prompts": prompts, "results": list(found)}
    path = tmp_path / "out.json"
    path.write_text(json.dumps({"evalId": "eval-SNa", "results": inner | {"stats": {}}, "config": {}} | more))
    return path


def reason(found) -> str:
    [one] = found
    assert isinstance(one, Unusable), one
    return one.reason


def test_an_inspect_sample_is_the_last_call_of_the_model(tmp_path):
    """Its request is what stood before the answer, with the settings of that call and not of a judge's."""
    [sample] = inspectlog.read(log(tmp_path, inspect_sample()), group="metadata.customer.name")
    assert sample == Sample(
        id="a",
        request={
            "messages": [{"role": "system", "content": "be nice"}, {"role": "user", "content": "Say hello"}],
            "temperature": 0.5, "max_tokens": 99, "seed": 3, "stop": ["###"],
        },
        answer=Answer("Default output"), expected=Answer("Default output"), group="c7", at=1795490063.99512,
        incumbent="mockllm/model",
    )  # fmt: skip


def test_the_zipped_log_says_the_same(tmp_path):
    """The .eval format gives what the JSON format gives, also of a log that was never finished."""
    [sample] = inspectlog.read(log(tmp_path, inspect_sample()))
    for header in ("header.json", "_journal/start.json"):
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            assert list(inspectlog.read(zipped(tmp_path, inspect_sample(), header=header, method=method))) == [sample]


def test_epochs_share_a_group(tmp_path):
    """The same sample run twice is two calls of one group, so that no split parts them."""
    first, second = inspectlog.read(log(tmp_path, inspect_sample(), inspect_sample(epoch=2)))
    assert (first.id, second.id) == ("a", "a#2")
    assert first.group == second.group == "a"


def test_a_conversation_with_tools_keeps_them(tmp_path):
    """Calls, results and definitions arrive as the API has them; reasoning does not; attachments are put back."""
    call = {"id": "c1", "function": "add", "arguments": {"x": 1}, "type": "function"}
    final = {
        "id": "m9",
        "role": "assistant",
        "content": [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "attachment://37b6"}],
    }
    tool = {"name": "add", "description": "Add.", "parameters": ADD}
    event = {
        "event": "model",
        "tools": [tool],
        "tool_choice": "any",
        "config": {},
        "output": {"choices": [{"message": final}]},
    }
    sample = inspect_sample(
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"id": "m2", "role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "", "tool_call_id": "c1", "error": {"type": "x", "message": "no"}},
            final,
        ],
        output={"choices": [{"message": final}]}, events=[event], attachments={"37b6": "three"},
    )  # fmt: skip
    [found] = inspectlog.read(log(tmp_path, sample))
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    asked = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}}
    assert found.answer == Answer("three")
    assert found.request["messages"] == [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "", "tool_calls": [asked]},
        {"role": "tool", "content": "no", "tool_call_id": "c1"},
    ]
    assert found.request["tools"] == [{"type": "function", "function": tool}]
    assert found.request["tool_choice"] == "required"


def test_without_a_conversation_the_input_is_the_request(tmp_path):
    """A log that kept no messages still says what was asked."""
    [text] = inspectlog.read(log(tmp_path, inspect_sample(messages=[])))
    [chat] = inspectlog.read(log(tmp_path, inspect_sample(messages=[], input=[{"role": "user", "content": "Hi"}])))
    assert text.request["messages"] == [{"role": "user", "content": "Say hello"}]
    assert chat.request["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("changed", "said_so"),
    [
        ({"error": {"message": "It broke", "traceback": ""}}, "ended in an error: 'It broke'"),
        ({"limit": {"type": "token", "limit": 5}}, "limit of 'token'"),
        ({"output": {"choices": [{"message": {}}] * 2}}, "2 answers"),
        ({"output": {"choices": []}}, "0 answers"),
        ({"output": None}, "0 answers"),
        ({"output": said(content="")}, "answer is empty"),
        ({"output": said(content=[{"type": "image", "image": "data:"}])}, "type 'image'"),
        ({"output": said(content="attachment://gone")}, "attachment"),
        ({"output": said(content=5)}, "list is due"),
        ({"output": said(id="x", tool_calls=[{"function": "f", "arguments": {}}])}, "definitions"),
        ({"output": said(tool_calls=[{"function": "f", "parse_error": "?"}])}, "could not be read"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "data:"}]}]}, "type 'image'"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "role 'wizard'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "No message stands before"),
        ({"messages": "x"}, "no list"),
        ({"target": ["4", "four"]}, "2 right answers"),
        ({"target": 5}, "no text"),
        ({"id": None}, "no id"),
        ({"target": "\ud800"}, "surrogate"),
        ({"metadata": {"freehold": {"id": 5}}}, "not as Freehold writes it"),
        ({"messages": [], "input": {"a": 1}}, "list is due"),
    ],
)
def test_an_inspect_sample_that_cannot_be_used_says_why(tmp_path, changed, said_so):
    """And the good one after it is read all the same, in both formats."""
    for path in (
        log(tmp_path, inspect_sample(**changed), inspect_sample()),
        zipped(tmp_path, inspect_sample(**changed), inspect_sample()),
    ):
        bad, good = inspectlog.read(path)
        assert bad.line == 1 and said_so in bad.reason
        assert isinstance(good, Sample)


def test_nan_among_scores_costs_nothing(tmp_path):
    """Inspect AI writes NaN where it could not score; the call is as good as any. NaN in the request is not."""
    [sample] = inspectlog.read(log(tmp_path, inspect_sample(scores={"match": {"value": float("nan")}})))
    assert isinstance(sample, Sample)
    events = [{"event": "model", "config": {"temperature": float("nan")}, "output": said()}]
    assert "NaN" in reason(inspectlog.read(log(tmp_path, inspect_sample(events=events))))


def test_what_stands_where_does_not_matter(tmp_path):
    """A document whose members were sorted, so that its version comes last, is read like any other."""
    path = tmp_path / "sorted.json"
    path.write_text("\ufeff" + json.dumps(HEADER | {"samples": [inspect_sample()]}, sort_keys=True, indent=3))
    assert isinstance(next(inspectlog.read(path)), Sample)


@pytest.mark.parametrize(
    "raw",
    [b"", b"nothing", b"[]", b"{", b'{"version": 2', b'{"version": 2}', b'{"version": 1, "eval": {}}', b"\xff\xfe{\x00",
     b'{"version": 3, "eval": {}, "samples": []}', b'{"version": 2, "eval": 5}', b'{"version": NaN, "eval": {}}',
     b'{"eval": {}, "samples": []}', b"PK\3\4", b"PK\5\6" + bytes(18), b'{"version" 2}', b'{"version": 2} x',
     b'{5: 2}', b'{"a": }', b"\xef\xbb"],
)  # fmt: skip
def test_what_is_no_log_is_said_to_be_none(tmp_path, raw):
    """In a sentence, before the first sample; in either reader."""
    path = tmp_path / "x"
    path.write_bytes(raw)
    for read in (inspectlog.read, promptfoo.read):
        with pytest.raises(BadTraffic) as error:
            list(read(path))
        assert error.value.message.endswith(".")
    with pytest.raises(BadTraffic):
        list(inspectlog.read(tmp_path / "missing"))


def test_a_log_cut_off_anywhere_is_told(tmp_path):
    """A part of a log is an error, whichever part; what was whole comes first."""
    whole = log(tmp_path, inspect_sample(), inspect_sample(id="b")).read_bytes()
    eval_ = zipped(tmp_path, inspect_sample(), inspect_sample(id="b")).read_bytes()
    for raw in (whole, eval_):
        for cut in range(0, len(raw) - 1, 97):
            path = tmp_path / "cut"
            path.write_bytes(raw[:cut])
            with pytest.raises(BadTraffic):
                list(inspectlog.read(path))


def test_a_damaged_member_is_one_sample_lost_and_said(tmp_path):
    """The checksum finds it; the others are read."""
    path = zipped(tmp_path, inspect_sample(), inspect_sample(), method=zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"Say hello")] ^= 1
    path.write_bytes(raw)
    bad, good = inspectlog.read(path)
    assert "damaged" in bad.reason and isinstance(good, Sample)


def test_a_member_that_is_no_sample_says_so(tmp_path):
    """Not JSON, not an object, nested past any reader: each is counted with its place."""
    deep = b"[" * 200_000 + b"]" * 200_000
    found = list(inspectlog.read(zipped(tmp_path, b"<html>", b"[]", b'{"id": "\xff"}', deep, inspect_sample())))
    assert [one.line for one in found[:4]] == [1, 2, 3, 4]
    assert ["JSON" in found[0].reason, "object" in found[1].reason, "JSON" in found[2].reason] == [True] * 3
    assert "deep" in found[3].reason
    assert isinstance(found[4], Sample)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """A member larger than a sample may be is passed over, and an archive larger than any log is refused."""
    monkeypatch.setattr(stream, "MAX_VALUE", 100_000)
    assert "larger" in reason(inspectlog.read(zipped(tmp_path, b" " * 5_000_000)))
    monkeypatch.setattr(inspectlog, "MAX_UNPACKED", 250_000)
    with pytest.raises(BadTraffic, match="bomb"):
        list(inspectlog.read(zipped(tmp_path, *[b" " * 90_000] * 3)))


def test_a_table_of_contents_is_not_read_as_long_as_it_claims(tmp_path, monkeypatch):
    """A directory over the limit is refused before it is in memory; a claimed length costs nothing."""
    path = zipped(tmp_path, inspect_sample())
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, len(raw) - 22 + 12, 0x7FFFFFFF)
    path.write_bytes(raw)
    with pytest.raises(BadTraffic):
        list(inspectlog.read(path))
    monkeypatch.setattr(inspectlog, "MAX_DIRECTORY", 100)
    with pytest.raises(BadTraffic, match="table of contents"):
        list(inspectlog.read(zipped(tmp_path, *[inspect_sample()] * 5)))


def test_an_odd_way_of_packing_is_refused_by_name(tmp_path):
    """LZMA and bzip2 unpack without a bound in Python, and Inspect AI writes neither."""
    header = zipped(tmp_path, inspect_sample()).read_bytes()
    with zipfile.ZipFile(io.BytesIO(header)) as old, zipfile.ZipFile(tmp_path / "odd.eval", "w") as new:
        new.writestr("header.json", old.read("header.json"))
        new.writestr("samples/a_epoch_1.json", b"{}", zipfile.ZIP_LZMA)
    assert "method 14" in reason(inspectlog.read(tmp_path / "odd.eval"))


def zstandard(tmp_path, packed: bytes, content: bytes):
    """A log with one member that says it is packed by Zstandard."""
    path = zipped(tmp_path, packed, method=zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.startswith("samples/"))
    entry = raw.index(b"samples/", raw.index(b"PK\1\2")) - 46
    for at, base in ((info.header_offset, 8), (entry, 10)):
        struct.pack_into("<H", raw, at + base, 93)
        struct.pack_into("<I", raw, at + base + 6, zipfile.crc32(content))
        struct.pack_into("<I", raw, at + base + 14, len(content))
    path.write_bytes(raw)
    return path


def test_zstandard_is_unpacked_where_there_is_a_reader(tmp_path):
    """Newer versions of Inspect AI pack samples so; a damaged frame, or another content, is one sample lost."""
    zstd = pytest.importorskip("backports.zstd", reason="Zstandard comes with Python 3.14, or with backports.zstd")
    content = json.dumps(inspect_sample()).encode()
    packed = zstd.compress(content)
    assert isinstance(next(inspectlog.read(zstandard(tmp_path, packed, content))), Sample)
    assert "damaged" in reason(inspectlog.read(zstandard(tmp_path, packed[:-9], content)))
    assert "damaged" in reason(inspectlog.read(zstandard(tmp_path, b"nonsense", content)))
    assert "checksum" in reason(inspectlog.read(zstandard(tmp_path, zstd.compress(b"{}"), content)))


def test_zstandard_without_a_reader_says_what_to_do(tmp_path, monkeypatch):
    """It names the package, and the command that makes a log that can be read."""
    for name in ("backports", "compression"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(BadTraffic, match="Zstandard") as error:
        list(inspectlog.read(zstandard(tmp_path, b"x", b"x")))
    assert "inspect log convert" in error.value.hint


def test_a_promptfoo_result_is_a_sample(tmp_path):
    """The rendered prompt, the answer, and what the ``equals`` assertion compared with, failed or not."""
    [sample] = promptfoo.read(results(tmp_path, promptfoo_result()), group="testCase.metadata.customer")
    assert sample == Sample(
        id="b1d03907-f260-4edb-af8b-306a19dfb71c",
        request={
            "messages": [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Translate hello"}],
            "temperature": 0.2,
        },
        answer=Answer("Hallo"), expected=Answer("Translate hello"), group="c1", at=1795490440.825,
        incumbent="openai:gpt-4o",
    )  # fmt: skip


def test_prompts_and_answers_of_other_shapes(tmp_path):
    """A prompt that is no list of messages is a user's; an answer that is an object is its JSON, or calls of tools."""
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
    given = [
        promptfoo_result(prompt={"raw": "[1, 2] add these"}, response={"output": {"a": 1}}),
        promptfoo_result(response={"output": [call]}),
        promptfoo_result(testCase={"assert": [{"type": "is-json", "value": {"type": "object"}}]}),
        promptfoo_result(testCase={"assert": [{"type": "equals", "value": {"b": 2}}]}),
    ]
    first, second, third, fourth = promptfoo.read(results(tmp_path, *given))
    assert first.request == {"messages": [{"role": "user", "content": "[1, 2] add these"}]}
    assert first.answer == Answer('{"a":1}')
    assert second.answer == Answer(tools=(ToolCall("add", '{"x": 1}'),))
    assert third.expected is None
    assert fourth.expected == Answer('{"b":2}')


@pytest.mark.parametrize(
    ("changed", "said_so"),
    [
        ({"failureReason": 2, "error": "API error: 500"}, "call failed: 'API error: 500'"),
        ({"response": {"error": "timeout"}}, "call failed: 'timeout'"),
        ({"response": {"output": ""}}, "answer is empty"),
        ({"response": None}, "answer is empty"),
        ({"prompt": {"raw": ""}}, "no prompt"),
        ({"prompt": {"raw": '[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]'}}, "'image_url'"),
        ({"provider": {"id": "other"}}, "answer of 'other'"),
        ({"testCase": {"assert": [{"type": "equals", "value": name} for name in "ab"]}}, "2 right answers"),
        ({"testCase": {"assert": [{"type": "equals", "value": "{{ x }}"}]}}, "template"),
        ({"testCase": {"assert": [{"type": "equals", "value": "file://x.txt"}]}}, "file"),
        ({"testCase": {"metadata": {"freehold": {"id": "x"}}}}, "not as Freehold writes it"),
        ({"response": {"output": "\udc00"}}, "surrogate"),
    ],
)  # fmt: skip
def test_a_promptfoo_result_that_cannot_be_used_says_why(tmp_path, changed, said_so):
    """And the good one after it is read all the same."""
    bad, good = promptfoo.read(results(tmp_path, promptfoo_result(**changed), promptfoo_result()))
    assert bad.line == 1 and said_so in bad.reason
    assert isinstance(good, Sample)


def test_several_providers_have_to_be_told_apart(tmp_path):
    """Their answers are never mixed: which is meant must be said, and the others are counted."""
    path = results(
        tmp_path, promptfoo_result(), promptfoo_result(provider={"id": "b"}), providers=("b", "openai:gpt-4o")
    )
    with pytest.raises(BadTraffic, match="2 providers"):
        list(promptfoo.read(path))
    first, second = promptfoo.read(path, incumbent="b")
    assert isinstance(first, Unusable) and second.incumbent == "b"


@pytest.mark.parametrize("version", [2, 4, None, "3"])
def test_other_versions_of_promptfoo_are_refused(tmp_path, version):
    """By their number."""
    with pytest.raises(BadTraffic, match="version"):
        list(promptfoo.read(results(tmp_path, promptfoo_result(), version=version)))


TASK = Task("tickets", {"kind": "json"}, 0.03)
CANDIDATE = Candidate("small", "sha256:" + "a" * 64, {"temperature": 0}, "llamacpp", "k")
RIGHT = Answer("right")
TOOLS = (ToolCall("add", '{"x": 1}'), ToolCall("bad", "[1"))


def row(number=0, value=1.0, answer=RIGHT, error="", **more) -> Row:
    facts = {
        "id": f"call-{number}", "request": {"messages": [{"role": "user", "content": f"Ticket {number} é\u2028<"}]},
        "answer": Answer("old"), "expected": Answer("right"), "group": f"g{number % 3}", "at": 1.7e9 + number,
        "incumbent": "gpt-4o", "terms": "own", "caller": "shop",
    }  # fmt: skip
    sample = Sample(**(facts | more))
    replayed = Replayed(sample.id, answer, error, Usage(10, 3, 2), total_ms=120.5, at=1.75e9 + number)
    return Row(sample, replayed, Score(value, {"field": "x"}))


ROWS = [
    row(0),
    row(1, 0.5, expected=None, answer=Answer(tools=TOOLS)),
    row(2, 0.0, answer=None, error="engine_failed: It died."),
    row(3, kind=Kind.COMPLETION, request={"prompt": "Once"}),
    row(4, kind=Kind.MESSAGE, request={"system": "s", "messages": [{"role": "user", "content": [{"type": "image"}]}]}),
    row(5, kind=Kind.RESPONSE, request={"instructions": "s", "input": "Hi"}, expected=Answer(tools=TOOLS)),
    row(6, request={"messages": [
        {"role": "developer", "content": "d"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "3"}]},
    ], "tools": []}),
    row(7, request={"messages": "nonsense"}, kind=Kind.CHAT),
    row(8, request={"input": [5, None]}, kind=Kind.EMBEDDING),
]  # fmt: skip


@pytest.mark.parametrize("form", [inspectlog, promptfoo])
def test_what_is_exported_comes_back_the_same(tmp_path, form):
    """Every kind of call, with every field; the answer is the incumbent's, not the candidate's."""
    path = tmp_path / "out.json"
    assert form.write(path, TASK, CANDIDATE, iter(ROWS)) == len(ROWS)
    assert list(form.read(path)) == [each.sample for each in ROWS]


@pytest.mark.parametrize("form", [inspectlog, promptfoo])
def test_the_same_rows_give_the_same_bytes(form):
    """An export is a function of what it holds; a stream takes it as well as a file."""
    one, two = io.BytesIO(), io.BytesIO()
    form.write(one, TASK, CANDIDATE, ROWS)
    form.write(two, TASK, CANDIDATE, iter(ROWS))
    assert one.getvalue() == two.getvalue()
    json.loads(one.getvalue())


@pytest.mark.parametrize("form", [inspectlog, promptfoo])
def test_nothing_to_export_is_an_empty_document(tmp_path, form):
    """Which reads back as no samples."""
    path = tmp_path / "out.json"
    assert form.write(path, TASK, CANDIDATE, []) == 0
    assert list(form.read(path)) == []


@pytest.mark.parametrize("form", [inspectlog, promptfoo])
def test_what_cannot_be_written_is_said(tmp_path, form):
    """A score that is no number, half a surrogate pair, a folder that is not there; no half a file is left."""
    path = tmp_path / "out.json"
    for bad in (row(value=float("nan")), row(value=float("inf")), row(answer=Answer("\ud800")), row(id="\ud800")):
        with pytest.raises(BadTraffic):
            form.write(path, TASK, CANDIDATE, [bad])
    assert not path.exists()
    with pytest.raises(BadTraffic, match="cannot be written"):
        form.write(tmp_path / "no" / "out.json", TASK, CANDIDATE, ROWS)


def test_the_exports_hold_what_the_other_tools_show(tmp_path):
    """Scores, errors, counts and answers, where each tool looks for them."""
    inspectlog.write(tmp_path / "a.json", TASK, CANDIDATE, ROWS)
    made = json.loads((tmp_path / "a.json").read_text())
    assert made["eval"]["model"] == "freehold/small" and made["eval"]["dataset"]["samples"] == len(ROWS)
    assert made["results"]["scores"][0]["metrics"]["mean"]["value"] == pytest.approx(7.5 / 9)
    assert made["samples"][2]["error"]["message"] == "engine_failed: It died."
    assert made["samples"][1]["output"]["choices"][0]["message"]["tool_calls"][1]["parse_error"]
    promptfoo.write(tmp_path / "b.json", TASK, CANDIDATE, ROWS)
    made = json.loads((tmp_path / "b.json").read_text())["results"]
    assert {name: made["stats"][name] for name in ("successes", "failures", "errors")} == {
        "successes": 7, "failures": 1, "errors": 1,
    }  # fmt: skip
    assert [one["failureReason"] for one in made["results"]][:3] == [0, 1, 2]
    assert made["results"][0]["testCase"]["assert"][0]["value"] == "right"


values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


class Trickle(io.BytesIO):
    """A stream that gives one to three bytes at a time, so that every token is cut somewhere."""

    def read(self, size=-1):
        return super().read(1 + self.tell() % 3)


@given(
    st.dictionaries(st.text(max_size=5), values, max_size=4), st.lists(values, max_size=5), st.sampled_from([None, 2])
)
@settings(max_examples=200, deadline=None)
def test_the_walk_finds_what_a_parser_finds(others, elements, indent):
    """Whatever stands around it, in whatever white space, cut wherever: every element, in order, and what is kept."""
    document = {"before": others, **{"x" + name: value for name, value in others.items()}, "in": {"array": elements}}
    text = json.dumps(document, indent=indent, ensure_ascii=len(elements) % 2 == 0).encode()
    found = list(stream.walk(Trickle(text), {("before",)}, ("in", "array")))
    assert [(path, json.loads(raw)) for path, raw in found] == [
        (("before",), others), *((("in", "array"), element) for element in elements)
    ]  # fmt: skip


def test_a_value_over_the_limit_is_passed_over():
    """Not held in memory, not lost: it is None, and the next is read."""
    text = json.dumps({"a": ["x" * 5000, "y", [1] * 5000, 5]}).encode()
    assert [raw for _, raw in stream.walk(Trickle(text), set(), ("a",), limit=100)] == [None, b'"y"', None, b"5"]


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_noise_is_an_error_in_a_sentence(tmp_path_factory, noise):
    """Bytes of no kind, alone or in the place of a sample, end in samples, reasons or `BadTraffic`."""
    path = tmp_path_factory.getbasetemp() / "noise"
    head = json.dumps(HEADER).encode()[:-1]
    inner = b'{"results": {"version": 3, "results": ['
    for raw in (noise, b"PK\3\4" + noise, head + b', "samples": [' + noise + b"]}", inner + noise + b"]}}"):
        path.write_bytes(raw)
        for read in (inspectlog.read, promptfoo.read):
            try:
                assert all(isinstance(one, Sample | Unusable) for one in read(path))
            except BadTraffic as error:
                assert error.message.endswith(".")
