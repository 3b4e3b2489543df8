"""Pickles of plain data, as Python and numpy write them: every one must be admitted."""

from __future__ import annotations

import collections
import datetime
import decimal
import pickle
import pickletools
from collections.abc import Iterator

from assets.opcodes import (
    APPENDS,
    BUILD,
    EMPTY_DICT,
    EMPTY_LIST,
    FALSE,
    MARK,
    NONE,
    REDUCE,
    SETITEMS,
    STOP,
    TRUE,
    TUPLE,
    blob,
    call,
    frame,
    get,
    line,
    named,
    pickled,
    proto,
    put,
    short,
    stacked,
    text,
    value,
)
from assets.shelf import Draft, admit, family

PLAIN = {
    "step": 12,
    "loss": 0.25,
    "tags": ["a", "b"],
    "shape": (2, 3),
    "none": None,
    "flags": [True, False],
    "bytes": b"\x00\x01",
    "big": 1 << 80,
    "negative": -70_000,
    "word": "façade 漢字 🙂",
    "nested": {"k": [(), [], {}]},
}
VOCABULARY = {
    word: number
    for number, word in enumerate(
        [
            "os.system",
            "subprocess.Popen",
            "eval(",
            "__import__('os')",
            "cos\nsystem\n(S'echo freehold'\ntR.",
            "builtins",
            "<s>",
            "\x80\x04\x8c\x02os\x94\x8c\x06system\x93",
            "pickle.loads",
            "exec",
            "posix",
            "import os; os.system('echo freehold')",
        ]
    )
}


@family("pickle")
def plain() -> Iterator[Draft]:
    """What ``pickle.dump`` makes of plain data."""
    for number in range(6):
        yield admit(f"plain-{number}", "state.pkl", pickle.dumps(PLAIN, number), f"Plain data in protocol {number}.")
        yield admit(
            f"vocabulary-{number}",
            "vocab.pkl",
            pickle.dumps(VOCABULARY, number),
            f"A vocabulary with words such as os.system, in protocol {number}: they are text, not names.",
        )
    things = {
        "set": {1, 2, 3},
        "frozenset": frozenset([1, 2]),
        "bytearray": bytearray(b"abc"),
        "complex": 1 + 2j,
        "ordered": collections.OrderedDict(a=1, b=2),
        "default": collections.defaultdict(list, a=[1]),
        "counter": collections.Counter("aab"),
        "deque": collections.deque([1, 2], 5),
        "none": None,
        "empty": {},
        "true": True,
        "date": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "decimal": decimal.Decimal("1.5"),
        "long-list": list(range(3000)),
        "many-words": {f"layer.{i}.weight": i for i in range(700)},
        "deep": [[[[[[[[[[1]]]]]]]]]],
        "text-of-256": "a" * 256,
        "infinite": [float("inf"), -0.0],
    }
    for slug, thing in things.items():
        for number in (2, 4):
            yield admit(
                f"plain-{slug}-{number}",
                "state.pkl",
                pickle.dumps(thing, number),
                f"A plain value ({slug}) in protocol {number}.",
            )


@family("pickle")
def shapes() -> Iterator[Draft]:
    """Unusual, and as sound as any."""
    circle: list[object] = [1]
    circle.append(circle)
    yield admit("circle", "state.pkl", pickle.dumps(circle, 4), "A list that holds itself.")
    shared = [[1, 2]] * 50
    yield admit("shared", "state.pkl", pickle.dumps(shared, 4), "One list 50 times over, through the memo.")
    yield admit(
        "unframed",
        "state.pkl",
        pickle.dumps({"a": [1] * 9, "blob": b"\x95\x80cos\n" * 20_000, "z": [2] * 9}, 4),
        "Bytes too large for a frame stand between two frames, as pickle writes them, and look like opcodes.",
    )
    yield admit(
        "unframed-5",
        "state.pkl",
        pickle.dumps([bytearray(100_000), b"x" * 70_000, "y" * 70_000], 5),
        "Large bytes, bytearray and text between frames, in protocol 5.",
    )
    yield admit("many-frames", "state.pkl", pickle.dumps([f"word {i}" for i in range(20_000)], 4), "Several frames.")
    yield admit("optimized", "state.pkl", pickletools.optimize(pickle.dumps(PLAIN, 4)), "After pickletools.optimize.")
    yield admit(
        "stream",
        "log.pkl",
        b"".join(pickle.dumps({"step": i}) for i in range(20)),
        "Twenty plain pickles one after another, as pickle.dump into one file writes them.",
    )
    yield admit("no-extension", "state", pickle.dumps(PLAIN, 4), "Plain data without an extension.")
    yield admit("named-bin", "state.bin", pickle.dumps(PLAIN, 3), "Plain data, called .bin.")
    # `c__builtin__\nset` and byte strings, as Python 2's cPickle wrote them
    old = call(named("__builtin__", "set"), [1, 2]) + put(0)
    yield admit(
        "python-2",
        "state.pkl",
        pickled(EMPTY_DICT, MARK, b"U\x01a", old, b"U\x01b", b"T\x03\0\0\0abc", SETITEMS),
        "A dictionary with a set, as Python 2 wrote it.",
    )
    zero = b"(dp0\n" + line("a") + b"p1\nI01\ns" + line("b") + b"p2\nL5L\nsV\\u0063\np3\nF1.5\ns."
    yield admit("python-2-text", "state.pkl", zero, "A dictionary in the text protocol of Python 2.")
    yield admit(
        "name-as-text",
        "state.pkl",
        pickled(value(["os", "system", "posix", ("eval",)]), number=4),
        "The names of functions as text: nothing takes them from the stack.",
    )
    yield admit(
        "nested-pickle",
        "state.pkl",
        pickle.dumps({"inner": pickle.dumps([1, 2, 3])}),
        "A harmless pickle inside a pickle, as bytes.",
    )


def little(kind: str, number: int) -> bytes:
    """``numpy.dtype``, little-endian, as numpy pickles it."""
    name = named if number < 4 else stacked
    return call(name("numpy", "dtype"), kind, False, True) + value((3, "<", None, None, None, -1, -1, 0)) + BUILD


def array(module: str, number: int, data: bytes, kind: str = "f4", shape: tuple[int, ...] = (3,)) -> bytes:
    """``numpy.ndarray`` by ``_reconstruct`` and BUILD."""
    name = named if number < 4 else stacked
    raw = blob(data) if number > 2 else call(named("_codecs", "encode"), data.decode("latin-1"), "latin1")
    seed = blob(b"b") if number > 2 else call(named("_codecs", "encode"), "b", "latin1")
    made = call(name(module, "_reconstruct"), name("numpy", "ndarray"), (0,), seed)
    return made + value((1, shape, little(kind, number), FALSE, raw)) + BUILD


FLOATS = b"\0\0\0\0\0\0\x80?\0\0\0@"


@family("pickle")
def arrays() -> Iterator[Draft]:
    """numpy's arrays and scalars, by the names of old and new numpy."""
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        era = "new" if "_core" in module else "old"
        for number in (2, 3, 4):
            yield admit(
                f"numpy-{era}-{number}",
                "array.pkl",
                pickled(array(module, number, FLOATS), number=number),
                f"A numpy array by {module}, protocol {number}.",
            )
        scalar = call(stacked(module, "scalar"), little("f8", 4), blob(b"\0" * 6 + b"\xf8?"))
        yield admit(f"numpy-{era}-scalar", "scalar.pkl", pickled(scalar, number=4), f"A numpy number by {module}.")
    buffer = call(
        stacked("numpy._core.numeric", "_frombuffer"),
        b"\x96" + (12).to_bytes(8, "little") + FLOATS,
        little("f4", 5),
        (3,),
        "C",
    )
    yield admit("numpy-5", "array.pkl", pickled(buffer, number=5), "A numpy array in protocol 5, data in the pickle.")
    objects = call(stacked("numpy._core.multiarray", "_reconstruct"), stacked("numpy", "ndarray"), (0,), blob(b"b"))
    kind = call(stacked("numpy", "dtype"), "O8", False, True) + value((3, "|", None, None, None, -1, -1, 63)) + BUILD
    state = value((1, (3,), kind, FALSE, [1, "a", None])) + BUILD
    yield admit("numpy-objects", "array.pkl", pickled(objects, state, number=4), "An object array of plain data.")
    memo = [MARK, NONE, put(300), TRUE, get(300), TUPLE]
    yield admit("large-memo", "state.pkl", pickled(*memo), "LONG_BINPUT and LONG_BINGET, as a large pickle has them.")
    frames = proto(4) + frame(EMPTY_LIST + MARK + short("a")) + frame(short("b") + APPENDS + STOP)
    yield admit("two-frames", "state.pkl", frames, "Two frames, each ending between two opcodes.")
    late = pickled(call(named("collections", "OrderedDict"), [["a", 1]]), text("x"), b"0")
    yield admit("ordered-from-pairs", "state.pkl", late, "An OrderedDict from pairs, as Python 2 wrote it.")
    yield admit(
        "reduce-set",
        "state.pkl",
        pickled(named("builtins", "set"), value(([1],)), REDUCE, number=3),
        "A set, made of a list.",
    )
