"""Zip archives: sound ones of every writer pass, every trick is named, and no bytes make the scanner fall."""

import bz2
import io
import lzma
import random
import struct
import time
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import PNG, PROGRAM, Member, blocked, deflated, judge, rules, zipped


def lzma_packed(content: bytes) -> bytes:
    """LZMA as zip keeps it: version, length, settings, stream with an end mark."""
    chain = [{"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 1 << 16}]
    return b"\x09\4\5\0\x5d\0\0\1\0" + lzma.compress(content, lzma.FORMAT_RAW, filters=chain)


def python_zip(streamed: bool = False, method: int = 8) -> bytes:
    """What the standard library writes, to a file or to a pipe."""
    target = io.BytesIO()
    with zipfile.ZipFile(_Pipe(target) if streamed else target, "w", method) as archive:
        archive.writestr("folder/a.png", PNG)
        archive.writestr("b.png", PNG)
        archive.mkdir("folder")
        archive.writestr("empty", b"")
    return target.getvalue()


class _Pipe:
    """A file that cannot seek."""

    def __init__(self, target: io.BytesIO):
        self.target = target

    def write(self, content: bytes) -> int:
        return self.target.write(content)

    def flush(self) -> None:
        pass


FB = b"FB\x10\0" + b"Z" * 16
BIG = PNG[:-12] + b"".join(
    struct.pack(">I", 1 << 20) + body + struct.pack(">I", zlib.crc32(body))
    for body in [b"teXt" + bytes(1 << 20)] * 20
) + PNG[-12:]  # fmt: skip

SOUND = {
    "stored": zipped(Member()),
    "deflated": zipped(Member(method=8), Member("b.png")),
    "bzip2": zipped(Member(method=12, packed=bz2.compress(PNG))),
    "lzma": zipped(Member(method=14, flags=2, packed=lzma_packed(PNG))),
    "lzma without an end mark": zipped(Member(method=14, packed=lzma_packed(PNG))),
    "xz": zipped(Member(method=95, packed=lzma.compress(PNG))),
    "nothing in it": zipped(),
    "an empty file and a folder": zipped(Member("e", b""), Member("f/", b""), Member("e8", b"", method=8)),
    "descriptors": zipped(
        Member(descriptor="signed"), Member("b", descriptor="bare"), Member("c", descriptor="wide", method=8)
    ),
    "a descriptor of an empty file": zipped(Member("e", b"", descriptor="bare"), Member(descriptor="signed")),
    "zip64": zipped(Member(), wide=True),
    "zip64 with full fields": zipped(Member(), wide="full"),
    "zip64 sizes": zipped(
        Member(
            extra=struct.pack("<2H2Q", 1, 16, len(PNG), len(PNG)), more=struct.pack("<2HQ", 1, 8, len(PNG)),
            local={"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF}, central={"size": 0xFFFFFFFF},
        )
    ),
    "PyTorch's padding": zipped(Member(extra=FB, descriptor="signed")),
    "PyTorch's local zip64 field": zipped(Member(extra=struct.pack("<2HQ", 1, 8, 5 << 30), descriptor="wide")),
    "padding of zeros": zipped(Member(extra=bytes(3))),
    "a comment": zipped(Member(), comment=b"made on a Tuesday\n"),
    "UTF-8 names": zipped(Member("modèle.png", flags=0x800)),
    "a zip in a zip": zipped(Member("a.zip", zipped(Member())), Member("b.zip", zipped(Member()), method=8)),
    "from a file": python_zip(),
    "from a pipe": python_zip(streamed=True),
    "stored from a pipe": python_zip(streamed=True, method=0),
    "larger than memory": zipped(Member("big.png", BIG, method=8)),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_zip_passes(name):
    """Whoever wrote it, and whatever of the format it uses."""
    found = judge(SOUND[name], "x.pt")
    assert found.format == "zip" and found.findings == () and found.unjudged == ()


def test_members_are_told_apart_by_content():
    """The facts name each member's format, whatever its name ends in."""
    found = judge(zipped(Member("a.txt"), Member("b.txt", zipped())))
    assert found.facts["members"] == {"a.txt": "png", "b.txt": "zip"}


@pytest.mark.parametrize("method", (0, 8))
@pytest.mark.parametrize("name", ("archive/data.pkl", "model.png", "no-ending", "data/0"))
def test_a_payload_is_found_in_a_member(method, name):
    """Stored or packed, under any name."""
    found = judge(zipped(Member(), Member(name, PROGRAM, method)))
    assert {finding.where for finding in found.findings if finding.rule == "executable.native"} == {f"{name}, byte 0"}


def test_a_payload_is_found_in_a_zip_in_a_zip_in_a_zip():
    """The way to it is named."""
    inner = zipped(Member("c", PROGRAM, 8))
    found = judge(zipped(Member("a.zip", zipped(Member("b.zip", inner, 8)), 8)))
    assert [f.where for f in found.findings if f.rule == "executable.native"] == ["a.zip/b.zip/c, byte 0"]


def test_a_payload_in_a_member_too_large_for_memory_is_found():
    """Through the scratch file, twice over, and the levels do not mix."""
    noise = random.Random(1).randbytes(20 << 20)
    inner = zipped(Member("noise", noise, 8), Member("c", PROGRAM, 8))
    outer = zipped(Member("a.zip", inner, 8), Member("d", PROGRAM, 8), Member("e.png", BIG, 8))
    found = judge(outer)
    where = [f.where for f in found.findings if f.rule == "executable.native"]
    assert where == ["a.zip/c, byte 0", "d, byte 0"] and found.facts["members"]["e.png"] == "png"


def test_without_room_what_is_too_large_is_held():
    """And the other members are judged all the same."""
    found = judge(zipped(Member("big.png", BIG, 8), Member("p", PROGRAM)), scratch=False)
    assert {"unpack.room", "executable.native"} <= rules(found)


def storages(content: bytes = bytes(5000), **more) -> bytes:
    """A PyTorch archive with one storage."""
    return zipped(Member("m/data.pkl", PNG), Member("m/data/0", content, extra=FB, descriptor="signed", **more))


def test_a_storage_is_tensor_data():
    """Its bytes are counted as data, whatever they look like."""
    found = judge(storages(PROGRAM))
    assert rules(found) <= {"pytorch.loose"} and found.data >= len(PROGRAM)
    assert rules(judge(zipped(Member("m/data.pkl", PNG), Member("m/data/0", PROGRAM, 8)))) <= {"pytorch.loose"}


def test_what_is_called_a_storage_without_a_pickle_beside_it_is_judged():
    """The near miss: no data.pkl in the same folder."""
    found = judge(zipped(Member("n/data.pkl", PNG), Member("m/data/0", PROGRAM)))
    assert "executable.native" in rules(found)


def crc(value: int) -> dict:
    return {"crc": value}


NAME = struct.pack("<2HBI", 0x7075, 5 + 8, 1, 0) + b"evil.png"
TRICKS = {
    "encrypted (CVE-2025-1945)": (zipped(Member(flags=1)), "zip.flags"),
    "encrypted by one header": (zipped(Member(local={"flags": 1})), "zip.flags"),
    "patched": (zipped(Member(flags=0x20)), "zip.flags"),
    "strongly encrypted": (zipped(Member(flags=0x40)), "zip.flags"),
    "another name in the header (CVE-2025-1944)": (zipped(Member(local={"name": b"b.pkl"})), "zip.differs"),
    "another size": (zipped(Member(local={"size": 1})), "zip.differs"),
    "another packed size": (zipped(Member(local={"packed": 1})), "zip.differs"),
    "another method": (zipped(Member(local={"method": 8})), "zip.differs"),
    "another checksum in the header": (zipped(Member(local=crc(1))), "zip.differs"),
    "a flag more": (zipped(Member(local={"flags": 0x800})), "zip.differs"),
    "two Unicode names": (zipped(Member(more=NAME)), "zip.differs"),
    "a wrong checksum (CVE-2025-10156)": (zipped(Member(local=crc(1), central=crc(1))), "zip.checksum"),
    "a wrong checksum, packed": (zipped(Member(method=8, local=crc(1), central=crc(1))), "zip.checksum"),
    "a wrong checksum of a storage": (storages(local=crc(1), central=crc(1)), "zip.checksum"),
    "a wrong size when unpacked": (
        zipped(Member(method=8, local={"size": 9}, central={"size": 9})), "zip.differs"
    ),
    "a wrong size of a stored member": (zipped(Member(local={"size": 9}, central={"size": 9})), "zip.differs"),
    "a wrong descriptor": (zipped(Member(descriptor="signed", central=crc(7))), "zip.differs"),
    "bytes before": (zipped(Member(), prefix=b"#!/bin/sh\n"), "zip.polyglot"),
    "a program before": (zipped(Member(), prefix=PROGRAM), "executable.native"),
    "a picture before, and a comment": (zipped(Member(), prefix=PNG, comment=b"hi"), "zip.polyglot"),
    "bytes before, counted": (zipped(Member(before=PROGRAM)), "zip.polyglot"),
    "bytes between": (zipped(Member(), Member("b", before=b"hidden")), "zip.polyglot"),
    "bytes before the directory": (zipped(Member(), between=b"hidden"), "zip.polyglot"),
    "a member that the directory leaves out": (
        zipped(Member(), between=Member("p", PROGRAM).written(0)[0]), "zip.polyglot"
    ),
    "bytes behind": (zipped(Member(), suffix=PROGRAM), "zip.polyglot"),
    "bytes behind are judged": (zipped(Member(), suffix=PROGRAM), "executable.native"),
    "a zip behind a zip": (zipped(Member()) + zipped(Member("b", PROGRAM)), "zip.polyglot"),
    "a zip before a zip": (zipped(Member("b", PROGRAM)) + zipped(Member()), "executable.native"),
    "bytes behind what was packed": (
        zipped(Member(method=8, packed=deflated(PNG) + b"hidden")), "zip.polyglot"
    ),
    "a damaged member": (zipped(Member(method=8, packed=b"\xff" * 40)), "unpack.broken"),
    "a member that is cut off": (zipped(Member(method=8, packed=deflated(PNG)[:-9])), "unpack.broken"),
    "an end in the comment": (zipped(Member(), comment=zipped()), "zip.end"),
    "an end in the directory": (zipped(Member(more=b"\x99\x99\x16\0" + zipped())), "zip.end"),
    "ends that disagree": (zipped(Member(), wide="full")[:-12] + struct.pack("<HIIH", 7, 9, 9, 0), "zip.end"),
    "no end": (zipped(Member())[:-22], "zip.end"),
    "cut off": (zipped(Member(), Member("b"))[:100], "zip.end"),
    "a comment longer than the file": (zipped(Member())[:-2] + b"\xff\xff", "zip.end"),
    "too few members": (zipped(Member(), Member("b"), count=3), "zip.directory"),
    "too many members": (zipped(Member(), Member("b"), count=1), "zip.directory"),
    "2**32 - 2 members": (zipped(Member(), wide=True, count=(1 << 32) - 2), "zip.directory"),
    "members that overlap": (zipped(Member(), Member("b", central={"offset": 0})), "zip.overlap"),
    "a member over the directory": (
        zipped(Member(local={"packed": 999, "size": 999}, central={"packed": 999, "size": 999})), "zip.overlap"
    ),
    "a member that is not there": (zipped(Member(), Member("b", central={"offset": 1})), "zip.overlap"),
    "out of the folder": (zipped(Member("../a.png")), "archive.outside"),
    "out by another way": (zipped(Member("a/../../b.png")), "archive.outside"),
    "absolute": (zipped(Member("/etc/a.png")), "archive.outside"),
    "a drive": (zipped(Member("C:a.png")), "archive.outside"),
    "backslashes": (zipped(Member("..\\a.png")), "archive.outside"),
    "a NUL in a name": (zipped(Member("a.png\0.txt")), "archive.name"),
    "two of a name": (zipped(Member(), Member("a.png", PNG + b"")), "archive.twice"),
    "two of a name, by another way": (zipped(Member("b/a.png"), Member("b/./a.png")), "archive.twice"),
    "a link out": (zipped(Member("l", b"../../etc/x", mode=0o120777)), "archive.link"),
    "a link out, packed": (zipped(Member("l", b"/etc/x", 8, mode=0o120777)), "archive.link"),
    "a bomb": (zipped(Member("b", bytes(70 << 20), 8)), "scan.bomb"),
}  # fmt: skip


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_blocks(name):
    """Each by its rule."""
    content, rule = TRICKS[name]
    assert rule in blocked(judge(content, "model.pt"))


ODD = {
    "a method that is not read": (zipped(Member(method=9)), "zip.method"),
    "names that differ by case": (zipped(Member("A.png"), Member("a.png")), "archive.case"),
    "a backslash": (zipped(Member("a\\b.png")), "archive.name"),
    "a control character": (zipped(Member("a\nb.png")), "archive.name"),
    "a name that turns round": (zipped(Member("a\u202egnp.pkl", flags=0x800)), "archive.name"),
    "broken UTF-8": (zipped(Member(b"\xff.png", flags=0x800)), "archive.name"),
    "a link within": (zipped(Member("l", b"a.png", mode=0o120777), Member()), "archive.link"),
    "an extra field of nothing": (zipped(Member(extra=b"abc")), "zip.extra"),
    "padding that says something": (zipped(Member(extra=b"FB\x04\0evil")), "zip.extra"),
    "a comment of bytes": (zipped(Member(), comment=b"\x80\x02}."), "zip.comment"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_oddity_holds(name):
    """Each by its rule; none of them blocks."""
    content, rule = ODD[name]
    found = judge(content)
    assert rule in rules(found) and not blocked(found)


def test_ends_of_other_zips_inside_members_are_no_trick():
    """A zip stored as the last member brings its own end, within reach of the outer one's."""
    assert judge(zipped(Member("a.zip", zipped(Member(), comment=b"x" * 500)))).findings == ()


def test_a_zip_within_too_many_zips_is_held():
    """The depth is bounded, and said."""
    content = PNG
    for _ in range(12):
        content = zipped(Member("z", content))
    assert "scan.depth" in rules(judge(content))


def test_a_bomb_of_bombs_is_stopped_early():
    """Ten layers of packing cost no more time and memory than the budget allows."""
    content = bytes(30 << 20)
    for _ in range(3):
        content = zipped(*(Member(str(number), content, 8) for number in range(10)))
    begin = time.monotonic()
    tracemalloc.start()
    try:
        assert "scan.bomb" in blocked(judge(content))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begin < 20


def test_one_body_for_many_names_is_an_overlap():
    """The bomb that needs no nesting: every entry points at the same bytes."""
    body, entry = Member("b", bytes(1 << 20), 8).written(0)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 500, 500, 500 * len(entry), len(body), 0)
    begin = time.monotonic()
    assert {"zip.overlap", "archive.twice"} <= blocked(judge(body + entry * 500 + end))
    assert time.monotonic() - begin < 5


def test_many_members_take_time_in_proportion():
    """3,000 in well under ten seconds."""
    begin = time.monotonic()
    assert judge(zipped(*(Member(f"{number}.png") for number in range(3000)))).findings == ()
    assert time.monotonic() - begin < 10


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400), st.sampled_from([b"PK\3\4", b"PK\5\6", b""]))
def test_random_bytes_never_make_it_fall(content, head):
    """`judge` itself checks that nothing escapes and that every byte is accounted for."""
    judge(head + content)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([key for key in SOUND if len(SOUND[key]) < 5000]),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    st.integers(0, 100),
)
def test_a_mutated_zip_never_makes_it_fall(name, edits, cut):
    """Bytes replaced anywhere, and sometimes the end cut off."""
    content = bytearray(SOUND[name])
    for at, piece in edits:
        at %= len(content)
        content[at : at + len(piece)] = piece
    judge(bytes(content[: len(content) - cut if cut < 30 else None]))
