"""Tar archives: sound ones of every writer pass, every trick is named, and no bytes make the scanner fall."""

import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import END, PNG, PROGRAM, Member, blocked, filed, judge, pax, record, rules, zipped


def python_tar(form: int) -> bytes:
    """What the standard library writes: long names, folders, another alphabet."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for name in ("a.png", "x" * 90 + "/" + "y" * 90, "modèle.png", "./b.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(PNG)
            archive.addfile(entry, io.BytesIO(PNG))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return target.getvalue()


def binary(size: int) -> bytes:
    """GNU's way to write a number."""
    return b"\x80" + size.to_bytes(11, "big")


SOUND = {
    "ustar": python_tar(tarfile.USTAR_FORMAT),
    "GNU": python_tar(tarfile.GNU_FORMAT),
    "pax": python_tar(tarfile.PAX_FORMAT),
    "as short as can be": filed("a.png") + END,
    "before POSIX": filed("a.png", at257=bytes(8), kind=b"\0") + filed("f/", b"", b"\0", at257=bytes(8)) + END,
    "an empty file": filed("e", b"") + END,
    "a binary number": filed("a.png", at124=binary(len(PNG))) + END,
    "a size in both headers": pax(size=str(len(PNG))) + filed("a.png") + END,
    "a comment for all": pax(b"g", comment="a commit") + filed("a.png") + END,
    "a zip within": filed("a.zip", zipped(Member())) + END,
    "a tar within": filed("a.tar", filed("a.png") + END) + END,
    "much padding": filed("a.png") + bytes(20 << 10),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_tar_passes(name):
    """Whoever wrote it."""
    found = judge(SOUND[name], "x.nemo")
    assert found.format == "tar" and found.findings == () and found.unjudged == ()


def test_members_are_named_in_full():
    """Long names are put together from whatever headers they are in."""
    long = "x" * 90 + "/" + "y" * 90
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert set(judge(python_tar(form)).facts["members"]) == {"a.png", long, "modèle.png", "./b.png"}


def test_a_payload_is_found_in_a_member():
    """Under any name, at any depth."""
    found = judge(filed("a.png") + filed("w.ckpt", PROGRAM) + filed("b.tar", filed("c", PROGRAM) + END) + END, "x.nemo")
    where = [finding.where for finding in found.findings if finding.rule == "executable.native"]
    assert where == ["w.ckpt, byte 0", "b.tar/c, byte 0"]


TRICKS = {
    "a size that only pax knows (CVE-2025-62518)": (
        pax(size=str(len(PNG))) + record("a.png", 0) + PNG + bytes(512 - len(PNG)) + END, "tar.differs"
    ),
    "two sizes": (pax(size="512") + filed("a.png", bytes(1024)) + END, "tar.differs"),
    "a size for all": (pax(b"g", size="512") + filed("a.png") + END, "tar.differs"),
    "a name for all": (pax(b"g", path="b.png") + filed("a.png") + END, "tar.differs"),
    "a key twice": (
        filed("p", b"11 path=ab\n11 path=cd\n", b"x") + filed("a.png") + END, "tar.differs"
    ),
    "pax before a long name (CVE-2026-53655)": (
        pax(size="512") + filed("L", b"b.png\0", b"L") + filed("a.png") + END, "tar.differs"
    ),
    "a folder with content": (filed("f", PROGRAM, b"5") + END, "tar.differs"),
    "a link with content": (filed("f", PROGRAM, b"2", at157=b"a") + END, "tar.differs"),
    "a prefix that few read": (filed("a.png", at257=b"ustar  \0", at345=b"../x") + END, "tar.differs"),
    "out of the folder": (filed("../a.png") + END, "archive.outside"),
    "absolute": (filed("/etc/a.png") + END, "archive.outside"),
    "out by a prefix": (filed("a.png", at345=b"../x") + END, "archive.outside"),
    "out by pax": (pax(path="../../a.png") + filed("a.png") + END, "archive.outside"),
    "out by a long name": (filed("L", b"../a.png\0", b"L") + filed("a.png") + END, "archive.outside"),
    "a link out": (record("a/l", kind=b"2", target="../../x") + END, "archive.link"),
    "a link to the root": (record("l", kind=b"2", target="/etc/x") + END, "archive.link"),
    "a hard link out": (record("a/b/l", kind=b"1", target="../x") + END, "archive.link"),
    "a device": (record("d", kind=b"3") + END, "archive.device"),
    "a pipe": (record("d", kind=b"6") + END, "archive.device"),
    "a member behind the end": (filed("a.png") + END + filed("b", PROGRAM) + END, "tar.trailing"),
    "a member behind the end is judged": (filed("a.png") + END + filed("b", PROGRAM) + END, "executable.native"),
    "a member behind half an end": (filed("a.png") + bytes(512) + filed("b") + END, "tar.trailing"),
    "a wrong checksum": (filed("a.png") + filed("b", at148=b"000001\0 ") + END, "tar.header"),
    "a number that is none": (filed("a.png") + filed("b", at124=b"0000000009x\0") + END, "tar.header"),
    "a size of 2**80": (filed("a.png") + filed("b", at124=binary(1 << 80)) + END, "scan.truncated"),
    "a long name of a gigabyte": (filed("a.png") + record("L", 1 << 30, b"L") + END, "tar.header"),
    "a record of pax that lies": (filed("p", b"99 path=a\n", b"x") + filed("a.png") + END, "tar.header"),
    "a header for nothing": (filed("a.png") + pax(path="b") + END, "tar.header"),
    "cut off": (filed("a.png") + filed("b.png")[:530], "scan.truncated"),
}  # fmt: skip


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_blocks(name):
    """Each by its rule."""
    content, rule = TRICKS[name]
    assert rule in blocked(judge(content, "model.nemo"))


ODD = {
    "a link within": (filed("a.png") + record("b/l", kind=b"2", target="../a.png") + END, "archive.link"),
    "a hard link within": (filed("a.png") + record("l", kind=b"1", target="a.png") + END, "archive.link"),
    "holes": (filed("s", PNG, b"S") + END, "tar.kind"),
    "holes by pax": (pax(GNU__sparse__major="1") + filed("s") + END, "tar.kind"),
    "another kind": (filed("a.png", kind=b"Q") + END, "tar.kind"),
    "two of a name": (filed("a.png") + filed("./a.png") + END, "archive.twice"),
    "names that differ by case": (filed("a.png") + filed("A.png") + END, "archive.case"),
    "padding that is not": (record("a.png", len(PNG)) + PNG + b"x" * (512 - len(PNG)) + END, "tar.padding"),
    "no end": (filed("a.png"), "tar.end"),
    "PyTorch's first format (CVE-2025-32434)": (
        b"".join(filed(name) for name in ("sys_info", "pickle", "tensors", "storages")) + END, "pytorch.tar"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_oddity_holds(name):
    """Each by its rule; none of them blocks."""
    content, rule = ODD[name]
    found = judge(content)
    assert rule in rules(found) and not blocked(found)


def test_a_name_alone_makes_no_checkpoint():
    """The near miss: a pickle without storages beside it."""
    assert judge(filed("pickle") + filed("tensors") + END).findings == ()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=2000), st.binary(max_size=40))
def test_random_bytes_never_make_it_fall(content, name):
    """`judge` itself checks that nothing escapes and that every byte is accounted for."""
    judge(record("a", len(content)) + content)
    judge(filed("pax", content[:500], b"x") + filed("a.png"))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([key for key in SOUND if len(SOUND[key]) <= 10240]),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_mutated_tar_never_makes_it_fall(name, edits, mended):
    """Bytes replaced anywhere; half of the time with the first header's checksum made right again."""
    content = bytearray(SOUND[name])
    for at, piece in edits:
        at %= len(content)
        content[at : at + len(piece)] = piece
    if mended:
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
    judge(bytes(content))
