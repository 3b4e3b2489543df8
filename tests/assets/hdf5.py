"""A minimal HDF5 writer: superblock 0, old and new groups, float32 data, text attributes, and links that lead out.

Format: the HDF Group's "HDF5 File Format Specification Version 3.0", by section: II.A superblock, III.A.1 B-trees,
III.B symbol table nodes, III.D local heaps, III.E global heaps, IV.A.1.a object headers and their messages.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NOWHERE = 0xFFFFFFFFFFFFFFFF
SPACE, LINK_INFO, TYPE, FILL, LINK, FILES, LAYOUT, GROUP_INFO, PIPELINE, ATTRIBUTE, TABLE = (
    1,
    2,
    3,
    5,
    6,
    7,
    8,
    10,
    11,
    12,
    17,
)
FLOAT32 = struct.pack("<BBBBIHHBBBBI", 0x11, 0x20, 0x1F, 0, 4, 0, 32, 23, 8, 0, 23, 127)


class Data(NamedTuple):
    """A dataset of float32 values, in a row unless ``shape`` says otherwise; ``files`` are where they lie instead."""

    values: tuple[float, ...]
    files: tuple[str, ...] = ()
    filter: int = 0
    shape: tuple[int, ...] = ()


class External(NamedTuple):
    """A link to an object in another file."""

    file: str
    path: str = "/"


class Soft(NamedTuple):
    """A link to a path in the same file."""

    path: str


class UserLink(NamedTuple):
    """A link of a class that the application defines."""

    kind: int
    data: bytes


class Group(NamedTuple):
    """Children by name, and attributes; ``wide`` keeps texts in the global heap, as h5py does."""

    children: Mapping[str, Node]
    attributes: Mapping[str, str | list[str]] = {}
    wide: bool = True


Node = Group | Data | External | Soft | UserLink


def hdf5(root: Group, userblock: bytes = b"") -> bytes:
    """The whole file; a user block goes before the superblock."""
    return userblock + _File().whole(root)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 8)


def _message(kind: int, body: bytes) -> bytes:
    body = _padded(body)
    return struct.pack("<HHB3x", kind, len(body), 0) + body


class _File:
    def __init__(self) -> None:
        self.out = bytearray(96)

    def whole(self, root: Group) -> bytes:
        at = self.group(root)
        head = SIGNATURE + struct.pack(
            "<8BHHIQQQQ", 0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0, 0, NOWHERE, len(self.out), NOWHERE
        )
        self.out[:96] = head + struct.pack("<QQII16x", 0, at, 0, 0)
        return bytes(self.out)

    def place(self, data: bytes) -> int:
        at = len(self.out)
        self.out += _padded(data)
        return at

    def header(self, *messages: bytes) -> int:
        body = b"".join(messages)
        return self.place(struct.pack("<BxHII4x", 1, len(messages), 1, len(body)) + body)

    def node(self, node: Group | Data) -> int:
        return self.group(node) if isinstance(node, Group) else self.dataset(node)

    def group(self, group: Group) -> int:
        places = {name: self.node(child) for name, child in group.children.items() if isinstance(child, Group | Data)}
        attributes = [self.attribute(name, value, group.wide) for name, value in group.attributes.items()]
        if len(places) == len(group.children) <= 8:
            return self.header(_message(TABLE, self.table(places)), *attributes)
        links = [_link(name, child, places.get(name, 0)) for name, child in group.children.items()]
        info = _message(LINK_INFO, struct.pack("<BBQQ", 0, 0, NOWHERE, NOWHERE)), _message(GROUP_INFO, b"\0\0")
        return self.header(*info, *links, *attributes)

    def table(self, places: Mapping[str, int]) -> bytes:
        """An old-style group: a B-tree over one symbol table node, and a heap of names."""
        names, offsets = b"\0" * 8, {}
        for name in sorted(places):
            offsets[name] = len(names)
            names += _padded(name.encode() + b"\0")
        segment = self.place(names + struct.pack("<QQ", 1, 16))
        heap = self.place(b"HEAP" + struct.pack("<B3xQQQ", 0, len(names) + 16, len(names), segment))
        entries = b"".join(struct.pack("<QQII16x", offsets[name], places[name], 0, 0) for name in sorted(places))
        keys = b""
        if places:  # the library makes no node for an empty group
            leaf = self.place((b"SNOD" + struct.pack("<BxH", 1, len(places)) + entries).ljust(8 + 8 * 40, b"\0"))
            keys = struct.pack("<QQQ", 0, leaf, max(offsets.values()))
        tree = b"TREE" + struct.pack("<BBHQQ", 0, 0, 1 if places else 0, NOWHERE, NOWHERE) + keys
        return struct.pack("<QQ", self.place(tree.ljust(24 + 33 * 8 + 32 * 8, b"\0")), heap)

    def dataset(self, data: Data) -> int:
        raw = struct.pack(f"<{len(data.values)}f", *data.values)
        extents = data.shape or (len(data.values),)
        shape = _message(SPACE, struct.pack(f"<BBB5x{len(extents)}Q", 1, len(extents), 0, *extents))
        parts = [shape, _message(TYPE, FLOAT32), _message(FILL, bytes([2, 2, 2, 0]))]
        if data.files:
            parts += [self.layout(NOWHERE, len(raw)), self.outside(data.files, len(raw))]
        elif data.filter:
            parts += self.filtered(data.filter, raw, len(data.values))
        else:
            parts.append(self.layout(self.place(raw), len(raw)))
        return self.header(*parts)

    def layout(self, at: int, size: int) -> bytes:
        return _message(LAYOUT, struct.pack("<BBQQ", 3, 1, at, size))

    def filtered(self, number: int, raw: bytes, count: int) -> list[bytes]:
        """One chunk through one filter, by its number; 1 is deflate."""
        chunk = self.place(raw)
        tree = b"TREE" + struct.pack("<BBHQQ", 1, 0, 1, NOWHERE, NOWHERE)
        tree += struct.pack("<IIQQQ", len(raw), 0, 0, 0, chunk) + struct.pack("<IIQQ", 0, 0, count, 0)
        at = self.place(tree.ljust(24 + 65 * 24 + 64 * 8, b"\0"))
        layout = struct.pack("<BBBQII", 3, 2, 2, at, count, 4)
        pipeline = struct.pack("<BB6xHHHH", 1, 1, number, 0, 0, 1) + struct.pack("<II", 9, 0)
        return [_message(LAYOUT, layout), _message(PIPELINE, pipeline)]

    def outside(self, files: tuple[str, ...], size: int) -> bytes:
        """External file list: the raw data lies in files by these names."""
        names, slots = b"\0" * 8, b""
        for name in files:
            slots += struct.pack("<QQQ", len(names), 0, size // len(files))
            names += _padded(name.encode() + b"\0")
        segment = self.place(names + struct.pack("<QQ", 1, 16))
        heap = self.place(b"HEAP" + struct.pack("<B3xQQQ", 0, len(names) + 16, len(names), segment))
        return _message(FILES, struct.pack("<B3xHHQ", 1, len(files), len(files), heap) + slots)

    def attribute(self, name: str, value: str | list[str], wide: bool) -> bytes:
        texts = [value] if isinstance(value, str) else value
        space = (
            struct.pack("<BBB5x", 1, 0, 0) if isinstance(value, str) else struct.pack("<BBB5xQ", 1, 1, 0, len(texts))
        )
        raws = [text.encode() for text in texts]
        if wide:  # variable length: a sequence of characters, kept in the global heap
            kind = struct.pack("<BBBBI", 0x19, 1, 1, 0, 16) + struct.pack("<BBBBI", 0x13, 0, 0, 0, 1)
            heap = self.heap(raws)
            data = b"".join(struct.pack("<IQI", len(raw), heap, number) for number, raw in enumerate(raws, 1))
        else:
            width = max(map(len, raws), default=1) or 1
            kind, data = struct.pack("<BBBBI", 0x13, 1, 0, 0, width), b"".join(raw.ljust(width, b"\0") for raw in raws)
        label = name.encode() + b"\0"
        head = struct.pack("<BxHHH", 1, len(label), len(kind), len(space))
        return _message(ATTRIBUTE, head + _padded(label) + _padded(kind) + _padded(space) + data)

    def heap(self, raws: list[bytes]) -> int:
        """A global heap collection with one object a text."""
        body = b"".join(struct.pack("<HH4xQ", n, 0, len(raw)) + _padded(raw) for n, raw in enumerate(raws, 1))
        size = max(4096, len(body) + 32)
        free = struct.pack("<HH4xQ", 0, 0, size - 16 - len(body))
        return self.place((b"GCOL" + struct.pack("<B3xQ", 1, size) + body + free).ljust(size, b"\0"))


def _link(name: str, child: Node, at: int) -> bytes:
    """A link message, of class hard, soft, external, or whatever the application calls it."""
    label = name.encode()
    match child:
        case External(file, path):
            kind, info = 64, b"\0" + file.encode() + b"\0" + path.encode() + b"\0"
        case Soft(path):
            kind, info = 1, path.encode()
        case UserLink(kind, info):
            pass
        case _:
            return _message(LINK, struct.pack("<BBB", 1, 0, len(label)) + label + struct.pack("<Q", at))
    return _message(LINK, struct.pack("<BBBB", 1, 8, kind, len(label)) + label + struct.pack("<H", len(info)) + info)
