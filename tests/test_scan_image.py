"""Pictures pass to their last byte and no further; programs are never taken for models."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import PNG, PROGRAM, Member, blocked, chunk, judge, rules, zipped

SEGMENT = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF" + bytes(10)
SCAN = b"\xff\xda" + struct.pack(">H", 8) + bytes(6)
JPEG = b"\xff\xd8" + SEGMENT + SCAN + b"\1\xff\0\2\xff\xd0\3" * 9000 + SCAN + b"\5" * 9 + b"\xff\xff\xd9"
GIF = (
    b"GIF89a" + struct.pack("<2H3B", 1, 1, 0x80, 0, 0) + bytes(6) + b"!\xf9\4" + bytes(4) + b"\0"
    + b"," + bytes(8) + b"\x81" + bytes(12) + b"\2" + b"\5hello\0" + b";"
)  # fmt: skip
WEBP = b"RIFF" + struct.pack("<I", 4 + 8 + 4) + b"WEBP" + b"VP8L" + struct.pack("<I", 3) + b"abc\0"
PICTURES = {"png": PNG, "jpeg": JPEG, "gif": GIF, "webp": WEBP}


@pytest.mark.parametrize("form", PICTURES)
def test_a_picture_passes(form):
    """Whatever it is called; what is drawn counts as data."""
    found = judge(PICTURES[form], "README")
    assert (found.format, found.findings, found.unjudged) == (form, (), ()) and found.data


@pytest.mark.parametrize("form", PICTURES)
def test_bytes_behind_a_picture_hold_and_are_judged(form):
    """A payload there is found for what it is."""
    assert rules(judge(PICTURES[form] + b"hi")) >= {"image.trailing"}
    assert "executable.native" in blocked(judge(PICTURES[form] + PROGRAM))


@pytest.mark.parametrize("form", PICTURES)
def test_a_zip_behind_a_picture_blocks(form):
    """It is a zip to whoever looks from the end."""
    assert blocked(judge(PICTURES[form] + zipped(Member("p", PROGRAM)))) == {"zip.polyglot", "executable.native"}


@pytest.mark.parametrize("form", PICTURES)
def test_a_picture_that_is_cut_off_does_not_pass(form):
    """Wherever it is cut."""
    for length in {20, len(PICTURES[form]) // 2, len(PICTURES[form]) - 1}:
        assert judge(PICTURES[form][:length]).findings


BROKEN = {
    "a wrong checksum": PNG[:-1] + b"\0",
    "a chunk of 2**31 bytes": PNG[:33] + b"\x80\0\0\0IDAT" + PNG[33:],
    "a chunk without a type": PNG[:33] + chunk(b"\0\0\0\0") + PNG[33:],
    "a segment of one byte": b"\xff\xd8\xff\xe0\0\1" + JPEG[2:],
    "no segment": JPEG[:20] + b"abc" + JPEG[20:],
    "an unknown block": GIF[:-1] + b"x;",
    "a chunk longer than the file": WEBP[:16] + b"\xff" + WEBP[17:],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_holds(name):
    """It harms no engine, and is not what it seems."""
    found = judge(BROKEN[name])
    assert "image.broken" in rules(found) and not blocked(found)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(PICTURES)), st.integers(0, 500), st.binary(min_size=1, max_size=6), st.integers(0, 99))
def test_a_mutated_picture_never_makes_it_fall(form, at, piece, cut):
    """`judge` itself checks that nothing escapes and that every byte is accounted for."""
    content = bytearray(PICTURES[form])
    at %= len(content)
    content[at : at + len(piece)] = piece
    judge(bytes(content[: len(content) - cut if cut < 50 else None]))


# programs ------------------------------------------------------------------------------------------------------------


def elf(kind: int, entry: int = 0, *segments: int) -> bytes:
    """The header of a 64-bit ELF file, and its segments' kinds."""
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<2HI3QI6H", kind, 62, 1, entry, 64, 0, 0, 64, 56,
                                                     len(segments), 0, 0, 0)  # fmt: skip
    return head + b"".join(struct.pack("<I", segment) + bytes(52) for segment in segments) + bytes(50)


DOS = b"MZ" + bytes(58) + struct.pack("<I", 128) + bytes(64)
NATIVE = {
    "an executable": elf(2, 0x400000, 1),
    "a position-independent executable": elf(3, 0x1000, 3, 1),
    "an executable library": elf(3, 0, 3, 1),
    "a library with a start": elf(3, 0x1000, 1),
    "an object file": elf(1),
    "a broken header": elf(3, 0, 1)[:40],
    "Windows": DOS + b"PE\0\0" + bytes(200),
    "DOS": b"MZ" + struct.pack("<13H", 100, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 64, 0) + bytes(100),
    "a llamafile": b"MZqFpD='\n" + bytes(300) + b"GGUF\3\0\0\0",
    "macOS": b"\xcf\xfa\xed\xfe" + struct.pack("<3I", 0x1000007, 3, 2) + bytes(100),
    "macOS, big-endian": b"\xfe\xed\xfa\xce" + struct.pack(">3I", 18, 0, 2) + bytes(100),
    "macOS, fat": b"\xca\xfe\xba\xbe" + struct.pack(">I", 2) + bytes(100),
}


@pytest.mark.parametrize("name", NATIVE)
def test_a_program_blocks(name):
    """Whatever it is called, and in an archive too."""
    assert "executable.native" in blocked(judge(NATIVE[name], "model.safetensors"))
    assert "executable.native" in blocked(judge(zipped(Member("m.bin", NATIVE[name]))))


HELD = {
    "a library": (elf(3, 0, 1, 2), "executable.library"),
    "a Java class": (b"\xca\xfe\xba\xbe" + struct.pack(">2H", 0, 61) + bytes(50), "executable.bytecode"),
    "WebAssembly": (b"\0asm\1\0\0\0" + bytes(20), "executable.bytecode"),
    "Android": (b"dex\n035\0" + bytes(50), "executable.bytecode"),
    "compiled Python": (b"\xa7\r\r\n" + bytes(12) + b"\xe3" + bytes(50), "executable.bytecode"),
}


@pytest.mark.parametrize("name", HELD)
def test_code_holds(name):
    """Somebody has to answer for it."""
    content, rule = HELD[name]
    found = judge(content)
    assert rule in rules(found) and not blocked(found)


@pytest.mark.parametrize(
    "content",
    (b"MZ is short for Mark Zbikowski, and this is a text about him." * 3, b"#!not a path", b"\xca\xfe\xba\xbe" * 9,
     b"\x7fEL", b"\0asm\2\0\0\0", b"dex\nabc\0"),
)  # fmt: skip
def test_what_only_begins_like_a_program_is_none(content):
    """A second sign is asked for."""
    assert not any(rule.startswith("executable") for rule in rules(judge(content)))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([b"\x7fELF\2\1", b"\x7fELF\1\2", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"#!", b"\0asm"]),
    st.binary(max_size=300),
)
def test_random_bytes_never_make_it_fall(head, content):
    """Behind every magic number."""
    judge(head + content)
