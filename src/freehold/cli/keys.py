"""The keys of callers. A key is shown when it is made and kept nowhere; only its hash is."""

from __future__ import annotations

import argparse

import msgspec

from freehold.auth import Key
from freehold.cli import local
from freehold.types import Role


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold keys``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="create|list|revoke")
    create = commands.add_parser("create", help="make a key and show it, once")
    create.add_argument("name", help="who will use it")
    create.add_argument("--role", choices=[role.value for role in Role], default=Role.MEMBER.value)
    create.add_argument("--team", default="", help="the team that it is in: see 'freehold teams'")
    create.add_argument("--expires", metavar="DATE", help="when it ends, as 2027-03-31 (ISO 8601)")
    listing = commands.add_parser("list", help="every key, live and revoked")
    revoke = commands.add_parser("revoke", help="end a key; it stops at its next request")
    revoke.add_argument("name", help="its name or id")
    for command in (create, listing, revoke):
        command.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Make, list or revoke."""
    with local.opened(arguments, create=arguments.command == "create") as parts:
        return _COMMANDS[arguments.command](parts.keys, arguments)


def _create(keys, arguments: argparse.Namespace) -> int:
    expires_at = local.date(arguments.expires) if arguments.expires else None
    key, token = keys.create(
        arguments.name, Role(arguments.role), actor=local.actor(), team=arguments.team, expires_at=expires_at
    )
    if arguments.json:
        local.print_json(msgspec.to_builtins(key) | {"key": token})
    else:
        who = f"{key.name} ({key.role}{', team ' + key.team if key.team else ''})"
        until = f" It is good until {local.when(key.expires_at)}." if key.expires_at else ""
        print(f"{token}\n\nThis is the key of {who}. It is shown this once and kept nowhere.{until}")
    return 0


def _list(keys, arguments: argparse.Namespace) -> int:
    found = keys.list()
    if arguments.json:
        local.print_json([msgspec.to_builtins(key) for key in found])
        return 0
    local.table([_row(key) for key in found], ("ID", "NAME", "ROLE", "TEAM", "MADE", "ENDS", "REVOKED"))
    return 0


def _row(key: Key) -> tuple[str, ...]:
    role = key.role if key.role in set(Role) else f"{key.role} (unknown: it may do nothing)"
    ends = local.when(key.expires_at)
    if key.revoked_at is None and not key.is_live:
        ends += " (expired)"
    return key.id, key.name, role, key.team, local.when(key.created_at), ends, local.when(key.revoked_at)


def _revoke(keys, arguments: argparse.Namespace) -> int:
    key = keys.revoke(arguments.name, actor=local.actor())
    if arguments.json:
        local.print_json(msgspec.to_builtins(key))
    else:
        print(f"The key {key.name} ({key.id}) is revoked; it stops at its next request.")
    return 0


_COMMANDS = {"create": _create, "list": _list, "revoke": _revoke}
