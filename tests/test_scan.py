"""A file or a folder, judged in a sealed process: what cannot be read or parsed is a finding, and never silence."""

import ast
import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import msgspec
import pytest
from harness import cli

from freehold.errors import CannotDo
from freehold.scan import folder, formats, sandbox, walk
from freehold.scan.sandbox import Sandbox
from freehold.types import Admission, Judged


def rules(scanned) -> dict[str, list[str]]:
    """The rules that were broken, by file."""
    found: dict[str, list[str]] = {}
    for finding in scanned.findings:
        found.setdefault(finding.file, []).append(finding.rule)
    return found


@pytest.fixture
def model(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    return place


def test_what_nobody_knows_is_held(model):
    """Every byte hashed, none judged."""
    (model / "thing.bin").write_bytes(b"\x00\x01\x02" * 5000)
    scanned = folder.scan(model, "best")
    (judged,) = scanned.files
    assert scanned.verdict is Admission.HOLD and rules(scanned) == {"thing.bin": ["opaque.unknown"]}
    assert judged.size == 15000 and [(span.start, span.end) for span in judged.unjudged] == [(0, 15000)]


def test_the_scanner_is_sealed(model):
    """No file system, no network: the kernel says so of the process, not we."""
    from freehold import seal

    (model / "a").write_bytes(b"a")
    with Sandbox("best") as box, (model / "a").open("rb") as stream:
        box.judge(stream.fileno(), "a", "a", lambda done: None)
        worn = {layer.name for layer in seal.read(box._process.pid) if layer.active}
        told = {layer.name for layer in box.layers if layer.active}
    assert {"seccomp", "no_new_privs", "no_capabilities", "resource_limits"} <= worn
    assert "landlock" in told


def test_a_scanner_that_dies_is_a_finding_of_the_file_that_it_read(model):
    """And the next file is judged by another."""
    big = model / "big"
    with big.open("wb") as stream:
        stream.truncate(8 << 30)
    (model / "small").write_bytes(b"x")
    with Sandbox("best") as box, big.open("rb") as stream, (model / "small").open("rb") as small:
        box._start()
        threading.Timer(0.3, os.kill, (box._process.pid, signal.SIGKILL)).start()
        judged = box.judge(stream.fileno(), "big", "big", lambda done: None)
        assert [found.rule for found in judged.findings] == ["scan.fault"] and judged.digest == ""
        assert box.judge(small.fileno(), "small", "small", lambda done: None).digest


def test_a_scanner_that_hangs_is_ended(model, monkeypatch):
    """After a time that the file's size allows for."""
    monkeypatch.setattr(sandbox, "SILENCE", 0.3)
    big = model / "big"
    with big.open("wb") as stream:
        stream.truncate(8 << 30)
    with Sandbox("best") as box, big.open("rb") as stream:
        monkeypatch.setattr(sandbox, "SILENCE", 20)
        box._start()
        monkeypatch.setattr(sandbox, "SILENCE", 0.3)
        os.kill(box._process.pid, signal.SIGSTOP)
        judged = box.judge(stream.fileno(), "big", "big", lambda done: None)
    assert [found.rule for found in judged.findings] == ["scan.limit"]


def test_a_file_that_is_written_to_while_it_is_read_is_blocked(model):
    """What was judged would not be what is kept."""
    big = model / "big"
    with big.open("wb") as stream:
        stream.truncate(1 << 30)

    def write(_done):
        with big.open("r+b") as other:
            other.write(b"x")

    with Sandbox("best") as box, big.open("rb") as stream:
        judged = box.judge(stream.fileno(), "big", "big", write)
    assert [found.rule for found in judged.findings] == ["scan.changed"] and judged.digest == ""


def test_only_regular_files_are_read(model):
    """A pipe would never end, a device is none of ours, and a link may lead anywhere."""
    os.mkfifo(model / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(model / "socket"))
    (model / "loop").symlink_to("loop")
    (model / "out").symlink_to("/etc/passwd")
    (model / "dangling").symlink_to("nowhere")
    (model / "device").symlink_to("/dev/zero")
    began = time.monotonic()
    found = rules(folder.scan(model, "best"))
    server.close()
    assert time.monotonic() - began < 20
    assert found["pipe"] == found["socket"] == ["folder.special-file"]
    assert found["out"] == found["device"] == ["folder.link-astray"]
    assert found["loop"] == found["dangling"] == ["scan.unreadable"]


SPLIT = Judged("m-00001-of-00003.gguf", "gguf", 1, "sha256:0", facts={"split": [0, 3]})
GRAPH = Judged("m.onnx", "onnx", 1, "sha256:0", facts={"external": [{"location": "m.data"}]})


@pytest.mark.parametrize(
    ("judged", "rule", "verdict"),
    [
        (Judged("model\u202efugg.txt", "text", 1, "sha256:0"), "repository.name", Admission.HOLD),
        (Judged("model.safetensors", "gguf", 1, "sha256:0"), "repository.disguised", Admission.BLOCK),
        (SPLIT, "repository.incomplete", Admission.HOLD),
        (GRAPH, "repository.incomplete", Admission.HOLD),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_single_file_is_looked_at_as_a_folder_of_one_is(model, judged, rule, verdict, whole):
    """Its name, what the name promises, and what it misses; a folder without a graph's data is broken for certain."""
    (model / judged.file).write_bytes(b"x")
    root = model if whole else model / judged.file
    scanned = folder.scan(root, "off", judge=lambda entry: msgspec.structs.replace(judged, file=entry.path))
    if whole and judged is GRAPH:
        rule, verdict = "repository.external-data", Admission.BLOCK
    assert [found.rule for found in scanned.findings] == [rule] and scanned.verdict is verdict


def test_links_inside_the_folder_are_followed(model, tmp_path):
    """And those of a hub's cache, whose files lie beside it."""
    (model / "a.txt").write_text("hello")
    (model / "b.txt").symlink_to("a.txt")
    same = {judged.file: judged.digest for judged in folder.scan(model, "best").files}
    assert same["a.txt"] == same["b.txt"] != ""
    cache = tmp_path / "models--org--name"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "blobs" / "0123").write_text("{}")
    (cache / "snapshots" / "abc" / "config.json").symlink_to("../../blobs/0123")
    scanned = folder.scan(cache / "snapshots" / "abc", "best")
    assert [judged.file for judged in scanned.files] == ["config.json"] and scanned.files[0].digest


def test_a_name_in_broken_utf_8_is_shown_escaped(model):
    """And its file is judged as any other."""
    (model / os.fsdecode(b"bad\xff\x1b[31mname")).write_text("x")
    (judged,) = folder.scan(model, "best").files
    assert judged.file == "bad\\xff\\x1b[31mname" and judged.digest


def test_a_file_without_permission_is_named(model):
    """As one that nobody looked into."""
    secret = model / "secret"
    secret.write_text("x")
    secret.chmod(0)
    if os.geteuid() == 0:
        entry = walk.Entry("gone", "file", 1, real=model / "gone")  # root may read all; a file that vanished then
        with Sandbox("best") as box:
            tally = folder._Tally(lambda *_: None, 1)
            judged = folder._judge(entry, lambda entry: folder._sealed(entry, box, tally), tally)
        assert [found.rule for found in judged.findings] == ["scan.unreadable"]
    else:
        assert rules(folder.scan(model, "best")) == {"secret": ["scan.unreadable"]}


def test_a_folder_that_may_be_listed_and_not_entered_is_named(tmp_path):
    """With all that it lists: each is unreadable, and none is a fault of ours."""
    script = """
import os, sys
from pathlib import Path
from freehold.scan import sandbox, walk
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print([(entry.path, entry.kind, entry.detail) for entry in walk.walk(Path(sys.argv[1]))])
"""
    with tempfile.TemporaryDirectory() as place:
        shut = Path(place) / "shut"
        (shut / "folder").mkdir(parents=True)
        (shut / "file").write_text("x")
        (shut / "link").symlink_to("file")
        Path(place).chmod(0o755)
        shut.chmod(0o744 if os.geteuid() == 0 else 0o444)
        done = subprocess.run([sys.executable, "-P", "-c", script, place], capture_output=True, text=True)
        shut.chmod(0o755)
    assert done.returncode == 0, done.stderr
    why = "Permission denied"
    assert ast.literal_eval(done.stdout) == [
        ("shut/file", "unreadable", why), ("shut/folder/", "unreadable", why), ("shut/link", "unreadable", why),
    ]  # fmt: skip


def test_a_file_of_a_terabyte_is_not_waited_for(model):
    """It is held, at once."""
    with (model / "huge").open("wb") as stream:
        stream.truncate(1 << 40)
    began = time.monotonic()
    assert rules(folder.scan(model, "best")) == {"huge": ["folder.too-large"]}
    assert time.monotonic() - began < 5


def test_more_files_than_any_model_has_are_refused(model, monkeypatch):
    """With the number."""
    monkeypatch.setattr(walk, "MAX_FILES", 10)
    for number in range(11):
        (model / str(number)).touch()
    with pytest.raises(CannotDo, match="more than 10 files"):
        folder.scan(model, "best")


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
NPY = b"\x93NUMPY\x01\x00" + len(HEADER).to_bytes(2, "little") + HEADER + bytes(4)


def zipped(**files: bytes) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return stream.getvalue()


def tarred(**files: bytes) -> bytes:
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "kind", "weights"),
    [
        (NPY, "x", "npy", True),
        (zipped(a_npy=NPY, b__c_npy=NPY), "x.npz", "numpy", True),
        (zipped(a_npy=NPY, b_txt=b"hello\n"), "x.zip", "zip", True),
        (zipped(a_npy=NPY, b_npy=b"hello\n"), "x.npz", "zip", True),
        (zipped(a_zip=zipped(a_npy=NPY)), "x.zip", "zip", True),
        (zipped(m__data_pkl=b"\x80\x02}.", m__version=b"3\n"), "x.pt", "pytorch", True),
        (zipped(config_json=b"{}", metadata_json=b"{}", model_weights_h5=b"\0"), "x.keras", "keras", True),
        (tarred(a=NPY), "x.tar", "tar", True),
        (tarred(storages=b"\0", tensors=b"\0", pickle=b"\0"), "x.pt", "pytorch", True),
        (gzip.compress(NPY, mtime=0), "x.gz", "gzip", True),
        (gzip.compress(tarred(a=zipped(a=NPY)), mtime=0), "x.tgz", "gzip", True),
        (zipped(a_txt=b"hello\n"), "x.zip", "zip", False),
        (zipped(**{f"n{number}_txt": b"x\n" for number in range(1100)}, z_npy=NPY), "x.zip", "zip", True),
        (gzip.compress(b"hello\n" * 9, mtime=0), "x.gz", "gzip", False),
        (b"hello\n", "x.txt", "text", False),
        (b"3\n", "version", "pytorch", False),
    ],
)
def test_weights_are_told_of_however_they_are_packed(content, name, kind, weights):
    """The format is what the members make of the archive; the fact is there where anything inside is of weights."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        judged = formats.judge(file.fileno(), len(content), name)
    assert (judged.format, judged.facts.get("weights", False)) == (kind, weights)


def test_the_exit_code_says_what_came_of_it(model):
    """0 clean, 1 something found, 2 could not look."""
    (model / "README.txt").write_text("hello\n")
    (model / "thing").write_bytes(os.urandom(100))
    assert cli("scan", str(model / "README.txt")).returncode == 0
    done = cli("scan", str(model))
    assert done.returncode == 1 and "HOLD" in done.stdout and "opaque.unknown" in done.stdout
    gone = cli("scan", str(model / "none"))
    assert gone.returncode == 2 and "cannot be scanned" in gone.stderr and "Traceback" not in gone.stderr


def test_a_folder_without_files_is_not_called_clean(model):
    """Nothing was looked at, so nothing is said of it: neither of an empty folder nor of empty ones in it."""
    for made in (model, model / "empty"):
        made.mkdir(exist_ok=True)
        done = cli("scan", str(model))
        assert done.returncode == 2 and f"{model} holds no files." in done.stderr and "ADMIT" not in done.stdout


def test_json_has_every_file_with_its_account(model):
    """Parsed, data and unjudged add up to the size."""
    (model / "a.txt").write_text("hello\n")
    (model / "thing").write_bytes(os.urandom(100))
    ((scanned),) = json.loads(cli("scan", str(model), "--json").stdout)
    for judged in scanned["files"]:
        unjudged = sum(span["end"] - span["start"] for span in judged["unjudged"])
        assert judged["parsed"] + judged["data"] + unjudged == judged["size"]
    assert scanned["verdict"] == "hold"


def test_sarif_is_what_other_programs_read(model, tmp_path):
    """By somebody else's model of the format; and that model can say no."""
    from pydantic import ValidationError
    from sarif_pydantic import Sarif

    (model / "a name with spaces").write_bytes(os.urandom(100))
    done = cli("scan", str(model), "--format", "sarif", "--output", str(tmp_path / "out.sarif"))
    assert done.returncode == 1 and done.stdout == ""
    text = (tmp_path / "out.sarif").read_text()
    run = Sarif.model_validate_json(text).runs[0]
    assert run.results[0].rule_id == "opaque.unknown" and run.tool.driver.name == "freehold"
    document = json.loads(text)
    place = document["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("a%20name%20with%20spaces")
    del document["runs"][0]["tool"]
    with pytest.raises(ValidationError):
        Sarif.model_validate(document)
