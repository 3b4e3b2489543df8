"""The guard: what may go where, masks that come off again in every answer, and errors that name no value."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import threading
import time

import msgspec
import pytest
from harness import Running, ask, cli, get, until
from hypothesis import given
from hypothesis import strategies as st
from upstream import KEY as UPSTREAM_KEY
from upstream import Upstream

from freehold import config, sensitive
from freehold.config import GuardedCallerSettings, GuardSettings, TreatmentSettings
from freehold.errors import BadConfig, Sensitive
from freehold.guard import Guard, gate
from freehold.guard.restore import Restorer
from freehold.guard.rules import KINDS, SECRETS, Destination, rules
from freehold.said import Unfit
from freehold.task import Tasks
from freehold.traffic import heard
from freehold.types import Answer, Caller, Kind, Request, Role, Sample, ToolCall

DESK = Caller("key_1", "desk", Role.MEMBER)
KEY = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" + "k1L2m3N4o5P6q7R8"
MASKING = GuardSettings(house=TreatmentSettings(secrets="mask", personal="mask"))
ANNA, PASSWORD = "anna@corp.de", 'pa"ss\\wort7\n'


def passed(guard: Guard, body: dict, kind=Kind.CHAT, *, sent: bytes = b"", leaves: bool = False) -> gate.Guarded:
    """What the guard makes of a request."""
    return asyncio.run(guard(DESK, Request(kind, "m", body, False, sent), leaves=leaves))


def said(text: str) -> dict:
    return {"messages": [{"role": "user", "content": text}]}


# what holds for whom


def test_by_default_the_house_is_open_and_secrets_stay_in_it():
    """Nothing is done inside; secrets do not leave, and are not recorded; personal data goes where it is sent."""
    found = {place: rules(GuardSettings(), "desk", place) for place in Destination}
    assert found[Destination.HOUSE].is_idle
    assert found[Destination.UPSTREAM].refused == SECRETS and not found[Destination.UPSTREAM].masked
    assert found[Destination.CAPTURE].masked == SECRETS and not found[Destination.CAPTURE].refused


def test_the_rules_can_be_tried_without_sending_anything():
    """A trial says what would become of a text, what was found and where, and counts nothing."""
    guard = Guard(GuardSettings(house=TreatmentSettings(personal="mask"), upstream=TreatmentSettings(email="refuse")))
    text = f"write to {ANNA}, key {KEY}"
    inside = guard.trial("desk", Destination.HOUSE, text)
    assert (inside.action, inside.text) == ("mask", f"write to [EMAIL_1], key {KEY}")
    assert [(one.kind, one.action, text[one.start : one.end]) for one in inside.found] == [
        ("email", "mask", ANNA), ("api_key", "allow", KEY),
    ]  # fmt: skip
    outside = guard.trial("desk", Destination.UPSTREAM, text)
    assert (outside.action, outside.text) == ("refuse", "")
    assert guard.trial("desk", Destination.HOUSE, "good morning") == gate.Trial("allow", "good morning", ())
    assert guard.facts() == {}


def test_the_command_shows_the_rules_and_tries_them(tmp_path):
    """By the settings of the home, for a caller too; exit code 1 where a text would be refused."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "freehold.toml").write_text('[guard.callers."desk".house]\nemail = "mask"\n')
    table = json.loads(cli("guard", "show", "--json", home=home).stdout)
    assert table["callers"] == ["desk"] and set(table["rules"]) == set(KINDS)
    assert table["rules"]["api_key"] == {"house": "allow", "upstream": "refuse", "capture": "mask"}
    shown = cli("guard", "show", "--caller", "desk", home=home).stdout
    assert next(line.split() for line in shown.splitlines() if line.startswith("email"))[1] == "mask"
    done = cli("guard", "try", f"to {ANNA}", "--caller", "desk", home=home)
    assert done.returncode == 0 and "to [EMAIL_1]" in done.stdout
    refused = cli("guard", "try", "-", "--to", "upstream", home=home, input=f"key {KEY}")
    assert refused.returncode == 1 and "would be refused" in refused.stdout and KEY not in refused.stdout
    assert cli("guard", "try", "x" * 10 + KEY, "--json", home=home).returncode == 0


def test_the_kinds_are_those_of_the_detectors():
    """Each one can be set, and the groups are theirs."""
    assert set(KINDS) == set(sensitive.Kind) and set(sensitive.SECRETS) == SECRETS


def test_a_caller_wins_over_all_and_a_kind_over_its_group():
    """In this order: the caller's kind, its group, everybody's kind, everybody's group, the default."""
    desk = GuardedCallerSettings(house=TreatmentSettings(personal="allow", iban="refuse"), restore=False)
    settings = GuardSettings(house=TreatmentSettings(personal="mask", card="refuse"), callers={"desk": desk})
    everybody, own = (rules(settings, name, Destination.HOUSE) for name in ("other", "desk"))
    assert everybody.refused == {"card"} and everybody.masked == set(KINDS) - SECRETS - {"card"}
    assert own.refused == {"iban"} and not own.masked
    assert everybody.restore and not own.restore


def test_settings_are_read_and_a_wrong_one_is_named(tmp_path):
    """From the tables of freehold.toml, by the key's name."""
    path = tmp_path / "freehold.toml"
    path.write_text('[guard.upstream]\nemail = "mask"\n[guard.callers."desk 1".house]\nsecrets = "refuse"\n')
    read = config.load(tmp_path, {"FREEHOLD_GUARD_RESTORE": "false"}).guard
    assert rules(read, "desk 1", Destination.HOUSE).refused == SECRETS and not read.restore
    assert rules(read, "desk 1", Destination.UPSTREAM).masked == {"email"}
    path.write_text('[guard.upstream]\nemial = "mask"\n')
    with pytest.raises(BadConfig, match="emial"):
        config.load(tmp_path, {})


# a request


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.CHAT, {"messages": [{"role": "system", "content": "{it}"}]}),
        (Kind.CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "{it}"}]}]}),
        (Kind.CHAT, {"messages": [{"role": "tool", "tool_call_id": "c", "content": '{"who": "{it}"}'}]}),
        (Kind.CHAT, {"messages": [{"role": "assistant", "reasoning_content": "{it}", "content": None}]}),
        (Kind.CHAT, {"messages": [], "tools": [{"function": {"name": "f", "description": "for {it}"}}]}),
        (Kind.CHAT, {"messages": [], "user": "{it}"}),
        (Kind.COMPLETION, {"prompt": "{it}"}),
        (Kind.COMPLETION, {"prompt": ["{it}"]}),
        (Kind.EMBEDDING, {"input": ["nothing", "{it}"]}),
        (Kind.RESPONSE, {"input": "{it}", "instructions": "x"}),
        (Kind.RESPONSE, {"input": "x", "instructions": "{it}"}),
        (Kind.RESPONSE, {"input": [{"type": "function_call_output", "call_id": "c", "output": "{it}"}]}),
        (Kind.RESPONSE, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "{it}"}]}]}),
        (Kind.MESSAGE, {"system": [{"type": "text", "text": "{it}"}], "messages": []}),
        (Kind.MESSAGE, {"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "{it}"}]}]}]}),
        (Kind.MESSAGE, {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "t", "name": "f", "input": {"to": "{it}"}}]}]}),
        (Kind.COUNT, {"messages": [{"role": "user", "content": "{it}"}]}),
    ],
)  # fmt: skip
def test_wherever_a_text_stands(kind, body):
    """It is masked there, it is refused there, and the error says where and not what."""
    body = json.loads(json.dumps(body).replace("{it}", ANNA))
    masked = passed(Guard(MASKING), body, kind)
    assert "[EMAIL_1]" in json.dumps(masked.request.body) and ANNA not in json.dumps(masked.request.body)
    assert ANNA in json.dumps(body)  # what was given stays
    refusing = Guard(GuardSettings(house=TreatmentSettings(email="refuse")))
    with pytest.raises(Sensitive) as caught:
        passed(refusing, body, kind)
    assert caught.value.status == 400 and f"email in {caught.value.param}" in caught.value.message
    assert ANNA not in caught.value.sentence() and refusing.facts() == {"house": {"refused": {"email": 1}}}


def test_nothing_is_done_where_everything_is_allowed():
    """The very same request goes on, and its answer is the engine's own."""
    request = Request(Kind.CHAT, "m", said(f"{KEY} {ANNA}"))
    given, reply = asyncio.run(Guard()(DESK, request, leaves=False)), object()
    assert given.request is request and given.over(reply, None) is reply


def test_the_same_value_has_the_same_placeholder_throughout_a_call():
    """In every text of it, and as a longer conversation goes on; another value has another."""
    body = said(f"I am {ANNA}") | {"system": f"serve {ANNA} or bo@corp.de"}
    first = passed(Guard(MASKING), body, Kind.MESSAGE).request.body
    assert first["system"] == "serve [EMAIL_1] or [EMAIL_2]" and first["messages"][0]["content"] == "I am [EMAIL_1]"
    body["messages"] += [{"role": "user", "content": "not cy@corp.de"}]
    later = passed(Guard(MASKING), body, Kind.MESSAGE).request.body
    assert later["messages"][:1] == first["messages"] and later["messages"][1]["content"] == "not [EMAIL_3]"


def test_what_looks_like_a_placeholder_already():
    """Is masked itself where masks come off, so that nobody's answer is changed; else its number is passed over."""
    body = said(f"[EMAIL_1] is not {ANNA}")
    given = passed(Guard(MASKING), body)
    assert given.request.body == said("[LITERAL_1] is not [EMAIL_1]")
    assert sensitive.unmask("[LITERAL_1] is not [EMAIL_1]", given.names) == f"[EMAIL_1] is not {ANNA}"
    kept = passed(Guard(msgspec.structs.replace(MASKING, restore=False)), body)
    assert kept.request.body == said("[EMAIL_1] is not [EMAIL_2]") and kept.names is None


def test_a_name_of_a_field_cannot_be_masked():
    """So it is refused."""
    with pytest.raises(Sensitive, match=r"email in response_format\.\*"):
        passed(Guard(MASKING), said("x") | {"response_format": {ANNA: "x"}})


def test_an_error_names_a_few_and_counts_the_rest():
    """However many there are."""
    body = {"input": [f"a{number}@corp.de" for number in range(9)]}
    with pytest.raises(Sensitive, match=r"email in input\[0\], .*email in input\[4\], and 4 more\."):
        passed(Guard(GuardSettings(house=TreatmentSettings(email="refuse"))), body, Kind.EMBEDDING)


def test_what_cannot_be_read_can_be_refused():
    """Tokens and pictures."""
    for body in ({"prompt": [1, 2, 3]}, said("x") | {"x": {"url": "data:image/png;base64,aGk="}}):
        assert passed(Guard(), body, leaves=True).request.body == body
        with pytest.raises(Sensitive, match="unread in"):
            passed(Guard(GuardSettings(unread="refuse")), body)


# to an upstream


def test_only_the_fields_that_changed_are_written_anew():
    """The others go out byte for byte as they came."""
    sent = b'{"temperature": 1.50, "n":null,"messages": [{"role": "user", "content": "I am anna@corp.de"}],'
    sent += b'"odd": {"a":1e0}}'
    body = {name: value for name, value in json.loads(sent).items() if value is not None}
    out = passed(
        Guard(GuardSettings(upstream=TreatmentSettings(email="mask"))), body, sent=sent, leaves=True
    ).request.sent
    assert b'"temperature":1.50' in out and b'"odd":{"a":1e0}' in out and b'"n":null' in out
    assert json.loads(out)["messages"] == [{"role": "user", "content": "I am [EMAIL_1]"}]


def test_what_was_not_changed_goes_out_as_it_came():
    """To the byte."""
    sent = b'{"messages": [ {"role":"user", "content":"hello: \\"x\\":"} ], "n": null}'
    body = {name: value for name, value in json.loads(sent).items() if value is not None}
    assert passed(Guard(), body, sent=sent, leaves=True).request.sent is sent


@pytest.mark.parametrize("inner", ['"content": "KEY", "content": "x"', '"content": "x", "a\\u0062": "KEY", "ab": "x"'])
def test_a_field_that_is_there_twice_is_no_way_round(inner):
    """What goes out is what was read: one of them."""
    sent = ('{"messages": [{"role": "user", ' + inner + "}]}").replace("KEY", KEY).encode()
    out = passed(Guard(), msgspec.json.decode(sent), sent=sent, leaves=True).request.sent
    assert KEY.encode() not in out and json.loads(out) == msgspec.json.decode(sent)


def test_secrets_do_not_leave_by_default():
    """And may inside the house."""
    with pytest.raises(Sensitive, match=r"may not be sent to an upstream: api_key in messages\[0\]\.content\."):
        passed(Guard(), said(f"use {KEY}"), sent=json.dumps(said(f"use {KEY}")).encode(), leaves=True)
    assert passed(Guard(), said(f"use {KEY}")).request.body == said(f"use {KEY}")


# long ones


def test_a_long_request_keeps_nobody_waiting():
    """It is read in a thread, and the event loop goes on meanwhile; a short one is read at once."""
    threads = []

    class Watched(Guard):
        def _pass(self, found, request, caller):
            threads.append(threading.current_thread())
            return super()._pass(found, request, caller)

    async def longest_pause() -> tuple[float, float]:
        guard, worst, done = Watched(MASKING), 0.0, False
        guard.warm(Destination.HOUSE)
        await guard(DESK, Request(Kind.CHAT, "m", said("short")), leaves=False)
        begun = time.perf_counter()
        long = asyncio.create_task(
            guard(DESK, Request(Kind.CHAT, "m", said("word a@corp.de 0171 2345678 " * 60_000)), leaves=False)
        )
        while not (done := long.done()):
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - before)
        assert done and "[EMAIL_1]" in long.result().request.body["messages"][0]["content"]
        guard.close()
        return worst, time.perf_counter() - begun

    pause, took = asyncio.run(longest_pause())
    assert pause < took / 2  # in the loop it would be all of it
    assert threads[0] is threading.main_thread() and threads[1] is not threading.main_thread()


@pytest.mark.parametrize(
    "body",
    [
        said("x" * 4001),
        {"input": ["x"] * 300},
        {"input": [{"content": [{"text": "x"}] * 150}] * 2},
        {"a": ["x" * 3000] * 2},
        {"a": {"x" * 5000: 1}},
    ],
)
def test_what_is_long(body):
    """By its letters or by its pieces."""
    assert not gate._is_short(Request(Kind.CHAT, "m", body))
    assert gate._is_short(Request(Kind.CHAT, "m", said("x" * 3900)))


# to the disk


def call(text: str, answer: str = "", arguments: str = "") -> Sample:
    tools = (ToolCall("f", arguments),) if arguments else ()
    return Sample("c", said(text), answer=Answer(answer, tools), caller="desk")


LONG = "The harbour was quiet, and nobody had seen the boats come back that evening. " * 5


@pytest.mark.parametrize(
    "text",
    [
        LONG, f"{LONG} {ANNA} and {ANNA}", f"{LONG} [EMAIL_1] stands here", json.dumps({"note": LONG}),
        json.dumps({"note": LONG, "mail": ANNA, "said": "[EMAIL_1]"}), json.dumps([LONG, json.dumps({"key": KEY})]),
    ],
)  # fmt: skip
def test_a_text_that_comes_again_is_told_as_the_first_time(text):
    """Whatever stands in it or beside it, masked to the same byte, and put back the same."""
    bodies = [said(text), {"messages": [*said(text)["messages"], {"role": "user", "content": f"for {ANNA}"}]}]
    used = Guard(MASKING)
    for body in [*bodies, *bodies, *reversed(bodies)]:
        assert passed(used, body).request == passed(Guard(MASKING), body).request


def test_what_is_known_of_a_text_is_known_for_its_rules_and_its_place_alone():
    """A text in which no secret stands may hold an address, and a value beside its name be a password."""
    text, word = f"{LONG}{ANNA}", random.Random(3).randbytes(200).hex()[:300]
    guard = Guard(GuardSettings(
        house=TreatmentSettings(secrets="mask", personal="mask"),
        callers={"clerk": GuardedCallerSettings(house=TreatmentSettings(personal="allow"))},
    ))  # fmt: skip
    clerk = Caller("key_2", "clerk", Role.MEMBER)
    for _ in range(2):
        request = Request(Kind.CHAT, "m", said(text))
        assert asyncio.run(guard(clerk, request, leaves=False)).request.body == said(text)
        assert ANNA not in str(passed(guard, said(text)).request.body)
    named = {"messages": [{"role": "user", "content": "hi"}], "token": word}
    for _ in range(2):
        assert passed(guard, said(word)).request.body == said(word)
        assert word not in str(passed(guard, named).request.body)


def test_no_text_is_remembered(monkeypatch):
    """Hashes and places alone, of so many texts and no more; a text of very many finds is read each time."""
    monkeypatch.setattr(gate, "_KNOWN", 50)
    guard = Guard(MASKING)
    for number in range(500):
        passed(guard, said(f"{number} {LONG} {ANNA} {KEY}"))
    kept = repr((guard._memory._young, guard._memory._old))
    assert ANNA not in kept and KEY not in kept and "harbour" not in kept
    assert 50 <= len(guard._memory._young) + len(guard._memory._old) <= 100
    before = dict(guard._memory._young)
    passed(guard, said(" ".join(f"a{number}@corp.de" for number in range(100))))
    assert guard._memory._young == before


def test_a_long_conversation_is_read_once():
    """Its next turn costs what is new in it, and the hash of the rest."""
    guard = Guard(MASKING)
    turns = [{"role": "user", "content": f"{turn} {LONG * 10}"} for turn in range(20)]
    reads: list[str] = []

    class Counted(sensitive.Reading):
        def __init__(self, text, *rest, **how):
            reads.append(text)
            super().__init__(text, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitive, "Reading", Counted)
        passed(guard, {"messages": turns})
        first = len(reads)
        passed(guard, {"messages": [*turns, {"role": "user", "content": f"and now? {LONG}"}]})
    assert [text for text in reads[first:] if len(text) > 20] == [f"and now? {LONG}"]


def test_a_recorded_call_is_masked_and_stays_one_call():
    """The same value has the same placeholder in the question and in the answer, tools' arguments included."""
    kept = Guard().recorded(call(f"use {KEY} of {ANNA}", f"I use {KEY}", json.dumps({"key": KEY, "n": 1})))
    assert kept.request == said(f"use [API_KEY_1] of {ANNA}") and kept.answer.text == "I use [API_KEY_1]"
    assert json.loads(kept.answer.tools[0].arguments) == {"key": "[API_KEY_1]", "n": 1}


def test_what_was_masked_for_the_engine_is_recorded_as_it_was_sent():
    """Its placeholders stay, and further ones have further numbers."""
    settings = GuardSettings(capture=TreatmentSettings(personal="mask"))
    kept = Guard(settings).recorded(call('password = "[PASSWORD_1]" for [EMAIL_1], not bo@corp.de', "[EMAIL_1]"))
    assert kept.request == said('password = "[PASSWORD_1]" for [EMAIL_1], not [EMAIL_2]')
    assert kept.answer.text == "[EMAIL_1]"
    odd = Guard().recorded(call('password = "[A_1]tiger-4711"'))
    assert odd.request == said('password = "[A_1][PASSWORD_1]"')


def test_a_group_that_names_somebody_is_recorded_under_another_name():
    """The same one for the same name, so that its calls stay together."""
    guard = Guard(GuardSettings(capture=TreatmentSettings(email="mask")), lambda name: f"salted {len(name)}")
    one, two, other = (guard.recorded(msgspec.structs.replace(call("hi"), group=of)) for of in (ANNA, ANNA, "team 7"))
    assert one.group == two.group == f"salted {len(ANNA)}" and other.group == "team 7"
    refusing = Guard(GuardSettings(capture=TreatmentSettings(email="refuse")))
    with pytest.raises(Unfit, match="holds email"):
        refusing.recorded(msgspec.structs.replace(call("hi"), group=ANNA))


def test_there_is_no_field_in_which_nothing_is_seen():
    """A short signature is read, a long one is what cannot be; a number that is a card's is refused, since it cannot be
    masked."""
    guard = Guard(GuardSettings(upstream=TreatmentSettings(card="mask"), unread="refuse"))
    for field, value in (("signature", KEY), ("signature", "QUJD" * 100), ("const", 4111111111111111)):
        with pytest.raises(Sensitive):
            passed(guard, {"messages": [], "tools": [{"parameters": {field: value}}]}, leaves=True)
    assert passed(guard, {"messages": [], "seed": 1234567890, "max_tokens": 12}, leaves=True).names is None


def test_a_call_may_be_left_unrecorded():
    """With a reason that names the kind alone."""
    guard = Guard(GuardSettings(capture=TreatmentSettings(email="refuse")))
    with pytest.raises(Unfit, match="holds email, which may not be recorded") as caught:
        guard.recorded(call("x", f"ask {ANNA}"))
    assert ANNA not in str(caught.value) and guard.recorded(call("x", "y")) == call("x", "y")


# and back


def names() -> sensitive.Names:
    """EMAIL_1 and PASSWORD_1."""
    made = sensitive.Names()
    made.mark("email", ANNA)
    made.mark("password", PASSWORD)
    return made


def cuts(text: str) -> list[list[str]]:
    """A text in two pieces, cut everywhere, in single letters, and whole."""
    return [[text], list(text), *([text[:at], text[at:]] for at in range(1, len(text)))]


def wire(events: list[dict], *, done: bool = False, end: str = "\n") -> bytes:
    """Events as they go over the wire."""
    rows = [
        (f"event: {event['type']}{end}" if "type" in event else "") + f"data: {json.dumps(event)}{end}{end}"
        for event in events
    ]
    return "".join([*rows, f"data: [DONE]{end}{end}" if done else ""]).encode()


def chat(pieces: list[str], tools: list[str] = (), finish: str = "stop") -> bytes:
    head = {"id": "x", "object": "chat.completion.chunk", "model": "m", "usage": None}
    deltas = [{"role": "assistant", "content": None}, *({"content": piece} for piece in pieces)]
    deltas += [{"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}]}] if tools else []
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in tools]
    made = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    made += [head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}]
    return wire([*made, head | {"choices": [], "usage": {"total_tokens": 3}}], done=True)


def completion(pieces: list[str], _tools: list[str] = ()) -> bytes:
    made = [{"choices": [{"index": 0, "text": piece, "finish_reason": None}]} for piece in pieces]
    return wire([*made, {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}], done=True)


def message(pieces: list[str], tools: list[str] = ()) -> bytes:
    made: list[dict] = [{"type": "message_start", "message": {"role": "assistant", "content": []}}, {"type": "ping"}]
    made += [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}]
    delta = {"type": "text_delta"}
    made += [{"type": "content_block_delta", "index": 0, "delta": delta | {"text": one}} for one in pieces]
    made += [{"type": "content_block_stop", "index": 0}]
    if tools:
        block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        made += [{"type": "content_block_start", "index": 1, "content_block": block}]
        delta = {"type": "input_json_delta"}
        made += [{"type": "content_block_delta", "index": 1, "delta": delta | {"partial_json": one}} for one in tools]
        made += [{"type": "content_block_stop", "index": 1}]
    return wire([*made, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}])


def response(pieces: list[str], tools: list[str] = ()) -> bytes:
    text, arguments = "".join(pieces), "".join(tools)
    at = {"item_id": "i", "output_index": 0, "content_index": 0}
    made: list[dict] = [{"type": "response.created", "response": {"status": "in_progress"}}]
    made += [at | {"type": "response.output_text.delta", "delta": one} for one in pieces]
    made += [at | {"type": "response.output_text.done", "text": text}]
    items: list[dict] = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]
    if tools:
        at = {"item_id": "j", "output_index": 1}
        made += [at | {"type": "response.function_call_arguments.delta", "delta": one} for one in tools]
        made += [at | {"type": "response.function_call_arguments.done", "arguments": arguments}]
        items += [{"type": "function_call", "call_id": "t", "name": "f", "arguments": arguments}]
    made += [{"type": "response.output_item.done", "output_index": 0, "item": items[0]}]
    made += [{"type": "response.completed", "response": {"status": "completed", "output": items}}]
    return wire([event | {"sequence_number": number} for number, event in enumerate(made)])


STREAMS = {Kind.CHAT: chat, Kind.COMPLETION: completion, Kind.MESSAGE: message, Kind.RESPONSE: response}
TEXT, FULL = "Dear [EMAIL_1], it is [PASSWORD_1][", f"Dear {ANNA}, it is {PASSWORD}["
ARGUMENTS = '{"to": "[EMAIL_1]", "word": "[PASSWORD_1]", "list": [1], "open": "[EMAIL"}'
CALLED = {"to": ANNA, "word": PASSWORD, "list": [1], "open": "[EMAIL"}


def restored(kind: Kind, pieces: list[bytes], body: dict | None = None) -> bytes:
    restorer = Restorer(names(), Request(kind, "m", body or {}, True))
    return b"".join([*map(restorer.read, pieces), restorer.rest()])


def told(kind: Kind, stream: bytes) -> str:
    """What the deltas of a stream say, put together."""
    said = []
    for event in events(stream):
        for choice in event.get("choices", ()):
            said.append(choice.get("text") or choice.get("delta", {}).get("content") or "")
        delta = event.get("delta")
        said.append(delta.get("text", "") if isinstance(delta, dict) else "")
        said.append(delta if event.get("type") == "response.output_text.delta" else "")
    return "".join(said)


def events(stream: bytes) -> list[dict]:
    return [json.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]


@pytest.mark.parametrize("kind", STREAMS, ids=str)
def test_a_placeholder_cut_between_events_is_put_back(kind):
    """Wherever it is cut, and letter by letter, in the text and in a tool's arguments, which stay JSON; nothing of the
    text is lost that only began like one."""
    for pieces in cuts(TEXT):
        assert told(kind, restored(kind, [STREAMS[kind](pieces)])) == FULL
    if kind is Kind.COMPLETION:
        return
    for tools in cuts(ARGUMENTS):
        answer = heard.answer(kind, restored(kind, [STREAMS[kind]([TEXT], tools)]))
        assert answer.text == FULL and json.loads(answer.tools[0].arguments) == CALLED


@pytest.mark.parametrize("kind", STREAMS, ids=str)
def test_a_stream_cut_at_every_byte_is_put_back(kind):
    """In two pieces at each byte, and byte by byte: the same bytes come of it."""
    stream = STREAMS[kind](["Dear [EMA", "IL_1], it is [PASSWORD_1]", "["], ['{"to": "[EMAIL', '_1]"}'])
    whole = restored(kind, [stream])
    assert told(kind, whole) == FULL
    for at in range(1, len(stream)):
        assert restored(kind, [stream[:at], stream[at:]]) == whole
    assert restored(kind, [stream[at : at + 1] for at in range(len(stream))]) == whole


@pytest.mark.parametrize("kind", STREAMS, ids=str)
def test_a_stream_without_placeholders_goes_through_to_the_byte(kind):
    """Other line ends, comments and spaces too."""
    stream = b": hello\n\n" + STREAMS[kind](["no [mark] here [1], [X_7] "], ['{"a": [1, 2]}']).replace(b"\n", b"\r\n")
    assert restored(kind, [stream]) == stream
    odd = b"retry: 5\n\ndata:[DONE]\n\ndata: not json\n\ndata: [1]\n\nid: 4\ndata: {}\n\nlast"
    assert restored(kind, [odd]) == odd


def test_events_of_our_own_are_numbered_in_their_place():
    """The numbers of a response's events go on without a gap or a double."""
    found = events(restored(Kind.RESPONSE, [response(["a [EMAIL_1", "] b ["], ['{"to": "[', 'EMAIL_1]"}'])]))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))


def test_what_is_held_back_comes_before_the_end_of_its_text():
    """And before the choice, block or item is said to have ended."""
    found = events(restored(Kind.CHAT, [chat(["a ["])]))
    assert [event["choices"][0]["delta"] for event in found if event["choices"]][-2:] == [{"content": "["}, {}]
    types = [event["type"] for event in events(restored(Kind.MESSAGE, [message(["a ["])]))]
    assert types[-5:-2] == ["content_block_delta", "content_block_delta", "content_block_stop"]


def test_what_is_held_back_comes_even_where_a_stream_breaks_off():
    """In mid-event too."""
    stream = chat(["a [EMAIL"])
    middle = stream.index(b'"finish_reason": "stop"')
    event = stream.rindex(b"data: ", 0, middle)
    for cut in (event, middle):
        whole, broken = restored(Kind.CHAT, [stream[:cut]]).split(b"\n\n")[-2:]
        assert b'"content":"[EMAIL"' in whole and broken == stream[event:cut]
    left = b'data: {"choices": [{"index": 0, "delta": {"content": "b [EMAIL"}}]}'  # without an end of its line
    assert told(Kind.CHAT, restored(Kind.CHAT, [left])) == "b [EMAIL"


def test_the_last_piece_and_the_end_in_one_event():
    """As some upstreams write them."""
    event = {"choices": [{"index": 0, "delta": {"content": "IL_1] ["}, "finish_reason": "stop"}]}
    stream = wire([{"choices": [{"index": 0, "delta": {"content": "[EMA"}}]}, event], done=True)
    assert told(Kind.CHAT, restored(Kind.CHAT, [stream])) == f"{ANNA} ["


def test_choices_are_kept_apart():
    """Each has its own text, however they are interleaved."""
    pieces = [(0, "[EMA"), (1, "[PASS"), (0, "IL_1]"), (1, "WORD_1]")]
    made = [{"choices": [{"index": index, "delta": {"content": piece}}]} for index, piece in pieces]
    found = events(restored(Kind.CHAT, [wire(made, done=True)]))
    texts = ["", ""]
    for event in found:
        texts[event["choices"][0]["index"]] += event["choices"][0]["delta"]["content"]
    assert texts == [ANNA, PASSWORD]


def test_an_answer_that_is_json_stays_json():
    """Where it was asked for as JSON, whole and streamed, on both endpoints that do that."""
    text = '{"word": "[PASSWORD_1]"}'
    for kind, body in (
        (Kind.CHAT, {"response_format": {"type": "json_object"}}),
        (Kind.RESPONSE, {"text": {"format": {"type": "json_schema", "schema": {}}}}),
    ):
        for pieces in cuts(text):
            stream = restored(kind, [STREAMS[kind](pieces)], body)
            assert json.loads(told(kind, stream)) == {"word": PASSWORD}
            assert json.loads(heard.answer(kind, stream).text) == {"word": PASSWORD}
    whole = Restorer(names(), Request(Kind.CHAT, "m", {"response_format": {"type": "json_object"}}))
    document = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    assert json.loads(json.loads(whole.whole(document))["choices"][0]["message"]["content"]) == {"word": PASSWORD}


def test_whole_answers_are_put_back():
    """Texts, arguments, and the input of a tool, whose values are no JSON texts."""
    tool = {"function": {"name": "f", "arguments": ARGUMENTS}}
    document = {"choices": [{"message": {"content": TEXT, "tool_calls": [tool]}}], "usage": {"n": 1.5}}
    restorer = Restorer(names(), Request(Kind.CHAT, "m", {}))
    made = json.loads(restorer.whole(json.dumps(document).encode()))
    assert made["choices"][0]["message"]["content"] == FULL and made["usage"] == {"n": 1.5}
    assert json.loads(made["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]) == CALLED
    block = {"content": [{"type": "tool_use", "input": {"to": "[EMAIL_1]", "[email_1]": ["[PASSWORD_1]"]}}]}
    made = json.loads(restorer.whole(json.dumps(block).encode()))
    assert made["content"][0]["input"] == {"to": ANNA, ANNA: [PASSWORD]}
    for odd in (b"no json", b'{"a": "[X_1]" }', b"\xff"):
        assert restorer.whole(odd) == odd


@given(st.binary(max_size=200), st.integers(1, 7))
def test_no_bytes_are_too_strange_to_pass(stream, size):
    """Whatever an upstream sends: it goes through, and nothing raises."""
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert restored(Kind.CHAT, pieces) == stream


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "[EMA", "IL_1]", "x", "content_block_delta"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "index",
                    "type",
                    "text",
                    "content",
                    "tool_calls",
                    "function",
                    "arguments",
                    "finish_reason",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(st.lists(json_values, max_size=5))
def test_no_event_is_too_strange_to_pass(values):
    """Whatever stands in an upstream's events, nothing raises."""
    restored(Kind.CHAT, [b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)])


# on the real path


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_model):
    """A gateway with a guard, a local model and an upstream whose answers are what a test orders."""
    folder = tmp_path_factory.mktemp("guard")
    far, key, home = Upstream(), folder / "key", folder / "home"
    key.write_text(UPSTREAM_KEY)
    home.mkdir()
    (home / "freehold.toml").write_text(
        f'upstream_hosts = ["{far.host}"]\n[upstreams.far]\nurl = "{far.url}"\nkey_file = "{key}"\nmodels = ["far-1"]\n'
        "connect_seconds = 1\nsilence_seconds = 5\nretries = 0\n"
        '[guard.house]\nsecrets = "refuse"\n[guard.upstream]\npersonal = "mask"\n'
    )
    (folder / "task.toml").write_text(
        'name = "t"\nalias = "far-1"\nmargin = 0.1\n[scorer]\nkind = "exact"\n[capture]\non = true\n'
    )
    Tasks(home / "tasks").add(folder / "task.toml")
    server = Running(home, "--engine", "fake", "--model", str(tiny_model))
    server.far = far
    yield server
    server.stop()
    far.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_to_an_upstream_is_masked_restored_and_recorded_masked(site, stream):
    """The upstream reads placeholders, the client its own words, whole and streamed, and the disk the placeholders."""
    text = f"I am {ANNA} ({stream})"
    if stream:
        body = chat(["Dear [EM", "AIL_1]"], ['{"to": "[EMA', 'IL_1]"}'])
        site.far.order({"body": body, "type": "text/event-stream"})
    else:
        tool = {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"to": "[EMAIL_1]"}'}}
        message = {"role": "assistant", "content": "Dear [EMAIL_1]", "tool_calls": [tool]}
        document = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {}}
        site.far.order({"body": json.dumps(document).encode()})
    status, _, answer = ask(site, "/v1/chat/completions", said(text) | {"model": "far-1", "stream": stream})
    assert status == 200, answer
    assert ANNA.encode() not in site.far.got[-1]["body"] and b"I am [EMAIL_1]" in site.far.got[-1]["body"]
    got = heard.answer(Kind.CHAT, answer)
    assert got == Answer(f"Dear {ANNA}", (ToolCall("f", json.dumps({"to": ANNA})),))
    kept = until(lambda: [row for row in _recorded(site.home) if f"({stream})" in row])[0]
    assert "I am [EMAIL_1]" in kept and "Dear [EMAIL_1]" in kept and ANNA not in kept
    assert site.calls(1)[0]["outcome"] == "answered"


def _recorded(home) -> list[str]:
    opened = contextlib.closing(sqlite3.connect(home / "traffic.db"))
    with contextlib.suppress(sqlite3.OperationalError), opened as connection:
        return [bytes(row[0]).decode() for row in connection.execute("SELECT content FROM samples")]
    return []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", said(f"use {KEY}") | {"model": "tiny"}),
        ("/v1/chat/completions", said(f"use {KEY}") | {"model": "far-1", "stream": True}),
        ("/v1/completions", {"model": "tiny", "prompt": f"use {KEY}"}),
        ("/v1/embeddings", {"model": "tiny", "input": [f"use {KEY}"]}),
        ("/v1/responses", {"model": "tiny", "input": f"use {KEY}"}),
        ("/v1/messages", said(f"use {KEY}") | {"model": "tiny", "max_tokens": 5}),
        ("/v1/messages/count_tokens", said(f"use {KEY}") | {"model": "tiny"}),
    ],
)
def test_a_secret_is_refused_on_every_surface(site, path, body):
    """With 400 in the surface's own form, which names the kind and where it stands; the ledger says so; the value is
    in no answer, log or database."""
    before = len(site.far.got)
    status, _, answer = ask(site, path, body)
    assert status == 400 and b"api_key in " in answer and KEY.encode() not in answer
    assert b'"sensitive_content"' in answer or (path.startswith("/v1/messages") and b"invalid_request_error" in answer)
    call = site.calls(1)[0]
    assert (call["outcome"], call["status"], call["error"]) == ("refused", 400, "sensitive_content")
    assert len(site.far.got) == before
    for file in (site.log, *site.home.glob("*.db*")):
        assert KEY.encode() not in file.read_bytes()


def test_the_rules_are_shown_and_tried_over_the_wire(site):
    """With what was done since the start, which a trial adds nothing to."""
    before = json.loads(get(site, "/admin/guard", site.key)[2])
    assert set(before["rules"]) == set(KINDS) and "upstream" in before["rules"]["email"]
    status, _, body = ask(site, "/admin/guard", {"text": f"key {KEY}", "to": "upstream"})
    found = json.loads(body)
    assert status == 200 and found["action"] == "refuse" and found["found"][0]["kind"] == "api_key"
    assert KEY not in body.decode()
    assert ask(site, "/admin/guard", {"text": "x", "to": "the moon"})[0] == 400
    assert ask(site, "/admin/guard", {"text": "x" * 100_001})[0] == 400
    assert json.loads(get(site, "/admin/guard", site.key)[2]) == before


def test_counts_by_kind_are_shown(site):
    """In /admin/status, and to a person in ``freehold status``."""
    counts = json.loads(get(site, "/admin/status", site.key)[2])["guard"]
    assert counts["house"]["refused"]["api_key"] >= 1 and counts["upstream"]["masked"]["email"] >= 1
    assert "guard   house: refused" in site.cli("status").stdout
