"""Pickles: what runs code is found however it hides, what is plain data passes, and both as Python itself reads it."""

import argparse
import collections
import datetime
import decimal
import fractions
import inspect
import pathlib
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import time
import types
import uuid

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pickling import F8, OBJECT, Call, Code, Name, Pid, array, call, code, dtype, judge, pickled, rules, tensor

from freehold.scan import machine, pickles
from freehold.scan.base import Malformed
from freehold.scan.globals import KNOWN
from freehold.scan.tape import MemoryTape, Oversized, Truncated
from freehold.scan.values import Ambiguous, Long, Node

SYSTEM = call("os.system", "echo attack")
PAYLOAD = code(SYSTEM)


def frame(content: bytes, said: int | None = None) -> bytes:
    return b"\x95" + struct.pack("<Q", len(content) if said is None else said) + content


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def stack_global(module: str, name: str) -> bytes:
    return short(module) + b"\x94" + short(name) + b"\x94\x93"


def words(text: str) -> list[str]:
    return text.split()


# --- attacks ------------------------------------------------------------------------------------------------------

NAMES = words(
    """os.system posix.system nt.system subprocess.Popen builtins.eval builtins.exec builtins.getattr
    builtins.__import__ builtins.compile builtins.open builtins.globals builtins.map __builtin__.eval
    __builtin__.execfile commands.getoutput pip.main pip._internal.main asyncio.run
    asyncio.unix_events._UnixSubprocessTransport._start pkgutil.resolve_name marshal.loads types.FunctionType
    types.CodeType functools.partial functools.reduce operator.attrgetter operator.methodcaller operator.itemgetter
    runpy.run_path ctypes.CDLL socket.create_connection socket.gethostbyname urllib.request.urlopen shutil.rmtree
    tempfile.mktemp importlib.import_module webbrowser.open code.InteractiveInterpreter pdb.run timeit.timeit
    cProfile.run profile.run trace.Trace bdb.Bdb.run pydoc.pipepager idlelib.pyshell.ModifiedInterpreter
    distutils.spawn.spawn logging.config.listen uuid._get_command_stdout lib2to3.pgen2.pgen.ParserGenerator
    smtplib.SMTP ssl.get_server_certificate sqlite3.connect copyreg.__newobj__ _io.FileIO io.open
    pathlib.Path.write_text zipfile.ZipFile linecache.getlines ensurepip._run_pip doctest.debug_script
    torch.hub.load torch.load torch.jit.load torch.serialization.os.system torch.utils.cpp_extension.load numpy.load
    numpy.testing._private.utils.runstring numpy.f2py.crackfortran.myeval joblib.load cloudpickle.loads dill.loads
    some.library.os.system library.Class.__globals__ numpy.__builtins__ sympy.sympify pandas.read_pickle
    torch.fx.graph_module.reduce_graph_module collections.OrderedDict.__init__ venv.create this.s
    antigravity.webbrowser string.Formatter.get_field threading.Thread _posixsubprocess.fork_exec
    test.support.script_helper.assert_python_ok gc.get_objects site.execsitecustomize
    multiprocessing.util.spawnv_passfds getpass.os.system unittest.mock._importer setuptools.sandbox.run_setup"""
)


@pytest.mark.parametrize("path", NAMES)
def test_what_runs_code_is_blocked_however_it_is_imported(path):
    """GLOBAL, STACK_GLOBAL and INST, each with a call; by protocols 0 and 4."""
    module, _, name = path.rpartition(".")
    if path.startswith(("torch.serialization.os", "asyncio.unix", "some.", "library.", "getpass.os")):
        module, name = path.split(".")[0], path.split(".", 1)[1]
    by_global = f"c{module}\n{name}\n(S'x'\ntR.".encode()
    by_stack = b"\x80\x04" + stack_global(module, name) + short("x") + b"\x85R."
    by_inst = f"(S'x'\ni{module}\n{name}\n.".encode()
    for content in (by_global, by_stack, by_inst):
        found = [finding for finding in judge(content).findings if finding.rule == "pickle.code"]
        assert found and found[0].severity == "block", path


UNLISTED = words(
    "sklearn.svm._classes.SVC transformers.training_args.TrainingArguments __main__.Net omegaconf.DictConfig "
    "torch.nn.modules.linear.Linear"
)


@pytest.mark.parametrize("path", UNLISTED)
def test_a_name_that_nobody_listed_holds_the_file(path):
    """An unknown library's class is neither plain data nor known to be bad."""
    module, _, name = path.rpartition(".")
    found = judge(pickled({"a": Call(Name(module, name), state={"x": 1}, new=True)}))
    assert [(finding.rule, finding.severity) for finding in found.findings] == [("pickle.unknown", "hold")]
    assert path in found.findings[0].meaning


HIDDEN = {
    "a decoy in the memo": b"\x80\x04" + short("collections") + b"\x940" + short("os") + b"\x94" + short("system")
    + b"\x940" + b"0h\x01h\x02\x93" + short("x") + b"\x85R.",
    "OBJ and POP": b"(cos\nsystem\nS'x'\no0N.",
    "within marks that are dropped": b"(" + PAYLOAD + b"1N.",
    "a memo entry that was overwritten": b"\x80\x04" + short("builtins") + b"q\x00" + short("os") + b"q\x000h\x00"
    + short("system") + b"\x93" + short("x") + b"\x85R.",
    "behind a DUP": b"\x80\x04" + short("os") + b"2\x94" + short("system") + b"\x93" + short("x") + b"\x85R.",
    "escapes in the text": b"V\\u006f\\u0073\nVsystem\n\x93(Vx\ntR.",
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\n](X\1\0\0\0xe\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04" + stack_global("subprocess", "Popen") + b")}\x92.",
    "a name that is called by its own value": b"\x80\x04" + stack_global("builtins", "getattr")
    + stack_global("os", "path") + short("x") + b"\x86R)R.",
    "an import alone": b"\x80\x04" + stack_global("os", "system") + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_import_is_found(name):
    """Decoys, dropped values and odd instructions change nothing."""
    assert "pickle.code" in rules(HIDDEN[name]), name


UNTOLD = {
    "a name from a call": b"\x80\x04" + stack_global("builtins", "str") + b"(" + short("os") + b"tR" + short("system")
    + b"\x93" + short("x") + b"\x85R.",
    "a name in bytes": b"\x80\x04C\x02os" + short("system") + b"\x93" + short("x") + b"\x85R.",
    "a name too long to be one": b"\x80\x04X" + struct.pack("<I", 300) + b"o" * 300 + short("system") + b"\x93.",
    "a Python 2 name that is not ASCII": b"U\x03o\xffs" + b"U\x06system\x93(Vx\ntR.",
}  # fmt: skip


@pytest.mark.parametrize("name", UNTOLD)
def test_an_import_whose_name_is_no_plain_text_is_blocked(name):
    """What cannot be told without running it is not guessed."""
    assert "pickle.hidden" in rules(UNTOLD[name]), name


FRAMES = {
    "an argument past its frame": b"\x80\x04" + frame(b"B\x10\0\0\0" + b"N" * 4) + b"N" * 12 + b"0N.",
    "an instruction on the edge": b"\x80\x04" + frame(b"NK") + b"\x01.",
    "a frame in a frame": b"\x80\x04" + frame(frame(b"N") + b"0N") + b".",
    "a frame that ends after STOP": b"\x80\x04" + frame(b"N." + b"N."),
    "a line past its frame": b"\x80\x04" + frame(b"Vabc") + b"d\n.",
    "as in cpython issue 154848": b"\x80\x05N0(" + frame(b"B\7\1\0\0", 2) + b"\0\0" + PAYLOAD.ljust(261, b"N") + b"1.",
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_that_splits_an_instruction_is_refused(name):
    """Two readers would run two programs."""
    assert "pickle.frame" in rules(FRAMES[name]), name


def test_large_unframed_bytes_between_frames_pass():
    """So the C pickler writes them: the header and the data outside of any frame."""
    content = pickle.dumps([1, b"x" * 100_000, "y" * 70_000, bytearray(80_000), 2], 5)
    assert rules(content) == set()


def test_a_payload_before_a_broken_tail_counts():
    """What ran before the unpickler fails has run."""
    for tail in (b"", b"\xff\xff\xff", b"h\x05", b"t", b"\x80"):
        assert {"pickle.code"} < rules(b"\x80\x04" + PAYLOAD + tail)
        assert "pickle.code" in rules(PAYLOAD + tail, "weights.bin")


@pytest.mark.parametrize("name", ["config.p", "weights.bin", "model", "data.txt", "README.md"])
def test_a_pickle_is_known_by_what_it_does(name):
    """Not by its name, and without a magic number."""
    assert "pickle.code" in rules(b"(S'echo attack'\nios\nsystem\n.", name)
    assert "pickle.code" in rules(b"cposix\nsystem\n(S'echo attack'\ntR.", name)
    assert "pickle.code" in rules(pickle.dumps({"a": 1}, 0) + b"cos\nsystem\n(S'x'\ntR.", name)
    assert "pickle.code" in rules(b"V" + b"a" * 100_000 + b"\n0cos\nsystem\n(S'x'\ntR.", name)
    assert "pickle.code" in rules(b"I1\n0" * 3000 + b"cos\nsystem\n(S'x'\ntR.", name)


MISUSED = {
    "a class whose attributes are set": b"\x80\x02ccollections\nOrderedDict\n}X\x01\0\0\0xK\x01sb.",
    "attributes of a function": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}(X\x0c\0\0\0__builtins__}u\x86b.",
    "a dunder in a record": pickled(call("argparse.Namespace", new=True, state={"__class__": 1})),
    "a dunder in an OrderedDict": pickled(call("collections.OrderedDict", state={"__dict__": {}})),
    "an array of 2**42 bytes": pickled(
        call("numpy.core.multiarray._reconstruct", Name("numpy", "ndarray"), (1 << 42,), b"b")
    ),
    "a bytearray of 10**12": pickled(call("builtins.bytearray", 10**12)),
    "another codec": pickled(call("_codecs.encode", "x", "rot13")),
    "a huge fraction": pickled(call("fractions.Fraction", "1e999999999")),
    "type with three arguments": pickled(call("builtins.type", "X", (), {})),
    "a factory that is none": pickled(call("collections.defaultdict", Name("torch", "device"))),
    "a reconstructor of a list": pickled(call("copyreg._reconstructor", *[Name("builtins", "list")] * 2, [1])),
    "int called": pickled(call("builtins.int", "1" * 10)),
    "flags that make pointers of bytes": pickled(array((1,), dtype("O8", "|"), b"\1" * 8)),
    "a type that changes under its array": pickled([
        Code(code(call("numpy.dtype", "V8", False, True)) + b"q\0"), array((1,), Code(b"h\0"), b"\1" * 8),
        Code(b"h\0" + code(OBJECT.state) + b"b"),
    ]),
    "a type that changes twice": pickled([Code(code(F8) + b"q\0"), Code(b"h\0" + code(F8.state) + b"b")]),
    "fewer bytes than the shape": pickled(array((1000,), F8, b"\0" * 8)),
    "fewer objects than the shape": pickled(array((1000,), OBJECT, [1])),
    "a field past its element": pickled(dtype("V8", "|", names=("a",), fields={"a": (F8, 4)}, size=8)),
    "an element of another size": pickled(dtype("f8", size=1 << 20)),
    "a scalar that is too short": pickled(call("numpy.core.multiarray.scalar", F8, b"\0")),
    "a buffer that is too short": pickled(call("numpy._core.numeric._frombuffer", b"\0", F8, (3,), "C")),
    "a buffer of objects": pickled(call("numpy._core.numeric._frombuffer", b"\0" * 8, OBJECT, (1,), "C")),
    "a random generator of any class": pickled(
        call("numpy.random._pickle.__bit_generator_ctor", Name("builtins", "dict"))
    ),
    "a view past its storage": pickled(tensor(shape=(2, 4))),
    "hooks of a tensor": pickled(call("torch._utils._rebuild_parameter", tensor(), False, {"a": 1})),
    "another function through a rebuilder": pickled(
        call("torch._tensor._rebuild_from_type_v2", Name("torch", "device"), Name("torch", "Tensor"), ("cpu",), {})
    ),
    "one storage of two lengths": pickled([tensor(), tensor(count=7)]),
    "bytes that torch would load, hidden": pickled(call("torch.storage._load_from_bytes", call("builtins.bytes"))),
}  # fmt: skip


@pytest.mark.parametrize("name", MISUSED)
def test_a_listed_name_may_only_do_what_sound_files_let_it_do(name):
    """The list names arguments and states, not only names."""
    found = judge(MISUSED[name])
    assert [finding for finding in found.findings if finding.rule == "pickle.call"], (name, found.findings)


BROKEN = {
    "no STOP": b"\x80\x04N",
    "an unknown instruction": b"\x80\x04\xffN.",
    "STOP with nothing": b"\x80\x04.",
    "STOP at a mark": b"\x80\x04N(.",
    "a mark that is not there": b"\x80\x04Nt.",
    "a memo that is empty": b"\x80\x04h\x00.",
    "a key without a value": b"\x80\x04}(K\x01u.",
    "a list as a key": b"\x80\x04}]Ns.",
    "a list in a set": b"\x80\x04\x8f(]\x90.",
    "a negative length": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "broken UTF-8": b"\x80\x04\x8c\x01\xff.",
    "protocol 6": b"\x80\x06N.",
    "an octal number": b"\x80\x02I010\n.",
    "a call without a tuple": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "text that is appended to": b"\x80\x04\x8c\x01aNa.",
    "a tensor that is written to (CVE-2026-24747)": pickled(tensor())[:-1] + b"K\0K\1s.",
    "a protocol in the middle": b"\x80\x04N\x80\x020N.",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pickle_is_blocked(name):
    """Every rule of the format is held to."""
    assert rules(BROKEN[name]) & {"pickle.malformed", "scan.truncated"}, name
    assert {finding.severity for finding in judge(BROKEN[name]).findings} == {"block"}


OTHER = {
    "an extension of the registry": (b"\x80\x02\x82\x01.", "pickle.extension", "block"),
    "a reference that is not PyTorch's": (pickled(Pid("x")), "pickle.persistent", "hold"),
    "a buffer from outside": (b"\x80\x05\x97.", "pickle.buffer", "hold"),
    "a length of 2**62": (b"\x80\x05\x8e" + struct.pack("<Q", 1 << 62) + b"x", "scan.truncated", "block"),
    "a place in the memo of 2**32": (b"\x80\x04Nr\xff\xff\xff\xff.", "pickle.bomb", "block"),
    "a billion laughs": (
        b"\x80\x02]q\0K\x01a" + b"".join(b"]q%c(" % n + b"h%c" % (n - 1) * 10 + b"e" for n in range(1, 10)) + b".",
        "pickle.bomb", "block",
    ),
    "a billion laughs, outermost first": (
        b"\x80\x02" + b"".join(b"]q%c0" % n for n in range(10))
        + b"".join(b"h%c(" % n + b"h%c" % (n - 1) * 10 + b"e0" for n in range(9, 0, -1)) + b"h\x09.",
        "pickle.bomb", "block",
    ),
    "tuples in tuples in tuples": (b"\x80\x02)" + b"\x85" * 20_000 + b".", "pickle.bomb", "block"),
    "lists in lists in lists": (b"\x80\x02" + b"]" * 20_001 + b"a" * 20_000 + b".", "pickle.bomb", "block"),
    "lists in lists, outermost first": (
        b"\x80\x02]q\2" + b"]q\1ah\1" * 20_000 + b"h\2.", "pickle.bomb", "block",
    ),
    "keys with one hash": (
        pickled({n * ((1 << 61) - 1): None for n in range(1, 300)}), "pickle.bomb", "block",
    ),
    "one list made a set for ever": (
        b"\x80\x02](" + b"K\1" * 200_000 + b"eq\0cbuiltins\nset\nq\1" + b"0h\1h\0\x85R" * 60 + b".",
        "pickle.bomb", "block",
    ),
    "members with one hash": (
        pickled(call("builtins.set", [n * ((1 << 61) - 1) for n in range(1, 300)])), "pickle.bomb", "block",
    ),
    "a stack without end": (b"\x80\x02N" + b"2" * (5 << 20) + b".", "pickle.bomb", "block"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_what_else_a_pickle_may_do_is_named(name):
    """Bombs, registries, references and buffers."""
    content, rule, severity = OTHER[name]
    assert (rule, severity) in {(finding.rule, finding.severity) for finding in judge(content).findings}, name


def test_what_follows_the_pickle_is_judged_or_named():
    """Another pickle is judged; anything else is unjudged."""
    assert rules(pickled(1) + pickled(SYSTEM)) == {"pickle.code"}
    assert rules(pickled(1) + b"\0" * 100) == {"pickle.behind"}
    assert "pickle.code" in rules(pickled(1) + b"\0" * 50_000 + pickled(SYSTEM))
    assert rules(pickled(1) + b"\1\2\xff\xfe" * 9) == {"pickle.behind", "opaque.unknown"}
    assert rules(pickled(1) * 3) == set()


def test_each_name_is_said_once():
    """Where it is imported first."""
    found = judge(pickled([SYSTEM] * 50)).findings
    assert len(found) == 1 and found[0].where.startswith("byte ") and "os.system" in found[0].meaning


# --- what must pass -----------------------------------------------------------------------------------------------

PLAIN = [
    {"os.system": 1, "vocab": ["subprocess", "eval", "__import__"], "cos\nsystem\n": b"cos\nsystem\n"},
    collections.OrderedDict(a=1), collections.defaultdict(list, {1: [2]}), collections.Counter("abca"),
    collections.deque([1, 2], 5), datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.date(2026, 1, 2), datetime.time(1, 2),
    datetime.timedelta(1, 2), decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=5), complex(1, 2),
    pathlib.PurePosixPath("a/b"), argparse.Namespace(a=1, b=[2]), types.SimpleNamespace(b=2), range(5), slice(1, 2),
    random.Random(3), bytearray(b"abc"), b"", type(None), ..., {1, 2}, frozenset({1, (2, 3)}), 2**200, -(2**70),
    "x" * 1000, b"y" * 70_000,
    list(range(3000)), {str(n): (n, [n]) for n in range(3000)}, float("inf"), 1e300, "\ud800", "\u20ac\U0001f600",
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value).partition(" at 0x")[0][:40])
def test_plain_data_passes_by_every_protocol(value):
    """From the C pickler, the Python pickler and the optimiser, whatever the file is called."""
    for protocol in range(6):
        for dumps in (pickle.dumps, pickle._dumps, lambda *it: pickletools.optimize(pickle.dumps(*it))):
            content = dumps(value, protocol)
            for name in ("x.pkl", "config.p", "x"):
                found = judge(content, name)
                assert (found.format, found.findings) == ("pickle", ()), (protocol, name)


SOUND = {
    "an array": pickled(array((1,), F8, b"\0" * 8)),
    "an array by numpy 2": pickled(array((2, 2), F8, b"\0" * 32, "_core")),
    "an array of objects": pickled(array((3,), OBJECT, [1, "a", None])),
    "an array from a buffer": pickled(call("numpy._core.numeric._frombuffer", b"\0" * 24, F8, (3,), "C")),
    "a structured array": pickled(
        array((2,), dtype("V12", "|", names=("a",), fields={"a": (F8, 4)}, size=12, flags=16), b"\0" * 24)
    ),
    "a number of numpy's": pickled(call("numpy.core.multiarray.scalar", F8, b"\0" * 8)),
    "a random generator": pickled(call(
        "numpy.random._pickle.__generator_ctor", call("numpy.random._pickle.__bit_generator_ctor", "PCG64"),
        Name("numpy.random._pickle", "__bit_generator_ctor"), state={"state": 2**70},
    )),
    "a tensor": pickled({"w": tensor()}),
    "a state dict": pickled(call("collections.OrderedDict", state={"_metadata": call("collections.OrderedDict")})),
    "a device and a type": pickled(
        [call("torch.device", "cuda", 0), Name("torch", "float32"), call("torch.Size", (1, 2))]
    ),
    "names of Python 2": b"c__builtin__\nset\n((lp0\nI1\natR.",
    "bytes of a Python 2 string": b"\x80\x02U\x03a\xff\xfe.",
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_arrays_and_tensors_pass(name):
    """As numpy and torch write them, by their old paths and their new ones."""
    found = judge(SOUND[name])
    assert (found.format, found.findings) == ("pickle", ()), name


TEXTS = {
    "README.md": b"# Model\n\n```python\nimport pickle\nwith open('x.pkl', 'rb') as f:\n    m = pickle.load(f)\n```\n",
    "LICENSE": b"MIT License\n\nCopyright (c) 2026\n\nPermission is hereby granted\n",
    "COPYING": b"GNU GENERAL PUBLIC LICENSE\nVersion 3\n",
    "notes": b"N.B. this is text.\n",
    "index.json": b'{"os.system": 1, "c": "cos\\nsystem\\n"}',
    "vocab.txt": b"cat\ndog\nIbis\nVole\n(parens)\n.\n",
    "merges.txt": b"(c\nos\nsystem\n",
    "code.py": b"class A:\n    pass\nimport os\n",
    "inst.txt": b"import\nos\nsystem\n",
    "capitals": b"I am\nLittle\nVery\nStrong\n",
    "functions": b"cos\nsin\ntan\n",
    "genome": b"N" * 5000,
    "dots": b"." * 100,
    "copyright": b"Copyright 2026 by whoever wrote this text, all rights reserved.\n" * 20,
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_not_taken_for_a_pickle(name):
    """A README that shows pickle.load is a README."""
    assert judge(TEXTS[name], name).format != "pickle"


def test_facts_tell_what_it_holds():
    """Names, protocol, tensors and the bytes of their storages."""
    found = judge(pickled({"a": tensor("0"), "b": tensor("1", (4,), 4, kind="Half")})).facts
    assert found["globals"] == [
        "collections.OrderedDict", "torch.FloatStorage", "torch.HalfStorage", "torch._utils._rebuild_tensor_v2",
    ]  # fmt: skip
    assert (found["protocol"], found["tensors"], found["parameters"]) == (3, 2, 10)
    assert found["storages"] == {"0": 24, "1": 8}


def test_bytes_that_torch_loads_are_judged_within():
    """torch.storage._load_from_bytes is a file in the file."""
    inner = pickled(SYSTEM)
    content = b"\x80\x04" + stack_global("torch.storage", "_load_from_bytes") + code(inner) + b"\x85R."
    found = judge(content).findings
    assert [finding.rule for finding in found] == ["pickle.code"] and found[0].where.startswith("bytes at ")
    as_text = call("torch.storage._load_from_bytes", call("_codecs.encode", inner.decode("latin-1"), "latin1"))
    assert "pickle.code" in rules(b"\x80\x02" + code(as_text.target) + code(as_text.args[0].target)
                                  + b"X" + struct.pack("<I", len(inner.decode("latin-1").encode()))
                                  + inner.decode("latin-1").encode() + code("latin1") + b"\x86R\x85R.")  # fmt: skip


# --- joblib -------------------------------------------------------------------------------------------------------


def wrapped(kind: Call, shape: tuple[int, ...], raw: bytes, aligned: bool = True) -> bytes:
    """A dump of joblib's, with one array."""
    state = {"subclass": Name("numpy", "ndarray"), "shape": shape, "order": "C", "dtype": kind, "allow_mmap": True}
    state |= {"numpy_array_alignment_bytes": 16} if aligned else {}
    wrapper = call("joblib.numpy_pickle.NumpyArrayWrapper", new=True, state=state)
    return b"\x80\x03}X\x01\0\0\0a" + code(wrapper) + (b"\x03\xff\xff\xff" if aligned else b"") + raw + b"s."


def test_joblib_arrays_lie_between_the_instructions():
    """Raw bytes, aligned or not, and pickles of their own for objects."""
    for content in (wrapped(F8, (20000,), b"\1" * 160_000), wrapped(F8, (2,), b"\1" * 16, aligned=False),
                    wrapped(OBJECT, (1,), pickled(array((1,), OBJECT, ["a"])), aligned=False)):  # fmt: skip
        found = judge(content, "x.joblib")
        assert (found.format, found.findings) == ("joblib", ())
    assert judge(wrapped(F8, (20000,), b"\1" * 160_000)).data == 160_000


def test_joblib_hides_nothing():
    """A payload behind the array, within one of objects, or in bytes that another reader runs."""
    assert "pickle.code" in rules(wrapped(F8, (1,), b"\1" * 8)[:-2] + PAYLOAD + b"s.")
    assert "pickle.code" in rules(wrapped(OBJECT, (1,), pickled(array((1,), OBJECT, [SYSTEM])), aligned=False))
    raw = PAYLOAD.ljust(80, b"N")
    assert "joblib.twofold" in rules(wrapped(F8, (10,), raw, aligned=False))
    assert "joblib.array" in rules(wrapped(F8, (1,), b"").replace(b"\x03\xff\xff\xff", b"\x03cos"))


# --- the same as Python itself ------------------------------------------------------------------------------------


def canon(value, seen=None):
    """A value's description in text: equal where the values are, also where they contain themselves."""
    seen = {} if seen is None else seen
    kind = type(value).__name__
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        whole = len(value) <= 256 and kind in ("str", "bytes")
        return f"{kind}:{len(value)}:{value!a}" if whole else f"{kind}:{len(value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"int:{value:x}" if value.bit_length() <= 2000 else "int"
    if not isinstance(value, (list, dict, tuple, set, frozenset)):
        return f"{kind}:{value!r}"
    if id(value) in seen:
        return f"#{seen[id(value)]}"
    seen[id(value)] = len(seen)
    items = [canon(part, seen) for part in (value if kind != "dict" else [it for pair in value.items() for it in pair])]
    return f"{kind}({','.join(sorted(items) if 'set' in kind else items)})"


def made(value, known=None):
    """The real value that the machine's value stands for; plain data only."""
    known = {} if known is None else known
    if isinstance(value, Ambiguous):
        return value.value.decode("latin-1")
    if isinstance(value, Long):
        return {"str": "x", "bytes": b"x"}[value.kind] * value.length if value.kind != "int" else 1 << 2001
    if not isinstance(value, Node):
        return value
    if id(value) in known:
        return known[id(value)]
    if value.source is not None:
        return known.setdefault(id(value), called(value, known))
    if value.kind in ("bytearray", "buffer"):
        found = bytearray(value.note or 0)
        return known.setdefault(id(value), found if value.kind == "bytearray" else memoryview(found))
    if value.kind in ("tuple", "frozenset"):
        whole = {"tuple": tuple, "frozenset": frozenset}[value.kind](made(part, known) for part in value.items)
        return known.setdefault(id(value), whole)
    return filled({"list": list, "dict": dict, "set": set}[value.kind](), value, known)


def called(node, known):
    """The object that a listed call makes."""
    classes = {"collections": collections, "datetime": datetime, "decimal": decimal, "builtins": __builtins__}
    module = classes[node.source.module]
    target = module[node.source.name] if isinstance(module, dict) else getattr(module, node.source.name)
    found = target(*[made(part, known) for part in node.args])
    return filled(found, node, known) if node.kind == "dict" else found


def filled(whole, node, known):
    """A list, dict or set with what belongs in it."""
    known[id(node)] = whole
    items = [made(part, known) for part in node.items]
    if isinstance(whole, dict):
        whole.update(zip(items[::2], items[1::2], strict=True))
    elif isinstance(whole, set):
        whole.update(items)
    else:
        whole.extend(items)
    return whole


def run(content):
    """What the machine makes of a pickle, and what it says."""
    heard = []
    tape = MemoryTape(content)
    notes = types.SimpleNamespace(add=lambda rule, at="", meaning="": heard.append(rule.id), format="")
    found = machine.Machine(tape, notes, pickles._array)
    return found.run(), heard, found


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**300), 2**300) | st.floats(allow_nan=False)
    | st.text(max_size=40) | st.binary(max_size=40) | st.text("ab", min_size=250, max_size=300)
    | st.datetimes() | st.timedeltas() | st.decimals(allow_nan=False) | st.complex_numbers(allow_nan=False)
)  # fmt: skip
KEYS = st.integers() | st.text(max_size=20) | st.tuples(st.integers(), st.text(max_size=5)) | st.none()


def containers(inner):
    return (
        st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5) | st.tuples(inner, inner)
        | st.sets(KEYS, max_size=5) | st.frozensets(KEYS, max_size=5)
        | st.dictionaries(KEYS, inner, max_size=3).map(collections.OrderedDict)
    )  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.recursive(SCALARS, containers, max_leaves=20), st.integers(0, 5), st.integers(0, 2), st.booleans())
def test_plain_data_is_read_as_python_reads_it(value, protocol, way, shared):
    """Whatever it is, from either pickler and the optimiser, with shared and self-containing values."""
    if shared:
        value = [value, value, {"again": value}]
        value.append(value)
    dumps = (pickle.dumps, pickle._dumps, lambda *it: pickletools.optimize(pickle.dumps(*it)))[way]
    content = dumps(value, protocol)
    found, heard, _ = run(content)
    assert heard == []
    assert canon(made(found)) == canon(pickle.loads(content))


CHILD = """
import pickle, resource, struct, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
class Refusing(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError("refused")
import io
while head := sys.stdin.buffer.read(4):
    content = sys.stdin.buffer.read(struct.unpack("<I", head)[0])
    try:
        answer = canon(Refusing(io.BytesIO(content), encoding="latin1").load())
    except Exception as fault:
        answer = f"!{type(fault).__name__}: {fault}"
    print(ascii(answer), flush=True)
"""


@pytest.fixture(scope="module")
def unpickler():
    """Python's own unpickler, importing nothing, in a process of its own with limited memory."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", inspect.getsource(canon) + CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:

        def load(content):
            child.stdin.write(struct.pack("<I", len(content)) + content)
            child.stdin.flush()
            return child.stdout.readline().decode().strip()[1:-1]

        yield load
        child.stdin.close()


SEEDS = [
    [1, "a", (2.5, None), {"k": [True, b"x"]}, {1, 2}], {"a": {"b": ("c", "d")}, 1: 2**100}, ["x"] * 4 + [(), [], {}],
]  # fmt: skip


@st.composite
def mutated(draw):
    """A sound pickle with a few bytes changed, dropped, doubled or put in."""
    content = bytearray(pickle.dumps(draw(st.sampled_from(SEEDS)), draw(st.integers(0, 5))))
    for _ in range(draw(st.integers(1, 4))):
        at, byte = draw(st.integers(0, len(content) - 1)), draw(st.sampled_from(MOVES) | st.integers(0, 255))
        way = draw(st.integers(0, 3))
        if way == 0:
            content[at] = byte
        elif way == 1:
            content.insert(at, byte)
        elif way == 2 and len(content) > 2:
            del content[at]
        else:
            content[at:at] = content[max(0, at - draw(st.integers(1, 8))) : at]
    return bytes(content)


MOVES = sorted(code for code, operation in enumerate(machine.OPERATIONS) if operation)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=mutated())
@example(content=b"I010\n.")
@example(content=b"S'a\\x4'\n.")
@example(content=b"\x80\x04](N(ee.")
@example(content=b"\x80\x04N(0.")
@example(content=b"F1_0\n.")
@example(content=b"L-0L\n.")
@example(content=b"I+1\n.")
@example(content=b"F.5\n.")
@example(content=b"F5.\n.")
@example(content=b"S'\\q\\'\\101\\x41'\n.")
@example(content=b"V\\u0041\\x41\n.")
def test_what_passes_python_reads_the_same(content, unpickler):
    """Broken pickles: wherever the machine has nothing to say, Python loads the same value."""
    try:
        found, heard, ran = run(content)
    except (Malformed, Truncated, Oversized):
        return
    if heard or ran.imported or ran.storages:
        return
    assert canon(made(found)) == eval_text(unpickler(content))


def eval_text(text):
    """The answer as it was before it was made ASCII."""
    return text.encode("ascii").decode("unicode_escape") if "\\" in text else text


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | mutated() | st.binary(max_size=200).map(lambda rest: b"\x80\x04" + rest))
def test_nothing_makes_the_scanner_fall(content):
    """Any bytes: they are accounted for, in no time."""
    start = time.monotonic()
    judge(content)
    judge(content, "x.bin")
    assert time.monotonic() - start < 5


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from([*map(bytes, ([code] for code in MOVES)), PAYLOAD, short("os"), code(F8), code(tensor())]),
        max_size=60,
    )
)
def test_no_row_of_instructions_makes_the_scanner_fall(parts):
    """Sound instructions in an order of no sense."""
    judge(b"\x80\x04" + b"".join(parts) + b".")


NAMED = st.sampled_from(sorted(KNOWN)).map(lambda pair: Name(*pair)) | st.just(Name("some.library", "Thing"))
ARGUMENTS = st.recursive(
    st.sampled_from([None, True, 0, 1, -1, 2**40, 0.5, "", "f8", "latin1", "cpu", b"", b"b", b"\0" * 8, (0,), (2, 3)])
    | st.builds(dict) | st.builds(list) | NAMED | st.just(F8) | st.just(OBJECT) | st.just(tensor()),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=5).map(tuple)
    | st.dictionaries(st.sampled_from(["a", "dtype", "shape", "__class__"]), inner, max_size=3)
    | st.builds(
        lambda name, args, state, new: Call(name, *args, state=state, new=new), NAMED, st.lists(inner, max_size=7),
        st.none() | inner, st.booleans(),
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(ARGUMENTS, min_size=1, max_size=4))
def test_no_use_of_a_listed_name_makes_the_scanner_fall(values):
    """Every listed name, called and given states in ways of no sense."""
    judge(pickled(values))


def test_large_plain_data_takes_little_memory():
    """More values than are kept: the rest is counted, and still judged."""
    content = pickle.dumps([(number, str(number)) for number in range(machine.ROOM // 3)] + [[1]], 3)
    assert rules(content) == set()
    assert rules(content[:-2] + PAYLOAD + b"0e.") == {"pickle.code"}


# --- what Python reads although it is not written as Python writes it ---------------------------------------------

TAIL = b"0cos\nsystem\n(S'echo inert'\ntR."
LAX = [
    b"I1\np5000000\n", b"I 1 \n", b"I1_000\n", b"I0x10\n", b"L0x10L\n", b"Finfinity\n", b"I1\r\n", b"I1\np 1\n",
    b"I1\np1_0\n", b"F1_0.5\n", b"I010\n", b"I1\0x\n", b"]N0](lb0N", b"]K\0K\0s",
]  # fmt: skip


@pytest.mark.parametrize("head", LAX)
def test_what_python_reads_is_a_pickle_however_it_is_written(head):
    """Lax numbers, far places in the memo: said, and what follows is found."""
    assert rules(head + TAIL, "x.txt") >= {"pickle.code"}


@pytest.mark.parametrize(
    "content",
    [b"cantigravity\nx\n", b"cantigravity\nx", b"cidlelib.run\nmain\n0this fails\n", b"cfoo.bar\nBaz\n0hello there\n",
     b"K\xc3\x95AAAAAAAAcos\nsystem\n(S'x'\ntR."],
)  # fmt: skip
def test_an_import_that_is_made_before_it_fails_counts(content):
    """Modules that act as they are imported, and names ahead of a broken frame."""
    found = judge(content, "x.txt")
    assert found.format == "pickle" and "block" in {finding.severity for finding in found.findings}


@pytest.mark.parametrize(
    "content",
    [b"config.json\nREADME\nNOTICE\n", b"ctypes.util\ncurses\ndbm\n", b"Models\ncos\nsin\n",
     b"cls.__enter__\nnext\nN\n",
     b"I1\nI2\nI3\n", b"(if available). So:\n\n\n(or rather)\n"],
)  # fmt: skip
def test_lists_of_words_are_not_taken_for_pickles(content):
    """Files, modules, functions, one a line."""
    assert judge(content, "x.txt").format != "pickle"


def test_what_python_ships_and_runs_nothing_holds():
    """Not on the list of plain data, but no code either; and a name is shown without its control characters."""
    for path in ("re._compile", "collections.ChainMap", "zoneinfo.ZoneInfo._unpickle", "ipaddress.IPv4Address"):
        module, name = path.split(".", 1)
        assert {found.severity for found in judge(pickled(Name(module, name))).findings} == {"hold"}, path
    assert "os\\r.system" in judge(b"\x80\x02cos\r\nsystem\n.").findings[0].meaning


MANY = {
    "pickles": (b"\x80\x02N." * 20_000, "pickle.many"), "lists": (b"\x80\x02" + b"]" * 500_000 + b".", "pickle.bomb"),
    "names": (b"\x80\x02" + b"".join(b"clib\nx%d\n0" % n for n in range(11_000)) + b"N.", "pickle.bomb"),
    "names before an attack": (
        b"\x80\x02" + b"".join(b"clib\nx%d\n0" % n for n in range(3000)) + b"cos\nsystem\n.", "pickle.code",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_there_is_an_end_to_everything(name):
    """Pickles, nodes on the stack, names; and near them, none of it is said."""
    content, rule = MANY[name]
    assert rule in rules(content), name
    assert rules(b"\x80\x02N." * 9000) == set() and rules(b"\x80\x02(" + b"K\1" * 500_000 + b"t.") == set()
