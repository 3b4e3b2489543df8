"""The vault: content-addressed, verified, whole after any crash, and an OCI image layout that others can read."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from harness import gguf

from freehold.errors import BadModel, CannotDo
from freehold.sign import SigningKey
from freehold.types import ADAPTER, Admission, Licence, LicenceClass, Manifest, ModelFile, Openness, Record
from freehold.vault import Vault


def put(
    vault: Vault, name: str, content: bytes, *, base: str = "", notes: bytes = b"notes", replace: bool = True
) -> Manifest:
    """A model of two files, from a folder like quarantine's."""
    folder = vault.folder.parent / f"incoming-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "docs").mkdir(parents=True)
    files = []
    for path, one, format, kind in (("model.gguf", content, "gguf", "weights"), ("docs/a.md", notes, "text", "doc")):
        (folder / path).write_bytes(one)
        files.append(ModelFile(path, "sha256:" + hashlib.sha256(one).hexdigest(), len(one), format, kind))
    licence, openness = Licence("MIT", LicenceClass.OPEN), Openness("", "unknown")
    record = Record(
        name,
        "file:x",
        False,
        tuple(files),
        Admission.ADMIT,
        (),
        licence,
        openness,
        "freehold",
        1.0,
        format="gguf",
        base=base,
    )
    manifest = Manifest(name, files[0].digest, len(content), "gguf", "file:x", pinned=False, base=base)
    return vault.put(folder, manifest, record, SigningKey.load(vault.folder.parent / "key.pem"), replace=replace)


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "vault")


def blobs(vault: Vault) -> set[str]:
    return {path.name for path in (vault.folder / "blobs" / "sha256").iterdir()}


def test_what_is_put_in_is_found_by_name_and_digest(vault):
    """And verifies, and its record is there."""
    manifest = put(vault, "a", gguf())
    assert vault.find(manifest.digest) == manifest == vault.get("a")
    assert vault.list() == [manifest] and vault.find("sha256:00") is None
    assert vault.record(manifest).files[0].digest == manifest.digest
    vault.verify(manifest)
    with pytest.raises(CannotDo, match="no admitted model"):
        vault.get("b")


def test_a_changed_blob_does_not_verify(vault):
    """Nor does a missing one."""
    manifest = put(vault, "a", gguf())
    blob = vault.blob(manifest.digest)
    blob.chmod(0o600)
    blob.write_bytes(gguf()[:-1] + b"\2")
    with pytest.raises(BadModel, match="is not what was admitted"):
        vault.verify(manifest)
    with pytest.raises(BadModel, match="is not what was admitted"):
        vault.check(manifest)
    blob.unlink()
    with pytest.raises(BadModel, match="cannot be read"):
        vault.check(manifest)


def test_every_file_is_verified_not_only_the_weights(vault):
    """And each that is wrong is named."""
    good, bad = put(vault, "good", gguf()), put(vault, "bad", gguf(tensors=2), notes=b"other notes")
    assert vault.verify_all([good, bad], lambda done, total: None) == {"good": [], "bad": []}
    note = vault.blob(vault.record(bad).files[1].digest)
    note.chmod(0o600)
    note.write_bytes(b"other n0tes")
    wrong = vault.verify_all([good, bad], lambda done, total: None)
    assert wrong["good"] == [] and len(wrong["bad"]) == 1 and "docs/a.md" in wrong["bad"][0]


def test_a_record_that_was_changed_is_not_believed(vault):
    """It is a blob like any other."""
    manifest = put(vault, "a", gguf())
    blob = vault.blob(manifest.record)
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes().replace(b"sig", b"Sig"))
    with pytest.raises(BadModel, match="record"):
        vault.record(manifest)
    assert "record" in vault.verify_all([manifest], lambda done, total: None)["a"][0]


def reads(vault: Vault, manifest: Manifest) -> bool:
    """Does a check read the bytes again?"""
    seen = []
    vault.check(manifest, lambda done, total: seen.append(done))
    return bool(seen)


def test_what_was_verified_and_not_written_to_since_is_not_read_again(vault):
    """Once its last change lies a second back; before that a write could have the very same time."""
    manifest = put(vault, "a", gguf())
    assert reads(vault, manifest) and reads(vault, manifest)
    time.sleep(1.1)
    assert reads(vault, manifest) and not reads(vault, manifest)
    assert not reads(Vault(vault.folder), manifest)


@pytest.mark.parametrize("change", ["write", "write and set the time back", "replace", "mode", "link"])
def test_whatever_is_done_to_a_blob_has_it_read_again(vault, change):
    """The kernel keeps the time of change, and no program can set it."""
    manifest = put(vault, "a", gguf())
    time.sleep(1.1)
    reads(vault, manifest)
    assert not reads(vault, manifest)
    blob = vault.blob(manifest.digest)
    before = blob.stat()
    if change == "replace":
        other = blob.with_name("other")
        shutil.copy2(blob, other)
        os.replace(other, blob)
    elif change == "mode":
        blob.chmod(0o440)
    elif change == "link":
        os.link(blob, vault.folder / "link")
    else:
        blob.chmod(0o600)
        with blob.open("r+b") as stream:
            stream.write(b"GGUF")
        if change != "write":
            os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reads(vault, manifest)


def test_stamps_that_cannot_be_read_count_for_nothing(vault):
    """Then every byte is read again."""
    manifest = put(vault, "a", gguf())
    time.sleep(1.1)
    reads(vault, manifest)
    (vault.folder / "stamps.json").write_text("{")
    assert reads(vault, manifest)


def test_a_name_that_is_put_again_moves(vault):
    """What nothing refers to any more is gone."""
    old, new = put(vault, "a", gguf()), put(vault, "a", gguf(tensors=2))
    assert vault.list() == [new] and not vault.blob(old.digest).exists() and vault.blob(new.digest).exists()


def test_a_name_does_not_move_by_itself_nor_from_under_an_adapter(vault):
    """Not without being told to, and not where something needs what it stood for."""
    base = put(vault, "base", gguf())
    with pytest.raises(CannotDo, match="already the name"):
        put(vault, "base", gguf(tensors=2), replace=False)
    put(vault, "adapter", gguf(tensors=3), base=base.digest)
    with pytest.raises(CannotDo, match="is the base of adapter"):
        put(vault, "base", gguf(tensors=2))
    assert vault.get("base") == base and vault.blob(base.digest).exists()


def test_a_blob_that_was_spoilt_is_mended_by_adding_the_model_again(vault):
    """What is there already stays only if it is good."""
    manifest = put(vault, "a", gguf())
    blob = vault.blob(manifest.digest)
    blob.chmod(0o600)
    blob.write_bytes(b"spoilt")
    put(vault, "a", gguf())
    vault.verify(manifest)


def test_the_same_bytes_are_kept_once(vault):
    """Under two names; and stay until neither needs them."""
    first, second = put(vault, "a", gguf()), put(vault, "b", gguf())
    assert first.digest == second.digest and vault.blob(first.digest).exists()
    vault.remove("a")
    vault.verify(second)
    assert vault.remove("b") >= len(gguf()) and blobs(vault) == set()


def test_a_base_stays_while_an_adapter_needs_it(vault):
    """The refusal names the adapter."""
    base = put(vault, "base", gguf())
    put(vault, "adapter", gguf(tensors=2), base=base.digest)
    with pytest.raises(CannotDo, match="adapter"):
        vault.remove("base")
    vault.remove("adapter")
    vault.remove("base")
    assert vault.list() == []


def test_it_is_an_oci_image_layout(vault):
    """Every descriptor in it points at a blob of that size and digest."""
    manifest = put(vault, "a", gguf())
    assert json.loads((vault.folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((vault.folder / "index.json").read_text())["manifests"]
    image = json.loads(vault.blob(entry["digest"]).read_text())
    assert image["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert image["layers"][0]["digest"] == manifest.digest
    assert image["layers"][0]["annotations"]["org.cncf.model.filepath"] == "model.gguf"
    for descriptor in (entry, image["config"], *image["layers"]):
        content = vault.blob(descriptor["digest"]).read_bytes()
        assert len(content) == descriptor["size"]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"]


def test_skopeo_reads_it(vault, tmp_path):
    """Somebody else's reader: inspects it, copies it, and refuses it when a byte is wrong."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed; the Debian package of that name has it")
    manifest = put(vault, "a", gguf())
    run = {"capture_output": True, "text": True, "env": os.environ | {"TMPDIR": str(tmp_path)}}
    policy = ["skopeo", "--insecure-policy"]
    raw = subprocess.run([*policy, "inspect", "--raw", f"oci:{vault.folder}:a"], **run)
    assert json.loads(raw.stdout)["layers"][0]["digest"] == manifest.digest, raw.stderr
    done = subprocess.run([*policy, "copy", f"oci:{vault.folder}:a", f"dir:{tmp_path / 'copy'}"], **run)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy" / manifest.digest.removeprefix("sha256:")).read_bytes() == gguf()
    blob = vault.blob(manifest.digest)
    blob.chmod(0o600)
    blob.write_bytes(gguf()[:-1] + b"\2")
    assert subprocess.run([*policy, "copy", f"oci:{vault.folder}:a", f"dir:{tmp_path / 'bad'}"], **run).returncode


def test_an_index_that_cannot_be_read_is_a_sentence(vault):
    """And what to do about it."""
    put(vault, "a", gguf())
    for content in ("{", "[]", '{"x": 1}'):
        (vault.folder / "index.json").write_text(content)
        with pytest.raises(BadModel, match="index"):
            vault.list()


CHURN = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from pathlib import Path
    from harness import gguf
    from test_vault import put
    from freehold.vault import Vault

    vault = Vault(Path(sys.argv[1]))
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        put(vault, f"m{number % 3}", gguf(tensors=1 + number % 5), notes=b"n" * (number % 7 * 100_000))
        if number % 4 == 0:
            vault.remove(f"m{number % 3}")
        vault.sweep()
"""


def test_a_kill_at_any_moment_leaves_whole_models_and_nothing_else(vault):
    """Fifty times, in the midst of adding, removing and collecting garbage."""
    dice = random.Random(4)
    for _ in range(50):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHURN), str(vault.folder), str(Path(__file__).parent)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, 0.05))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = Vault(vault.folder)
        assert not any(found.verify_all(found.list(), lambda done, total: None).values())
        found.sweep()
        named = {digest.removeprefix("sha256:") for known in found.list() for digest in found.parts(known)}
        assert blobs(found) == named


def adapter(vault: Vault, name: str, base: Manifest, tensors: int = 2) -> Manifest:
    """An adapter in form alone, as `put` puts a model."""
    content = gguf(tensors=tensors)
    folder = vault.folder.parent / "incoming"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(content)
    file = ModelFile("a.gguf", "sha256:" + hashlib.sha256(content).hexdigest(), len(content), "gguf", "weights")
    record = Record(name, "file:x", False, (file,), Admission.ADMIT, (), Licence("", LicenceClass.UNKNOWN),
                    Openness("", "unknown"), "freehold", 1.0, format=ADAPTER, base=base.digest)  # fmt: skip
    manifest = Manifest(name, file.digest, len(content), ADAPTER, "file:x", pinned=False, base=record.base)
    try:
        return vault.put(folder, manifest, record, SigningKey.load(vault.folder.parent / "key.pem"))
    finally:
        shutil.rmtree(folder)


def test_an_adapter_can_be_called_where_its_base_can(vault):
    """Not one whose base is of a format that no engine opens, and not one that is laid over nothing."""
    base = put(vault, "base", gguf())
    tuned = adapter(vault, "base+tuned@1", base)
    with pytest.raises(CannotDo, match="cannot be an adapter's name"):
        adapter(vault, "tuned", base, tensors=3)
    with pytest.raises(CannotDo, match="cannot be a model's name"):
        put(vault, "base+model@1", gguf(tensors=4))
    elsewhere = Manifest("gone", "sha256:" + "0" * 64, 1, "gguf", "file:x", pinned=False)
    lost = adapter(vault, "gone+tuned@1", elsewhere, tensors=5)
    assert vault.models() == {"base": base, "base+tuned@1": tuned} and lost in vault.list()
    assert vault.base(tuned) == base and vault.base(lost) is None
    assert vault.adapters(base) == [tuned]


def test_an_adapter_belongs_to_the_model_that_its_name_begins_with(vault):
    """Where two names stand for the same bytes; and to the other when that one is gone."""
    first, second = put(vault, "first", gguf()), put(vault, "second", gguf())
    one, two = adapter(vault, "first+a@1", first), adapter(vault, "second+a@1", second, tensors=3)
    other = adapter(vault, "first+b@1", first, tensors=4)
    assert vault.base(one) == first and vault.base(two) == second
    assert vault.adapters(first) == [other, one] and vault.adapters(second) == [two]  # the newest first
    vault.remove("second")
    time.sleep(0.15)
    assert vault.base(two) == first and vault.adapters(first) == [other, two, one]
    vault.remove("first+a@1")
    time.sleep(0.15)
    assert one.name not in vault.models() and vault.adapters(first) == [other, two]
