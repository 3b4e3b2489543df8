"""How much a key or a team may have: models, calls, tokens and money. A running server follows within a second.

What is not said of a key is as [callers] in freehold.toml says for every key; 0 is no limit, 'default' takes back what
was said. Days and months are those of UTC. docs/concepts/limits.md says how a limit is held.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

import msgspec

from freehold import limits
from freehold.cli import local
from freehold.errors import CannotDo
from freehold.types import Limits, Subject, Used

if TYPE_CHECKING:
    from freehold.app import Parts

_DEFAULT = "default"
_HELP = {
    "models": "models that it may call, by alias or by name, with commas between",
    "calls_per_minute": "calls that it may begin in a minute",
    "calls_at_once": "calls that it may have in hand",
    "tokens_per_minute": "tokens of prompts and answers in a minute",
    "max_tokens": "tokens that one call may ask for in its answer",
    "tokens_per_day": "tokens of prompts and answers in a day",
    "tokens_per_month": "tokens of prompts and answers in a month",
    "money_per_day": "what its tokens may cost in a day, in cost.currency",
    "money_per_month": "what its tokens may cost in a month, in cost.currency",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold limits``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="set|show|list|unset")
    set_ = commands.add_parser("set", help="change some limits; the others stay")
    show = commands.add_parser("show", help="what holds for a key or a team, and how far it is used")
    listing = commands.add_parser("list", help="all limits that were set")
    unset = commands.add_parser("unset", help="take back all that was said of a key or a team")
    for command in (set_, show, unset):
        whom = command.add_mutually_exclusive_group(required=True)
        whom.add_argument("key", nargs="?", help="a key's name or id")
        whom.add_argument("--team", help="a team's name")
    for name, said in _HELP.items():
        metavar = "NAMES" if name == "models" else "N"
        set_.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=said)
    for command in (set_, show, listing, unset):
        command.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Set, show, list or unset."""
    with local.opened(arguments) as parts:
        return _COMMANDS[arguments.command](parts, arguments)


def _set(parts: Parts, arguments: argparse.Namespace) -> int:
    said = {name: _value(name, text) for name in _HELP if (text := getattr(arguments, name)) is not None}
    if not said:
        raise CannotDo("No limit is named.", hint="Name one, such as --tokens-per-day 200000.")
    of, whose = _whom(parts, arguments)
    after = parts.office.set(of, said, actor=local.actor())
    if arguments.json:
        local.print_json({"of": of.kind, "name": whose, "limits": msgspec.to_builtins(after)})
    else:
        print(local.lines([f"The {of.kind} {whose} may have: {_words(after) or 'what every key may have'}."]))
    return 0


def _show(parts: Parts, arguments: argparse.Namespace) -> int:
    of, whose = _whom(parts, arguments)
    held = limits.merged(parts.rules.get(of), parts.rules.defaults if of.kind == limits.KEY else limits.NONE)
    used = parts.used(of, held, time.time())
    if arguments.json:
        shown = [msgspec.to_builtins(one) | {"left": one.left} for one in used]
        local.print_json({"of": of.kind, "name": whose, "limits": msgspec.to_builtins(held), "used": shown})
        return 0
    if not msgspec.to_builtins(held):
        print(local.plain(f"The {of.kind} {whose} has no limits."))
        return 0
    known = {one.limit: one for one in used}
    rows = [_row(name, value, known.get(name)) for name, value in msgspec.to_builtins(held).items()]
    local.table(rows, ("LIMIT", "MOST", "USED", "LEFT", "RESETS"))
    print("Used is what the ledger has as settled; what calls in hand have reserved is at /admin/limits.")
    if of.kind == limits.KEY and (team := parts.keys.get(of.id).team):
        print(local.plain(f"It is in the team {team}, whose limits hold too: 'freehold limits show --team {team}'."))
    return 0


def _list(parts: Parts, arguments: argparse.Namespace) -> int:
    found, names = parts.rules.every(), {key.id: key.name for key in parts.keys.list()}
    if arguments.json:
        local.print_json([
            {"of": one.subject.kind, "name": names.get(one.subject.id, one.subject.id), "at": one.at, "by": one.by}
            | {"limits": msgspec.to_builtins(one.limits)}
            for one in found
        ])  # fmt: skip
        return 0
    rows = [
        (one.subject.kind, names.get(one.subject.id, one.subject.id), _words(one.limits), local.when(one.at), one.by)
        for one in found
    ]
    local.table(rows, ("OF", "NAME", "MAY HAVE", "SET", "BY"))
    if defaults := _words(parts.rules.defaults):
        print(local.plain(f"Every key, where nothing else is said: {defaults} ([callers] in freehold.toml)."))
    return 0


def _unset(parts: Parts, arguments: argparse.Namespace) -> int:
    of, whose = _whom(parts, arguments)
    parts.office.unset(of, actor=local.actor())
    if arguments.json:
        local.print_json({"of": of.kind, "name": whose, "limits": {}})
    else:
        print(local.plain(f"The {of.kind} {whose} has no limits of its own any more."))
    return 0


def _whom(parts: Parts, arguments: argparse.Namespace) -> tuple[Subject, str]:
    """The key or the team, and its name. Raises CannotDo."""
    if arguments.team is None:
        key = parts.keys.get(arguments.key)
        return Subject(limits.KEY, key.id), key.name
    if arguments.team not in {team.name for team in parts.office.list()}:
        raise CannotDo(f"There is no team {arguments.team!r}.", hint="'freehold teams list' shows the teams.")
    return Subject(limits.TEAM, arguments.team), arguments.team


def _value(name: str, text: str) -> Any:
    """What a flag says; None leaves it to the default. Raises CannotDo."""
    text = text.strip()
    if text == _DEFAULT:
        return None
    if name == "models":
        return [] if text == "0" else [model for part in text.split(",") if (model := part.strip())]
    try:
        return float(text) if name.startswith("money") else int(text)
    except ValueError:
        flag = f"--{name.replace('_', '-')}"
        raise CannotDo(f"{flag} {text!r} is no number.", hint="Give a whole number, 0 or 'default'.") from None


def _words(says: Limits) -> str:
    """Limits in one line."""
    found = msgspec.to_builtins(says)
    return "; ".join(f"{name} {_most(name, value)}" for name, value in found.items())


def _most(name: str, value: Any) -> str:
    if not value:
        return "any"
    if name == "models":
        return ", ".join(value)
    return limits.plain(name, value)


def _row(name: str, value: Any, used: Used | None) -> tuple[str, ...]:
    if used is None:
        return name, _most(name, value), "", "", ""
    shown = [limits.plain(name, one) for one in (used.used, used.left)]
    return name, _most(name, value), *shown, local.when(time.time() + used.resets_in)


_COMMANDS = {"set": _set, "show": _show, "list": _list, "unset": _unset}
