"""npy and npz: object arrays, good and bad, and headers that lie. Format: ``numpy.lib.format``."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from assets import zips
from assets.containers import objects
from assets.opcodes import attack, call, named, pickled, stacked
from assets.shelf import Draft, admit, block, family, hold
from assets.zips import DEFLATED

FLOATS = struct.pack("<3f", 0, 1, 2)
PAYLOAD = call(stacked("os", "system"), "echo freehold")


def npy(
    kind: str, shape: str, data: bytes, *, version: tuple[int, int] = (1, 0), order: str = "False", header: str = ""
) -> bytes:
    """An array with its header, padded to 64 as numpy pads it."""
    text = header or f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}, }}"
    width = "<H" if version == (1, 0) else "<I"
    raw = text.encode("utf-8" if version == (3, 0) else "latin-1")
    room = -(8 + struct.calcsize(width) + len(raw) + 1) % 64
    return b"\x93NUMPY" + bytes(version) + struct.pack(width, len(raw) + room + 1) + raw + b" " * room + b"\n" + data


def floats() -> bytes:
    return npy("<f4", "(3,)", FLOATS)


@family("numpy")
def attacks() -> Iterator[Draft]:
    """CVE-2019-6446: an object array is a pickle."""
    yield block(
        "object",
        "array.npy",
        npy("|O", "(1,)", attack(4)),
        "CVE-2019-6446: an object array that is a malicious pickle.",
    )
    yield block("object-0", "array.npy", npy("|O", "(1,)", attack(0)), "The same in protocol 0.")
    yield block(
        "object-inside",
        "array.npy",
        npy("|O", "(1,)", objects([PAYLOAD])),
        "A well-formed object array with os.system as an element.",
    )
    yield block("object-kind-o8", "array.npy", npy("O", "(1,)", attack(2)), "The type written as O.")
    yield block("object-v2", "array.npy", npy("|O", "(1,)", attack(2), version=(2, 0)), "The same in version 2.")
    yield block("object-v3", "array.npy", npy("|O", "(1,)", attack(2), version=(3, 0)), "The same in version 3.")
    fields = "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (1,), }"
    yield block(
        "object-field", "array.npy", npy("", "", attack(4), header=fields), "A structured array with one object field."
    )
    yield block(
        "object-double-quotes",
        "array.npy",
        npy("", "", attack(4), header='{"descr": "|O", "fortran_order": False, "shape": (1,), }'),
        "A header in double quotes.",
    )
    yield block("object-no-extension", "array", npy("|O", "(1,)", attack(4)), "An object array without an extension.")
    yield block("object-named-pt", "model.pt", npy("|O", "(1,)", attack(4)), "An object array, called .pt.")
    yield block(
        "bad-npz",
        "arrays.npz",
        zips.named({"a.npy": floats(), "b.npy": npy("|O", "(1,)", attack(4))}),
        "An npz with a malicious object array.",
    )
    yield block(
        "bad-npz-deflated",
        "arrays.npz",
        zips.named({"a.npy": npy("|O", "(1,)", attack(4))}, DEFLATED),
        "The same, compressed.",
    )
    yield block(
        "bad-npz-no-extension",
        "arrays.npz",
        zips.named({"a": npy("|O", "(1,)", attack(4))}),
        "A member without an extension.",
    )
    yield block(
        "bad-npz-pickle",
        "arrays.npz",
        zips.named({"a.npy": floats(), "b.npy": attack(2)}),
        "A bare pickle in place of an array: numpy.load falls back to it.",
    )
    yield block("bare-pickle", "array.npy", attack(4), "A bare pickle, called .npy.")
    yield hold(
        "header-call",
        "array.npy",
        npy(
            "",
            "",
            FLOATS,
            header="{'descr': __import__('os').system('echo freehold'), 'fortran_order': False, 'shape': (3,), }",
        ),
        "A header that is an expression with a call.",
    )
    yield hold(
        "header-deep",
        "array.npy",
        npy("", "", b"", header="(" * 9000 + ")" * 9000),
        "A header of 9,000 brackets, which overflows a parser.",
    )
    yield hold(
        "header-huge", "array.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 0xFFFFFFFF) + b"{", "A header of 4 GiB."
    )
    yield hold(
        "shape-huge",
        "array.npy",
        npy("<f4", "(1099511627776, 1099511627776)", FLOATS),
        "A shape whose product overflows.",
    )
    yield hold("shape-more", "array.npy", npy("<f4", "(4,)", FLOATS), "A shape of more values than there are.")
    yield hold("shape-negative", "array.npy", npy("<f4", "(-3,)", FLOATS), "A shape of -3.")
    yield hold("trailing", "array.npy", floats() + b"\x7fELF" + b"\1" * 60, "Bytes of a program behind the array.")
    yield block("trailing-pickle", "array.npy", floats() + attack(4), "A malicious pickle behind the array.")
    yield block(
        "trailing-zip",
        "array.npy",
        floats() + zips.named({"archive/data.pkl": attack(2)}),
        "A malicious zip behind the array.",
    )
    yield hold("cut", "array.npy", floats()[:-1], "An array that is cut off.")
    yield hold("version-9", "array.npy", npy("<f4", "(3,)", FLOATS, version=(9, 0)), "A version that does not exist.")
    yield hold(
        "object-stranger",
        "array.npy",
        npy("|O", "(1,)", objects([call(named("acme.models", "Net"))])),
        "An object array with a class that is not here.",
    )


@family("numpy")
def sound() -> Iterator[Draft]:
    """What numpy writes."""
    yield admit("floats", "array.npy", floats(), "Three numbers.")
    yield admit("fortran", "array.npy", npy("<f4", "(1, 3)", FLOATS, order="True"), "An array in Fortran order.")
    yield admit("scalar", "array.npy", npy("<i8", "()", b"\1" + b"\0" * 7), "An array of no dimensions.")
    yield admit("hollow", "array.npy", npy("<f8", "(0, 5)", b""), "An array with no values.")
    yield admit("big-endian", "array.npy", npy(">i2", "(2,)", b"\0\1\0\2"), "A big-endian array.")
    yield admit(
        "text",
        "array.npy",
        npy("<U9", "(1,)", "os.system".encode("utf-32-le")),
        "An array of text that says os.system.",
    )
    yield admit(
        "bytes", "array.npy", npy("|S16", "(1,)", b"cos\nsystem\n(S'x."), "An array of bytes that read like a pickle."
    )
    yield admit("date", "array.npy", npy("<M8[D]", "(1,)", b"\1" + b"\0" * 7), "An array of dates.")
    yield admit(
        "fields",
        "array.npy",
        npy(
            "", "", b"\0" * 8, header="{'descr': [('a', '<f4'), ('b', '<i4')], 'fortran_order': False, 'shape': (1,), }"
        ),
        "A structured array of numbers.",
    )
    yield admit("version-2", "array.npy", npy("<f4", "(3,)", FLOATS, version=(2, 0)), "A header of version 2.")
    yield admit(
        "version-3",
        "array.npy",
        npy(
            "",
            "",
            FLOATS[:4],
            version=(3, 0),
            header="{'descr': [('größe', '<f4')], 'fortran_order': False, 'shape': (1,), }",
        ),
        "Version 3, with a name in UTF-8.",
    )
    yield admit("no-extension", "array", floats(), "An array without an extension.")
    yield admit("objects", "array.npy", npy("|O", "(3,)", objects([1, "a", None])), "An object array of plain data.")
    yield admit(
        "objects-nested",
        "array.npy",
        npy("|O", "(1,)", objects([{"os.system": [1, (2, "eval")]}])),
        "An object array of a plain dictionary.",
    )
    yield admit(
        "npz",
        "arrays.npz",
        zips.named({"a.npy": floats(), "b.npy": npy("<i8", "()", b"\0" * 8)}),
        "Two arrays in an npz.",
    )
    yield admit("npz-deflated", "arrays.npz", zips.named({"a.npy": floats()}, DEFLATED), "A compressed npz.")
    yield admit(
        "npz-objects",
        "arrays.npz",
        zips.named({"words.npy": npy("|O", "(2,)", objects(["os.system", "eval"]))}),
        "An npz with an object array of words.",
    )
    plain = pickled(named("builtins", "set"), b"]\x85R", number=3)
    yield admit("objects-set", "array.npy", npy("|O", "(1,)", objects([plain[2:-1]])), "An object array with a set.")
