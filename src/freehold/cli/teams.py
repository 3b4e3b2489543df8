"""Teams of keys. A key is in one team at most, and each of its calls is on the team that it was in then. A team can
have limits of its own ('freehold limits set --team'), which hold for all of its keys together."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import msgspec

from freehold.cli import local
from freehold.errors import CannotDo

if TYPE_CHECKING:
    from freehold.app import Parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold teams``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="add|list|remove|join|leave")
    add = commands.add_parser("add", help="make a team")
    listing = commands.add_parser("list", help="every team, with its live keys")
    remove = commands.add_parser("remove", help="remove a team in which no live key is, with its limits")
    join = commands.add_parser("join", help="put a key into a team, and out of the one that it was in")
    leave = commands.add_parser("leave", help="take a key out of its team")
    for command in (join, leave):
        command.add_argument("key", help="its name or id")
    for command in (add, remove, join):
        command.add_argument("team", help="the team's name")
    for command in (add, listing, remove, join, leave):
        command.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Make, list or remove, or move a key."""
    with local.opened(arguments) as parts:
        return _COMMANDS[arguments.command](parts, arguments)


def _add(parts: Parts, arguments: argparse.Namespace) -> int:
    team = parts.office.add(arguments.team, actor=local.actor())
    return _say(
        arguments,
        msgspec.to_builtins(team),
        f"There is a team {team.name}; 'freehold teams join KEY {team.name}' fills it.",
    )


def _list(parts: Parts, arguments: argparse.Namespace) -> int:
    found = parts.office.list()
    if arguments.json:
        local.print_json([msgspec.to_builtins(team) for team in found])
    else:
        rows = [(team.name, local.when(team.created_at), ", ".join(team.members)) for team in found]
        local.table(rows, ("TEAM", "MADE", "KEYS"))
    return 0


def _remove(parts: Parts, arguments: argparse.Namespace) -> int:
    parts.office.remove(arguments.team, actor=local.actor())
    return _say(arguments, {"team": arguments.team, "removed": True}, f"The team {arguments.team} is removed.")


def _join(parts: Parts, arguments: argparse.Namespace) -> int:
    key = parts.keys.get(arguments.key)
    parts.office.join(key.id, key.name, arguments.team, actor=local.actor())
    said = f"The key {key.name} is in the team {arguments.team}, from its next request on."
    return _say(arguments, {"key": key.name, "team": arguments.team}, said)


def _leave(parts: Parts, arguments: argparse.Namespace) -> int:
    key = parts.keys.get(arguments.key)
    if not key.team:
        raise CannotDo(f"The key {key.name!r} is in no team.", hint="'freehold keys list' shows the keys.")
    parts.office.join(key.id, key.name, "", actor=local.actor())
    return _say(arguments, {"key": key.name, "team": ""}, f"The key {key.name} is in no team any more.")


def _say(arguments: argparse.Namespace, document: dict, sentence: str) -> int:
    if arguments.json:
        local.print_json(document)
    else:
        print(local.plain(sentence))
    return 0


_COMMANDS = {"add": _add, "list": _list, "remove": _remove, "join": _join, "leave": _leave}
