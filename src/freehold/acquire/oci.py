"""A model in an OCI image layout: a folder, or one uncompressed tar of it, with the CNCF ModelPack types.

Formats: OCI image layout 1.0.0, OCI image manifest 1.1, and the ModelPack specification, under its present name
(``application/vnd.cncf.model.*``) and its earlier (``vnd.cnai``). Every blob is compared with its digest while it is
copied, and the file that is kept is the one that was compared.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec import Struct

from freehold import disk
from freehold.acquire.base import (
    CHUNK,
    KEPT_NOTHING,
    MAX_FILES,
    Choice,
    Progress,
    checked,
    clear_errors,
    create,
    decode,
    files_folder,
    model_name,
    shown,
    write,
)
from freehold.acquire.local import opened_below
from freehold.acquire.source import Source
from freehold.acquire.tar import Member, Part, members
from freehold.errors import AcquireFailed
from freehold.types import Acquired

_DOCUMENT = 4 << 20  # bytes of an index, manifest or config
_REF_NAME = "org.opencontainers.image.ref.name"
_PATHS = ("org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title")
_LICENCES = "org.opencontainers.image.licenses"
_MODEL = re.compile(r"application/vnd\.(cncf|cnai)\.model\.manifest\.v1\+json")
_CONFIG = re.compile(r"application/vnd\.(cncf|cnai)\.model\.config\.v1\+json")
_LAYER = re.compile(r"application/vnd\.(?:cncf|cnai)\.model\.(?:weight|weight\.config|doc|code|dataset)\.v1\.(.+)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

T = TypeVar("T")


class _Descriptor(Struct, frozen=True, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None

    def note(self, key: str) -> str:
        return (self.annotations or {}).get(key, "")


class _Index(Struct, frozen=True):
    manifests: list[_Descriptor]


class _Manifest(Struct, frozen=True, rename="camel"):
    config: _Descriptor
    layers: list[_Descriptor]
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class _About(Struct, frozen=True):
    name: str | None = None
    licenses: list[str] | None = None


class _Config(Struct, frozen=True):
    descriptor: _About | None = None


class _Layer(Struct, frozen=True):
    """A blob that is wanted, and the files in it: the one that it is, or the members of its archive."""

    descriptor: _Descriptor
    sizes: dict[str, int]
    archive: bool


class _Layout(Protocol):
    """Where the files of a layout are, whether a folder or an archive."""

    def open(self, path: str):
        """The bytes of a file of the layout, as a context that gives a `Part`."""


def fetch(source: Source, choice: Choice, folder: Path, progress: Progress, *, name: str = "") -> Acquired:
    """Copy one model out of a layout into ``folder``.

    Raises:
        AcquireFailed: there is no such layout, tag or model, a blob is not what its digest says, a layer is of a
            kind that is not taken, or there is no space.
    """
    with _layout(source) as layout:
        entry = _pick(decode(_read(layout, "index.json"), _Index, "index.json"), source)
        manifest = decode(_blob(layout, entry), _Manifest, "The manifest")
        about = _about(layout, manifest)
        layers = _layers(layout, _model_layers(manifest, source))
        sizes = {path: size for layer in layers for path, size in layer.sizes.items()}
        chosen = set(choice.of(sizes, shown(str(source))))
        wanted = [layer for layer in layers if chosen & layer.sizes.keys()]
        digests = _copy_all(layout, wanted, chosen, folder, progress)
    tag = entry.note(_REF_NAME)
    called = (about.name or "").strip() or ("" if tag == "latest" else tag.rpartition("/")[2].partition(":")[0])
    return Acquired(
        folder=folder / "files",
        name=name or model_name(called or os.path.basename(os.path.abspath(source.where))),
        source=f"{source.kind}:{shown(os.path.basename(source.where.rstrip('/')))}@{entry.digest}",
        digests=digests,
        licence=" AND ".join(about.licenses or []) or (manifest.annotations or {}).get(_LICENCES, ""),
    )


class _Folder(Struct, frozen=True):
    descriptor: int

    @contextmanager
    def open(self, path: str) -> Iterator[Part]:
        with clear_errors(path), opened_below(self.descriptor, path) as held:
            yield Part(held, 0, os.fstat(held).st_size)


class _Archive(Struct, frozen=True):
    whole: Part
    members: dict[str, Member]

    @contextmanager
    def open(self, path: str) -> Iterator[Part]:
        member = self.members.get(path)
        if not member:
            raise AcquireFailed(f"The archive does not hold {shown(path)}.", hint=KEPT_NOTHING)
        yield self.whole.part(member.offset, member.size)


@contextmanager
def _layout(source: Source) -> Iterator[_Layout]:
    path = Path(os.path.realpath(source.where))
    with clear_errors(source.where):
        if not path.exists():
            raise AcquireFailed(f"There is nothing at {shown(source.where)}.", hint="Give the path of an OCI layout.")
        if path.is_dir() == (source.kind == "oci-archive"):
            other = "oci" if path.is_dir() else "oci-archive"
            raise AcquireFailed(
                f"{shown(source.where)} is {'a folder' if path.is_dir() else 'no folder'}.",
                hint=f"Write {other}:{shown(source.where)}.",
            )
        held = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if source.kind == "oci":
            with _inner(held, path.name) as descriptor:
                yield _Folder(descriptor)
        else:
            with _Folder(held).open(path.name) as whole:
                yield _Archive(whole, _files(whole, source.where))
    finally:
        os.close(held)


@contextmanager
def _inner(parent: int, name: str) -> Iterator[int]:
    with clear_errors(name):
        held = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield held
    finally:
        os.close(held)


def _files(archive: Part, what: str) -> dict[str, Member]:
    """The regular files of a tar by their plain names. Raises AcquireFailed for anything but files and folders."""
    found: dict[str, Member] = {}
    for member in members(archive, what):
        name = member.name.removeprefix("./")
        if member.kind == "5":
            continue
        if member.kind not in "07":
            raise AcquireFailed(
                f"{shown(name)} in {shown(what)} is a link or another thing that is no file.", hint=KEPT_NOTHING
            )
        if name in found:
            raise AcquireFailed(f"{shown(name)} is twice in {shown(what)}.", hint=KEPT_NOTHING)
        if len(found) == MAX_FILES:
            raise AcquireFailed(f"{shown(what)} holds more than {MAX_FILES:,} files.", hint=KEPT_NOTHING)
        found[name] = member
    return found


def _pick(index: _Index, source: Source) -> _Descriptor:
    """The one entry that is meant."""
    tag = source.revision
    found = [one for one in index.manifests if not tag or f":{one.note(_REF_NAME)}".endswith(f":{tag}")]
    if len(found) != 1:
        tags = ", ".join(sorted(shown(one.note(_REF_NAME) or "(no tag)") for one in index.manifests[:20]))
        said = f"does not hold {shown(tag)}" if tag and not found else f"holds {len(found)} models of that name"
        raise AcquireFailed(
            f"{shown(source.where)} {said if tag else f'holds {len(found)} models'}.",
            hint=f"Give {source.kind}:{shown(source.where)}:TAG; the tags are: {tags}." if tags else "",
        )
    return found[0]


def _about(layout: _Layout, manifest: _Manifest) -> _About:
    """What the config says of the model, where there is one."""
    if not _CONFIG.fullmatch(manifest.config.media_type):
        return _About()
    return decode(_blob(layout, manifest.config), _Config, "The model's config").descriptor or _About()


def _model_layers(manifest: _Manifest, source: Source) -> list[_Descriptor]:
    kind = manifest.artifact_type or manifest.config.media_type
    if not _MODEL.fullmatch(kind) and not _CONFIG.fullmatch(kind):
        raise AcquireFailed(
            f"{shown(str(source))} is an image of another kind ({shown(kind)}), not a model.",
            hint="Models are taken with the types of the CNCF ModelPack specification.",
        )
    if len(manifest.layers) > MAX_FILES:
        raise AcquireFailed(f"The manifest names more than {MAX_FILES:,} layers.", hint=KEPT_NOTHING)
    return manifest.layers


def _layers(layout: _Layout, descriptors: list[_Descriptor]) -> list[_Layer]:
    """What each layer holds. Raises AcquireFailed for too many files, or names that are unsafe or meet."""
    layers, count = [], 0
    for descriptor in descriptors:
        layers.append(_layer(layout, descriptor))
        count += len(layers[-1].sizes)
        if count > MAX_FILES:
            raise AcquireFailed(f"The model holds more than {MAX_FILES:,} files.", hint=KEPT_NOTHING)
    checked(path for layer in layers for path in layer.sizes)
    return layers


def _layer(layout: _Layout, layer: _Descriptor) -> _Layer:
    """The files that a layer holds, under names that nobody has looked at. Raises AcquireFailed for a kind that is
    not taken."""
    found = _LAYER.fullmatch(layer.media_type)
    form = found[1] if found else ""
    if form not in ("raw", "tar"):
        raise AcquireFailed(
            f"A layer is of the type {shown(layer.media_type)}, which is not taken.",
            hint="Build the image with raw or uncompressed tar layers, or unpack it and add the folder.",
        )
    if form == "raw":
        path = next((layer.note(key) for key in _PATHS if layer.note(key)), "")
        return _Layer(layer, {path: layer.size}, archive=False)
    with layout.open(_blob_path(layer)) as part:
        files = _files(part, layer.digest)
    return _Layer(layer, {name: member.size for name, member in files.items()}, archive=True)


def _copy_all(
    layout: _Layout, layers: list[_Layer], chosen: set[str], folder: Path, progress: Progress
) -> dict[str, str]:
    """Copy the chosen files of the layers; returns the digests that were promised for them."""
    total, done, digests = sum(layer.descriptor.size for layer in layers), 0, {}
    disk.need_space(folder, total + max((layer.descriptor.size for layer in layers if layer.archive), default=0))
    files = files_folder(folder)
    for layer in layers:
        tell = _from(progress, done, total)
        if layer.archive:
            _unpack(layout, layer, chosen, folder / "layer.tar", files, tell)
        else:
            path = next(iter(layer.sizes))
            _save(layout, layer.descriptor, files / path, tell)
            digests[path] = layer.descriptor.digest
        done += layer.descriptor.size
    return digests


def _from(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress("copying", before + done, total)


def _unpack(layout: _Layout, layer: _Layer, chosen: set[str], work: Path, files: Path, tell) -> None:
    """Lift the chosen members out of a tar layer, from a copy that was compared with its digest."""
    _save(layout, layer.descriptor, work, tell)
    with clear_errors(layer.descriptor.digest):
        descriptor = os.open(work, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            archive = Part(descriptor, 0, layer.descriptor.size)
            found = _files(archive, layer.descriptor.digest)
            if {name: member.size for name, member in found.items()} != layer.sizes:
                raise _another(layer.descriptor)
            for name in sorted(chosen & found.keys()):
                _write(archive.part(found[name].offset, found[name].size), files / name, lambda _done: None)
        finally:
            os.close(descriptor)
            work.unlink()


def _save(layout: _Layout, blob: _Descriptor, target: Path, tell: Callable[[int], None]) -> None:
    """Copy a blob out. Raises AcquireFailed if it is not what its digest says."""
    with layout.open(_blob_path(blob)) as part, clear_errors(blob.digest):
        if part.size != blob.size or _write(part, target, tell) != blob.digest:
            raise _another(blob)


def _write(part: Part, target: Path, tell: Callable[[int], None]) -> str:
    """Copy bytes into a new file; returns their digest."""
    state, done = hashlib.sha256(), 0
    output = create(target)
    try:
        while block := part.read(done, CHUNK):
            state.update(block)
            write(output, block)
            done += len(block)
            tell(done)
    finally:
        os.close(output)
    return "sha256:" + state.hexdigest()


def _blob(layout: _Layout, blob: _Descriptor) -> bytes:
    """A small blob, whole. Raises AcquireFailed if it is too large or not what its digest says."""
    content = _read(layout, _blob_path(blob))
    if len(content) != blob.size or "sha256:" + hashlib.sha256(content).hexdigest() != blob.digest:
        raise _another(blob)
    return content


def _read(layout: _Layout, path: str) -> bytes:
    with layout.open(path) as part:
        if part.size > _DOCUMENT:
            raise AcquireFailed(f"{shown(path)} is larger than {_DOCUMENT >> 20} MiB.", hint=KEPT_NOTHING)
        return part.read(0, part.size)


def _blob_path(blob: _Descriptor) -> str:
    if not _DIGEST.fullmatch(blob.digest):
        raise AcquireFailed(f"{shown(blob.digest)} is no SHA-256 digest.", hint=KEPT_NOTHING)
    return "blobs/" + blob.digest.replace(":", "/")


def _another(blob: _Descriptor) -> AcquireFailed:
    return AcquireFailed(
        f"The blob {blob.digest} is not what its digest says.", hint=f"Do not use that image. {KEPT_NOTHING}"
    )
