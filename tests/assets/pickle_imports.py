"""What a pickle may import and call: one file for each door that leads out of plain data."""

from __future__ import annotations

from collections.abc import Iterator

from assets.opcodes import (
    BUILD,
    EMPTY_TUPLE,
    NEWOBJ,
    NEWOBJ_EX,
    NONE,
    POP,
    REDUCE,
    STACK_GLOBAL,
    blob,
    call,
    named,
    pickled,
    short,
    stacked,
    value,
)
from assets.shelf import ECHO, WORD, Draft, block, family, hold

PRINT = f"print('{WORD}')"
NOWHERE = f"{WORD}.invalid"  # a name that no resolver answers (RFC 6761)

# slug: (module, name, arguments, what calling it does)
COMMANDS = {
    "posix-system": ("posix", "system", (ECHO,), "runs a command under the name of the C module behind os"),
    "nt-system": ("nt", "system", (ECHO,), "runs a command on Windows"),
    "os-popen": ("os", "popen", (ECHO,), "runs a command"),
    "os-execv": ("os", "execv", ("/bin/echo", ["echo", WORD]), "replaces the process"),
    "os-spawnlp": ("os", "spawnlp", (0, "echo", "echo", WORD), "runs a command"),
    "os-posix-spawn": ("os", "posix_spawn", ("/bin/echo", ["echo", WORD], {}), "runs a command"),
    "subprocess-popen": ("subprocess", "Popen", (["echo", WORD],), "runs a command"),
    "subprocess-check-output": ("subprocess", "check_output", (["echo", WORD],), "runs a command"),
    "subprocess-getoutput": ("subprocess", "getoutput", (ECHO,), "runs a command in a shell"),
    "pty-spawn": ("pty", "spawn", (["echo", WORD],), "runs a command on a terminal"),
    "fork-exec": ("_posixsubprocess", "fork_exec", ([b"C\x04echo"],), "runs a command from C"),
    "py2-commands": ("commands", "getoutput", (ECHO,), "is the Python 2 name that maps to subprocess.getoutput"),
    "py2-builtin-eval": ("__builtin__", "eval", (PRINT,), "is the Python 2 name of builtins.eval"),
    "py2-execfile": ("__builtin__", "execfile", (f"{WORD}.py",), "is the Python 2 call that runs a file"),
    "builtins-eval": ("builtins", "eval", (PRINT,), "evaluates an expression"),
    "builtins-exec": ("builtins", "exec", (PRINT,), "runs a program"),
    "builtins-compile": ("builtins", "compile", (PRINT, "x", "exec"), "compiles a program"),
    "builtins-import": ("builtins", "__import__", ("antigravity",), "imports a module, which runs it"),
    "builtins-getattr": ("builtins", "getattr", (named("os", "path"), "os"), "reaches any attribute of any object"),
    "builtins-open": ("builtins", "open", (f"{WORD}.txt", "w"), "truncates a file"),
    "builtins-breakpoint": ("builtins", "breakpoint", (), "calls whatever PYTHONBREAKPOINT names"),
    "builtins-globals": ("builtins", "globals", (), "hands out the loader's own names"),
    "builtins-type": ("builtins", "type", ("X", (), {}), "makes a class with methods of the file's choosing"),
    "runpy-run-path": ("runpy", "run_path", (f"{WORD}.py",), "runs a file"),
    "runpy-run-code": ("runpy", "_run_code", (PRINT, {}), "runs a program"),
    "code-runsource": ("code", "interact", (), "opens an interpreter"),
    "timeit": ("timeit", "timeit", (PRINT,), "runs a program to time it"),
    "cprofile-run": ("cProfile", "run", (PRINT,), "runs a program to profile it"),
    "profile-run": ("profile", "run", (PRINT,), "runs a program to profile it"),
    "pdb-run": ("pdb", "run", (PRINT,), "runs a program in the debugger"),
    "bdb-run": ("bdb", "Bdb.run", (PRINT,), "runs a program in the debugger's base class"),
    "doctest-debug": ("doctest", "debug_script", (PRINT,), "runs a program in the debugger"),
    "trace-run": ("trace", "Trace.run", (PRINT,), "runs a program to trace it"),
    "pydoc-pipepager": ("pydoc", "pipepager", (WORD, ECHO), "pipes a text into a command"),
    "pydoc-locate": ("pydoc", "locate", ("antigravity",), "imports what it looks for"),
    "webbrowser-open": ("webbrowser", "open", (f"http://{NOWHERE}",), "starts a browser"),
    "ctypes-cdll": ("ctypes", "CDLL", (f"{WORD}.so",), "loads a shared library"),
    "importlib": ("importlib", "import_module", ("antigravity",), "imports a module, which runs it"),
    "imp-load-source": ("imp", "load_source", ("x", f"{WORD}.py"), "runs a file"),
    "machinery-loader": ("importlib.machinery", "SourceFileLoader", ("x", f"{WORD}.py"), "is a loader for any file"),
    "pkgutil-resolve": ("pkgutil", "resolve_name", ("os:system",), "finds any name from a string"),
    "pip-main": ("pip", "main", (["--version"],), "runs the package installer, which runs packages"),
    "pip-internal": ("pip._internal.cli.main", "main", (["--version"],), "runs the package installer"),
    "ensurepip": ("ensurepip", "_run_pip", (["--version"],), "runs the package installer"),
    "setuptools-spawn": ("distutils.spawn", "spawn", (["echo", WORD],), "runs a command for a build"),
    "asyncio-transport": (
        "asyncio.unix_events",
        "_UnixSubprocessTransport._start",
        (NONE, ["echo", WORD]),
        "starts a process",
    ),
    "asyncio-shell": ("asyncio", "create_subprocess_shell", (ECHO,), "makes a coroutine that runs a command"),
    "spawnv-passfds": ("multiprocessing.util", "spawnv_passfds", (b"C\x09/bin/echo", [], ()), "runs a command"),
    "lib2to3-loads": ("lib2to3.pgen2.grammar", "Grammar.loads", (), "unpickles bytes"),
    "site-addsitedir": ("site", "addsitedir", (f"/tmp/{WORD}",), "runs the .pth files of a folder"),
    "platform-output": ("platform", "_syscmd_file", (WORD,), "runs the file command on an argument"),
    "uuid-command": ("uuid", "_get_command_stdout", ("echo", WORD), "runs a command to find a network address"),
    "thread": ("_thread", "start_new_thread", (named("os", "system"), (ECHO,)), "calls a function in a thread"),
    "atexit": ("atexit", "register", (named("os", "system"), ECHO), "calls a function when the process ends"),
    "signal": ("signal", "signal", (10, named("os", "abort")), "calls a function at a later signal"),
    "sys-exit": ("sys", "exit", (0,), "ends the process that loads it"),
    "os-exit": ("os", "_exit", (0,), "ends the process without a word"),
    "setrecursionlimit": ("sys", "setrecursionlimit", (2147483647,), "lifts the guard against stack overflow"),
    "settrace": ("sys", "settrace", (named("builtins", "print"),), "watches every line that runs from then on"),
    "numpy-runstring": ("numpy.testing._private.utils", "runstring", (PRINT, {}), "runs a program"),
    "numpy-f2py": ("numpy.f2py.crackfortran", "myeval", (PRINT,), "evaluates an expression"),
    "torch-hub": ("torch.hub", "load", (f"{WORD}/{WORD}", "x"), "downloads a repository and runs it"),
    "torch-cpp": ("torch.utils.cpp_extension", "load_inline", ("x", ""), "compiles and loads C++"),
    "torch-load": ("torch", "load", (f"{WORD}.pt",), "unpickles another file"),
    "torch-exec-dotted": ("torch", "serialization.os.system", (ECHO,), "reaches os through an allowed module"),
    "pandas-eval": ("pandas", "eval", (PRINT,), "evaluates an expression"),
    "pandas-read-pickle": ("pandas", "read_pickle", (f"{WORD}.pkl",), "unpickles another file"),
    "joblib-load": ("joblib", "load", (f"{WORD}.joblib",), "unpickles another file"),
    "dill-loads": ("dill", "loads", (blob(b"N."),), "unpickles bytes, code objects too"),
    "cloudpickle": ("cloudpickle.cloudpickle", "_builtin_type", ("CodeType",), "rebuilds code"),
    "shelve-open": ("shelve", "open", (WORD,), "makes a file and unpickles from it"),
}

# Calls that look like no more than bookkeeping: each writes a file or asks the network.
QUIET = {
    "file-handler": ("logging", "FileHandler", (f"{WORD}.txt",), "makes a file"),
    "dict-config": ("logging.config", "dictConfig", ({"version": 1},), "calls any factory that a dictionary names"),
    "fileio": ("_io", "FileIO", (f"{WORD}.txt", "w"), "truncates a file"),
    "io-open": ("io", "open", (f"{WORD}.txt", "w"), "truncates a file"),
    "path-write": ("pathlib", "Path.write_text", (call(named("pathlib", "PosixPath"), "x"), WORD), "writes a file"),
    "dumbdbm": ("dbm.dumb", "open", (WORD, "n"), "makes three files"),
    "sqlite": ("sqlite3", "connect", (f"{WORD}.db",), "makes a database"),
    "zipfile": ("zipfile", "ZipFile", (f"{WORD}.zip", "w"), "makes an archive"),
    "tempfile": ("tempfile", "mkstemp", (), "makes a file"),
    "distutils-write": ("distutils.file_util", "write_file", (f"{WORD}.py", [PRINT]), "writes lines to a file"),
    "py-compile": ("py_compile", "compile", (f"{WORD}.py",), "writes bytecode"),
    "shutil-move": ("shutil", "move", (WORD, f"{WORD}.old"), "moves a file"),
    "os-remove": ("os", "remove", (f"{WORD}.txt",), "deletes a file"),
    "linecache": ("linecache", "getlines", ("/etc/hostname",), "reads a file"),
    "fileinput": ("fileinput", "input", (f"{WORD}.txt",), "reads, or with inplace rewrites, files"),
    "numpy-save": ("numpy", "save", (f"{WORD}.npy", 0), "writes a file"),
    "numpy-memmap": ("numpy", "memmap", (WORD, "u1", "w+"), "makes a file of any size"),
    "gethostbyname": ("socket", "gethostbyname", (NOWHERE,), "looks a name up, which can carry data out"),
    "getaddrinfo": ("socket", "getaddrinfo", (NOWHERE, 80), "looks a name up, which can carry data out"),
    "server-certificate": ("ssl", "get_server_certificate", ((NOWHERE, 443),), "connects to a host"),
    "http": ("http.client", "HTTPSConnection", (NOWHERE,), "is the way to a web server"),
    "urlopen": ("urllib.request", "urlopen", (f"http://{NOWHERE}",), "fetches a page"),
    "py2-urlopen": ("urllib2", "urlopen", (f"http://{NOWHERE}",), "fetches a page by its Python 2 name"),
    "smtp": ("smtplib", "SMTP", (NOWHERE,), "connects to a mail server"),
    "ftp": ("ftplib", "FTP", (NOWHERE,), "connects to a file server"),
    "xmlrpc": ("xmlrpc.client", "ServerProxy", (f"http://{NOWHERE}",), "calls methods of a host"),
    "getnode": ("uuid", "getnode", (), "runs ifconfig and its kin to learn the network address"),
    "environ": ("os", "getenv", ("HOME",), "reads the environment"),
}


@family("pickle")
def callables() -> Iterator[Draft]:
    """Half by GLOBAL in protocol 2, half by STACK_GLOBAL in protocol 4: a list of names must know both."""
    for position, (slug, (module, name, arguments, does)) in enumerate((COMMANDS | QUIET).items()):
        style, number = ((stacked, 4), (named, 2))[position % 2 and "." not in name]
        program = pickled(call(style(module, name), *arguments), number=number)
        yield block(slug, f"{slug}.pkl", program, f"A pickle that calls {module}.{name}: it {does} as it loads.")


SYSTEM = named("os", "system")


def through(slug: str, says: str, *parts: bytes, number: int = 2) -> Draft:
    return block(f"through-{slug}", "model.pkl", pickled(*parts, number=number), says)


@family("pickle")
def call_through() -> Iterator[Draft]:
    """A harmless-looking callable that calls another one."""
    yield through(
        "partial", "functools.partial of os.system, called.", call(call(named("functools", "partial"), SYSTEM, ECHO))
    )
    yield through(
        "partial-build",
        "functools.partial of print turned into os.system by BUILD.",
        call(named("functools", "partial"), named("builtins", "print")),
        value((SYSTEM, (ECHO,), {}, NONE)),
        BUILD,
    )
    yield through(
        "reduce",
        "functools.reduce calls os.system for a pair.",
        call(named("functools", "reduce"), SYSTEM, [ECHO, ECHO]),
    )
    yield through(
        "attrgetter",
        "operator.attrgetter takes system out of the module os.",
        call(call(named("operator", "attrgetter"), "system"), call(named("builtins", "__import__"), "os")),
    )
    yield through(
        "attrgetter-torch",
        "operator.attrgetter walks from torch to os.system, and no name says os.",
        call(call(call(named("operator", "attrgetter"), "serialization.os.system"), named("torch", "_utils")), ECHO),
    )
    yield through(
        "methodcaller",
        "operator.methodcaller calls system on a module.",
        call(call(named("operator", "methodcaller"), "system", ECHO), named("torch.serialization", "os")),
    )
    yield through(
        "map-list",
        "list(map(eval, ...)): list, which is harmless, drives map.",
        call(named("builtins", "list"), call(named("builtins", "map"), named("builtins", "eval"), [PRINT])),
    )
    yield through(
        "map-deque",
        "deque(map(exec, ...)): the allowed deque drives map.",
        call(named("collections", "deque"), call(named("builtins", "map"), named("builtins", "exec"), [PRINT])),
    )
    yield through(
        "starmap",
        "dict over itertools.starmap of os.system.",
        call(named("builtins", "tuple"), call(named("itertools", "starmap"), SYSTEM, [(ECHO,)])),
    )
    yield through(
        "filter-set",
        "set(filter(os.system, ...)).",
        call(named("builtins", "set"), call(named("builtins", "filter"), SYSTEM, [ECHO])),
    )
    yield through(
        "defaultdict",
        "A defaultdict whose factory is os.abort: the first missing key ends the process.",
        call(named("collections", "defaultdict"), named("os", "abort")),
    )
    yield through(
        "defaultdict-lookup",
        "A defaultdict of a partial of os.system, looked into while loading.",
        call(
            named("operator", "getitem"),
            call(named("collections", "defaultdict"), call(named("functools", "partial"), SYSTEM, ECHO)),
            0,
        ),
    )
    yield through(
        "marshal",
        "FunctionType over a code object from marshal.loads: code without a name.",
        call(call(named("types", "FunctionType"), call(named("marshal", "loads"), blob(b"N")), {})),
    )
    yield through(
        "codetype",
        "A code object built field by field, and a function over it.",
        call(named("types", "FunctionType"), call(named("types", "CodeType"), 0, 0, 0, 0, 0, 0, blob(b"d\0S\0")), {}),
    )
    yield through(
        "nested",
        "pickle.loads of a pickle that is kept as bytes.",
        call(named("pickle", "loads"), blob(b"cos\nsystem\n(S'echo freehold'\ntR.")),
    )
    yield through(
        "nested-c",
        "_pickle.Unpickler made and asked to load.",
        call(named("_pickle", "Unpickler.load"), call(named("_pickle", "Unpickler"), NONE)),
        number=4,
    )
    yield through(
        "codecs",
        "The program is hidden by codecs.decode, and eval runs it.",
        call(named("builtins", "eval"), call(named("_codecs", "decode"), blob(b"cevag('serrubyq')"), "rot13")),
    )
    yield through(
        "str-format",
        "str.format walks the attributes of an object.",
        call(named("builtins", "str.format"), "{0.__class__.__mro__}", 1),
        number=4,
    )
    yield through(
        "torch-rebuild-type",
        "torch._tensor._rebuild_from_type_v2 calls the function it is given.",
        call(named("torch._tensor", "_rebuild_from_type_v2"), SYSTEM, NONE, (ECHO,), NONE),
    )
    yield through(
        "copyreg-extension",
        "copyreg.add_extension gives os.system a number, and EXT1 fetches it by that.",
        call(named("copyreg", "add_extension"), "os", "system", 240),
        POP,
        b"\x82\xf0",
        value((ECHO,)),
        REDUCE,
    )
    yield through(
        "reconstructor",
        "copyreg._reconstructor makes an object of a class that starts processes.",
        call(named("copy_reg", "_reconstructor"), named("subprocess", "Popen"), named("__builtin__", "object"), NONE),
    )
    yield through(
        "newobj", "NEWOBJ with a loader class.", named("importlib.machinery", "SourceFileLoader"), EMPTY_TUPLE, NEWOBJ
    )
    yield through(
        "newobj-ex",
        "NEWOBJ_EX calls with keywords.",
        stacked("subprocess", "Popen"),
        EMPTY_TUPLE,
        value({"args": ["echo", WORD]}),
        NEWOBJ_EX,
        number=4,
    )
    yield through(
        "setstate",
        "BUILD plants os.system as __setstate__, and the second BUILD calls it.",
        call(named("types", "SimpleNamespace")),
        value({"__setstate__": SYSTEM}),
        BUILD,
        value(ECHO),
        BUILD,
    )
    yield through(
        "built-names",
        "The name is put together by operator.add, so that no string says it.",
        call(named("operator", "add"), "o", "s"),
        short("system"),
        STACK_GLOBAL,
        value((ECHO,)),
        REDUCE,
    )
    yield through(
        "numpy-builtins",
        "BUILD pours numpy.__builtins__ into numpy.linalg, and numpy.linalg.eval is called: every name is numpy's.",
        named("numpy", "linalg"),
        named("numpy", "__builtins__"),
        BUILD,
        POP,
        call(named("numpy.linalg", "eval"), PRINT),
    )
    yield through(
        "numpy-builtins-4",
        "The same with STACK_GLOBAL, through numpy.core.",
        stacked("numpy", "core"),
        stacked("numpy", "__builtins__"),
        BUILD,
        POP,
        call(stacked("numpy.core", "exec"), PRINT),
        number=4,
    )
    yield through(
        "torch-builtins",
        "torch.__builtins__ is poured into torch._utils, then torch._utils.eval is called.",
        named("torch", "_utils"),
        named("torch", "__builtins__"),
        BUILD,
        POP,
        call(named("torch._utils", "eval"), PRINT),
    )
    yield through(
        "collections-sys",
        "collections._sys.modules is written to: an allowed module leads to every other.",
        stacked("collections", "_sys.modules"),
        value("os"),
        NONE,
        b"s",
        number=4,
    )
    yield through(
        "function-defaults",
        "BUILD with a slots state sets __defaults__ of a function that torch uses.",
        named("torch._utils", "_rebuild_tensor_v2"),
        value((NONE, {"__defaults__": (1,)})),
        BUILD,
    )
    yield through(
        "import-only",
        "A pickle that imports antigravity and calls nothing: the import itself opens a browser.",
        named("antigravity", "geohash"),
    )


@family("pickle")
def unknown() -> Iterator[Draft]:
    """Classes that are nobody's data format: somebody has to decide."""
    says = "A pickle of a class from {}: what loading it does depends on code that is not here."
    strangers = {
        "main": ("__main__", "Net"),
        "package": ("acme_models.layers", "Encoder"),
        "sklearn": ("sklearn.linear_model._base", "LinearRegression"),
        "xgboost": ("xgboost.core", "Booster"),
        "lookalike-numpy": ("numpy_core.multiarray", "_reconstruct"),
        "lookalike-torch": ("torchx._utils", "_rebuild_tensor_v2"),
        "unicode-module": ("tоrch._utils", "_rebuild_tensor_v2"),
    }
    for slug, (module, name) in strangers.items():
        program = pickled(stacked(module, name), EMPTY_TUPLE, NEWOBJ, value({"x": 1}), BUILD, number=4)
        yield hold(f"unknown-{slug}", "model.pkl", program, says.format(module))
    yield hold(
        "unknown-extension",
        "model.pkl",
        pickled(b"\x84\x00\x10\x00\x00"),
        "EXT4: a number in a registry that the file does not carry.",
    )
    yield hold(
        "unknown-persistent",
        "model.pkl",
        pickled(value(("storage", 1)), b"Q"),
        "A persistent id outside of a checkpoint: whoever loads it decides what it means.",
    )
    yield hold(
        "unknown-buffer",
        "model.pkl",
        pickled(b"\x97", b"\x98", number=5),
        "NEXT_BUFFER: the data is in a buffer that did not come along.",
    )
    yield hold(
        "nn-module",
        "model.pt",
        pickled(
            named("torch.nn.modules.linear", "Linear"),
            EMPTY_TUPLE,
            NEWOBJ,
            value({"training": True, "in_features": 2}),
            BUILD,
        ),
        "A whole module in place of its weights: an object with methods and hooks, not data.",
    )
