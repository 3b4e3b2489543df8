"""Graphs and their weights: printing to files, graphs without their frame, blocks before HDF5, checkpoints."""

import base64
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from wire import damaged, judge, message, rules, varint

from freehold.scan import external, repository
from freehold.scan.walk import Entry


def node(op: str, *more: tuple) -> bytes:
    return message((1, f"the_{op}"), (2, op), (3, "x"), *more)


def saved(graph: bytes) -> bytes:
    return message((1, 1), (2, message((1, message((4, "serve"))), (2, graph))))


def printing(*values: bytes, key="output_stream") -> bytes:
    """A node that prints, with these values of the attribute."""
    return node("PrintV2", *((5, message((1, key), (2, value))) for value in values))


def text(stream) -> bytes:
    return message((2, stream))


HARMLESS = [[], *([text(name)] for name in ("stderr", "stdout", "log(info)", "log(warning)", "log(error)", ""))]
FILES = [[text("file:///tmp/x")], [text("stderr"), text("file:///tmp/x")], [text("file://" + "x" * 5000)],
         [text("stderr\n")], [message((9, "placeholder"))], [text(b"\xff\xfe")]]  # fmt: skip


@pytest.mark.parametrize("values", HARMLESS)
def test_printing_to_a_stream_passes(values):
    """The screen and the log."""
    assert rules(judge(saved(message((1, printing(*values)))))) == set()


@pytest.mark.parametrize("values", FILES)
def test_printing_to_a_file_blocks(values):
    """By any name that is none of the streams, also behind a harmless node, and within a function."""
    bad = printing(*values)
    for graph in (
        message((1, bad)), message((1, printing(text("stdout"))), (1, bad)),
        message((1, node("Const")), (2, message((1, message((1, message((1, "f"))), (3, bad)))))),
    ):  # fmt: skip
        judged = judge(saved(graph))
        assert ("tensorflow.files", "block") in rules(judged) and not judged.unjudged


def test_other_attributes_are_not_streams():
    """A name like a file's in another attribute, and strings of any length, pass."""
    assert rules(judge(saved(message((1, printing(text("file:///x"), key="end")))))) == set()
    assert rules(judge(saved(message((1, printing(text(bytes(3 << 20)), key="module")))))) == set()


BAD = message((1, node("PyFunc")))
HEAD = message((4, "serve"))
LIBRARY = message((2, message((1, message((1, message((1, "f"))), (3, node("PyFunc")))))))


@pytest.mark.parametrize("content", [
    message((2, message((1, HEAD), (2, BAD)))), message((2, message((2, BAD)))), message((2, BAD)), BAD,
    message((1, 0), (2, message((1, HEAD), (2, BAD)))), message((1, 2), (2, message((2, BAD)))),
    message((2, message((2, LIBRARY)))),
])  # fmt: skip
def test_a_graph_without_its_frame_is_read_all_the_same(content):
    """No version, no head, a library alone: readers take all of them."""
    judged = judge(content, "saved_model.pb")
    assert judged.format == "savedmodel" and ("tensorflow.code", "block") in rules(judged)


@pytest.mark.parametrize("content", [
    message((2, "hello")), message((2, message((2, "hello")))), message((2, message((2, message((1, "a"), (2, "b")))))),
    message((1, "a"), (2, "b")), message((2, message((1, "a"), (2, message((1, "a")))))),
])  # fmt: skip
def test_other_messages_are_no_graphs(content):
    """Text in the fields, names without operators."""
    assert judge(content).format != "savedmodel"


# A file that h5py 3.14 writes with a user block of 512 bytes: one dataset.
USER_BLOCK = (
    "c-muN7zHC4bb7eB@p4IVfjJx;3@i)+5D6v-^&bipxKQ~p{RvQ-5lVMJ=@m>caYnG51XNrQYCgKUkRVrAkm~<v0A`N?3xwtvjj|C5JX{?EKy(C@4^5"
    ">ECzw#xm7}Fc4+`yNWMGAu#R%g=QZgeWL;#vB;WRVQWgr;=4p>@s0F$gh9!Q*tiHQ-Cjv?kSGs2Rz0-DVe24y@1`}w<oax^R-Dlm_x%~3E4hAM!SlT"
    "7gP3$;800Gd=RK>"
)


def behind(block: bytes) -> bytes:
    """The file, with this at the start of its user block."""
    whole = zlib.decompress(base64.b85decode(USER_BLOCK))
    return block + whole[len(block) :]


def test_an_empty_user_block_passes():
    """Zeros are nothing."""
    judged = judge(behind(b""), "model.h5")
    assert judged.format == "hdf5" and rules(judged) == set() and not judged.unjudged


@pytest.mark.parametrize("block", [b"cos\nsystem\n(S'echo'\ntR.", b"cposix\nsystem\n(S'echo'\ntR." + bytes(5) + b"x"])
def test_a_pickle_before_an_hdf5_file_blocks(block):
    """Whoever unpickles the file runs it."""
    found = judge(behind(block), "model.h5").findings
    assert [each for each in found if each.severity == "block" and each.where.startswith("user block")]


@pytest.mark.parametrize("block", [b"hello", b"\xc8\xc9" * 40, bytes(100) + b"x"])
def test_anything_else_before_an_hdf5_file_holds(block):
    """Text, unknown bytes, and what stands behind zeros."""
    assert {severity for _, severity in rules(judge(behind(block), "model.h5"))} == {"hold"}


MAGIC = bytes.fromhex("57fb808b247547db")
HEADER = message((1, 1), (3, message((1, 1))))
DATA = bytes(range(200, 240)) * 50


def block(*rows: tuple[bytes, bytes], kind=0) -> bytes:
    """A block of the table with its trailer, its keys written whole."""
    body = b"".join(b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in rows)
    return body + bytes(4) + b"\1\0\0\0" + bytes([kind]) + b"\1\2\3\4"


def table(*rows: tuple[bytes, bytes], kind=0, gap=b"", meta=()) -> bytes:
    """A table of one block of data."""
    data, said = block(*rows, kind=kind) + gap, block(*meta)
    place = varint(0) + varint(len(data) - len(gap) - 5)
    index = block((b"z", place))
    ends = varint(len(data)) + varint(len(said) - 5) + varint(len(data) + len(said)) + varint(len(index) - 5)
    return data + said + index + ends.ljust(40, b"\0") + MAGIC


def entry(offset: int, size: int, *more: tuple) -> bytes:
    return message((1, 1), (2, message((2, message((1, size // 4))))), *more, (4, offset), (5, size), (6, 1.0))


def variables(*spans: tuple, header=HEADER, **how) -> bytes:
    """An index of variables that lie there."""
    return table((b"", header), *((b"v%d" % number, entry(*span)) for number, span in enumerate(spans)), **how)


WHOLE = variables((0, 1000), (1000, len(DATA) - 1000))


def in_a_folder(index: bytes, data: bytes = DATA) -> tuple[list, set]:
    """The files as they come back, and what is found in them and between them."""
    shard = "variables.data-00000-of-00001"
    apart = [structs.replace(judge(index, "variables.index"), file="v/variables.index"),
             structs.replace(judge(data, shard), file=f"v/{shard}")]  # fmt: skip
    files = external.credit(apart)
    between = repository.look(files, [Entry(judged.file, "file", judged.size) for judged in files])
    return files, set().union(*map(rules, files), ((found.rule, str(found.severity)) for found in between))


def test_an_index_as_tensorflow_writes_it_is_read():
    """TensorFlow 2's own: numbers and texts, keys that share their beginning."""
    written = bytes.fromhex(
        "00000608011a0208010001136108011208120208041202080328303568c46a8d010112620801120412020864203028900335"
        "b45472f000011273080712041202080220c00328093599c75aef000000000100000000f419f5ef000000000100000000c0f2"
        "a1b0000102740054000000000100000000bb7983435908660e"
    )
    written += bytes(36) + MAGIC
    judged = judge(written, "variables.index")
    data = "variables.data-00000-of-00001"
    assert rules(judged) == set() and not judged.unjudged
    assert judged.facts == {"weights": True, "tensors": 3, "external": [{"location": data, "offset": 0, "length": 457}]}


def test_a_checkpoint_is_admitted():
    """The index accounts for every byte of the data beside it."""
    files, found = in_a_folder(WHOLE)
    assert not found and not any(judged.unjudged for judged in files) and files[1].data == len(DATA)


@pytest.mark.parametrize("spans", [[(0, 1000)], [(0, 1000), (1200, len(DATA) - 1200)], [(1, len(DATA) - 1)]])
def test_data_that_no_variable_covers_is_held(spans):
    """At the end, between two, at the start."""
    assert in_a_folder(variables(*spans))[1] == {("external.uncovered", "hold")}


def test_data_that_is_missing_blocks():
    """The index asks for more than there is."""
    assert ("repository.external-data", "block") in in_a_folder(variables((0, len(DATA) + 1)))[1]


BROKEN = {
    "snappy": variables((0, 8), kind=1), "bytes between the blocks": variables((0, 8), gap=b"cos"),
    "a block about itself": variables((0, 8), meta=((b"filter.x", b"\0\0"),)),
    "no shards": variables((0, 8), header=message((1, 0))), "a shard too many": variables((0, 8, (3, 1))),
    "a negative place": variables((-8, 8)), "another header": table((b"", HEADER), (b"", message((1, 1)))),
    "something in the footer": WHOLE[:-9] + b"x" + MAGIC,
    "a long key": table((b"", HEADER), (b"k" * 5000, entry(0, 8))),
    "a field of another format": variables((0, 8, (9, "payload"))),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_an_index_that_does_not_read_as_one_is_held(how):
    """What cannot be read holds, and never passes."""
    judged = judge(BROKEN[how], "variables.index")
    assert judged.format == "savedmodel" and {severity for _, severity in rules(judged)} == {"hold"}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.integers(0, len(WHOLE)), st.binary(max_size=12))
def test_a_damaged_index_is_judged_and_never_a_crash(cut, at, put):
    """Each byte has its place in the account, whatever was written over it."""
    judge(damaged(WHOLE[: len(WHOLE) - 8], cut, at, put) + MAGIC, "variables.index")
