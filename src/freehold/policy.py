"""Policy: a caller and a request give a decision."""

from __future__ import annotations

from freehold.types import Caller, Decision, Request, Role

MAY_CALL = frozenset({Role.ADMIN, Role.OPERATOR, Role.MEMBER})
MAY_LOOK = frozenset({Role.ADMIN, Role.OPERATOR, Role.AUDITOR})
MAY_ERASE = frozenset({Role.ADMIN})
MAY_MOVE = frozenset({Role.ADMIN, Role.OPERATOR})


def decide(caller: Caller, request: Request) -> Decision:
    """May this caller make this call?"""
    if caller.role not in MAY_CALL:
        return Decision(
            False, f"The role of {caller.name!r} is {caller.role.value}, which may look but not call {request.model!r}."
        )
    return Decision(True)


def may_look(caller: Caller) -> Decision:
    """May this caller see the state of the server?"""
    if caller.role not in MAY_LOOK:
        return Decision(
            False,
            f"The role of {caller.name!r} is {caller.role.value}, which may call models but not look at the server.",
        )
    return Decision(True)


def may_move(caller: Caller) -> Decision:
    """May this caller point an alias elsewhere?"""
    if caller.role not in MAY_MOVE:
        return Decision(False, f"The role of {caller.name!r} is {caller.role.value}, which may not move an alias.")
    return Decision(True)


def may_erase(caller: Caller) -> Decision:
    """May this caller have recorded calls erased?"""
    if caller.role not in MAY_ERASE:
        return Decision(
            False, f"The role of {caller.name!r} is {caller.role.value}, which may not erase recorded calls."
        )
    return Decision(True)


def may_judge(caller: Caller) -> Decision:
    """May this caller say what became of its calls? Whoever may make some."""
    if caller.role not in MAY_CALL:
        return Decision(False, f"The role of {caller.name!r} is {caller.role.value}, which makes no calls.")
    return Decision(True)
