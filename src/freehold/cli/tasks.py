"""The jobs that an application gives to a model, each described by a small TOML file: add, list, show, remove."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import msgspec

from freehold.chart import words
from freehold.cli import local


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold tasks``."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    adding = verbs.add_parser("add", help="read a task's file, check it, and keep it with what it names")
    adding.add_argument("file", type=Path, help="the TOML file; docs/guides/tasks.md says what stands in it")
    adding.add_argument("--replace", action="store_true", help="put it in the place of a task of the same name")
    listing = verbs.add_parser("list", help="the tasks of this home")
    showing = verbs.add_parser("show", help="one task: what it measures, and how")
    showing.add_argument("name")
    removing = verbs.add_parser("remove", help="forget a task's file; its traffic stays until it is erased")
    removing.add_argument("name")
    for one in (adding, listing, showing, removing):
        one.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Do one of them."""
    with local.opened(arguments, create=arguments.what == "add") as parts:
        return {"add": _add, "list": _list, "show": _show, "remove": _remove}[arguments.what](parts, arguments)


def _add(parts, arguments: argparse.Namespace) -> int:
    from freehold import scorers
    from freehold import task as tasks

    wanted = tasks.load(arguments.file)
    with contextlib.closing(scorers.make(wanted, arguments.file.parent, parts.settings.seal)) as scorer:
        measures = scorer.measures
    task = parts.tasks.add(arguments.file, replace=arguments.replace)
    detail = {"margin": task.margin, "scorer": task.scorer.get("kind"), "alias": task.alias}
    parts.ledger.record("task.add", task.name, actor=local.actor(), detail=detail)
    if arguments.json:
        local.print_json(msgspec.to_builtins(task))
        return 0
    print(local.plain(f"Task {task.name}: {measures}"))
    print(f"Next: freehold traffic import FILE --task {task.name}")
    return 0


def _list(parts, arguments: argparse.Namespace) -> int:
    tasks = [parts.tasks.get(name) for name in parts.tasks.names()]
    if arguments.json:
        local.print_json([msgspec.to_builtins(task) for task in tasks])
        return 0
    counts = parts.samples.counts()
    rows = [
        (task.name, task.scorer.get("kind", ""), f"{task.margin * 100:g} points", str(counts.get(task.name, 0)),
         task.alias, task.about)
        for task in tasks
    ]  # fmt: skip
    local.table(rows, ("TASK", "SCORER", "MARGIN", "CALLS", "ALIAS", "ABOUT"))
    return 0


def _show(parts, arguments: argparse.Namespace) -> int:
    task = parts.tasks.get(arguments.name)
    with parts.scorer(task) as scorer:
        measures, digest = scorer.measures, scorer.digest
    if arguments.json:
        local.print_json(msgspec.to_builtins(task) | {"measures": measures, "scorer_digest": digest})
        return 0
    facts = {
        "task": task.name, "about": task.about, "alias": task.alias, "scorer": task.scorer.get("kind", ""),
        "measures": measures,
        "margin": f"{task.margin * 100:g} points", "group": task.group or "as the traffic says",
        "price": task.price, "terms": task.terms,
        "capture": ("on, of " + (", ".join(task.callers) or "everybody")) if task.capture else "off",
        "splits": f"{task.tuning:.0%} tuning, {task.validation:.0%} validation, the rest certifies",
    }  # fmt: skip
    print(local.lines(f"{name:<9} {said}" for name, said in facts.items() if said))
    return 0


def _remove(parts, arguments: argparse.Namespace) -> int:
    parts.tasks.remove(arguments.name)
    parts.ledger.record("task.remove", arguments.name, actor=local.actor())
    calls = parts.samples.counts().get(arguments.name, 0)
    if arguments.json:
        local.print_json({"task": arguments.name, "calls": calls})
        return 0
    print(f"Task {arguments.name} is forgotten.")
    if calls:
        print(f"Its {words.amount(calls, 'call')} stay: 'freehold traffic erase {arguments.name}' removes them.")
    return 0
