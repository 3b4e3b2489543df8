"""ONNX: models pass with their facts; data from elsewhere, shapes that lie and foreign operators do not."""

import os
import tempfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import damaged, field, judge, message, rules, varint

from freehold.scan import external, folder, formats, protobuf
from freehold.scan.base import Malformed, Report
from freehold.scan.tape import MemoryTape
from freehold.types import Judged, Span


def tensor(*extra: tuple, dims=(2, 2), kind=1, raw=b"\0" * 16, name="w") -> bytes:
    data = [(9, raw)] if raw is not None else []
    return message(*((1, dim) for dim in dims), (2, kind), (8, name), *data, *extra)


def outside(*pairs: tuple, **shape) -> bytes:
    """A tensor whose data lies in another file."""
    entries = [(13, message((1, key), (2, value))) for key, value in pairs]
    return tensor(*entries, (14, 1), raw=None, **shape)


def node(op="MatMul", *extra: tuple, domain="") -> bytes:
    return message((1, "x"), (1, "w"), (2, "y"), (4, op), *extra, *([(7, domain)] if domain else []))


def attribute(*extra: tuple) -> bytes:
    return message((1, "value"), *extra)


def graph(*fields: tuple) -> bytes:
    return message(*fields, (2, "g"), (11, message((1, "x"))), (12, message((1, "y"))))


def model(*fields: tuple, inside: bytes | None = None, opsets=(("", 18),)) -> bytes:
    inside = graph((1, node()), (5, tensor())) if inside is None else inside
    versions = [(8, message((1, domain), (2, version))) for domain, version in opsets]
    return message((1, 8), (2, "tests"), (7, inside), *versions, *fields)


def with_data(*pairs: tuple, **shape) -> bytes:
    return model(inside=graph((1, node()), (5, outside(*pairs, **shape))))


def test_a_model_passes_with_its_facts():
    """Operator sets, producer, no external data; every byte parsed or passed."""
    judged = judge(model((14, message((1, "url"), (2, "https://example.org/../x")))))
    assert judged.format == "onnx" and rules(judged) == set() and not judged.unjudged
    assert judged.facts == {"external": [], "opsets": {"": 18}, "producer": "tests", "weights": True}


def test_data_beside_the_model_passes_and_is_listed():
    """So that whoever sees the folder can look for links and sizes."""
    judged = judge(with_data(("location", "sub/x.onnx_data"), ("offset", "4096"), ("length", "16")))
    assert rules(judged) == set()
    assert judged.facts["external"] == [{"location": "sub/x.onnx_data", "offset": 4096, "length": 16}]


def test_a_large_tensor_passes_as_data():
    """Its bytes are hashed, not held."""
    judged = judge(model(inside=graph((1, node()), (5, tensor(dims=(1 << 20,), raw=bytes(4 << 20))))))
    assert rules(judged) == set() and judged.data >= 4 << 20


@pytest.mark.parametrize("location", [
    "/etc/passwd", "../x", "a/../../x", "a/..", "..\\x", "a\\b", "C:x", "file:///etc/passwd", "https://x/y", "~/x", "",
    "a\0b",
])  # fmt: skip
def test_data_from_outside_the_folder_blocks(location):
    """Absolute, climbing, of another system, a URL, or nothing at all."""
    assert ("onnx.external.location", "block") in rules(judge(with_data(("location", location), ("length", "16"))))


@pytest.mark.parametrize(("pairs", "rule"), [
    ([("location", "*/_ORT_MEM_ADDR_/*"), ("offset", "4096")], "onnx.external.memory"),
    ([("location", "x"), ("offset", "-1")], "onnx.external.range"),
    ([("location", "x"), ("offset", "9" * 18)], "onnx.external.range"),
    ([("location", "x"), ("length", "1e9")], "onnx.external.range"),
    ([("location", "x"), ("length", "9" * 60)], "onnx.external.range"),
    ([("location", "x"), ("length", "1000")], "onnx.shape"),
    ([("location", "x"), ("location", "y")], "onnx.external.key"),
    ([("offset", "0")], "onnx.external.key"),
    ([("location", "x"), ("basepath", "/etc")], "onnx.external.location"),
])  # fmt: skip
def test_external_data_that_cannot_be_meant_blocks(pairs, rule):
    """Addresses, negative and huge numbers, keys twice, no location, another base."""
    assert (rule, "block") in rules(judge(with_data(*pairs)))


def test_data_in_the_file_and_outside_it_at_once_blocks():
    """Readers differ on which counts."""
    both = tensor((13, message((1, "location"), (2, "x"))), (14, 1))
    assert ("onnx.external.key", "block") in rules(judge(model(inside=graph((5, both)))))


def test_an_unknown_key_of_external_data_holds():
    """Readers set attributes by it."""
    found = rules(judge(with_data(("location", "x"), ("__class__", "y"))))
    assert found == {("onnx.external.foreign", "hold")}


BAD = outside(("location", "../x"), ("length", "16"))
PLACES = {
    "attribute": graph((1, node("Constant", (5, attribute((5, BAD)))))),
    "list of tensors": graph((1, node("X", (5, attribute((10, BAD)))))),
    "sub-graph": graph((1, node("If", (5, attribute((6, graph((5, BAD)))))))),
    "list of graphs": graph((1, node("X", (5, attribute((11, graph((5, BAD)))))))),
    "sparse initializer": graph((1, node()), (15, message((1, BAD), (3, 4)))),
    "sparse attribute": graph((1, node("X", (5, attribute((22, message((2, BAD)))))))),
    "list of sparse tensors": graph((1, node("X", (5, attribute((23, message((1, BAD)))))))),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_place_is_left_out(place):
    """A tensor may lie anywhere in the graph."""
    assert ("onnx.external.location", "block") in rules(judge(model(inside=PLACES[place])))


@pytest.mark.parametrize("extra", [
    (20, message((1, graph((5, BAD))))), (20, message((2, graph((5, BAD))))),
    (25, message((1, "F"), (10, "f"), (7, node("C", (5, attribute((5, BAD)))))))
    , (25, message((1, "F"), (10, "f"), (11, attribute((5, BAD))))),
])  # fmt: skip
def test_training_and_functions_are_walked(extra):
    """They hold graphs, nodes and defaults of attributes."""
    assert ("onnx.external.location", "block") in rules(judge(model(extra)))


def test_an_operator_of_an_unknown_domain_holds():
    """Only a library of the publisher's own code has it."""
    found = rules(judge(model(inside=graph((1, node("Custom", domain="my.ops"))))))
    assert found == {("onnx.domain", "hold")}


def test_an_operator_that_the_model_defines_itself_passes():
    """A function of standard nodes needs no library."""
    function = (25, message((1, "Sq"), (10, "my.ops"), (7, node("Mul")), (9, message((1, ""), (2, 18)))))
    whole = model(function, inside=graph((1, node("Sq", domain="my.ops"))), opsets=(("", 18), ("my.ops", 1)))
    assert rules(judge(whole)) == set()


@pytest.mark.parametrize("domain", ["ai.onnx.ml", "com.microsoft", "ai.onnx.training"])
def test_operators_of_the_known_domains_pass(domain):
    """The standard's own and the engine's own."""
    assert rules(judge(model(inside=graph((1, node("FusedMatMul", domain=domain)))))) == set()


@pytest.mark.parametrize(("op", "rule"), [
    ("PyOp", ("onnx.python", "block")), ("PythonOp", ("onnx.python", "block")),
    ("EPContext", ("onnx.compiled", "hold")),
])  # fmt: skip
def test_operators_that_run_other_code_are_found(op, rule):
    """Python that is named in the model, and programs compiled for an accelerator."""
    assert rule in rules(judge(model(inside=graph((1, node(op, domain="com.microsoft"))))))


@pytest.mark.parametrize("bad", [
    tensor(dims=(2, 3)), tensor(dims=(-1,)), tensor(dims=(1 << 40, 1 << 40), raw=b""),
    tensor(dims=(1 << 62, 4), raw=b""),
    tensor((4, b"\0" * 8), raw=None), tensor((6, b"a"), kind=8, raw=None), tensor((5, b"\1\1"), kind=6, raw=None),
])  # fmt: skip
def test_a_shape_that_its_data_does_not_fill_blocks(bad):
    """Negative, overflowing, too little, too much."""
    assert ("onnx.shape", "block") in rules(judge(model(inside=graph((5, bad)))))


@pytest.mark.parametrize("good", [
    tensor(dims=(), raw=b"\0" * 4), tensor(dims=(0,), raw=None), tensor(dims=(0, 5), raw=b""),
    tensor((6, b"os.system"), (6, b""), dims=(2,), kind=8, raw=None),
    tensor((4, b"\0" * 16), raw=None), tensor((5, b"\1\2\x80\1\3"), kind=6, raw=None),
    tensor(dims=(3,), kind=22, raw=b"\0\0"),
    tensor((5, b"\1\1"), dims=(3,), kind=22, raw=None),
    tensor((4, bytes(16)), dims=(2,), kind=14, raw=None), tensor((5, varint(-5)), (5, 7), dims=(2,), kind=6, raw=None),
])  # fmt: skip
def test_shapes_of_every_sort_pass(good):
    """Scalars, nothing, words, packed numbers, half bytes, complex numbers."""
    assert rules(judge(model(inside=graph((5, good))))) == set()


def test_an_unknown_field_holds_and_a_field_twice_does_too():
    """Nobody has judged the one; readers differ on the other."""
    assert rules(judge(model((99, b"something")))) == {("protobuf.unknown", "hold")}
    assert rules(judge(model(inside=graph((1, node()), (77, b"x"))))) == {("protobuf.unknown", "hold")}
    assert rules(judge(model((7, graph((1, node())))))) == {("protobuf.twice", "hold")}


def test_a_file_that_is_cut_off_blocks():
    """It says so, whatever its name."""
    judged = judge(model()[:-9], "model.onnx")
    assert judged.format == "onnx" and ("protobuf.length", "block") in rules(judged)


NODES = {1: protobuf.Field("m", "M", False), 2: protobuf.Field("n", "int", True), 3: protobuf.Field("t", "text", False)}


@pytest.mark.parametrize(("content", "rule"), [
    (b"\x10\x80\x00", "protobuf.varint"), (b"\x10" + b"\xff" * 9 + b"\x02", "protobuf.varint"),
    (b"\x10" + b"\xff" * 11, "protobuf.varint"), (b"\x10\x80", "protobuf.length"), (b"\x1a\x05abc", "protobuf.length"),
    (b"\x1a" + varint(1 << 63), "protobuf.length"), (b"\x0a\x02\x1a\x05aaaaaa", "protobuf.length"),
    (b"\x13\x14", "protobuf.wire"),
    (b"\x18\x01", "protobuf.wire"), (b"\x00\x01", "protobuf.wire"), (field(2, b"\x01\x80"), "protobuf.length"),
])  # fmt: skip
def test_what_readers_would_read_differently_is_malformed(content, rule):
    """Long numbers, lengths beyond the parent, groups, other types, the field number nought."""
    with pytest.raises(Malformed) as fault:
        protobuf.read(MemoryTape(content), {"M": NODES}, "M", Report("x", print, size=9), {})
    assert fault.value.rule.id == rule


def test_messages_within_messages_end():
    """Deeper than readers go is malformed, not a stack that runs over."""
    content = b""
    for _ in range(300):
        content = field(1, content)
    with pytest.raises(Malformed) as fault:
        protobuf.read(MemoryTape(content), {"M": NODES}, "M", Report("x", print, size=9), {})
    assert fault.value.rule is protobuf.NESTED


def test_what_is_kept_is_bounded():
    """A million numbers are not held because a file has them."""
    content = field(2, b"\1" * (3 << 20))
    with pytest.raises(Malformed) as fault:
        protobuf.read(MemoryTape(content), {"M": NODES}, "M", Report("x", print, size=9), {})
    assert fault.value.rule is protobuf.LONG


SOUND = model(
    (25, message((1, "Sq"), (10, "my"), (7, node("Mul", (5, attribute((5, tensor()), (8, b"\1\2"))))))),
    inside=graph((1, node("If", (5, attribute((6, graph((5, tensor()))))))), (5, outside(("location", "x")))),
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SOUND)), st.integers(0, len(SOUND)), st.binary(min_size=1, max_size=8))
def test_a_damaged_model_is_judged_and_never_a_crash(cut, at, put):
    """Any bytes anywhere, cut anywhere."""
    judge(damaged(SOUND, cut if cut % 3 == 0 else 0, at, put))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_judged(content):
    """Behind a head that says ONNX."""
    judge(message((1, 8)) + field(7, field(1, content) + field(2, "g")))
    judge(content)


def test_models_found_on_this_machine_pass():
    """Where the reference implementation is installed, its own examples."""
    onnx = pytest.importorskip("onnx")
    top = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
    paths = [
        os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names if name.endswith(".onnx")
    ]
    for path in paths:
        with open(path, "rb") as file:
            assert rules(judge(file.read())) == set(), path


RAW = bytes(range(200, 256)) * 2000  # the data of tensors, like no format


def in_a_folder(path, model: bytes, data: bytes, name="model.onnx_data"):
    (path / "model.onnx").write_bytes(model)
    (path / name).write_bytes(data)
    return folder.scan(path, "auto")


def test_a_model_whose_data_lies_beside_it_is_admitted(tmp_path):
    """The data is its tensors', to the last byte; the account still adds up."""
    content = with_data(("location", "model.onnx_data"), ("length", str(len(RAW))), dims=(len(RAW),), kind=3)
    scanned = in_a_folder(tmp_path, content, RAW)
    data = next(judged for judged in scanned.files if judged.file == "model.onnx_data")
    assert str(scanned.verdict) == "admit" and data.data == data.size and not data.unjudged


def test_data_that_no_tensor_covers_is_held(tmp_path):
    """It is said where."""
    content = with_data(("location", "model.onnx_data"), ("length", "16"))
    scanned = in_a_folder(tmp_path, content, RAW)
    assert str(scanned.verdict) == "hold"
    assert [(found.rule, found.file, found.where) for found in scanned.findings] == [
        ("external.uncovered", "model.onnx_data", "byte 16")
    ]


def test_data_with_a_format_of_its_own_is_judged_as_that(tmp_path):
    """A pickle that a tensor claims is a pickle all the same."""
    payload = b"cos\nsystem\n(S'echo'\ntR."
    content = with_data(("location", "model.onnx_data"), ("length", str(len(payload))), dims=(len(payload),), kind=3)
    assert str(in_a_folder(tmp_path, content, payload).verdict) == "block"


def beside(*parts: tuple, size=200_000, rule="opaque.unknown", path="a/data", location="data", kind="opaque") -> Judged:
    """A data file, as it comes back when a model beside it claims these parts."""
    with tempfile.TemporaryFile() as file:
        file.write(b"\xc8\xc9" * 40)
        file.flush()
        finding = formats.judge(file.fileno(), 80, path).findings[0]
    claims = [{"location": location, "offset": begin, "length": length} for begin, length in parts]
    model = Judged("a/m.onnx", "onnx", 10, "sha256:0", 10, facts={"external": claims})
    finding = msgspec.structs.replace(finding, rule=rule)
    data = Judged(path, kind, size, "sha256:1", 0, 0, (Span(0, size, "unknown"),), (finding,))
    other, judged = external.credit([model, data])
    assert other == model
    assert judged.parsed + judged.data + sum(span.end - span.start for span in judged.unjudged) == size
    return judged


@pytest.mark.parametrize("parts", [
    [(0, 200_000)], [(0, 100), (100, 199_900)], [(100, 199_900), (0, 100)], [(0, 150_000), (50_000, 150_000)],
    [(0, None)], [(0, 100), (4096, None)], [(0, 100), (65_536, 134_464)], [(0, 200_000), (7, 0)],
])  # fmt: skip
def test_what_tensors_cover_is_credited(parts):
    """In any order, twice, to the end of the file, and with padding up to a page."""
    judged = beside(*parts)
    assert not judged.findings and judged.data >= 134_464


@pytest.mark.parametrize(("parts", "where"), [
    ([(1, 199_999)], "byte 0"), ([(0, 199_900)], "byte 199900"), ([(0, 100), (4097, None)], "byte 100"),
    ([(0, 100), (131_072, None)], "byte 100"), ([(0, 10), (300_000, 5)], "byte 10"),
    ([*((index << 15, 1) for index in range(6)), (6 << 15, None)], "byte 1"),
])  # fmt: skip
def test_what_alignment_does_not_explain_is_held(parts, where):
    """A gap at the start, at an odd place, of more than 64 KiB; more padding than tensors."""
    judged = beside(*parts)
    assert [(found.rule, found.where) for found in judged.findings] == [("external.uncovered", where)]


@pytest.mark.parametrize("what", [
    {"location": "../a/data"}, {"location": "/a/data"}, {"location": "other"}, {"path": "data"}, {"kind": "pickle"},
    {"rule": "pickle.global"},
])  # fmt: skip
def test_only_an_unknown_file_beneath_the_folder_is_credited(what):
    """Not by a name that climbs, nor one with findings of its own."""
    judged = beside((0, None), **what)
    assert len(judged.findings) == 1 and not judged.data


def test_a_name_that_lies_is_forgiven_only_where_all_is_covered():
    """No reader could open it by its name; what is not covered keeps its block."""
    assert not beside((0, None), rule="opaque.misnamed").findings
    assert beside((0, 9), rule="opaque.misnamed").findings[0].rule == "opaque.misnamed"
