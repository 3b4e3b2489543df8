"""Models as one signed file, to be carried to a house without a network.

A bundle is a tar archive. Its first member is a signed envelope (DSSE, Ed25519) around an index that names every other
member with its size and digest; the others are an OCI image layout with the models' blobs, their bills of materials
and, where they were asked for, the engine's wheels. So a reader can check the signature before it reads anything else,
and every byte as it arrives; and any tool that reads ``oci-archive:`` can read the models.

The index also says what *every* model of the sending house was at that moment, with a number that only grows: from
the newest index that it has seen, a house knows when it is handed an older state, and refuses it (`Senders.check`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from freehold import bom, names, sign
from freehold.disk import write_atomically
from freehold.errors import CannotDo
from freehold.names import check_model_name
from freehold.types import Acquired, Manifest, Progress, Record
from freehold.vault import RECORD_TYPE, Vault

PAYLOAD_TYPE = "application/vnd.freehold.bundle.v1+json"
ENVELOPE = "freehold-bundle.json"
WHEELS = "wheels/"
_BLOBS = "blobs/sha256/"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MEMBER = re.compile(
    r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}|bom/[0-9a-f]{64}\.(cyclonedx|spdx)\.json"
    r"|wheels/[A-Za-z0-9][A-Za-z0-9_.+!-]{0,200}\.whl"
)
_CHUNK = 1 << 20
_BLOCK = 512  # of a tar archive, POSIX.1-1988
_MAX_INDEX = 40 << 20  # bytes


class Member(Struct, frozen=True):
    """One member of the archive."""

    digest: str
    size: int


class Index(Struct, frozen=True):
    """What the sender signs. ``state`` grows with everything that happens in the sending house; ``house`` is every
    model of it by name, with the digest of its record; ``models`` are those whose bytes are here."""

    key: str
    state: int
    at: float
    house: dict[str, str]
    models: tuple[Manifest, ...]
    members: dict[str, Member]


class Seen(Struct, frozen=True):
    """The newest index that was seen from one sender."""

    state: int
    house: dict[str, str]
    name: str = ""


class Senders:
    """Whose bundles are let in, and the newest state seen of each, kept in one file of the home."""

    def __init__(self, file: Path):
        self._file = file

    def check(self, index: Index, named: str) -> None:
        """May this bundle come in? ``named`` is the fingerprint that the person who imports it was told by another way.

        Raises:
            CannotDo: its sender is unknown, or it holds a model in an older state than one that was seen.
        """
        sender = sign.fingerprint(index.key)
        known = self._read().get(sender)
        if known is None and named != sender:
            raise CannotDo(
                f"The bundle is signed by unknown: {sender}.",
                hint=f"Ask the sender for the fingerprint of their key, by another way; if it is this one, give "
                f"--signer {sender}.",
            )
        if named not in ("", sender):
            raise CannotDo(f"The bundle is signed by {sender}, not by {named}.", hint="Do not use it.")
        if known is not None and index.state < known.state:
            for model in index.models:
                if known.house.get(model.name) != model.record:
                    raise CannotDo(
                        f"The bundle is older (state {index.state}) than what was seen of this sender (state "
                        f"{known.state}), and {model.name!r} has since been changed or withdrawn there.",
                        hint="Ask the sender for a bundle of today.",
                    )

    def keep(self, index: Index) -> None:
        """Remember what a bundle that came in says of its sender's house."""
        sender, known = sign.fingerprint(index.key), self._read()
        if sender not in known or known[sender].state < index.state:
            write_atomically(self._file, msgspec.json.encode(known | {sender: Seen(index.state, index.house)}))

    def _read(self) -> dict[str, Seen]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Seen])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            raise CannotDo(
                f"{self._file}, which says whose bundles are let in, cannot be read: {error}.",
                hint="Put it back from a copy. Without it an older state would not be noticed.",
            ) from None


def wanted(vault: Vault, names: Sequence[str], out: Path) -> list[Manifest]:
    """The models of these names, and the bases of those that are adapters. Raises CannotDo where one is not there, or
    ``out`` is."""
    if not out.name or out.exists():
        raise CannotDo(f"{out} is there already.", hint="Name another file with -o.")
    return _with_bases(vault, names)


def export(
    vault: Vault, manifests: Sequence[Manifest], out: Path, key: sign.SigningKey, *, state: int,
    wheels: Sequence[Path] = (), progress: Progress,
) -> Index:  # fmt: skip
    """Write models into one signed file.

    Raises:
        CannotDo: their bytes are not what was admitted, or the file cannot be written; there is no such file then.
    """
    sources: dict[str, Path | bytes] = {"oci-layout": (vault.folder / "oci-layout").read_bytes()}
    sources["index.json"] = vault.index_of([manifest.name for manifest in manifests])
    for manifest in manifests:
        record = vault.record(manifest)
        sources |= {_BLOBS + _hex(digest): vault.blob(digest) for digest in sorted(vault.parts(manifest))}
        for kind in ("cyclonedx", "spdx"):
            document = msgspec.json.encode(bom.document(record, kind))
            sources[f"bom/{_hex(manifest.record)}.{kind}.json"] = document
    sources |= {WHEELS + wheel.name: wheel for wheel in wheels}
    members = _measured(sources, progress)
    house = {known.name: known.record for known in vault.list()}
    index = Index(key.public, state, time.time(), house, tuple(manifests), members)
    sealed = sign.seal(msgspec.json.encode(index, order="deterministic"), PAYLOAD_TYPE, key)
    _write(out, {ENVELOPE: sealed, **sources}, members | {ENVELOPE: Member("", len(sealed))}, progress)
    return index


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """A bundle, its signature checked and nothing else read yet. Raises CannotDo."""
    try:
        if not path.is_file():
            raise OSError(errno.EINVAL, "it is no file")
        stream = path.open("rb")
    except OSError as error:
        raise CannotDo(f"{path} cannot be read: {error.strerror}.", hint="See that the path is right.") from None
    with stream:
        yield Bundle(stream, path)


class Bundle:
    """An open bundle. ``index`` is what its sender signed; who that is, `Trust.check` must still say."""

    def __init__(self, stream: BinaryIO, path: Path):
        self._stream, self._path = stream, path
        name, size = self._header()
        if name != ENVELOPE or size > _MAX_INDEX:
            raise self._bad("it does not begin with a signed index")
        envelope = self._take(size)
        payload, _, _ = sign.read(envelope, PAYLOAD_TYPE)
        try:
            self.index = msgspec.json.decode(payload, type=Index)
            sign.unseal(envelope, PAYLOAD_TYPE, [self.index.key])
        except ValueError as error:
            raise self._bad(f"its index cannot be read: {error}") from None
        self._check_index()

    def unpack(self, folder: Path, progress: Progress) -> Iterator[tuple[Acquired, Record]]:
        """Write every member below ``folder``, checking each against the index as it arrives; then give each model as
        it would have been acquired, and the sender's record of it.

        Raises:
            CannotDo: something is missing, added, cut off or not what was signed; or there is no space.
        """
        self._unpack_all(folder / "bundle", progress)
        records = [self._record(model, folder / "bundle") for model in self.index.models]
        uses = Counter(file.digest for record in records for file in record.files)
        for number, (model, record) in enumerate(zip(self.index.models, records, strict=True)):
            place = folder / f"model-{number}"
            self._lay_out(record, folder / "bundle", place, uses)
            yield self._acquired(model, record, place), record

    def _unpack_all(self, folder: Path, progress: Progress) -> None:
        total, done, wanted = sum(one.size for one in self.index.members.values()), 0, dict(self.index.members)
        while (header := self._header()) != ("", 0):
            name, size = header
            member = wanted.pop(name, None)
            if member is None or member.size != size:
                raise self._bad(f"it holds {name!r}, which its index does not have so")
            self._copy(member, folder / name, lambda now, before=done: progress("unpacking", before + now, total))
            done += size
        if wanted:
            raise self._bad(f"{len(wanted)} members are missing, {min(wanted)!r} among them")

    def _check_index(self) -> None:
        """Every name and number in the index is one that `export` writes: none can lead anywhere else."""
        models = self.index.models
        called = [check_model_name(model.name, adapter=model.is_adapter or None) for model in models]
        digests = [digest for model in models for digest in (model.digest, model.record)]
        digests += [member.digest for member in self.index.members.values()]
        good = (
            len(set(called)) == len(called)
            and all(_DIGEST.fullmatch(digest) for digest in digests)
            and all(_MEMBER.fullmatch(name) for name in self.index.members)
            and all(member.size >= 0 for member in self.index.members.values())
        )
        if not good:
            raise self._bad("its index names what no bundle has")

    def _record(self, model: Manifest, unpacked: Path) -> Record:
        """The sender's record of one model, if it was signed with the bundle's key and speaks of this model."""
        try:
            sealed = (unpacked / _BLOBS / _hex(model.record)).read_bytes()
            record = msgspec.json.decode(sign.unseal(sealed, RECORD_TYPE, [self.index.key]).payload, type=Record)
        except (OSError, ValueError) as error:
            raise self._bad(f"its record of {model.name!r} cannot be read: {error}") from None
        names.checked(file.path for file in record.files)
        if record.name != model.name or model.digest not in {file.digest for file in record.files}:
            raise self._bad(f"its record of {model.name!r} is of another model")
        return record

    def _lay_out(self, record: Record, unpacked: Path, place: Path, uses: Counter[str]) -> None:
        """Put one model's files under their own names, each a file of its own: moved at its last use, else copied."""
        for file in record.files:
            source, target = unpacked / _BLOBS / _hex(file.digest), place / file.path
            uses[file.digest] -= 1
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target) if uses[file.digest] else os.rename(source, target)
            except OSError as error:
                raise self._bad(f"{file.path!r} of {record.name!r} cannot be laid out: {error.strerror}") from None

    def _acquired(self, model: Manifest, record: Record, place: Path) -> Acquired:
        return Acquired(
            folder=place,
            name=model.name,
            source=record.source,
            pinned=record.pinned,
            digests={file.path: file.digest for file in record.files},
            base_models=record.base_models,
            converted=record.converted,
            chosen=record.chosen,
            via=f"a bundle of the house {sign.fingerprint(self.index.key)}",
        )

    def _copy(self, member: Member, target: Path, tell: Callable[[int], None]) -> None:
        state, left = hashlib.sha256(), member.size
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as output:
                while left:
                    block = self._take(min(left, _CHUNK), padded=False)
                    state.update(block)
                    output.write(block)
                    left -= len(block)
                    tell(member.size - left)
        except OSError as error:
            raise self._bad(f"{target.name!r} cannot be written: {error.strerror}") from None
        self._take(-member.size % _BLOCK, padded=False)
        if "sha256:" + state.hexdigest() != member.digest:
            raise self._bad(f"{target.name!r} is not what was signed")

    def _header(self) -> tuple[str, int]:
        """The next member's name and size; ('', 0) at the end. Only what `export` writes is read."""
        block = self._take(_BLOCK, padded=False)
        if not any(block):
            return "", 0
        try:
            info = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise self._bad(f"it is damaged, or no bundle: {error}") from None
        if info.type != tarfile.REGTYPE or info.size < 0:
            raise self._bad(f"it holds {info.name!r}, which is no plain file")
        return info.name, info.size

    def _take(self, length: int, *, padded: bool = True) -> bytes:
        content = self._stream.read(length)
        if len(content) < length:
            raise self._bad("it is cut off")
        if padded:
            self._take(-length % _BLOCK, padded=False)
        return content

    def _bad(self, why: str) -> CannotDo:
        return CannotDo(
            f"{self._path} is not a bundle that can be let in: {why}.", hint="Fetch it again. Nothing was kept."
        )


def _with_bases(vault: Vault, names: Sequence[str]) -> list[Manifest]:
    wanted = [vault.get(name) for name in dict.fromkeys(names)]
    for manifest in list(wanted):
        base = vault.find(manifest.base) if manifest.base else None
        if base is not None and base not in wanted:
            wanted.insert(0, base)
    return sorted(wanted, key=lambda manifest: bool(manifest.base))  # a base comes in before its adapter


def _measured(sources: Mapping[str, Path | bytes], progress: Progress) -> dict[str, Member]:
    """Each member's digest and size; a blob's are held against its name."""
    try:
        sizes = {name: len(one) if isinstance(one, bytes) else one.stat().st_size for name, one in sources.items()}
    except OSError as error:
        raise CannotDo(f"A blob cannot be read: {error.strerror}.", hint="See 'freehold models verify'.") from None
    total, done, members = sum(sizes.values()), 0, {}
    for name, one in sources.items():
        state = hashlib.sha256()
        for block in _blocks(one):
            state.update(block)
            done += len(block)
            progress("verifying", done, total)
        if name.startswith(_BLOBS) and state.hexdigest() != name.removeprefix(_BLOBS):
            raise CannotDo(f"The blob {name} is not what was admitted.", hint="See 'freehold models verify'.")
        members[name] = Member("sha256:" + state.hexdigest(), sizes[name])
    return members


def _write(out: Path, sources: Mapping[str, Path | bytes], members: Mapping[str, Member], progress: Progress) -> None:
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    total, done = sum(member.size for member in members.values()), 0
    try:
        with draft.open("xb") as stream:
            for name, one in sources.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = members[name].size, 0o444
                stream.write(info.tobuf(tarfile.GNU_FORMAT))
                for block in _blocks(one):
                    stream.write(block)
                    done += len(block)
                    progress("writing", done, total)
                stream.write(b"\0" * (-members[name].size % _BLOCK))
            stream.write(b"\0" * 2 * _BLOCK)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, out)
    except OSError as error:
        raise CannotDo(f"{out} cannot be written: {error.strerror}.", hint="Name another file with -o.") from None
    finally:
        draft.unlink(missing_ok=True)


def _blocks(one: Path | bytes) -> Iterator[bytes]:
    if isinstance(one, bytes):
        yield one
        return
    with one.open("rb") as stream:
        while block := stream.read(_CHUNK):
            yield block


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
