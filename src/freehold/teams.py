"""What is decided of teams and of limits: each change and its event in the audit chain are one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection

from freehold import limits
from freehold.errors import CannotDo
from freehold.ledger import Ledger
from freehold.store import Store
from freehold.types import Limits, Subject, Team


class Office:
    """Where teams are made and limits are set. ``changed`` is told of each change in this process; others see it by
    the store."""

    def __init__(self, store: Store, ledger: Ledger, rules: limits.Rules):
        self._store, self._ledger = store, ledger
        self.rules, self.teams = rules, limits.Teams(store)

    def list(self) -> list[Team]:
        """Every team, by name."""
        return self.teams.list()

    def add(self, name: str, *, actor: str) -> Team:
        """Make a team. Raises CannotDo."""
        name = limits.check_name(name)
        self._do("team.added", name, actor, {}, lambda connection: limits.add_team(connection, name))
        return next(team for team in self.list() if team.name == name)

    def remove(self, name: str, *, actor: str) -> None:
        """Remove a team in which no live key is, and its limits. Raises CannotDo."""
        self._do("team.removed", name, actor, {}, lambda connection: limits.remove_team(connection, name))

    def join(self, key: str, name: str, team: str, *, actor: str) -> None:
        """Put the key of that id into a team and out of the one that it was in; '' puts it into none. From then on its
        calls are on that team. ``name`` is the key's. Raises CannotDo."""
        detail = {"name": name, "team": team}
        self._do("key.moved", key, actor, detail, lambda connection: limits.join(connection, key, team))

    def set(self, subject: Subject, says: Mapping[str, Any], *, actor: str) -> Limits:
        """Change some limits of a key or team; None leaves it to the default again. Returns all that it has then.

        Raises:
            CannotDo: a limit is negative, absurd or none that there is; or there is no such team.
        """
        limits.checked(says)
        detail: dict[str, Any] = {"of": subject.kind}

        def put(connection: Connection) -> None:
            """In the transaction that reads what there is: two who change it at once both have their way."""
            if subject.kind == limits.TEAM:
                limits.check_team(connection, subject.id)
            after = limits.checked(msgspec.structs.asdict(limits.says(connection, subject)) | dict(says))
            limits.put(connection, subject, after, actor)
            detail["limits"] = msgspec.to_builtins(after)

        self._do("limits.set", subject.id, actor, detail, put)
        return self.rules.get(subject)

    def unset(self, subject: Subject, *, actor: str) -> None:
        """Leave every limit of a key or team to the default. Raises CannotDo where nothing was said."""
        if not any(one.subject == subject for one in self.rules.every()):
            raise CannotDo(f"The {subject.kind} has no limits of its own.", hint="'freehold limits list' shows them.")
        put = lambda connection: limits.put(connection, subject, limits.NONE, actor)  # noqa: E731
        self._do("limits.unset", subject.id, actor, {"of": subject.kind}, put)

    def _do(
        self, act: str, subject: str, actor: str, detail: dict[str, Any], change: Callable[[Connection], None]
    ) -> None:
        self._ledger.record(act, subject, actor=actor, detail=detail, with_it=change)
        self._store.touch()
        self.rules.forget()
