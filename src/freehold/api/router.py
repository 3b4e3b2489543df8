"""From an HTTP request to a call and back: the path is looked up, the key is tied to a caller, the surface
reads and writes, `answer` does the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from freehold import policy
from freehold.answer import Beginning, House, answer
from freehold.api import base
from freehold.api.admin import Admin
from freehold.api.anthropic import Anthropic
from freehold.api.browser import Browser
from freehold.api.message import HttpRequest, HttpResponse
from freehold.api.openai import OpenAI
from freehold.auth import KeyRing
from freehold.errors import FreeholdError, MethodNotAllowed, ModelNotFound, NotFound, Stopping
from freehold.types import Caller, Request

EVENT_STREAM = "text/event-stream"
MODELS = "/v1/models"
METRICS = "/metrics"
_MOMENT = 0.05  # seconds


class _Call(Struct, frozen=True):
    """A path on which models are called."""

    surface: base.Surface
    form: base.Form


class Router:
    """The handler of the HTTP server."""

    def __init__(self, house: House, keys: KeyRing, admin: Admin, browser: Browser):
        self.house, self.keys, self.admin, self.browser = house, keys, admin, browser
        self.stopping = False
        self._openai, self._anthropic = OpenAI(), Anthropic()
        surfaces: tuple[base.Surface, ...] = (self._openai, self._anthropic)
        self._calls = {form.path: _Call(surface, form) for surface in surfaces for form in surface.forms}

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer one HTTP request. Raises FreeholdError, which `on_error` puts into the path's format."""
        if look := self.admin.open_to_all.get(request.path):
            _only(request, "GET", "HEAD")
            return look()
        call = self._calls.get(request.path)
        if call is None:
            return await self._other(request)
        _only(request, "POST")
        caller = _admitted(request) or self.keys.caller(_token(request))
        if self.stopping:
            raise Stopping("The server is stopping.")
        return await self._answer(request, caller, call)

    async def _other(self, request: HttpRequest) -> HttpResponse:
        """The paths on which no model is called."""
        if request.path in self.browser.paths:
            return await self.browser.handle(request)
        if request.path in self.admin.acts:
            return await self._act(request)
        if request.path == METRICS:
            _only(request, "GET", "HEAD")
            return await self.admin.metrics(self._reader(request), request.headers.get("accept", ""))
        return await self._look(request)

    def _reader(self, request: HttpRequest) -> Caller | None:
        """Who reads the metrics; None for this machine itself, where it needs no key."""
        token = _token(request)
        return None if token is None and self.admin.is_open_to(request) else self.keys.caller(token)

    def gate(self, request: HttpRequest) -> tuple[Caller, float] | None:
        """Before a body is taken in: whose key is it, and since when; and is there anything to send it to?"""
        if request.path in self.admin.open_to_all:
            return None
        if request.path in self.browser.paths:
            return self.browser.gate(request)
        caller = self.keys.caller(_token(request))
        if request.path in self._calls:
            _only(request, "POST")
        return caller, time.monotonic()

    def on_error(self, path: str, request_id: str, error: FreeholdError) -> HttpResponse:
        """An error in the format of the path on which it happened."""
        if path in self.browser.paths:
            return self.browser.on_error(error)
        surface = self._anthropic if path.startswith("/v1/messages") else self._openai
        headers = error.headers
        if error.retry_after is not None:
            headers = (*headers, ("retry-after", str(error.retry_after)))
        if error.status == 401:
            headers = (("www-authenticate", 'Bearer realm="freehold"'),)
        body = base.document_bytes(surface.error(error, request_id))
        return HttpResponse(error.status, body, headers=headers)

    async def _answer(self, request: HttpRequest, caller: Caller, call: _Call) -> HttpResponse:
        def read(aim: base.Aiming) -> Request:
            return call.surface.read(call.form, request.headers, request.body, self.house.upstreams, aim)

        traceparent = request.headers.get("traceparent", "")
        pieces = answer(self.house, request.id, caller, call.form.kind, read, traceparent)
        begun = await anext(pieces)
        if begun.media_type == EVENT_STREAM:
            return HttpResponse(200, _guarded(pieces, call, request.id), EVENT_STREAM, begun.headers)
        body = b"".join([piece async for piece in pieces])
        return HttpResponse(200, body, begun.media_type or "application/json", begun.headers)

    async def _act(self, request: HttpRequest) -> HttpResponse:
        """The paths that do something; some of them show something too."""
        if request.path in self.admin.pages and request.method != "POST":
            return await self._look(request)
        caller = self.keys.caller(_token(request))
        _only(request, "POST")
        act, do = self.admin.acts[request.path]
        document = base.read_json(request.headers, request.body)
        base.convert(document, act.schema)
        return await asyncio.to_thread(do, caller, msgspec.convert(document, act.schema))

    async def _look(self, request: HttpRequest) -> HttpResponse:
        """The paths that only show something, each to a caller with a key."""
        known = request.path in self.admin.pages or request.path == MODELS or request.path.startswith(MODELS + "/")
        caller = self.keys.caller(_token(request))  # before 404: what exists is nobody's business without a key
        if not known:
            raise NotFound(f"There is no {request.path} here.", hint="See /openapi.json for what there is.")
        _only(request, "GET", "HEAD")
        if page := self.admin.pages.get(request.path):
            shown = page(caller)
            return shown if isinstance(shown, HttpResponse) else await shown
        return HttpResponse(200, base.document_bytes(self._models(request, caller)))

    def _models(self, request: HttpRequest, caller: Caller) -> dict[str, Any]:
        """The models that the caller may call, as the SDK that asks expects them."""
        shape = _anthropic_model if "anthropic-version" in request.headers else _openai_model
        there, owners = self.house.models(), self.house.upstreams
        known = {name: (manifest.admitted_at, owners.get(name, "you")) for name, manifest in there.items()}
        for name, alias in self.house.aliases().items():
            if name not in there or name in owners:  # else it is a model of the vault, which no alias hides
                known[name] = (0.0, alias.target.upstream or "you")  # nobody admitted it, as an upstream's
        for limits in self.house.leases.limits(caller):
            known = {name: facts for name, facts in known.items() if policy.allows(limits, *self._called(name))}
        models = [shape(name, *facts) for name, facts in sorted(known.items())]
        if request.path == MODELS:
            ends = {"has_more": False, "first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
            return {"object": "list", "data": models} | (ends if shape is _anthropic_model else {})
        wanted = unquote(request.path.removeprefix(MODELS + "/"))  # an adapter's name has signs that clients escape
        for model in models:
            if model["id"] == wanted:
                return model
        raise ModelNotFound(f"There is no model {wanted!r} here.", hint=f"GET {MODELS} lists them.", param="model")

    def _called(self, name: str) -> tuple[str, str]:
        """The model that answers under a name, and the name; in a canary either may, and the rest counts here."""
        alias = self.house.aliases().get(name)
        hides = alias is None or (name in self.house.models() and name not in self.house.upstreams)
        return (name, "") if hides else (alias.target.model, name)


async def _guarded(pieces: AsyncIterator[Beginning | bytes], call: _Call, request_id: str) -> AsyncIterator[bytes]:
    """A stream whose failure, once it has begun, is its last event."""
    try:
        async for piece in pieces:
            yield piece  # type: ignore[misc] - only the first, already taken, is not bytes
    except FreeholdError as error:
        yield call.surface.stream_error(call.form, error, request_id)
    finally:
        await pieces.aclose()  # type: ignore[attr-defined] - now, not when it is collected


def _admitted(request: HttpRequest) -> Caller | None:
    """Whom the gate let in with this request, if that was a moment ago: a body may take its time, and a request may
    wait behind others, and the key be revoked meanwhile."""
    if request.admitted is None:
        return None
    caller, at = request.admitted
    return caller if time.monotonic() - at < _MOMENT else None


def _token(request: HttpRequest) -> str | None:
    """The key that came with a request, in OpenAI's header or in Anthropic's."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("x-api-key") or None


def _only(request: HttpRequest, *methods: str) -> None:
    if request.method not in methods:
        raise MethodNotAllowed(f"{request.path} takes {methods[0]}, not {request.method}.", hint="See /openapi.json.")


def _openai_model(name: str, admitted_at: float, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(admitted_at), "owned_by": owner}


def _anthropic_model(name: str, admitted_at: float, _owner: str) -> dict[str, Any]:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(admitted_at))
    return {"id": name, "type": "model", "display_name": name, "created_at": created}
