"""NumPy's .npy: the header is read without running it, bytes are counted, objects are judged as the pickle they are."""

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pickling import F8, OBJECT, array, call, judge, pickled, rules

from freehold.scan import npy

SYSTEM = call("os.system", "echo attack")


def file(
    descr: str = "'<f8'", shape: str = "(2, 3)", data: bytes = b"\0" * 48, version: int = 1, more: str = ""
) -> bytes:
    """A .npy file with these words in its header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, {more}}}".encode()
    header = header.ljust(-(-(len(header) + 11) // 64) * 64 - 11) + b"\n"
    return npy.MAGIC + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + data


SOUND = {
    "floats": file(),
    "version 2": file(version=2),
    "version 3": file("[('\u00fc', '<f8')]", version=3),
    "a scalar": file("'<i4'", "()", b"\0" * 4),
    "nothing": file("'<i4'", "(0,)", b""),
    "one dimension": file("'|b1'", "(5,)", b"\0" * 5),
    "Python 2's lengths": file("'<f8'", "(2L, 3L)"),
    "text": file("'<U5'", "(2,)", b"\0" * 40),
    "bytes": file("'|S3'", "(2,)", b"\0" * 6),
    "void": file("'|V7'", "(2,)", b"\0" * 14),
    "dates": file("'<M8[ns]'", "(2,)", b"\0" * 16),
    "spans of time": file("'<m8[25us]'", "(2,)", b"\0" * 16),
    "complex": file("'<c16'", "(2,)", b"\0" * 32),
    "fields": file("[('a', '<i4'), ('b', '<f8', (2, 2)), ('', '|V4')]", "(2,)", b"\0" * 80),
    "fields with titles, in fields": file("[(('t', 'a'), [('x', '<i2'), ('y', '|S3')])]", "(2,)", b"\0" * 10),
    "objects of plain data": file("'|O'", "(3,)", pickled(array((3,), OBJECT, [1, "os.system", [None]]))),
    "fields with objects": file("[('o', '|O'), ('i', '<i4')]", "(1,)", pickled(array((1,), F8, b"\0" * 8))),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_arrays_pass(name):
    """Every type of elements, with all bytes accounted for."""
    found = judge(SOUND[name], "x.npy")
    assert (found.format, found.findings) == ("npy", ()), name


def test_the_bytes_of_an_array_are_data():
    """They are hashed and counted, not parsed."""
    assert judge(file()).data == 48


BROKEN = {
    "an expression": (file("__import__('os').system('echo attack')"), "npy.header"),
    "a call": (file("'<f8'", "(2,).__class__"), "npy.header"),
    "an unknown type": (file("'<q9'"), "npy.header"),
    "a size that the type has not": (file("'<f3'", "(2,)", b"\0" * 6), "npy.header"),
    "an element of 2**40 bytes": (file("'|V1099511627776'", "(0,)", b""), "npy.header"),
    "a negative length": (file("'<f8'", "(-1,)", b""), "npy.header"),
    "a truth value as a length": (file("'<f8'", "(True,)", b"\0" * 8), "npy.header"),
    "lengths without end": (file("'<f8'", "(99999999999, 99999999999)", b"\0" * 8), "npy.length"),
    "too few bytes": (file(data=b"\0" * 47), "npy.length"),
    "too many bytes": (file(data=b"\0" * 49), "npy.length"),
    "a header past the end": (npy.MAGIC + b"\1\0\xff\xff{}", "scan.truncated"),
    "a header of 2**31 bytes": (npy.MAGIC + b"\2\0" + struct.pack("<I", 1 << 31), "npy.header"),
    "version 9": (npy.MAGIC + b"\x09\0" + b"\0" * 80, "npy.header"),
    "brackets without end": (npy.MAGIC + b"\1\0\xe8\x03" + b"(" * 1000, "npy.header"),
    "another key": (file(more="'x': 1"), "npy.header"),
    "a key twice": (file(more="'shape': (2, 3)"), "npy.header"),
    "an object array that is none": (file("'|O'", "(1,)", pickled(1)), "npy.objects"),
    "objects that run code": (file("'|O'", "(1,)", pickled(array((1,), OBJECT, [SYSTEM]))), "pickle.code"),
    "code in place of an array": (file("'|O'", "(1,)", pickled(SYSTEM)), "pickle.code"),
    "bytes behind the objects": (file("'|O'", "(1,)", pickled(array((1,), OBJECT, [1])) + b"more"), "pickle.behind"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_rule_is_named(name):
    """Headers, lengths and objects (CVE-2019-6446)."""
    content, rule = BROKEN[name]
    assert rule in rules(content, "x.npy"), name


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text("(){}[],:'\"0123TrueNoneFalse ", max_size=200))
def test_a_literal_is_read_or_refused(text):
    """Whatever stands there: a value or a ValueError, in no time."""
    start = time.monotonic()
    try:
        value = npy.literal(text)
    except ValueError:
        value = None
    assert value is None or isinstance(value, (str, int, bool, tuple, list, dict))
    assert time.monotonic() - start < 1


@given(st.recursive(st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text("abc <|", max_size=5),
                    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
                    | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=3), max_leaves=10))  # fmt: skip
def test_a_literal_is_what_python_writes(value):
    """Anything that a header may hold is read back from its repr."""
    assert npy.literal(repr(value)) == value


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200).map(lambda rest: npy.MAGIC + rest) | st.tuples(
    st.sampled_from(sorted(SOUND.values())), st.integers(0, 300), st.integers(0, 255)
).map(lambda it: it[0][: it[1]] + bytes([it[2]]) + it[0][it[1] + 1 :]))  # fmt: skip
def test_nothing_makes_the_scanner_fall(content):
    """Any header and any change of a sound file."""
    judge(content, "x.npy")
