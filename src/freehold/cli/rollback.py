"""Point an alias back at what it pointed at before. A canary is ended first; given again, it goes a step further back.

The next call goes there, whether or not a server runs now. What is no longer in the vault is passed over.
"""

from __future__ import annotations

import argparse

from freehold import promote
from freehold.cli import local
from freehold.cli.promote import name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold rollback``."""
    parser.add_argument("alias", help="the model name that the application sends")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Roll back."""
    with local.opened(arguments) as parts:
        moved = promote.rollback(parts.desk, arguments.alias, by=local.actor())
    if arguments.json:
        local.print_json(promote.told(moved))
        return 0
    if moved.ended is not None:
        print(local.lines([f"{moved.alias}: the canary of {name(moved.ended.target)} is over; all calls go to "
                           f"{name(moved.now)}."]))  # fmt: skip
        return 0
    for target in moved.skipped:
        print(local.lines([f"{name(target)} is not here any more, and is passed over."]))
    print(local.lines([f"{moved.alias} points at {name(moved.now)} again, before at {name(moved.before)}."]))
    return 0
