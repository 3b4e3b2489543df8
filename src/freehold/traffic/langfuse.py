"""Langfuse's exports: observations of the type GENERATION, traces, and the items of datasets; JSON Lines or one list.

Fields are named as the API and the exports from its tables name them (``startTime``), or as the exports to blob storage
do (``start_time``, with ``provided_model_name``, and input and output as text that holds JSON).

A trace stands for the one generation in it, or for itself where none is listed. A call belongs with those of its
session, else of its user, else of its trace.

Source: Langfuse, API reference (observations, traces, dataset items) and "blob storage export field reference".
"""

from __future__ import annotations

from typing import Any

import msgspec

from freehold import said
from freehold.names import shown
from freehold.said import Unfit
from freehold.traffic import asked
from freehold.traffic.line import Given, checked, group, instant, name
from freehold.types import Answer, Kind, Sample

FORMAT = "langfuse"
_TYPES = frozenset(
    {
        "GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL",
    }
)  # fmt: skip
_SETTINGS = frozenset({"temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty", "stop"})

_BARE = frozenset({"content", "refusal", "additional_kwargs", "response_metadata"})  # a message without its role


def recognises(document: Any) -> bool:
    """An observation, a trace, or an item of a dataset."""
    return isinstance(document, dict) and (_is_observation(document) or _is_trace(document) or _is_item(document))


def sample(document: dict[str, Any], given: Given) -> Sample:
    """See `line.Format`."""
    if _is_item(document):
        return _of_item(document, given)
    if not _is_observation(document):
        document = _of_trace(document)
    if (kind := document.get("type")) not in ("GENERATION", None):
        raise Unfit(f"is an observation of the type {shown(str(kind))[:40]!r}, and no generation")
    if document.get("level") == "ERROR":
        raise Unfit(f"records a call that failed: {said.problem(_get(document, 'statusMessage'))}")
    kind, body = _asked(_get(document, "input"))
    belongs = _get(document, "sessionId") or _get(document, "userId") or _get(document, "traceId")
    model = document.get("model") or _get(document, "providedModelName") or given.incumbent
    return checked(
        Sample(
            id=name(document.get("id"), "id"),
            request=asked.request(kind, _settings(kind, document) | body),
            kind=kind,
            answer=_answered(kind, _get(document, "output")),
            group=group(document, given, name(belongs, "group")),
            at=instant(_get(document, "startTime") or document.get("timestamp"), given.now),
            incumbent=name(model, "model"),
            terms=given.terms,
        )
    )


def _of_item(document: dict[str, Any], given: Given) -> Sample:
    if document.get("status") == "ARCHIVED":
        raise Unfit("is an archived item")
    kind, body = _asked(_get(document, "input"))
    return checked(
        Sample(
            id=name(document.get("id"), "id"),
            request=asked.request(kind, body),
            kind=kind,
            expected=said.expected(kind, _get(document, "expectedOutput")),
            group=group(document, given, name(_get(document, "sourceTraceId"), "group")),
            at=instant(_get(document, "createdAt"), given.now),
            incumbent=given.incumbent,
            terms=given.terms,
        )
    )


def _of_trace(document: dict[str, Any]) -> dict[str, Any]:
    """The one observation that a trace stands for."""
    listed = document.get("observations")
    own = {"traceId": document.get("id"), "sessionId": _get(document, "sessionId"), "userId": _get(document, "userId")}
    inside = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    found = [one for one in inside if one.get("type") == "GENERATION"]
    if len(found) > 1:
        raise Unfit("is a trace with several generations; export the observations")
    if inside and not found:
        raise Unfit("is a trace without a generation")
    return {key: value for key, value in own.items() if value} | (found[0] if found else document)


def _asked(value: Any) -> tuple[Kind, dict[str, Any]]:
    """The request that an input stands for: a list of messages, an object with them, or one text, which is a user's."""
    value = _read(value)
    if isinstance(value, str) and value:
        return Kind.CHAT, {"messages": [{"role": "user", "content": value}]}
    if isinstance(value, list):
        return Kind.CHAT, {"messages": value}
    if isinstance(value, dict) and value.keys() & {"messages", "prompt", "input"}:
        return asked.kind_of(value), value
    raise Unfit("has an input that is neither messages nor a text")


def _settings(kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
    """Those of the model's parameters which are settings of a request."""
    found = _read(_get(document, "modelParameters"))
    if not isinstance(found, dict) or kind not in (Kind.CHAT, Kind.COMPLETION):
        return {}
    return {key: found[key] for key in sorted(_SETTINGS & found.keys()) if isinstance(found[key], int | float | list)}


def _answered(kind: Kind, value: Any) -> Answer | None:
    """The answer that an output stands for: a message or document, or else what the application kept of it."""
    if value is None:
        return None
    found = _read(value)
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict) and said.is_said(found[0]):
        found = found[0]
    if isinstance(found, dict) and (said.is_said(found) or (found.keys() <= _BARE and "content" in found)):
        return said.answer(kind, found)
    return Answer(value if isinstance(value, str) else said.compact(value))


def _read(value: Any) -> Any:
    """What text holds, where it is an object or a list in JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            return value
    return value


def _get(document: dict[str, Any], key: str) -> Any:
    """A field by its name in camel case, or in snake case."""
    found = document.get(key)
    return (
        document.get("".join(f"_{mark.lower()}" if mark.isupper() else mark for mark in key))
        if found is None
        else found
    )


def _type(document: dict[str, Any]) -> str:
    kind = document.get("type")
    return kind if isinstance(kind, str) else ""


def _is_observation(document: dict[str, Any]) -> bool:
    return _type(document) in _TYPES and bool(document.keys() & {"traceId", "trace_id", "startTime", "start_time"})


def _is_trace(document: dict[str, Any]) -> bool:
    return "timestamp" in document and "input" in document and "output" in document and "type" not in document


def _is_item(document: dict[str, Any]) -> bool:
    return "input" in document and bool(document.keys() & {"expectedOutput", "expected_output"})
