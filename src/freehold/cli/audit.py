"""The chain of acts: keys made and revoked, models admitted, proofs run. Each event's hash covers the one before."""

from __future__ import annotations

import argparse
import json

import msgspec

from freehold.cli import local


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold audit``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="verify|list")
    verify = commands.add_parser("verify", help="walk the chain; exit code 1 and the first bad event if it is broken")
    listing = commands.add_parser("list", help="every event, oldest first")
    for command in (verify, listing):
        command.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Verify or list."""
    with local.opened(arguments) as parts:
        return _verify(parts, arguments) if arguments.command == "verify" else _list(parts, arguments)


def _verify(parts, arguments: argparse.Namespace) -> int:
    found = parts.ledger.verify()
    if arguments.json:
        local.print_json(msgspec.to_builtins(found))
    elif found.holds:
        print(f"The chain holds: {found.events} events.\nhead {found.head}")
    else:
        print(f"THE CHAIN IS BROKEN: {found.problem}.\nGood up to event {found.events}, head {found.head}")
    return 0 if found.holds else 1


def _list(parts, arguments: argparse.Namespace) -> int:
    events = list(parts.ledger.events())
    if arguments.json:
        local.print_json([msgspec.to_builtins(event) for event in events])
        return 0
    rows = [
        (str(event.seq), local.when(event.at), event.actor, event.act, event.subject, json.dumps(event.detail))
        for event in events
    ]
    local.table(rows, ("SEQ", "TIME", "ACTOR", "ACT", "SUBJECT", "DETAIL"))
    return 0
