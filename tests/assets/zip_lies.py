"""Zips in which two readers see two things, and zips that are merely unusual."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from assets import zips
from assets.opcodes import EMPTY_DICT, SETITEM, attack, call, named, pickled, text, value
from assets.shelf import ECHO, Draft, admit, block, family, hold
from assets.torches import FOUR
from assets.zips import DEFLATED, DESCRIBED, ENCRYPTED, Member, checkpoint


@family("container")
def zip_lies() -> Iterator[Draft]:
    """Zips in which two readers see two things; the malicious pickle is what PyTorch would see."""
    evil, calm = attack(), pickled(value({"w": 1}))
    version = Member("archive/version", b"3\n")

    def torch_file(slug: str, says: str, *members: Member, least: str = "block", **more: object) -> Draft:
        data = zips.archive([*members, version], **more)  # type: ignore[arg-type]
        return Draft(slug, "model.pt", {"model.pt": data}, least, says)

    main = Member("archive/data.pkl", evil)
    yield torch_file(
        "encrypted-flag",
        "CVE-2025-1945: the flag says encrypted and nothing is; PyTorch does not look at the flag.",
        main._replace(flags=ENCRYPTED),
    )
    yield torch_file(
        "encrypted-flag-central", "The same in the directory alone.", main._replace(flags=ENCRYPTED, local_flags=0)
    )
    yield torch_file(
        "encrypted-flag-local", "The same in the local header alone.", main._replace(local_flags=ENCRYPTED)
    )
    yield torch_file("strong-flag", "The flag for strong encryption, on plain bytes.", main._replace(flags=0x41))
    yield torch_file("patched-flag", "The flag for patched data, on plain bytes.", main._replace(flags=0x20))
    yield torch_file(
        "names-differ",
        "CVE-2025-1944: the local header names another file than the directory.",
        main._replace(local_name="archive/notes.txt"),
    )
    yield torch_file(
        "names-differ-dot", "The names differ by one trailing byte.", main._replace(local_name="archive/data.pkk")
    )
    yield torch_file(
        "names-differ-listed",
        "The directory says notes.txt, and the local header data.pkl.",
        Member("archive/notes.txt", evil, local_name="archive/data.pkl"),
    )
    yield torch_file(
        "crc",
        "CVE-2025-10156: a wrong checksum stops Python's zipfile, and not PyTorch.",
        main._replace(crc=0xDEADBEEF),
    )
    yield torch_file(
        "crc-other-member",
        "The wrong checksum is on another member, so that a scanner gives up before data.pkl.",
        Member("archive/aaa", b"x", crc=1),
        main,
    )
    yield torch_file(
        "crc-plain",
        "A wrong checksum over plain data: not what was written.",
        Member("archive/data.pkl", calm, crc=1),
        least="hold",
    )
    yield torch_file(
        "size-small", "The directory claims fewer bytes than there are.", main._replace(size=5, packed_size=5)
    )
    yield torch_file(
        "size-large", "The directory claims more bytes than there are.", main._replace(size=1 << 31), least="hold"
    )
    yield torch_file("size-packed", "Stored, with two lengths that differ.", main._replace(size=1))
    yield torch_file(
        "method-unknown", "A method that Python's zipfile does not know.", main._replace(method=99), least="hold"
    )
    yield torch_file(
        "hidden-member",
        "A local header with a malicious pickle that the directory does not list.",
        Member("archive/data.pkl", calm),
        Member("archive/evil.pkl", evil, listed=False),
    )
    yield torch_file(
        "overlap",
        "Two names for the same bytes.",
        main,
        Member("archive/other.pkl", b"", offset=0, size=len(evil), packed_size=len(evil), crc=0),
    )
    yield torch_file(
        "count-small",
        "The end record counts one member fewer.",
        Member("archive/data.pkl", calm),
        Member("archive/x.pkl", evil),
        count=1,
    )
    yield torch_file(
        "count-large",
        "The end record counts members that are not there.",
        Member("archive/data.pkl", calm),
        count=900,
        least="hold",
    )
    yield torch_file(
        "offsets-shifted",
        "Every offset points 8 bytes too far.",
        Member("archive/data.pkl", calm),
        shift=8,
        least="hold",
    )
    yield torch_file(
        "prefix",
        "64 bytes before the zip: zipfile finds it from the end, a reader of magic numbers does not.",
        main,
        prefix=b"\0" * 64,
    )
    yield torch_file("prefix-shell", "A shell script before the zip.", main, prefix=b"#!/bin/sh\necho freehold\nexit\n")
    yield torch_file(
        "prefix-safetensors", "A whole safetensors header before the zip.", main, prefix=struct.pack("<Q", 2) + b"{}"
    )
    yield torch_file("prefix-pickle", "A plain pickle before the zip.", main, prefix=calm)
    yield torch_file(
        "comment-zip",
        "A second zip in the comment of the first.",
        Member("archive/data.pkl", calm),
        comment=zips.named({"archive/data.pkl": evil}),
    )
    yield torch_file(
        "comment",
        "A pickle in the comment of the zip.",
        Member("archive/data.pkl", calm),
        comment=attack(0),
        least="hold",
    )
    yield torch_file(
        "extra",
        "A pickle in an extra field.",
        Member("archive/data.pkl", calm, extra=struct.pack("<HH", 0x7777, len(evil)) + evil),
        least="hold",
    )
    yield torch_file(
        "descriptor-lies",
        "Flagged for a descriptor whose lengths are wrong.",
        main._replace(flags=DESCRIBED, size=3, packed_size=3),
    )
    yield torch_file(
        "climbs",
        "Zip-slip: a member that climbs out of the folder.",
        Member("archive/data.pkl", calm),
        Member("../../freehold.txt", b"x"),
    )
    yield torch_file(
        "absolute",
        "A member with an absolute name.",
        Member("archive/data.pkl", calm),
        Member("/tmp/freehold.txt", b"x"),
    )
    yield torch_file(
        "climbs-windows",
        "A member that climbs with backslashes.",
        Member("archive/data.pkl", calm),
        Member("..\\..\\freehold.txt", b"x"),
    )
    yield torch_file(
        "drive", "A member on a Windows drive.", Member("archive/data.pkl", calm), Member("C:\\freehold.txt", b"x")
    )
    yield torch_file(
        "symlink",
        "A member that is a symbolic link to /etc/passwd.",
        Member("archive/data.pkl", calm),
        Member("archive/link", b"/etc/passwd", mode=0o120777),
    )
    yield torch_file(
        "nul-name",
        "A NUL inside a name: C readers stop there.",
        Member("archive/data.pkl", calm),
        Member("archive/x.pkl\0.txt", evil),
    )
    yield hold(
        "cut-directory",
        "model.pt",
        zips.named({"archive/data.pkl": evil})[:-60],
        "A zip whose directory is cut off; the local headers still say all.",
    )
    yield hold(
        "cut-plain",
        "model.pt",
        zips.named({"archive/data.pkl": calm, "archive/version": b"3\n"})[:-40],
        "A plain zip that is cut off.",
    )
    yield hold(
        "really-encrypted",
        "model.zip",
        zips.archive([Member("data.pkl", calm, flags=ENCRYPTED, packed=b"\x9a" * 40)]),
        "A zip that really is encrypted: nobody can judge it.",
    )
    yield block(
        "two-zips",
        "model.pt",
        zips.named({"archive/data.pkl": calm}) + zips.named({"archive/data.pkl": evil}),
        "Two zips, one behind the other.",
    )
    yield block(
        "zip-behind-pickle",
        "model.bin",
        pickled(value({"w": 1})) + zips.named({"archive/data.pkl": evil}),
        "A plain pickle with a malicious zip behind it.",
    )
    yield block(
        "proto-0-member",
        "model.zip",
        zips.named({"weights": attack(0)}),
        "A pickle of protocol 0 in a member without extension.",
    )
    yield block(
        "member-txt",
        "model.zip",
        zips.named({"notes.txt": attack(4)}, DEFLATED),
        "A pickle in a member called notes.txt.",
    )
    yield block(
        "call-in-id",
        "model.pt",
        checkpoint(pickled(text("x"), EMPTY_DICT, text("k"), call(named("posix", "system"), ECHO), SETITEM), FOUR),
        "posix.system as a value of the state dict.",
    )
    yield admit(
        "zip-descriptors",
        "data.zip",
        zips.archive([Member("a.txt", b"hello\n", flags=DESCRIBED), Member("b.json", b"{}", DEFLATED, DESCRIBED)]),
        "A zip with data descriptors, as streams write it.",
    )
    yield admit("zip-empty", "empty.zip", zips.archive([]), "An empty zip.")
    yield admit(
        "zip-comment",
        "data.zip",
        zips.archive([Member("a.txt", b"hello\n")], comment=b"made by hand"),
        "A zip with a comment in words.",
    )
    yield admit(
        "zip-zip64",
        "data.zip",
        zips.archive([Member("a.txt", b"hello\n")], zip64=True),
        "A zip with a 64-bit end record.",
    )
    yield admit(
        "zip-folder-entry",
        "data.zip",
        zips.archive([Member("a/", b"", mode=0o40755), Member("a/b.csv", b"x,y\n1,2\n")]),
        "A zip with an entry for a folder.",
    )
    yield admit(
        "zip-utf8",
        "data.zip",
        zips.archive([Member("Größe.txt", "Maß\n".encode(), flags=0x800)]),
        "A zip with a name in UTF-8.",
    )
