"""Policy: a caller and what it wants give a decision.

`TABLE` is the only place that says what a role may do. The request path and /admin ask it; the commands do not, since
whoever owns the home's files owns everything in it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from freehold.budget import ANSWERS, asked_for, choices_of, unclear
from freehold.types import Action, Caller, Decision, Limits, Request, Role

_RUNS = {Action.OWN, Action.LOOK, Action.LEDGER, Action.AUDIT, Action.PEOPLE}  # what it takes to see
TABLE: dict[Role, frozenset[Action]] = {
    Role.ADMIN: frozenset(Action),
    Role.OPERATOR: frozenset({*_RUNS, Action.CALL, Action.TELL, Action.MOVE}),
    Role.MEMBER: frozenset({Action.CALL, Action.TELL, Action.OWN}),
    Role.AUDITOR: frozenset({*_RUNS, Action.EXPORT}),
}


def may(caller: Caller, action: Action) -> Decision:
    """May this caller do that? A role that is not in the table may do nothing."""
    if action in TABLE.get(caller.role, ()):
        return Decision(True)
    return Decision(False, f"The role of {caller.name!r} is {caller.role}, which may not {action}.")


def decide(caller: Caller, request: Request, limits: Iterable[tuple[str, Limits]] = ()) -> Decision:
    """May this caller make this call? ``limits`` are those that hold for it, each with whose they are: a model must be
    allowed by all of them, under the name that was sent or under its own."""
    decision = may(caller, Action.CALL)
    if not decision.allowed:
        return decision
    for whose, limit in limits:
        if limit.models and not allows(limit, request.model, request.alias):
            listed = ", ".join(limit.models)
            return Decision(False, f"{whose} may not call {request.alias or request.model!r}. It may call: {listed}.")
        if limit.max_tokens and request.kind in ANSWERS:
            if name := unclear(request):
                return Decision(False, f"{whose} has a limit on answers, and {name} is no whole number.")
            asked, choices = asked_for(request), choices_of(request)
            if asked is not None and asked * choices > limit.max_tokens:
                said = f"{whose} may ask for {limit.max_tokens:,} tokens of answer in one call"
                return Decision(False, f"{said}, and this one asks for {asked * choices:,}.")
            if asked is None and (request.sent or choices > limit.max_tokens):
                said = f"{whose} may ask for {limit.max_tokens:,} tokens of answer in one call"
                return Decision(False, f"{said}, and this one must say for how many: {ANSWERS[request.kind][-1]}.")
    return Decision(True)


def within(request: Request, limits: Iterable[tuple[str, Limits]]) -> Request:
    """The request, held to the longest answer that the limits allow where it does not say how long it may be. One to an
    upstream says it: `decide`."""
    most = min((limit.max_tokens for _, limit in limits if limit.max_tokens), default=0)
    if not most or request.sent or request.kind not in ANSWERS or asked_for(request) is not None:
        return request
    body = request.body | {ANSWERS[request.kind][0]: most // choices_of(request)}
    return msgspec.structs.replace(request, body=body)


def allows(limits: Limits, model: str, alias: str = "") -> bool:
    """May the model be called, as far as the list of models goes?"""
    return not limits.models or model in limits.models or (alias != "" and alias in limits.models)


def table() -> list[tuple[Action, dict[Role, bool]]]:
    """The table row by row, for the reference."""
    return [(action, {role: action in TABLE[role] for role in Role}) for action in Action]
