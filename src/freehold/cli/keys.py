"""The keys of callers. A key is shown when it is made and kept nowhere; only its hash is."""

from __future__ import annotations

import argparse

import msgspec

from freehold.cli import local
from freehold.types import Role


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold keys``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="create|list|revoke")
    create = commands.add_parser("create", help="make a key and show it, once")
    create.add_argument("name", help="who will use it")
    create.add_argument("--role", choices=[role.value for role in Role], default=Role.MEMBER.value)
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
    key, token = keys.create(arguments.name, Role(arguments.role), actor=local.actor())
    if arguments.json:
        local.print_json(msgspec.to_builtins(key) | {"key": token})
    else:
        print(f"{token}\n\nThis is the key of {key.name} ({key.role.value}). It is shown this once and kept nowhere.")
    return 0


def _list(keys, arguments: argparse.Namespace) -> int:
    found = keys.list()
    if arguments.json:
        local.print_json([msgspec.to_builtins(key) for key in found])
        return 0
    rows = [(key.id, key.name, key.role.value, local.when(key.created_at), local.when(key.revoked_at)) for key in found]
    local.table(rows, ("ID", "NAME", "ROLE", "MADE", "REVOKED"))
    return 0


def _revoke(keys, arguments: argparse.Namespace) -> int:
    key = keys.revoke(arguments.name, actor=local.actor())
    if arguments.json:
        local.print_json(msgspec.to_builtins(key))
    else:
        print(f"The key {key.name} ({key.id}) is revoked; it stops at its next request.")
    return 0


_COMMANDS = {"create": _create, "list": _list, "revoke": _revoke}
