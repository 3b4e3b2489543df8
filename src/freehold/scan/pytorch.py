"""PyTorch's own files: the legacy stream of torch.save, the members of its tar and zip archives, and what they make of
an archive.

Formats: torch 2.13, torch/serialization.py (`_legacy_save`, `_legacy_load`, `_save`), torch/csrc/jit/serialization,
torch/package/package_exporter.py; TorchServe, model-archiver.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from freehold.scan import pickles
from freehold.scan.base import ASK, BLOCK, FETCH_AGAIN, HOLD, NOTE, Malformed, Report, Rule, Tape
from freehold.scan.knowntorch import Storage
from freehold.scan.values import Global, is_int, is_node

FORMAT = "pytorch"
_MAGIC_NUMBER, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MAGICS = (b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"L%dL\n." % _MAGIC_NUMBER)
_MAX_DIMENSIONS = 64
_MAX_ITEMS = 1 << 20

LEGACY = Rule(
    "pytorch.legacy", BLOCK, "The file breaks a rule of PyTorch's legacy format.", FETCH_AGAIN,
    "torch/serialization.py: _legacy_load",
)  # fmt: skip
STORAGE = Rule(
    "pytorch.storage", BLOCK, "The tensors and the storages that they refer to do not match.", FETCH_AGAIN,
    "torch/serialization.py: _load; CVE-2026-24747",
)  # fmt: skip
LOOSE = Rule(
    "pytorch.loose", HOLD, "The archive has storages that no tensor refers to.",
    "Ask the publisher what they are; decide by name and reason.", "torch/serialization.py: _save",
)  # fmt: skip
TAR = Rule(
    "pytorch.tar", NOTE, "It is a tar checkpoint of the first PyTorch. Versions before 2.6 load it without regard to "
    "weights_only; what is in it was judged like any pickle.", ASK, "CVE-2025-32434",
)  # fmt: skip
SCRIPT = Rule(
    "pytorch.script", HOLD, "It is a TorchScript archive: it holds a program beside its weights, and loading runs it.",
    ASK, "torch/csrc/jit/serialization",
)  # fmt: skip
PACKAGE = Rule(
    "pytorch.package", HOLD, "It is a torch.package archive: it holds Python modules, and loading imports them.", ASK,
    "torch/package",
)  # fmt: skip
SERVED = Rule(
    "pytorch.served", HOLD, "It is a TorchServe archive: it names a handler, a Python program that serving runs.", ASK,
    "TorchServe, model-archiver",
)  # fmt: skip

# The small members that PyTorch writes beside data.pkl, and what stands in them
_MARKS = {
    "version": re.compile(rb"[0-9]{1,4}\n?\Z"), "byteorder": re.compile(rb"(little|big)\Z"),
    ".format_version": re.compile(rb"[0-9]{1,4}\n?\Z"), ".storage_alignment": re.compile(rb"[0-9]{1,8}\n?\Z"),
    "serialization_id": re.compile(rb"[0-9]{1,64}\Z"),
}  # fmt: skip
_STORAGES = (
    (re.compile(r"(.*/)?data/[0-9]+\Z"), "data.pkl"), (re.compile(r"(.*/)?constants/[0-9]+\Z"), "constants.pkl"),
    (re.compile(r"(.*/)?\.data/[0-9]+\.storage\Z"), ".data/extern_modules"),
)  # fmt: skip
_ITEMS = {"storages", "tensors"}  # members of the tar format that are not a pickle alone


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """The legacy format by its magic number; the members of an archive by their names and all that stands in them."""
    if name in _MARKS and tape.size <= 64:
        return _MARKS[name].match(head) is not None
    if name in _ITEMS and head[:1] == b"\x80":
        return pickles.try_on(head[:32]).ended
    return head[:1] in b"\x80L" and any(0 <= head.find(magic) < 32 for magic in _MAGICS)


def scan(tape: Tape, report: Report) -> None:
    """Judge the pickles and account for the storages between or behind them. Facts: as for pickles."""
    if report.name in _MARKS and tape.size <= 64:
        tape.read(tape.size)
    elif report.name in _ITEMS and not any(magic in tape.peek(tape.at, 64) for magic in _MAGICS):
        _tar_member(tape, report)
    else:
        _legacy(tape, report)


# --- the legacy stream: five pickles, then the storages -----------------------------------------------------------


def _legacy(tape: Tape, report: Report) -> None:
    for due in (_MAGIC_NUMBER, _PROTOCOL):
        start = tape.at
        if pickles.run(tape, report).value != due:
            raise Malformed(LEGACY, start, f"The number {due:#x} is due here.")
    pickles.run(tape, report)  # what machine wrote it
    body = pickles.run(tape, report)
    start, keys = tape.at, pickles.run(tape, report).value
    for key in _keys(keys, start, body.storages):
        _storage(tape, body.storages[key])
    pickles.behind(tape, report)


def _keys(keys: Any, at: int, storages: Mapping[str, Storage]) -> list[str]:
    """The names of the storages in the order in which they follow: each of the tensors' exactly once."""
    if not is_node(keys, "list") or keys.cut or not all(type(key) is str for key in keys.items):
        raise Malformed(LEGACY, at, "The list of storages is none.")
    if len(set(keys.items)) != len(keys.items) or set(keys.items) != set(storages):
        raise Malformed(STORAGE, at)
    return keys.items


def _storage(tape: Tape, storage: Storage) -> None:
    """The number of elements, in 64 bits, and the elements."""
    start, count = tape.at, struct.unpack("<q", tape.read(8))[0]
    if count != storage.count:
        raise Malformed(
            STORAGE, start, f"The storage {storage.key[:100]!r} has {count} elements, where {storage.count} are due."
        )
    tape.data(count * storage.width)


# --- the tar format: sys_info and pickle are pickles; storages and tensors have numbers between theirs -------------


def _tar_member(tape: Tape, report: Report) -> None:
    if report.name == "storages":
        for _, _, kind in _entries(tape, report):
            _storage(tape, Storage("", _peek_count(tape), _width(kind, tape.at)))
        pickles.run(tape, report)  # which storages are parts of others
    else:
        for _ in _entries(tape, report):
            _tensor(tape)
    pickles.behind(tape, report)


def _entries(tape: Tape, report: Report) -> Iterator[list[Any]]:
    """The triples that the member counts first. Each is a pickle of its own."""
    start, count = tape.at, pickles.run(tape, report).value
    if not is_int(count) or not 0 <= count <= _MAX_ITEMS:
        raise Malformed(LEGACY, start, "It does not begin with a number of items.")
    for _ in range(count):
        start, entry = tape.at, pickles.run(tape, report).value
        if not is_node(entry, "tuple") or entry.count != 3:
            raise Malformed(LEGACY, start, "An item is not described by three values.")
        yield entry.items


def _peek_count(tape: Tape) -> int:
    return int.from_bytes(tape.peek(tape.at, 8), "little", signed=True)


def _width(kind: Any, at: int) -> int:
    if type(kind) is not Global or kind.known is None or kind.known.kind != "storage-type":
        raise Malformed(LEGACY, at, "A storage has no type.")
    return kind.known.note


def _tensor(tape: Tape) -> None:
    """Dimensions in 32 bits and 32 that are unused, sizes, strides, and the place in the storage."""
    start, dimensions = tape.at, struct.unpack("<i4x", tape.read(8))[0]
    if not 0 <= dimensions <= _MAX_DIMENSIONS:
        raise Malformed(LEGACY, start, f"A tensor has {dimensions} dimensions.")
    tape.read(16 * dimensions + 8)


# --- what the members of an archive make of it --------------------------------------------------------------------


def is_storage(name: str, names: Collection[str]) -> bool:
    """Is this member the raw bytes of a tensor storage: ``<root>/data/<number>`` beside ``<root>/data.pkl``, or its
    like in TorchScript and torch.package?"""
    for form, beside in _STORAGES:
        if found := form.match(name):
            return (found[1] or "") + beside in names
    return False


def hides(head: bytes) -> bool:
    """Would another loader than torch run these first bytes of a storage? numpy takes an archive for its own, and
    unpickles a member that begins as an array of objects does; so is one that is a pickle with names or calls."""
    if head.startswith(b"\x93NUMPY"):
        return True
    return head[:1] == b"\x80" and pickles.would_run(head)


def look(
    names: Collection[str], report: Report, sizes: Mapping[str, int] | None = None,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:  # fmt: skip
    """Say what the members of a zip or tar, by their names, make of it.

    Where ``sizes`` (bytes by member, unpacked) and ``facts`` (of the members that were judged) are given, the storages
    that data.pkl refers to are held against the members that there are.
    """
    for rule, found in (
        (SCRIPT, _any(names, r"(.*/)?(code/.+\.py|constants\.pkl|bytecode\.pkl)\Z")),
        (PACKAGE, _any(names, r"(.*/)?\.data/(?!serialization_id\Z)")),
        (SERVED, _any(names, r"MAR-INF/")),
        (TAR, "storages" if {"storages", "tensors", "pickle"} <= {name.removeprefix("./") for name in names} else ""),
    ):
        if found:
            report.add(rule, found[:200])
    for name in names if sizes is not None and facts is not None else ():
        if name in facts and (name == "data.pkl" or name.endswith("/data.pkl")):
            _compare(name.removesuffix("data.pkl") + "data/", facts[name].get("storages", {}), sizes, report)


def _any(names: Collection[str], form: str) -> str:
    """The first name of this form, or nothing."""
    return next(filter(re.compile(form).match, names), "")


def _compare(folder: str, storages: Mapping[str, int], sizes: Mapping[str, int], report: Report) -> None:
    for key, due in storages.items():
        size = sizes.get(folder + key)
        if size is None:
            report.add(STORAGE, folder + key[:100], f"A tensor refers to the storage {key[:100]!r}, which is missing.")
        elif size != due:
            report.add(STORAGE, folder + key[:100], f"The storage has {size} bytes, where its tensors need {due}.")
    loose = [name for name in sizes if name.startswith(folder) and name.removeprefix(folder) not in storages]
    if loose:
        report.add(LOOSE, loose[0][:200], f"{len(loose)} storages belong to no tensor, {loose[0][:100]!r} for one.")
