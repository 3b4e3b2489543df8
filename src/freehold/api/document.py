"""The OpenAPI document, made from the same types that check the requests."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

import freehold
from freehold.api import acts, anthropic, base, openai

_REF = "#/components/schemas/{name}"
_ANY_JSON = {"application/json": {"schema": {"type": "object"}}}
_ERRORS = {
    "400": "the request is at fault, and the message says how",
    "401": "no key, or one that is unknown, revoked or past its end",
    "403": "the caller may not do this",
    "404": "no such model or path",
    "405": "another method is wanted",
    "408": "the request did not arrive in time",
    "409": "it cannot be done as things stand",
    "413": "the body is too large",
    "415": "the body is not JSON",
    "429": "more than a limit allows of calls, tokens or money, or the line is full",
    "431": "the headers are too large",
    "502": "the engine died; it is being restarted",
    "503": "the call waited too long, the engine does not come up, the server is stopping, or the ledger fails",
}


@cache
def openapi() -> dict[str, Any]:
    """The document. Version 3.1, whose schemas are JSON Schema 2020-12, which is what msgspec writes."""
    forms = (*openai.OpenAI.forms, *anthropic.Anthropic.forms)
    schemas = [form.schema for form in forms] + [act.schema for act in acts.EVERY]
    references, components = msgspec.json.schema_components(schemas, ref_template=_REF)
    paths = {form.path: {"post": _call(form, schema)} for form, schema in zip(forms, references, strict=False)}
    for path, (summary, keyed) in LOOKS.items():
        paths[path] = {"get": _look(summary, keyed=keyed)}
    paths["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    for act, schema in zip(acts.EVERY, references[len(forms) :], strict=True):
        paths[act.path] = paths.get(act.path, {}) | {"post": _act(act, schema)}
    paths["/v1/models/{model}"]["get"]["parameters"] = [
        {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Freehold", "version": freehold.__version__},
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


LOOKS = {
    "/healthz": ("The process is alive", False),
    "/readyz": ("Calls are answered", False),
    "/v1/models": ("The models that can be called", True),
    "/v1/models/{model}": ("One model", True),
    "/admin/aliases": ("What each alias points at, and how its canary goes", True),
    "/admin/audit/head": ("Where the audit chain ends, and its latest checkpoint", True),
    "/admin/keys": ("Every key, live and revoked", True),
    "/admin/limits": (
        "The limits that hold for whoever asks, and how far they are used; everybody's, for who may",
        True,
    ),
    "/admin/queue": ("Who is answered and who waits", True),
    "/admin/traffic": ("How long recorded calls are kept, and with which key", True),
    "/admin/status": ("What is true now", True),
    "/admin/teams": ("Every team, with its live keys", True),
    "/metrics": ("The figures of the house, in Prometheus' text format", True),
    "/openapi.json": ("This document", True),
}


def _call(form: base.Form, schema: dict[str, Any]) -> dict[str, Any]:
    content = dict(_ANY_JSON)
    if form.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "summary": form.summary,
        "operationId": form.kind.value,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "the answer", "content": content}} | _errors(),
    }


def _act(act: acts.Act, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": act.summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "done", "content": _ANY_JSON}} | _errors(),
    }


def _look(summary: str, *, keyed: bool) -> dict[str, Any]:
    look: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "as asked", "content": _ANY_JSON}} | _errors(),
    }
    return look if keyed else look | {"security": []}


def _errors() -> dict[str, Any]:
    return {status: {"description": said, "content": _ANY_JSON} for status, said in _ERRORS.items()}
