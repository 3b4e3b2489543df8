"""Who may call, and how much, over the wire: keys, teams and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from freehold import policy
from freehold.answer import House
from freehold.api import acts
from freehold.api.message import HttpResponse
from freehold.api.reply import allow, as_json, done
from freehold.auth import KeyRing
from freehold.errors import BadRequest, Conflict
from freehold.limits import KEY, TEAM
from freehold.teams import Office
from freehold.types import Action, Caller, Limits, Role, Subject, Used


class People:
    """``pages`` show, ``acts`` change, each for those whose role allows it."""

    def __init__(self, house: House, keys: KeyRing, office: Office):
        self._house, self._keys, self._office = house, keys, office
        self.pages: dict[str, Callable[[Caller], Awaitable[HttpResponse]]] = {
            "/admin/keys": self.keys,
            "/admin/limits": self.limits,
            "/admin/teams": self.teams,
        }
        self.acts: dict[str, tuple[acts.Act, Callable[[Caller, Any], HttpResponse]]] = {
            acts.KEYS.path: (acts.KEYS, self.change_keys),
            acts.TEAMS.path: (acts.TEAMS, self.change_teams),
            acts.LIMITS.path: (acts.LIMITS, self.change_limits),
        }

    async def keys(self, caller: Caller) -> HttpResponse:
        """Every key, live and revoked."""
        allow(caller, Action.PEOPLE)
        found = await asyncio.to_thread(self._keys.list)
        return as_json(200, {"keys": [msgspec.to_builtins(key) for key in found]})

    async def teams(self, caller: Caller) -> HttpResponse:
        """Every team."""
        allow(caller, Action.PEOPLE)
        found = await asyncio.to_thread(self._office.list)
        return as_json(200, {"teams": [msgspec.to_builtins(team) for team in found]})

    async def limits(self, caller: Caller) -> HttpResponse:
        """What holds for the caller, and how far it is used, with what is reserved by calls in hand. To those who may
        see everybody's, theirs too."""
        allow(caller, Action.OWN)
        leases = self._house.leases
        shown = {"yours": [_standing(*one) for one in await leases.used(caller)]}
        if policy.may(caller, Action.PEOPLE).allowed:
            keys, rows = await asyncio.to_thread(lambda: (self._keys.list(), self._office.rules.every()))
            names = {key.id: key.name for key in keys}
            shown["set"] = [
                {"of": one.subject.kind, "name": names.get(one.subject.id, one.subject.id)}
                | {"limits": msgspec.to_builtins(one.limits), "at": one.at, "by": one.by}
                for one in rows
            ]
            callers = [Caller(key.id, key.name, Role.MEMBER, key.team) for key in keys if key.is_live]
            standings = {whose: (whose, own, used) for one in callers for whose, own, used in await leases.used(one)}
            shown["everybody"] = [_standing(*standing) for standing in standings.values()]
        return as_json(200, shown)

    def change_keys(self, caller: Caller, wanted: acts.Keys) -> HttpResponse:
        """Make or revoke a key."""
        allow(caller, Action.KEYS)
        if wanted.act == "create":
            key, token = done(
                lambda: self._keys.create(
                    wanted.name, Role(wanted.role), actor=caller.id, team=wanted.team, expires_at=wanted.expires_at
                )
            )
            return as_json(200, msgspec.to_builtins(key) | {"key": token})
        return as_json(200, msgspec.to_builtins(done(lambda: self._keys.revoke(wanted.name, actor=caller.id))))

    def change_teams(self, caller: Caller, wanted: acts.Teams) -> HttpResponse:
        """Make or remove a team, or move a key."""
        allow(caller, Action.LIMITS)
        by, office = caller.id, self._office
        if wanted.act in ("join", "leave"):
            if not wanted.key:
                raise BadRequest("key is missing.", hint="Name the key that is to be moved.", param="key")
            key = done(lambda: self._keys.get(wanted.key))
            if wanted.act == "leave" and key.team != wanted.team:
                raise Conflict(f"The key {key.name!r} is not in the team {wanted.team!r}.", hint="See /admin/keys.")
            team = wanted.team if wanted.act == "join" else ""
            done(lambda: office.join(key.id, key.name, team, actor=by))
            return as_json(200, {"key": key.name, "team": team})
        if wanted.act == "add":
            return as_json(200, msgspec.to_builtins(done(lambda: office.add(wanted.team, actor=by))))
        done(lambda: office.remove(wanted.team, actor=by))
        return as_json(200, {"team": wanted.team, "removed": True})

    def change_limits(self, caller: Caller, wanted: acts.SetLimits) -> HttpResponse:
        """Set or unset limits."""
        allow(caller, Action.LIMITS)
        if bool(wanted.key) == bool(wanted.team):
            raise BadRequest("Limits are of a key or of a team.", hint="Name one of the two.", param="key")
        if wanted.act == "set" and not wanted.limits:
            raise BadRequest("limits is missing.", hint="Say what is to be changed.", param="limits")
        of = Subject(KEY, done(lambda: self._keys.get(wanted.key)).id) if wanted.key else Subject(TEAM, wanted.team)
        if wanted.act == "unset":
            done(lambda: self._office.unset(of, actor=caller.id))
            return as_json(200, {"limits": {}})
        says = done(lambda: self._office.set(of, wanted.limits, actor=caller.id))
        return as_json(200, {"limits": msgspec.to_builtins(says)})


def _standing(whose: str, limits: Limits, used: list[Used]) -> dict[str, Any]:
    shown = [msgspec.to_builtins(one) | {"left": one.left} for one in used]
    return {"of": whose, "limits": msgspec.to_builtins(limits), "used": shown}
