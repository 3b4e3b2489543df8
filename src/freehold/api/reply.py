"""What the pages of /admin have in common: who may, what an answer is made of, and what cannot be done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from freehold import policy
from freehold.api.message import HttpResponse
from freehold.errors import BadRequest, CannotDo, Conflict, Forbidden
from freehold.samples import ORDER_ONLY
from freehold.types import Action, Caller


def allow(caller: Caller, action: Action) -> None:
    """Raises Forbidden where the caller's role may not."""
    decision = policy.may(caller, action)
    if not decision.allowed:
        raise Forbidden(decision.reason)


def as_json(status: int, content: dict[str, Any], *headers: tuple[str, str]) -> HttpResponse:
    """A document."""
    return HttpResponse(status, msgspec.json.encode(content), headers=headers)


def done(change: Callable[[], Any]) -> Any:
    """What a change gives. Raises Conflict where it cannot be made as things stand."""
    try:
        return change()
    except CannotDo as error:
        raise Conflict(error.message, hint=error.hint) from None


def instant(text: str, field: str) -> float:
    """A day or a time, of UTC where it names no zone. Raises BadRequest."""
    try:
        found = datetime.fromisoformat(text)
        at = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        at = 0.0
    if at < ORDER_ONLY:
        raise BadRequest(f"{field} is no date after 1973.", hint="Write it like 2026-05-03.", param=field)
    return at
