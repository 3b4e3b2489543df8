"""The vault: content-addressed, verified, and an OCI image layout that others can read."""

import hashlib
import json

import pytest
from harness import gguf

from freehold.errors import BadModel
from freehold.types import Manifest
from freehold.vault import Vault


def put(vault: Vault, name: str, content: bytes) -> Manifest:
    file = vault.folder.parent / "incoming"
    file.write_bytes(content)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return vault.put(file, Manifest(name, digest, len(content), "gguf", "file:x", pinned=False))


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "vault")


def test_what_is_put_in_is_found_by_name_and_digest(vault):
    """And verifies."""
    manifest = put(vault, "a", gguf())
    assert vault.find(manifest.digest) == manifest
    assert vault.list() == [manifest] and vault.find("sha256:00") is None
    vault.verify(manifest)


def test_a_changed_blob_does_not_verify(vault):
    """Nor does a missing one."""
    manifest = put(vault, "a", gguf())
    blob = vault.blob(manifest.digest)
    blob.chmod(0o600)
    blob.write_bytes(gguf()[:-1] + b"\2")
    with pytest.raises(BadModel, match="is not what was admitted"):
        vault.verify(manifest)
    blob.unlink()
    with pytest.raises(BadModel, match="cannot be read"):
        vault.verify(manifest)


def test_a_name_that_is_put_again_moves(vault):
    """The old bytes stay under their digest."""
    old, new = put(vault, "a", gguf()), put(vault, "a", gguf(tensors=2))
    assert vault.list() == [new] and vault.blob(old.digest).exists()


def test_it_is_an_oci_image_layout(vault):
    """Every descriptor in it points at a blob of that size and digest."""
    manifest = put(vault, "a", gguf())
    assert json.loads((vault.folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((vault.folder / "index.json").read_text())["manifests"]
    image = json.loads(vault.blob(entry["digest"]).read_text())
    assert image["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert image["layers"][0]["digest"] == manifest.digest
    for descriptor in (entry, image["config"], *image["layers"]):
        content = vault.blob(descriptor["digest"]).read_bytes()
        assert len(content) == descriptor["size"]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"]


def test_an_index_that_cannot_be_read_is_a_sentence(vault):
    """And what to do about it."""
    put(vault, "a", gguf())
    for content in ("{", "[]", '{"x": 1}'):
        (vault.folder / "index.json").write_text(content)
        with pytest.raises(BadModel, match="index"):
            vault.list()
