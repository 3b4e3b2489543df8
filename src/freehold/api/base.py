"""What a surface is: one vendor's wire format, read strictly and written exactly.

A surface turns a body into a checked `Request`, and an error into the vendor's own error. Every field that
a vendor documents is either sent on, known to change nothing (``harmless``), accepted only in the value
that means nothing (``neutral``), or refused with the reason (``refused``); any other is an unknown field.
Nothing is dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Struct

from freehold.errors import BadRequest, FreeholdError, Unsupported, WrongMediaType
from freehold.types import Aim, Kind, Request

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_MAX_DEPTH = 100  # brackets inside brackets; whoever reads it next may recurse
_MAX_BRACKETS = 200_000  # an object in memory is many times larger than its two brackets
_MAX_DEPTH_HINT = f"At most {_MAX_DEPTH} levels."


Text = Annotated[str, Meta(min_length=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=1 << 24)]


class Strict(Struct, forbid_unknown_fields=True):
    """Every object on the wire: an unknown field is an error."""


class Form(Struct, frozen=True):
    """How the body of one kind of call is read."""

    kind: Kind
    path: str
    schema: type
    summary: str
    streams: bool = False
    harmless: frozenset[str] = frozenset()
    neutral: Mapping[str, tuple[Any, ...]] = {}
    refused: Mapping[str, str] = {}


Aiming = Callable[[dict[str, Any]], Aim]  # what the name in a document leads to


def as_named(document: dict[str, Any]) -> Aim:
    """The model that a document names, where there are no aliases."""
    model = document.get("model")
    return Aim(model if isinstance(model, str) else "")


class Surface(Protocol):
    """One vendor's wire format."""

    forms: tuple[Form, ...]

    def read(
        self, form: Form, headers: Mapping[str, str], body: bytes, upstreams: Container[str] = (),
        aim: Aiming = as_named,
    ) -> Request:  # fmt: skip
        """The checked request, to the model that ``aim`` finds for it; one for a model of the ``upstreams`` is read and
        not checked, which is for them to do.

        Raises:
            ModelNotFound: as ``aim`` does.
            BadRequest, Unsupported, WrongMediaType: it cannot be read, or asks for what is not done.
        """

    def error(self, error: FreeholdError, request_id: str) -> dict[str, Any]:
        """The error document of this vendor."""

    def stream_error(self, form: Form, error: FreeholdError, request_id: str) -> bytes:
        """The event that ends a stream which went wrong."""


def read_json(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The JSON object in a body, without the fields that are null: leaving out and null mean the same."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise WrongMediaType(
            f"The body is {media_type or 'of no stated type'}.", hint="Send JSON with 'Content-Type: application/json'."
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongMediaType("The body is compressed.", hint="Send it as it is.")
    brackets = body.count(b"[") + body.count(b"{")
    if brackets > _MAX_BRACKETS:
        raise BadRequest(f"The body has more than {_MAX_BRACKETS:,} brackets.", hint="Send less at once.")
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not JSON: {error}.", hint="") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.", hint=_MAX_DEPTH_HINT) from None
    if brackets > _MAX_DEPTH and _depth(document) > _MAX_DEPTH:
        raise BadRequest("The body is nested too deeply.", hint=_MAX_DEPTH_HINT)
    if not isinstance(document, dict):
        raise BadRequest("The body is not a JSON object.", hint="Send {...}.")
    return {key: value for key, value in document.items() if value is not None}


def passed_on(form: Form, document: dict[str, Any], body: bytes, upstreams: Container[str], to: Aim) -> Request | None:
    """The request as it came, if an upstream runs its model: the fields are the upstream's to judge, not ours."""
    if to.model not in upstreams:
        return None
    return request(form, to, document, stream=document.get("stream") is True, sent=body)


def request(form: Form, to: Aim, body: dict[str, Any], *, stream: bool, sent: bytes = b"") -> Request:
    """The request to what its name leads to."""
    return Request(form.kind, to.model, body, stream, sent, to.alias, to.candidate)


def _depth(document: Any) -> int:
    """How many containers lie in each other, up to one more than is allowed."""
    level, depth = [document] if isinstance(document, dict | list) else [], 0
    while level and depth <= _MAX_DEPTH:
        inner = (value for node in level for value in (node.values() if isinstance(node, dict) else node))
        level = [value for value in inner if isinstance(value, dict | list)]
        depth += 1
    return depth


def check(form: Form, document: dict[str, Any]) -> dict[str, Any]:
    """Hold a document against a form. Returns what is to be sent on.

    Raises:
        Unsupported: it asks for something that is not done here.
        BadRequest: a field is unknown, missing or has a wrong value.
    """
    for field, values in form.neutral.items():
        if field in document and document[field] not in values:
            raise Unsupported(f"{field} = {_short(document[field])} is not done here.", hint=_only(values), param=field)
    for field, reason in form.refused.items():
        if field in document:
            raise Unsupported(f"{field} is not done here: {reason}", hint="Leave it out.", param=field)
    silent = form.harmless | form.neutral.keys()
    kept = {key: value for key, value in document.items() if key not in silent}
    convert(kept, form.schema)
    return kept


def convert(value: Any, schema: type, where: str = "") -> None:
    """Hold a value against a schema. Raises BadRequest that names the field, below ``where``."""
    try:
        msgspec.convert(value, schema)
    except msgspec.ValidationError as error:
        raise _wrong(str(error), where) from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.", hint=_MAX_DEPTH_HINT) from None


def text_only(parts: Any, allowed: frozenset[str], param: str) -> None:
    """Refuse content parts of any type but those allowed, by name, before the schema gives a vaguer answer."""
    if not isinstance(parts, list):
        return
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in allowed:
            raise Unsupported(f"A content part of type {kind!r} is not read here: this model reads text.", param=param)


def document_bytes(document: Any) -> bytes:
    """A document as it goes over the wire."""
    return msgspec.json.encode(document)


def event(document: dict[str, Any], name: str | None = None) -> bytes:
    """One server-sent event."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + msgspec.json.encode(document) + b"\n\n"


def _wrong(said: str, where: str) -> BadRequest:
    """msgspec's words as a sentence that names the field."""
    found = _AT.match(said)
    what, path = (found["what"], found["path"]) if found else (said, None)
    field = (path or "$").removeprefix("$").lstrip(".")
    if named := _MISSING.match(what):
        field = f"{field}.{named[1]}" if field else named[1]
        what = "it is missing"
    elif named := _UNKNOWN.match(what):
        field = f"{field}.{named[1]}" if field else named[1]
        what = "there is no such field"
    field = f"{where}.{field}".strip(".") if where else field
    what = what[0].lower() + what[1:]
    hint = "See /openapi.json for the fields."
    return BadRequest(f"{field}: {what}." if field else f"The body: {what}.", hint=hint, param=field or None)


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode(errors="replace")
    return text if len(text) <= 60 else text[:57] + "..."


def _only(values: tuple[Any, ...]) -> str:
    return "Leave it out" + (f", or send {' or '.join(_short(value) for value in values)}." if values else ".")
