"""OpenAI's fine-tuning lines for chat models: ``{"messages": [..., the assistant's], "tools": [...]}``.

The last message of the assistant is the answer to what stands before it; one of weight 0 is none. Such lines say what
somebody wants a model to say, so it is the expected answer; where an incumbent is named, it is that model's answer, and
no answer is known to be right.

Source: OpenAI, API reference, fine-tuning, "training format for chat models using the supervised method".
"""

from __future__ import annotations

from typing import Any

from freehold import said
from freehold.said import Unfit
from freehold.traffic import asked
from freehold.traffic.line import Given, checked, group
from freehold.types import Kind, Sample

FORMAT = "finetuning"


def recognises(document: Any) -> bool:
    """A line with messages and neither a request nor an id of a batch."""
    return (
        isinstance(document, dict)
        and isinstance(document.get("messages"), list)
        and not document.keys() & {"request", "custom_id", "traceId", "trace_id"}
    )


def sample(document: dict[str, Any], given: Given) -> Sample:
    """See `line.Format`."""
    turns = document.get("messages")
    if not isinstance(turns, list) or not turns:
        raise Unfit("has a request without messages")
    last = _last_answer(turns)
    body = document | {"messages": [_weightless(turn) for turn in turns[:last]]}
    found = said.answer(Kind.CHAT, turns[last])
    known = {"answer": found} if given.incumbent else {"expected": found}
    return checked(
        Sample(
            id="",
            request=asked.request(Kind.CHAT, body),
            group=group(document, given, ""),
            incumbent=given.incumbent,
            terms=given.terms,
            **known,
        )
    )


def line(sample: Sample) -> dict[str, Any] | None:
    """A chat as a document of this format, with the expected answer, or else the incumbent's; None where it is no chat
    or has neither."""
    right = sample.expected or sample.answer
    if sample.kind is not Kind.CHAT or right is None:
        return None
    kept = {name: sample.request[name] for name in ("tools", "parallel_tool_calls") if name in sample.request}
    return {"messages": [*sample.request["messages"], said.message(right)]} | kept


def _last_answer(turns: list[Any]) -> int:
    for place in range(len(turns) - 1, 0, -1):
        turn = turns[place]
        if isinstance(turn, dict) and turn.get("role") == "assistant" and turn.get("weight") != 0:
            return place
    raise Unfit("has no answer of the assistant that counts, behind a message that asks")


def _weightless(turn: Any) -> Any:
    return {name: value for name, value in turn.items() if name != "weight"} if isinstance(turn, dict) else turn
