"""The corpus of attack files and near-misses: whole, the same each time, and as dead as it claims to be."""

from __future__ import annotations

import hashlib
import os
import pickletools
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from assets.corpus import Case, build

HERE = Path(__file__).parent
REACHES_OUT = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}

# Each class that the gate has to know: the kind of its cases, a word of an attack's name, a word of a near-miss's.
CLASSES = {
    "an import by GLOBAL": ("pickle", "protocol-2", "plain-2"),
    "an import by STACK_GLOBAL": ("pickle", "stack-global", "name-as-text"),
    "memo decoys": ("pickle", "memo-overwritten", "large-memo"),
    "INST and OBJ": ("pickle", "obj-pop", "python-2"),
    "a payload before a broken tail": ("pickle", "tail-no-stop", "stream"),
    "odd names": ("pickle", "named-config-p", "no-extension"),
    "call-through": ("pickle", "through-", "reduce-set"),
    "builtins through BUILD": ("pickle", "numpy-builtins", "numpy-old"),
    "quiet writes and look-ups": ("pickle", "gethostbyname", "vocabulary"),
    "memo and length bombs": ("pickle", "claims-", "long-list"),
    "frames": ("pickle", "frame-two-readings", "unframed"),
    "unknown globals": ("pickle", "unknown-package", "ordered"),
    "zip checkpoints": ("torch", "zip-call", "zip-model"),
    "legacy checkpoints": ("torch", "legacy-call", "legacy-model"),
    "tar checkpoints": ("torch", "tar-call", "tar"),
    "programs in archives": ("torch", "torchscript", "zip-training"),
    "zips that lie": ("container", "names-differ", "zip-descriptors"),
    "archives in archives": ("container", "zip-in-zip", "zip-in-zip-plain"),
    "compressed wrappers": ("container", "gz-pickle", "gz-plain"),
    "tar slips": ("container", "tar-climbs", "tar-plain"),
    "compression bombs": ("container", "bomb-", "gz-text"),
    "NeMo": ("container", "nemo-target", "nemo-plain"),
    "joblib": ("joblib", "behind-array", "plain"),
    "object arrays": ("numpy", "object-inside", "objects"),
    "Keras layers": ("keras", "lambda", "named-lambda"),
    "Keras look-ups": ("keras", "string-lookup", "string-lookup-list"),
    "HDF5 links": ("hdf5", "external-link", "soft-link"),
    "TensorFlow operators": ("tensorflow", "op-readfile", "names"),
    "ONNX external data": ("onnx", "external-climbs", "external-folder"),
    "ONNX custom operators": ("onnx", "custom-domain", "contrib"),
    "safetensors lengths": ("safetensors", "header-beyond-file", "padded"),
    "safetensors spans": ("safetensors", "overlap", "hollow"),
    "safetensors polyglots": ("safetensors", "trailing-zip", "data-alike"),
    "safetensors indexes": ("safetensors", "index-climbs", "shards"),
    "GGUF counts": ("gguf", "tensors-2-61", "vocabulary"),
    "GGUF overflows": ("gguf", "dims-overflow", "four-dims"),
    "GGUF types": ("gguf", "tensor-type-4", "tensor-q4-k"),
    "template injection": ("template", "cycler", "words"),
    "templates that do not end": ("template", "loop-product", "small-loop"),
    "template backdoors": ("template", "backdoor-beside", "agreeing"),
    "auto_map": ("repository", "auto-map-elsewhere", "null-auto-map"),
    "Hydra targets": ("repository", "hydra-system", "yaml"),
    "training state": ("repository", "training-optimizer", "optimizer"),
    "pointers and look-alikes": ("repository", "lookalike", "unicode"),
    "licences that disagree": ("licence", "mit-style", "mit-wrapped"),
    "disguised text": ("text", "md-pickle", "readme"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> list[Case]:
    return build(tmp_path_factory.mktemp("corpus") / "files")


def test_every_case_is_told_in_full(corpus):
    """Names are unique and safe as paths; each case is there, with an answer and a sentence."""
    names = [case.name for case in corpus]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name, re.I)] == []
    assert [case.name for case in corpus if not os.path.lexists(case.path)] == []
    assert {case.expect for case in corpus} == {"admit", "hold", "block"}
    assert [case.name for case in corpus if not case.says.endswith(".") or len(case.says) < 6] == []


def test_there_is_enough_of_it(corpus):
    """Hundreds of attacks, and enough near-misses to catch a scanner that says no to everything."""
    harmless = sum(case.expect == "admit" for case in corpus)
    assert len(corpus) - harmless >= 900 and harmless >= 300


@pytest.mark.parametrize("wanted", CLASSES)
def test_each_class_has_an_attack_and_a_near_miss(corpus, wanted):
    """Both sides of the line, for every class that the gate has to know."""
    kind, attack, fine = CLASSES[wanted]
    kin = [case for case in corpus if case.kind == kind]
    assert any(case.expect != "admit" and case.name.startswith(f"{kind}-") and attack in case.name for case in kin)
    assert any(case.expect == "admit" and fine in case.name for case in kin)


def tree(folder: Path) -> Iterator[tuple[str, str]]:
    """Every path with what it holds; links are named and not followed."""
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            if path.is_symlink():
                yield str(path.relative_to(folder)), "-> " + os.readlink(path)
            elif path.is_file():
                yield str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_builds_are_the_same(tmp_path):
    """To the byte, and quickly, and small."""
    began = time.monotonic()
    first = build(tmp_path / "one")
    assert time.monotonic() - began < 10
    second = build(tmp_path / "two")
    assert [case._replace(path=Path()) for case in first] == [case._replace(path=Path()) for case in second]
    assert dict(tree(tmp_path / "one")) == dict(tree(tmp_path / "two"))
    assert sum(path.lstat().st_size for path in (tmp_path / "one").rglob("*")) < 30_000_000


def test_a_folder_that_is_in_use_is_left_alone(corpus):
    """A second build into the same folder stops at the first name."""
    with pytest.raises(FileExistsError):
        build(corpus[0].path.parents[1])


GUARD = """
import encodings.latin_1, encodings.utf_16_le, encodings.utf_32_le  # codecs come late otherwise
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from assets.corpus import build

REFUSED = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.", "socket.", "pickle.",
           "ctypes.", "code.", "exec", "marshal.loads", "urllib.", "webbrowser.", "pty.")

def guard(event, arguments):
    if event.startswith(REFUSED):
        sys.stderr.write(f"refused {event} {arguments!r:.200}")
        raise SystemExit(3)
    if event == "open" and isinstance(arguments[0], str) and arguments[1] and set(arguments[1]) & set("wax+"):
        if not arguments[0].startswith(sys.argv[2]):
            sys.stderr.write(f"wrote {arguments[0]}")
            raise SystemExit(4)

sys.addaudithook(guard)
"""


def guarded(folder: Path, *lines: str) -> subprocess.CompletedProcess:
    """A program in a child whose interpreter refuses to run, load, connect or write elsewhere."""
    command = [sys.executable, "-c", GUARD + "\n".join(lines), str(HERE), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_building_it_runs_nothing(tmp_path):
    """No process, no socket, no unpickling, no code object, no file outside of its folder."""
    done = guarded(tmp_path, "build(Path(sys.argv[2]) / 'files')")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle, collections; pickle.loads(pickle.dumps(collections.OrderedDict()))",
        "import os; os.system('true')",
        "import marshal; marshal.loads(marshal.dumps(1))",
        "open('elsewhere.txt', 'w')",
        "eval('1')",
    ],
)
def test_the_guard_says_no(tmp_path, line):
    """The same guard stops each thing that the build must not do."""
    folder = tmp_path / "mine"
    folder.mkdir()
    assert guarded(folder, line).returncode in (3, 4)


def opcodes(data: bytes) -> list[str]:
    """The names of a pickle's opcodes, as far as it can be read."""
    names: list[str] = []
    try:
        for opcode, _, _ in pickletools.genops(data):
            names.append(opcode.name)
    except ValueError:
        names.append("broken")
    return names


def test_each_blocked_pickle_reaches_for_something(corpus):
    """Every pickle to be blocked imports by some opcode, or has another pickle behind it that does."""
    plain = [case for case in corpus if case.kind == "pickle" and case.expect == "block"]
    starts = [b"cos\nsystem", b"\x02os", b"cnot_"]
    dead = [
        case.name
        for case in plain
        if not REACHES_OUT & set(opcodes(data := case.path.read_bytes())) and not any(mark in data for mark in starts)
    ]
    assert len(plain) > 200 and dead == []


def test_each_harmless_pickle_is_whole(corpus):
    """Every near-miss can be read to its last byte, pickle after pickle."""
    for case in corpus:
        if case.kind == "pickle" and case.expect == "admit":
            rest = case.path.read_bytes()
            while rest:
                end = max(position for _, _, position in pickletools.genops(rest))
                rest = rest[end + 1 :]
