"""SavedModel and GraphDef: operators that read, write or call Python. Format: tensorflow's ``saved_model.proto``,
``meta_graph.proto``, ``graph.proto``, ``node_def.proto`` and ``function.proto``."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping

from assets.opcodes import attack
from assets.protobuf import claiming, field, message
from assets.shelf import Content, Draft, Link, admit, block, family, hold

DT_FLOAT, DT_STRING = 1, 7


def node(name: str, operator: str, *inputs: str, **attributes: bytes) -> bytes:
    """A NodeDef; attributes are AttrValues."""
    head = message((1, name), (2, operator)) + b"".join(field(3, one) for one in inputs)
    return head + b"".join(field(5, message((1, key), (2, value))) for key, value in attributes.items())


def kind(number: int) -> bytes:
    return field(6, number)


def constant(name: str, text: str) -> bytes:
    tensor = message((1, DT_STRING), (2, b""), (8, text))
    return node(name, "Const", dtype=kind(DT_STRING), value=field(8, tensor))


def numbers(name: str, *values: float) -> bytes:
    shape = message((2, message((1, len(values)))))
    tensor = message((1, DT_FLOAT), (2, shape), (4, struct.pack(f"<{len(values)}f", *values)))
    return node(name, "Const", dtype=kind(DT_FLOAT), value=field(8, tensor))


def graph(*nodes: bytes, library: bytes = b"") -> bytes:
    body = b"".join(field(1, one) for one in nodes)
    return body + (field(2, library) if library else b"") + field(4, message((1, 1882)))


def function(name: str, *nodes: bytes) -> bytes:
    """A function library with one function."""
    signature = field(1, name)
    return field(1, field(1, signature) + b"".join(field(3, one) for one in nodes))


def saved(body: bytes) -> bytes:
    """A SavedModel with one meta graph, tagged for serving."""
    info = message((4, "serve"), (5, "2.15.0"))
    return message((1, 1), (2, message((1, info), (2, body))))


# One float variable of two values, as TensorFlow 2.21 saves it: a table of names, and the bytes.
VARIABLES: dict[str, Content] = {
    "variables/variables.index": base64.b64decode(
        "AAAGCAEaAggBABwOX0NIRUNLUE9JTlRBQkxFX09CSkVDVF9HUkFQSAgHEgAgCCijATWc6cVhABwPdy8uQVRUUklCVVRFUy9WQVJJQUJM"
        "RV9WQUxVRQgBEgQSAggCKAg1WTzlNQAAAAABAAAAANZzTkAAAAAAAQAAAADA8qGwAAECeABsAAAAAAEAAAAAUZ1YBHEIfg4AAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABX+4CLJHVH2w=="
    ),
    "variables/variables.data-00000-of-00001": base64.b64decode(
        "AACAPwAAAECdAdkxVDkKKQoFCAESAXcKDAgCEghfX2NhbGxfXwoOCAMSCnNpZ25hdHVyZXMqAggBCj4SOAoOVkFSSUFCTEVfVkFMVUUS"
        "CFZhcmlhYmxlGhx3Ly5BVFRSSUJVVEVTL1ZBUklBQkxFX1ZBTFVFKgIIAQoPCgsIBBIHdHJhY2VfMCoAChcKEwgFEg9zZXJ2aW5nX2Rl"
        "ZmF1bHQqAAoCKgAKAioA"
    ),
}


def folder(body: bytes, more: Mapping[str, Content] | None = None) -> dict[str, Content]:
    return {"saved_model.pb": saved(body), **VARIABLES, **(more or {})}


PLAIN = (numbers("w", 1.0, 2.0), node("y", "Identity", "w", T=kind(DT_FLOAT)))
OPERATORS = {
    "ReadFile": "reads any file",
    "WriteFile": "writes any file",
    "PyFunc": "calls a Python function",
    "PyFuncStateless": "calls a Python function",
    "EagerPyFunc": "calls a Python function",
    "MatchingFiles": "lists a folder",
    "ImmutableConst": "maps any file into memory",
    "Save": "writes any file",
    "DebugIdentityV2": "writes tensors to any address",
    "PrintV2": "writes to any file that its output_stream names",
    "WholeFileReaderV2": "reads whole files",
}

CERTAIN = {"ReadFile", "WriteFile", "PyFunc", "PyFuncStateless", "EagerPyFunc"}


@family("tensorflow")
def operators() -> Iterator[Draft]:
    """Each operator in a SavedModel, in turn in the main graph and in a function."""
    for position, (operator, does) in enumerate(OPERATORS.items()):
        bad = (
            constant("path", "/tmp/freehold.txt"),
            node("bad", operator, "path", output_stream=field(2, "file:///tmp/freehold")),
        )
        body = graph(*PLAIN, *bad) if position % 2 else graph(*PLAIN, library=function("inner", *bad))
        least = block if operator in CERTAIN else hold
        yield least(f"op-{operator.lower()}", "", folder(body), f"A SavedModel with {operator}, which {does}.")
    bad = graph(constant("path", "/etc/passwd"), node("bad", "ReadFile", "path"))
    yield block("file-alone", "saved_model.pb", saved(bad), "The protobuf alone, with ReadFile.")
    yield block("graph-def", "frozen.pb", bad, "A frozen graph with ReadFile.")
    yield block(
        "graph-no-extension",
        "frozen",
        graph(*PLAIN, node("bad", "WriteFile", "w", "w")),
        "A frozen graph with WriteFile, without an extension.",
    )
    yield block(
        "two-meta-graphs",
        "",
        {"saved_model.pb": saved(graph(*PLAIN)) + field(2, message((2, bad)))},
        "ReadFile in a second meta graph.",
    )
    yield hold(
        "custom-op",
        "",
        folder(graph(*PLAIN, node("c", "AcmeFancyOp", "w"))),
        "An operator that TensorFlow does not have: a library has to come with it.",
    )
    yield hold(
        "custom-library",
        "",
        folder(graph(*PLAIN), {"assets.extra/ops.so": b"\x7fELF\2\1\1" + b"\0" * 57}),
        "A shared library among the extras.",
    )
    yield block(
        "asset-pickle",
        "",
        folder(graph(*PLAIN), {"assets/vocabulary": attack(0)}),
        "A malicious pickle among the assets.",
    )
    yield hold(
        "asset-symlink",
        "",
        folder(graph(*PLAIN), {"assets/vocabulary.txt": Link("../../../../../../../../etc/hostname")}),
        "An asset that is a symbolic link out of the folder.",
    )
    yield block(
        "keras-metadata",
        "",
        folder(graph(*PLAIN), {"keras_metadata.pb": _keras_metadata()}),
        "A Lambda layer in keras_metadata.pb.",
    )
    yield hold("cut", "saved_model.pb", saved(graph(*PLAIN))[:-20], "A SavedModel that is cut off.")
    yield hold("length", "saved_model.pb", field(1, 1) + claiming(2, 1 << 50), "A meta graph that claims 2**50 bytes.")
    yield hold("tflite", "model.tflite", b"\x1c\0\0\0TFL3" + b"\0" * 56, "TensorFlow Lite, which has no parser here.")
    yield block("pickle", "saved_model.pb", attack(4), "A malicious pickle, called saved_model.pb.")


def _keras_metadata() -> bytes:
    config = (
        '{"class_name": "Lambda", "config": {"name": "l", "function_type": "lambda", '
        '"function": {"class_name": "__tuple__", "items": ["4wAAAA==", null, null]}}}'
    )
    return field(1, message((2, 1), (3, "root.layer-1"), (4, "_tf_keras_layer"), (5, config)))


def checkpointing() -> bytes:
    """What every SavedModel with variables has: functions to save and restore them, at a path that is an argument."""
    save = (
        node("StaticRegexFullMatch", "StaticRegexFullMatch", "file_prefix", pattern=field(2, "^s3://.*")),
        constant("Const", ".part"),
        constant("Const_1", "_temp/part"),
        node("Select", "Select", "StaticRegexFullMatch:output:0", "Const:output:0", "Const_1:output:0"),
        node("StringJoin", "StringJoin", "file_prefix", "Select:output:0"),
        node("ShardedFilename", "ShardedFilename", "StringJoin:output:0", "shard", "num_shards"),
        node("SaveV2", "SaveV2", "ShardedFilename:filename:0", "tensor_names", "shape_and_slices", "Identity_1"),
        node("MergeV2Checkpoints", "MergeV2Checkpoints", "prefixes:output:0", "file_prefix"),
    )
    restore = (
        node("RestoreV2", "RestoreV2", "file_prefix", "tensor_names", "shape_and_slices"),
        node("AssignVariableOp", "AssignVariableOp", "variable", "RestoreV2:tensors:0"),
    )
    return function("__inference__traced_save_53", *save) + function("__inference__traced_restore_65", *restore)


@family("tensorflow")
def sound() -> Iterator[Draft]:
    """Graphs of arithmetic."""
    yield admit("plain", "", {"saved_model.pb": saved(graph(*PLAIN))}, "A SavedModel with a constant and Identity.")
    yield admit("file-alone", "saved_model.pb", saved(graph(*PLAIN)), "The protobuf alone.")
    yield admit("frozen", "frozen.pb", graph(*PLAIN), "A frozen graph.")
    add = node("z", "AddV2", "w", "w", T=kind(DT_FLOAT))
    yield admit(
        "function",
        "",
        {"saved_model.pb": saved(graph(*PLAIN, library=function("inner", numbers("w", 1.0), add)))},
        "A graph with a function.",
    )
    words = saved(
        graph(
            constant("words", "ReadFile WriteFile PyFunc os.system"), node("y", "Identity", "words", T=kind(DT_STRING))
        )
    )
    yield admit("words", "", {"saved_model.pb": words}, "A constant text that says ReadFile: the operator is Const.")
    named = saved(graph(numbers("ReadFile", 1.0), node("PyFunc", "Identity", "ReadFile", T=kind(DT_FLOAT))))
    yield admit(
        "names", "", {"saved_model.pb": named}, "Nodes called ReadFile and PyFunc: the name is not the operator."
    )
    yield admit(
        "assets",
        "",
        {
            "saved_model.pb": saved(graph(*PLAIN)),
            "assets/vocab.txt": "os.system\neval\n",
        },
        "A vocabulary among the assets.",
    )
