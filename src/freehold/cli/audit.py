"""The audit chain: every act (a key made, a model admitted, a proof run) and the end of every call, each event's hash
covering the one before; signed checkpoints; and a file of it that others can check without this program."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import secrets
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from freehold.cli import local
from freehold.errors import CannotDo
from freehold.ledger import Verification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold audit``."""
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="verify|list|head|checkpoint|export|verifier|rekey"
    )
    verify = commands.add_parser("verify", help="walk the chain and the calls; exit code 1 and the first that is bad")
    verify.add_argument(
        "--checkpoint", metavar="FILE", type=Path, action="append", default=[],
        help="checkpoints that were kept elsewhere; those of audit.checkpoint_to are looked at in any case",
    )  # fmt: skip
    listing = commands.add_parser("list", help="the events, oldest first; without those of calls")
    listing.add_argument("--calls", action="store_true", help="with the events that settle calls")
    listing.add_argument("--since", metavar="WHEN", default="1", help="from the event of this number, or this day, on")
    listing.add_argument("--last", metavar="N", type=int, help="the last N alone")
    head = commands.add_parser("head", help="where the chain ends, and its latest checkpoint")
    commands.add_parser("checkpoint", help="sign the end of the chain now; prints the checkpoint")
    export = commands.add_parser("export", help="the chain as a file for verify_audit.py, signed to its end")
    export.add_argument("-o", "--output", metavar="FILE", type=Path, required=True)
    export.add_argument("--since", metavar="WHEN", default="1", help="from the event of this number, or this day, on")
    verifier = commands.add_parser("verifier", help="the script that checks such a file without Freehold")
    verifier.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: print it")
    rekey = commands.add_parser("rekey", help="the signing key was lost: enter that, and sign with another from now on")
    rekey.add_argument("why", metavar="REASON", help="stays in the chain")
    for command in (verify, listing, head, export):
        command.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Do what the sub-command says."""
    if arguments.command == "verifier":
        return _verifier(arguments)
    does = {
        "verify": _verify, "list": _list, "head": _head, "checkpoint": _checkpoint, "export": _export, "rekey": _rekey,
    }  # fmt: skip
    with local.opened(arguments) as parts:
        return does[arguments.command](parts, arguments)


def _verify(parts, arguments: argparse.Namespace) -> int:
    progress = local.Progress()

    def tell(done: int, total: int) -> None:
        progress.tell(done, total, f"walked {done:,} of {total:,} events")

    try:
        found = parts.audit.verify(files=tuple(path.absolute() for path in arguments.checkpoint), told=tell)
    finally:
        progress.end()
    if arguments.json:
        local.print_json(msgspec.to_builtins(found))
    else:
        _show(found)
    return 0 if found.holds else 1


def _show(found: Verification) -> None:
    if not found.holds:
        print(local.plain(f"THE CHAIN IS BROKEN: {found.problem}."))
        print(f"Good up to event {found.events}, head {found.head}")
        return
    print(f"The chain holds: {found.events} events.\nhead {found.head}")
    if found.calls_from is not None:
        earlier = f"; {found.earlier} calls from before are as they were then" if found.earlier else ""
        print(f"calls: {found.calls} agree with their events, from event {found.calls_from} on{earlier}")
    if found.checkpoints:
        print(f"signed up to event {found.signed}; {found.checkpoints} checkpoints agree")
    print(local.lines(f"note: {note}" for note in found.notes), end="\n" if found.notes else "")


def _list(parts, arguments: argparse.Namespace) -> int:
    events = _wanted(parts, arguments)
    if arguments.json:
        local.print_json([msgspec.to_builtins(event) for event in events])
        return 0
    rows = [
        (str(event.seq), local.when(event.at), event.actor, event.act, event.subject, json.dumps(event.detail))
        for event in events
    ]
    local.table(rows, ("SEQ", "TIME", "ACTOR", "ACT", "SUBJECT", "DETAIL"))
    return 0


def _wanted(parts, arguments: argparse.Namespace) -> Iterator[Any]:
    since = _since(arguments.since)
    first = since if isinstance(since, int) else parts.ledger.head_at(since)[0] + 1
    found = parts.ledger.events(since=first, calls=arguments.calls)
    if arguments.last is None:
        return found
    if arguments.last < 1:
        raise CannotDo(f"--last is {arguments.last}.", hint="Give a number from 1 on.")
    return parts.ledger.last_events(arguments.last, since=first, calls=arguments.calls)


def _head(parts, arguments: argparse.Namespace) -> int:
    found = parts.audit.head()
    if arguments.json:
        local.print_json(found)
        return 0
    print(f"home {found['home'] or 'no server has started here'}\nevents {found['events']}\nhead {found['head']}")
    if found["checkpoint"]:
        print(f"checkpoint {json.dumps(found['checkpoint'])}\nkey {found['key']}")
    return 0


def _checkpoint(parts, _arguments: argparse.Namespace) -> int:
    parts.audit.checkpoint()
    print(json.dumps(parts.audit.head()["checkpoint"], separators=(",", ":")))
    return 0


def _export(parts, arguments: argparse.Namespace) -> int:
    end = parts.audit.checkpoint()
    since = _since(arguments.since)
    digest = _write(
        arguments.output, parts.audit.export(since), end.events, lambda said: _noted(parts, arguments, said)
    )
    said = {"file": str(arguments.output), "sha256": digest, "events": end.events, "head": end.head}
    if arguments.json:
        local.print_json(said)
    else:
        print(f"{arguments.output}: the chain as far as event {end.events}, signed.\nsha256 {digest}")
        print("'freehold audit verifier -o verify_audit.py' writes the script that checks it;")
        print("'freehold report --public-key' shows the key that it asks for.")
    return 0


def _noted(parts, arguments: argparse.Namespace, digest: str) -> None:
    detail = {"from": arguments.since, "sha256": digest}
    parts.ledger.record("audit.exported", arguments.output.name, actor=local.actor(), detail=detail)


def _write(path: Path, lines: Iterator[bytes], total: int, note) -> str:
    """Write the lines to a file that is there when all of them are, and noted before; returns its digest."""
    draft, state, progress = path.with_name(f".{path.name}.{secrets.token_hex(4)}"), hashlib.sha256(), local.Progress()
    try:
        with draft.open("xb") as stream:
            for number in itertools.count():
                if not (piece := b"".join(itertools.islice(lines, 500))):
                    break
                state.update(piece)
                stream.write(piece)
                done = min(number * 500, total)
                progress.tell(done, total, f"wrote {done:,} of {total:,} events")
            stream.flush()
            os.fsync(stream.fileno())
        note("sha256:" + state.hexdigest())
        os.replace(draft, path)
    except OSError as error:
        raise CannotDo(f"{path} cannot be written: {error.strerror}.", hint="Name another file.") from None
    finally:
        progress.end()
        draft.unlink(missing_ok=True)
    return "sha256:" + state.hexdigest()


def _verifier(arguments: argparse.Namespace) -> int:
    text = files("freehold.ledger").joinpath("verify_audit.py").read_text(encoding="utf-8")
    if arguments.output:
        local.write(arguments.output, text)
    else:
        sys.stdout.write(text)
    return 0


def _rekey(parts, arguments: argparse.Namespace) -> int:
    print(f"From now on {parts.audit.rekey(arguments.why, actor=local.actor())} signs this home's checkpoints.")
    return 0


def _since(text: str) -> int | float:
    """A flag's event, by number, or its moment. Raises CannotDo."""
    if text.isdecimal():
        return max(int(text), 1)
    return local.date(text)
