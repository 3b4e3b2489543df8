"""The guard: what is done with secrets and personal data on their way to an engine of the house, to an upstream and to
the disk. 'show' has the rules that hold, 'try' what they make of a text, which goes nowhere. The rules stand in
freehold.toml, under [guard]; docs/guides/guard.md has all of them."""

from __future__ import annotations

import argparse
import sys

import msgspec

from freehold import config
from freehold.cli import local
from freehold.errors import CannotDo
from freehold.guard import Destination, Guard, Trial

_LONGEST = 1_000_000  # characters of a text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold guard``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="show|try")
    show = commands.add_parser("show", help="what is done with each kind, by where the text goes")
    attempt = commands.add_parser("try", help="what would become of a text; exit code 1 if it would be refused")
    attempt.add_argument("text", help="the text; '-' reads it from standard input")
    attempt.add_argument(
        "--to", choices=[place.value for place in Destination], default=Destination.HOUSE.value,
        help="where it would go: an engine of the house (default), an upstream, or the disk",
    )  # fmt: skip
    for command in (show, attempt):
        command.add_argument("--caller", default="", metavar="NAME", help="for the calls of the key of that name")
        command.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Show the rules, or try them."""
    guard = Guard(config.load(local.home_of(arguments).folder).guard)
    return _show(guard, arguments) if arguments.command == "show" else _try(guard, arguments)


def _show(guard: Guard, arguments: argparse.Namespace) -> int:
    table = guard.table(arguments.caller)
    if arguments.json:
        local.print_json({"rules": table, "callers": guard.named})
        return 0
    rows = [(kind, *(done[place.value] for place in Destination)) for kind, done in table.items()]
    local.table(rows, ("KIND", *(place.value.upper() for place in Destination)))
    if guard.named and not arguments.caller:
        print(f"Others hold for {', '.join(local.plain(name) for name in guard.named)}: see --caller.")
    return 0


def _try(guard: Guard, arguments: argparse.Namespace) -> int:
    text = sys.stdin.read(_LONGEST + 1) if arguments.text == "-" else arguments.text
    if len(text) > _LONGEST:
        raise CannotDo(f"The text is longer than {_LONGEST:,} characters.", hint="Give a part of it.")
    found = guard.trial(arguments.caller, Destination(arguments.to), text)
    if arguments.json:
        local.print_json(msgspec.to_builtins(found))
    else:
        _print(found)
    return 1 if found.action == "refuse" else 0


def _print(found: Trial) -> None:
    rows = [(hit.kind, f"{hit.start} to {hit.end}", hit.what, hit.action) for hit in found.found]
    if rows:
        local.table(rows, ("KIND", "CHARACTERS", "WHAT", "DONE"))
    else:
        print("Nothing was found.")
    if found.action == "refuse":
        print("It would be refused.")
    else:
        print(f"It would go as:\n{local.lines(found.text.splitlines())}")
