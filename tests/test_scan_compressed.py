"""Compressed files and 7z archives: unpacked within bounds and judged; tricks named; no bytes make them fall."""

import bz2
import gzip
import lzma
import random
import struct
import time
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import END, PNG, PROGRAM, Member, blocked, deflated, filed, judge, rules, zipped


def alone(content: bytes) -> bytes:
    """The old .lzma."""
    return lzma.compress(content, lzma.FORMAT_ALONE)


PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zlib": zlib.compress, "lzma": alone}
LONG = zipped(Member("a.png"), Member("b.png"))


@pytest.mark.parametrize("form", PACK)
def test_a_compressed_file_is_judged_by_what_is_in_it(form):
    """What is sound passes; what is not is found; the format inside is a fact. The name says nothing."""
    found = judge(PACK[form](LONG), "model.bin")
    assert (found.format, found.findings, found.facts["inside"]) == (form, (), "zip")
    found = judge(PACK[form](PROGRAM * 3), "model.pkl.gz")
    assert [f.where for f in found.findings if f.rule == "executable.native"] == ["model.pkl, byte 0"]


@pytest.mark.parametrize("form", PACK)
def test_streams_that_follow_each_other_are_one_content(form):
    """As every reader has it: the second half is not passed over."""
    content = filed("a.png") + filed("b", PROGRAM) + END
    found = judge(PACK[form](content[:700]) + PACK[form](content[700:]))
    assert found.facts["inside"] == "tar" and blocked(found) == {"executable.native"}


@pytest.mark.parametrize("form", ("gzip", "xz"))
def test_zeros_behind_the_end_are_padding(form):
    """As gzip and xz have it."""
    assert judge(PACK[form](LONG) + bytes(8)).findings == ()
    assert judge(PACK[form](LONG) + bytes(8) + PACK[form](b"")).findings == ()


@pytest.mark.parametrize("form", PACK)
@pytest.mark.parametrize("rest", (b"hidden", b"x" * 1000, PROGRAM * 3000))
def test_bytes_behind_the_end_block(form, rest):
    """Few or many."""
    assert "compressed.trailing" in blocked(judge(PACK[form](LONG) + rest))


@pytest.mark.parametrize("form", PACK)
def test_what_is_cut_off_blocks_and_is_judged_as_far_as_it_goes(form):
    """A loader would run the beginning before it meets the end."""
    noise = random.Random(1).randbytes(2 << 20)
    found = judge(PACK[form](PROGRAM + noise)[:-2000])
    assert {"unpack.broken", "executable.native"} <= blocked(found)


@pytest.mark.parametrize("form", ("gzip", "bzip2", "xz", "zlib"))
def test_a_wrong_checksum_blocks(form):
    """Each of them keeps one."""
    content = bytearray(PACK[form](LONG))
    content[{"gzip": -6, "bzip2": 11, "xz": -30, "zlib": -1}[form]] ^= 255
    assert "unpack.broken" in blocked(judge(bytes(content)))


def test_a_short_stream_that_is_damaged_is_still_one():
    """A loader would run what comes before the damage: it is blocked, and not held as something unknown."""
    content = bytearray(zlib.compress(PROGRAM + random.Random(1).randbytes(900), 3))
    content[-200:-100] = b"\xff" * 100
    assert blocked(judge(bytes(content))) == {"unpack.broken"}


@pytest.mark.parametrize("form", PACK)
def test_a_bomb_is_stopped_early(form):
    """Long before it is unpacked."""
    begin = time.monotonic()
    assert blocked(judge(PACK[form](bytes(100 << 20)))) == {"scan.bomb"}
    assert time.monotonic() - begin < 20


def test_wrappers_within_wrappers():
    """Each is opened, and the names lose their endings one by one."""
    found = judge(gzip.compress(bz2.compress(zipped(Member("p", PROGRAM)))), "a.zip.bz2.gz")
    assert [f.where for f in found.findings if f.rule == "executable.native"] == ["a.zip.bz2/a.zip/p, byte 0"]


def test_a_decoder_that_asks_for_much_memory_is_held():
    """A dictionary of 256 MiB, in xz and in lzma."""
    chain = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    wide = bytearray(lzma.compress(LONG, filters=chain))
    wide[16] = 32  # 256 MiB in the block's header, whose checksum is made right again
    wide[20:24] = struct.pack("<I", zlib.crc32(wide[12:20]))
    old = b"\x5d" + struct.pack("<I", 1 << 28) + alone(LONG)[5:]
    for content in (bytes(wide), old):
        found = judge(content)
        assert rules(found) >= {"unpack.memory"} and not blocked(found)


@pytest.mark.parametrize("magic", (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x50\x2a\x4d\x18"))
def test_zstd_and_lz4_are_held(magic):
    """They are known, and not read."""
    found = judge(magic + bytes(50), "model.gguf.zst")
    assert rules(found) == {"compressed.decoder"} and found.format in ("zstd", "lz4")


@pytest.mark.parametrize(
    "text", ("XGBoost is a library.", "x^2 + y^2 = z^2", "BZh is short for nothing", "H", "8", "hello " * 50)
)
def test_a_text_is_no_stream(text):
    """Two bytes that could begin one do not make one."""
    assert judge(text.encode()).format not in PACK


# 7z ------------------------------------------------------------------------------------------------------------------


def number(value: int) -> bytes:
    """As 7z writes it: nine bytes, which is always right."""
    return b"\xff" + struct.pack("<Q", value)


def names(*members: str) -> bytes:
    content = b"\0" + b"".join(name.encode("utf-16-le") + b"\0\0" for name in members)
    return b"\x11" + number(len(content)) + content


def sevenzip(
    *members: tuple[str, bytes], coder: bytes = b"\0", settings: bytes = b"", pack=lambda content: content,
    crcs: bool = True, attributes: tuple[int, ...] = (), between: bytes = b"", suffix: bytes = b"",
    packed_header: bool = False, chain: bool = False, files: tuple[str, ...] = (),
) -> bytes:  # fmt: skip
    """A 7z of one folder that holds all members."""
    content = b"".join(part for _, part in members)
    body = pack(content)

    def folder(size: int, crc: bytes = b"") -> bytes:
        flags = len(coder) | (32 if settings else 0)
        one = bytes([flags]) + coder + (number(len(settings)) + settings if settings else b"")
        shape = number(2) + one + one + number(1) + number(0) if chain else number(1) + one
        sizes = number(size) * (2 if chain else 1)
        return b"\x07\x0b" + number(1) + b"\0" + shape + b"\x0c" + sizes + crc + b"\0"

    def packs(at: int, size: int) -> bytes:
        return b"\x06" + number(at) + number(1) + b"\x09" + number(size) + b"\0"

    sub = b"\x08\x0d" + number(len(members)) + b"\x09" + b"".join(number(len(part)) for _, part in members[:-1])
    sub += b"\x0a\1" + b"".join(struct.pack("<I", zlib.crc32(part) ^ (not crcs)) for _, part in members) + b"\0"
    told = names(*(files or [name for name, _ in members]))
    if attributes:
        told += b"\x15" + number(2 + 4 * len(attributes)) + b"\1\0" + struct.pack(f"<{len(attributes)}I", *attributes)
    listed = b"\x05" + number(len(files or members)) + told + b"\0"
    header = b"\x01\x04" + packs(0, len(body)) + folder(len(content)) + sub + b"\0" + listed + b"\0"
    body += between
    if packed_header:
        size, small = len(header), pack(header)
        crc = b"\x0a\1" + struct.pack("<I", zlib.crc32(header))
        header = b"\x17" + packs(len(body), len(small)) + folder(size, crc) + b"\0"
        body += small
    start = struct.pack("<2QI", len(body), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(start)) + start + body + header + suffix


def lzma2(content: bytes) -> bytes:
    return lzma.compress(content, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])


def lzma1(content: bytes) -> bytes:
    """Without an end mark, as 7z has it."""
    return lzma.compress(content, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}])[13:]


CODERS = {
    "copy": {"coder": b"\0"},
    "lzma": {"coder": b"\3\1\1", "settings": b"\x5d\0\0\x10\0", "pack": lzma1},
    "lzma2": {"coder": b"\x21", "settings": b"\x10", "pack": lzma2},
    "deflate": {"coder": b"\4\1\x08", "pack": deflated},
    "bzip2": {"coder": b"\4\2\2", "pack": bz2.compress},
}
FILES = ("a.png", PNG), ("b/c.pt", LONG), ("e", b"")


@pytest.mark.parametrize("packed_header", (False, True))
@pytest.mark.parametrize("coder", CODERS)
def test_a_sound_7z_passes(coder, packed_header):
    """Whatever it is called, and whether its header is packed or not."""
    found = judge(sevenzip(*FILES, packed_header=packed_header, **CODERS[coder]), "model.pt")
    assert (found.format, found.findings, found.unjudged) == ("7z", (), ())
    assert found.facts["members"] == {"a.png": "png", "b/c.pt": "zip"}


@pytest.mark.parametrize("coder", CODERS)
def test_a_payload_in_a_7z_is_found(coder):
    """In a solid stream, behind others."""
    found = judge(sevenzip(*FILES, ("p", PROGRAM), ("q.png", PNG), **CODERS[coder]))
    assert [f.where for f in found.findings if f.rule == "executable.native"] == ["p, byte 0"]


@pytest.mark.parametrize("coder", CODERS)
def test_a_wrong_checksum_in_a_7z_blocks(coder):
    """Each member keeps one."""
    assert "sevenzip.checksum" in blocked(judge(sevenzip(*FILES, crcs=False, **CODERS[coder])))


SEVENZIP = {
    "bytes between": (sevenzip(*FILES, between=b"hidden"), "sevenzip.polyglot"),
    "bytes behind": (sevenzip(*FILES, suffix=PROGRAM), "executable.native"),
    "bytes behind what was packed": (
        sevenzip(*FILES, coder=b"\4\1\x08", pack=lambda content: deflated(content) + b"hidden"), "sevenzip.polyglot"
    ),
    "a damaged stream": (sevenzip(*FILES, coder=b"\4\1\x08", pack=lambda content: b"\xff" * 90), "unpack.broken"),
    "a stored stream of another length": (
        sevenzip(*FILES, pack=lambda content: content + b"hidden"), "sevenzip.header"
    ),
    "out of the folder": (sevenzip(("../a.png", PNG)), "archive.outside"),
    "a link out": (sevenzip(("l", b"../x"), attributes=(0o120777 << 16 | 0x8000,)), "archive.link"),
    "more names than members": (sevenzip(*FILES, files=("a", "b", "c", "d")), "sevenzip.header"),
    "fewer names than members": (sevenzip(*FILES, files=("a",)), "sevenzip.header"),
    "a wrong checksum of the header": (sevenzip(*FILES)[:-1] + b"\1", "sevenzip.header"),
    "cut off": (sevenzip(*FILES)[:-5], "sevenzip.header"),
    "impossible settings": (
        sevenzip(*FILES, coder=b"\3\1\1", settings=b"\xff\0\0\x10\0", pack=lzma1), "unpack.broken"
    ),
    "a bomb": (sevenzip(("b", bytes(70 << 20)), **CODERS["lzma2"]), "scan.bomb"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEVENZIP)
def test_a_trick_in_a_7z_blocks(name):
    """Each by its rule."""
    content, rule = SEVENZIP[name]
    assert rule in blocked(judge(content, "model.pt"))


@pytest.mark.parametrize(
    "more", ({"chain": True}, {"coder": b"\x06\xf1\7\1", "settings": b"\x13"}, {"coder": b"\3\3\1\3"})
)
def test_a_7z_that_is_not_read_is_held(more):
    """Chains, encryption and filters: and none of it is called sound."""
    found = judge(sevenzip(*FILES, **more))
    assert rules(found) == {"sevenzip.method"} and not blocked(found) and found.unjudged


def test_a_7z_whose_names_are_encrypted_is_held():
    """The header itself cannot be read."""
    found = judge(sevenzip(*FILES, coder=b"\x06\xf1\7\1", settings=b"\x13", packed_header=True))
    assert rules(found) == {"sevenzip.method"}


def test_a_7z_that_asks_for_much_memory_is_held():
    """A dictionary of 1.5 GiB."""
    assert rules(judge(sevenzip(*FILES, coder=b"\x21", settings=b"\x25", pack=lzma2))) == {"unpack.memory"}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(CODERS)), st.booleans(), st.integers(0, 3000), st.binary(min_size=1, max_size=6))
def test_a_mutated_7z_never_makes_it_fall(coder, packed_header, at, piece):
    """Bytes replaced anywhere, with the header's checksums made right again."""
    content = bytearray(sevenzip(*FILES, packed_header=packed_header, **CODERS[coder]))
    at = 12 + at % (len(content) - 12)
    content[at : at + len(piece)] = piece
    offset, length = struct.unpack_from("<2Q", content, 12)
    if offset + length < len(content):
        content[28:32] = struct.pack("<I", zlib.crc32(content[32 + offset : 32 + offset + length]))
    content[8:12] = struct.pack("<I", zlib.crc32(content[12:32]))
    judge(bytes(content))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(PACK)), st.integers(0, 500), st.binary(max_size=6), st.integers(0, 40))
def test_a_mutated_stream_never_makes_it_fall(form, at, piece, cut):
    """Bytes replaced anywhere, and sometimes the end cut off."""
    content = bytearray(PACK[form](LONG))
    at %= len(content)
    content[at : at + len(piece)] = piece
    judge(bytes(content[: len(content) - cut]))
