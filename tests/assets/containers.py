"""Wrappers: gzip, xz, bz2, zlib, tar, 7z, zip in zip, joblib, NeMo and bombs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator

from assets import bombs, sevenzip, zips
from assets.opcodes import (
    BUILD,
    EMPTY_DICT,
    EMPTY_TUPLE,
    FALSE,
    MARK,
    NEWOBJ,
    POP,
    SETITEM,
    STOP,
    TRUE,
    TUPLE,
    attack,
    blob,
    call,
    frame,
    pickled,
    proto,
    short,
    stacked,
    value,
)
from assets.pickle_plain import little
from assets.shelf import Draft, admit, block, family, hold
from assets.torches import FOUR, PAIR, STATE, tar
from assets.zips import DEFLATED, checkpoint

PLAIN = pickled(value({"w": [1.0, 2.0]}))
Squeeze = Callable[[bytes], bytes]


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


def alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


SQUEEZES: dict[str, Squeeze] = {
    "gz": gz,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zlib": zlib.compress,
    "lzma": alone,
}


@family("container")
def squeezed() -> Iterator[Draft]:
    """One stream around one file."""
    for name, squeeze in SQUEEZES.items():
        yield block(f"{name}-pickle", f"model.pkl.{name}", squeeze(attack()), f"A malicious pickle inside {name}.")
        yield block(
            f"{name}-no-extension",
            "weights",
            squeeze(attack(0)),
            f"The same in protocol 0, {name}, without an extension.",
        )
        yield admit(f"{name}-plain", f"state.pkl.{name}", squeeze(PLAIN), f"A plain pickle inside {name}.")
    yield block("gz-checkpoint", "model.pt.gz", gz(checkpoint(attack(), FOUR)), "A malicious checkpoint inside gzip.")
    yield block("gz-named-pt", "model.pt", gz(attack()), "A gzip called .pt.")
    yield block(
        "gz-second-member", "state.pkl.gz", gz(PLAIN) + gz(attack()), "A second gzip member behind a harmless one."
    )
    yield block(
        "gz-wrong-crc",
        "model.pkl.gz",
        gz(attack())[:-8] + b"\0" * 8,
        "A gzip with a wrong checksum: the pickle has run by the time it is met.",
    )
    yield block(
        "gz-named-inside",
        "model.pkl.gz",
        b"\x1f\x8b\x08\x08\0\0\0\0\0\xffnotes.txt\0" + gz(attack())[10:],
        "A gzip that says that it holds notes.txt.",
    )
    yield block(
        "xz-in-gz-in-bz2",
        "weights.bz2",
        bz2.compress(gz(lzma.compress(attack()))),
        "A pickle inside xz inside gzip inside bz2.",
    )
    yield hold("gz-cut", "model.pkl.gz", gz(PLAIN)[:-9], "A gzip that is cut off.")
    yield hold("gz-trailing", "state.pkl.gz", gz(PLAIN) + b"\x7fELF" + b"\1" * 40, "A program behind the gzip stream.")
    yield hold(
        "zstd",
        "model.pkl.zst",
        b"\x28\xb5\x2f\xfd\x24\x10\x81\0\0" + attack(0)[:16] + b"\0\0\0\0",
        "A zstd stream: nothing here reads it.",
    )
    yield hold(
        "lz4",
        "model.pkl.lz4",
        b"\x04\x22\x4d\x18\x64\x40\xa7" + struct.pack("<I", 1 << 31 | 34) + attack(0) + b"\0\0\0\0",
        "An lz4 stream: nothing here reads it.",
    )
    yield hold("rar", "model.rar", b"Rar!\x1a\x07\x01\0" + b"\0" * 40, "A rar archive: nothing here reads it.")
    yield admit("gz-text", "corpus.txt.gz", gz(b"The quick brown fox.\n" * 200), "A text inside gzip.")
    yield admit(
        "gz-checkpoint-plain", "model.pt.gz", gz(checkpoint(pickled(STATE), *PAIR)), "A state dict inside gzip."
    )
    yield admit(
        "gz-two-members", "corpus.txt.gz", gz(b"one\n") + gz(b"two\n"), "A text in two gzip members, as cat makes it."
    )


@family("container")
def seven() -> Iterator[Draft]:
    """7z: what is inside has to be seen, or held."""
    files = {"model.pkl": attack(), "readme.txt": b"hello\n"}
    yield hold("7z-named-pt", "model.pt", sevenzip.archive(files), "A 7z called .pt with a malicious pickle, stored.")
    yield hold("7z-packed", "model.pt", sevenzip.archive(files, packed=True), "The same, compressed with LZMA.")
    yield hold("7z", "model.7z", sevenzip.archive({"model": attack(0)}), "A 7z with a pickle of protocol 0.")
    yield hold(
        "7z-encrypted", "model.7z", sevenzip.archive(files, encrypted=True), "An encrypted 7z: nobody can judge it."
    )
    yield hold("7z-cut", "model.7z", sevenzip.archive(files)[:-20], "A 7z whose header is cut off.")
    yield hold("7z-no-extension", "weights", sevenzip.archive(files, packed=True), "A 7z without an extension.")
    yield hold("7z-behind-pickle", "model.pkl", PLAIN + sevenzip.archive(files), "A 7z behind a plain pickle.")


@family("container")
def nested() -> Iterator[Draft]:
    """An archive inside an archive."""
    inner = zips.named({"model.pkl": attack()})
    yield block("zip-in-zip", "models.zip", zips.named({"inner.zip": inner}), "A malicious pickle in a zip in a zip.")
    yield block(
        "zip-in-zip-deflated",
        "models.zip",
        zips.named({"inner": zips.named({"w": attack(4)}, DEFLATED)}, DEFLATED),
        "The same, compressed, without extensions.",
    )
    yield block(
        "checkpoint-in-zip",
        "models.zip",
        zips.named({"readme.txt": b"hello\n", "model.pt": checkpoint(attack(), FOUR)}),
        "A malicious checkpoint in a zip.",
    )
    yield block(
        "tar-gz",
        "models.tar.gz",
        gz(tar({"model/model.pkl": attack(), "model/readme.txt": b"hi\n"})),
        "A malicious pickle in a tar.gz.",
    )
    yield block(
        "tar-in-zip",
        "models.zip",
        zips.named({"models.tar": tar({"model.bin": attack(5)})}),
        "A malicious pickle in a tar in a zip.",
    )
    yield block(
        "zip-in-tar-xz",
        "models.tar.xz",
        lzma.compress(tar({"inner.zip": inner})),
        "A malicious pickle in a zip in a tar.xz.",
    )
    yield block("gz-in-zip", "models.zip", zips.named({"weights": gz(attack())}), "A gzip of a pickle in a zip.")
    deep = attack()
    for level in range(5):
        deep = zips.named({f"level{level}": deep})
    yield block("zip-5-deep", "models.zip", deep, "A malicious pickle five zips deep.")
    for level in range(60):
        deep = zips.named({f"level{level}": deep})
    yield hold("zip-65-deep", "models.zip", deep, "Sixty-five zips in one another: too deep to follow.")
    yield hold("gz-100-deep", "models.gz", _deep(100), "A pickle inside a hundred gzips.")
    safe = zips.named({"model/state.pkl": PLAIN, "model/readme.txt": b"hello\n"})
    yield admit("zip-in-zip-plain", "models.zip", zips.named({"inner.zip": safe}), "Plain data in a zip in a zip.")
    yield admit(
        "tar-gz-plain",
        "models.tar.gz",
        gz(tar({"model/state.pkl": PLAIN, "model/readme.txt": b"hello\n"})),
        "Plain data in a tar.gz.",
    )
    yield admit(
        "tar-plain", "models.tar", tar({"state.pkl": PLAIN, "vocab.json": b'{"os.system": 1}'}), "Plain data in a tar."
    )


def _deep(times: int) -> bytes:
    data = attack()
    for _ in range(times):
        data = gz(data)
    return data


def entry(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "", pax: dict[str, str] | None = None
) -> bytes:
    """One tar entry, which may be a link, a device, or say otherwise in a pax header."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.pax_headers = kind, to, len(data), pax or {}
    return info.tobuf(tarfile.PAX_FORMAT) + data + b"\0" * (-len(data) % 512)


END_OF_TAR = b"\0" * 1024


@family("container")
def tars() -> Iterator[Draft]:
    """What a tar can do to whoever unpacks it."""
    good = entry("config.json", b"{}")

    def tarred(slug: str, says: str, *entries: bytes, least: str = "block") -> Draft:
        return Draft(f"tar-{slug}", "model.tar", {"model.tar": good + b"".join(entries) + END_OF_TAR}, least, says)

    yield tarred("climbs", "CVE-2007-4559: a member that climbs out of the folder.", entry("../../freehold.txt", b"x"))
    yield tarred("absolute", "A member with an absolute name.", entry("/tmp/freehold.txt", b"x"))
    yield tarred(
        "symlink",
        "A symbolic link to /etc, and a member that is written through it.",
        entry("here", kind=tarfile.SYMTYPE, to="/etc"),
        entry("here/freehold", b"x"),
    )
    yield tarred(
        "hardlink", "A hard link to a file outside.", entry("here", kind=tarfile.LNKTYPE, to="../../../etc/passwd")
    )
    yield tarred("device", "A device node.", entry("disk", kind=tarfile.BLKTYPE))
    yield tarred(
        "fifo", "A named pipe, at which a reader waits for ever.", entry("pipe", kind=tarfile.FIFOTYPE), least="hold"
    )
    yield tarred(
        "pax-path",
        "A pax header that renames a harmless member to one that climbs.",
        entry("a.txt", b"x", pax={"path": "../../freehold.txt"}),
    )
    yield tarred("pickle", "A malicious pickle in a member called notes.txt.", entry("notes.txt", attack(4)))
    big = tarfile.TarInfo("weights")
    big.size = 1 << 50
    yield tarred("claims", "A member that claims 2**50 bytes.", big.tobuf(tarfile.GNU_FORMAT), least="hold")
    yield block(
        "tar-behind-end",
        "model.tar",
        good + END_OF_TAR + entry("x.pkl", attack()) + END_OF_TAR,
        "A member behind the end marker: some readers go on.",
    )
    damaged = bytearray(entry("x.pkl", attack()))
    damaged[150] ^= 1
    yield hold("tar-checksum", "model.tar", good + bytes(damaged) + END_OF_TAR, "A header with a wrong checksum.")
    yield hold("tar-cut", "model.tar", good + entry("w.txt", b"x" * 600)[:700], "A tar that ends inside a member.")
    yield block(
        "nemo",
        "model.nemo",
        tar({"./model_config.yaml": b"target: nemo.Model\n", "./model_weights.ckpt": checkpoint(attack(), FOUR)}),
        "A NeMo model with a malicious checkpoint.",
    )
    yield block(
        "nemo-gz",
        "model.nemo",
        gz(tar({"model_config.yaml": b"a: 1\n", "model_weights.ckpt": attack()})),
        "A compressed NeMo model with a malicious pickle.",
    )
    yield block(
        "nemo-target",
        "model.nemo",
        tar(
            {
                "model_config.yaml": b"trainer:\n  _target_: os.system\n  command: echo freehold\n",
                "model_weights.ckpt": checkpoint(pickled(STATE), *PAIR),
            }
        ),
        "CVE-2025-23304: a NeMo configuration whose _target_ is os.system.",
    )
    yield admit(
        "nemo-plain",
        "model.nemo",
        tar(
            {
                "./model_config.yaml": b"sample_rate: 16000\nlabels: [a, b]\n",
                "./model_weights.ckpt": checkpoint(pickled(STATE), *PAIR),
            }
        ),
        "A NeMo model of weights and plain settings.",
    )


@family("container")
def bombers() -> Iterator[Draft]:
    """A few bytes that unpack to gigabytes."""
    yield hold("bomb-zip", "model.zip", bombs.flat("weights.bin"), "A zip with 2 GiB of zeros in 2 MB.")
    yield hold(
        "bomb-torch",
        "model.pt",
        zips.archive([zips.Member("archive/data.pkl", pickled(STATE)), bombs.member("archive/data/0", 1024)]),
        "A checkpoint whose one storage unpacks to 1 GiB.",
    )
    yield hold("bomb-nested", "model.zip", bombs.nested(), "Sixteen zips in a zip, 16 GiB in some kilobytes.")
    yield hold("bomb-overlapped", "model.zip", bombs.overlapped(), "400 entries over one and the same bytes: 6 GiB.")
    yield hold("bomb-gz", "weights.gz", gz(bombs.gzipped()), "4 GiB of zeros, compressed twice.")
    yield hold("bomb-bz2", "weights.bz2", bombs.bzipped(), "8 GiB of zeros in bz2.")
    yield hold("bomb-xz", "weights.xz", bombs.xzed(), "8 GiB of zeros in xz.")
    yield hold("bomb-joblib", "model.joblib", bombs.zlibbed(), "2 GiB of zeros in zlib, as a joblib file.")
    yield hold(
        "bomb-count",
        "model.zip",
        zips.archive([zips.Member("a", b"a")], zip64=True, count=1 << 60),
        "A zip that claims 2**60 members.",
    )


def joblib(*tail: bytes, kind: bytes | None = None, raw: bytes = FOUR, count: int = 4, key: str = "w") -> bytes:
    """What joblib writes: a pickle that is interrupted by each array's bytes, aligned to 16."""
    wrapper = stacked("joblib.numpy_pickle", "NumpyArrayWrapper") + EMPTY_TUPLE + NEWOBJ
    state = {
        "subclass": stacked("numpy", "ndarray"),
        "shape": (count,),
        "order": "C",
        "dtype": kind or little("f4", 4),
        "allow_mmap": kind is None,
        "numpy_array_alignment_bytes": 16,
    }
    head = EMPTY_DICT + short(key) + wrapper + value(state) + BUILD
    out = proto(4) + frame(head)
    if kind is None:
        room = 16 - (len(out) + 1) % 16
        out += bytes([room]) + b"\xff" * room
    return out + raw + frame(b"".join((SETITEM, *tail, STOP)))


OBJECT = call(stacked("numpy", "dtype"), "O8", False, True) + value((3, "|", None, None, None, -1, -1, 63)) + BUILD


def objects(state: list[object]) -> bytes:
    """An object array, pickled by numpy, as it stands in .npy and joblib files."""
    made = call(stacked("numpy._core.multiarray", "_reconstruct"), stacked("numpy", "ndarray"), (0,), blob(b"b"))
    return pickled(made, MARK, value(1), value((len(state),)), OBJECT, FALSE, value(state), TUPLE, BUILD, number=4)


@family("joblib")
def joblibs() -> Iterator[Draft]:
    """Arrays stand raw between the opcodes; calls may stand before, between and behind."""
    echo = call(stacked("os", "system"), "echo freehold") + POP
    yield block(
        "behind-array",
        "model.joblib",
        joblib(echo),
        "os.system behind the first array: a reader that stops at raw bytes never sees it.",
    )
    yield block(
        "in-object-array",
        "model.joblib",
        joblib(kind=OBJECT, raw=attack(4)),
        "A malicious pickle in place of an object array.",
    )
    yield block(
        "in-objects",
        "model.joblib",
        joblib(kind=OBJECT, raw=objects([call(stacked("os", "system"), "echo freehold")])),
        "os.system inside a well-formed object array.",
    )
    yield block("plain-call", "model.joblib", attack(4), "A malicious pickle, called .joblib.")
    for name, squeeze in SQUEEZES.items():
        yield block(
            f"{name}-call", "model.joblib", squeeze(joblib(echo)), f"os.system behind an array, compressed with {name}."
        )
        yield admit(
            f"{name}-plain", "model.joblib", squeeze(joblib()), f"A dictionary with an array, compressed with {name}."
        )
    yield block("no-extension", "model", joblib(echo), "The same without an extension.")
    yield hold(
        "stranger",
        "model.joblib",
        pickled(
            stacked("sklearn.linear_model._logistic", "LogisticRegression"),
            EMPTY_TUPLE,
            NEWOBJ,
            value({"C": 1.0}),
            BUILD,
            number=4,
        ),
        "A scikit-learn model: classes that are not here.",
    )
    yield hold("shape", "model.joblib", joblib(count=1 << 40), "An array of 2**40 values, and the file has four.")
    yield hold("cut", "model.joblib", joblib()[:-22], "A joblib file that ends inside its array.")
    yield admit("plain", "model.joblib", joblib(), "A dictionary with an array, as joblib writes it.")
    yield admit(
        "plain-objects",
        "model.joblib",
        joblib(kind=OBJECT, raw=objects([1, "a", TRUE])),
        "An object array of plain data, as joblib writes it.",
    )
    yield admit(
        "no-array", "state.joblib", pickle.dumps({"a": [1, 2], "b": "os.system"}, 4), "Plain data without any array."
    )
    yield admit(
        "data-alike",
        "state.joblib",
        joblib(raw=b"cos\nsystem\n(S'x.", count=4),
        "An array whose bytes read like opcodes.",
    )
