"""The vault: a content-addressed store of admitted models, an OCI image layout on disk.

Formats: OCI image layout 1.0.0 (``oci-layout``, ``index.json``, ``blobs/sha256/``) with the media types of
the CNCF ModelPack specification, so that any tool that reads ``oci:`` folders can read the vault.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from freehold.errors import BadModel
from freehold.types import Manifest

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MODEL_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
REF_NAME = "org.opencontainers.image.ref.name"
FACTS = "dev.freehold.manifest"  # our own record of the model, whole, as JSON
_CHUNK = 1 << 20
_MOMENT = 0.1  # seconds

Progress = Callable[[int, int], None]


class Vault:
    """The models of one home. Blobs are read-only files named by their digest; nothing is ever overwritten."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._index_file = str(folder / "index.json")
        self._models: dict[str, Manifest] = {}
        self._look_at = 0.0
        self._version: tuple[int, int, int] | None = None

    def put(self, file: Path, manifest: Manifest) -> Manifest:
        """Take ``file`` (moved, not copied, so it must lie on the vault's file system) in as ``manifest.name``.

        The caller vouches that the file has the manifest's digest; `verify` holds it to that. A name that
        stood for another digest is moved to this one.
        """
        self._prepare()
        manifest = msgspec.structs.replace(manifest, admitted_at=time.time())
        blob = self.blob(manifest.digest)
        if not blob.exists():
            file.chmod(0o444)
            _sync(file)
            os.replace(file, blob)
        config = self._write_blob(_config(manifest))
        entry = self._write_blob(_image_manifest(manifest, config))
        kept = [known for known in self._index() if known["annotations"][REF_NAME] != manifest.name]
        annotations = {REF_NAME: manifest.name, FACTS: msgspec.json.encode(manifest).decode()}
        self._write_index([*kept, entry | {"artifactType": MODEL_TYPE, "annotations": annotations}])
        return manifest

    def list(self) -> list[Manifest]:
        """Every admitted model, by name."""
        facts = (entry["annotations"][FACTS] for entry in self._index())
        return sorted((msgspec.json.decode(fact, type=Manifest) for fact in facts), key=lambda known: known.name)

    def models(self) -> dict[str, Manifest]:
        """Every admitted model by name, at most a moment old: the index is looked at again after `_MOMENT`, and read
        again if it has changed."""
        now = time.monotonic()
        if now < self._look_at:
            return self._models
        self._look_at = now + _MOMENT
        try:
            found = os.stat(self._index_file)
            version = (found.st_ino, found.st_size, found.st_mtime_ns)
        except OSError:
            version = None
        if version is None or version != self._version:
            self._models = {manifest.name: manifest for manifest in self.list()}
            self._version = version
        return self._models

    def find(self, digest: str) -> Manifest | None:
        """A model with that digest, under whatever name."""
        return next((known for known in self.list() if known.digest == digest), None)

    def blob(self, digest: str) -> Path:
        """Where the bytes of a digest lie."""
        algorithm, _, hexadecimal = digest.partition(":")
        return self.folder / "blobs" / algorithm / hexadecimal

    def verify(self, manifest: Manifest, progress: Progress | None = None) -> None:
        """Read the model's bytes again and compare. Raises BadModel if they are not what was admitted."""
        path = self.blob(manifest.digest)
        try:
            found = hash_file(path, progress)
        except OSError as error:
            raise BadModel(
                f"The model {manifest.name!r} cannot be read from the vault: {error.strerror}.",
                hint=f"Its file is {path}; put it back, or remove the vault's folder and fetch the model again.",
            ) from None
        if found != manifest.digest:
            raise BadModel(
                f"The model {manifest.name!r} is not what was admitted: it was {manifest.digest}, it is {found}.",
                hint=f"The file {path} was changed or is damaged. Remove it and 'freehold up' fetches it again.",
            )

    def _prepare(self) -> None:
        (self.folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True, mode=0o700)
        layout = self.folder / "oci-layout"
        if not layout.exists():
            _write_atomically(layout, b'{"imageLayoutVersion":"1.0.0"}')

    def _index(self) -> list[dict[str, Any]]:
        try:
            entries = msgspec.json.decode((self.folder / "index.json").read_bytes())["manifests"]
            return [entry for entry in entries if FACTS in entry.get("annotations", {})]  # others are not ours
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
            raise BadModel(
                f"The vault's index {self.folder / 'index.json'} cannot be read: {error}.",
                hint="Put it back from a copy, or remove the vault's folder and fetch the models again.",
            ) from None

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}
        _write_atomically(self.folder / "index.json", msgspec.json.format(msgspec.json.encode(index), indent=2))

    def _write_blob(self, document: dict[str, Any]) -> dict[str, Any]:
        """Write a JSON blob; returns its descriptor."""
        content = msgspec.json.encode(document, order="deterministic")
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        if not self.blob(digest).exists():
            _write_atomically(self.blob(digest), content)
        return {"mediaType": document.get("mediaType", CONFIG_TYPE), "digest": digest, "size": len(content)}


def hash_file(path: Path, progress: Progress | None = None) -> str:
    """The SHA-256 of a file, as ``sha256:<hex>``. ``progress`` is told bytes done and bytes in all."""
    total, done, state = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            state.update(block)
            done += len(block)
            if progress:
                progress(done, total)
    return "sha256:" + state.hexdigest()


def _config(manifest: Manifest) -> dict[str, Any]:
    return {
        "descriptor": {"name": manifest.name, "licenses": [manifest.licence] if manifest.licence else []},
        "config": {"architecture": manifest.architecture, "format": manifest.format},
        "modelfs": {"type": "layers", "diffIds": [manifest.digest]},
    }


def _image_manifest(manifest: Manifest, config: dict[str, Any]) -> dict[str, Any]:
    weights = {
        "mediaType": WEIGHT_TYPE,
        "digest": manifest.digest,
        "size": manifest.size,
        "annotations": {"org.cncf.model.filepath": f"{manifest.name}.{manifest.format}"},
    }
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": MODEL_TYPE,
        "config": config,
        "layers": [weights],
    }


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
