"""The index of a TensorFlow checkpoint (`variables.index`): which bytes of which data file are which variable.

Format: LevelDB's table format (blocks of keys that share their beginnings, a footer of 48 bytes) with a
BundleHeaderProto under the empty key and a BundleEntryProto under each other: tensor_bundle.proto of TensorFlow 2.21.
Facts: `external` (where the variables lie in the files beside it, for whoever sees the folder), `tensors`.
"""

from __future__ import annotations

from collections.abc import Iterator

from freehold.scan import external, protobuf
from freehold.scan.base import FETCH_AGAIN, HOLD, Malformed, Report, Rule
from freehold.scan.tape import MemoryTape, Tape

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
TRAILER = 5  # behind each block: how it is packed, and a checksum
MAX_KEY = 4096
MAX_ENTRIES = 200_000
MAX_SHARDS = 99_999
MAX_PLACES = 50_000

_SPEC = "LevelDB, table_format.md; tensor_bundle.proto"
BROKEN = Rule("tensorflow.checkpoint", HOLD, "The index of a checkpoint does not read as one.", FETCH_AGAIN, _SPEC)
PACKED = Rule(
    "tensorflow.checkpoint.packed", HOLD, "The index of a checkpoint is compressed in a way that is not read here.",
    "Ask the publisher to save the model again with a current TensorFlow, or decide by name and reason.", _SPEC,
)  # fmt: skip

SCHEMA = protobuf.schema("""
Header: 1 num_shards int; 2 endianness int; 3 version Version
Version: 1 producer int; 2 min_consumer int; 3 bad_consumers ints
Entry: 1 dtype int; 2 shape Shape; 3 shard_id int; 4 offset int; 5 size int; 6 crc32c f32; 7 slices Slice*
Shape: 2 dim Dim*; 3 unknown_rank int
Dim: 1 size int; 2 name blob
Slice: 1 extent Extent*
Extent: 1 start int; 2 length int
""")

Row = tuple[bytes, bytes]  # key and value
Handle = tuple[int, int]  # where a block begins, and its bytes


def recognises(tape: Tape) -> bool:
    """The first key is empty, and the footer ends with the table's magic number."""
    if tape.left < FOOTER + 8 or tape.peek(tape.at, 2) != b"\0\0":
        return False
    return tape.peek(tape.at + tape.left - 8, 8) == MAGIC


def scan(tape: Tape, report: Report) -> None:
    """Read the table whole; its blocks fill the file without a gap. Raises Malformed, Oversized."""
    content = tape.read(tape.left)
    places: dict[int, list[external.Place]] = {}
    shards = count = 0
    for key, value in _rows(content):
        count += 1
        if count > MAX_ENTRIES:
            raise Malformed(BROKEN, "entries", f"The index has more than {MAX_ENTRIES} entries.")
        if count == 1:
            shards = _shards(key, value, report)
            continue
        shard, place = _entry(key, value, shards, report)
        places.setdefault(shard, []).append(place)
    if not shards:
        raise Malformed(BROKEN, "header", "The index has no header.")
    report.facts.update(external=_external(report.name, shards, places), tensors=count - 1)


def _external(name: str, shards: int, places: dict[int, list[external.Place]]) -> list[dict[str, object]]:
    """The variables' places, those that touch as one; without a name that ends as it should, the data stays unknown."""
    if not name.endswith(".index"):
        return []
    stem = name.removesuffix(".index")
    found = [
        {"location": f"{stem}.data-{shard:05}-of-{shards:05}", "offset": begin, "length": end - begin}
        for shard in sorted(places)
        for begin, end in external.merged(places[shard])
    ]
    if len(found) > MAX_PLACES:
        raise Malformed(BROKEN, "entries", f"The variables lie in more than {MAX_PLACES} places.")
    return found


def _shards(key: bytes, value: bytes, report: Report) -> int:
    header = protobuf.read(MemoryTape(value), SCHEMA, "Header", report, {})
    shards = header.get("num_shards", 0)
    if key or not 0 < shards <= MAX_SHARDS:
        raise Malformed(BROKEN, "header", "The index does not begin with a header that can be true.")
    return shards


def _entry(key: bytes, value: bytes, shards: int, report: Report) -> tuple[int, external.Place]:
    """In which data file a variable lies, and where."""
    entry = protobuf.read(MemoryTape(value), SCHEMA, "Entry", report, {})
    shard, offset, size = entry.get("shard_id", 0), entry.get("offset", 0), entry.get("size", 0)
    if not key or not 0 <= shard < shards or offset < 0 or size < 0:
        raise Malformed(BROKEN, ascii(key[:100].decode("utf-8", "replace")), "A variable lies where nothing can be.")
    return shard, (offset, offset + size)


def _rows(content: bytes) -> Iterator[Row]:
    """Every key and value of the table, in order."""
    end = len(content) - FOOTER
    footer = MemoryTape(content[end:-8])
    meta, index = _handle(footer), _handle(footer)
    if any(footer.read(footer.left)):
        raise Malformed(BROKEN, end, "There is something behind the footer's two places.")
    blocks = [_handle(MemoryTape(value)) for _, value in _block(content, index)]
    at = 0
    for offset, size in [*blocks, meta, index]:
        if offset != at:
            raise Malformed(BROKEN, at, f"A block of the index begins at byte {offset} and not at byte {at}.")
        at = offset + size + TRAILER
    if at != end:
        raise Malformed(BROKEN, at, "The blocks of the index do not fill the file.")
    if list(_block(content, meta)):
        raise Malformed(BROKEN, meta[0], "The index says more of itself than TensorFlow writes.")
    for block in blocks:
        yield from _block(content, block)


def _handle(tape: MemoryTape) -> Handle:
    return protobuf.varint(tape, tape.size, tape.at), protobuf.varint(tape, tape.size, tape.at)


def _block(content: bytes, handle: Handle) -> Iterator[Row]:
    """The keys and values of one block: each key says how much of the last it shares."""
    begin, size = handle
    if size < 4 or begin + size + TRAILER > len(content) - FOOTER:
        raise Malformed(BROKEN, begin, "A block of the index lies outside it.")
    if content[begin + size]:
        raise Malformed(PACKED, begin)
    tape = MemoryTape(content[begin : begin + size])
    restarts = int.from_bytes(tape.peek(size - 4, 4), "little")
    end, key = size - 4 - 4 * restarts, b""
    if end < 0:
        raise Malformed(BROKEN, begin, "A block of the index ends before it begins.")
    while tape.at < end:
        shared, more, length = (protobuf.varint(tape, end, begin + tape.at) for _ in range(3))
        if shared > len(key) or shared + more > MAX_KEY or more + length > end - tape.at:
            raise Malformed(BROKEN, begin + tape.at, "An entry of the index is longer than what it lies in.")
        key = key[:shared] + tape.read(more)
        yield key, tape.read(length)
