"""Freehold's own format, which `export` writes: one call a line.

    {"id": "c-17", "time": "2026-05-03T10:00:00Z", "group": "ticket-9", "model": "the-incumbent",
     "kind": "chat.completions", "request": {"messages": [...]}, "answer": "...", "expected": {...},
     "rerun": "...", "terms": "...", "caller": "...", "metadata": {...}}

``request`` alone is needed, and one of ``answer`` and ``expected``. ``metadata`` is read for the task's group, and not
kept. A ``time`` under 100,000,000 is a place in an order.
"""

from __future__ import annotations

from typing import Any

from freehold import said
from freehold.said import Unfit
from freehold.traffic import asked
from freehold.traffic.line import Given, checked, group, instant, name
from freehold.types import Answer, Kind, Sample

FORMAT = "freehold"
_FIELDS = frozenset(
    {
        "id", "time", "group", "model", "kind", "request", "answer", "expected", "rerun", "terms", "caller", "metadata",
    }
)  # fmt: skip


def recognises(document: Any) -> bool:
    """A line with a request in it."""
    return isinstance(document, dict) and isinstance(document.get("request"), dict) and "custom_id" not in document


def sample(document: dict[str, Any], given: Given) -> Sample:
    """See `line.Format`."""
    if unknown := sorted(document.keys() - _FIELDS):
        raise Unfit(f"has an unknown field {unknown[0][:40]!r}")
    body = document.get("request")
    kind = asked.kind(document.get("kind")) or asked.kind_of(body if isinstance(body, dict) else {})
    model = document.get("model")
    if model is None:
        model = (body.get("model") if isinstance(body, dict) else None) or given.incumbent
    terms = document.get("terms")
    return checked(
        Sample(
            id=name(document.get("id"), "id"),
            request=asked.request(kind, body),
            kind=kind,
            answer=_answer(kind, document.get("answer")),
            expected=said.expected(kind, document.get("expected")),
            group=group(document, given, name(document.get("group"), "group"), need=False),
            at=instant(document.get("time"), given.now),
            incumbent=name(model, "model"),
            terms=_terms(terms) if terms is not None else given.terms,
            caller=name(document.get("caller"), "caller"),
            rerun=_answer(kind, document.get("rerun")),
        )
    )


def line(sample: Sample) -> dict[str, Any]:
    """A call as a document of this format; `sample` makes the same call of it."""
    document: dict[str, Any] = {"id": sample.id, "time": sample.at, "model": sample.incumbent, "kind": sample.kind}
    document |= {name: value for name in ("group", "caller") if (value := getattr(sample, name))}
    document |= {"request": sample.request, "terms": sample.terms}
    found = {name: getattr(sample, name) for name in ("answer", "expected", "rerun")}
    return document | {name: _written(one) for name, one in found.items() if one is not None}


def _answer(kind: Kind, document: Any) -> Answer | None:
    return None if document is None else said.answer(kind, document)


def _written(one: Answer) -> Any:
    return said.message(one) if one.tools else one.text


def _terms(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit("has terms that are no text")
    return value
