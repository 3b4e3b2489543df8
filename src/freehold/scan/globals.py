"""What a pickle may import, and what it may do with it: a list of what is plain data, never one of what is bad.

A name that is not listed blocks the file where it is Python's own or known to run code, and holds it otherwise. A name
that is listed may be called only with what the pickles of sound files give it.
"""

from __future__ import annotations

import re
import sys

from freehold.scan.base import ASK, BLOCK, HOLD, Rule
from freehold.scan.known import Known, words
from freehold.scan.knownnumpy import NUMPY
from freehold.scan.knownpython import PYTHON
from freehold.scan.knowntorch import TORCH, torch_type
from freehold.scan.values import Global

CODE = Rule(
    "pickle.code", BLOCK, "Loading it imports a name that can run code.", "Do not load it. " + ASK,
    "Python's manual, pickle: arbitrary code during unpickling; CWE-502",
)  # fmt: skip
UNKNOWN = Rule(
    "pickle.unknown", HOLD, "Loading it imports a name that is not on the list of plain data.", ASK,
    "Freehold: what a pickle may import is an allow-list",
)  # fmt: skip


def look(module: str, name: str, protocol: int) -> tuple[Global, Rule | None, str]:
    """What the pickle imports; with the rule that this breaks, if any, and what to say of it."""
    if protocol < 3:  # what pickle calls fix_imports
        module, name = _NAMES_2.get((module, name)) or (_MODULES_2.get(module, module), name)
    known = KNOWN.get((module, name)) or torch_type(module, name)
    found = Global(module, name, known)
    if known:
        return found, None, ""
    path = f"{shown(module[:100])}.{shown(name[:100])}"
    if (module, name) not in _HARMLESS and module not in _HARMLESS_MODULES and _runs_code(module, name):
        return found, CODE, f"Loading it imports {path}, which can run code or reach outside."
    return found, UNKNOWN, f"Loading it imports {path}, code of a library that is not on the list of plain data."


def shown(text: str) -> str:
    """A name as it may be shown: what is no plain character is escaped."""
    return repr(text)[1:-1]


def is_infamous(module: str, name: str) -> bool:
    """Is it one of the names that attacks use, or a module that does something as it is imported? Enough to take a
    few bytes without a magic number for a pickle."""
    root, dot, _ = module.partition(".")
    if not all(part.isidentifier() for part in module.split(".")):
        return False
    return (
        (root in _STDLIB and name.rpartition(".")[2] in _WORDS)
        or root in _ACTING
        or (dot != "" and (root in _PACKAGES or root in _RUNNERS or module.endswith(".__main__")))
    )


def is_plausible(module: str, name: str) -> bool:
    """Could an import of this be meant, where sound instructions stand around it?"""
    parts = module.split(".")
    if not all(part.isidentifier() for part in (*parts, *name.split("."))):
        return False
    known = parts[0] in _STDLIB or parts[0] in _RUNNERS or parts[0] in _ROOTS
    return known or (len(parts) > 1 and parts[-1].lower() not in _ENDINGS)


def names_ahead(content: bytes) -> bool:
    """Is an infamous name imported anywhere in these bytes, as the text of a GLOBAL or INST?"""
    return any(
        found[1].partition(b".")[0].decode() in _STDLIB and found[2].rpartition(b".")[2].decode() in _WORDS
        for found in _IMPORT.finditer(content)
    )


def acts_at_once(head: bytes) -> bool:
    """Is the first instruction an import that does something by itself, even if all else fails?"""
    found = _IMPORT.match(head)
    return found is not None and found[0][:1] == b"c" and is_infamous(found[1].decode(), found[2].decode())


def _runs_code(module: str, name: str) -> bool:
    parts = name.split(".")
    root = module.partition(".")[0]
    return (
        root in _STDLIB
        or root in _RUNNERS
        or any(module == runner or module.startswith(runner + ".") for runner in _RUNNING_MODULES)
        or f"{module}.{name}" in _RUNNING_NAMES
        or any(part in _WORDS or part in _INFAMOUS or (part.startswith("__") and part.endswith("__")) for part in parts)
        or not all(part.isidentifier() for part in (*module.split("."), *parts))
    )


# Python's own modules: all of them, of every version, by today's names and yesterday's
_STDLIB = frozenset(sys.stdlib_module_names) | words(
    """__builtin__ copy_reg cPickle cStringIO StringIO Queue SocketServer ConfigParser HTMLParser UserDict UserList
    UserString commands exceptions dummy_thread dummy_threading thread new sets popen2 urllib2 urlparse httplib
    cookielib Cookie BaseHTTPServer SimpleHTTPServer CGIHTTPServer xmlrpclib SimpleXMLRPCServer DocXMLRPCServer
    anydbm dbhash dumbdbm gdbm whichdb bsddb robotparser repr htmlentitydefs os2 ce macpath imp distutils asyncore
    asynchat smtpd binhex formatter parser symbol macurl2path compiler ihooks imputil user mhlib mimetools
    MimeWriter rfc822 multifile statvfs rexec Bastion tkMessageBox Tkinter test lib2to3 turtledemo cgi cgitb chunk
    crypt imghdr mailcap msilib nis nntplib ossaudiodev pipes sndhdr spwd sunau telnetlib uu xdrlib aifc audioop
    _winreg winreg _winapi msvcrt nt posix compression annotationlib"""
)

# Python's modules that do something as they are imported, and its packages: only of those is a module within a module
_NAME = rb"([A-Za-z_][A-Za-z0-9_.]{0,200})(?:\r?\n|\Z)"
_IMPORT = re.compile(rb"[ci](?=" + _NAME + _NAME + rb")")
_ACTING = words("antigravity this __hello__ __phello__")
_PACKAGES = words(
    """idlelib test lib2to3 turtledemo encodings asyncio json unittest tkinter distutils ensurepip venv xml email
    concurrent multiprocessing importlib logging http urllib html wsgiref curses ctypes dbm sqlite3 pydoc_data xmlrpc
    zoneinfo tomllib sysconfig pathlib zipfile compression _pyrepl __phello__ msilib bsddb compiler"""
)
_ENDINGS = words(
    """json txt md rst py pyi csv tsv bin pt pth ckpt safetensors gguf onnx yaml yml toml cfg ini xml html htm js ts css
    h c cc cpp hpp png jpg jpeg gif svg pdf zip gz tar model vocab msgpack npy npz pkl pickle sh log lock com org net
    io co cn de uk fr edu gov"""
)

# Python's own that are plain data, or harmless, and yet not on the list: they hold the file as a library's would
_HARMLESS_MODULES = words("ipaddress zoneinfo")
_HARMLESS = {
    *(("collections", name) for name in ("ChainMap", "UserDict", "UserList", "UserString")),
    ("re", "_compile"), ("string", "Template"), ("types", "MappingProxyType"), ("types", "GenericAlias"),
    ("enum", "Enum"), ("enum", "IntEnum"), ("enum", "Flag"), ("enum", "IntFlag"), ("enum", "StrEnum"),
    ("array", "_array_reconstructor"), ("array", "array"), ("itertools", "count"), ("calendar", "Month"),
    ("calendar", "Day"), ("uuid", "SafeUUID"), ("http", "HTTPStatus"), ("struct", "Struct"), ("time", "struct_time"),
    ("torch._dynamo.decorators", "_DimRange"), ("datetime", "tzinfo"),
    ("numbers", "Number"), ("numbers", "Real"), ("numbers", "Integral"),
}  # fmt: skip

# Libraries that exist to run things, or to fetch them
_RUNNERS = words(
    """pip setuptools pkg_resources wheel easy_install nose pytest _pytest IPython ipykernel jupyter_client cloudpickle
    dill cffi pycparser pexpect ptyprocess plumbum sh fabric paramiko invoke requests httpx aiohttp urllib3 httplib2
    pycurl boto3 botocore psutil execnet rpyc win32com win32api win32process pyximport numexpr"""
)
_RUNNING_MODULES = (
    "torch.hub", "torch.jit", "torch.package", "torch.utils.cpp_extension", "torch.utils.model_zoo", "torch._inductor",
    "torch._dynamo", "torch.distributed.run", "torch.distributed.launcher", "torch.distributed.elastic",
    "torch.distributed.rpc", "torch.multiprocessing", "torch.testing", "torch.fx", "torch._C._distributed_rpc",
    "torch.utils.collect_env", "torch.utils.bottleneck", "torch.onnx", "torch.ops", "torch._ops", "torch.classes",
    "numpy.testing", "numpy.f2py", "numpy.distutils", "numpy.ctypeslib", "numpy.lib._datasource",
    "pandas.io", "pandas.core.computation", "joblib.memory", "joblib.externals", "joblib.parallel",
    "tensorflow.python.ops.script_ops", "keras.src.utils.file_utils", "keras.utils.file_utils",
    "transformers.utils.hub", "transformers.dynamic_module_utils",
)  # fmt: skip
_RUNNING_NAMES = words(
    """torch.load torch.compile torch.serialization.load numpy.load numpy.loadtxt numpy.genfromtxt numpy.fromfile
    numpy.memmap numpy.save numpy.savetxt numpy.savez numpy.lib.npyio.load numpy.lib._npyio_impl.load
    numpy.core.memmap.memmap numpy._core.memmap.memmap numpy.vectorize numpy.frompyfunc numpy.apply_along_axis
    numpy.piecewise numpy.fromfunction numpy.lib.function_base.vectorize numpy.fromregex numpy.safe_eval
    numpy.lib.utils.safe_eval numpy.core.multiarray.fromfile numpy._core.multiarray.fromfile numpy.test joblib.load
    joblib.numpy_pickle.load sympy.sympify sympy.core.sympify.sympify pandas.read_pickle pandas.eval pandas.read_csv
    pandas.DataFrame.eval sklearn.utils._mocking.CheckingClassifier keras.models.load_model keras.saving.load_model
    tensorflow.io.read_file tensorflow.io.write_file tensorflow.py_function tensorflow.numpy_function
    tensorflow.keras.models.load_model tensorflow.load_op_library"""
)

# Words that mean trouble as the last step to a value, whoever's module they are reached through
_WORDS = words(
    """system popen popen2 popen3 popen4 exec eval execfile execv execve execl execlp execvp spawn spawnl spawnv
    spawnlp spawnvp posix_spawn fork forkpty call check_call check_output getoutput getstatusoutput Popen run_module
    run_path runcode runsource runstring runctx runeval getattr setattr delattr import_module load_module
    exec_module find_class resolve_name attrgetter methodcaller itemgetter globals locals vars breakpoint input
    raw_input FunctionType CodeType LambdaType load_source load_dynamic CDLL WinDLL PyDLL urlopen urlretrieve rmtree
    startfile create_connection gethostbyname loads literal_eval apply compile_command"""
)
_INFAMOUS = words(
    """os sys posix nt subprocess builtins __builtin__ importlib imp shutil socket ctypes pty runpy pickle _pickle
    cPickle marshal commands popen2 webbrowser pdb timeit cProfile profile trace codeop asyncio multiprocessing
    pkgutil functools operator urllib urllib2 tempfile ftplib smtplib telnetlib _thread threading zipimport
    linecache pydoc distutils ensurepip venv idlelib lib2to3 bdb doctest"""
)

# Python 2's names for what is listed; the rest of its modules are Python's own by their old names above
_MODULES_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_NAMES_2 = {
    ("__builtin__", "xrange"): ("builtins", "range"), ("__builtin__", "unicode"): ("builtins", "str"),
    ("__builtin__", "long"): ("builtins", "int"), ("__builtin__", "basestring"): ("builtins", "str"),
}  # fmt: skip


KNOWN: dict[tuple[str, str], Known] = {
    (module, name): known
    for table in (PYTHON, NUMPY, TORCH)
    for module, names in table.items()
    for name, known in names.items()
}
_ROOTS = frozenset(module.partition(".")[0] for module, _ in KNOWN)
WORDS = frozenset(word for pair in KNOWN for word in pair)  # kept whatever else is let go
