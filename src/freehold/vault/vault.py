"""The models of one home: put in, found, verified, removed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from freehold import sign
from freehold.disk import Progress, hash_file, write_atomically
from freehold.errors import BadModel, CannotDo
from freehold.names import adapter_name, check_model_name
from freehold.types import Manifest, Record
from freehold.vault import layout, stamps
from freehold.vault.blobs import Blobs

FACTS = "dev.freehold.manifest"  # our own record of the model, in short, as JSON
SERVED = ("gguf",)  # the formats that an engine opens
_MOMENT = 0.1  # seconds


class _Called(Struct, frozen=True):
    """What can be called, by name; and the models among it by their digest and name, for adapters to find theirs."""

    models: dict[str, Manifest] = {}
    bases: dict[str, dict[str, Manifest]] = {}

    def base(self, adapter: Manifest) -> Manifest | None:
        """The model that an adapter belongs to: of several with the same bytes, the one that its name begins with."""
        same = self.bases.get(adapter.base)
        if not same:
            return None
        parts = adapter_name(adapter.name)
        return same.get(parts.base if parts else "") or same[min(same)]


class Vault:
    """The models of one home. Blobs are read-only files named by their digest; nothing is ever overwritten.

    Several processes may use one vault at once: whoever changes it holds its lock, and whoever reads it sees the
    index as it was before a change or as it is after.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._blobs = Blobs(folder)
        self._stamps = stamps.Stamps(folder / "stamps.json")
        self._index_file = str(folder / "index.json")
        self._called = _Called()
        self._look_at = 0.0
        self._version: tuple[int, int, int] | None = None

    def put(
        self, folder: Path, manifest: Manifest, record: Record, key: sign.SigningKey, *, replace: bool = False
    ) -> Manifest:
        """Take the record's files in from ``folder`` (moved, not copied: it lies on the vault's file system), as
        ``manifest.name``; the record is kept as ``key`` signs it.

        The caller vouches that the files have the record's digests; `verify` holds them to that. With ``replace`` a
        name that stood for another model is moved to this one. The index is written last: before that nothing is
        visible.

        Raises:
            CannotDo: the name is another model's, or the base of an adapter's.
            BadModel: the index is lost or damaged.
        """
        with self._blobs.lock():
            self.check_name(manifest, replace=replace)
            for file in record.files:
                self._blobs.take(folder / file.path, file.digest)
            content = msgspec.json.encode(record, order="deterministic")
            kept = self._blobs.write(sign.seal(content, layout.RECORD_TYPE, key))
            manifest = msgspec.structs.replace(manifest, admitted_at=time.time(), record=kept)
            entry = self._describe(manifest, record)
            others = [known for known in self._index() if known["annotations"][layout.REF_NAME] != manifest.name]
            annotations = {layout.REF_NAME: manifest.name, FACTS: msgspec.json.encode(manifest).decode()}
            self._write_index([*others, entry | {"artifactType": layout.MODEL_TYPE, "annotations": annotations}])
            self._sweep()
        return manifest

    def check_name(self, manifest: Manifest, *, replace: bool) -> None:
        """Raises CannotDo where `put` would."""
        check_model_name(manifest.name, adapter=True if manifest.is_adapter else None if manifest.base else False)
        known = next((one for one in self.list() if one.name == manifest.name), None)
        if known is None or known.digest == manifest.digest:
            return
        if not replace:
            raise CannotDo(
                f"{manifest.name!r} is already the name of another model, {known.digest}.",
                hint="Give this one another with --name, or move the name with --replace.",
            )
        self._check_unneeded(known)

    def list(self) -> list[Manifest]:
        """Every admitted model, by name."""
        facts = (entry["annotations"][FACTS] for entry in self._index())
        try:
            return sorted((msgspec.json.decode(fact, type=Manifest) for fact in facts), key=lambda known: known.name)
        except msgspec.MsgspecError as error:
            raise self._damaged(Path(self._index_file), error) from None

    def models(self, *, now: bool = False) -> dict[str, Manifest]:
        """Every model that can be called, by name: those that an engine can open, and the adapters of these. At most a
        moment old: the index is looked at again after `_MOMENT`, or ``now``, and read again if it has changed."""
        return self._look(now=now).models

    def base(self, adapter: Manifest) -> Manifest | None:
        """The model that an adapter is laid over; None where no engine opens it, or it is not here."""
        return self._look().base(adapter)

    def adapters(self, base: Manifest) -> list[Manifest]:
        """The adapters that are called as this model's, the newest first."""
        called = self._look()
        own = [known for known in called.models.values() if known.is_adapter and known.base == base.digest]
        own = [known for known in own if (found := called.base(known)) is not None and found.name == base.name]
        return sorted(own, key=lambda known: (-known.admitted_at, known.name))

    def _look(self, *, now: bool = False) -> _Called:
        at = time.monotonic()
        if at < self._look_at and not now:
            return self._called
        self._look_at = at + _MOMENT
        try:
            found = os.stat(self._index_file)
            version = (found.st_ino, found.st_size, found.st_mtime_ns)
        except OSError:
            version = None
        if version is None or version != self._version:
            self._called = _called(self.list())
            self._version = version
        return self._called

    def get(self, name: str) -> Manifest:
        """The model of that name. Raises CannotDo."""
        found = next((known for known in self.list() if known.name == name), None)
        if found is None:
            raise CannotDo(f"There is no admitted model {name!r}.", hint="'freehold models list' names them.")
        return found

    def find(self, digest: str) -> Manifest | None:
        """A model with that digest, under whatever name."""
        return next((known for known in self.list() if known.digest == digest), None)

    def record(self, manifest: Manifest) -> Record:
        """All that is known of a model. Raises BadModel where that was lost or changed."""
        try:
            payload, _, _ = sign.read(self._sealed(manifest), layout.RECORD_TYPE)
            return msgspec.json.decode(payload, type=Record)
        except (ValueError, CannotDo) as error:  # msgspec's are ValueErrors
            raise BadModel(f"The record of {manifest.name!r} cannot be read: {error}.", hint=_ADD_AGAIN) from None

    def signed_by(self, manifest: Manifest, public_key: str) -> bool:
        """Did that key sign this model's record? Raises BadModel where the record was lost or changed."""
        sealed = self._sealed(manifest)
        try:
            sign.unseal(sealed, layout.RECORD_TYPE, [public_key])
        except CannotDo:
            return False
        return True

    def blob(self, digest: str) -> Path:
        """Where the bytes of a digest lie."""
        return self._blobs.path(digest)

    def check(self, manifest: Manifest, progress: Progress | None = None) -> None:
        """`verify`, unless the file that an engine opens was found good and has not been written to since: see
        `stamps`."""
        self._tie(manifest)
        try:
            if self._stamps.good(manifest.digest, self.blob(manifest.digest)):
                return
        except OSError:
            pass  # which verify puts into words
        self.verify(manifest, progress)

    def verify(self, manifest: Manifest, progress: Progress | None = None) -> None:
        """Read again the bytes that an engine opens, and compare. Raises BadModel if they are not what was admitted."""
        self._tie(manifest)
        self._verify(manifest.name, manifest.digest, progress or (lambda done, total: None))

    def verify_all(self, manifests: list[Manifest], progress: Progress) -> dict[str, list[str]]:
        """Read every file of these models again, several at once; gives what is wrong, by the model's name."""
        records = {manifest.name: self._record_or_fault(manifest) for manifest in manifests}
        wanted = {
            file.digest: file for record in records.values() if isinstance(record, Record) for file in record.files
        }
        tally = _Tally(sum(file.size for file in wanted.values()), progress)
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            faults = dict(
                zip(wanted, pool.map(lambda file: self._fault(file.digest, tally), wanted.values()), strict=True)
            )
        return {name: _wrong(record, faults) for name, record in records.items()}

    def remove(self, name: str) -> int:
        """Take a model out; gives the bytes that came free. Raises CannotDo where there is none, or it is needed."""
        with self._blobs.lock():
            self._check_unneeded(self.get(name))
            self._write_index([one for one in self._index() if one["annotations"][layout.REF_NAME] != name])
            return self._sweep()

    def parts(self, manifest: Manifest) -> set[str]:
        """The digests of every blob that a model is made of. Raises CannotDo, BadModel."""
        self._tie(manifest)
        return self._referred(self._entry(manifest.name)["digest"])

    def index_of(self, names: list[str]) -> bytes:
        """An OCI index of these models alone."""
        return _index_document([self._entry(name) for name in names])

    def sweep(self) -> int:
        """Remove what no model refers to (left by a crash); gives the bytes that came free."""
        with self._blobs.lock():
            return self._sweep()

    def _check_unneeded(self, gone: Manifest) -> None:
        known = self.list()
        adapters = [one.name for one in known if one.base and one.base == gone.digest]
        if adapters and sum(one.digest == gone.digest for one in known) == 1:
            raise CannotDo(
                f"{gone.name!r} is the base of {', '.join(adapters)}.", hint="Remove those first, or keep it."
            )

    def _tie(self, manifest: Manifest) -> Record:
        """The model's record, if index, image manifest and record speak of the same model. Raises BadModel."""
        record = self.record(manifest)
        files = {file.digest for file in record.files}
        parts = self._referred(self._entry(manifest.name)["digest"])
        if (record.name, record.format, record.base) != (manifest.name, manifest.format, manifest.base):
            raise BadModel(f"The index says other things of {manifest.name!r} than its record.", hint=_ADD_AGAIN)
        if manifest.digest not in files or not {*files, manifest.record} <= parts:
            raise BadModel(f"{manifest.name!r} is not made of the files in its record.", hint=_ADD_AGAIN)
        return record

    def _verify(self, name: str, digest: str, progress: Progress) -> None:
        path = self.blob(digest)
        try:
            before = stamps.begin(path)
            found = hash_file(path, progress)
        except OSError as error:
            raise BadModel(
                f"The model {name!r} cannot be read from the vault: {error.strerror}.",
                hint=f"Its file is {path}; put it back, or {_ADD_AGAIN[0].lower()}{_ADD_AGAIN[1:]}",
            ) from None
        if found != digest:
            raise BadModel(
                f"The model {name!r} is not what was admitted: it was {digest}, it is {found}.",
                hint=f"The file {path} was changed or is damaged. Remove it, and add the model again.",
            )
        self._stamps.keep(digest, before, path)

    def _sealed(self, manifest: Manifest) -> bytes:
        try:
            path = self.blob(manifest.record)
            content = path.read_bytes()
        except (OSError, ValueError) as error:
            raise BadModel(f"The record of {manifest.name!r} cannot be read: {error}.", hint=_ADD_AGAIN) from None
        if "sha256:" + hashlib.sha256(content).hexdigest() != manifest.record:
            raise BadModel(f"The record of {manifest.name!r} was changed.", hint=_ADD_AGAIN)
        return content

    def _fault(self, digest: str, tally: _Tally) -> str:
        """What is wrong with one blob, as a sentence; '' for nothing."""
        try:
            before = stamps.begin(self.blob(digest))
            found = hash_file(self.blob(digest), lambda done, total: tally.tell(digest, done))
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        if found != digest:
            return f"it was {digest}, it is {found}"
        self._stamps.keep(digest, before, self.blob(digest))
        return ""

    def _record_or_fault(self, manifest: Manifest) -> Record | str:
        try:
            return self._tie(manifest)
        except BadModel as error:
            return error.message

    def _describe(self, manifest: Manifest, record: Record) -> dict[str, Any]:
        """Write the model's documents; gives the descriptor of its image manifest."""
        kept = layout.descriptor(layout.SEALED_TYPE, manifest.record, self.blob(manifest.record).stat().st_size)
        kept["annotations"] = {layout.FILE_PATH: "freehold-record.dsse.json"}
        config = self._write(layout.CONFIG_TYPE, layout.config(manifest, record.files))
        return self._write(layout.MANIFEST_TYPE, layout.image_manifest(config, record.files, kept))

    def _write(self, media_type: str, document: dict[str, Any]) -> dict[str, Any]:
        content = msgspec.json.encode(document, order="deterministic")
        return layout.descriptor(media_type, self._blobs.write(content), len(content))

    def _sweep(self) -> int:
        keep = {digest for entry in self._index() for digest in self._referred(entry["digest"])}
        self._stamps.forget(keep)
        return self._blobs.sweep(keep)

    def _referred(self, digest: str) -> set[str]:
        """A model's image manifest and all that it points at. Raises BadModel where it cannot be read."""
        try:
            image = msgspec.json.decode(self.blob(digest).read_bytes())
            return {digest, image["config"]["digest"], *(layer["digest"] for layer in image["layers"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(self.blob(digest), error) from None

    def _index(self) -> list[dict[str, Any]]:
        path = self.folder / "index.json"
        try:
            entries = msgspec.json.decode(path.read_bytes())["manifests"]
            ours = [entry for entry in entries if FACTS in entry.get("annotations", {})]  # others are not
            for entry in ours:
                self.blob(entry["digest"])
                if msgspec.json.decode(entry["annotations"][FACTS])["name"] != entry["annotations"][layout.REF_NAME]:
                    raise ValueError("an entry has two names")
            return ours
        except FileNotFoundError as error:
            if not self._blobs.any():
                return []
            raise self._damaged(path, error) from None  # rather than collect as garbage what it named
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(path, error) from None

    def _entry(self, name: str) -> dict[str, Any]:
        self.get(name)
        return next(entry for entry in self._index() if entry["annotations"][layout.REF_NAME] == name)

    def _damaged(self, path: Path, error: Exception) -> BadModel:
        return BadModel(
            f"The vault's index {path} cannot be read: {error}.",
            hint="Put it back from a copy, or remove the vault's folder and fetch the models again.",
        )

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        write_atomically(Path(self._index_file), _index_document(entries))


def _called(known: list[Manifest]) -> _Called:
    bases: dict[str, dict[str, Manifest]] = {}
    for one in known:
        if one.format in SERVED:
            bases.setdefault(one.digest, {})[one.name] = one
    callable_ = (one for one in known if one.format in SERVED or (one.is_adapter and one.base in bases))
    return _Called({one.name: one for one in callable_}, bases)


def _index_document(entries: list[dict[str, Any]]) -> bytes:
    index = {"schemaVersion": 2, "mediaType": layout.INDEX_TYPE, "manifests": entries}
    return msgspec.json.format(msgspec.json.encode(index), indent=2)


class _Tally:
    """Bytes done by all threads together."""

    def __init__(self, total: int, progress: Callable[[int, int], None]):
        self._total, self._progress = total, progress
        self._done: dict[str, int] = {}

    def tell(self, digest: str, done: int) -> None:
        self._done[digest] = done
        self._progress(sum(list(self._done.values())), self._total)


def _wrong(record: Record | str, faults: dict[str, str]) -> list[str]:
    if isinstance(record, str):
        return [record]
    return [f"{file.path}: {faults[file.digest]}" for file in record.files if faults[file.digest]]


_ADD_AGAIN = "Remove the model with 'freehold models remove' and add it again."
