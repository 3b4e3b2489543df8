"""TensorFlow graphs and SentencePiece models: what computes passes; what reaches files or runs code does not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import damaged, field, judge, message, rules

SAVING = (
    "Const",
    "Placeholder",
    "MatMul",
    "SaveV2",
    "RestoreV2",
    "MergeV2Checkpoints",
    "ShardedFilename",
    "StringJoin",
)


def node(op: str, *more: tuple) -> bytes:
    return message((1, f"the_{op}"), (2, op), (3, "x"), *more)


def value(*fields: tuple) -> bytes:
    return message((1, "value"), (2, message(*fields)))


def define(name: str, *ops: str) -> bytes:
    """A function of these operators."""
    return message((1, message((1, name))), *((3, node(op)) for op in ops))


def graph(*ops: str, functions: tuple[bytes, ...] = ()) -> bytes:
    library = [(2, message(*((1, function) for function in functions)))] if functions else []
    return message(*((1, node(op)) for op in ops), *library, (4, message((1, 2000))))


def meta(inside: bytes, *more: tuple) -> bytes:
    return message((1, message((4, "serve"), (5, "2.21.0"))), (2, inside), *more)


def saved(inside: bytes, *more: tuple) -> bytes:
    return message((1, 1), (2, meta(inside, *more)))


def metadata(document, identifier="_tf_keras_layer") -> bytes:
    """A keras_metadata.pb with one object."""
    text = document if isinstance(document, str) else json.dumps(document)
    return message((1, message((2, 1), (3, "root.layer"), (4, identifier), (5, text), (6, message((1, 2))))))


@pytest.mark.parametrize("content", [
    saved(graph(*SAVING)), meta(graph(*SAVING)), graph(*SAVING),
    saved(graph("Const", functions=(define("f", *SAVING),))),
    saved(graph("StatefulPartitionedCall", "If", "While", "Print", "PrintV2", "Assert", "VarHandleOp")),
])  # fmt: skip
def test_graphs_that_compute_and_save_pass(content):
    """A SavedModel, a MetaGraph, a frozen graph, functions; saving and restoring are part of every model."""
    judged = judge(content)
    assert judged.format == "savedmodel" and rules(judged) == set() and not judged.unjudged
    assert judged.facts["nodes"] > 0


def test_large_constants_pass_as_data():
    """Their bytes are hashed, not held."""
    constant = node("Const", (5, value((8, message((1, 1), (4, bytes(4 << 20)))))))
    judged = judge(saved(message((1, constant))))
    assert rules(judged) == set() and judged.data >= 4 << 20


@pytest.mark.parametrize(("op", "rule"), [
    ("ReadFile", "files"), ("WriteFile", "files"), ("MatchingFiles", "files"), ("Save", "files"), ("Restore", "files"),
    ("TFRecordDataset", "files"), ("WholeFileReaderV2", "files"), ("SaveDataset", "files"), ("SqlDataset", "files"),
    ("CreateSummaryFileWriter", "files"), ("WriteSummary", "files"), ("LoadAndRemapMatrix", "files"),
    ("PyFunc", "code"), ("PyFuncStateless", "code"), ("EagerPyFunc", "code"), ("LoadLibrary", "code"),
])  # fmt: skip
@pytest.mark.parametrize("place", ["graph", "function", "frozen"])
def test_operators_that_reach_files_or_code_block(op, rule, place):
    """In the graph, in a function of its library, in a frozen graph."""
    content = {
        "graph": saved(graph("Const", op)), "function": saved(graph("Const", functions=(define("f", op),))),
        "frozen": graph("Const", op),
    }[place]  # fmt: skip
    assert (f"tensorflow.{rule}", "block") in rules(judge(content))


@pytest.mark.parametrize("op", ["MyOwnOp", "TRTEngineOp", "MapDataset", "CollectiveReduce", "Text>Op"])
def test_operators_that_are_not_known_hold(op):
    """Of a library of the publisher's own, of data sets, of other machines."""
    assert rules(judge(saved(graph("Const", op)))) == {("tensorflow.operator", "hold")}


def test_a_function_called_by_its_name_passes():
    """What it does stands in the library, and is looked at there."""
    assert rules(judge(saved(graph("Const", "f_1", functions=(define("f_1", "MatMul"),))))) == set()
    bad = saved(graph("Const", "f_1", functions=(define("f_1", "ReadFile"),)))
    assert ("tensorflow.files", "block") in rules(judge(bad))


def asset(name: str) -> tuple:
    return 6, message((1, message((1, "t:0"))), (2, name))


def test_assets_lie_in_the_folder():
    """A vocabulary among them passes; one from elsewhere does not, nor a table without any."""
    table = graph("Const", "HashTableV2", "InitializeTableFromTextFileV2")
    assert rules(judge(saved(table, asset("vocab.txt")))) == set()
    assert rules(judge(saved(table))) == {("tensorflow.table", "hold")}
    for name in ("/etc/passwd", "../x", "a/../../x", "C:x", "gs://bucket/x"):
        assert ("tensorflow.asset", "block") in rules(judge(saved(table, asset(name))))


def test_an_asset_as_tensorflow_1_kept_it_is_judged():
    """It stands in a collection, as a message within bytes."""
    packed = message((1, "type.googleapis.com/tensorflow.AssetFileDef"), (2, message((2, "../x"))))
    collection = message((1, "saved_model_assets"), (2, message((5, message((1, packed))))))
    assert ("tensorflow.asset", "block") in rules(judge(saved(graph("Const"), (4, collection))))
    other = message((1, "saved_model_assets"), (2, message((5, message((1, message((1, "x"), (2, b"y"))))))))
    assert rules(judge(saved(graph("Const"), (4, other)))) == {("protobuf.unknown", "hold")}


def test_what_keras_notes_beside_the_graph_is_judged():
    """In keras_metadata.pb and in the objects of the SavedModel."""
    dense = {"class_name": "Dense", "config": {"name": "lambda_1"}, "keras_version": "2.15.0"}
    code = {"class_name": "Lambda", "config": {"function": ["4wAAAA==", None, None], "function_type": "lambda"}}
    judged = judge(metadata(dense), "keras_metadata.pb")
    assert judged.format == "savedmodel" and rules(judged) == set() and judged.facts["class_name"] == "Dense"
    assert ("keras.code", "block") in rules(judge(metadata(code)))
    assert ("keras.json", "block") in rules(judge(metadata("{")))
    user = message((4, message((1, "_tf_keras_layer"), (3, json.dumps(code)))))
    assert ("keras.code", "block") in rules(judge(saved(graph("Const"), (7, message((1, user))))))


def test_a_fingerprint_passes():
    """It lies beside every SavedModel."""
    judged = judge(message(*((number, (1 << 60) + number) for number in range(1, 6)), (6, message((1, 1))), (7, "7")))
    assert judged.format == "savedmodel" and rules(judged) == set()


def test_a_graph_that_is_cut_off_blocks():
    """It says so, whatever its name."""
    assert ("protobuf.length", "block") in rules(judge(saved(graph(*SAVING))[:-5]))


def piece(text: str, kind: int = 1) -> bytes:
    return message((1, text), (2, -1.5), (3, kind))


WORDS = message(
    *((1, piece(word)) for word in ("<unk>", "os.system", "b")), (2, message((3, 1), (4, 3), (10, 0.5))),
    (3, message((1, "nmt_nfkc"), (2, bytes(300_000)))),
)  # fmt: skip


def test_a_sentencepiece_model_passes():
    """Whatever its words are; its table of characters passes as data."""
    judged = judge(WORDS, "tokenizer.model")
    assert judged.format == "sentencepiece" and rules(judged) == set() and judged.facts == {"pieces": 3}
    assert judged.data >= 300_000


def test_a_sentencepiece_model_with_something_more_holds_and_cut_off_blocks():
    """A field that the format does not have; an end too soon."""
    assert rules(judge(message((1, piece("a") + field(99, b"x")), (2, message((4, 1)))))) != set()
    assert ("protobuf.unknown", "hold") in rules(judge(WORDS + field(2, field(200, b"something"))))
    assert ("protobuf.length", "block") in rules(judge(WORDS[:-9]))


SOUND = saved(
    graph(*SAVING, functions=(define("f", *SAVING),)), asset("vocab.txt"), (7, message((1, message((3, b"")))))
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([SOUND, WORDS[:2000]]),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.binary(min_size=1, max_size=8),
)
def test_a_damaged_file_is_judged_and_never_a_crash(whole, cut, at, put):
    """Any bytes anywhere, cut anywhere."""
    judge(damaged(whole, cut % len(whole) if cut % 3 == 0 else 0, at % len(whole), put))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_in_a_graph_are_judged(content):
    """In a node, in the library, among the signatures and the objects."""
    judge(saved(graph("Const") + field(1, content)))
    judge(saved(graph("Const"), (5, content), (7, content)))
    judge(WORDS[:100] + content)
