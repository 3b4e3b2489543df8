"""The meter keeps the engine's counts, in all four shapes, however the bytes are cut."""

import json

import pytest

from freehold.engine.meter import Meter
from freehold.engine.sse import Events
from freehold.types import Usage


def events(*documents: dict | str) -> bytes:
    return b"".join(
        b"data: " + (document if isinstance(document, str) else json.dumps(document)).encode() + b"\n\n"
        for document in documents
    )


def chunk(index: int = 0, **more) -> dict:
    return {"choices": [{"index": index, "delta": {"content": "x"}}], **more}


def timings(prompt: int, cached: int, predicted: int) -> dict:
    return {"timings": {"prompt_n": prompt, "cache_n": cached, "predicted_n": predicted}}


STREAMS = {
    "chat": (events(chunk(), chunk(**timings(3, 4, 1)), chunk(**timings(3, 4, 2)), "[DONE]"), Usage(7, 2, 4)),
    "chat with usage": (
        events(
            chunk(**timings(3, 4, 2)),
            {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}, **timings(3, 4, 2)},
            "[DONE]",
        ),
        Usage(7, 2, 4),
    ),
    "two choices": (events(chunk(0, **timings(3, 4, 5)), chunk(1, **timings(3, 4, 6)), "[DONE]"), Usage(7, 11, 4)),
    "messages": (
        events(
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 0}},
            },
            {"type": "content_block_delta"},
            {"type": "content_block_delta"},
            {"type": "message_delta", "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
        ),
        Usage(7, 3, 4),
    ),
    "responses": (
        events(
            {"type": "response.output_text.delta", **timings(3, 4, 1)},
            {
                "type": "response.completed",
                "response": {
                    "usage": {"input_tokens": 7, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}
                },
            },
        ),
        Usage(7, 2, 4),
    ),
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_a_stream_is_counted_however_it_is_cut(kind, size):
    """And known to be complete at its end."""
    stream, usage = STREAMS[kind]
    meter = Meter()
    stream_events = Events()
    for start in range(0, len(stream), size):
        assert not meter.complete or start > len(stream) - 400  # an end in sight
        meter.read(stream_events.read(stream[start : start + size]))
    assert meter.usage == usage and meter.complete and not meter.failure


def test_a_stream_of_messages_that_breaks_off_is_counted_by_its_pieces():
    """One event a token."""
    meter = Meter()
    meter.read(Events().read(events({"type": "content_block_delta"}, {"type": "content_block_delta"})))
    assert meter.usage.completion == 2 and not meter.complete


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (
            {"usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}},
            (7, 2, 4),
        ),
        ({"usage": {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 2}}, (7, 2, 4)),
        ({"usage": {"input_tokens": 7, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}}, (7, 2, 4)),
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, (7, 0, 0)),
        ({"input_tokens": 9}, (9, 0, 0)),
        ({"content": [{"input": {"usage": {"output_tokens": 99}}}]}, (0, 0, 0)),
    ],
)
def test_a_whole_answer_is_counted(answer, usage):
    """By its top-level usage alone: what a model writes is not taken for a count."""
    meter = Meter()
    meter.read_answer(json.dumps(answer).encode())
    assert meter.usage == Usage(*usage) and meter.complete


def test_text_that_looks_like_a_count_is_not_one():
    """In a delta, escaped as JSON strings are."""
    meter = Meter()
    text = '"timings":{"predicted_n":99},"usage":{"output_tokens":99}'
    meter.read(Events().read(events({"choices": [{"index": 0, "delta": {"content": text}}]})))
    assert meter.usage == Usage()


def test_a_count_beyond_reason_is_bounded():
    """The ledger can hold whatever an engine says."""
    meter = Meter()
    meter.read_answer(json.dumps({"usage": {"prompt_tokens": 2**63 - 1, "completion_tokens": -5}}).encode())
    assert meter.usage == Usage(1 << 40, 0, 0)


def test_an_error_in_the_stream_is_a_failure_and_what_cannot_be_read_is_passed_over():
    """The bytes go through either way."""
    meter = Meter()
    meter.read(
        Events().read(b"data: {not json}\n\nevent: x\n: comment\n" + events({"error": {"message": "out of memory"}}))
    )
    assert meter.failure == "out of memory"


def test_the_count_of_a_stream_with_include_usage_is_its_last_chunks():
    """Which has no choices: the token that ended the answer is in it, and in no event before."""
    meter = Meter()
    chunk = {"choices": [{"index": 0, "delta": {"content": "x"}}], "timings": {"prompt_n": 5, "predicted_n": 3}}
    last = {
        "choices": [],
        "usage": {"prompt_tokens": 5, "completion_tokens": 4},
        "timings": {"prompt_n": 5, "predicted_n": 4},
    }
    meter.read(Events().read(events(chunk, last)))
    assert (meter.usage.prompt, meter.usage.completion) == (5, 4)
