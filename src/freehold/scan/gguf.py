"""GGUF, the engine's own format: is the file whole, and is every number in its header one that can be true?

Format: the GGUF specification, versions 2 and 3 (little-endian). Nothing is allocated by a length that the file
claims before that length is known to lie inside the file; metadata is kept cut, and cut again past `MAX_ROOM`.

Facts: ``architecture``, ``context`` (tokens; 0 where the file does not say), ``name``, ``type``, ``parameters``,
``tensors``, ``licence``, ``licence_name``, ``licence_link``, ``base_models``, ``split`` ([number, count]), ``metadata``
(every key; arrays cut to `MAX_KEPT` elements, strings to `MAX_STRING_KEPT` bytes), ``templates``, ``template_texts``;
of an adapter also ``shapes`` ({tensor: dimensions}, up to `MAX_SHAPES` of them) and ``types`` (the type, by its
number in the format, of each key below ``adapter.``).
"""

from __future__ import annotations

import math
import os
import re
import struct
from pathlib import Path
from typing import Any

from freehold.scan import templates
from freehold.scan.base import BLOCK, FETCH_AGAIN, HOLD, Malformed, Report, Rule
from freehold.scan.tape import BLOCK as CHUNK
from freehold.scan.tape import FileTape, Tape, Truncated

FORMAT = "gguf"
MAGIC = b"GGUF"
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_ARRAY = 1 << 30
MAX_STRING = 1 << 30
MAX_ELEMENTS = 1 << 24  # strings and arrays inside arrays, in all
MAX_KEY = 65_535
MAX_KEYS_BYTES = 4 << 20  # of all names of keys together
MAX_NAME = 63
MAX_ALIGNMENT = 1 << 20
MAX_KEPT = 64  # array elements kept for others to read
MAX_STRING_KEPT = 64 << 10
MAX_ROOM = 8 << 20  # bytes of values kept in all
MAX_SHAPES = 1 << 14  # tensors of an adapter whose shape is kept

SPEC = "GGUF specification"
VERSION = Rule("gguf.version", BLOCK, "The version of the format is not known.", FETCH_AGAIN, SPEC)
ENDIAN = Rule(
    "gguf.endian", HOLD, "The file was written for big-endian machines; nothing past its version was judged.",
    "Ask the publisher for the little-endian file: the engine opens no other.", SPEC,
)  # fmt: skip
COUNT = Rule("gguf.count", BLOCK, "The file claims more entries than any model has.", FETCH_AGAIN, SPEC)
STRING = Rule("gguf.string", BLOCK, "The file claims a string of impossible length.", FETCH_AGAIN, SPEC)
KEY = Rule("gguf.key", BLOCK, "A metadata key is empty, not readable ASCII or there twice.", FETCH_AGAIN, SPEC)
TEMPLATE = Rule(
    "gguf.template", HOLD, "A chat template is not one text: engines read none here, or not the one that is shown.",
    "Ask the publisher for a file with one text in each template; decide by name and reason.", SPEC,
)  # fmt: skip
TYPE = Rule("gguf.type", BLOCK, "A metadata value has an unknown type.", FETCH_AGAIN, SPEC)
BOOL = Rule("gguf.bool", BLOCK, "A truth value is neither 0 nor 1.", FETCH_AGAIN, SPEC)
ARRAY = Rule("gguf.array", BLOCK, "The file claims an array of impossible length or depth.", FETCH_AGAIN, SPEC)
ALIGNMENT = Rule("gguf.alignment", BLOCK, "The alignment is not a power of two.", FETCH_AGAIN, SPEC)
NAME = Rule("gguf.tensor.name", BLOCK, "A tensor's name is empty or there twice.", FETCH_AGAIN, SPEC)
SHAPE = Rule(
    "gguf.tensor.shape", BLOCK, "A tensor has an impossible shape: a reader that multiplies it out may overflow.",
    FETCH_AGAIN, "CVE-2026-27940",
)  # fmt: skip
TENSOR_TYPE = Rule("gguf.tensor.type", BLOCK, "A tensor has an unknown or removed type.", FETCH_AGAIN, SPEC)
OFFSET = Rule("gguf.tensor.offset", BLOCK, "Tensors overlap or leave a hole.", FETCH_AGAIN, SPEC)
SHORT = Rule(
    "gguf.truncated", BLOCK, "The tensors reach past the end of the file.", FETCH_AGAIN, "CVE-2026-7482"
)  # fmt: skip
TRAILING = Rule(
    "gguf.trailing", BLOCK, "Bytes follow the last tensor and belong to nothing.",
    "Ask the publisher what they are, and for a file without them.", SPEC,
)  # fmt: skip
PADDING = Rule(
    "gguf.padding", HOLD, "The padding between tensors holds something other than zeros.",
    "Ask the publisher what it is; decide by name and reason.", SPEC,
)  # fmt: skip

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
NAMES = "tokenizer.chat_templates"  # the list of the templates' names
_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+?)/?")

# Tensor type -> (values in a block, bytes of a block), as ggml lays them out. 4, 5, 31-33 and 36-38 were
# removed from the format and must not appear.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """By the magic number."""
    return head.startswith(MAGIC)


def scan(tape: Tape, report: Report) -> None:
    """Read header, tensor list and tensor data; judge every chat template on the way. Raises Malformed."""
    _Reader(tape, report).file()


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The dimensions of each tensor of a model that was admitted, by its name; nothing past its header is read.

    Raises:
        Malformed, Truncated: the file is not what it was.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tape = FileTape(descriptor, os.fstat(descriptor).st_size)
        try:
            reader = _Reader(tape, Report(path.name, lambda tape, report: None, size=tape.size))
            reader.header()
            return reader.shapes
        finally:
            tape.close()
    finally:
        os.close(descriptor)


class _Reader:
    """Reads one file from its start, never past its end."""

    def __init__(self, tape: Tape, report: Report):
        self.tape, self.report = tape, report
        self.room = MAX_ROOM
        self.parameters = self.elements = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.own_types: dict[str, int] = {}  # the types of an adapter's own keys

    def file(self) -> None:
        lengths, alignment = self.header()
        facts = self.report.facts
        facts["parameters"] = min(self.parameters, (1 << 63) - 1)
        if facts["type"] == "adapter":
            facts["shapes"] = {name: self.shapes[name] for name in list(self.shapes)[:MAX_SHAPES]}
            facts["types"] = self.own_types
        self.data(lengths, alignment)

    def header(self) -> tuple[list[int], int]:
        """All that comes before the data: the length of each tensor's, and its alignment."""
        self.tape.read(len(MAGIC))
        self.version()
        tensors, keys = self.count(MAX_TENSORS, "tensors"), self.count(MAX_KEYS, "metadata keys")
        metadata = self.metadata(keys)
        self.report.facts |= _facts(metadata) | {"tensors": tensors}
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise Malformed(ALIGNMENT, self.tape.at, f"The alignment {alignment!r} is not a power of two up to 2^20.")
        return self.tensors(tensors, alignment), alignment

    def version(self) -> None:
        version = self.number("I")
        if version in (2 << 24, 3 << 24):
            raise Malformed(ENDIAN, 4)
        if version not in (2, 3):
            raise Malformed(VERSION, 4, f"GGUF version {version} is not known; 2 and 3 are.")

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.tape.read(struct.calcsize("<" + code)))[0]

    def count(self, most: int, what: str) -> int:
        value = self.number("Q")
        if value > most:
            raise Malformed(COUNT, self.tape.at - 8, f"The file claims {value} {what}; no model has that many.")
        return value

    def string(self, limit: int, what: str) -> bytes:
        length = self.number("Q")
        if length > limit:
            raise Malformed(STRING, self.tape.at - 8, f"The file claims {what} of {length} bytes.")
        return self.tape.read(length)

    def metadata(self, count: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        total = 0
        for _ in range(count):
            start = self.tape.at
            name = self.key(start)
            total += len(name)
            if name in found or total > MAX_KEYS_BYTES:
                why = f"{name!r} appears twice" if name in found else "names together are longer than any model's"
                raise Malformed(KEY, start, f"The metadata key {why}.")
            if name.startswith("tokenizer.chat_template"):
                found[name] = self.template(name)
            else:
                kind = self.number("I")
                if name.startswith("adapter."):
                    self.own_types[name] = kind
                found[name] = self.value(kind)
        return found

    def key(self, start: int) -> str:
        key = self.string(MAX_KEY, "a key")
        if not key or not key.isascii() or not key.decode().isprintable():
            raise Malformed(KEY, start, "A metadata key is empty, not ASCII or has characters that are not shown.")
        return key.decode()

    def template(self, name: str) -> Any:
        """A chat template is read whole, up to what is ever judged, and judged. A list of their names is none."""
        kind, start = self.number("I"), self.tape.at
        title = name.removeprefix("tokenizer.chat_template").lstrip(".") or "default"
        if kind != _STRING:
            value = self.value(kind)
            if name != NAMES:
                self.report.add(TEMPLATE, start)
                self.listed(value, title, start)
            return value
        content = self.long_string(templates.MAX_TEXT + 1)
        templates.judge(content.decode("utf-8", "replace"), title, self.report, start)
        return self.kept(content)

    def listed(self, value: Any, title: str, start: int) -> None:
        """Judge each text of a list that stands where a template should, as far as it is kept."""
        if isinstance(value, str):
            templates.judge(value, title, self.report, start)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                self.listed(item, f"{title} {number}", start)

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.kept(self.long_string(MAX_STRING_KEPT))
        if kind == _ARRAY:
            return self.array(depth)
        if kind not in _SCALARS:
            raise Malformed(TYPE, self.tape.at - 4, f"A metadata value has the unknown type {kind}.")
        value = self.number(_SCALARS[kind])
        if kind == _BOOL and value > 1:
            raise Malformed(BOOL, self.tape.at - 1, f"A truth value is {value}.")
        return bool(value) if kind == _BOOL else value

    def long_string(self, kept: int) -> bytes:
        """A string's first ``kept`` bytes; the rest is read past, in pieces."""
        length = self.number("Q")
        if length > MAX_STRING:
            raise Malformed(STRING, self.tape.at - 8, f"The file claims a string of {length} bytes.")
        if length > self.tape.left:
            raise Truncated(self.tape.at, length)
        content = self.tape.read(min(length, kept))
        self.past(length - len(content))
        return content

    def kept(self, content: bytes) -> str:
        """As text, as long as there is room for it."""
        content = content[: max(min(MAX_STRING_KEPT, self.room), 0)]
        self.room -= len(content)
        return content.decode("utf-8", "replace")

    def past(self, length: int) -> None:
        """Read past numbers and letters that nobody needs; they are parsed all the same."""
        if length > self.tape.left:
            raise Truncated(self.tape.at, length)
        while length:
            length -= len(self.tape.read(min(length, CHUNK)))

    def array(self, depth: int) -> list[Any]:
        kind, length = self.number("I"), self.number("Q")
        if length > MAX_ARRAY or depth > 3:
            raise Malformed(
                ARRAY, self.tape.at - 8, f"The file claims an array of {length} values, {depth + 1} deep."
            )  # fmt: skip
        self.room -= 64
        if kind == _STRING:
            return [self.kept(content) for content in self.strings(length)]
        if kind == _ARRAY:
            return self.arrays(length, depth)
        if kind not in _SCALARS:
            raise Malformed(TYPE, self.tape.at - 12, f"An array is of the unknown type {kind}.")
        return self.numbers(kind, length)

    def arrays(self, length: int, depth: int) -> list[Any]:
        self.spend(length, 12)
        kept = []
        for _ in range(length):
            element = self.array(depth + 1)
            if len(kept) < MAX_KEPT and self.room > 0:
                kept.append(element)
        return kept

    def numbers(self, kind: int, length: int) -> list[Any]:
        code, width = _SCALARS[kind], struct.calcsize("<" + _SCALARS[kind])
        kept = min(length, MAX_KEPT if self.room > 0 else 0)
        values = list(struct.unpack(f"<{kept}{code}", self.tape.read(kept * width)))
        self.room -= 32 * kept
        if kind != _BOOL:
            self.past((length - kept) * width)
            return values
        left = length - kept
        if left > self.tape.left:
            raise Truncated(self.tape.at, left)
        worst = max(values, default=0)
        while left:
            piece = self.tape.read(min(left, CHUNK))
            left, worst = left - len(piece), max(worst, max(piece))
        if worst > 1:
            raise Malformed(BOOL, self.tape.at - length, f"A truth value is {worst}.")
        return [bool(value) for value in values]

    def strings(self, count: int) -> list[bytes]:
        """The first strings of an array. Each takes eight bytes at least, so that many can be read at once without
        reading past the array: a vocabulary takes few calls."""
        self.spend(count, 8)
        kept: list[bytes] = []
        buffer, at = b"", 0
        for left in range(count, 0, -1):
            if len(buffer) - at < 8:
                buffer, at = buffer[at:], 0
                buffer += self.tape.read(min(8 * left, CHUNK) - len(buffer))
            (length,) = _LENGTH.unpack_from(buffer, at)
            begin, at = at + 8, at + 8 + length
            piece = buffer[begin : min(at, begin + MAX_STRING_KEPT)] if len(kept) < MAX_KEPT else b""
            if at > len(buffer):
                piece += self.rest(length, at - len(buffer))
                buffer, at = self.tape.read(min(8 * (left - 1), CHUNK)), 0
            if len(kept) < MAX_KEPT:
                kept.append(piece)
        return kept

    def rest(self, length: int, missing: int) -> bytes:
        """The beginning of the rest of a string that the buffer held a part of; all of it is read past."""
        if length > MAX_STRING:
            raise Malformed(STRING, self.tape.at, f"The file claims a string of {length} bytes.")
        if missing > self.tape.left:
            raise Truncated(self.tape.at, missing)
        first = self.tape.read(min(missing, MAX_STRING_KEPT))
        self.past(missing - len(first))
        return first

    def spend(self, count: int, least: int) -> None:
        """Count the strings and arrays inside arrays; each takes at least so many bytes."""
        self.elements += count
        if self.elements > MAX_ELEMENTS:
            raise Malformed(ARRAY, self.tape.at, f"The arrays of the file hold more than {MAX_ELEMENTS} strings.")
        if count * least > self.tape.left:
            raise Truncated(self.tape.at, count * least)

    def tensors(self, count: int, alignment: int) -> list[int]:
        """The length of each tensor's data, in bytes."""
        names: set[bytes] = set()
        lengths: list[int] = []
        expected = 0
        for _ in range(count):
            start = self.tape.at
            name = self.string(MAX_NAME, "a tensor's name")
            if not name or name in names:
                raise Malformed(NAME, start, f"The tensor name {_shown(name)} is empty or appears twice.")
            names.add(name)
            lengths.append(self.tensor_bytes(name))
            if (offset := self.number("Q")) != expected:
                raise Malformed(
                    OFFSET, self.tape.at - 8,
                    f"The tensor {_shown(name)} begins at {offset}, where {expected} is due: "
                    "tensors overlap or leave a hole.",
                )  # fmt: skip
            expected += _padded(lengths[-1], alignment)
        return lengths

    def tensor_bytes(self, name: bytes) -> int:
        start, dimensions = self.tape.at, self.number("I")
        if dimensions > 4:
            raise Malformed(SHAPE, start, f"The tensor {_shown(name)} has {dimensions} dimensions.")
        shape = struct.unpack(f"<{dimensions}Q", self.tape.read(8 * dimensions))
        kind = self.number("I")
        if kind not in BLOCKS:
            raise Malformed(TENSOR_TYPE, self.tape.at - 4, f"The tensor {_shown(name)} has the unknown type {kind}.")
        self.shapes[name.decode("utf-8", "replace")] = shape
        values, (per_block, block_bytes) = math.prod(shape), BLOCKS[kind]
        if max(shape, default=0) > 1 << 48 or values > 1 << 48 or (shape[0] if shape else 1) % per_block:
            raise Malformed(SHAPE, start, f"The tensor {_shown(name)} has the impossible shape {shape}.")
        self.parameters += values
        return values // per_block * block_bytes

    def data(self, lengths: list[int], alignment: int) -> None:
        """Let the tensors pass; what lies between them has to be zeros. The last one's padding may be left out."""
        tape = self.tape
        start = _padded(tape.at, alignment)
        padded = start + sum(_padded(length, alignment) for length in lengths)
        needed = padded - (_padded(lengths[-1], alignment) - lengths[-1]) if lengths else tape.at
        if needed > tape.size:
            meaning = f"The tensors need {needed} bytes and the file has {tape.size}: it is cut off."
            raise Malformed(SHORT, tape.at, meaning)
        self.padding(min(start - tape.at, tape.left))
        for length in lengths:
            tape.data(length)
            self.padding(min(_padded(length, alignment) - length, tape.left))
        if tape.left:
            meaning = f"{tape.left} bytes follow the last tensor and belong to nothing."
            raise Malformed(TRAILING, tape.at, meaning)

    def padding(self, length: int) -> None:
        start = self.tape.at
        if length and self.tape.read(length).strip(b"\0"):
            self.report.add(PADDING, start)


_LENGTH = struct.Struct("<Q")


def _shown(name: bytes) -> str:
    """A name as a person reads it, with quotes around it."""
    return repr(name.decode("utf-8", "replace"))


def _padded(length: int, alignment: int) -> int:
    return (length + alignment - 1) // alignment * alignment


def _facts(metadata: dict[str, Any]) -> dict[str, Any]:
    """What others ask for, by the names that all formats share; what the file leaves out is '' or 0."""

    def text(key: str) -> str:
        value = metadata.get(key, "")
        return value if isinstance(value, str) else ""

    context = metadata.get(f"{text('general.architecture')}.context_length", 0)
    facts: dict[str, Any] = {
        "architecture": text("general.architecture"), "context": context if type(context) is int else 0,
        "name": text("general.name"), "type": text("general.type"),
        "licence": text("general.license"), "licence_name": text("general.license.name"),
        "licence_link": text("general.license.link"), "base_models": _base_models(metadata), "metadata": metadata,
    }  # fmt: skip
    number, count = metadata.get("split.no"), metadata.get("split.count")
    if type(number) is int and type(count) is int and count > 1:
        facts["split"] = [number, count]
    return facts


def _base_models(metadata: dict[str, Any]) -> list[str]:
    """``org/name`` where a hub's address says so, else the organisation and name that are written there."""
    found = []
    for key, value in metadata.items():
        match = re.fullmatch(r"general\.base_model\.(\d{1,3})\.(repo_url|name)", key)
        if not match or not isinstance(value, str):
            continue
        address = _HUB.fullmatch(str(metadata.get(f"general.base_model.{match[1]}.repo_url", "")))
        found.append(address[1] if address else value)
    return list(dict.fromkeys(found))[:64]
