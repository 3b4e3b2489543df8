"""A model as OCI documents: the image manifest and configuration of the CNCF ModelPack specification, version 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freehold.types import Manifest, ModelFile

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MODEL_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
RECORD_TYPE = "application/vnd.freehold.record.v1+json"  # what we sign
SEALED_TYPE = "application/vnd.freehold.record.v1+dsse"  # and the envelope around it, a layer that others carry unread
FILE_PATH = "org.cncf.model.filepath"
REF_NAME = "org.opencontainers.image.ref.name"
LAYER_TYPES = {
    "weights": "application/vnd.cncf.model.weight.v1.raw",
    "config": "application/vnd.cncf.model.weight.config.v1.raw",
    "template": "application/vnd.cncf.model.weight.config.v1.raw",
    "code": "application/vnd.cncf.model.code.v1.raw",
    "doc": "application/vnd.cncf.model.doc.v1.raw",
    "licence": "application/vnd.cncf.model.doc.v1.raw",
    "signature": "application/vnd.cncf.model.doc.v1.raw",
}


def config(manifest: Manifest, files: Sequence[ModelFile]) -> dict[str, Any]:
    """The model's configuration document."""
    return {
        "descriptor": {"name": manifest.name, "licenses": [manifest.licence] if manifest.licence else []},
        "config": {"architecture": manifest.architecture, "format": manifest.format},
        "modelfs": {"type": "layers", "diffIds": [file.digest for file in files]},
    }


def image_manifest(config: dict[str, Any], files: Sequence[ModelFile], record: dict[str, Any]) -> dict[str, Any]:
    """The image manifest: a layer for each file, and our record of the model as the last. ``config`` and ``record``
    are descriptors."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": MODEL_TYPE,
        "config": config,
        "layers": [*(_layer(file) for file in files), record],
    }


def descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    """How one document points at another."""
    return {"mediaType": media_type, "digest": digest, "size": size}


def _layer(file: ModelFile) -> dict[str, Any]:
    return descriptor(LAYER_TYPES[file.kind], file.digest, file.size) | {"annotations": {FILE_PATH: file.path}}
