"""An engine asked directly: it reads what serving reads, and says of tokens what it would draw them by."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import MODEL, ask, until

from freehold import seal
from freehold.engine import turns
from freehold.engine.probe import LEAST, LIKELIEST, Passage, Probe
from freehold.errors import BadModel, BadRequest, ContextExceeded, EngineFailed
from freehold.seal import landlock
from freehold.types import Kind, Request

TOOL = {"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
ASKED = "Name three colours, please."
LONG = 5  # tokens; what comes after them is nearly a tie, which rounding may decide
EXACT = {"temperature": 0, "max_tokens": LONG}
CALLED = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": [
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
    ]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sun"}]},
        {"type": "text", "text": "So?"},
    ]},
]  # fmt: skip
ITEMS = [
    {"role": "user", "content": "Rain?"},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Rome"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "sun"},
    {"role": "user", "content": [{"type": "input_text", "text": "So?"}]},
]
CLAUDE_TOOL = {"name": "weather", "description": "The weather.", "input_schema": TOOL["parameters"]}
REQUESTS = {
    "a chat": (Kind.CHAT, {"messages": [{"role": "user", "content": ASKED}], **EXACT}),
    "a chat with a system prompt and nulls": (
        Kind.CHAT, {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASKED}],
                    "seed": None, **EXACT},
    ),
    "a chat with tools": (
        Kind.CHAT, {"messages": [{"role": "user", "content": "Rain?"}],
                    "tools": [{"type": "function", "function": TOOL}], **EXACT},
    ),
    "a completion": (Kind.COMPLETION, {"prompt": "Once upon a time", **EXACT}),
    "a message": (Kind.MESSAGE, {"system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
                                 "messages": [{"role": "user", "content": ASKED}], **EXACT}),
    "a message with calls of tools": (Kind.MESSAGE, {"messages": CALLED, "tools": [CLAUDE_TOOL], **EXACT}),
    "a response": (Kind.RESPONSE, {"input": ASKED, "temperature": 0, "max_output_tokens": LONG}),
    "a response with calls of tools": (
        Kind.RESPONSE, {"instructions": "Be brief.", "input": ITEMS, "tools": [{"type": "function", **TOOL}],
                        "temperature": 0, "max_output_tokens": LONG},
    ),
}  # fmt: skip
PATHS = {
    Kind.CHAT: "/v1/chat/completions",
    Kind.COMPLETION: "/v1/completions",
    Kind.MESSAGE: "/v1/messages",
    Kind.RESPONSE: "/v1/responses",
}


@pytest.fixture(scope="module")
def starter(starter_file) -> Iterator[Probe]:
    """The starter model's engine, asked directly."""
    tuning = pytest.importorskip("tuning")
    with tuning.probe(starter_file) as probe:
        yield probe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Iterator[tuple[Probe, Path, list[Path]]]:
    """A little model with two adapters."""
    for library in ("torch", "peft"):
        pytest.importorskip(library, reason="the extra freehold[tune] is not installed")
    import tinymodels
    import tuning

    folder = tmp_path_factory.mktemp("probe")
    file = tinymodels.write(tinymodels.make("qwen2"), folder / "base.gguf")
    adapters = [
        tuning.export(
            folder / f"a{seed}.gguf", "qwen2", tuning.pairs(tuning.adapted(tinymodels.make("qwen2"), seed=seed))
        )
        for seed in (1, 2)
    ]
    with tuning.probe(file, adapters) as probe:
        yield probe, file, adapters


@pytest.mark.parametrize("what", REQUESTS)
def test_what_it_reads_is_what_serving_reads(real, starter, what):
    """The text has as many tokens as the server counts for the same request, and the answer is the server's."""
    kind, body = REQUESTS[what]
    request = Request(kind, MODEL, body)
    tokens = starter.prompt_tokens(request)
    status, _, content = ask(real, PATHS[kind], {"model": MODEL} | body)
    assert status == 200, content

    served = json.loads(content)
    usage = served["usage"]
    counted = usage["input_tokens"] if "input_tokens" in usage else usage["prompt_tokens"]
    assert len(tokens) == counted + usage.get("cache_read_input_tokens", 0)
    (answered,) = starter.answers([request])
    assert answered.error == "" and answered.usage.prompt == len(tokens)
    assert _words(answered.document) == _words(served)


def test_the_template_is_filled_as_asked(starter):
    """The prompt ends where the answer begins; `fill` takes whatever the template takes."""
    prompt = starter.prompt(Request(Kind.CHAT, MODEL, {"messages": [{"role": "user", "content": ASKED}]}))
    assert prompt.endswith(f"{ASKED}<|im_end|>\n<|im_start|>assistant\n")
    messages = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "Red."}]
    assert starter.fill(messages=messages) == prompt + "Red."


def test_tokens_and_text_are_each_others_reverse(starter):
    """Special tokens by their names, in both directions."""
    text = "<|im_start|>user\nSchöne Grüße, 日本<|im_end|>\n"
    tokens = starter.tokens(text)
    assert starter.text(tokens) == text and tokens[0] == 1 and starter.tokens("<|im_end|>") == (2,)


def test_a_given_token_is_as_likely_as_one_that_came_by_itself(starter):
    """Of an answer that the engine gave, every token is the likeliest, with the log-probability that it had then."""
    prompt = starter.prompt_tokens(Request(Kind.CHAT, MODEL, {"messages": [{"role": "user", "content": ASKED}]}))
    answer = starter.continued(prompt, 16)
    body = {"prompt": list(prompt), "n_predict": 16, "temperature": 0, "n_probs": 1}
    drawn = starter._runner.run(starter._post("/completion", body))["completion_probabilities"]
    assert [one["id"] for one in drawn] == list(answer)
    (positions,) = starter.score([Passage(prompt, answer)])
    assert [position.token for position in positions] == [position.likeliest[0][0] for position in positions]
    for position, one in zip(positions, drawn, strict=True):
        assert position.logprob == pytest.approx(one["logprob"], abs=0.01)
        assert position.logprob == position.likeliest[0][1] and len(position.likeliest) == LIKELIEST


def test_unlikely_tokens_and_ends_have_their_figures_too(starter):
    """A token that would never be drawn, and one that ends the answer and stands in its middle."""
    prompt = starter.tokens("The capital of France is")
    (positions,) = starter.score([Passage(prompt, (300, 2, 300))])
    assert [position.token for position in positions] == [300, 2, 300]
    assert all(LEAST <= position.logprob < 0 for position in positions) and positions[0].logprob < -5


def test_tokens_that_are_no_whole_character_are_scored(starter):
    """The engine says nothing of the first bytes of a character until the last have come; here it has to."""
    prompt, answer = starter.tokens("I feel"), starter.tokens(" 😀🙃")
    assert any("\ufffd" in starter.text([token]) for token in answer)
    told = []
    (positions,) = starter.score([Passage(prompt, answer)], tell=told.append)
    assert [position.token for position in positions] == list(answer)
    assert all(position.logprob < 0 and len(position.likeliest) == LIKELIEST for position in positions)
    assert told == list(range(1, len(answer) + 1))


def test_answers_come_in_order_and_refusals_in_their_place(starter):
    """Several at once; what no engine could answer says why."""
    chats = [
        Request(Kind.CHAT, MODEL, {"messages": [{"role": "user", "content": f"Say {n}."}], **EXACT}) for n in range(5)
    ]
    chats.insert(2, Request(Kind.CHAT, MODEL, {"messages": [{"role": "user", "content": "x"}], "n": 99}))
    told = []
    answers = starter.answers(chats, tell=told.append)
    assert "n is 99" in answers[2].error and answers[2].document is None
    alone = starter.answers(chats[5:], at_once=1)
    assert _words(answers[5].document)[:1] == _words(alone[0].document)[:1]
    assert sorted(told) == [1, 2, 3, 4, 5, 6]


def test_each_adapter_answers_for_itself_alone(tiny):
    """In turns, on one engine: what is said of a passage depends on the adapter asked, and on nothing before."""
    import tuning

    probe, file, adapters = tiny
    held = tuning.passages(3)
    first = {adapter: probe.score(held, adapter=adapter) for adapter in (None, 0, 1)}
    again = {adapter: probe.score(held, adapter=adapter) for adapter in (1, None, 0)}
    assert first == again
    assert _apart(first[None], first[0]) > 0.1 and _apart(first[0], first[1]) > 0.1
    with tuning.probe(file) as bare:
        assert _apart(bare.score(held), first[None]) < 0.01
    with tuning.probe(file, adapters[1:]) as other:
        assert _apart(other.score(held, adapter=0), first[1]) < 0.01
        with pytest.raises(IndexError, match="no adapter 1"):
            other.score(held, adapter=1)


def test_an_answer_is_the_adapters_too(tiny):
    """The same request, with each adapter and with none, in company."""
    import tuning

    probe, _, _ = tiny
    body = {"messages": [{"role": "user", "content": "the thing"}], "temperature": 0, "max_tokens": 12}
    asked = [Request(Kind.MESSAGE, "base", body)] * 3
    words = {adapter: _words(probe.answers(asked, adapter=adapter)[0].document) for adapter in (None, 0, 1)}
    prompt = probe.prompt_tokens(asked[0])
    for adapter in words:
        tokens = probe.continued(prompt, 12, adapter=adapter)
        assert probe.text(tokens)[:4] == words[adapter][:4]
    assert len(set(words.values())) == 3
    assert tuning.RANK


def test_the_child_may_read_its_adapters_and_nothing_else_of_the_kind(tmp_path):
    """The seal's plan names the model's file and the adapters', for reading."""
    model, one, two = (tmp_path / name for name in ("model", "one", "two"))
    plan = seal.engine_plan(model=model, adapters=[one, two], folder=tmp_path / "run")
    below = [(path, rights) for path, rights in plan.files if path.startswith(str(tmp_path))]
    assert below == [
        *((str(p), landlock.READ_FILE) for p in (model, one, two)),
        (str(tmp_path / "run"), landlock.SOCKETS),
    ]


def test_what_does_not_fit_is_said(tiny):
    """A passage longer than the context; an engine of another architecture's adapter."""
    import tuning

    probe, file, adapters = tiny
    with pytest.raises(ContextExceeded):
        probe.score([Passage(tuple([5] * 600), (6,))])
    bad = adapters[0].with_name("other.gguf")
    bad.write_bytes(adapters[0].read_bytes().replace(b"qwen2", b"llama"))
    with pytest.raises(BadModel, match="could not load"), tuning.probe(file, [bad]):
        pass
    with pytest.raises(BadRequest, match="no conversation"):
        turns.as_chat(Kind.EMBEDDING, {"input": "x"})


def test_a_count_that_differs_stops(tiny, monkeypatch):
    """What is shown has to be what is read."""
    probe, _, _ = tiny
    monkeypatch.setattr(turns, "as_chat", lambda kind, body: {"messages": [{"role": "user", "content": "another"}]})
    with pytest.raises(EngineFailed, match="reads a request in"):
        probe.prompt_tokens(Request(Kind.CHAT, "base", {"messages": [{"role": "user", "content": "one thing"}]}))


def test_an_engine_that_died_comes_back(tiny):
    """And the next question is answered."""
    import tuning

    _, file, _ = tiny
    with tuning.probe(file) as probe:
        held = tuning.passages(1)
        before = probe.score(held)
        pid = probe._engine.state().pid
        os.kill(pid, signal.SIGKILL)
        assert _apart(probe.score(held), before) < 0.01
        again = probe._engine.state().pid
        assert again != pid
        folder = Path(probe._engine._process.socket).parent
        assert folder.is_dir()
    until(lambda: not Path(f"/proc/{again}").exists())
    assert not folder.exists()


def _words(document: dict) -> str:
    """What a document says, whichever endpoint's it is."""
    if "choices" in document:
        choice = document["choices"][0]
        return choice["text"] if "text" in choice else choice["message"]["content"] or ""
    if "output" in document:
        texts = [part["text"] for item in document["output"] for part in item.get("content") or []]
    else:
        texts = [block["text"] for block in document["content"] if block["type"] == "text"]
    return "".join(texts)


def _apart(one, other) -> float:
    """The largest difference between two scorings of the same passages."""
    pairs = [(a.logprob, b.logprob) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return max(abs(a - b) for a, b in pairs)
