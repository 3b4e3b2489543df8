"""The dossier of one switch: verdict, cost, privacy, provenance and limits in one signed file, each figure with the
command that works it out again. 'verify FILE' checks such a file, offline.

Exit code of verify: 0 whole, unchanged and by a key that is trusted; 1 not; 2 it could not be said.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from freehold.cli import local
from freehold.errors import CannotDo
from freehold.types.dossier import Change, Dossier

if TYPE_CHECKING:
    from freehold.app import Parts
    from freehold.dossier import Checked
    from freehold.report import Sources
    from freehold.types import Task

_SUFFIXES = {".md": "md", ".markdown": "md", ".json": "json"}
_SHOWN = 100  # characters of what differs
_MOST = 64 << 20  # bytes of a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold report``."""
    parser.add_argument("task", nargs="?", metavar="TASK|verify", help="the task to report on; or 'verify', and a file")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="with 'verify': the dossier to check")
    making = parser.add_argument_group("making one")
    making.add_argument("--output", "-o", type=Path, metavar="FILE", help="where to write it; html is never printed")
    making.add_argument("--format", choices=("html", "md", "json"), help="default: by the name of the file, else html")
    making.add_argument(
        "--candidate", metavar="MODEL", default="",
        help="which, by name or key (default: the one that may take over, else the one looked at last)",
    )  # fmt: skip
    making.add_argument(
        "--with-text", action="store_true", help="put texts of the calls that changed in, cut short; default: no text"
    )
    checking = parser.add_argument_group("checking one")
    checking.add_argument(
        "--key", metavar="KEY", action="append", default=[],
        help="a key to trust: in base64, its fingerprint, or a file with either (default: this home's own)",
    )  # fmt: skip
    checking.add_argument(
        "--recompute", action="store_true", help="in the home that made it: work every figure out again, and compare"
    )
    parser.add_argument("--public-key", action="store_true", help="show this home's public key and its fingerprint")
    parser.add_argument("--json", action="store_true", help="what came of it, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Make one, or check one."""
    if arguments.public_key:
        return _public_key(arguments)
    if arguments.task is None:
        raise CannotDo("A dossier is of one task.", hint="'freehold tasks list' names them.")
    if arguments.file is None:
        return _make(arguments)
    if arguments.task != "verify":
        raise CannotDo(f"{arguments.file} is one word too many.", hint="'freehold report verify FILE' checks a file.")
    return _verify(arguments)


def _public_key(arguments: argparse.Namespace) -> int:
    from freehold.sign import SigningKey

    key = SigningKey.load(local.home_of(arguments).signing_key, create=False)
    if arguments.json:
        local.print_json({"public_key": key.public, "fingerprint": key.fingerprint})
    else:
        print(f"{key.public}\n{key.fingerprint}")
    return 0


# making


def _make(arguments: argparse.Namespace) -> int:
    from freehold import report

    output, form = arguments.output, _form(arguments)
    with _sources(arguments, arguments.task) as (parts, task, sources):
        made, content = report.make(
            sources, task, form, at=time.time(), candidate=arguments.candidate, with_text=arguments.with_text
        )
        if output is not None:
            _write(output, content)
        report.note(parts.ledger, made, form, content, actor=local.actor())
    if output is None:
        sys.stdout.write(content.decode())
        return 0
    if arguments.json:
        facts = {"file": str(output), "sha256": report.digest(content), "form": form, "signer": made.signer}
        facts |= {"candidate": made.candidate, "outcome": made.outcome.value, "with_text": made.with_text}
        local.print_json(facts)
    else:
        print(local.lines(_told(made, output, len(content))))
    return 0


def _form(arguments: argparse.Namespace) -> str:
    output = arguments.output
    form = arguments.format or (_SUFFIXES.get(output.suffix.lower(), "html") if output else "html")
    if output is None and form == "html":
        raise CannotDo("A page is not printed to a terminal.", hint="Give -o dossier.html, or --format md.")
    return form


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CannotDo(f"{path} cannot be written: {error.strerror}.", hint="Name another file.") from None


def _told(made: Dossier, output: Path, size: int) -> Iterator[str]:
    yield f"{made.headline} ({made.outcome.value})"
    yield made.sentence
    texts = "with texts of calls in it" if made.with_text else "no text of a call in it"
    yield f"{output}: {local.size(size)}, {texts}"
    yield f"  signed by {made.signer}"
    yield f"Next: freehold report verify {output}"


@contextmanager
def _sources(arguments: argparse.Namespace, name: str) -> Iterator[tuple[Parts, Task, Sources]]:
    """What a report of the task is gathered from."""
    from freehold import report

    with local.opened(arguments) as parts:
        task = parts.tasks.get(name)
        with parts.bench(task, local.Progress(), asking=False) as bench:
            yield parts, task, report.Sources(
                parts.home, parts.settings, parts.vault, parts.ledger, parts.samples, parts.results, bench,
                parts.signed, parts.costs,
            )  # fmt: skip


# checking


def _verify(arguments: argparse.Namespace) -> int:
    from freehold import dossier

    content = _read(arguments.file)
    try:
        given = [_key(text) for text in arguments.key]
        found = dossier.check(content, given or _own(arguments))
    except ValueError as error:
        raise CannotDo(f"A key is none: {error}.", hint="Give --key its base64, its fingerprint, or a file.") from None
    wrong = list(found.wrong)
    if found.good and not given and not _noted(arguments, content):
        wrong.append("the audit chain of this home knows nothing of it")
    lasting, passing = _recomputed(arguments, found) if arguments.recompute else ([], [])
    good = found.good and not wrong and not lasting
    if arguments.json:
        local.print_json(_facts(found, good, wrong, lasting, passing))
    else:
        _show(arguments, found, wrong, lasting, passing)
    return 0 if good else 1


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST + 1)
    except OSError as error:
        raise CannotDo(f"{path} cannot be read: {error.strerror}.", hint="Check the path.") from None


def _key(given: str) -> str:
    """A key as it was given, or out of the file that was named. Raises CannotDo."""
    path = Path(given)
    try:
        if path.is_file():
            content = path.read_bytes()[:10_000]
            return _pem(content) if b"-----BEGIN" in content else content.decode().split()[0]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise CannotDo(f"The key {path} cannot be read: {error}.", hint="Give --key its base64.") from None
    return given


def _pem(content: bytes) -> str:
    import base64

    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(content)  # ValueError where it is none
    raw = getattr(key, "public_bytes_raw", None)
    if raw is None:
        raise ValueError("it is no Ed25519 key")
    return base64.b64encode(raw()).decode()


def _own(arguments: argparse.Namespace) -> list[str]:
    """The public key of this home; none where there is no home, or it has no key."""
    from freehold import prove

    try:
        return [prove.public_key(local.home_of(arguments).signing_key)]
    except CannotDo:
        return []


def _noted(arguments: argparse.Namespace, content: bytes) -> bool:
    from freehold import report

    with local.opened(arguments) as parts:
        return report.is_noted(parts.ledger, content)


def _recomputed(arguments: argparse.Namespace, found: Checked) -> tuple[list[Change], list[Change]]:
    """What the store has otherwise. Raises CannotDo where this is not the home that made it."""
    from freehold import report

    if found.dossier is None:
        return [], []
    if not found.dossier.key or found.dossier.key not in _own(arguments):
        raise CannotDo(
            "This home did not make that dossier, so its figures cannot be worked out here.",
            hint="Give --home the one that did, or leave --recompute out.",
        )
    with _sources(arguments, found.dossier.task) as (_, task, sources):
        return report.again(sources, task, found.dossier)


def _facts(
    found: Checked, good: bool, wrong: list[str], lasting: list[Change], passing: list[Change]
) -> dict[str, Any]:
    document = found.dossier
    facts: dict[str, Any] = {"good": good, "wrong": wrong, "signer": found.signer, "known": found.known}
    facts |= {"form": found.form, "changed": msgspec.to_builtins(found.changed)}
    facts |= {"recomputed": msgspec.to_builtins(lasting), "of_the_moment": msgspec.to_builtins(passing)}
    if document is not None:
        facts |= {"task": document.task, "candidate": document.candidate, "outcome": document.outcome.value}
        facts |= {"made_at": document.made_at, "made_by": document.made_by}
    return facts


def _show(
    arguments: argparse.Namespace, found: Checked, wrong: list[str], lasting: list[Change], passing: list[Change]
) -> None:
    print(local.lines(_lines(arguments, found, wrong, lasting, passing)))


def _lines(
    arguments: argparse.Namespace, found: Checked, wrong: list[str], lasting: list[Change], passing: list[Change]
) -> Iterator[str]:
    whole = not any("unknown key" not in one for one in wrong)
    if not wrong:
        yield f"The signature is good, and not a byte was changed since. Signed by {found.signer}, which you trust."
    elif whole:
        yield f"NOT TRUSTED: not a byte was changed, but it is signed by an unknown key, {found.signer}."
        yield "Ask whoever made it for the fingerprint of their key by another way, compare, and give it with --key."
    else:
        yield f"THIS DOSSIER IS NOT GOOD: {'; '.join(wrong)}."
    yield from _differences(found.changed, "signed", "the file")
    if found.dossier is not None:
        document = found.dossier
        made = f"made {local.when(document.made_at)} by {document.made_by}"
        yield f"{document.task}: {document.candidate}, {document.outcome.value}; {made}"
    if arguments.recompute and found.dossier is not None:
        yield from _about_store(lasting, passing)


def _about_store(lasting: list[Change], passing: list[Change]) -> Iterator[str]:
    if lasting:
        yield f"THE STORE HAS OTHER FIGURES: {len(lasting)} differ."
        yield from _differences(lasting, "signed", "now")
    else:
        yield "Every figure was worked out again from the store, and is the same."
    if passing:
        yield "Of the moment, and not the same now:"
        yield from _differences(passing, "then", "now")


def _differences(changes: tuple[Change, ...] | list[Change], then: str, now: str) -> Iterator[str]:
    for change in changes:
        name = f"{change.id} ({change.label})" if change.label else change.id
        yield f"  {name}"
        yield f"    {then + ':':<9} {_cut(change.signed)}"
        yield f"    {now + ':':<9} {_cut(change.found)}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
