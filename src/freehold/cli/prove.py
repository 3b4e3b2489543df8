"""Put a claim to the test. 'privacy' tries to get out of the seal, next to a control that must get through."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from freehold import prove
from freehold.cli import local
from freehold.config import Settings

_CODES = {prove.HOLDS: 0, prove.BROKEN: 1, prove.NOTHING: 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold prove``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="privacy|check")
    privacy = commands.add_parser("privacy", help="try to get out of the seal; exit code 1 if anything does")
    check = commands.add_parser("check", help="check the signature of a kept proof")
    check.add_argument("file", type=Path, help="a file from <home>/proofs")
    check.add_argument("--key", metavar="BASE64", help="the signer's public key (default: this home's, and its chain)")
    for command in (privacy, check):
        command.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Prove, or check a proof."""
    return _check(arguments) if arguments.command == "check" else _privacy(arguments)


def _privacy(arguments: argparse.Namespace) -> int:
    bar = local.Bar()
    with local.opened(arguments, create=True) as parts:
        mode, running, hosts = _running(parts)
        record = prove.privacy(mode, running, bar, hosts)
        bar.end()
        home = parts.home
        path = prove.keep(record, home.proofs, home.signing_key, parts.ledger, actor=local.actor())
    if arguments.json:
        local.print_json(msgspec.to_builtins(record) | {"file": str(path)})
    else:
        _show(record, path)
    return _CODES[record.verdict]


def _running(parts) -> tuple[str, dict[str, prove.Worn], tuple[str, ...]]:
    """The seal that is in force, the processes of the server that runs, if one does, and where its relay may reach."""
    live = local.live(parts.home)
    if live is None:
        return parts.settings.seal, {}, _hosts(parts.settings)
    engines = {local.engine_name(engine): engine for engine in live["engines"] if engine["pid"]}
    worn = {who: _worn(process) for who, process in ({"gateway": live} | engines).items()}
    if relay := live["relay"]:
        pids = {"relay, supervisor": relay["pid"], "relay, worker": relay["worker"]}
        worn |= {who: _worn(relay | {"pid": pid}) for who, pid in pids.items() if pid}
    hosts = {upstream["host"] for upstream in live["upstreams"]} | (
        {live["traces"]["host"]} if live["traces"] else set()
    )
    return live["seal"], worn, tuple(sorted(hosts))


def _hosts(settings: Settings) -> tuple[str, ...]:
    """Where a relay would be there to reach."""
    return settings.upstream_hosts if settings.upstreams or settings.traces.endpoint else ()


def _worn(process: dict) -> prove.Worn:
    return prove.Worn(process["pid"], frozenset(layer["name"] for layer in process["reported"] if layer["active"]))


def _show(record: prove.Record, path: Path) -> None:
    rows = [(row.who, row.meaning, row.control, row.sealed, row.shows) for row in record.rows]
    local.table(rows, ("WHO", "ATTEMPT", "OUTSIDE (CONTROL)", "INSIDE THE SEAL", "SHOWS"))
    for process in record.processes:
        worn = ", ".join(layer.name for layer in process.layers if layer.active)
        print(f"running: {process.who}, process {process.pid}; the kernel says: {worn or 'no layer'}")
    if not record.processes:
        print("running: no server; start one with 'freehold up' to have its processes looked up too")
    print(f"\n{record.claim} This {record.verdict.upper()}.")
    for reason in record.reasons:
        print(f"  because {reason}")
    print(f"signed record: {path}")


def _check(arguments: argparse.Namespace) -> int:
    if arguments.key:
        record, wrong = prove.check(arguments.file, arguments.key, None)
    else:
        with local.opened(arguments) as parts:
            record, wrong = prove.check(arguments.file, prove.public_key(parts.home.signing_key), parts.ledger)
    if arguments.json:
        local.print_json({"good": not wrong, "wrong": wrong, "record": msgspec.to_builtins(record)})
    elif wrong:
        print(f"THIS PROOF IS NOT GOOD: {'; '.join(wrong)}.")
    else:
        print(f"The signature is good. {record.claim} At {local.when(record.at)} this {record.verdict}.")
    return 1 if wrong else 0
